"""Rendered landmarks: a small landmark data set made from nothing, for trying out and testing the whole pipeline
without a download.

Every landmark is a building of its own (building.py), photographed from many sides, near and far, by day and night, in
sun, fog, rain and snow, with people, trees and cars in front (scene.py). Buildings share colours and elements, so that
it takes shape and detail to tell them apart.

The same configuration gives the same files on every machine and with any number of processes: each photo draws from its
own PCG64 generator, seeded by the SHA-256 of (seed, landmark, photo) (draws.py); pixels come from elementwise + - * /
and sqrt, which IEEE 754 rounds in one way only; there is no matrix product, no sum whose order a library chooses, no
sin, exp or pow (sine is a polynomial). The pixels rest on numpy alone; the JPEG bytes also on the libjpeg in Pillow.
"""

import contextlib
import io
import itertools
import json
import os
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypedDict

from PIL import Image
from ultron_kernels import rendering

from ultron_cli import __version__
from ultron_cli.datasets.toy.building import Building, make_building
from ultron_cli.datasets.toy.draws import Draws, draw_order
from ultron_cli.datasets.toy.scene import Photo, render
from ultron_cli.datasets.toy.street import Street, make_street
from ultron_cli.datasets.toy.views import (
    Label,
    Purpose,
    View,
    draw_view,
    is_fit,
    label_pair,
    pair_difficulty,
    plain_view,
)
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.files import part_file, whole_folder
from ultron_cli.locks import only_writer
from ultron_cli.output_files import require_space
from ultron_cli.processes import start_worker, starting_workers
from ultron_cli.schema.texts import fit_file, read_json

FORMAT = "ultron-toy"
# What a photo takes on a disk at most, for a check beforehand: a block of the file system, and its pixels.
BLOCK_BYTES = 4096
JPEG_BYTES_PER_PX = 0.3
VERSION = 1  # of the pictures: raise it when the same configuration no longer gives the same files
# Of ten database photos of a landmark: four show its best side, five are from elsewhere, one hardly shows it.
DATABASE_PURPOSES: tuple[Purpose, ...] = (
    "near",
    "wide",
    "blocked",
    "wide",
    "near",
    "wide",
    "near",
    "wide",
    "near",
    "wide",
)
LABELS: tuple[Label, ...] = ("easy", "hard", "junk")
PHOTOS_PER_OTHER_BUILDING = 4
MOST_ATTEMPTS = 4
WORTH_BUILDING = 200  # photos: drawing them takes as long as compiling what draws them
# field -> (least, greatest)
LIMITS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "n_train_landmarks": (0, 100_000),
    "n_train_photos": (1, 10_000),
    "n_eval_landmarks": (1, 100_000),
    "n_queries_per_landmark": (1, 1000),
    "n_database_photos": (1, 10_000),
    "n_distractors": (0, 1_000_000),
    "max_side_px": (48, 2048),
    "difficulty": (0.0, 2.0),
}


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """What to render."""

    seed: int = 0
    n_train_landmarks: int = 240
    n_train_photos: int = 8  # per landmark
    n_eval_landmarks: int = 24  # none of them among the training landmarks
    n_queries_per_landmark: int = 1
    n_database_photos: int = 12  # per evaluation landmark
    n_distractors: int = 100  # photos of other buildings, in no ground truth list
    max_side_px: int = 256
    # 0 (every photo much like the next) to 2; it widens the range of views, light, weather and occlusion
    difficulty: float = 0.4

    def __post_init__(self) -> None:
        for name, (least, greatest) in LIMITS.items():
            value = getattr(self, name)
            kinds, kind = ((int, float), "a number") if name == "difficulty" else ((int,), "a whole number")
            if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= greatest:
                raise UltronError(
                    f"{name} must be {kind} from {least} to {greatest}, got {value!r}; set {name} within these limits"
                )
        object.__setattr__(self, "difficulty", float(self.difficulty))


@dataclass(frozen=True, kw_only=True)
class ToySummary:
    """What the folder holds."""

    folder: Path
    n_train_landmarks: int
    n_train_photos: int
    n_queries: int
    n_database: int
    n_easy: int  # (query, photo) pairs over all queries, as n_hard and n_junk
    n_hard: int
    n_junk: int
    reused: bool  # it was there already


