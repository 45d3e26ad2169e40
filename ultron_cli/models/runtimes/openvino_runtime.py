"""OpenVINO on the CPU, in float32, or in bfloat16 where the processor has units for it."""

import threading

import openvino
import torch

from ultron_cli.models.runtimes import Precision, Threads
from ultron_cli.models.runtimes.core import Network, require_exportable, require_precision
from ultron_cli.models.runtimes.exported import exported_network
from ultron_cli.models.weights.checkpoints import LoadedModel

HINTS = {"float32": "f32", "bfloat16": "bf16"}  # OpenVINO's names


def open_network(loaded: LoadedModel, device: torch.device, precision: Precision, threads: Threads) -> Network:
    """The compiled network; every thread that calls it has a request of its own."""
    require_precision("openvino", precision, ("float32", "bfloat16"))
    require_exportable("openvino", loaded, device)
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "NUM_STREAMS": str(threads.n_at_once),
        "INFERENCE_NUM_THREADS": str(threads.n_at_once * threads.per_call),
    }
    compiled = openvino.Core().compile_model(exported_network(loaded), "CPU", settings)
    requests = threading.local()

    def describe(images: torch.Tensor) -> torch.Tensor:
        if not hasattr(requests, "of_thread"):
            requests.of_thread = compiled.create_infer_request()
        descriptors = requests.of_thread.infer([images.contiguous().numpy()], share_inputs=True)[0]
        return torch.from_numpy(descriptors.copy())

    return describe
