"""Matches of places, CDConv's choices, SCALA's window weights and training curves: numbers by hand or by the model's
own operators, and the commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ultron_kernels import scala_attention

from tests.conftest import Run
from tests.visualization.test_cam import Colours, photo_of
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.core import normalise_images
from ultron_cli.models.parts.cdconv import CDConv
from ultron_cli.models.parts.scala import ScalaAttention
from ultron_cli.visualization.curves.run_curves import RunCurves, curves_figure, read_lines, read_run, running_mean
from ultron_cli.visualization.drawing import RankedPhoto
from ultron_cli.visualization.inside.dilations import Dilations, dilation_figure, gather, write_csv
from ultron_cli.visualization.inside.matching import (
    Chosen,
    Match,
    local_features,
    match_figure,
    match_map,
    region_feature,
    region_of,
)
from ultron_cli.visualization.inside.windows import attention_figure, weights_at, window_weights

MAGIC = ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml"))


def test_match_by_hand() -> None:
    """Pixels are features: red, green and yellow; the cosine of red with them is 1, 0 and 1/sqrt 2, of black 0."""
    photo = np.array([[[9, 0, 0], [0, 5, 0], [7, 7, 0], [0, 0, 0]]], np.uint8)
    features = local_features(Colours(), photo)
    assert features.shape == (3, 1, 4)
    red = region_feature(features, (0.125, 0.5, 0.125, 0.5))  # the centre of the first of four cells
    np.testing.assert_allclose(match_map(red, features), [[1, 0, 0.5**0.5, 0]], atol=1e-6)
    between = region_feature(features, (0.25, 0.5, 0.25, 0.5))  # half way from red to green
    np.testing.assert_allclose(between, [0.5**0.5, 0.5**0.5, 0], atol=1e-6)
    box = region_feature(features, (0.0, 0.0, 0.5, 1.0))  # red and green
    np.testing.assert_allclose(box, between, atol=1e-6)
    small = region_feature(
        features, (0.30, 0.4, 0.35, 0.6)
    )  # holds no centre: its own middle, 0.8 of the way from red to green
    np.testing.assert_allclose(small, np.array([0.2, 0.8, 0.0]) / 0.68**0.5, atol=1e-5)


def test_region_in_shares_of_what_the_model_saw() -> None:
    assert region_of((30.0, 20.0), None, None, (60, 80)) == (0.5, 0.25, 0.5, 0.25)
    assert region_of((30.0, 20.0), None, (20.0, 10.0, 60.0, 50.0), (60, 80)) == (0.25, 0.25, 0.25, 0.25)
    assert region_of(None, (20.0, 10.0, 40.0, 50.0), (20.0, 10.0, 60.0, 50.0), (60, 80)) == (0.0, 0.0, 0.5, 1.0)
    with pytest.raises(
        UltronError, match=r"5,20 lies outside of the query's box, x 20 to 60 and y 10 to 50; choose a place inside"
    ):
        region_of((5.0, 20.0), None, (20.0, 10.0, 60.0, 50.0), (60, 80))
    with pytest.raises(UltronError, match="X1 below X2"):
        region_of(None, (20.0, 10.0, 20.0, 50.0), None, (60, 80))
    for at, box in ((None, None), ((1.0, 1.0), (0.0, 0.0, 1.0, 1.0))):
        with pytest.raises(UltronError, match="either --at X,Y or --box"):
            region_of(at, box, None, (60, 80))


def test_best_place_and_figure(tmp_path: Path) -> None:
    cosines = np.zeros((4, 2), np.float32)
    cosines[2, 1] = 0.5
    match = Match(RankedPhoto(photo_of(0, 40, 80), 1, 0.9, "right", "a $x^2$ <b>"), photo_of(0, 40, 80), cosines)
    assert match.best == (0.75, 0.625, 0.5)
    chosen = Chosen("q", photo_of(1, 60, 50), (0.2, 0.2, 0.2, 0.2), np.ones((2, 2), np.float32))
    for suffix, magic in MAGIC:
        files = [
            match_figure(chosen, [match], "model on data", tmp_path / f"{i}{suffix}", layer="stage3") for i in range(2)
        ]
        assert files[0].read_bytes().startswith(magic) and files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(UltronError, match="1 to 10 database photos, found 0"):
        match_figure(chosen, [], "t", tmp_path / "none.png")
    with pytest.raises(UltronError, match=r"found \.gif"):
        match_figure(chosen, [match], "t", tmp_path / "a.gif")


def test_dilations_are_those_the_operator_got(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against what CDConv hands to the operator, for two photos of different shape."""
    torch.manual_seed(0)
    model = create_model("ultron-t").eval()
    given: list[np.ndarray] = []
    import ultron_cli.models.parts.cdconv as module

    operator = module.cdconv
    monkeypatch.setattr(
        module,
        "cdconv",
        lambda features, weight, dilation: given.append(dilation[0].numpy()) or operator(features, weight, dilation),
    )
    result = gather(model, iter([("a", photo_of(0, 64, 48)), ("b", photo_of(1, 48, 64))]))
    assert result.names == ["a", "b"] and result.values == (1, 3, 6)
    assert {stage: len(blocks) for stage, blocks in result.choices.items()} == {"stage 1": 1, "stage 2": 2}
    flat = [block[photo] for photo in range(2) for blocks in result.choices.values() for block in blocks]
    assert len(given) == len(flat) == 6
    assert all(np.array_equal(wanted, found) for wanted, found in zip(given, flat, strict=True))
    assert not any(layer.importance._forward_hooks for layer in model.modules() if isinstance(layer, CDConv))