@dataclass(frozen=True, kw_only=True)
class PhotoPlan:
    """One photo to be taken."""

    key: str  # for the draws
    landmark: str
    role: str  # train, query, database or distractor
    purpose: Purpose
    file: str  # relative to the folder


@dataclass(frozen=True, kw_only=True)
class PhotoRecord:
    """One photo that was taken: what it shows and how. The field order is that of toy.json."""

    key: str  # of its plan
    file: str
    landmark: str
    plan: str  # of the building
    role: str
    view: View
    box: list[int]
    visible: float
    share: float
    difficulty: float  # against the plain view

    def as_json(self) -> dict[str, object]:
        """Plain values for toy.json, without the key."""
        values = {name: value for name, value in vars(self).items() if name not in ("key", "view")}
        return {**values, "view": self.view.as_json()}


class QueryLabels(TypedDict):
    """The entry of one query in a ground truth: its box in pixels, and rows of the database by label."""

    bbx: list[int]
    easy: list[int]
    hard: list[int]
    junk: list[int]


class GroundTruthContent(TypedDict):
    """The revisitop layout of a ground truth."""

    imlist: list[str]
    qimlist: list[str]
    gnd: list[QueryLabels]


def make_toy(
    folder: Path, config: ToyConfig, *, workers: int = 2, on_photo: Callable[[int, int], None] | None = None
) -> ToySummary:
    """Renders the data set into `folder`, or finds it there already made from an equal configuration.

    workers: processes that render; 0 renders in this one (a script that asks for more needs the usual `if __name__ ==
    "__main__"`). on_photo: called with (photos done, photos in all). The folder appears whole or not at all. Raises
    UltronError if the folder holds anything else, WorkFailed if the disk is full.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise UltronError(f"workers must be a whole number from 0, got {workers!r}; 0 renders without extra processes")
    folder = Path(folder).absolute()
    existing = _existing(folder, config)
    if existing is not None:
        return existing
    plans = plan_photos(config)
    with only_writer(folder, f"another process is rendering landmarks into {folder}", beside=True, wait=True):
        existing = _existing(folder, config)  # the one that was waited for has made it
        if existing is not None:
            return existing
        n_bytes = len(plans) * (BLOCK_BYTES + int(config.max_side_px**2 * JPEG_BYTES_PER_PX))
        require_space(folder, n_bytes, f"rendering {len(plans)} photos")
        with whole_folder(folder) as partial:
            for sub in sorted({str(Path(plan.file).parent) for plan in plans} | {"jpg"}):
                (partial / sub).mkdir(parents=True)
            rendering.is_ready(worth_building=len(plans) >= WORTH_BUILDING)
            records = _render_all(partial, config, plans, workers, on_photo)
            content = _ground_truth(records)
            for name, part in (("gnd_toy.json", content), ("toy.json", _description(config, records, content))):
                with part_file(partial / name, folder) as output:
                    output.write(json.dumps(part).encode("utf-8"))
    return _summary(folder, content, config, reused=False)


@dataclass(frozen=True, kw_only=True)
class _Photo:
    """An entry of toy.json, as far as it is read."""

    file: str


@dataclass(frozen=True, kw_only=True)
class _Description:
    """toy.json, as far as it is read."""

    config: dict[str, object]
    photos: list[_Photo]


def _existing(folder: Path, config: ToyConfig) -> ToySummary | None:
    """The summary of an equal data set in the folder; None if there is nothing. Raises UltronError if there is
    something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not (folder / "toy.json").is_file():
        raise UltronError(
            f"{folder} must be new or empty, but it holds something that is not rendered landmarks; name another folder"
        )
    again = "remove the folder to render it again"
    stored_description = read_json(folder / "toy.json", "description of rendered landmarks", dict[str, object])
    if stored_description.get("format") != FORMAT or stored_description.get("version") != VERSION:
        raise UltronError(f"{folder} holds rendered landmarks of another version; remove it or name another folder")
    description = fit_file(
        stored_description, _Description, folder / "toy.json", "description of rendered landmarks", again
    )
    settings, stored = asdict(config), description.config
    if stored != settings:
        changed = [
            f"{name} {stored.get(name)} there, {value} asked for"
            for name, value in settings.items()
            if stored.get(name) != value
        ]
        raise UltronError(
            f"{folder} holds rendered landmarks of another configuration ({'; '.join(changed)}); remove it or "
            "name another folder"
        )
    lost = [
        photo.file
        for photo in description.photos
        if not (os.path.isfile(folder / photo.file) and os.path.getsize(folder / photo.file))  # of any length
    ]
    if lost:
        raise UltronError(
            f"{folder} lacks {len(lost)} of its {len(description.photos)} photos, such as {lost[0]}; {again}"
        )
    content = read_json(folder / "gnd_toy.json", "ground truth", GroundTruthContent, advice=again)
    return _summary(folder, content, config, reused=True)


