"""What queries and photos may be sliced by: ground truth, the renderer's description, tables."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.truths_for_tests import truth_of
from ultron_cli.datasets.protocols import GroundTruth, QueryTruth
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.attributes import (
    PhotoAttribute,
    QueryAttribute,
    attributes_of,
    in_bins,
    of_ground_truth,
    of_rendering,
    of_table,
)
from ultron_cli.evaluation.landmarks import landmarks_of

TRUTH = truth_of({"easy": [0, 1], "hard": [2]}, {"hard": [3]}, n_database=5)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def values(attributes: list, name: str) -> list[object]:
    """Of a query attribute its values, of a photo attribute those of the photos of the first query."""
    (attribute,) = [attribute for attribute in attributes if attribute.name == name]
    if isinstance(attribute, QueryAttribute):
        return list(attribute.values)
    assert isinstance(attribute, PhotoAttribute)
    return [attribute.value_of(0, photo) for photo in range(5)]


def test_many_numbers_become_quarters_and_few_stay() -> None:
    assert in_bins([1.0, 2.0, 2.0, None, "night"]) == {1.0: "1", 2.0: "2", "night": "night"}
    slices = in_bins([float(number) for number in range(1, 101)])
    assert list(dict.fromkeys(slices.values())) == ["1 to 25", "26 to 50", "51 to 75", "76 to 100"]
    assert {slices[float(number)] for number in range(26, 51)} == {"26 to 50"}
    skewed = in_bins([0.0] * 90 + [float(number) for number in range(10)])
    assert list(dict.fromkeys(skewed.values())) == ["0", "1 to 9"]
    assert in_bins([1234.567, -0.00012345, 0.5, 2.0, 3.0, 4.0])[1234.567].endswith("1235")


def test_what_a_ground_truth_says() -> None:
    query = QueryTruth(bbx=(0, 0, 40, 10), easy=np.array([0]), hard=np.array([2]), junk=np.array([4]))
    truth = GroundTruth(
        database_names=list("abcde"), query_names=[*TRUTH.query_names, "p"], queries=[*TRUTH.queries, query]
    )
    attributes = of_ground_truth(truth, "medium")
    assert values(attributes, "box") == [None, None, 20]
    assert values(attributes, "positives") == [3, 1, 2]
    assert values(of_ground_truth(truth, "hard"), "positives") == [1, 1, 1]
    assert values(attributes, "easy-share") == [pytest.approx(66.67, abs=0.01), 0, 50]
    assert values(attributes, "landmark") == ["query0", "query1", "query0"]
    assert values(attributes, "label")[:3] == ["easy", "easy", "hard"]


def test_landmarks_have_the_beginning_of_their_queries_as_names() -> None:
    names = ["all_souls_000013", "all_souls_000026", "keble_1", "lund/door_1", "lund/door_2", "77"]
    photos = [[0, 1], [0, 1], [2], [3], [4], [5]]
    truth = truth_of(*({"easy": rows} for rows in photos))
    truth = GroundTruth(database_names=truth.database_names, query_names=names, queries=truth.queries)
    assert [landmark.name for landmark in landmarks_of(truth)] == [
        *("all_souls", "keble_1", "lund/door_1", "lund/door_2", "77")
    ]
    assert landmarks_of(truth)[0].queries == (0, 1)


def test_what_the_renderer_wrote(tmp_path: Path) -> None:
    assert of_rendering(tmp_path, TRUTH) == []
    views = {
        "query0": ("noon", "clear", 30.0, 170.0, 1.0),
        "photo0": ("night", "fog", 12.5, -170.0, 0.5),
        "photo1": ("dusk", "rain", 60.0, 80.0, 0.25),
    }
    photos = [
        {
            "file": f"jpg/{name}.jpg",
            "visible": visible,
            "view": {"light": light, "weather": weather, "distance_m": distance, "azimuth_deg": azimuth, "more": 1},
        }
        for name, (light, weather, distance, azimuth, visible) in views.items()
    ]
    written(tmp_path / "toy.json", json.dumps({"photos": photos, "config": {}}))
    attributes = of_rendering(tmp_path, TRUTH)
    assert values(attributes, "light") == ["night", "dusk", None, None, None]
    assert values(attributes, "query-light") == ["noon", None]
    assert values(attributes, "weather")[:2] == ["fog", "rain"]
    assert values(attributes, "distance")[:2] == [12.5, 60]
    assert values(attributes, "visible")[:2] == [50, 25]
    assert values(attributes, "angle")[:3] == [20, 90, None]
    written(tmp_path / "toy.json", '{"photos": [{"file": "a.jpg"}]}')
    with pytest.raises(UltronError, match=r"toy.json: photos\[0\] lacks visible; render them again"):
        of_rendering(tmp_path, TRUTH)


def test_a_table_of_photos_and_queries(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.csv", "photo;light;Year\nquery0.jpg;day;\nphoto0;night;1999\nphoto1.jpg;;2004\nelsewhere;day;7\n"
    )
    attributes = of_table(path, TRUTH)
    assert [attribute.name for attribute in attributes] == ["query-light", "light", "year"]
    assert values(attributes, "query-light") == ["day", None]
    assert values(attributes, "light") == ["night", None, None, None, None]
    assert values(attributes, "year") == [1999, 2004, None, None, None]  # of no query
    (season,) = of_table(written(path, "photo,season\nquery0,summer\nquery1,nan\n"), TRUTH)
    assert (season.name, values([season], "season")) == ("season", ["summer", "nan"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("light\nnight\n", "must name the columns photo"),
        ("photo\nphoto0\n", "has no column beside `photo`"),
        ("photo,light\nelsewhere,night\n", "names no photo of the ground truth"),
        ("photo,light\n", "has no column|names no photo"),
        ("photo,light\nphoto0,night\nphoto0.jpg,day\n", "line 3: 'photo0' stands there before"),
        ("photo,light\nphoto0\n", "line 2 must have 2 fields"),
    ],
)
def test_tables_that_say_nothing(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(UltronError, match=fault):
        of_table(written(tmp_path / "a.csv", text), TRUTH)


def test_attributes_are_named_or_in_a_file(tmp_path: Path) -> None:
    names = [attribute.name for attribute in attributes_of(["all"], TRUTH, "medium", tmp_path)]
    assert names == ["box", "positives", "easy-share", "landmark", "label"]
    table = written(tmp_path / "a.csv", "photo,light\nphoto0,night\n")
    chosen_names = [a.name for a in attributes_of([str(table), "box", "box"], TRUTH, "medium", None)]
    assert chosen_names == ["light", "box"]
    with pytest.raises(UltronError, match=r"'lihgt' is neither a file nor an attribute.*known: all, box, positives"):
        attributes_of(["lihgt"], TRUTH, "medium", None)
