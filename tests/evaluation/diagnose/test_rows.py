"""What descriptors tell without their photos: no network is loaded here, as it does not exist."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.conftest import Run, read_json
from ultron_cli.evaluation.diagnose.rows import RowsShown, cosine, shown_by_rows, unit
from ultron_cli.retrieval.descriptors import DescriptorInfo, write_descriptors
from ultron_cli.retrieval.origin import ExtractionRecord

RNG = np.random.default_rng(3)
N, DIM = 24, 40
ROWS = unit(np.abs(RNG.standard_normal((N, DIM))))
ROTATION = np.linalg.qr(RNG.standard_normal((DIM, DIM)))[0]


def shown(reference: np.ndarray, ours: np.ndarray = ROWS) -> RowsShown:
    return shown_by_rows(ours, reference, np.arange(len(ours)))


def test_the_same_rows_show_nothing() -> None:
    assert (shown(ROWS).cause, shown(ROWS).misnamed, shown(ROWS).notes) == (None, None, ())


@pytest.mark.parametrize(
    ("reference", "setting", "text"),
    [
        (unit(np.sqrt(ROWS)), "normalisation of components", "signed root of each"),
        (unit(ROWS - ROWS.mean(axis=0)), "centring", "the mean of all photos subtracted"),
        (ROWS[:, ::-1], "dimensions", "in another order"),
        (ROWS * np.where(np.arange(DIM) < 7, -1, 1), "dimensions", "in their order, 7 with the other sign"),
        (
            ROWS @ ROTATION,
            "basis",
            "all descriptors turned by one rotation (orthogonal Procrustes), which changes no ranking",
        ),
    ],
)
def test_one_way_that_explains_all(reference: np.ndarray, setting: str, text: str) -> None:
    cause = shown(reference).cause
    assert cause is not None
    assert (cause.setting, cause.reference) == (setting, text)
    assert cause.cosine == pytest.approx(1.0, abs=1e-9) and cause.explains == pytest.approx(1.0)


def test_another_linear_map_needs_many_photos() -> None:
    ours = unit(np.random.default_rng(0).standard_normal((400, 12)) + 1)
    whitened = unit((ours - ours[:50].mean(axis=0)) @ np.random.default_rng(1).standard_normal((12, 12)))
    cause = shown(whitened, ours).cause
    assert cause is not None and cause.setting == "whitening" and cause.cosine > 0.99
    assert shown(whitened[:40], ours[:40]).cause is None


@pytest.mark.parametrize(
    ("places", "row_of_ours", "text"),
    [
        (np.roll(np.arange(N), 1), np.arange(N), "names and descriptors shifted by 1 row"),
        (np.roll(np.arange(N), -3), np.arange(N), "names and descriptors shifted by 3 rows"),
        (np.random.default_rng(1).permutation(N), np.arange(N), "descriptors in another order than their names"),
        (np.arange(N)[::-1], np.arange(N)[::-1], "descriptors in the order of our file under names in another order"),
    ],
)
def test_names_of_other_photos(places: np.ndarray, row_of_ours: np.ndarray, text: str) -> None:
    result = shown_by_rows(ROWS, ROWS[places], row_of_ours)
    assert result.misnamed is not None and result.misnamed.reference == text
    assert result.cause is None
    assert cosine(result.reference, ROWS) == pytest.approx(1.0)


def test_lengths_and_dimensions_are_noted() -> None:
    (note,) = shown(ROWS * np.linspace(0.5, 12, N)[:, None]).notes
    assert "not of unit norm (0.5 to 12)" in note
    note = shown((ROWS @ ROTATION)[:, :30]).notes[-1]
    assert "the reference has 30 dimensions, ours 40" in note


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A descriptor file that does not say which network made it."""
    info = DescriptorInfo(model="?", weights_sha256="", dataset="made", role="database", crop="none", scales=[1.0])
    path = tmp_path / "ours.h5"
    write_descriptors(path, [f"folder/{i}.jpg" for i in range(N)], [ROWS.astype(np.float32)], DIM, info)
    return path


