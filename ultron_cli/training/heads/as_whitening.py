"""A linear head as a whitening file: what was stored before is searched with it (`--whiten`), and no photo is described
again."""

from pathlib import Path

import numpy as np
import torch

from ultron_cli.console import log
from ultron_cli.models.heads import LinearHead
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.descriptors import DescriptorInfo
from ultron_cli.retrieval.origin import LearnedFrom
from ultron_cli.retrieval.whitening import Whitening, write_whitening

METHOD = "linear-adaptation"
LARGEST_RESIDUAL = 1e-6  # of the bias, that no mean can stand for


def as_whitening(linear: LinearHead, info: DescriptorInfo) -> Whitening | None:
    """The whitening that gives the cosines of a head's descriptors: W x + b = W (x - mean), turned so that its most
    important row is the first. None where no mean does that, as with more outputs than inputs."""
    weight = linear.weight.detach().double().cpu().numpy()
    bias = linear.bias.detach().double().cpu().numpy()
    mean = -np.linalg.pinv(weight) @ bias
    if np.linalg.norm(weight @ mean + bias) > LARGEST_RESIDUAL * max(1.0, float(np.linalg.norm(bias))):
        return None
    _, gains, directions = np.linalg.svd(weight, full_matrices=False)
    learned_from = LearnedFrom(dataset=info.dataset, folder=info.provenance.dataset_folder)
    return Whitening(
        method=METHOD,
        mean=mean,
        projection=gains[:, None] * directions,
        eigenvalues=gains**2,
        provenance={**provenance(), **learned_from.to_json(), "weights_sha256": info.weights_sha256},
    )


@torch.no_grad()
def write_as_whitening(path: Path, linear: LinearHead, info: DescriptorInfo) -> None:
    """Writes it, where there is one."""
    whitening = as_whitening(linear, info)
    if whitening is None:
        log.info("the head has more outputs than inputs, and is no whitening: %s is not written", path.name)
    else:
        write_whitening(path, whitening)
