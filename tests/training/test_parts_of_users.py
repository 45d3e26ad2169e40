"""Parts by import path within a run: stopped and resumed it ends as if undisturbed, by the code of then; batches of
one's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import Run
from tests.training.runs_for_tests import SMALL, step_losses, train
from ultron_cli import user_code
from ultron_cli.configs import flatten, from_dict
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.models import build_model
from ultron_cli.models.weights.checkpoints import load_checkpoint
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.learner import Learner

PARTS = """
import numpy as np
import torch
from torch import nn
from ultron_cli.training.losses.batch import BatchLoss


class Spread(BatchLoss):
    def of_batch(self, descriptors, labels, references, reference_labels):
        is_same = labels[:, None] == reference_labels
        cosines = descriptors @ references.T
        return cosines[~is_same].relu().mean() - cosines[is_same].mean()


class Drifting(torch.optim.Optimizer):
    def __init__(self, groups, lr: float, share: float = 0.9):
        super().__init__(groups, {"lr": lr})
        self.share = share

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is not None:
                    state = self.state[weights]
                    mean = state.setdefault("mean", torch.zeros_like(weights))
                    state["n"] = state.get("n", 0) + 1
                    weights.sub_(group["lr"] / state["n"] * mean.lerp_(weights.grad, 1 - self.share))


class Falling:
    def __init__(self, factor: float = 0.5):
        self.factor = factor

    def __call__(self, epoch, epochs):
        return self.factor**epoch


