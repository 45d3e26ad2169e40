"""Parts of a user's own on the command line: through every command that knows them, and five wrong ones, each one line
that names file and line."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import Run, free_port
from tests.prepared_python import start_python
from tests.test_extending import SMALL

PARTS = """
from dataclasses import dataclass, replace

import torch
from torch import nn
from ultron_cli.retrieval.rerank.state import RerankState
from ultron_cli.training.losses.base import ClassSettings, MarginLoss


class Mixed(nn.Module):
    def __init__(self, n_channels: int, share: float = 0.5) -> None:
        super().__init__()
        self.layer = nn.Linear(n_channels, n_channels)
        self.share = share

    def forward(self, maps):
        return self.layer(self.share * maps.mean((2, 3)) + (1 - self.share) * maps.amax((2, 3)))


class Gate(nn.Module):
    def __init__(self, n_channels: int) -> None:
        super().__init__()

    def forward(self, maps):
        return maps.relu()


class Plain(MarginLoss):
    pass


class Falling:
    def __call__(self, epoch, epochs):
        return 0.5**epoch


class Turned:
    def __init__(self, photos, batch_size):
        self.n, self.shape = len(photos.labels) // batch_size * batch_size, (-1, batch_size)

    def __call__(self, epoch, draws):
        return draws.permutation(self.n).reshape(self.shape)


class Momentum(torch.optim.Optimizer):
    def __init__(self, groups, lr: float, share: float = 0.9):
        super().__init__(groups, {"lr": lr})
        self.share = share

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is not None:
                    mean = self.state[weights].setdefault("mean", torch.zeros_like(weights))
                    weights.sub_(group["lr"] * mean.lerp_(weights.grad, 1 - self.share))


@dataclass(frozen=True, kw_only=True)
class Kept:
    m: int = 3

    @property
    def n_needed(self) -> int:
        return self.m

    def __call__(self, state: RerankState) -> RerankState:
        return replace(state)
