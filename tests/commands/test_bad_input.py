"""Bad input: one clear line with the next step, exit code 2, nothing half-written."""

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.conftest import Run

MODEL = ("--untrained", "--backbone", "test_resnet", "--scales", "1", "--workers", "0")


def expect_error(result: tuple[int, str, str], *words: str, code: int = 2) -> None:
    """Exit code, nothing on stdout, and one error line that has all the words."""
    exit_code, out, err = result
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert exit_code == code, err
    assert out == ""
    assert len(errors) == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in errors[0]


def no_results(tmp_path: Path) -> bool:
    """Whether the workspace holds no file under a final name."""
    return not [
        path
        for path in (tmp_path / "runs").rglob("*")
        if path.is_file() and path.suffix in (".h5", ".json", ".pt", ".png")
    ]


@pytest.fixture
def dataset(toy: Path, tmp_path: Path) -> Path:
    """A copy of the rendered set that a test may spoil."""
    shutil.copytree(toy / "jpg", tmp_path / "set" / "jpg")
    shutil.copy(toy / "gnd_toy.json", tmp_path / "set" / "gnd_toy.json")
    return tmp_path / "set"


@pytest.fixture
def extracted(ultron: Run, toy: Path, tmp_path: Path) -> Path:
    """Descriptors of the rendered set."""
    code, _, err = ultron("extract", toy, *MODEL, "--out", tmp_path / "x")
    assert code == 0, err
    return tmp_path / "x"


def spoil_gnd(dataset: Path, change: object) -> None:
    truth = json.loads((dataset / "gnd_toy.json").read_text())
    change(truth)  # type: ignore[operator]
    (dataset / "gnd_toy.json").write_text(json.dumps(truth))


def test_missing_dataset_and_empty_folder(ultron: Run, tmp_path: Path) -> None:
    expect_error(
        ultron("extract", "--dataset", "roxford5k", *MODEL), "'roxford5k' is neither a folder nor a dataset", "make-toy"
    )
    (tmp_path / "empty").mkdir()
    expect_error(ultron("extract", tmp_path / "empty", *MODEL), "has no photos")
    expect_error(ultron("train", "--dataset", tmp_path / "empty"), "one folder per landmark")
    (tmp_path / "file.jpg").touch()
    expect_error(ultron("extract", tmp_path / "file.jpg", *MODEL), "is a file; name its folder")
    assert no_results(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda truth: truth["gnd"][0]["easy"].append(48), ("index 48, but imlist has 48 photos",)),
        (lambda truth: truth["gnd"][0].update(bbx=[50, 10, 20, 40]), ("inverted",)),
        (lambda truth: truth["gnd"][1].update(bbx=[0, 0, 5000, 40]), ("reaches outside the photo", "--no-crop")),
        (lambda truth: truth["imlist"].__setitem__(5, "nowhere"), ("'nowhere' has no photo", "--skip-bad")),
        (lambda truth: truth["qimlist"].__setitem__(0, "nobody"), ("'nobody' has no photo",)),
        (lambda truth: truth["gnd"].pop(), ("3 entries for 4 queries",)),
        (lambda truth: truth.pop("gnd"), ("lacks gnd",)),
    ],
)
def test_unsound_ground_truth(
    ultron: Run, dataset: Path, tmp_path: Path, change: object, words: tuple[str, ...]
) -> None:
    spoil_gnd(dataset, change)
    expect_error(ultron("extract", dataset, *MODEL), *words)
    assert no_results(tmp_path)


def test_dangerous_pickle(ultron: Run, dataset: Path, tmp_path: Path) -> None:
    (dataset / "gnd_toy.json").unlink()
    witness = tmp_path / "witness"
    (dataset / "gnd_toy.pkl").write_bytes(f"cos\nsystem\n(S'touch {witness}'\ntR.".encode())
    expect_error(ultron("extract", dataset, *MODEL), "was refused, and nothing in it was run", "os.system")
    assert not witness.exists()


def test_undecodable_photo(ultron: Run, dataset: Path, tmp_path: Path) -> None:
    name = json.loads((dataset / "gnd_toy.json").read_text())["imlist"][7]
    photo = dataset / "jpg" / f"{name}.jpg"
    photo.write_bytes(photo.read_bytes()[:200])
    expect_error(ultron("extract", dataset, *MODEL), f"{name}.jpg: cannot be decoded", "--skip-bad")
    code, out, err = ultron("extract", dataset, *MODEL, "--skip-bad")
    assert code == 0, err
    assert "left out 1 photo" in out
    code, out, err = ultron("evaluate")
    assert code == 0, err
    assert "1 photo of the ground truth not in the database" in err


