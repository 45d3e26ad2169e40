"""Descriptors and indexes that tests of Milvus are about."""

from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.rows_for_tests import INFO
from ultron_cli.retrieval.descriptors import write_descriptors
from ultron_cli.retrieval.milvus.building import BuiltIndex, MilvusRequest, build_milvus_index

N, DIM = 2000, 64


def write(path: Path, rows: np.ndarray) -> Path:
    write_descriptors(
        path, [f"photo{i}.jpg" for i in range(len(rows))], [rows] if len(rows) else [], rows.shape[1], INFO
    )
    return path


def build(
    descriptors: Path, out: Path, kind: str = "flat", *, overwrite: bool = False, sleep=pytest.fail, **request
) -> BuiltIndex:
    return build_milvus_index(descriptors, out, kind, MilvusRequest(**request), overwrite=overwrite, sleep=sleep)