def test_dilation_shares_table_and_figure(tmp_path: Path) -> None:
    blocks = [np.array([[1, 3], [1, 6]]), np.array([[6, 6], [6, 6]])]
    result = Dilations(names=["a", "b"], choices={"stage 1": blocks}, values=(1, 3, 6))
    assert result.shares("stage 1", 0).tolist() == [0.5, 0.25, 0.25]
    assert result.shares("stage 1").tolist() == [0.25, 0.125, 0.625]
    write_csv(result, tmp_path / "d.csv")
    lines = (tmp_path / "d.csv").read_text().splitlines()
    assert lines[:3] == ["photo,stage,block,channel,dilation", "a,1,1,0,1", "a,1,1,1,3"] and len(lines) == 9
    for suffix, magic in MAGIC:
        files = [dilation_figure(result, "model on data", tmp_path / f"{i}{suffix}") for i in range(2)]
        assert files[0].read_bytes().startswith(magic) and files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("size", [(9, 11), (4, 5), (7, 1)], ids=str)
@pytest.mark.parametrize("mck_on", ["key", "query", "none"])
def test_window_weights_give_the_operators_output(size: tuple[int, int], mck_on: str) -> None:
    """Weights times values equals scala_attention at that cell: in the middle, at borders, on maps smaller than the
    window."""
    torch.manual_seed(0)
    height, width = size
    attention = ScalaAttention(32, 2, window=7, mck_on=mck_on).eval()  # type: ignore[arg-type]
    with torch.inference_mode():
        features = torch.randn(1, height, width, 32)
        attention.position_bias.copy_(torch.randn_like(attention.position_bias))
        query, key, value = attention.heads(features)
        wanted = scala_attention(query, key, value, attention.position_bias, kernel_size=7)
        for row, column in {(0, 0), (height // 2, width // 2), (height - 1, width - 1)}:
            weights = weights_at(attention, features, row, column)
            assert weights.shape == (2, min(7, height), min(7, width))
            torch.testing.assert_close(weights.sum(dim=(1, 2)), torch.ones(2))
            rows, columns = (min(max(at - 3, 0), max(length - 7, 0)) for at, length in ((row, height), (column, width)))
            near = value[0, rows : rows + 7, columns : columns + 7]
            torch.testing.assert_close(
                torch.einsum("hij,ijhd->hd", weights, near), wanted[0, row, column], atol=1e-5, rtol=1e-4
            )


def test_window_weights_of_a_model_and_figure(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, photo = create_model("ultron-t").eval(), photo_of(0, 160, 96)
    found = window_weights(model, photo, (0.99, 0.0), 3)
    assert (found.grid, found.cell, found.weights.shape) == ((6, 10), (0, 9), (2, 6, 7))
    assert found.columns.tolist() == [3, 4, 5, 6, 7, 8, 9] and found.rows.tolist() == [0, 1, 2, 3, 4, 5]
    kept: list[torch.Tensor] = []
    layer = model.stages[2][-1].attention
    handle = layer.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    with torch.inference_mode():
        model(normalise_images(torch.from_numpy(photo)[None], model.preprocessing))
        np.testing.assert_allclose(found.weights, weights_at(layer, kept[0], 0, 9).numpy(), atol=1e-6)
    handle.remove()
    files = [attention_figure(photo, found, "model on data", "photo $", tmp_path / f"{i}.png") for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(
        UltronError, match="--block must lie between 1 and 2, the blocks of stage 3 of ultron-t; found 3"
    ):
        window_weights(model, photo, (0.5, 0.5), 3, 3)
    with pytest.raises(UltronError, match="--stage must be 3 or 4"):
        window_weights(model, photo, (0.5, 0.5), 2)
    resnet = create_model("gem", backbone="test_resnet")
    with pytest.raises(UltronError, match="window weights are of SCALA, in ULTRON models, found gem-test_resnet"):
        window_weights(resnet, photo, (0.5, 0.5), 3)
    with pytest.raises(UltronError, match=r"dilations are chosen by CDConv, in ULTRON models .* found gem-test_resnet"):
        gather(resnet, iter([("a", photo)]))


def write_run(folder: Path, metrics: str, steps: str = "") -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(metrics)
    (folder / "steps.jsonl").write_text(steps)
    (folder / "config.json").write_text(
        json.dumps({"config": {"model": {"name": "gem", "backbone": "resnet18"}, "dataset": "data/toy"}})
    )
    return folder


def test_curves_read_what_is_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = (
        '{"epoch": 1, "loss": 2.5, "accuracy": 0.5, "new": 1}\n{"epoch": 2, "loss": null, "validation_mAP": '
        '0.25}\n{"epoch": 3, "loss": NaN}\n{"epo'
    )
    run = read_run(write_run(tmp_path / "a", metrics, '{"step": 1, "epoch": 0.5, "loss": 3}\n'))
    assert (run.label, run.model, run.dataset) == ("a", "gem-resnet18", "toy")
    assert run.points("loss") == ([1.0], [2.5]) and run.points("validation_mAP", 100.0) == ([2.0], [25.0])
    assert run.points("loss", by_step=True) == ([0.5], [3.0]) and run.points("lr") == ([], [])
    (tmp_path / "broken.jsonl").write_text('{"epoch": 1}\nnonsense\n[1]\n{"epoch": 2}\n')
    assert read_lines(tmp_path / "broken.jsonl") == [{"epoch": 1}, {"epoch": 2}]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UltronError, match=r"empty holds no metrics\.jsonl of a training run"):
        read_run(tmp_path / "empty")
    (tmp_path / "a" / "config.json").write_text("[]")
    assert read_run(tmp_path / "a").model == ""


def test_running_mean_by_hand() -> None:
    assert running_mean([1.0, 2.0, 6.0, 3.0], 3) == [1.5, 3.0, 11 / 3, 4.5]
    assert running_mean([1.0, 2.0], 1) == [1.0, 2.0] and running_mean([], 3) == []


def test_curves_figure(tmp_path: Path) -> None:
    epochs = [
        {"epoch": e, "loss": 3.0 / e, "accuracy": e / 9, "lr": 0.1, "validation_mAP": e / 10} for e in range(1, 6)
    ]
    runs = [
        RunCurves(label=f"run {i}", epochs=epochs, steps=[{"epoch": s / 4, "loss": 2.0} for s in range(20 * i)])
        for i in range(2)
    ]
    for suffix, magic in MAGIC:
        files = [curves_figure(runs, "curves", tmp_path / f"{i}{suffix}") for i in range(2)]
        assert files[0].read_bytes().startswith(magic) and files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(UltronError, match="1 to 14 runs, found 0"):
        curves_figure([], "curves", tmp_path / "none.png")
    with pytest.raises(UltronError, match=r"no run has a value of loss, validation_mAP, .*accuracy, lr to draw"):
        curves_figure([RunCurves(label="a", epochs=[{"epoch": 1}], steps=[])], "curves", tmp_path / "none.png")


def test_curves_command(ultron: Run, tmp_path: Path) -> None:
    (tmp_path / "runs" / "train").mkdir(parents=True)
    write_run(
        tmp_path / "runs" / "train" / "named",
        '{"epoch": 1, "loss": 2.0}\n{"epoch": 2, "loss": 1.0, "validation_mAP": 0.5}\n',
    )
    other = write_run(tmp_path / "other", '{"epoch": 1, "loss": 2.0}\n')
    code, out, error = ultron("visualize", "curves", "--run", "named", "--run", other, "--json")
    assert code == 0, error
    result = json.loads(out)
    assert Path(result["figure"]).is_file()
    assert result["runs"] == [
        {"run": "named", "epochs": 2, "loss": 1.0, "validation_mAP": 0.5},
        {"run": "other", "epochs": 1, "loss": 2.0, "validation_mAP": None},
    ]
    code, _, error = ultron("visualize", "curves", "--run", "named", "--label", "a", "--label", "b")
    assert code == 2 and "--label must be given once per --run, found 2 for 1" in error


def test_commands_of_ultron_models(ultron: Run, toy: Path, tmp_path: Path) -> None:
    """dilation, attention, cam at a stage and match on rendered landmarks with an untrained ultron-t."""
    network = ("--model", "ultron-t", "--untrained")
    code, out, error = ultron(
        "visualize", "dilation", *network, "--dataset", toy, "--photos", 3, "--out", tmp_path / "d.svg", "--json"
    )
    assert code == 0, error
    result = json.loads(out)
    assert len(result["photos"]) == 3 and sum(result["shares"]["stage 1"].values()) == pytest.approx(1.0)
    assert Path(result["figure"]).is_file() and Path(result["csv"]).is_file()
    code, out, error = ultron(
        "visualize", "attention", *network, "--dataset", toy, "--at", "10,10", "--stage", 4, "--json"
    )
    assert code == 0, error
    result = json.loads(out)
    assert result["cell"] == [0, 0] and len(result["weights"]) == 4 and Path(result["figure"]).is_file()
    code, _, error = ultron("visualize", "attention", *network, "--dataset", toy, "--at", "10")
    assert code == 2 and "--at takes X,Y, 2 numbers with commas between" in error

    assert ultron("extract", "--dataset", toy, *network, "--scales", "1", "--workers", "0", "--max-side", "64")[0] == 0
    for options in (
        ("--method", "attention"),
        ("--method", "guided-gradcam", "--layer", "stage3"),
        ("--method", "gradcam++", "--layer", "stage2"),
    ):
        code, out, error = ultron("visualize", "cam", "-k", 1, *options, "--json")
        assert code == 0, error
        assert Path(json.loads(out)["figure"]).is_file()
    box = json.loads((toy / "gnd_toy.json").read_text())["gnd"][0]["bbx"]
    middle = f"{(box[0] + box[2]) / 2},{(box[1] + box[3]) / 2}"
    code, out, error = ultron("visualize", "match", "--at", middle, "-k", 2, "--layer", "stage3", "--json")
    assert code == 0, error
    result = json.loads(out)
    assert len(result["photos"]) == 2 and all(-1 <= photo["cosine"] <= 1 for photo in result["photos"])
    code, _, error = ultron("visualize", "match")
    assert code == 2 and "choose a place of the query with either --at" in error
    code, _, error = ultron("visualize", "match", "--at", middle, "--photo", "nothing")
    assert code == 2 and "'nothing' is not among the ranked database photos" in error
