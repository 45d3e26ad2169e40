"""Matches of places, worked by hand, and their figure."""

from pathlib import Path

import numpy as np
import pytest

from tests.visualization.photos import photo_of, png_of
from tests.visualization.small_models import Colours
from ultron_cli.errors import UltronError
from ultron_cli.visualization.inside.matching import (
    Match,
    QueryRegion,
    local_features,
    match_figure,
    match_map,
    region_feature,
    region_of,
)
from ultron_cli.visualization.tiles import RankedPhoto


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
    with pytest.raises(UltronError, match="X1 < X2"):
        region_of(None, (20.0, 10.0, 20.0, 50.0), None, (60, 80))
    for at, box in ((None, None), ((1.0, 1.0), (0.0, 0.0, 1.0, 1.0))):
        with pytest.raises(UltronError, match="either `at` X,Y or `box`"):
            region_of(at, box, None, (60, 80))


def test_best_place_and_figure(tmp_path: Path) -> None:
    cosines = np.zeros((4, 2), np.float32)
    cosines[2, 1] = 0.5
    match = Match(
        RankedPhoto(png_of(photo_of(0, 40, 80)), 1, 0.9, "right", "a $x^2$ <b>"), photo_of(0, 40, 80), cosines
    )
    assert match.best == (0.75, 0.625, 0.5)
    query = QueryRegion("q", photo_of(1, 60, 50), (0.2, 0.2, 0.2, 0.2), np.ones((2, 2), np.float32))
    match_figure(query, [match], "model on data", tmp_path / "point.png", layer="stage3")
    with pytest.raises(UltronError, match="1 to 10 database photos, found 0"):
        match_figure(query, [], "t", tmp_path / "none.png")
    with pytest.raises(UltronError, match=r"found \.gif"):
        match_figure(query, [match], "t", tmp_path / "a.gif")
