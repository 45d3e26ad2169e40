"""OpenVINO on the CPU, in float32, or in bfloat16 where the processor has units for it.

Importing openvino tells Google Analytics of it, from a copy of this process that it makes for that, and leaves files in
the user's home. Nothing of ultron tells anyone what its users do: the package that does so is kept out before.
"""

import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, cast

import torch

from ultron_cli.models.runtimes import Precision, Threads
from ultron_cli.models.runtimes.core import Network, require_exportable, require_precision
from ultron_cli.models.runtimes.exported import example_photo, exported_network
from ultron_cli.models.weights.checkpoints import LoadedModel

if TYPE_CHECKING:
    import openvino

HINTS = {"float32": "f32", "bfloat16": "bf16"}  # OpenVINO's names
TELEMETRY = "openvino_telemetry"  # openvino does without it where it is not installed


def silent_openvino() -> "type[openvino.Core]":
    """OpenVINO's entrance, imported so that it sends nothing to anyone; unless the user's own code has imported it
    before."""
    modules = cast(dict[str, ModuleType | None], sys.modules)
    modules.setdefault(TELEMETRY, None)  # as if it were not installed
    from openvino import Core

    return Core


def open_network(loaded: LoadedModel, device: torch.device, precision: Precision, threads: Threads) -> Network:
    """The compiled network; every thread that calls it has a request of its own."""
    require_precision("openvino", precision, ("float32", "bfloat16"))
    require_exportable("openvino", loaded, device)
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "NUM_STREAMS": str(threads.n_at_once),
        "INFERENCE_NUM_THREADS": str(threads.n_at_once * threads.per_call),
    }
    compiled = silent_openvino()().compile_model(exported_network(loaded), "CPU", settings)
    requests = threading.local()

    def describe(images: torch.Tensor) -> torch.Tensor:
        if not hasattr(requests, "of_thread"):
            requests.of_thread = compiled.create_infer_request()
        descriptors = requests.of_thread.infer([images.contiguous().numpy()], share_inputs=True)[0]
        return torch.from_numpy(descriptors.copy())

    # By one thread: where two make a process's first inference at once, they can wait for each other for ever.
    describe(example_photo(loaded.model))
    return describe
