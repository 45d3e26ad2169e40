"""Files of types that are not read: counted, and said by those who read a folder of photos."""

from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Run, read_json
from tests.datasets.conftest import jpeg, photo_bytes
from ultron_cli.datasets import photo_types
from ultron_cli.datasets.folder import Dataset, open_dataset
from ultron_cli.datasets.photo_types import unread_text


def mixed_folder(folder: Path) -> Path:
    """Three photos with unusual endings, and what else lies in folders of photos."""
    (folder / "trip").mkdir(parents=True)
    for i, name in enumerate(("a.JFIF", "b.jpe", "trip/c.Jpg")):
        (folder / name).write_bytes(jpeg(i, 40))
    for name in ("raw.CR2", "trip/clip.mov", "trip/more.cr2", "README", "gnd.csv", ".hidden.xyz"):
        (folder / name).write_bytes(b"x")
    return folder


def test_counts_are_told() -> None:
    assert unread_text(Counter()) is None
    assert unread_text(Counter({".txt": 1})) == "1 file of types not read: 1 .txt"
    many = Counter({f".{letter}": n for n, letter in enumerate("abcdefgh", 1)} | {"": 20})
    text = "56 files of types not read: 20 without an ending, 8 .h, 7 .g, 6 .f, 5 .e, 4 .d, 6 others"
    assert unread_text(many) == text


def test_photos_of_phones_are_counted_with_what_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_types, "has_heif", lambda: False)
    text = '2 files of types not read: 2 .heic (pip install "ultron[heif]" has them read)'
    assert unread_text(Counter({".heic": 2})) == text


def test_all_who_read_a_folder_say_it(ultron: Run, tmp_path: Path) -> None:
    folder = mixed_folder(tmp_path / "photos")
    text = "4 files of types not read: 2 .cr2, 1 without an ending, 1 .mov"
    assert open_dataset(str(folder), tmp_path).unread_files == text
    code, out, _ = ultron("datasets", "verify", folder)
    assert code == 0 and text in out
    assert read_json(ultron("datasets", "info", folder, "--json"))["not_read"] == text
    assert text in ultron("datasets", "info", folder)[1]
    model = ("--model", "gem", "--backbone", "resnet18", "--untrained", "--scales", "1")
    code, _, err = ultron("extract", folder, *model, "--max-side", 32)
    assert code == 0 and f"warning: {text}" in err


def test_nothing_is_said_where_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo_bytes(1, 20, "PNG"))
    (tmp_path / "bad_photos.json").write_text("{}")
    assert Dataset(name="x", folder=tmp_path).unread_files is None
