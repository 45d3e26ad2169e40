"""Rendered landmarks: the same everywhere, sound ground truth, whole or absent."""

import hashlib
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.datasets.toy import ToyConfig, dataset, make_toy, scene
from ultron_cli.datasets.toy.building import make_building
from ultron_cli.datasets.toy.dataset import plan_photos
from ultron_cli.datasets.toy.draws import Draws, cosine, draw_order, sine
from ultron_cli.datasets.toy.plans import PLANS
from ultron_cli.datasets.toy.scene import Photo, render
from ultron_cli.datasets.toy.street import make_street
from ultron_cli.datasets.toy.views import View, draw_view, label_pair, pair_difficulty
from ultron_cli.errors import UltronError

pytestmark = pytest.mark.slow

TINY = ToyConfig(
    n_train_landmarks=2,
    n_train_photos=2,
    n_eval_landmarks=2,
    n_queries_per_landmark=2,
    n_database_photos=6,
    n_distractors=3,
    max_side_px=64,
)
# SHA-256 of the pixels of one photo, as the renderer made them when it was written. If it changes, raise
# dataset.VERSION.
GOLDEN = "6fb56d42cbe53ed1561bf50c07fe0473cd717650365e9399f909eed627d514f2"


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def one_photo(purpose: str = "near", seed: int = 3, max_side_px: int = 96, **changes: object) -> tuple[Photo, View]:
    street = make_street(seed)
    building = make_building(seed, "eval-0001", street.atlas)
    draws = Draws(seed, "photo", "golden")
    view = replace(draw_view(draws, purpose, 1.0, building.size_m, building.main_azimuth_deg), **changes)
    return render(building, view, street, draws, max_side_px), view


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "tiny"
    make_toy(folder, TINY, workers=0)
    return folder


def test_pixels_are_those_recorded() -> None:
    photo, view = one_photo(light="golden", weather="snow", blur=1)
    assert photo.pixels.shape == (*reversed(scene.photo_size(view.aspect, 96)), 3) and photo.pixels.dtype == np.uint8
    assert hashlib.sha256(photo.pixels.tobytes()).hexdigest() == GOLDEN


def test_same_files_again_and_with_other_processes(tiny: Path, tmp_path: Path) -> None:
    make_toy(tmp_path / "again", TINY, workers=2)
    assert hashes(tmp_path / "again") == hashes(tiny)


def test_another_seed_gives_other_photos(tiny: Path, tmp_path: Path) -> None:
    make_toy(tmp_path / "other", replace(TINY, seed=1), workers=0)
    assert not set(hashes(tmp_path / "other").values()) & set(hashes(tiny).values())


def test_a_photo_does_not_depend_on_how_many_there_are(tiny: Path, tmp_path: Path) -> None:
    make_toy(tmp_path / "fewer", replace(TINY, n_train_landmarks=1, n_train_photos=1), workers=0)
    name = "train/train-0000/train-0000_000.jpg"
    assert (tmp_path / "fewer" / name).read_bytes() == (tiny / name).read_bytes()


def test_layout_and_ground_truth(tiny: Path) -> None:
    truth = json.loads((tiny / "gnd_toy.json").read_text())
    assert load_ground_truth(tiny / "gnd_toy.json").database_names == truth["imlist"]
    assert len(truth["imlist"]) == 2 * 6 + 3 and len(truth["qimlist"]) == len(truth["gnd"]) == 4
    assert not set(truth["imlist"]) & set(truth["qimlist"])
    assert {path.stem for path in (tiny / "jpg").iterdir()} == set(truth["imlist"]) | set(truth["qimlist"])
    for name, entry in zip(truth["qimlist"], truth["gnd"], strict=True):
        rows = entry["easy"] + entry["hard"] + entry["junk"]
        assert len(set(rows)) == len(rows) == 6 and all(0 <= row < len(truth["imlist"]) for row in rows)
        with Image.open(tiny / "jpg" / f"{name}.jpg") as image:
            assert max(image.size) == 64
            x1, y1, x2, y2 = entry["bbx"]
            assert 0 <= x1 < x2 <= image.width and 0 <= y1 < y2 <= image.height


