"""The kinds of Milvus index by name: Milvus's own type and parameters for a database of a given size, and how it is
searched."""

from dataclasses import dataclass

from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.retrieval.index.kinds import SearchSettings, n_cells, n_code_bytes, n_probed


@dataclass(frozen=True, kw_only=True)
class MilvusKind:
    """A kind of index that Milvus builds."""

    index_type: str  # Milvus's name of it
    rescore: int  # of its SearchSettings
    in_lite: bool = True  # whether milvus-lite has it


@dataclass(frozen=True, kw_only=True)
class MilvusPlan:
    """What Milvus shall build for a database."""

    index_type: str
    build: dict[str, int]  # its parameters of the index type
    settings: SearchSettings


def milvus_plan(kind: str, n: int, dim: int, *, is_lite: bool) -> MilvusPlan:
    """The index for N descriptors of D dimensions. Raises UltronError for a kind that the server lacks."""
    named_kind = MILVUS_KINDS.get(kind)
    available = [name for name, each in MILVUS_KINDS.items() if each.in_lite or not is_lite]
    if named_kind is None or kind not in available:
        where = "milvus-lite" if named_kind else "Milvus"
        raise UltronError(
            f"`type` with `engine` milvus must be one of {', '.join(available)}, found {kind!r}, which {where} "
            f"has not{nearest_names(kind, available)}"
        )
    cells = min(65536, n_cells(n, dim))
    build: dict[str, int] = {}
    nprobe = 0
    ef_search = 0
    if named_kind.index_type.startswith("IVF"):
        build = {"nlist": cells}
        nprobe = n_probed(n, cells)
    if named_kind.index_type == "IVF_PQ":
        build |= {"m": n_code_bytes(dim), "nbits": 8}
    if named_kind.index_type == "HNSW":
        build = {"M": 32, "efConstruction": 200}
        ef_search = 128
    return MilvusPlan(
        index_type=named_kind.index_type,
        build=build,
        settings=SearchSettings(nprobe=nprobe, ef_search=ef_search, rescore=named_kind.rescore),
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
