"""torch.compile: the network's operations fused by a compiler, which works for a minute or more at the first photo."""

import torch

from ultron_cli.models.runtimes import Precision, Threads, eager
from ultron_cli.models.runtimes.core import Network
from ultron_cli.models.weights.checkpoints import LoadedModel

COMPILER = "inductor"


def open_network(loaded: LoadedModel, device: torch.device, precision: Precision, threads: Threads) -> Network:
    """The model compiled for photos of any size, at once for all."""
    network = torch.compile(eager.open_network(loaded, device, precision, threads), dynamic=True, backend=COMPILER)

    def describe(images: torch.Tensor) -> torch.Tensor:
        # Compiled under inference mode it would be compiled anew outside of it, and be refused by some operators.
        with torch.inference_mode(False), torch.no_grad():
            return network(images.clone() if images.is_inference() else images)

    return describe