@pytest.mark.parametrize("command", [("evaluate",), ("search",)])
def test_descriptors_of_another_dimension(
    ultron: Run, toy: Path, extracted: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    ultron("extract", toy, *MODEL, "--set", "model.descriptor_dim=16", "--out", tmp_path / "y")
    files = ("--queries", extracted / "queries.h5", "--database", tmp_path / "y" / "database.h5")
    expect_error(ultron(*command, *files), "holds 96-d descriptors", "has 16-d", "--overwrite")


def test_descriptors_of_different_models(ultron: Run, toy: Path, extracted: Path, tmp_path: Path) -> None:
    ultron("extract", toy, *MODEL, "--seed", 1, "--out", tmp_path / "y")
    files = ("--queries", extracted / "queries.h5", "--database", tmp_path / "y" / "database.h5")
    expect_error(ultron("evaluate", *files), "made by different models", "weights_sha256")


def spoil_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1500])


def spoil_text(path: Path) -> None:
    path.write_text("not an HDF5 file")


def spoil_version(path: Path) -> None:
    with h5py.File(path, "r+") as stored:
        stored.attrs["version"] = 2


def spoil_format(path: Path) -> None:
    with h5py.File(path, "r+") as stored:
        stored.attrs["format"] = "another"


def spoil_nan(path: Path) -> None:
    with h5py.File(path, "r+") as stored:
        stored["descriptors"][3, 0] = np.nan


def spoil_norm(path: Path) -> None:
    with h5py.File(path, "r+") as stored:
        stored["descriptors"][2] *= 3


def spoil_unfinished(path: Path) -> None:
    with h5py.File(path, "r+") as stored:
        stored.attrs["complete"] = False


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_truncate, ("truncated or not an HDF5 file",)),
        (spoil_text, ("truncated or not an HDF5 file",)),
        (spoil_version, ("version 2", "newer ultron")),
        (spoil_format, ("is not a descriptor file",)),
        (spoil_nan, ("row 3 has NaN",)),
        (spoil_norm, ("row 2 has norm 3.0",)),
        (spoil_unfinished, ("never finished", "again")),
        (Path.unlink, ("does not exist",)),
    ],
)
def test_spoiled_descriptor_files(ultron: Run, extracted: Path, spoil: object, words: tuple[str, ...]) -> None:
    spoil(extracted / "database.h5")  # type: ignore[operator]
    expect_error(ultron("evaluate"), *words)
    expect_error(ultron("search", "-k", 2), *words)
    expect_error(ultron("index"), *words)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_1(ultron: Run, extracted: Path, k: int) -> None:
    for command in ("search", "evaluate", "serve"):
        expect_error(ultron(command, "-k", k), "-k must be at least 1", str(k))


