"""The kinds of Milvus index by name: Milvus's own type and parameters for a database of a given size, and how it is
searched."""

from dataclasses import dataclass

from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.retrieval.index.kinds import SearchSettings, n_cells, n_code_bytes, n_probed


@dataclass(frozen=True, kw_only=True)
class MilvusKind:
    """index_type: Milvus's name of it. rescore: times k candidates that get exact scores. in_lite: whether milvus-lite
    has it."""

    index_type: str
    rescore: int
    in_lite: bool = True


@dataclass(frozen=True, kw_only=True)
class MilvusPlan:
    """What Milvus is asked to build. build: its parameters of the index type."""

    index_type: str
    build: dict[str, int]
    settings: SearchSettings


def milvus_plan(kind: str, n: int, dim: int, *, is_lite: bool) -> MilvusPlan:
    """The index for N descriptors of D dimensions. Raises UltronError for a kind that the server lacks."""
    known = MILVUS_KINDS.get(kind)
    choice = [name for name, one in MILVUS_KINDS.items() if one.in_lite or not is_lite]
    if known is None or kind not in choice:
        where = "milvus-lite" if known else "Milvus"
        raise UltronError(
            f"--type with --engine milvus must be one of {', '.join(choice)}, found {kind!r}, which {where} "
            f"has not{nearest_names(kind, choice)}"
        )
    cells = min(65536, n_cells(n, dim))
    build, nprobe, ef_search = {}, 0, 0
    if known.index_type.startswith("IVF"):
        build, nprobe = {"nlist": cells}, n_probed(n, cells)
    if known.index_type == "IVF_PQ":
        build |= {"m": n_code_bytes(dim), "nbits": 8}
    if known.index_type == "HNSW":
        build, ef_search = {"M": 32, "efConstruction": 200}, 128
    return MilvusPlan(
        index_type=known.index_type,
        build=build,
        settings=SearchSettings(nprobe=nprobe, ef_search=ef_search, rescore=known.rescore),
    )


def search_params(index_type: str, settings: SearchSettings, n: int) -> dict[str, int]:
    """Milvus's search parameters for n candidates; its HNSW takes no ef below that."""
    if index_type.startswith("IVF"):
        return {"nprobe": min(65536, max(1, settings.nprobe))}
    return {"ef": max(settings.ef_search, n)} if index_type == "HNSW" else {}


# The names are those of the Faiss kinds. Even flat's best are re-scored: Milvus sums in float32, and photos that are
# equal shall score equal.
MILVUS_KINDS = {
    "flat": MilvusKind(index_type="FLAT", rescore=1),
    "ivf": MilvusKind(index_type="IVF_FLAT", rescore=2),
    "ivf-sq8": MilvusKind(index_type="IVF_SQ8", rescore=4),
    "ivfpq": MilvusKind(index_type="IVF_PQ", rescore=10, in_lite=False),
    "hnsw": MilvusKind(index_type="HNSW", rescore=2),
}
