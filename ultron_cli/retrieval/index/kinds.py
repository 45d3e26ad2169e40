"""The kinds of index by name: what Faiss is to build for a database of a given size, and how it is searched."""

import math
from dataclasses import dataclass

from ultron_cli.configs import within

TRAINING_ROWS = 1 << 17  # at most, evenly spread over the file, for kinds that learn a partition or a codebook
TRAINING_BYTES = 1 << 28  # of those rows
POINTS_PER_CELL = 39  # Faiss warns where fewer train a centroid
PROBED_PHOTOS = 20_000  # a search of an inverted file compares this many at least, or all


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How an index is searched. 0: does not apply."""

    nprobe: int = 0  # cells of an inverted file that are looked into
    ef_search: int = 0  # candidates that a walk through an HNSW graph remembers
    rescore: int = 0  # this many times k candidates get exact scores from the stored descriptors

    def __post_init__(self) -> None:
        within("nprobe", self.nprobe, 0, 1_000_000)
        within("ef_search", self.ef_search, 0, 1_000_000)
        within("rescore", self.rescore, 0, 1000)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of index that Faiss builds."""

    factory: str  # Faiss's description, in which {cells}, {bytes} and {bits} of a PQ code follow from the database
    rescore: int = 0  # of its SearchSettings


def n_cells(n: int, dim: int) -> int:
    """Cells of an inverted file: 4 sqrt(N), as Faiss's guide advises for up to a million, and no more than the sample
    can train."""
    # One photo in `step` is in the sample.
    step = max(1, -(-n // min(TRAINING_ROWS, max(1, TRAINING_BYTES // (4 * dim)))))
    return max(1, min(int(4 * math.sqrt(n)), -(-n // step) // POINTS_PER_CELL))


def n_probed(n: int, cells: int) -> int:
    """Cells that a search looks into: a 32nd of them, 8 at least, and as many as hold PROBED_PHOTOS.

    The nearest photos lie in few cells only where these are many and alike: of 5,000 descriptors in the shape of
    ROxford a 32nd of the cells held six in ten of the 100 nearest, of 50,000 seven, and 20,000 photos 96 %
    (examples/roxford_table.py draws such). Comparing so many costs little beside describing the query photo.
    """
    return max(1, min(cells, max(8, cells // 32, math.ceil(cells * PROBED_PHOTOS / max(1, n)))))


def n_code_bytes(dim: int) -> int:
    """Bytes of a product code: the largest divisor of D that leaves 8 dimensions or more to a byte (1 where D is below
    8)."""
    return max(count for count in range(1, max(1, dim // 8) + 1) if dim % count == 0)


def plan(kind: str, n: int, dim: int) -> tuple[str, SearchSettings]:
    """(Faiss factory string, how to search) of a kind by name, or of a factory string itself, for N descriptors of D
    dimensions."""
    named_kind = INDEX_KINDS.get(kind)
    if named_kind is None:
        return kind, SearchSettings(rescore=10 if "PQ" in kind else 0)
    cells = n_cells(n, dim)
    bits = min(8, max(1, int(math.log2(n)))) if n else 8  # a codebook cannot have more entries than there are photos
    factory = named_kind.factory.format(cells=cells, bytes=n_code_bytes(dim), bits=bits)
    settings = SearchSettings(
        nprobe=n_probed(n, cells) if "IVF" in factory else 0,
        ef_search=128 if "HNSW" in factory else 0,
        rescore=named_kind.rescore,
    )
    return factory, settings


# "np" leaves out Faiss's polysemous training: it takes seconds per byte of code, for a filter that is not used here.
# Only flat holds the whole database in float32. Codes of two or fewer bytes per dimension lose order among near photos:
# those are re-scored.
INDEX_KINDS = {
    "flat": Kind(factory="Flat"),
    "fp16": Kind(factory="SQfp16", rescore=2),
    "sq8": Kind(factory="SQ8", rescore=2),
    "ivf": Kind(factory="IVF{cells},SQfp16", rescore=2),
    "ivfpq": Kind(factory="IVF{cells},PQ{bytes}x{bits}np", rescore=10),
    "opq-ivfpq": Kind(factory="OPQ{bytes},IVF{cells},PQ{bytes}x{bits}np", rescore=10),
    "hnsw": Kind(factory="HNSW32,SQfp16", rescore=2),
}
