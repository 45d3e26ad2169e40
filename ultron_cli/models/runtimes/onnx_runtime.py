"""onnxruntime on the CPU, in float32."""

import torch

from ultron_cli.models.onnx_model import OnnxModel
from ultron_cli.models.runtimes import Precision, Threads
from ultron_cli.models.runtimes.core import Network, require_exportable, require_precision
from ultron_cli.models.runtimes.exported import exported_network
from ultron_cli.models.runtimes.sessions import open_session
from ultron_cli.models.weights.checkpoints import LoadedModel


def open_network(loaded: LoadedModel, device: torch.device, precision: Precision, threads: Threads) -> Network:
    """The network of a session; calls from several threads are independent."""
    require_precision("onnxruntime", precision, ("float32",))
    if isinstance(loaded.model, OnnxModel):
        return loaded.model.network(threads)
    require_exportable("onnxruntime", loaded, device)
    session = open_session(exported_network(loaded), threads)

    def describe(images: torch.Tensor) -> torch.Tensor:
        (descriptors,) = session.run(None, {"images": images.contiguous().numpy()})
        return torch.from_numpy(descriptors)

    return describe
