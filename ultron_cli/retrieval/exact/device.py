"""The products of exact search on a CUDA device, by torch."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from ultron_cli.retrieval.exact.candidates import Scanner
from ultron_cli.retrieval.exact.scores import QueryBlock


@dataclass(frozen=True)
class TorchScanner(Scanner[torch.Tensor]):
    """On a device of torch."""

    device: torch.device
    queries32: torch.Tensor = field(repr=False)  # (padded Q, D)
    queries64: torch.Tensor = field(repr=False)  # (Q, D)

    def _sent(self, rows: np.ndarray) -> torch.Tensor:
        """(n, D) float32 or float16 rows as they are."""
        block = torch.from_numpy(np.require(rows, requirements=["C", "W"]))
        return block.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else block

    def placed(self, rows: np.ndarray) -> torch.Tensor:
        return self._sent(rows).float()

    def squares(self, block: torch.Tensor) -> np.ndarray:
        return (block * block).sum(1).cpu().numpy()

    def products(self, block: torch.Tensor) -> torch.Tensor:
        return block @ self.queries32.T

    def kth_products(self, products: torch.Tensor) -> np.ndarray:
        by_query = products[:, : self.queries.n].T.contiguous()
        return torch.topk(by_query, self.k, dim=1).values[:, -1].double().cpu().numpy()

    def reaching(self, products: torch.Tensor, lowest: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray] | None:
        flags = (products >= torch.from_numpy(lowest).to(self.device)).view(-1)
        if int(flags.sum()) > most:
            return None
        positions = flags.nonzero().view(-1)
        return positions.cpu().numpy(), products.view(-1)[positions].cpu().numpy()

    def products64(self, rows: np.ndarray) -> np.ndarray:
        return (self.queries64 @ self._sent(rows).double().T).cpu().numpy()


def torch_scanners(device_name: str) -> Callable[[QueryBlock, int], TorchScanner]:
    """What makes the scanner of some queries and k on a device."""
    device = torch.device(device_name)

    def scanner_of(queries: QueryBlock, k: int) -> TorchScanner:
        queries32, queries64 = (torch.from_numpy(rows).to(device) for rows in (queries.padded32, queries.rows64))
        return TorchScanner(queries, k, device, queries32, queries64)

    return scanner_of


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Inside, float32 products are float32 whatever this process has chosen: no TF32, no bfloat16."""
    # torch sets this attribute of its module when it runs.
    mkldnn_matmul = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    matmuls = (torch.backends.cuda.matmul, mkldnn_matmul)
    precisions_before = [matmul.fp32_precision for matmul in matmuls]
    for matmul in matmuls:
        matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        for matmul, precision in zip(matmuls, precisions_before, strict=True):
            matmul.fp32_precision = precision
