"""The Python API: every name that `import ultron_cli` offers, and that nothing is loaded before it is used."""

import dataclasses
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ultron_cli as ultron
from tests.conftest import Run
from ultron_cli.api import Extracted
from ultron_cli.errors import WorkFailed
from ultron_cli.evaluation.metrics import RevisitedResult
from ultron_cli.evaluation.result import Evaluation
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.checkpoints import save_checkpoint, sha256_of_weights
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import write_ranks

SETTINGS = ("model.name=gem", "model.backbone=test_resnet", "epochs=1", "batch_size=8", "side_px=32", "workers=0")

SMALL = {"batch_size": 8, "side_px": 32, "workers": 0}


@pytest.fixture
def ultron_command(ultron: Run) -> Run:
    """The commands; in this file `ultron` is the package."""
    return ultron


@pytest.fixture
def workspace(tmp_path: Path) -> ultron.Workspace:
    return ultron.Workspace(root=tmp_path / "runs", data_root=tmp_path / "data")


@pytest.fixture
def extracted(toy: Path, workspace: ultron.Workspace, tmp_path: Path) -> Extracted:
    request = ultron.ExtractRequest(dataset=str(toy), scales=(1.0,), n_workers=0, out=tmp_path / "descriptors")
    model = ultron.ModelChoice(model="gem", settings={"backbone": "test_resnet"}, untrained=True)
    return ultron.extract(request, model, device="cpu", workspace=workspace)


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import ultron_cli;"
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names;"
        "print(loaded);"
        "print(dir(ultron_cli))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("{'ultron_cli'}\n")
    assert all(f"'{name}'" in done.stdout for name in ultron.__all__)


def test_every_name_is_there_and_documented() -> None:
    assert (Path(ultron.__file__).parent / "py.typed").is_file()
    for name in ultron.__all__:
        assert getattr(ultron, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'extrakt'"):
        ultron.extrakt  # type: ignore[attr-defined]  # noqa: B018  that is what is tested


def test_create_model_makes_a_listed_model() -> None:
    model = ultron.create_model("gem", backbone="test_resnet")
    assert "gem" in ultron.list_models()
    with torch.inference_mode():
        descriptors = model(torch.zeros(2, 3, 64, 64))
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2))
    with pytest.raises(ultron.UltronError, match="unknown model 'gen'; did you mean gem"):
        ultron.create_model("gen")


def test_train_remembers_its_run(toy: Path, workspace: ultron.Workspace) -> None:
    run = ultron.train("quickstart", toy, SETTINGS, device="cpu", workspace=workspace)
    assert Path(run["checkpoint"]).is_file()
    assert workspace.latest("train") == Path(run["run"])
    request = ultron.ExtractRequest(dataset=str(toy), scales=(1.0,), n_workers=0)
    extracted = ultron.extract(request, device="cpu", workspace=workspace)  # by the model of the latest run
    assert extracted.path.is_relative_to(workspace.root / "extract")
    assert extracted.summary["weights_sha256"]


def test_search_ranks_the_database_for_descriptors_and_photos(
    toy: Path, extracted: Extracted, workspace: ultron.Workspace
) -> None:
    ranking = ultron.search(extracted.queries, extracted, device="cpu", workspace=workspace)
    assert ranking.rows.shape == (4, 48)
    from_files = ultron.search(extracted.queries.path, extracted.path, device="cpu", workspace=workspace)
    np.testing.assert_array_equal(from_files.rows, ranking.rows)
    latest = ultron.search(k=5, device="cpu", workspace=workspace)
    np.testing.assert_array_equal(latest.rows, ranking.rows[:, :5])
    photo = toy / "jpg" / f"{ranking.database_names[3]}.jpg"
    (best, *_) = ultron.search([photo], k=3, device="cpu", workspace=workspace).ranked_photos(0)
    assert best["name"] == ranking.database_names[3]
    reranked = ultron.search(extracted.queries, extracted, rerank="aqe", device="cpu", workspace=workspace)
    assert reranked.origin.search is not None
    assert [step.name for step in reranked.origin.search.steps] == ["aqe"]
    with pytest.raises(ultron.UltronError, match="must be one of superglobal, aqe"):
        ultron.search(extracted.queries, extracted, rerank=["nothing"], workspace=workspace)


