"""torch, operation by operation: the numbers that released versions give, on any device."""

import torch

from ultron_cli.models.runtimes import Precision, Threads
from ultron_cli.models.runtimes.core import Network
from ultron_cli.models.weights.checkpoints import LoadedModel


def open_network(loaded: LoadedModel, device: torch.device, precision: Precision, threads: Threads) -> Network:
    """The model itself on its device, channels last in memory; autocast and threads are the caller's."""
    # One call per thing: torch's declaration of .to knows no device together with a memory format.
    return loaded.model.to(device).to(memory_format=torch.channels_last)
