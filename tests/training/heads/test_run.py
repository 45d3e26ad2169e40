"""A head trained on stored descriptors: what it learns, resuming, its use at extraction, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import Run, read_json
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.models.heads import AdaptedSettings, LinearHead
from ultron_cli.models.weights.checkpoints import load_checkpoint
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, write_descriptors
from ultron_cli.retrieval.origin import DescriptorProvenance, ExtractionRecord, WeightsSource
from ultron_cli.retrieval.whitening import open_descriptors, read_whitening
from ultron_cli.training.batches.draws import EpochBatches
from ultron_cli.training.heads import run as heads
from ultron_cli.training.heads.described import open_described
from ultron_cli.training.losses import make_loss
from ultron_cli.training.presets import load_config
from ultron_cli.training.start import TrainRequest, start_training

MODEL = {"name": "gem", "settings": {"backbone": "test_resnet"}}
MINED = ("loss.name=contrastive", "loss.batches=mined", "batch_size=35", "loss.margin=0.7")
N_LANDMARKS, PER_LANDMARK, DIM = 60, 8, 32


def made_up(path: Path, *, seed: int = 0, **changes: object) -> Path:
    """Descriptors of landmarks that differ in a few dimensions only, among louder ones that say nothing: a linear layer
    can tell them apart, cosines hardly."""
    draws = np.random.Generator(np.random.PCG64(seed))
    landmarks = np.repeat(np.arange(N_LANDMARKS), PER_LANDMARK)
    telling = draws.normal(size=(N_LANDMARKS, 8))[landmarks] + 0.2 * draws.normal(size=(len(landmarks), 8))
    rows = np.concatenate([telling, 1.5 * draws.normal(size=(len(landmarks), DIM - 8))], axis=1).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"l{landmark:02}/{i}.jpg" for i, landmark in enumerate(landmarks)]
    info = DescriptorInfo(
        model="gem-test_resnet",
        weights_sha256="0" * 64,
        extraction=ExtractionRecord(stored={"model": MODEL, "scales": [1.0], "max_side_px": 64, **changes}),
        dataset="made-up",
        role="database",
        crop="none",
        scales=[1.0],
        provenance=DescriptorProvenance(
            weights=WeightsSource.from_json({"kind": "untrained", "seed": 0}),
            dataset_folder=str(path.parent / "photos"),
        ),
    )
    for name in names:
        photo = path.parent / "photos" / name
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.touch()
    write_descriptors(path, names, [rows], DIM, info)
    return path


def settings(path: Path, *more: str) -> tuple[str, ...]:
    return (
        f"descriptors={path}",
        "epochs=12",
        "batch_size=32",
        "lr=0.01",
        "model.descriptor_dim=16",
        "validation.share=0.25",
        *more,
    )


def train(path: Path, out: Path, *more: str, resume: bool = False) -> list[dict[str, float]]:
    request = TrainRequest(assignments=settings(path, *more), out=out, resume=resume)
    summary = start_training(request, "cpu")
    return summary.metrics


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("model.head=mlp",),
        ("model.start=pca-whitening",),
        ("loss.name=arcface", "loss.margin=0.1"),
        ("loss.name=ntxent",),
        MINED,
    ],
)
def test_it_learns_what_tells_landmarks_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, more: tuple[str, ...]
) -> None:
    caplog.set_level("INFO", "ultron")
    metrics = train(made_up(tmp_path / "train.h5"), tmp_path / "run", *more)
    (line,) = [line for line in caplog.messages if line.startswith("held-out mAP of the descriptors as they are")]
    before = float(line.split(": ")[1].removesuffix(" %")) / 100
    assert metrics[-1]["validation_mAP"] > before + 0.2
    assert metrics[-1]["validation_photos"] == 120
    assert (tmp_path / "run" / "whitening.h5").exists() == (more != ("model.head=mlp",))
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["provenance"]["base"]["weights_sha256"] == "0" * 64
    assert stored["provenance"]["descriptors"] == str(tmp_path / "train.h5")


def test_the_first_step_is_that_of_a_literal_loop(tmp_path: Path) -> None:
    """Of ILIAS's recipe: linear layer, unit length, cosines to unit class weights times 16, Adam."""
    path = made_up(tmp_path / "train.h5")
    preset = ("epochs=1", "batch_size=480", "validation.share=0", "weight_decay=0")
    request = TrainRequest(assignments=(f"descriptors={path}", *preset, "keep_checkpoints=2"), out=tmp_path / "run")
    metrics = start_training(request, "cpu").metrics
    assert load_config("linear-adaptation", None, ()).loss_name == "cosface"
    photos = open_described(path, None)
    config = load_config("linear-adaptation", None, (f"descriptors={path}", *preset))
    torch.manual_seed(0)
    linear = LinearHead(DIM, AdaptedSettings())
    torch.manual_seed(0)  # a Learner begins so
    weight = make_loss("cosface", config.loss_settings, n_classes=N_LANDMARKS, dim=512).weight
    (draws,) = EpochBatches(len(photos.labels), 480, 0)
    rows = np.array([draw.row for draw in draws])
    adapted = F.normalize(linear(torch.from_numpy(photos.descriptors(rows))), dim=1)
    logits = 16 * adapted @ F.normalize(weight, dim=1).T
    loss = F.cross_entropy(logits, torch.from_numpy(photos.labels[rows]))
    assert metrics[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    optimizer = torch.optim.Adam([linear.weight, linear.bias], lr=0.001)
    loss.backward()
    optimizer.step()
    stored = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["state_dict"]
    torch.testing.assert_close(stored["weight"], linear.weight.detach(), rtol=0, atol=1e-5)


def test_a_resumed_run_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made_up(tmp_path / "train.h5")
    whole = train(path, tmp_path / "whole")
    step = heads.HeadLearner.step

    def stop_at_30(self: heads.HeadLearner, pixels: torch.Tensor, labels: torch.Tensor, number: int) -> object:
        if number == 30:
            raise WorkFailed("stopped")
        return step(self, pixels, labels, number)

    monkeypatch.setattr(heads.HeadLearner, "step", stop_at_30)
    with pytest.raises(WorkFailed, match="stopped"):
        train(path, tmp_path / "parts", "checkpoint_minutes=0")
    monkeypatch.undo()
    with pytest.raises(UltronError, match=r"holds other descriptors than .*parts was started with: extraction\.scales"):
        train(made_up(tmp_path / "train.h5", scales=[0.5]), tmp_path / "parts", "checkpoint_minutes=0", resume=True)
    resumed = train(made_up(tmp_path / "train.h5"), tmp_path / "parts", "checkpoint_minutes=0", resume=True)
    scores = ("loss", "accuracy", "validation_mAP")
    assert [[entry[key] for key in scores] for entry in resumed] == [[entry[key] for key in scores] for entry in whole]
    states = [
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["state_dict"] for name in ("whole", "parts")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_extraction_uses_the_head_as_it_was_trained(toy: Path, tmp_path: Path, ultron: Run) -> None:
    model = ("--model", "gem", "--backbone", "test_resnet", "--untrained", "--scales", "0.7,1", "--max-side", "80")
    assert ultron("extract", toy / "train", *model, "--out", tmp_path / "train")[0] == 0
    stored = tmp_path / "train" / "database.h5"
    small = [part for text in ("batch_size=8", "epochs=2", "model.descriptor_dim=24") for part in ("--set", text)]
    run = read_json(ultron("train", "--descriptors", stored, *small, "--json"))
    assert run["model"] == "gem-test_resnet-linear" and run["n_landmarks"] == 6
    summary = read_json(ultron("extract", toy / "train", "--out", tmp_path / "adapted", "--json"))
    assert (summary["dim"], summary["config"]["scales"], summary["config"]["max_side_px"]) == (24, [0.7, 1.0], 80)
    head = load_checkpoint(Path(run["checkpoint"])).model.head
    raw = DescriptorFile(stored).read()
    with torch.inference_mode():
        expected = F.normalize(head(torch.from_numpy(raw)), dim=1).numpy()
    adapted = DescriptorFile(tmp_path / "adapted" / "database.h5")
    np.testing.assert_allclose(adapted.read(), expected, atol=1e-6)
    assert adapted.info.provenance.weights is not None
    assert adapted.info.provenance.weights.trained_on is not None
    assert adapted.info.provenance.weights.trained_on.folder == str(toy / "train")
    whitened = open_descriptors(stored, read_whitening(Path(run["run"]) / "whitening.h5")).read()
    np.testing.assert_allclose(whitened @ whitened.T, expected @ expected.T, atol=1e-5)
    photo = toy / "train" / adapted.names[3]
    (result,) = read_json(ultron("search", photo, "--database", adapted.path, "-k", 1, "--json"))["results"]
    assert result["photos"][0]["name"] == adapted.names[3]
    _, _, err = ultron("extract", "--out", tmp_path / "adapted")
    assert f"taking dataset {toy / 'train'}" in err


def test_from_python_descriptors_stand_in_place_of_a_dataset(tmp_path: Path) -> None:
    import ultron_cli as package

    described = DescriptorFile(made_up(tmp_path / "train.h5"))
    run = package.train(None, described, {"epochs": 1, "model.descriptor_dim": 8}, out=tmp_path / "run")
    assert run.load().descriptor_dim == 8 and run.config.loss_name == "cosface"


def test_labels_may_come_from_a_table(tmp_path: Path) -> None:
    path = made_up(tmp_path / "train.h5")
    names = DescriptorFile(path).names
    table = tmp_path / "labels.csv"
    table.write_text(
        "photo,landmark\n" + "".join(f"{name},{'even' if i % 2 else 'odd'}\n" for i, name in enumerate(names[:9]))
    )
    photos = open_described(path, table)
    assert photos.landmark_names == ["even", "odd"] and photos.labels.tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert photos.relative(3) == names[3]
    np.testing.assert_array_equal(
        photos.take(np.array([5, 2])).descriptors(slice(None)), photos.source.take(np.array([5, 2]))
    )


def test_what_cannot_be_trained_on_is_refused_in_one_line(tmp_path: Path) -> None:
    path = made_up(tmp_path / "train.h5")
    table = tmp_path / "labels.csv"
    table.write_text("photo,landmark\n")
    whitened = made_up(tmp_path / "w.h5", whitening={"method": "pca", "dim": 4, "sha256": ""})
    unknown = tmp_path / "unknown.h5"
    info = DescriptorInfo(model="x", weights_sha256="", dataset="", role="database", crop="none", scales=[])
    write_descriptors(unknown, ["a"], [np.eye(1, dtype=np.float32)], 1, info)
    for file, labels, words in (
        (path, table, "0 photos of 480 with 0 landmarks; .*name a CSV of photo,landmark with `labels`"),
        (whitened, None, r"w\.h5 is whitened \(pca to 4-d\)"),
        (unknown, None, "the network that made these descriptors is not recorded"),
    ):
        with pytest.raises(UltronError, match=words):
            open_described(file, labels)
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(UltronError, match=r"were in .*photos; name a CSV"):
        open_described(path, None)
    for more, words in (
        (("model.name=gem",), "descriptors train a head over the network that made them; found model gem"),
        (("model.base.name=gem",), r"found model\.base; leave it out"),
        (("loss.name=cfcd-stage2",), "loss needs photos"),
        (("group_sizes=true",), "group_sizes needs photos"),
        (("weights=x.pt",), "weights needs photos"),
        (("validation.kind=classification", "validation.by=photos"), r"validation\.kind needs photos"),
    ):
        with pytest.raises(UltronError, match=words):
            load_config("linear-adaptation", None, settings(path, *more))
    with pytest.raises(UltronError, match="labels are of stored descriptors"):
        load_config("quickstart", None, ("labels=x.csv",))
    with pytest.raises(UltronError, match=r"determine 31 dimensions .* use `model\.descriptor_dim=31`|determine 32"):
        (tmp_path / "moved").rename(tmp_path / "photos")
        train(path, tmp_path / "run", "model.start=pca-whitening", "model.descriptor_dim=64")


def test_a_head_of_ones_own_goes_in_by_import_path(tmp_path: Path, ultron: Run) -> None:
    code = (
        "import torch\n"
        "class Scaled(torch.nn.Module):\n"
        "    def __init__(self, n_inputs: int, dim: int, factor: float = 1.0) -> None:\n"
        "        super().__init__()\n"
        "        self.linear, self.factor = torch.nn.Linear(n_inputs, dim), factor\n"
        "    def forward(self, descriptors):\n"
        "        return self.factor * self.linear(descriptors)\n"
        "class Wide(Scaled):\n"
        "    def forward(self, descriptors):\n"
        "        return descriptors\n"
    )
    (tmp_path / "own.py").write_text(code)
    command = ("train", "--descriptors", made_up(tmp_path / "train.h5"), "--set", "epochs=1", "--set")
    head = ("--set", "model.head_settings.factor=2", "--out", tmp_path / "run", "--json")
    run = read_json(ultron(*command, f"model.head={tmp_path}/own.py:Scaled", *head))
    assert run["model"] == "gem-test_resnet-Scaled"
    assert (tmp_path / "run" / "code" / "own.py").read_text() == code
    stored = torch.load(run["checkpoint"], weights_only=True)["model"]
    assert stored["settings"]["head_settings"] == {"factor": 2} and len(stored["code"]) == 1
    code_of_error, _, err = ultron(*command, f"model.head={tmp_path}/own.py:Wide", "--out", tmp_path / "wide")
    assert code_of_error == 2
    assert f"{tmp_path}/own.py, line 9: Wide must give (2, 512) for descriptors of (2, 32); found (2, 32)" in err
