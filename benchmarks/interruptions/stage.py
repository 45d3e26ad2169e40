"""The commands that write, and their inputs, made once."""

import importlib
import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import timm
import torch

import ultron_cli
from tests.datasets.download.test_install import ROXFORD, ground_truth, tar_of
from tests.datasets.misbehaving_server import MisbehavingServer
from ultron_cli.cli import main as run_ultron
from ultron_cli.datasets import named
from ultron_cli.datasets.download import catalog, install
from ultron_cli.datasets.toy import ToyConfig, make_toy
from ultron_cli.retrieval.extraction import shards

BACKBONE = "test_resnet"
DESCRIBE = ("--untrained", "--model", "gem", "--backbone", BACKBONE)
EXTRACT = (*DESCRIBE, "--scales", "1", "--batch-size", "4")
RUN_SETTINGS = (
    *("model.name=gem", f"model.backbone={BACKBONE}", "side_px=32", "batch_size=8", "threads=1"),
    *("checkpoint_minutes=0", "log_every=1", "schedule=constant"),
)


@dataclass(frozen=True)
class Scene:
    """A command that writes."""

    name: str
    arguments: tuple[object, ...]
    result: str  # what it makes in a folder
    resumes: bool = False  # an unfinished result is gone on with
    out_flag: str = "--out"  # of the result, or of the folder of it (--data-root); "" where the command has none
    prepare: Callable[[Path], None] = lambda folder: None  # lays inputs into the folder
    going_on: Callable[[Path], tuple[object, ...] | None] = lambda result: None  # command line for a begun result
    uses_workspace: bool = True  # without --out the result goes into the workspace, or into the data root

    def run(self, folder: Path) -> int:
        """Runs it into a folder and returns its exit code."""
        self.prepare(folder)
        result = folder / self.result
        if again := self.going_on(result):
            return ultron(*again)
        place = folder if self.out_flag == "--data-root" else result
        return ultron(*self.arguments, *((self.out_flag, place) if self.out_flag else ()))

    def run_in_workspace(self, workspace: Path) -> int:
        """Runs it with its result where it goes without --out."""
        os.environ["ULTRON_WORKSPACE"] = os.environ["ULTRON_DATA"] = str(workspace)
        return ultron(*self.arguments)


def ultron(*arguments: object) -> int:
    """Runs a command line in this process; returns its exit code."""
    return run_ultron([str(argument) for argument in arguments])


