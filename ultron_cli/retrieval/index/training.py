"""Trains a Faiss index on a sample of the descriptors, with one warning in place of Faiss's own for every codebook."""

from typing import Any

import numpy as np

from ultron_cli.console import log
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.index.faiss_index import load_faiss
from ultron_cli.retrieval.index.kinds import POINTS_PER_CELL


def training_sample(descriptors: DescriptorFile, step: int, rows_per_block: int) -> np.ndarray:
    """(n, D) float32: every step-th row of the file, evenly spread over it."""
    n_sampled = -(-descriptors.n // step)
    sample, done = np.empty((n_sampled, descriptors.dim), np.float32), 0
    for start, rows in descriptors.blocks(rows_per_block):
        picked = rows[-start % step :: step]
        sample[done : done + len(picked)] = picked
        done += len(picked)
    return sample


def train_index(faiss_index: Any, sample: np.ndarray) -> None:
    """Trains on (n, D) float32 rows. Warns once where they are few. Raises RuntimeError, of Faiss, where they are too
    few."""
    faiss = load_faiss()
    parts = index_parts(faiss_index)
    rotations = [part for part in parts if isinstance(part, faiss.OPQMatrix)]
    n_bits = next((part.pq.nbits for part in parts if hasattr(part, "pq") and part not in rotations), 8)
    codebooks = [faiss.ProductQuantizer(part.d_out, part.M, n_bits) for part in rotations]
    for part, codebook in zip(rotations, codebooks, strict=True):
        # without one of its own it takes 8 bits, which fewer than 256 rows cannot train, and Faiss's warnings
        part.pq = codebook
    codebooks += [part.pq for part in parts if hasattr(part, "pq") and part not in rotations]
    clusterings = [(codebook.cp, codebook.ksub) for codebook in codebooks] + [
        (part.cp, part.nlist) for part in parts if isinstance(part, faiss.IndexIVF)
    ]
    n_centroids = max((n for _, n in clusterings), default=0)
    if len(sample) < POINTS_PER_CELL * n_centroids:
        log.warning(
            "%d descriptors are few to learn %d centroids from, Faiss advises %d of each codebook or more: "
            "without re-scoring results are rough; "
            "for so small a database use --type flat or fp16",
            len(sample),
            n_centroids,
            POINTS_PER_CELL * n_centroids,
        )
    for parameters, _ in clusterings:
        parameters.min_points_per_centroid = 1  # Faiss would say it of each codebook, and of each round of a rotation
    try:
        faiss_index.train(sample)
    finally:
        for part in rotations:
            part.pq = None  # it only points to the codebook, which ends here


def index_parts(faiss_index: Any) -> list[Any]:
    """The index and what is behind it, each as its own type: transforms, the index after them, quantizers of cells,
    storage."""
    faiss = load_faiss()
    own = faiss.downcast_index(faiss_index)
    parts = [own]
    if isinstance(own, faiss.IndexPreTransform):
        parts += [faiss.downcast_VectorTransform(own.chain.at(i)) for i in range(own.chain.size())]
    for name in ("index", "quantizer", "storage", "base_index", "refine_index"):
        if isinstance(getattr(own, name, None), faiss.Index):
            parts += index_parts(getattr(own, name))
    return parts
