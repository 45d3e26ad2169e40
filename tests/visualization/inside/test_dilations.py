"""CDConv's choices: those that the operator gets, their shares and table."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.visualization.photos import photo_of
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.parts.cdconv import CDConv
from ultron_cli.visualization.inside.dilations import Dilations, gather, write_csv


def test_dilations_are_those_the_operator_got(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against what CDConv hands to the operator, for two photos of different shape."""
    torch.manual_seed(0)
    model = create_model("ultron-t").eval()
    dilations: list[np.ndarray] = []
    import ultron_cli.models.parts.cdconv as module

    operator = module.cdconv
    monkeypatch.setattr(
        module,
        "cdconv",
        lambda features, weight, dilation, **settings: (
            dilations.append(dilation[0].numpy()) or operator(features, weight, dilation, **settings)
        ),
    )
    result = gather(model, iter([("a", photo_of(0, 64, 48)), ("b", photo_of(1, 48, 64))]))
    assert result.names == ["a", "b"] and result.values == (1, 3, 6)
    assert {stage: len(blocks) for stage, blocks in result.choices.items()} == {"stage 1": 1, "stage 2": 2}
    flat = [block[photo] for photo in range(2) for blocks in result.choices.values() for block in blocks]
    assert len(dilations) == len(flat) == 6
    assert all(np.array_equal(dilation, drawn) for dilation, drawn in zip(dilations, flat, strict=True))
    assert not any(layer.importance._forward_hooks for layer in model.modules() if isinstance(layer, CDConv))


def test_dilation_shares_and_table(tmp_path: Path) -> None:
    blocks = [np.array([[1, 3], [1, 6]]), np.array([[6, 6], [6, 6]])]
    result = Dilations(names=["a", "b"], choices={"stage 1": blocks}, values=(1, 3, 6))
    assert result.shares("stage 1", 0).tolist() == [0.5, 0.25, 0.25]
    assert result.shares("stage 1").tolist() == [0.25, 0.125, 0.625]
    write_csv(result, tmp_path / "d.csv")
    lines = (tmp_path / "d.csv").read_text().splitlines()
    assert lines[:3] == ["photo,stage,block,channel,dilation", "a,1,1,0,1", "a,1,1,1,3"] and len(lines) == 9


def test_models_without_cdconv() -> None:
    resnet = create_model("gem", backbone="test_resnet")
    with pytest.raises(UltronError, match=r"dilations are chosen by CDConv, in ULTRON models .* found gem-test_resnet"):
        gather(resnet, iter([("a", photo_of(0, 160, 96))]))