"""
NAMED = ("--set", "model.pooling=parts.py:Mixed", "--set", "model.pooling_settings.share=0.25")
RATES = ("--set", "schedule=parts.py:Falling", "--set", "optimizer=parts.py:Momentum", "--set", "lr=0.01")
TRAIN = ("train", "--config", "small.toml", "--dataset", "photos", "--set")
BATCHES = ("--set", "loss.batches=parts.py:Turned")


@pytest.fixture
def work(tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "parts.py").write_text(PARTS)
    (folder / "small.toml").write_text(SMALL)
    (folder / "photos").symlink_to(toy)
    monkeypatch.chdir(folder)
    return folder


def refused(result: tuple[int, str, str]) -> str:
    """The one line of a command that was refused."""
    code, out, err = result
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return line


def done(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert code == 0, err
    return out


def test_one_part_through_every_command(work: Path, toy: Path, ultron: Run) -> None:
    train = ("train", "--dataset", "photos", "--config", "small.toml", "--out", "run")
    more = ("--set", "model.attention=parts.py:Gate", "--set", "loss.name=parts.py:Plain", *RATES, *BATCHES)
    done(ultron(*train, *NAMED, *more))
    copy = work / "run" / "code" / "parts.py"
    assert copy.read_text() == PARTS
    stored = json.loads((work / "run" / "config.json").read_text())["provenance"]["code"]
    assert set(stored) == {f"parts.py:{name}" for name in ("Mixed", "Gate", "Plain", "Falling", "Momentum", "Turned")}
    ask = "run/checkpoint.pt was made with parts.py:Gate, code that is run only if you name it; if you trust it, add"
    assert refused(ultron("extract", "photos", "--run", "run")) == f"error: {ask} --code run/code/parts.py"
    trusted = ("--code", "parts.py")
    done(ultron("extract", "photos", "--run", "run", "--out", "e", *trusted))
    done(ultron("extract", "photos", "--run", "run", "--out", "e", *NAMED))  # found whole: nothing is computed again
    files = ("--queries", "e/queries.h5", "--database", "e/database.h5")
    steps = ("--rerank", "aqe,parts.py:Kept", "--rerank-set", "Kept.m=5")
    photo = sorted((toy / "jpg").glob("*.jpg"))[0]
    assert " --code " in refused(ultron("search", photo, "--database", "e/database.h5"))
    done(ultron("search", photo, "--database", "e/database.h5", *trusted))
    done(ultron("search", *files, *steps, "--out", "ranks.h5"))
    evaluation = json.loads(done(ultron("evaluate", *files, *steps, "--json")))
    step = evaluation["provenance"]["search"]["rerank"][1]
    assert (step["name"], step["m"], len(step["code_sha256"])) == ("parts.py:Kept", 5, 64)
    assert evaluation["provenance"]["config"]["model"]["code"].keys() == {"parts.py:Mixed", "parts.py:Gate"}
    done(ultron("visualize", "cam", "--ranks", "ranks.h5", "-k", 1, "--out", "cam", *trusted))
    done(ultron("visualize", "report", "--ranks", "ranks.h5", "--out", "report", *trusted))
    resume = ("train", "--resume", "--out", "run", "--set", "epochs=2")
    assert refused(ultron(*resume)).endswith("if you trust it, add --code run/code/parts.py")
    (work / "parts.py").write_text(PARTS + "# changed\n")
    assert (
        "parts.py has changed since run was made with it; name the code of then with --code run/code/parts.py, or "
        in (refused(ultron(*resume, *trusted)))
    )
    done(ultron(*resume, "--code", copy))
    code, _, err = ultron("extract", "photos", "--run", "run", "--out", "f", "--changed-code", *trusted)
    assert code == 0 and "warning: " in err and "has changed since" in err


@pytest.mark.parametrize(
    ("content", "options", "line", "words"),
    [
        ("from torch import nn\n\nclass A(nn.Module):\n    pass\n", (), 3, "A needs the method forward"),
        (
            "from torch import nn\nclass A(nn.Module):\n    def __init__(self, n):\n        super().__init__()\n"
            "    def forward(self, maps):\n        return maps\n",
            (),
            5,
            "A must give (2, 512) for a map of (2, 512, 5, 4); found (2, 512, 5, 4)",
        ),
        (
            "from torch import nn\nclass A(nn.Module):\n    def __init__(self, n):\n        super().__init__()\n"
            "    def forward(self, maps):\n        if maps.shape[2] != 5: raise ValueError('no\\nfurther')\n"
            "        return maps.mean((2, 3))\n",
            (),
            6,
            ", in forward: ValueError: no; mend it",
        ),
        ("\nclass gem: ...\n", (), 2, "gem is the name of a pooling of ultron; give it another name"),
        (
            "from torch import nn\nclass A(nn.Module):\n    def __init__(self, n, share=1.0):\n"
            "        super().__init__()\n    def forward(self, maps):\n        return maps.mean((2, 3))\n",
            ("--set", "model.pooling_settings.shares=2"),
            3,
            "A: unknown setting model.pooling_settings.shares; did you mean share? (known: share)",
        ),
    ],
    ids=["missing-method", "wrong-shape", "exception-in-forward", "name-clash", "unknown-settings"],
)
def test_a_wrong_pooling_is_one_line(
    work: Path, ultron: Run, content: str, options: tuple[str, ...], line: int, words: str
) -> None:
    (work / "wrong.py").write_text(content)
    name = "gem" if "class gem" in content else "A"
    model = ("--set", f"model.pooling=wrong.py:{name}", *options)
    message = refused(ultron("extract", "photos", "--untrained", "--backbone", "resnet10t", *model))
    place = f"error: {work / 'wrong.py'}, line {line}"
    assert message.startswith((f"{place}: {words}", place + words))


@pytest.mark.parametrize(
    ("arguments", "content", "line", "words"),
    [
        (
            ("extract", "photos", "--untrained", "--model", "wrong.py:Net"),
            "class Net: ...",
            1,
            "Net must be a RetrievalModel",
        ),
        (
            ("extract", "photos", "--untrained", "--model", "wrong.py:Net"),
            "from dataclasses import dataclass\nfrom ultron_cli.models.core import RetrievalModel\n@dataclass\n"
            "class Settings: ...\nclass Net(RetrievalModel):\n    settings_type = Settings\n"
            "    def feature_map(self, images): return images\n",
            5,
            "Net needs the method pool",
        ),
        (
            ("extract", "photos", "--untrained", "--model", "wrong.py:Net"),
            "from dataclasses import dataclass\nfrom ultron_cli.models.core import RetrievalModel\n@dataclass\n"
            "class Settings: ...\nclass Net(RetrievalModel):\n    settings_type = Settings\n    descriptor_dim = 4\n"
            "    def feature_map(self, images): return images\n    def pool(self, maps): return maps.mean((2, 3))\n",
            9,
            "Net.pool must give (2, 4) for 2 photos; found (2, 3)",
        ),
        (
            ("train", "--config", "small.toml", "--dataset", "photos", "--set", "loss.name=wrong.py:Loss"),
            "class Loss: ...",
            1,
            "Loss must be a MarginLoss",
        ),
        (
            ("extract", "photos", "--untrained", "--model", "wrong.py:Net"),
            "from dataclasses import dataclass\nfrom ultron_cli.models.core import BackboneModel\n@dataclass\n"
            "class Settings: ...\nclass Net(BackboneModel):\n    settings_type = Settings\n"
            "    def feature_map(self, images): ...\n    def pool(self, maps): ...\n",
            5,
            "settings_type of Net needs the setting backbone",
        ),
        (
            ("extract", "photos", "--untrained", "--model", "wrong.py:Net"),
            "from dataclasses import dataclass\nfrom ultron_cli.models.core import RetrievalModel\n@dataclass\n"
            "class Settings: ...\nclass Net(RetrievalModel):\n    settings_type = Settings\n"
            "    def __init__(self): ...\n    def feature_map(self, images): ...\n    def pool(self, maps): ...\n",
            7,
            "Net must be made by Net(name, settings); found ()",
        ),
        (
            ("train", "--config", "small.toml", "--dataset", "photos", "--set", "loss.name=wrong.py:Loss"),
            "from ultron_cli.training.losses.batch import BatchLoss\nclass Loss(BatchLoss): ...\n",
            2,
            "Loss needs the method of_batch",
        ),
        (("search", "--rerank", "wrong.py:Step"), "class Step: ...", 1, "Step must be a frozen dataclass"),
        (
            ("search", "--rerank", "wrong.py:Step"),
            "from dataclasses import dataclass\n@dataclass\nclass Step:\n    n_needed: int = 1\n",
            2,
            "Step needs the method __call__",
        ),
        (
            ("search", "--rerank", "wrong.py:aqe"),
            "class aqe: ...",
            1,
            "aqe is the name of a re-ranking step of ultron; give it another name",
        ),
        (
            ("weights", "import", "small.toml", "--from", "wrong.py:Class", "--out", "x.pt"),
            "Class = 3",
            1,
            "function",
        ),
        (("serve", "--method", "wrong.py:Map", "--port", 0), "def Map(): ...", 1, "Map must be a class"),
        (
            ("train", "--config", "small.toml", "--dataset", "photos", "--set", "loss.name=wrong.py:Loss"),
            "from ultron_cli.training.losses.batch import BatchLoss\nclass Loss(BatchLoss):\n"
            "    def of_batch(self, descriptors, *others): return descriptors\n",
            2,
            "Loss: TypeError: a loss must be a scalar tensor with a gradient, found (8, 512); mend it",
        ),
        (
            (*TRAIN, "loss.name=wrong.py:Loss", "--set", "loss.memry=3"),
            "from ultron_cli.training.losses.batch import BatchLoss\nclass Loss(BatchLoss):\n"
            "    def of_batch(self, descriptors, *others): return descriptors\n",
            2,
            "Loss: unknown setting loss.memry; did you mean memory?",
        ),
        (
            ("train", "--config", "small.toml", "--dataset", "photos", "--set", "schedule=wrong.py:Falling"),
            "class Falling:\n    def __call__(self, epoch): return 1.0\n",
            2,
            "Falling: TypeError: Falling.__call__() takes 2 positional arguments but 3 were given; mend it",
        ),
        (
            ("extract", "photos", "--untrained", "--backbone", "wrong.py:resnet50"),
            "class resnet50: ...",
            1,
            "resnet50 is the name of a backbone of ultron; give it another name",
        ),
        (
            ("evaluate", "--metric", "wrong.py:Mine"),
            "from ultron_cli.evaluation.metrics.ranked import QueryMetric\nclass Mine(QueryMetric): ...",
            2,
            "Mine needs name and of_query, see Metric; write it",
        ),
    ],
)
def test_other_wrong_parts_are_one_line(
    work: Path, ultron: Run, arguments: tuple[object, ...], content: str, line: int | None, words: str
) -> None:
    (work / "wrong.py").write_text(content)
    message = refused(ultron(*arguments))
    place = f", line {line}: " if line else ": "
    assert message.startswith(f"error: {work / 'wrong.py'}{place}") and words in message


def test_a_step_that_gives_no_state(work: Path, ultron: Run) -> None:
    done(ultron("extract", "photos", "--untrained", "--backbone", "resnet10t", "--out", "e"))
    (work / "wrong.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Step:\n    n_needed: int = 1\n"
        "    def __call__(self, state):\n        return None if self.n_needed == 1 else state.ranking.nothing\n"
    )
    search = ("search", "--queries", "e/queries.h5", "--database", "e/database.h5", "--rerank", "wrong.py:Step")
    assert f"{work / 'wrong.py'}, line 5: Step must give a RerankState with a ranking of 4 queries; found NoneType" in (
        refused(ultron(*search))
    )
    message = refused(ultron(*search, "--rerank-set", "Step.n_needed=2"))
    assert "wrong.py, line 6, in __call__: AttributeError: 'RankedRows' object has no attribute 'nothing'" in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--code", "none.py"), "none.py must be a file with Python code, there is none"),
        (("--code", "no.such.module"), "no.such.module must be a module of Python that can be imported"),
        (("--code", ""), "--code was given an empty text"),
        (("--set", "model.pooling=none.py:A"), "none.py must be a file with Python code"),
        (("--model", "small.toml:A"), "small.toml must be a module of Python that can be imported"),
    ],
)
def test_code_that_is_not_there(work: Path, ultron: Run, arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(ultron("extract", "photos", "--untrained", "--backbone", "resnet10t", *arguments))


def test_two_processes(work: Path) -> None:
    command = (
        "-m",
        "ultron_cli",
        "train",
        "--dataset",
        "photos",
        "--config",
        "small.toml",
        "--out",
        "run",
        *NAMED,
        *RATES,
        *BATCHES,
    )
    port, processes = str(free_port()), []
    for rank in ("0", "1"):  # as torchrun starts them
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes.append(start_python(command, work / f"{rank}.txt", environment=os.environ | place))
    for rank, process in enumerate(processes):
        process.join(100)
        assert process.exitcode == 0, (work / f"{rank}.txt").read_text()
    assert (work / "run" / "code" / "parts.py").read_text() == PARTS