def plan_photos(config: ToyConfig) -> list[PhotoPlan]:
    """All photos of a configuration, those of a landmark together. File names of queries, database and distractors tell
    nothing."""
    neutral: list[tuple[str, str, str, Purpose]] = []  # key, landmark, role, purpose of photos with a neutral name
    for k in range(config.n_eval_landmarks):
        landmark = f"eval-{k:04d}"
        for q in range(config.n_queries_per_landmark):
            neutral.append((f"{landmark}/q{q:03d}", landmark, "query", "query"))
        for d in range(config.n_database_photos):
            purpose = DATABASE_PURPOSES[d % len(DATABASE_PURPOSES)]
            neutral.append((f"{landmark}/d{d:03d}", landmark, "database", purpose))
    for k in range(config.n_distractors):
        landmark = f"other-{k // PHOTOS_PER_OTHER_BUILDING:05d}"
        neutral.append((f"{landmark}/d{k % PHOTOS_PER_OTHER_BUILDING}", landmark, "distractor", "any"))
    number = {key: place for place, key in enumerate(draw_order(config.seed, [entry[0] for entry in neutral]))}
    plans = [
        PhotoPlan(key=key, landmark=landmark, role=role, purpose=purpose, file=f"jpg/toy_{number[key]:06d}.jpg")
        for key, landmark, role, purpose in neutral
    ]
    for k in range(config.n_train_landmarks):
        landmark = f"train-{k:04d}"
        plans += [
            PhotoPlan(
                key=f"{landmark}/t{p:03d}",
                landmark=landmark,
                role="train",
                purpose="any",
                file=f"train/{landmark}/{landmark}_{p:03d}.jpg",
            )
            for p in range(config.n_train_photos)
        ]
    return plans


def _render_all(
    folder: Path, config: ToyConfig, plans: list[PhotoPlan], workers: int, on_photo: Callable[[int, int], None] | None
) -> list[PhotoRecord]:
    """Renders landmark by landmark and returns the records in the order of the plans."""
    by_landmark: dict[str, list[PhotoPlan]] = {}
    for plan in plans:
        by_landmark.setdefault(plan.landmark, []).append(plan)
    records: dict[str, PhotoRecord] = {}
    with contextlib.closing(_finished(folder, config, list(by_landmark.values()), workers)) as groups:
        for record in itertools.chain.from_iterable(groups):
            records[record.key] = record
            if on_photo is not None:
                on_photo(len(records), len(plans))
    return [records[plan.key] for plan in plans]


