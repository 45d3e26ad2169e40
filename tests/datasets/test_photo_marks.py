"""What is said of photos that were replaced after they were described."""

import logging
import os
from pathlib import Path

import pytest

from ultron_cli.datasets.photo_marks import PhotoMark, digest_of, state_of, warn_of_changed


def marked(folder: Path, names: list[str]) -> list[tuple[str, Path, PhotoMark | None]]:
    """Files of those names, and what they are now."""
    photos: list[tuple[str, Path, PhotoMark | None]] = []
    for name in names:
        path = folder / name
        path.write_bytes(name.encode())
        photos.append((name, path, PhotoMark(state_of(path), digest_of(path))))
    return photos


def test_a_photo_that_was_replaced_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos = marked(tmp_path, list("abcdef"))
    (tmp_path / "b").write_bytes(b"B")  # as long as before
    os.utime(tmp_path / "c")  # touched, and the same
    (tmp_path / "d").unlink()  # whoever opens it says so
    (tmp_path / "e").write_bytes(b"another")
    not_recorded = [("e2", tmp_path / "e", None)]
    with caplog.at_level(logging.WARNING, logger="ultron"):
        warn_of_changed([*photos, *photos, *not_recorded])
    assert [record.getMessage() for record in caplog.records] == [
        "2 photos shown have changed since the search described them: b, e; run `ultron extract` and the search again"
    ]


def test_of_many_the_first_three_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos = marked(tmp_path, list("abcde"))
    for _, path, _ in photos:
        path.write_bytes(b"another")
    with caplog.at_level(logging.WARNING, logger="ultron"):
        warn_of_changed(photos)
        warn_of_changed(photos[:1])
    several, single = (record.getMessage() for record in caplog.records)
    assert several.startswith("5 photos shown have changed since the search described them: a, b, c and 2 more; run")
    assert single.startswith("1 photo shown has changed since the search described it: a; run")


def test_unchanged_photos_are_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = marked(tmp_path, list("abc"))
    monkeypatch.setattr("ultron_cli.datasets.photo_marks.digest_of", lambda path: pytest.fail(f"{path} was read"))
    warn_of_changed(photos)
    warn_of_changed([])
    assert not caplog.records