def test_evaluate_and_compare_give_what_the_commands_give(
    extracted: Extracted, workspace: ultron.Workspace, tmp_path: Path, ultron_command: Run
) -> None:
    ranking = ultron.search(device="cpu", workspace=workspace)
    evaluation = ultron.evaluate(ranking)
    code, out, err = ultron_command("evaluate", "--workspace", workspace.root, "--out", tmp_path / "e.json", "--json")
    assert code == 0, err
    assert json.loads(out)["protocols"] == json.loads(json.dumps(evaluation.to_json()["protocols"]))
    write_ranks(tmp_path / "ranks.h5", ranking)
    assert ultron.evaluate(tmp_path / "ranks.h5", protocols=["hard"]).protocols.keys() == {"hard"}
    comparison = ultron.compare([evaluation, tmp_path / "e.json"])
    assert list(comparison) == ["easy", "medium", "hard"]
    assert comparison["medium"].difference == 0.0
    with pytest.raises(ultron.UltronError, match="no protocol in common"):
        ultron.compare([dataclasses.replace(evaluation, protocols={}), evaluation])
    with pytest.raises(ultron.UltronError, match="two evaluations or more are compared, found 1"):
        ultron.compare([evaluation])


def test_importing_loads_nothing_else() -> None:
    code = "import sys; import ultron_cli; print(*(name for name in sys.modules if name.startswith('ultron_cli.')))"
    heavy = (
        "import sys; import ultron_cli; print(*sorted({'torch', 'numpy', 'timm', 'h5py', 'typer'} & set(sys.modules)))"
    )
    assert [subprocess.check_output([sys.executable, "-c", text]).split() for text in (code, heavy)] == [[], []]


@pytest.fixture
def network() -> RetrievalModel:
    torch.manual_seed(0)
    return ultron.create_model("gem", backbone="test_resnet")


