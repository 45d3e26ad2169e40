"""Sessions of onnxruntime on the CPU."""

from pathlib import Path
from typing import TYPE_CHECKING

from ultron_cli.models.runtimes import Threads

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ERRORS_ONLY = 3


def open_session(path: Path, threads: Threads) -> "InferenceSession":
    """A session; calls from several threads are independent."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.per_call
    options.log_severity_level = ERRORS_ONLY
    # Threads that wait spinning take the cores from those that decode photos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