def test_description_agrees_with_ground_truth(tiny: Path) -> None:
    truth, description = json.loads((tiny / "gnd_toy.json").read_text()), json.loads((tiny / "toy.json").read_text())
    photos = {Path(photo["file"]).stem: photo for photo in description["photos"]}
    assert description["config"]["max_side_px"] == 64 and description["format"] == "ultron-toy"
    for name, entry in zip(truth["qimlist"], truth["gnd"], strict=True):
        for label in ("easy", "hard", "junk"):
            for row in entry[label]:
                photo = photos[truth["imlist"][row]]
                assert photo["landmark"] == photos[name]["landmark"] and photo["label"][name] == label
    assert all(0 <= photo["visible"] <= 1 and photo["view"]["distance_m"] > 0 for photo in photos.values())


def test_training_and_evaluation_landmarks_are_disjoint() -> None:
    plans = plan_photos(ToyConfig())
    by_role = {
        role: {plan.landmark for plan in plans if plan.role == role}
        for role in ("train", "query", "database", "distractor")
    }
    assert by_role["query"] == by_role["database"] and len(by_role["train"]) == 240
    assert not by_role["train"] & by_role["database"] and not by_role["distractor"] & (
        by_role["train"] | by_role["database"]
    )
    assert len({plan.file for plan in plans}) == len(plans) == 240 * 8 + 24 * 13 + 100


def test_names_do_not_give_the_landmark_away() -> None:
    plans = [plan for plan in plan_photos(ToyConfig()) if plan.role == "database"]
    in_name_order = [plan.landmark for plan in sorted(plans, key=lambda plan: plan.file)]
    assert sum(a == b for a, b in pairwise(in_name_order)) < 45  # of 287 neighbours; 264 if in order


def test_default_queries_have_easy_hard_and_junk(tmp_path: Path) -> None:
    make_toy(
        tmp_path / "toy", ToyConfig(n_train_landmarks=0, n_eval_landmarks=8, n_distractors=0, max_side_px=64), workers=0
    )
    entries = json.loads((tmp_path / "toy" / "gnd_toy.json").read_text())["gnd"]
    assert all(len(entry["easy"]) >= 3 and len(entry["junk"]) >= 1 for entry in entries)
    n_hard = [len(entry["hard"]) for entry in entries]
    assert min(n_hard) >= 1 and sum(n_hard) / len(n_hard) >= 2.5


def test_difficulty_raises_the_score(tmp_path: Path) -> None:
    means = []
    for difficulty in (0.0, 1.0, 2.0):
        config = replace(TINY, difficulty=difficulty, n_train_landmarks=0, n_distractors=0, max_side_px=48)
        make_toy(tmp_path / str(difficulty), config, workers=0)
        photos = json.loads((tmp_path / str(difficulty) / "toy.json").read_text())["photos"]
        means.append(sum(photo["difficulty"] for photo in photos) / len(photos))
    assert means[0] < means[1] < means[2]


def test_labels_follow_the_view() -> None:
    _, query = one_photo("query")
    assert label_pair(query, query, 1.0, 0.3) == "easy" and pair_difficulty(query, query, 1.0) == 0.0
    assert label_pair(query, replace(query, azimuth_deg=query.azimuth_deg + 70), 1.0, 0.3) == "hard"
    assert label_pair(query, query, 0.2, 0.3) == "junk" and label_pair(query, query, 1.0, 0.001) == "junk"
    assert label_pair(query, replace(query, azimuth_deg=query.azimuth_deg + 170), 1.0, 0.3) == "junk"


