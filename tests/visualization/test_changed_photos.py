"""Pictures beside a ranking say which of their photos are no longer those that were described."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from PIL import Image

from tests.conftest import Run
from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.retrieval.rankings import read_ranks

Searched = tuple[Path, Path, str, str]  # folder of photos, rank file, query, its best photo


@pytest.fixture
def searched(ultron: Run, toy: Path, tmp_path: Path) -> Searched:
    """A search of a copy of rendered landmarks."""
    folder = tmp_path / "photos"
    shutil.copytree(toy / "jpg", folder / "jpg")
    shutil.copy(toy / "gnd_toy.json", folder)
    network = ("--backbone", "test_resnet", "--untrained", "--scales", 1, "--workers", 0, "--max-side", 64)
    assert ultron("extract", "--dataset", folder, *network)[0] == 0
    ranks = tmp_path / "ranks.h5"
    assert ultron("search", "-k", 5, "--out", ranks)[0] == 0
    ranking = read_ranks(ranks)
    return folder, ranks, ranking.query_names[0], ranking.names_of(0)[0]


def replace(folder: Path, name: str) -> None:
    """Puts another photo under a name."""
    path = next((folder / "jpg").glob(f"{name}*"))
    with Image.open(path) as photo:
        size = photo.size
    Image.new("RGB", size, "red").save(path)


def warning_of(*names: str) -> str:
    count, verb, pronoun = ("1 photo", "has", "it") if len(names) == 1 else (f"{len(names)} photos", "have", "them")
    return f"{count} shown {verb} changed since the search described {pronoun}: {', '.join(names)}; run"


def test_every_picture_beside_a_ranking_names_photos_that_were_replaced(ultron: Run, searched: Searched) -> None:
    folder, ranks, query, best = searched
    one_query = ("--ranks", ranks, "--query", query)
    truth = load_ground_truth(folder / "gnd_toy.json")
    x1, y1, x2, y2 = truth.queries[truth.query_names.index(query)].bbx or ()
    pictures: list[tuple[object, ...]] = [
        ("ranks", *one_query, "-k", 2),
        ("ranks", *one_query, "--ranks", ranks, "--moves", "-k", 2),
        ("cam", *one_query, "-k", 1),
        ("cam", *one_query, "--ranks", ranks, "--layer", "layer3", "--layer", "layer4", "-k", 1),
        ("match", *one_query, "--at", f"{(x1 + x2) / 2},{(y1 + y2) / 2}", "-k", 1),
        ("report", "--ranks", ranks, "-k", 1),
        ("tsne", "--thumbnails", "--perplexity", 3),
    ]
    _, _, before = ultron("visualize", *pictures[0])
    assert "changed since" not in before
    replace(folder, best)
    replace(folder, query)
    for picture in pictures:
        code, _, error = ultron("visualize", *picture)
        assert code == 0, error
        assert error.count("changed since the search described") == 1, (picture, error)
        names = [best] if picture[0] == "tsne" else [query, best]
        assert warning_of(*names) in error, (picture, error)


def test_photos_that_are_not_shown_are_not_looked_at(ultron: Run, searched: Searched) -> None:
    folder, ranks, query, _ = searched
    replace(folder, read_ranks(ranks).names_of(0)[4])
    assert "changed since" not in ultron("visualize", "ranks", "--ranks", ranks, "--query", query, "-k", 4)[2]
    assert "changed since" in ultron("visualize", "ranks", "--ranks", ranks, "--query", query, "-k", 5)[2]


def test_a_query_by_path_is_marked_too(ultron: Run, searched: Searched, tmp_path: Path) -> None:
    photo = tmp_path / "holiday.jpg"
    Image.new("RGB", (80, 60), "blue").save(photo)
    assert ultron("search", photo, "-k", 2, "--out", tmp_path / "by-path.h5")[0] == 0
    Image.new("RGB", (80, 60), "green").save(photo)
    code, _, error = ultron("visualize", "ranks", "--ranks", tmp_path / "by-path.h5", "-k", 2)
    assert (code, warning_of("holiday.jpg") in error) == (0, True)


def drop_marks(stored: h5py.File) -> None:
    for name in ("query_states", "query_digests", "database_states", "database_digests"):
        del stored[name]


def shorten_marks(stored: h5py.File) -> None:
    digests = stored["database_digests"][1:]
    del stored["database_digests"]
    stored["database_digests"] = digests


@pytest.mark.parametrize("damage", [drop_marks, shorten_marks])
def test_rank_files_without_marks_are_drawn_as_before(
    ultron: Run, searched: Searched, damage: Callable[[h5py.File], None]
) -> None:
    folder, ranks, query, best = searched
    with h5py.File(ranks, "r+") as stored:
        damage(stored)
    replace(folder, best)
    code, out, error = ultron("visualize", "ranks", "--ranks", ranks, "--query", query, "-k", 2, "--json")
    assert (code, "changed since" in error) == (0, False)
    assert Path(json.loads(out)["figure"]).exists()


def test_what_changed_is_said_before_what_no_longer_fits(ultron: Run, searched: Searched) -> None:
    folder, ranks, query, _ = searched
    Image.new("RGB", (9, 9)).save(next((folder / "jpg").glob(f"{query}*")))  # its box reaches outside
    code, _, error = ultron("visualize", "cam", "--ranks", ranks, "--query", query, "-k", 1)
    assert code == 2
    assert error.index(warning_of(query)) < error.index("reaches outside the photo")
