"""The Python API: every name that `import ultron_cli` offers, and that nothing is loaded before it is used."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ultron_cli as ultron
from tests.conftest import Run
from ultron_cli.api import Extracted
from ultron_cli.retrieval.rankings import write_ranks

SETTINGS = ("model.name=gem", "model.backbone=test_resnet", "epochs=1", "batch_size=8", "side_px=32", "workers=0")


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
    reranked = ultron.search(extracted.queries, extracted, rerank=["aqe"], device="cpu", workspace=workspace)
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
