"""The kinds of Milvus index and their parameters."""

import pytest

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.index.kinds import n_cells
from ultron_cli.retrieval.milvus.kinds import MILVUS_KINDS, milvus_plan, search_params

pytestmark = pytest.mark.slow


def test_kinds_and_parameters():
    assert milvus_plan("ivf", 1_000_000, 512, is_lite=False).build == {"nlist": n_cells(1_000_000, 512)}
    assert milvus_plan("ivfpq", 1_000_000, 512, is_lite=False).build == {
        "nlist": n_cells(1_000_000, 512),
        "m": 64,
        "nbits": 8,
    }
    hnsw = milvus_plan("hnsw", 1000, 64, is_lite=True)
    assert search_params("HNSW", hnsw.settings, 10) == {"ef": 128} and search_params("HNSW", hnsw.settings, 400) == {
        "ef": 400
    }
    assert search_params("FLAT", hnsw.settings, 10) == {}
    with pytest.raises(
        UltronError, match="must be one of flat, ivf, ivf-sq8, hnsw, found 'ivfpq', which milvus-lite has not"
    ):
        milvus_plan("ivfpq", 1000, 64, is_lite=True)
    with pytest.raises(UltronError, match=r"found 'sq8', which Milvus has not; did you mean ivf-sq8\?"):
        milvus_plan("sq8", 1000, 64, is_lite=False)
    assert all(kind.rescore for kind in MILVUS_KINDS.values())