def load_all() -> None:
    """Loads what the commands load, so that moments are drawn over their work and not over imports."""
    for module in pkgutil.walk_packages(ultron_cli.__path__, "ultron_cli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("faiss", "matplotlib.pyplot", "matplotlib.backends.backend_agg", "torchvision.transforms.v2"):
        importlib.import_module(name)


def settings_flags(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


class Stage:
    """Inputs of commands in a folder, and the commands.

    names: those wanted; None for all. Inputs that take long are made only for them.
    """

    def __init__(self, folder: Path, names: list[str] | None = None) -> None:
        self.folder = folder
        self.names = names
        self.toy = folder / "toy"
        self.server = MisbehavingServer()
        config = ToyConfig(n_train_landmarks=4, n_eval_landmarks=3, n_distractors=4, max_side_px=64)
        make_toy(self.toy, config, workers=0)
        os.environ["ULTRON_WORKSPACE"] = str(folder / "workspace")
        shards.PHOTOS_PER_SHARD = 4
        install.RESERVE_BYTES = 0
        self._serve_oxford()
        load_all()
        # Few photos, and one process that renders them.
        small = {"n_train_landmarks": 1, "n_eval_landmarks": 1, "n_distractors": 2, "max_side_px": 48}
        small |= {"n_train_photos": 2, "n_database_photos": 4, "n_queries_per_landmark": 1}
        named.render_toy = lambda out, config: make_toy(out, replace(config, **small), workers=1) and out
        self._make_inputs()
        scenes = [*self._steps(), *self._exchange(), *self._pictures(), *self._data()]
        self.scenes = [scene for scene in scenes if self._is_wanted(scene.name)]

    def _is_wanted(self, *names: str) -> bool:
        return self.names is None or bool(set(names) & set(self.names))

    def _make_inputs(self) -> None:
        self.described = self.folder / "described"
        assert ultron("extract", self.toy, *EXTRACT, "--out", self.described, "--workers", "0") == 0
        self.database = self.described / "database.h5"
        self.between = ("--queries", self.described / "queries.h5", "--database", self.database)
        self.ranks = ("--ranks", self.folder / "ranks.h5")
        assert ultron("search", *self.between, "--out", self.folder / "ranks.h5") == 0
        self.run_folder = self.folder / "run"
        if self._is_wanted("curves", "selectivity"):
            train = ("train", "--dataset", self.toy / "train", *settings_flags(*RUN_SETTINGS, "epochs=2", "workers=0"))
            assert ultron(*train, "--out", self.run_folder) == 0
        if self._is_wanted("recall-speed"):
            index = ("index", self.database, "--type", "hnsw", "--report")
            assert ultron(*index, "--out", self.folder / "reported.index") == 0
        if self._is_wanted("head"):
            photos = (self.toy / "train", *EXTRACT, "--workers", "0")
            assert ultron("extract", *photos, "--out", self.folder / "landmarks") == 0
        self.landmarks = self.folder / "landmarks" / "database.h5"
        run_file = ("--format", "trec", "--out", self.folder / "ranks.trec")
        assert ultron("ranks", "export", self.ranks[1], *run_file) == 0
        torch.save(timm.create_model(BACKBONE).state_dict(), self.folder / "timm.pth")
        lines = [f"plain,s{i % 2},{i},medium mAP,0.{i + 3}" for i in range(4)]
        (self.folder / "table.csv").write_text("\n".join(["group,setting,seed,metric,value", *lines]) + "\n")

    def _serve_oxford(self) -> None:
        paths = sorted(self.toy.glob("jpg/*.jpg"))[:4]
        photos = {f"oxford_{i:06d}.jpg": path.read_bytes() for i, path in enumerate(paths)}
        self.server.files["roxford5k/oxbuild_images-v1.tgz"] = tar_of(photos)
        names = [f"oxford_{i:06d}" for i in range(3)]
        self.server.files["roxford5k/gnd_roxford5k.pkl"] = ground_truth(names, ["oxford_000003"])
        # Only the local server is asked: the publishers' addresses are taken away.
        parts = tuple(replace(part, addresses=()) for part in ROXFORD.parts)
        catalog.KNOWN_SETS["roxford5k"] = replace(ROXFORD, parts=parts)

    def _steps(self) -> list[Scene]:
        train = ("train", "--dataset", self.toy / "train")
        settings = settings_flags(*RUN_SETTINGS, "epochs=3", "workers=1")
        hnsw = ("index", self.database, "--type", "hnsw", "--overwrite")
        gnd = ("--gnd", self.toy / "gnd_toy.json")
        head = ("train", "--descriptors", self.landmarks, *settings_flags("epochs=3", "threads=1", "batch_size=8"))
        from_run = ("ranks", "import", self.folder / "ranks.trec", *gnd)
        cells = self.folder / "cells.toml"
        network = f'[model]\nuntrained = true\nname = "gem"\nbackbone = "{BACKBONE}"'
        cells.write_text(f'{network}\n[extract]\ndataset = "{self.toy}"\n[grid]\nextract.scales = [1, 3]\n')
        return [
            Scene("extract", ("extract", self.toy, *EXTRACT, "--workers", "1"), "x", True),
            Scene("extract-dense", ("extract", self.toy, *EXTRACT, "--workers", "1", "--local", "dense"), "x", True),
            Scene("whiten", ("whiten", self.database, "--method", "pca"), "w.h5"),
            Scene("index", hnsw, "x.index"),
            Scene("index-report", (*hnsw, "--report"), "x.index"),
            Scene("search", ("search", *self.between, "-k", "10"), "r.h5"),
            Scene("evaluate", ("evaluate", *self.between, *gnd), "e.json"),
            Scene("train", (*train, *settings), "run", True, going_on=train_again),
            Scene("head", head, "run", True, going_on=train_again),
            Scene(
                "ranks-export", ("ranks", "export", self.ranks[1], "--format", "trec"), "r.trec", uses_workspace=False
            ),
            Scene("ranks-import", from_run, "r.h5", uses_workspace=False),
            Scene("sweep", ("sweep", cells, "--workers", "1"), "s", True),
        ]

    def _exchange(self) -> list[Scene]:
        both = (self.described / "queries.h5", self.database)
        exported = self.folder / "exported.npz"
        assert ultron("descriptors", "export", *both, "--format", "npz", "--out", exported) == 0
        of_others = (exported, "--gnd", self.toy / "gnd_toy.json", "--model", "made-up", "--overwrite")
        network = ("--untrained", "--model", "gem", "--backbone", BACKBONE, "--format", "state-dict")
        leaks = ("datasets", "leaks", self.described, self.described, "-k", "2", "--workers", "1")
        scenes = [
            Scene("fuse", ("fuse", self.ranks[1], self.ranks[1], "--method", "combsum"), "r.h5"),
            Scene("fuse-descriptors", ("fuse", self.described, self.described, "--weights", "1,0.5"), "x"),
            Scene("descriptors-export", ("descriptors", "export", *both, "--format", "npz"), "d.npz"),
            Scene("descriptors-import", ("descriptors", "import", *of_others), "x"),
            Scene("export", ("weights", "export", *network), "w.safetensors"),
            Scene("leaks", leaks, "l.json"),
        ]
        return [replace(scene, uses_workspace=False) for scene in scenes]

    def _pictures(self) -> list[Scene]:
        toy = ("--dataset", self.toy, "--max-side", "64")
        visualize = {
            "ranks": self.ranks,
            "cam": (*self.ranks, "-k", "1"),
            "match": (*self.ranks, "--at", "20,20", "-k", "1"),
            "precision-recall": self.ranks,
            "tsne": ("--database", self.database, "--perplexity", "3"),
            "dilation": ("--model", "ultron-t", "--untrained", *toy),
            "attention": ("--model", "ultron-t", "--untrained", *toy, "--at", "20,20"),
            "selectivity": ("--run", self.run_folder, "--dataset", self.toy / "train"),
            "genotype": (),
            "curves": ("--run", self.run_folder, "--run", self.run_folder),
            "recall-speed": (self.folder / "reported.report.json",),
            "ablation": (self.folder / "table.csv",),
        }
        report = ("visualize", "report", *self.ranks, "-k", "3")
        return [
            *(Scene(name, ("visualize", name, *arguments), "p.png") for name, arguments in visualize.items()),
            Scene("report", report, "r.html"),
        ]

    def _data(self) -> list[Scene]:
        def lay_links(folder: Path) -> None:
            (folder / "d").mkdir(exist_ok=True)
            for name in ("jpg", "gnd_toy.json"):
                if not (folder / "d" / name).is_symlink():
                    (folder / "d" / name).symlink_to(self.toy / name)

        def verify(result: Path) -> tuple[object, ...]:
            return ("datasets", "verify", result.parent, "--workers", "1")

        download = ("datasets", "download", "roxford5k", "--mirror", self.server.base)
        return [
            Scene("make-toy", ("datasets", "make-toy"), "t", True),
            Scene("download", download, "roxford5k", True, out_flag="--data-root"),
            Scene(
                "build-gnd",
                ("datasets", "build-gnd", self.toy / "train", "--overwrite"),
                "g",
                True,
                uses_workspace=False,
            ),
            Scene(
                "verify", (), "d/bad_photos.json", out_flag="", prepare=lay_links, going_on=verify, uses_workspace=False
            ),
            Scene(
                "import",
                ("weights", "import", self.folder / "timm.pth", "--from", "timm", "--backbone", BACKBONE),
                "w.pt",
                uses_workspace=False,
            ),
        ]


def train_again(run: Path) -> tuple[object, ...] | None:
    """What goes on with a run; of one that was killed after its results, the pictures, which can be drawn at any
    time."""
    if (run / "checkpoint.pt").exists():
        return ("visualize", "curves", "--run", run)
    return ("train", "--out", run, "--resume") if list(run.glob("checkpoints/step-*.pt")) else None
