"""Several models' maps in columns, at known places."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.visualization.photos import plain
from ultron_cli.errors import UltronError
from ultron_cli.visualization import drawing
from ultron_cli.visualization.cam.columns import CamColumn, columns_figure
from ultron_cli.visualization.cam.similarity import Cam
from ultron_cli.visualization.drawing import overlay
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto


def test_columns_hold_each_models_heat(tmp_path: Path) -> None:
    """Maps of other sizes than the photo, all hot in one model and all cold in the other."""
    photos = [RankedPhoto(plain(128), 1, 0.9, "right", "a")]
    hot = CamColumn("hot", Cam(np.ones((5, 5), np.float32), 0.9), [Cam(np.ones((7, 9), np.float32), 0.9)], None, [3])
    cold = CamColumn(
        "cold", Cam(np.zeros((50, 50), np.float32), 0.9, True), [Cam(np.zeros((3, 3), np.float32), 0.9, True)]
    )
    path = columns_figure(
        QueryPhoto(plain(60), "q"), photos, [hot, cold], "model on data", tmp_path / "c.png", searched="model"
    )
    picture = np.asarray(Image.open(path))
    step, first = 280 + 10 + 14, drawing.MARGIN_PX + drawing.FRAME_PX
    bottom = picture.shape[0] - drawing.MARGIN_PX - drawing.LABEL_HEIGHT_PX - drawing.FRAME_PX - 20
    grey = np.full((1, 1, 3), 128, np.uint8)
    assert picture[bottom, first + 140].tolist() == [128] * 3
    assert (
        picture[bottom, first + 20 + step + 140].tolist() == overlay(grey, np.ones((1, 1), np.float32))[0, 0].tolist()
    )
    assert (
        picture[bottom, first + 20 + 2 * step + 140].tolist()
        == overlay(grey, np.zeros((1, 1), np.float32))[0, 0].tolist()
    )
    for columns, message in (([hot], "of 2 to 8 models, found 1"), ([hot] * 9, "of 2 to 8 models, found 9")):
        with pytest.raises(UltronError, match=message):
            columns_figure(QueryPhoto(plain(60), "q"), photos, columns, "t", tmp_path / "no.png", searched="model")
    with pytest.raises(UltronError, match="at least one database photo"):
        columns_figure(QueryPhoto(plain(60), "q"), [], [hot, cold], "t", tmp_path / "no.png", searched="model")
