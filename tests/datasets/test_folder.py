"""Datasets opened by what a stored result says of them."""

import json
from pathlib import Path

import pytest

from tests.datasets.conftest import plain_photo
from ultron_cli.datasets.folder import open_recorded
from ultron_cli.errors import UltronError


def test_a_recorded_dataset_is_opened_with_its_ground_truth_if_it_is_still_there(tmp_path: Path) -> None:
    plain_photo(tmp_path / "jpg" / "a.jpg")
    gnd = tmp_path / "elsewhere.json"
    gnd.write_text(json.dumps({"imlist": ["a"], "qimlist": [], "gnd": []}))
    assert open_recorded(str(tmp_path), str(gnd)).ground_truth_path == gnd
    gnd.unlink()
    assert open_recorded(str(tmp_path), str(gnd)).database_names == ["a.jpg"]
    assert open_recorded(str(tmp_path), None).ground_truth is None


@pytest.mark.parametrize("folder", [None, "", "no/such/folder"])
def test_a_recorded_dataset_that_is_gone_is_told(folder: str | None) -> None:
    words = "which is gone; put them back, or extract again" if folder else "lie is not recorded; extract them here"
    with pytest.raises(UltronError, match=words):
        open_recorded(folder, None)