class Groups:
    def __init__(self, photos, batch_size: int, together: int = 2):
        order = np.argsort(photos.labels, kind="stable")
        self.rows_of = np.split(order, np.cumsum(np.bincount(photos.labels))[:-1])
        self.shape = (len(order) // batch_size, batch_size)
        self.together = together

    def __call__(self, epoch, draws):
        landmarks = np.resize(draws.permutation(len(self.rows_of)), self.shape[0] * self.shape[1] // self.together)
        return np.concatenate([draws.choice(self.rows_of[i], self.together) for i in landmarks]).reshape(self.shape)


class Mixed(nn.Module):
    def __init__(self, n_channels: int, share: float = 0.5):
        super().__init__()
        self.share = nn.Parameter(torch.full((n_channels,), share))

    def forward(self, maps):
        return self.share * maps.mean((2, 3)) + (1 - self.share) * maps.amax((2, 3))


class Gate(nn.Module):
    at, stages = "stage", (4,)

    def __init__(self, n_channels: int):
        super().__init__()

    def forward(self, maps):
        return maps.relu()


class Narrow(Groups):
    def __call__(self, epoch, draws):
        return super().__call__(epoch, draws)[:, 1:]


class Growing(Groups):
    def __call__(self, epoch, draws):
        return super().__call__(epoch, draws)[: 1 + epoch]


class Nothing: ...
"""


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    path = tmp_path / "parts.py"
    path.write_text(PARTS)
    return path


def settings_of(parts: Path) -> dict[str, Any]:
    return {
        "loss": {"name": f"{parts}:Spread", "memory": 20, "batches": f"{parts}:Groups"},
        "optimizer": f"{parts}:Drifting",
        "optimizer_settings": {"share": 0.8},
        "schedule": f"{parts}:Falling",
        "checkpoint_minutes": 0.0,
    }


def finished(folder: Path) -> tuple[list[float], str]:
    return step_losses(folder), load_checkpoint(folder / "checkpoint.pt").weights_sha256


def test_a_stopped_run_ends_as_if_undisturbed(
    toy: Path, tmp_path: Path, parts: Path, ultron: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [f"--set={key}={value}" for key, value in flatten(SMALL | settings_of(parts)).items()]
    command = ("train", "--dataset", toy, *flags)
    code, _, err = ultron(*command, "--out", tmp_path / "undisturbed")
    assert code == 0, err
    losses, _ = finished(tmp_path / "undisturbed")
    learner_step = Learner.step
    stop = len(losses) - 1  # within an epoch

    def step(self: Learner, pixels: torch.Tensor, labels: torch.Tensor, step: int) -> Any:
        if step == stop:
            raise WorkFailed("stopped by the test")
        return learner_step(self, pixels, labels, step)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "step", step)
        assert ultron(*command, "--out", tmp_path / "run")[0] == 1
    parts.write_text(PARTS + "# changed\n")
    resume = ("train", "--resume", "--out", tmp_path / "run")
    code, _, err = ultron(*resume, "--code", parts)
    assert code == 2 and "parts.py has changed since" in err and "or take the changed one with --changed-code" in err
    code, _, err = ultron(*resume, "--code", tmp_path / "run" / "code" / "parts.py")
    assert code == 0, err
    assert finished(tmp_path / "run") == finished(tmp_path / "undisturbed")


def test_layers_that_torch_compiles(parts: Path) -> None:
    """Traced whole, as those of ultron, by what `compile=true` begins with."""
    user_code.permit(str(parts))
    model = build_model(
        "gem", {"backbone": "test_resnet"} | {"pooling": f"{parts}:Mixed", "attention": f"{parts}:Gate"}
    )
    maps = torch.rand(2, int(model.feature_map(torch.zeros(2, 3, 48, 48)).shape[1]), 3, 3)
    for name in ("Mixed", "Gate"):
        (layer,) = [module for module in model.modules() if type(module).__name__ == name]
        traced = torch.compile(layer, backend="eager", fullgraph=True)
        assert torch.equal(traced(maps), layer(maps))


def test_batches_of_ones_own(toy: Path, tmp_path: Path, parts: Path) -> None:
    """For losses with and without class weights; the rows are those of the class, whatever the epoch begins with."""
    from ultron_cli.datasets.landmarks.photos import open_landmark_photos
    from ultron_cli.training.batches.choice import make_batches

    user_code.permit(str(parts))
    photos = open_landmark_photos(toy)
    for loss in ({"name": "arcface"}, {"name": "triplet"}):
        config = from_dict(TrainConfig, SMALL | {"loss": loss | {"batches": f"{parts}:Groups"}})
        batches = make_batches(config, photos)
        rows, seeds = batches.epoch_rows(1)
        assert rows.shape == seeds.shape == (3, 12) and batches.n_batches == 3
        labels = photos.labels[rows].reshape(-1, 2)
        assert (labels[:, 0] == labels[:, 1]).all()
        assert np.array_equal(rows, make_batches(config, photos).epoch_rows(1)[0])
        assert not np.array_equal(rows, batches.epoch_rows(0)[0])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"batches": "{parts}:Narrow"},
            r"line 71: Narrow must give rows \(batches, 12\) of 36 photos, integers from 0; found int64 \(3, 11\) from",
        ),
        ({"batches": "{parts}:Growing"}, "line 76: Growing must give as many .* found 1 in epoch 0 and 2 in epoch 1"),
        (
            {"batches": "{parts}:Nothing"},
            r"line 80: Nothing needs the method __call__\(epoch, draws\), see UserSampler",
        ),
        (
            {"batches": "{parts}:Groups", "batches_settings": {"togeter": 1}},
            r"line 40: Groups: unknown setting loss\.batches_settings\.togeter; did you mean together\?",
        ),
        ({"batches": "landmarks"}, r"`loss\.batches` must be one of shuffled; found 'landmarks'"),
        ({"name": "triplet", "batches": "landmark"}, "must be one of landmarks, mined; found 'landmark'; did you mean"),
        (
            {"batches_settings": {"n": 1}},
            r"loss\.batches_settings are of batches by import path, found loss\.batches=sh",
        ),
        ({"name": "cfcd-stage2", "batches": "{parts}:Groups"}, "loss cfcd-stage2 makes tuples itself"),
    ],
)
def test_batches_that_are_refused(toy: Path, tmp_path: Path, parts: Path, settings: dict[str, Any], words: str) -> None:
    user_code.permit(str(parts))
    loss = {key: value.format(parts=parts) if isinstance(value, str) else value for key, value in settings.items()}
    with pytest.raises(UltronError, match=words):
        train(toy, tmp_path / "run", loss={"name": "arcface"} | loss)