def test_what_stands_in_front_lowers_the_visible_part() -> None:
    free, _ = one_photo(occlusion=0.0, fill=0.8, shift=(0.0, 0.0))
    hidden, _ = one_photo(occlusion=1.0, fill=0.8, shift=(0.0, 0.0))
    cut, _ = one_photo(occlusion=0.0, fill=3.0, shift=(0.0, 0.0))
    assert free.visible > 0.85 and hidden.visible < 0.6 and cut.visible < 0.25


def test_every_plan_renders() -> None:
    names = {}
    street = make_street(0)
    for k in range(60):
        building = make_building(0, f"train-{k:04d}", street.atlas)
        names.setdefault(building.plan, building)
        if len(names) == len(PLANS):
            break
    assert set(names) == set(PLANS)
    for building in names.values():
        view = draw_view(Draws(0, building.name), "near", 0.0, building.size_m, building.main_azimuth_deg)
        photo = render(building, view, street, Draws(1), 48)
        assert photo.visible > 0.6 and photo.pixels.std() > 10


@pytest.mark.parametrize("workers", [0, 2])
def test_interruption_leaves_nothing(tmp_path: Path, workers: int) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_toy(tmp_path / "toy", TINY, workers=workers, on_photo=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_photo(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    make_toy(
        tmp_path / "toy",
        replace(TINY, n_train_landmarks=0),
        workers=0,
        on_photo=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(done, 19) for done in range(1, 20)]


def test_equal_configuration_is_reused(tiny: Path) -> None:
    before = hashes(tiny)
    summary = make_toy(tiny, TINY, workers=0)
    assert summary.reused and summary.n_database == 15 and summary.n_easy + summary.n_hard + summary.n_junk == 24
    assert hashes(tiny) == before


def test_other_content_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UltronError, match=r"another configuration.*seed 0 there, 9 asked for.*remove it or name another folder"
    ):
        make_toy(tiny, replace(TINY, seed=9), workers=0)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UltronError, match=r"must be new or empty.*name another folder"):
        make_toy(tmp_path, TINY, workers=0)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_lost_photo_is_noticed(tmp_path: Path) -> None:
    config = replace(TINY, n_train_landmarks=0, n_eval_landmarks=1, n_distractors=0)
    make_toy(tmp_path / "toy", config, workers=0)
    next((tmp_path / "toy" / "jpg").iterdir()).unlink()
    with pytest.raises(UltronError, match="lacks 1 of its 8 photos"):
        make_toy(tmp_path / "toy", config, workers=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("n_eval_landmarks", 0),
        ("max_side_px", 10),
        ("difficulty", 2.5),
        ("difficulty", float("nan")),
        ("n_train_photos", 1.5),
        ("n_distractors", True),
        ("max_side_px", "256"),
    ],
)
def test_bad_configuration_is_a_clear_error(name: str, value: object) -> None:
    with pytest.raises(UltronError, match=rf"{name} must be a .*number from .* to .*, got .*; set {name} within"):
        ToyConfig(**{name: value})


def test_bad_workers_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UltronError, match="workers must be a whole number from 0, got -1"):
        make_toy(tmp_path / "toy", TINY, workers=-1)


def test_draws_and_sine_are_exact() -> None:
    angles = np.arange(-720, 721, 7.5)
    assert max(abs(sine(angle) - np.sin(np.radians(angle))) for angle in angles) < 1e-12
    assert cosine(60.0) == pytest.approx(0.5, abs=1e-12)
    assert Draws(1, "a").uniform(0, 1) == Draws(1, "a").uniform(0, 1) != Draws(1, "b").uniform(0, 1)
    assert draw_order(0, ["a", "b", "c"]) == draw_order(0, ["c", "a", "b"])


def test_contact_sheet(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "examples")
    from toy_sheet import contact_sheet

    with Image.open(contact_sheet(tiny, tmp_path / "sheet.png", n_landmarks=2, n_photos=3)) as sheet:
        assert sheet.width > sheet.height > 300
    with pytest.raises(UltronError, match="at least 1"):
        contact_sheet(tiny, tmp_path / "sheet.png", n_photos=0)
    assert dataset.VERSION == 1
