"""Descriptors put side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, Role, write_descriptors
from ultron_cli.retrieval.fusion.descriptors import fuse_descriptors
from ultron_cli.retrieval.origin import ExtractionRecord
from ultron_cli.retrieval.searching import search_files
from ultron_cli.retrieval.whitening import read_whitening, write_whitening
from ultron_cli.retrieval.whitening_learning import learn_whitening

NAMES = [f"photo{i}" for i in range(40)]


def write(path: Path, rows: np.ndarray, names: Sequence[str], *, role: Role = "database", **config: object) -> Path:
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    stored = {
        "model": {"name": path.parent.name, "settings": {}},
        **{"crop": "bbx", "scales": [1.0], "max_side_px": 1024, "role": role, **config},
    }
    info = DescriptorInfo(
        model=path.parent.name,
        weights_sha256="0" * 64,
        extraction=ExtractionRecord(stored=stored),
        dataset="set",
        role=role,
        crop="bbx",
        scales=[1.0],
    )
    path.parent.mkdir(exist_ok=True)
    write_descriptors(path, names, [unit], unit.shape[1], info)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Descriptors of two models, the second's in another order."""
    rng = np.random.default_rng(0)
    for name, dim in (("gem", 6), ("dolg", 10)):
        for role, n in (("query", 5), ("database", 40)):
            order = rng.permutation(n) if name == "dolg" else np.arange(n)
            rows = rng.normal(size=(n, dim))
            file = tmp_path / name / ("queries.h5" if role == "query" else "database.h5")
            write(file, rows[order], [NAMES[i] for i in order], role=role)
    return [tmp_path / "gem", tmp_path / "dolg"]


def rows_by_name(path: Path) -> np.ndarray:
    with DescriptorFile(path) as file:
        order = np.argsort([NAMES.index(name) for name in file.names])
        return file.read()[order]


def test_similarities_are_weighted_by_squares(folders: list[Path], tmp_path: Path) -> None:
    info = fuse_descriptors(folders, tmp_path / "out", (1.0, 0.5))
    joined = {role: rows_by_name(tmp_path / "out" / f"{role}.h5") for role in ("queries", "database")}
    parts = [[rows_by_name(folder / f"{role}.h5") for role in ("queries", "database")] for folder in folders]
    similarities = [queries.astype(np.float64) @ database.T for queries, database in parts]
    right = (similarities[0] + 0.25 * similarities[1]) / 1.25
    assert np.abs(joined["queries"] @ joined["database"].T - right).max() < 1e-6
    assert info.model == "gem + dolg" and info.extraction.crop == "bbx"
    ranking = search_files(tmp_path / "out" / "queries.h5", tmp_path / "out" / "database.h5", None, "cpu")
    assert ranking.origin.search_text(timed=False) == (
        "; fused by concatenation, dim 16: gem (weight 1, 24 bytes per photo) and dolg (weight 0.5, 40 bytes per photo)"
    )
    assert ranking.origin.extraction.protocol_text() == "queries cropped, 1 scale, longest side 1024 px"


def test_whitened_to_fewer_dimensions(folders: list[Path], tmp_path: Path) -> None:
    """As whitening the joined descriptors later."""
    fuse_descriptors(folders, tmp_path / "out")
    write_whitening(tmp_path / "w.h5", learn_whitening(tmp_path / "out" / "database.h5", "pca"))
    whitening = read_whitening(tmp_path / "w.h5", 4)
    info = fuse_descriptors(folders, tmp_path / "white", None, whitening)
    with (
        DescriptorFile(tmp_path / "white" / "database.h5") as file,
        DescriptorFile(tmp_path / "out" / "database.h5") as raw,
    ):
        assert np.array_equal(file.read(), whitening.apply(raw.read())) and file.dim == 4
    assert str(info.extraction.whitening) == "pca to 4-d"
    assert info.provenance.fusion is not None and info.provenance.fusion.costs()[0] == 16
    with pytest.raises(UltronError, match=r"w\.h5 whitens 16-d descriptors, joined ones have 12-d"):
        fuse_descriptors([folders[0]] * 2, tmp_path / "no", None, whitening)


def test_other_conditions_are_told_of_each_part(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = [
        write(tmp_path / name / "database.h5", rng.normal(size=(4, 3)), NAMES[:4], **config)
        for name, config in (("a", {}), ("b", {"scales": [1.0, 0.5], "max_side_px": 512}))
    ]
    info = fuse_descriptors(paths, tmp_path / "out.h5")
    assert info.extraction.protocol_text() == "scales of each part, sides of each part"
    assert info.provenance.fusion is not None
    assert [part.label for part in info.provenance.fusion.parts] == [
        "a, 1 scale, longest side 1024 px",
        "b, 2 scales, longest side 512 px",
    ]


def test_what_cannot_be_joined(folders: list[Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    few = write(tmp_path / "few" / "database.h5", rng.normal(size=(3, 2)), ["photo0", "photo1", "x"])
    with pytest.raises(UltronError, match=r"few/database\.h5 lacks 38 of .* \(photo2, photo3 \.\.\.\) and has 1 that"):
        fuse_descriptors([folders[0] / "database.h5", few], tmp_path / "out.h5")
    with pytest.raises(UltronError, match="all files, or all folders"):
        fuse_descriptors([folders[0], few], tmp_path / "out")
    with pytest.raises(UltronError, match=r"gem holds descriptors that are joined; name another folder with `out`"):
        fuse_descriptors(folders, folders[0])
    with pytest.raises(UltronError, match=r"has database photos of set, .* query photos of set"):
        queries = write(tmp_path / "q" / "queries.h5", rng.normal(size=(40, 2)), NAMES, role="query")
        fuse_descriptors([folders[0] / "database.h5", queries], tmp_path / "out.h5")
