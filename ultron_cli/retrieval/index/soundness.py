"""Whether an index that Faiss has read can be searched: Faiss takes for granted what its file says, and crashes where
that does not hold.

Each rule here mends a crash that damaged files showed (tests/retrieval/index/test_hostile_indexes.py).
"""

from types import ModuleType
from typing import Any

import numpy as np

FaissObject = Any  # an index of Faiss or a part of one; Faiss declares no types

MOST_QUERIES_AT_ONCE = 1 << 10  # of a fast scan of an inverted file; it takes 11


def unsound_part(faiss: ModuleType, faiss_index: FaissObject) -> str | None:
    """What is wrong with the indexes that an index is made of, whose absence or size Faiss takes for granted when it
    searches; None if nothing is."""
    chain = getattr(faiss_index, "chain", None)
    steps = [faiss.downcast_VectorTransform(chain.at(i)) for i in range(chain.size())] if chain else []
    dims = [(step.d_in, step.d_out) for step in steps]
    inner_dim = dims[-1][1] if dims else faiss_index.d
    if [faiss_index.d, *(d_out for _, d_out in dims)] != [*(d_in for d_in, _ in dims), inner_dim]:
        return f"its transforms take and give {dims} dimensions, of {faiss_index.d}"
    for step in steps:
        if hasattr(step, "map"):
            taken = stored(faiss, step.map)
            if len(taken) != step.d_out or not ((taken >= -1) & (taken < step.d_in)).all():
                return f"its transform takes other dimensions than the {step.d_in} that there are"
    for name in ("index", "quantizer", "storage", "base_index", "refine_index"):
        if not hasattr(faiss_index, name):
            continue
        part = getattr(faiss_index, name)
        if part is None:
            return f"its part {name} is missing"
        part = faiss.downcast_index(part)
        n_rows = faiss_index.nlist if name == "quantizer" else faiss_index.ntotal
        if (part.ntotal, part.d) != (n_rows, inner_dim):
            return f"its part {name} must hold {n_rows} rows of {inner_dim} dimensions, found {part.ntotal} of {part.d}"
        if fault := unsound_part(faiss, part):
            return fault
    if hasattr(faiss_index, "hnsw") and not is_sound_graph(faiss, faiss_index.hnsw, faiss_index.ntotal):
        return "its graph leads to rows or levels that it does not have"
    return unsound_codes(faiss_index)


def unsound_codes(faiss_index: FaissObject) -> str | None:
    """What is wrong with the codes of the rows: how many bytes there are, or that they are scanned in groups that they
    do not fill."""
    if not 0 <= getattr(faiss_index, "qbs2", 0) <= MOST_QUERIES_AT_ONCE:
        return f"it takes {faiss_index.qbs2} queries at once"
    if not hasattr(faiss_index, "codes"):
        return None
    n_rows, n_bytes = faiss_index.ntotal, faiss_index.codes.size()
    if hasattr(faiss_index, "bbs"):
        group = faiss_index.bbs
        needed = n_rows + -n_rows % group if group > 0 else -1
        if faiss_index.ntotal2 != needed:
            return f"its codes must be of {needed} rows in groups of {group}, found {faiss_index.ntotal2}"
        # Four bits for each of M2 parts of a row; a newer Faiss has groups with more in them, and says how much.
        has_stride = hasattr(faiss_index, "get_block_stride")
        n_group_bytes = faiss_index.get_block_stride() if has_stride else group * faiss_index.M2 // 2
        n_needed = needed // group * n_group_bytes
    else:
        n_needed = n_rows * faiss_index.code_size
    return None if n_bytes == n_needed else f"its codes must be {n_needed} bytes, found {n_bytes}"


def stored(faiss: ModuleType, vector: FaissObject) -> np.ndarray:
    """What a vector of Faiss holds, not copied: it may take as much memory as the rows."""
    return faiss.rev_swig_ptr(vector.data(), vector.size()) if vector.size() else np.zeros(0, np.int32)


def is_sound_graph(faiss: ModuleType, hnsw: FaissObject, n_rows: int) -> bool:
    """Whether every link of an HNSW graph leads to a row that has the level of the link, so that no walk leaves it.

    A row of L levels has `starts[L]` places for links from `offsets[row]` on, those of level l between starts[l] and
    starts[l + 1]; -1 is no link (Malkov and Yashunin, arXiv:1603.09320, as Faiss stores it).
    """

    levels, offsets, links = stored(faiss, hnsw.levels), stored(faiss, hnsw.offsets), stored(faiss, hnsw.neighbors)
    starts = stored(faiss, hnsw.cum_nneighbor_per_level).astype(np.int64)
    if (len(levels), len(offsets)) != (n_rows, n_rows + 1):
        return False
    if not n_rows:
        return not links.size
    if not (levels.min() >= 1 and levels.max() < len(starts) and starts[0] == 0 and (np.diff(starts) >= 0).all()):
        return False
    places = np.diff(offsets, prepend=offsets.dtype.type(0))
    if places[0] or (places[1:] != starts[levels]).any() or offsets[-1] != len(links):
        return False
    if not (0 <= hnsw.entry_point < n_rows and 0 <= hnsw.max_level < levels[hnsw.entry_point]):
        return False
    if links.size and not (links.min() >= -1 and links.max() < n_rows):
        return False
    for level in range(1, levels.max()):
        rows = np.flatnonzero(levels > level)
        linked = links[offsets[rows].astype(np.int64)[:, None] + np.arange(starts[level], starts[level + 1])]
        if (levels[linked[linked >= 0]] <= level).any():
            return False
    return True
