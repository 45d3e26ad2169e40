"""Where results and datasets are: --workspace and --data-root, else the environment, else defaults."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Run, read_json
from ultron_cli.errors import UltronError
from ultron_cli.workspace import Workspace, short_hash

LIBRARY = Path(__file__).resolve().parents[2] / "ultron_cli"


def test_defaults_of_a_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ULTRON_WORKSPACE", raising=False)
    monkeypatch.delenv("ULTRON_DATA", raising=False)
    assert Workspace() == Workspace(root=Path("ultron-runs"), data_root=Path.home() / ".cache" / "ultron" / "data")
    monkeypatch.setenv("ULTRON_WORKSPACE", "~/runs")
    monkeypatch.setenv("ULTRON_DATA", "/data")
    assert Workspace() == Workspace(root=Path.home() / "runs", data_root=Path("/data"))
    assert Workspace(root=Path("here")).data_root == Path("/data")


def test_the_latest_result_is_remembered(tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path / "runs", data_root=tmp_path)
    with pytest.raises(UltronError, match=r"no result of `ultron extract` in the workspace .*runs; run .* first, or"):
        workspace.take_latest("extract", "name --database")
    inside = workspace.result_folder("extract", "toy-gem")
    workspace.remember("extract", inside)
    workspace.remember("index", tmp_path)  # outside: by its absolute path
    assert json.loads((tmp_path / "runs" / "latest.json").read_text()) == {
        "extract": "extract/toy-gem",
        "index": str(tmp_path),
    }
    assert workspace.take_latest("extract", "") == inside
    inside.rmdir()
    assert workspace.latest("extract") is None


def test_flags_count_in_every_command(ultron: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names folders that cannot be: a step that is not told the command's workspace fails."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("ULTRON_WORKSPACE", str(tmp_path / "file" / "runs"))
    monkeypatch.setenv("ULTRON_DATA", str(tmp_path / "file" / "data"))
    shutil.copytree(toy, tmp_path / "d" / "toy")
    where = ("--workspace", tmp_path / "w", "--data-root", tmp_path / "d", "--json")
    settings = ("model.name=gem", "model.backbone=test_resnet", "epochs=1", "batch_size=32", "side_px=32", "workers=0")
    train = [part for setting in settings for part in ("--set", setting)]
    for command in (
        ("datasets", "info", "toy"),
        ("train", "--dataset", "toy", *train),
        ("train", "--list"),
        ("extract", "--scales", "1", "--workers", "0"),
        ("index",),
        ("whiten", "--method", "pca"),
        ("search", "-k", "4"),
        ("evaluate",),
        ("visualize", "curves"),
        ("visualize", "selectivity", "--classes", "2", "--photos", "2", "--side", "32"),
        ("visualize", "tsne", "--perplexity", "3"),
        ("visualize", "ranks", "-k", "2"),
        ("doctor",),
    ):
        code, out, err = ultron(*command, *where)
        assert code == 0, (command, err)
    assert json.loads(out)["workspace"] == str(tmp_path / "w")
    run = next((tmp_path / "w" / "train").iterdir()).name
    code, _, err = ultron("visualize-cam", "--run", run, "--run", run, "-k", "1", *where)  # a run by its name
    assert code == 0, err
    kinds = {"train", "extract", "index", "search", "evaluate", "visualize"}
    assert {path.name for path in (tmp_path / "w").iterdir()} == {*kinds, "whiten", "latest.json"}
    assert set(json.loads((tmp_path / "w" / "latest.json").read_text())) == kinds


def test_the_library_reads_no_flag_of_the_command_line() -> None:
    """Progress and results (console.py) alone know how much is to be said; a step is told where it works."""
    for path in LIBRARY.rglob("*.py"):
        if (
            path.parent.name != "commands"
            and path.parent.parent.name != "commands"
            and path.name not in ("cli.py", "console.py")
        ):
            assert "console.settings" not in path.read_text(encoding="utf-8"), path


def test_results_that_are_made_differently_lie_apart(
    ultron: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two networks of one name, two searches, two whitenings; and made alike again, the same place."""
    monkeypatch.setenv("ULTRON_WORKSPACE", str(tmp_path / "w"))
    describe = ("--untrained", "--model", "gem", "--backbone", "test_resnet", "--scales", "1", "--workers", "0")

    def run(*arguments: object) -> dict:
        code, out, err = ultron(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    places: dict[str, list[str]] = {"evaluate": [], "search": [], "whiten": [], "index": []}
    for seed in (0, 1):
        folder = tmp_path / f"described-{seed}"
        run("extract", toy, *describe, "--seed", seed, "--out", folder)
        for rerank in ((), ("--rerank", "aqe")):
            for _ in range(2):
                places["search"].append(run("search", "-k", "4", *rerank)["ranks"])
                run("evaluate", *rerank)
                places["evaluate"].append(json.loads((tmp_path / "w" / "latest.json").read_text())["evaluate"])
        for method in ("pca", "pca-whitening"):
            places["whiten"].append(run("whiten", "--method", method)["whitening"])
        places["index"].append(run("index")["index"])
    for kind, paths in places.items():
        n_alike = 2 if kind in ("search", "evaluate") else 1
        assert len(set(paths)) == len(paths) // n_alike, (kind, paths)
        assert paths[:n_alike] == [paths[0]] * n_alike


def test_pictures_of_other_inputs_lie_apart(ultron: Run, tmp_path: Path) -> None:
    """Two tables of one name in two folders, two genotypes; and drawn again, the same place."""
    tables = []
    for folder in ("a", "b"):
        tables.append(tmp_path / folder / "table.csv")
        tables[-1].parent.mkdir()
        tables[-1].write_text("group,setting,seed,metric,value\nx,plain,0,mAP,0.5\n")
    for first, second in (
        (("visualize", "ablation", tables[0]), ("visualize", "ablation", tables[1])),
        (("visualize", "genotype"), ("visualize", "genotype", "skip:0/skip:0/skip:0/skip:0")),
    ):
        figures = [read_json(ultron(*command, "--json"))["figure"] for command in (first, second, first)]
        assert figures[0] == figures[2] != figures[1]
        assert Path(figures[0]).exists() and Path(figures[1]).exists()


def test_a_short_hash_tells_settings_and_not_times() -> None:
    first = {"k": 10, "search": {"rerank": [{"name": "aqe", "ms_per_query": 1.0}]}, "created": "now"}
    later = {"search": {"rerank": ({"ms_per_query": 2.0, "name": "aqe"},)}, "k": 10, "searched_by": {"packages": {}}}
    assert short_hash(first) == short_hash(later) != short_hash(first | {"k": 11})
    assert len(short_hash({})) == 8
