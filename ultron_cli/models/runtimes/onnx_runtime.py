"""onnxruntime on the CPU, in float32."""

import onnxruntime
import torch

from ultron_cli.models.runtimes import Precision, Threads
from ultron_cli.models.runtimes.core import Network, require_exportable, require_precision
from ultron_cli.models.runtimes.exported import exported_network
from ultron_cli.models.weights.checkpoints import LoadedModel

ERRORS_ONLY = 3


def open_network(loaded: LoadedModel, device: torch.device, precision: Precision, threads: Threads) -> Network:
    """The network of a session; calls from several threads are independent."""
    require_precision("onnxruntime", precision, ("float32",))
    require_exportable("onnxruntime", loaded, device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.per_call
    options.log_severity_level = ERRORS_ONLY
    # Threads that wait spinning take the cores from those that decode photos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(exported_network(loaded)), options, providers=["CPUExecutionProvider"])

    def describe(images: torch.Tensor) -> torch.Tensor:
        (descriptors,) = session.run(None, {"images": images.contiguous().numpy()})
        return torch.from_numpy(descriptors)

    return describe