def test_nothing_is_written_unless_a_place_is_named(
    toy: Path, network: RetrievalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ULTRON_WORKSPACE", raising=False)
    extracted = ultron.extract(toy, network, scales=[1.0])
    assert extracted.queries is not None
    folder = extracted.path.parent
    queries = extracted.queries
    ranking = ultron.search(queries, extracted)
    assert ultron.evaluate(ranking).protocols["medium"].queries_used == 4
    del extracted
    gc.collect()
    assert queries.path.is_file()  # as long as one of the two is held
    del queries
    gc.collect()
    assert not folder.exists()
    run = ultron.train(None, toy, {"epochs": 1, "model": {"name": "gem", "backbone": "test_resnet"}, **SMALL})
    assert run.load().label == "gem-test_resnet"
    assert ultron.extract(toy, run, scales=[1.0]).info.weights_sha256 == sha256_of_weights(run.load())
    run_folder = run.folder
    del run
    gc.collect()
    assert not run_folder.exists()
    assert list(tmp_path.iterdir()) == []
    extracted = ultron.extract(toy, network, scales=[1.0], out="descriptors")
    assert extracted.path == Path("descriptors/database.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["descriptors"]


def test_photos_and_pixels_are_described_as_a_folder_is(toy: Path, network: RetrievalModel) -> None:
    folder = ultron.extract(toy / "jpg", network, scales=[0.7, 1.0])
    paths = [toy / "jpg" / name for name in folder.names[:3]]
    listed = ultron.extract(paths, network, scales=[0.7, 1.0])
    assert listed.names == [str(path) for path in paths] and listed.queries is None
    torch.testing.assert_close(listed.read(), folder.read(0, 3), rtol=0, atol=1e-6)
    images = [Image.open(path) for path in paths]
    pixels = ultron.extract([*images[:2], np.array(images[2])], network, scales=[0.7, 1.0], names=["a", "b", "c"])
    assert pixels.names == ["a", "b", "c"]
    np.testing.assert_array_equal(pixels.read(), listed.read())
    batch = torch.zeros(2, 40, 50, 3, dtype=torch.uint8)
    assert ultron.extract(batch, network, scales=[1.0]).n == 2
    one_photo = ultron.extract(str(paths[0]), network, scales=[0.7, 1.0])
    np.testing.assert_array_equal(one_photo.read(), listed.read(0, 1))
    ranking = ultron.search([paths[1]], ultron.extract(toy / "jpg", _saved(network, toy.parent / "w.pt")), k=1)
    assert ranking.names_of(0) == [paths[1].name]
    for photos, words in (
        ([np.zeros((4, 4), np.uint8)], r"image 0: an image is \(H, W, 3\) uint8, or of Pillow; found \(4, 4\) uint8"),
        ([3], "image 0: an image is .*; found int"),
        ([], "the list of photos is empty"),
        (["no.jpg"], r"no\.jpg: no such photo"),
    ):
        with pytest.raises(ultron.UltronError, match=words):
            ultron.extract(photos, network)
    with pytest.raises(ultron.UltronError, match=r"`model` is a run, a path, .*; found <class 'int'>"):
        ultron.extract(paths, 3)  # type: ignore[call-overload]
    with pytest.raises(ultron.UltronError, match=r"in a program's memory; .*or give its checkpoint with `weights`"):
        ultron.search([paths[0]], listed)


def _saved(network: RetrievalModel, path: Path) -> Path:
    save_checkpoint(path, network, {})
    return path


def test_arrays_are_searched_and_scored() -> None:
    draws = np.random.Generator(np.random.PCG64(0))
    rows = draws.normal(size=(12, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ranking = ultron.search(torch.from_numpy(rows[:2]), rows, k=3)
    assert ranking.rows[:, 0].tolist() == [0, 1] and ranking.database_names[0] == "photo 0"
    assert ranking.own_rows == {}  # names that nobody gave say nothing
    names = [f"p{i}" for i in range(12)]
    database = ultron.descriptors(rows.astype(np.float16), names)
    within = ultron.search(database, database)
    assert list(within.own_rows or {}) == list(range(12))
    labels = np.repeat([0, 1, 2], 4)
    evaluation = ultron.evaluate(within, (labels, torch.from_numpy(labels)))
    cosines = rows @ rows.T
    ranks = [[row for row in np.argsort(-cosines[query]).tolist() if row != query] for query in range(12)]
    by_hand = []
    for query, order in enumerate(ranks):
        places = [rank for rank, row in enumerate(order) if labels[row] == labels[query]]
        precisions = [(n / place if place else 1.0) + (n + 1) / (place + 1) for n, place in enumerate(places)]
        by_hand.append(sum(precisions) / 2 / 3)
    assert evaluation.protocols["easy"].mAP == pytest.approx(np.mean(by_hand), abs=1e-9)
    truth = {"imlist": names, "qimlist": names[:1], "gnd": [{"easy": [1, 2, 3], "hard": [], "junk": [0]}]}
    of_first = ultron.evaluate(within, truth).protocols["easy"].ap["p0"]
    assert of_first == pytest.approx(by_hand[0], abs=1e-9)
    for arguments, words in (
        (
            (2 * rows, rows),
            "the query array: descriptors must be .* row 0 has norm 2.0000; divide each row by its length",
        ),
        ((rows[0], rows), r"descriptors must be \(N, D\) float32 or float16"),
        ((rows[:, :4] / np.linalg.norm(rows[:, :4], axis=1, keepdims=True), rows), "the query array holds 4-d"),
        ((rows, rows, 0), "`k` must be at least 1"),
        ((["a.jpg"], database), "a.jpg: no such photo"),
    ):
        with pytest.raises(ultron.UltronError, match=words):
            ultron.search(*arguments)
    with pytest.raises(ultron.UltronError, match="'a' stands there 12 times"):
        ultron.descriptors(rows, ["a"] * 12)
    with pytest.raises(ultron.UltronError, match="names must be texts, found 0"):
        ultron.descriptors(rows, list(range(12)))  # type: ignore[arg-type]
    with pytest.raises(ultron.UltronError, match="each query has one label; found 3 labels for 12"):
        ultron.evaluate(within, ([0, 1, 2], labels))


def test_parts_by_import_path_go_into_searches_and_scores(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from dataclasses import dataclass, replace\n"
        "from ultron_cli.evaluation.metrics.ranked import QueryMetric\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Same:\n    n_needed: int = 2\n"
        "    def __call__(self, state): return replace(state)\n"
        "class First(QueryMetric):\n    name = 'first'\n"
        "    def of_query(self, query): return float(query.ranks[0] == 0)\n"
    )
    rows = np.eye(6, dtype=np.float32)
    ranking = ultron.search(rows, rows, rerank=[f"{tmp_path / 'own.py'}:Same"])
    assert ranking.rows[:, 0].tolist() == list(range(6))
    labels = [0, 0, 1, 1, 2, 2]
    evaluation = ultron.evaluate(ranking, (labels, labels), metrics=[f"{tmp_path / 'own.py'}:First"])
    assert evaluation.protocols["easy"].metrics["first"].score == 1.0


def _evaluation(name: str, ap: list[float]) -> Evaluation:
    results = {
        "medium": RevisitedResult(
            mAP=float(np.mean(ap)),
            mP={1: 0.5, 5: 0.5, 10: 0.5},
            queries_used=len(ap),
            ap=np.array(ap),
            precision=np.zeros((len(ap), 3)),
        )
    }
    names = [f"q{i}" for i in range(len(ap))]
    return Evaluation.of(results, dataset="d", query_names=names, n_database=9, origin=Origin(dataset="d", model=name))


def test_any_number_of_evaluations_is_compared() -> None:
    draws = np.random.Generator(np.random.PCG64(0))
    base = draws.uniform(0.2, 0.6, 40)
    evaluations = [_evaluation(name, (base + gain).tolist()) for name, gain in (("a", 0.0), ("b", 0.1), ("c", 0.3))]
    comparison = ultron.compare(evaluations)
    standing = comparison["medium"]
    assert [system.label for system in comparison.systems] == ["a", "b", "c"]
    assert standing.difference == pytest.approx(0.3)
    assert standing.p_value < 0.01 and standing.systems[2].beats == ("A", "B")
    assert standing.interval == pytest.approx((0.3, 0.3))
    assert len(standing.pairs) == 3
    seeds = ultron.compare([evaluations[:2], evaluations[2]], labels=["two seeds", "mine"])
    assert seeds["medium"].systems[0].n_seeds == 2 and "two seeds" in repr(seeds)
    assert json.loads(seeds.text("json"))["protocols"]["medium"]["difference"] == pytest.approx(0.25)
    with pytest.raises(ultron.UltronError, match="each system has one of `labels`; found 1 for 2"):
        ultron.compare(evaluations[:2], labels=["a"])
    with pytest.raises(ultron.UltronError, match="that of place 1 has none"):
        ultron.compare([evaluations[0], []])


def test_train_takes_photos_by_landmark_and_whole_configurations(toy: Path, tmp_path: Path) -> None:
    photos = {folder.name: sorted(folder.iterdir()) for folder in sorted((toy / "train").iterdir())}
    settings = {"epochs": 1, "model.name": "gem", "model.backbone": "test_resnet", "exclude": [], **SMALL}
    listed = ultron.train("quickstart", photos, settings, out=tmp_path / "listed", device="cpu")
    folder = ultron.train(listed.config, toy, {"augment.flip": True}, out=tmp_path / "folder", device="cpu")
    assert listed.metrics[0]["loss"] == folder.metrics[0]["loss"]
    assert listed["n_photos"] == 36
    (tmp_path / "more.toml").write_text("epochs = 1\nside_px = 32\n")
    file = ultron.train(tmp_path / "more.toml", toy, {**settings, "seed": 1}, out=tmp_path / "file", device="cpu")
    assert file.config.seed == 1
    again = ultron.train(file.config, toy, {"epochs": 2, "schedule": "constant"}, out=tmp_path / "again", device="cpu")
    assert len(again.metrics) == 2
    with pytest.raises(ultron.UltronError, match="photos of two landmarks or more; found 1"):
        ultron.train(None, {"a": ["x.jpg"]}, out=tmp_path / "x")
    with pytest.raises(ultron.UltronError, match=r'give \["epochs=1"\]'):
        ultron.train(None, toy, "epochs=1", out=tmp_path / "x")
    with pytest.raises(ultron.UltronError, match="unknown setting epohs; did you mean epochs"):
        ultron.train(None, toy, {"epohs": 1}, out=tmp_path / "x")


def test_a_stopped_run_stays_where_it_can_go_on(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings = {"epochs": 1, "lr": 50.0, "model.name": "gem", "model.backbone": "test_resnet", **SMALL}
    monkeypatch.setattr(
        "ultron_cli.training.learner.Learner.step", lambda *_: (_ for _ in ()).throw(WorkFailed("stop"))
    )
    with pytest.raises(WorkFailed, match="stop"):
        ultron.train(None, toy, settings, device="cpu")
    assert len(list(tmp_path.glob("ultron-*/run/config.json"))) == 1


def test_results_show_themselves(toy: Path, network: RetrievalModel) -> None:
    extracted = ultron.extract(toy, network, scales=[1.0])
    assert repr(extracted).startswith("gem-test_resnet on toy: 48 photos, 96-d, 1 scale, longest side 1024 px (")
    assert extracted._repr_html_().count("<img") == 8
    assert extracted.queries is not None
    ranking = ultron.search(extracted.queries, extracted)
    text = repr(ranking)
    assert text.startswith("4 queries in 48 photos by gem-test_resnet on toy\n  toy_000020: ")
    assert text.count("\n") == 4 and text.endswith("  ...")
    page = ranking._repr_html_()
    assert page.count("<img") == 3 * (1 + 8) and f"1. {ranking.names_of(0)[0]} " in page
    evaluation = ultron.evaluate(ranking)
    assert "medium" in repr(evaluation) and "fewer than 20 queries" in repr(evaluation)
    assert '<td style="text-align: left">medium</td>' in evaluation._repr_html_()
    assert "<table>" in ultron.compare([evaluation, evaluation])._repr_html_()
    arrays = ultron.search(extracted.queries.read(), extracted.read(), k=2)
    assert "<img" not in arrays._repr_html_() and "query 0: photo " in repr(arrays)
    nasty = ultron.descriptors(np.eye(2), ["<script>", "b\x1b[2J"])
    assert "&lt;script&gt;" in nasty._repr_html_() and "\x1b" not in nasty._repr_html_()