def foreign(path: Path, names: list[str], rows: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["names"] = names
        file["descriptors"] = rows
    return path


def test_of_another_program_by_the_command(ultron: Run, ours: Path, tmp_path: Path) -> None:
    names = [str(i) for i in reversed(range(N))]  # without folder and suffix
    rows = (ROWS[::-1] @ ROTATION) * 3
    content = read_json(ultron("diagnose", ours, "--against", foreign(tmp_path / "theirs.h5", names, rows), "--json"))
    assert [cause["setting"] for cause in content["causes"]] == ["basis"]
    assert content["n"] == N and content["photos"] == [] and content["n_passes"] == 0
    assert content["verdict"] == "that is all: cosine 1.0000000 with it"
    assert "not of unit norm (3 to 3)" in content["notes"][0]


def test_what_cannot_be_diagnosed(ultron: Run, ours: Path, tmp_path: Path) -> None:
    def error(*arguments: object) -> str:
        code, out, err = ultron("diagnose", *arguments)
        assert (code, out) == (2, "")
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        return line

    rng = np.random.default_rng(8)
    names = [f"{i}" for i in range(N)]
    other = foreign(tmp_path / "other.h5", names, rng.standard_normal((N, DIM)))
    assert "does not say which network made it, and the descriptors alone do not explain it" in error(
        ours, "--against", other
    )
    strangers = foreign(tmp_path / "strangers.h5", ["a", "b"], ROWS[:2])
    assert "must have photos of the same names, found 'folder/0.jpg' and 'a'" in error(ours, "--against", strangers)
    broken = ROWS.copy()
    broken[5, 3] = np.nan
    nan = foreign(tmp_path / "nan.h5", names, broken)
    assert "descriptors must be finite, that of 5 has NaN or infinity" in error(ours, "--against", nan)
    short = foreign(tmp_path / "short.h5", names[:3], ROWS)
    assert "/descriptors must be (N, D) with one name per row, found (24, 40) and 3 names" in error(
        ours, "--against", short
    )
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["descriptors"] = ROWS
    assert "lacks a part of a file of descriptors (/names)" in error(ours, "--against", tmp_path / "none.h5")
    with h5py.File(tmp_path / "ranks.h5", "w") as file:
        file.attrs["format"] = "ultron-ranks"
    assert "is not a file of descriptors: its format attribute" in error(ours, "--against", tmp_path / "ranks.h5")
    assert "--against REF.h5, or --expected" in error(ours)
    assert "--against REF.h5, or --expected" in error(ours, "--against", other, "--expected")
    assert "--expected reads what MINE.h5 records, not photos; leave out --weights" in error(
        ours, "--expected", "--weights", other
    )
    assert "--n-photos must" in error(ours, "--against", other, "--n-photos", 0)
    assert "gone.h5" in error(tmp_path / "gone.h5", "--against", other)


def test_a_published_score(ultron: Run, tmp_path: Path) -> None:
    stored = {"crop": "none", "scales": [1.0], "max_side_px": 1024, "role": "query"}
    info = DescriptorInfo(
        model="dolg-r50",
        weights_sha256="",
        dataset="roxford5k",
        role="query",
        crop="none",
        scales=[1.0],
        extraction=ExtractionRecord(stored=stored),
    )
    path = tmp_path / "queries.h5"
    write_descriptors(path, [f"{i}" for i in range(N)], [ROWS.astype(np.float32)], DIM, info)
    code, out, _ = ultron("diagnose", path, "--expected")
    assert code == 0
    assert "published medium 81.20, hard 62.55" in out
    assert "differs: queries are not cropped to their box" in out and "differs: 1 scale where 5 are published" in out
    content = read_json(ultron("diagnose", path, "--expected", "--json"))
    assert content["published"][0]["mAP"] == {"medium": 81.2, "hard": 62.55}
