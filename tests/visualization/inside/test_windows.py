"""SCALA's window weights against the model's own operator."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ultron_kernels import scala_attention

from tests.visualization.photos import photo_of
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.core import normalise_images
from ultron_cli.models.parts.scala import ScalaAttention
from ultron_cli.visualization.inside.windows import attention_figure, weights_at, window_weights


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
        expected = scala_attention(query, key, value, attention.position_bias, kernel_size=7)
        for row, column in {(0, 0), (height // 2, width // 2), (height - 1, width - 1)}:
            weights = weights_at(attention, features, row, column)
            assert weights.shape == (2, min(7, height), min(7, width))
            torch.testing.assert_close(weights.sum(dim=(1, 2)), torch.ones(2))
            rows, columns = (min(max(at - 3, 0), max(length - 7, 0)) for at, length in ((row, height), (column, width)))
            near = value[0, rows : rows + 7, columns : columns + 7]
            torch.testing.assert_close(
                torch.einsum("hij,ijhd->hd", weights, near), expected[0, row, column], atol=1e-5, rtol=1e-4
            )


def test_window_weights_of_a_model_and_figure(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, photo = create_model("ultron-t").eval(), photo_of(0, 160, 96)
    windows = window_weights(model, photo, (0.99, 0.0), 3)
    assert (windows.grid, windows.cell, windows.weights.shape) == ((6, 10), (0, 9), (2, 6, 7))
    assert windows.columns.tolist() == [3, 4, 5, 6, 7, 8, 9] and windows.rows.tolist() == [0, 1, 2, 3, 4, 5]
    layer_inputs: list[torch.Tensor] = []
    layer = model.stages[2][-1].attention
    handle = layer.register_forward_pre_hook(lambda _, inputs: layer_inputs.append(inputs[0]))
    with torch.inference_mode():
        model(normalise_images(torch.from_numpy(photo)[None], model.preprocessing))
        np.testing.assert_allclose(windows.weights, weights_at(layer, layer_inputs[0], 0, 9).numpy(), atol=1e-6)
    handle.remove()
    files = [attention_figure(photo, windows, "model on data", "photo $", tmp_path / f"{i}.png") for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(
        UltronError, match="`block` must lie between 1 and 2, the blocks of stage 3 of ultron-t; found 3"
    ):
        window_weights(model, photo, (0.5, 0.5), 3, 3)
    with pytest.raises(UltronError, match="`stage` must be 3 or 4"):
        window_weights(model, photo, (0.5, 0.5), 2)
    resnet = create_model("gem", backbone="test_resnet")
    with pytest.raises(UltronError, match="window weights are of SCALA, in ULTRON models, found gem-test_resnet"):
        window_weights(resnet, photo, (0.5, 0.5), 3)