def _finished(
    folder: Path, config: ToyConfig, groups: list[list[PhotoPlan]], workers: int
) -> Generator[list[PhotoRecord]]:
    """The records of each landmark as it is finished."""
    if workers == 0:
        for group in groups:
            yield render_landmark(folder, config, group)
        return
    # Spawned, not forked: the caller may hold threads or a GPU, which a forked child must not inherit.
    with starting_workers():
        pool = ProcessPoolExecutor(min(workers, len(groups)), mp_context=get_context("spawn"), initializer=start_worker)
    try:
        with starting_workers():
            futures = [pool.submit(render_landmark, folder, config, group) for group in groups]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise WorkFailed(
            "a process that renders landmarks died (out of memory, or a script without a main guard); ask for "
            "fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _take(plan: PhotoPlan, config: ToyConfig, building: Building, street: Street) -> tuple[View, Photo, float]:
    """The view, the photo and its difficulty; taken again, up to MOST_ATTEMPTS times, while it is not what it is
    planned for."""
    for attempt in range(MOST_ATTEMPTS):
        draws = Draws(config.seed, "photo", plan.key, attempt)
        view = draw_view(draws, plan.purpose, config.difficulty, building.size_m, building.main_azimuth_deg)
        plain = plain_view(view, building.main_azimuth_deg)
        last = attempt == MOST_ATTEMPTS - 1
        if not last and not is_fit(plan.purpose, pair_difficulty(plain, view, 1.0), None, None, config.difficulty):
            continue
        photo = render(building, view, street, draws, config.max_side_px)
        score = pair_difficulty(plain, view, photo.visible)
        if last or is_fit(plan.purpose, score, photo.visible, photo.share, config.difficulty):
            return view, photo, score
    raise AssertionError("the last attempt is taken as it is")


def render_landmark(folder: Path, config: ToyConfig, plans: list[PhotoPlan]) -> list[PhotoRecord]:
    """Renders and saves all photos of one landmark; returns a record of each: what was shown and how."""
    street = make_street(config.seed)
    building = make_building(config.seed, plans[0].landmark, street.atlas)
    records = []
    for plan in plans:
        view, photo, score = _take(plan, config, building, street)
        content = io.BytesIO()
        Image.fromarray(photo.pixels).save(content, format="JPEG", quality=view.jpeg_quality)
        (folder / plan.file).write_bytes(content.getvalue())
        records.append(
            PhotoRecord(
                key=plan.key,
                file=plan.file,
                landmark=plan.landmark,
                plan=building.plan,
                role=plan.role,
                view=view,
                box=list(photo.box),
                visible=photo.visible,
                share=photo.share,
                difficulty=score,
            )
        )
    return records


def _ground_truth(records: list[PhotoRecord]) -> GroundTruthContent:
    """The revisitop layout: photos in the order of their neutral names, and for each query its box and labelled
    rows."""
    by_file = sorted(records, key=lambda record: record.file)
    queries = [record for record in by_file if record.role == "query"]
    database = [record for record in by_file if record.role in ("database", "distractor")]
    gnd: list[QueryLabels] = []
    for query in queries:
        labels = QueryLabels(bbx=query.box, easy=[], hard=[], junk=[])
        for row, record in enumerate(database):
            if record.landmark == query.landmark:
                labels[label_pair(query.view, record.view, record.visible, record.share)].append(row)
        gnd.append(labels)
    return {
        "imlist": [Path(record.file).stem for record in database],
        "qimlist": [Path(record.file).stem for record in queries],
        "gnd": gnd,
    }


def _description(config: ToyConfig, records: list[PhotoRecord], content: GroundTruthContent) -> dict[str, object]:
    """The content of toy.json: the configuration, and how every photo was taken; database photos with their label for
    each query."""
    labels: dict[str, dict[str, str]] = {}
    for query, entry in zip(content["qimlist"], content["gnd"], strict=True):
        for label in LABELS:
            for row in entry[label]:
                labels.setdefault(content["imlist"][row], {})[query] = label
    photos = [{**record.as_json(), "label": labels.get(Path(record.file).stem, {})} for record in records]
    return {
        "format": FORMAT,
        "version": VERSION,
        "ultron_version": __version__,
        "config": asdict(config),
        "photos": photos,
    }


def _summary(folder: Path, content: GroundTruthContent, config: ToyConfig, *, reused: bool) -> ToySummary:
    n_pairs = {label: sum(len(entry[label]) for entry in content["gnd"]) for label in LABELS}
    return ToySummary(
        folder=folder,
        n_train_landmarks=config.n_train_landmarks,
        n_train_photos=config.n_train_landmarks * config.n_train_photos,
        n_queries=len(content["qimlist"]),
        n_database=len(content["imlist"]),
        n_easy=n_pairs["easy"],
        n_hard=n_pairs["hard"],
        n_junk=n_pairs["junk"],
        reused=reused,
    )
