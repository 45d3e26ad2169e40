"""Learns a whitening from a descriptor file, read in blocks: PCA, PCA-whitening, or supervised from matching pairs.

PCA-whitening: Jegou and Chum, ECCV 2012. Supervised ("Lw"): Mikolajczyk and Matas, ICCV 2007, as Radenovic et al. (ECCV
2016, section 4) and their program cirtorch (whiten.py: whitenlearn) compute it; the eigenvectors' signs, which no
result depends on, are made unique.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ultron_cli import user_code
from ultron_cli.blocks import chunks
from ultron_cli.configs import one_of
from ultron_cli.console import counted, log
from ultron_cli.datasets.label_tables import Spelled, read_labels, spellings
from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.errors import UltronError
from ultron_cli.files import file_state, sha256_of_file
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.descriptors import DescriptorFile, Descriptors
from ultron_cli.retrieval.origin import Json
from ultron_cli.retrieval.whitening import Whitening

BLOCK_ROWS = 8192  # float64 rows in memory at once
RANK_TOLERANCE = 1e-9  # of the largest eigenvalue; smaller ones are rounding, and their directions noise

Learned = tuple[np.ndarray, np.ndarray, np.ndarray]  # mean (D,), projection (D', D), eigenvalues (D',), all float64


@dataclass(frozen=True, kw_only=True)
class WhiteningMethod:
    """A way to learn a whitening."""

    # (descriptors, (P, 2) int64 rows of matching photos where it needs pairs) -> what was learned.
    learn: Callable[[Descriptors, np.ndarray | None], Learned]
    needs_pairs: bool = False
    part: user_code.UserPart | None = None  # of a method by import path


class UserWhitening(Protocol):
    """A method that a user names by import path: an object of a class that is made of its settings. Its attribute
    `needs_pairs` says that it learns from matching pairs; where it has none it does not."""

    def __call__(self, descriptors: Descriptors, pairs: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """(mean (D,), projection (D', D) with the most important row first) of the descriptors, whose `blocks(n)`
        gives (first row, (n, D) float32) one after the other. pairs: (P, 2) int64 rows, or None."""
        ...


def whitening_method(name: str, settings: Mapping[str, object] | None = None) -> WhiteningMethod:
    """A method by its name in METHODS, or by import path (`my.py:Shrunk`), which is run, with its settings. Raises
    UltronError for an unknown one, and for a class that is none."""
    if not user_code.is_import_path(name):
        method = METHODS[one_of("method", name, METHODS)]
        if settings:
            raise UltronError(f"settings are of a method by import path, found method {name}; leave out `set`")
        return method
    user_code.permit(name)
    part = user_code.load(name, "whitening", METHODS)
    part.require_method("__call__(descriptors, pairs)", UserWhitening)
    whitening: UserWhitening = part.made(settings=settings, prefix="")

    def learn(source: Descriptors, pairs: np.ndarray | None) -> Learned:
        with user_code.blaming(whitening, "__call__"):
            learned = whitening(source, pairs)
            parts = [np.asarray(array) for array in learned] if isinstance(learned, (tuple, list)) else []
        shapes = tuple(array.shape for array in parts)
        is_right = len(parts) == 2 and parts[1].ndim == 2 and shapes == ((source.dim,), (len(parts[1]), source.dim))
        if not is_right or not len(parts[1]) or not all(np.isfinite(array).all() for array in parts):
            raise UltronError(
                f"{part.place('__call__')}: {part.name} must give a mean ({source.dim},) and a projection "
                f"(D', {source.dim}) of finite numbers; found {shapes if parts else type(learned).__name__}"
            )
        mean, projection = (array.astype(np.float64) for array in parts)
        return mean, projection, np.ones(len(projection))  # eigenvalues, which nothing depends on

    return WhiteningMethod(learn=learn, needs_pairs=bool(getattr(part.target, "needs_pairs", False)), part=part)


def learn_whitening(
    path: Path,
    method: str,
    *,
    pairs: np.ndarray | None = None,
    dim: int | None = None,
    labels: str | None = None,
    settings: Mapping[str, object] | None = None,
) -> Whitening:
    """Learns a whitening from all rows of a descriptor file.

    method: one of METHODS, or an import path. pairs: (P, 2) int64 matching rows, for a method that needs them. labels:
    what the pairs came from, for the record. dim: rows of the projection (None: all that the data determine).
    settings: of a method by import path. Memory: a few (D, D) float64 and one block. Raises UltronError if there are
    too few rows, or dim is more than they determine.
    """
    whitening_way = whitening_method(method, settings)
    with DescriptorFile(path) as source:
        if source.info.extraction.whitening:
            raise UltronError(
                f"{path} is whitened already ({source.info.extraction.whitening}); learn from the file it was made from"
            )
        if source.n < 2:
            raise UltronError(
                f"a whitening is learned from at least 2 descriptors, {path} has {source.n}; extract more photos"
            )
        mean, projection, eigenvalues = whitening_way.learn(source, pairs)
        info = source.info
        n = source.n
    if dim is not None and not 1 <= dim <= len(projection):
        raise UltronError(
            f"`dim` must be between 1 and {len(projection)}, all that {counted(n, 'descriptor')} in {path} "
            f"determine; found {dim}"
        )
    record: Json = provenance() | {
        "descriptors": str(path.resolve()),
        "descriptors_state": list(file_state(path)),
        "descriptors_sha256": sha256_of_file(path),
        "n": n,
        "dataset": info.dataset,
        "dataset_folder": info.provenance.dataset_folder,
        "model": info.model,
        "weights_sha256": info.weights_sha256,
        "config": dict(info.extraction.stored),
        "n_pairs": None if pairs is None else len(pairs),
        "labels": labels,
    }
    if whitening_way.part is not None:
        record = record | {"code_sha256": whitening_way.part.sha256, "settings": dict(settings or {})}
    return Whitening(
        method=method, mean=mean, projection=projection[:dim], eigenvalues=eigenvalues[:dim], provenance=record
    )


def principal(source: Descriptors, *, whiten: bool) -> Learned:
    """(mean, projection, eigenvalues) of the covariance (divided by N); with whiten, rows divided by the root of their
    eigenvalue."""
    total = np.zeros(source.dim)
    for _, rows in source.blocks(BLOCK_ROWS):
        total += rows.sum(axis=0, dtype=np.float64)
    mean = total / source.n
    covariance = np.zeros((source.dim, source.dim))
    for _, rows in source.blocks(BLOCK_ROWS):
        centred = rows - mean
        covariance += centred.T @ centred
    eigenvalues, directions = leading(covariance / source.n)
    projection = directions / np.sqrt(eigenvalues)[:, None] if whiten else directions
    return mean, projection, eigenvalues


def supervised(source: Descriptors, pairs: np.ndarray | None) -> Learned:
    """(mean, projection, eigenvalues) of cirtorch's whitenlearn.

    The mean of each pair's first photo; differences within pairs made white by the Cholesky factor of their covariance;
    then the principal directions of all descriptors so transformed. pairs: (P, 2) int64 rows.
    """
    assert pairs is not None
    mean = np.zeros(source.dim)
    within = np.zeros((source.dim, source.dim))
    for start, stop in chunks(len(pairs), BLOCK_ROWS):
        first = source.take(pairs[start:stop, 0]).astype(np.float64)
        second = source.take(pairs[start:stop, 1])
        mean += first.sum(axis=0)
        difference = first - second
        within += difference.T @ difference
    mean /= len(pairs)
    whitener = np.linalg.inv(cholesky(within / len(pairs)))
    spread = np.zeros_like(within)
    for _, rows in source.blocks(BLOCK_ROWS):
        transformed = (rows - mean) @ whitener.T
        spread += transformed.T @ transformed
    eigenvalues, directions = leading(spread)
    return mean, directions @ whitener, eigenvalues


def cholesky(matrix: np.ndarray) -> np.ndarray:
    """Lower factor, after adding to the diagonal as little of 1e-10, 1e-9 ... as makes the matrix positive definite (as
    cirtorch)."""
    added = 0.0
    while True:
        try:
            factor = np.linalg.cholesky(matrix + added * np.eye(len(matrix)))
        except np.linalg.LinAlgError:
            added = 10 * added or 1e-10
            continue
        if added:
            log.warning(
                "the pairs do not determine all %d dimensions; %.0e was added to the diagonal; more pairs are better",
                len(matrix),
                added,
            )
        return factor


def leading(symmetric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(d,) eigenvalues, descending, and (d, D) unit eigenvectors in rows, without those of rounding noise.

    The entry of largest magnitude of each is positive, so that equal data give equal files.
    """
    eigenvalues, columns = np.linalg.eigh((symmetric + symmetric.T) / 2)
    eigenvalues = eigenvalues[::-1]
    directions = columns.T[::-1]
    is_signal = eigenvalues > RANK_TOLERANCE * max(eigenvalues[0], 0)
    if not is_signal.any():
        raise UltronError("a whitening is learned from descriptors that differ, found all equal; extract more photos")
    directions = np.ascontiguousarray(directions[: np.count_nonzero(is_signal)])  # rows one behind the other
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    directions *= np.sign(largest)
    return eigenvalues[is_signal], directions


def pairs_of_ground_truth(gnd: Path, names: Sequence[str], most: int, seed: int) -> np.ndarray:
    """(P, 2) int64 rows of photos that are positive (easy or hard) for the same query."""
    truth = load_ground_truth(gnd)
    row_of = {name: row for row, name in enumerate(names)}
    groups = [
        [row_of[name] for row in query.rows(("easy", "hard")) if (name := truth.database_names[row]) in row_of]
        for query in truth.queries
    ]
    return matching_pairs(groups, most, seed, f"{gnd} has no query with two positives among the descriptors")


def pairs_of_labels(labels: Path | None, names: Sequence[str], most: int, seed: int) -> np.ndarray:
    """(P, 2) int64 rows of photos of the same landmark: of a CSV (photo,landmark), or without one of the same
    folder."""
    groups: dict[str, list[int]] = defaultdict(list)
    if labels is None:
        for row, name in enumerate(names):
            if "/" in name:
                groups[name.rsplit("/", 1)[0]].append(row)
        return matching_pairs(
            list(groups.values()), most, seed, "no two descriptors are named LANDMARK/PHOTO with the same landmark"
        )
    row_of = {name: row for row, name in enumerate(names)}
    for label in read_labels(labels, Spelled(spellings(names), may_lack=True)):
        if label.landmark:
            groups[label.landmark].append(row_of[label.photo])
    return matching_pairs(
        list(groups.values()), most, seed, f"{labels} has no landmark with two photos among the descriptors"
    )


def matching_pairs(groups: Sequence[Sequence[int]], most: int, seed: int, complaint: str) -> np.ndarray:
    """(P, 2) int64: all pairs within each group, each once; where they are more than `most`, that many drawn evenly
    over the groups. Raises UltronError with the complaint if there are none."""
    rng = np.random.default_rng(seed)
    usable = [np.unique(group) for group in groups if len(set(group)) > 1]
    if not usable:
        raise UltronError(
            f"{complaint}; name others with `gnd` or `labels`, or learn without pairs (`method` pca-whitening)"
        )
    share = max(1, most // len(usable))
    parts = []
    for group in usable:
        first, second = drawn_pairs(len(group), share, rng)
        parts.append(np.stack([group[first], group[second]], axis=1))
    return np.unique(np.concatenate(parts), axis=0)[: max(most, len(usable))].astype(np.int64)


def drawn_pairs(n: int, most: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(first, second), each (p,): the pairs of n things, or about `most` different ones of them, drawn evenly."""
    n_pairs = n * (n - 1) // 2
    if n_pairs <= most:
        return np.triu_indices(n, 1)
    if n_pairs < 1 << 24:
        drawn = np.sort(rng.choice(n_pairs, most, replace=False))
    else:
        drawn = np.unique(rng.integers(0, n_pairs, most))
    # Pair number p of the triangle below the diagonal: row (1 + sqrt(1 + 8 p)) / 2, mended where the root was rounded.
    second = ((1 + np.sqrt(1 + 8 * drawn.astype(np.float64))) / 2).astype(np.int64)
    second -= second * (second - 1) // 2 > drawn
    second += (second + 1) * second // 2 <= drawn
    return drawn - second * (second - 1) // 2, second


def _pca(source: Descriptors, pairs: np.ndarray | None) -> Learned:
    return principal(source, whiten=False)


def _pca_whitening(source: Descriptors, pairs: np.ndarray | None) -> Learned:
    return principal(source, whiten=True)


# Beside these an import path names a UserWhitening.
METHODS: dict[str, WhiteningMethod] = {
    "pca": WhiteningMethod(learn=_pca),
    "pca-whitening": WhiteningMethod(learn=_pca_whitening),
    "lw": WhiteningMethod(learn=supervised, needs_pairs=True),
}