def test_more_than_all_photos_are_all(ultron: Run, extracted: Path) -> None:
    code, out, err = ultron("search", "-k", 49, "--json")
    assert code == 0
    assert "the database has 48 photos, so each ranking has 48" in err
    assert [len(result["photos"]) for result in json.loads(out)["results"]] == [48] * 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "gme", "--untrained"), ("unknown model 'gme'", "did you mean gem")),
        (("--backbone", "resnt50", "--untrained"), ("unknown backbone 'resnt50'", "resnet50")),
        (("--backbone", "test_resnet"), ("add --weights, --run or --untrained, or --pretrained",)),
        ((), ("no result of `ultron train`", "or name a model by its --weights")),
        (("--weights", "nowhere.pth"), ("nowhere.pth does not exist",)),
        (("--run", "nowhere"), ("'nowhere' has no checkpoint.pt",)),
        (("--untrained", "--pretrained"), ("exclude each other",)),
        ((*MODEL, "--scales", "2,nine"), ("--scales takes 1, 3, 5",)),
        ((*MODEL, "--max-side", "8"), ("--max-side must lie between 32",)),
        ((*MODEL, "--resize", "up"), ("--resize must be one of down, always",)),
        ((*MODEL, "--precision", "float8"), ("--precision must be one of",)),
        ((*MODEL, "--set", "model.p=high"), ("model.p must be a number",)),
        ((*MODEL, "--set", "optimizer.lr=1"), ("only settings of the model",)),
        ((*MODEL, "--device", "gpu"), ("--device takes auto, cpu, cuda",)),
        ((*MODEL, "--gnd", "nowhere.json"), ("nowhere.json does not exist",)),
        (("--no-such-flag",), ("--no-such-flag", "--help")),
    ],
)
def test_wrong_flags_of_extract(
    ultron: Run, toy: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    expect_error(ultron("extract", toy, *arguments), *words)
    assert no_results(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--preset", "quickstrat"), ("unknown preset 'quickstrat'", "did you mean quickstart")),
        (("--set", "epoch=3"), ("unknown setting epoch", "did you mean epochs")),
        (("--set", "epochs=many"), ("epochs must be a whole number",)),
        (("--set", "epochs"), ("--set takes key=value",)),
        (
            ("--set", "batch_size=8", "--set", "model.name=gem", "--set", "model.backbone=resnt18"),
            ("unknown backbone 'resnt18'",),
        ),
        (("--set", "loss.name=arcfce"), ("unknown loss 'arcfce'",)),
        (("--set", "augment.flop=true"), ("unknown setting augment.flop", "did you mean flip")),
        (("--set", "batch_size=4096"), ("fewer than a batch of 4096",)),
        (("--config", "nowhere.toml"), ("nowhere.toml does not exist",)),
    ],
)
def test_wrong_flags_of_train(
    ultron: Run, toy: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    expect_error(ultron("train", "--dataset", toy, *arguments), *words)
    assert no_results(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate",), ("no result of `ultron extract` in the workspace",)),
        (("visualize-cam",), ("no result of `ultron extract`",)),
        (("index",), ("no result of `ultron extract`",)),
        (("search", "photo.jpg"), ("no result of `ultron extract`",)),
        (("evaluate", "--protocol", "expert"), ("--protocol must be one of easy, medium, hard, all",)),
        (("evaluate", "--ranks", "nowhere.h5"), ("nowhere.h5 does not exist",)),
        (("compare", "a.json", "b.json"), ("a.json does not exist",)),
        (("weights", "inspect", "nowhere.pth"), ("nowhere.pth does not exist",)),
        (("trian",), ("trian", "train")),
    ],
)
def test_wrong_use_of_other_commands(ultron: Run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    expect_error(ultron(*arguments), *words)


def test_wrong_names_for_pictures(ultron: Run, extracted: Path) -> None:
    expect_error(ultron("visualize-cam", "--query", "toy_99"), "query 'toy_99' is not in the search")
    expect_error(ultron("visualize-cam", "--photo", "toy_99"), "'toy_99' is not among the 48 ranked")
    expect_error(ultron("visualize-cam", "--method", "gradcamm"), "--method must be one of gradcam")


def test_photo_query_that_is_no_photo(ultron: Run, extracted: Path, tmp_path: Path) -> None:
    (tmp_path / "q.jpg").write_text("no")
    expect_error(ultron("search", tmp_path / "q.jpg"), "q.jpg: cannot be decoded")
    Image.new("RGB", (50, 40)).save(tmp_path / "q.png")
    expect_error(ultron("search", tmp_path / "q.png", "--bbx", "0,0,90,30"), "reaches outside")
    expect_error(ultron("search", tmp_path / "q.png", "--bbx", "1,2,3"), "4 numbers")


def test_places_that_cannot_be_written(ultron: Run, toy: Path, extracted: Path, tmp_path: Path) -> None:
    blocked = Path("/proc/nowhere")  # read-only even for root
    expect_error(ultron("extract", toy, *MODEL, "--out", blocked), "cannot write in /proc/nowhere", "--out")
    expect_error(ultron("evaluate", "--out", blocked / "e.json"), "cannot write")
    expect_error(ultron("train", "--dataset", toy, "--out", blocked), "cannot write")
    (tmp_path / "a_file").touch()
    expect_error(ultron("extract", toy, *MODEL, "--out", tmp_path / "a_file" / "x"), "--out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(ultron: Run, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir(mode=0o500)
    expect_error(ultron("extract", toy, *MODEL, "--out", tmp_path / "ro" / "x"), "cannot write")


def test_ground_truth_of_another_dataset(ultron: Run, extracted: Path, tmp_path: Path) -> None:
    other = {"imlist": ["p"], "qimlist": ["q"], "gnd": [{"bbx": None, "easy": [0], "hard": [], "junk": []}]}
    (tmp_path / "gnd_other.json").write_text(json.dumps(other))
    expect_error(ultron("evaluate", "--gnd", tmp_path / "gnd_other.json"), "lacks 1 query of the ground truth", "'q'")


def test_weights_that_changed_since_extraction(ultron: Run, toy: Path, tmp_path: Path) -> None:
    train = (
        "--set",
        "epochs=1",
        "--set",
        "model.name=gem",
        "--set",
        "model.backbone=test_resnet",
        "--set",
        "batch_size=8",
        "--set",
        "side_px=32",
        "--set",
        "workers=0",
    )
    assert ultron("train", "--dataset", toy, *train, "--out", tmp_path / "run")[0] == 0
    assert ultron("extract", toy, "--scales", "1", "--workers", "0")[0] == 0
    expect_error(
        ultron("train", "--dataset", toy, *train, "--out", tmp_path / "run"), "holds a finished run", "--overwrite"
    )
    assert (
        ultron("train", "--dataset", toy, *train, "--set", "seed=1", "--out", tmp_path / "run", "--overwrite")[0] == 0
    )
    expect_error(ultron("visualize-cam"), "not those the descriptors were made with")
    shutil.rmtree(tmp_path / "run")
    expect_error(ultron("visualize-cam"), "which is gone", "--weights")
