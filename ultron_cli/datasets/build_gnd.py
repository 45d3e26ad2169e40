"""Makes a dataset of the user's own photos: its ground truth comes from a folder per landmark, a CSV of labels, or a
CSV of pairs.

Where no table says which photos are queries, they are chosen by a rule and a seed.
"""

import filecmp
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict

from ultron_cli.configs import one_of, within
from ultron_cli.console import counted, log
from ultron_cli.datasets.folder import list_photos
from ultron_cli.datasets.label_tables import (
    Pair,
    PhotoLabel,
    Spelled,
    read_boxes,
    read_labels,
    read_pairs,
    spellings,
)
from ultron_cli.datasets.photo_files import photo_size
from ultron_cli.datasets.photos import clip_box
from ultron_cli.datasets.protocols import Box, parse_ground_truth
from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file, write_text
from ultron_cli.locks import only_writer

DISTRACTOR_FOLDER = "distractors"
QUERY_RULES = ("random", "first", "largest")


@dataclass(frozen=True, kw_only=True)
class GroundTruthConfig:
    """How own photos become a dataset."""

    source: Path  # folder of the photos
    out: Path | None = None  # None: the photos' folder
    name: str | None = None  # None: that of the folder
    labels: Path | None = None  # CSV; without it and `pairs`, folders are landmarks
    pairs: Path | None = None  # CSV
    boxes: Path | None = None  # CSV
    # which photos of a landmark become queries; the same seed always takes the same ones
    query_rule: Literal["random", "first", "largest"] = "random"
    queries_per_landmark: int = 1
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        one_of("query_rule", self.query_rule, QUERY_RULES)
        within("queries_per_landmark", self.queries_per_landmark, 1, 1000)
        if self.labels and self.pairs:
            raise UltronError(
                "`labels` and `pairs` exclude each other (landmarks by photo, or answers by query); leave one"
            )
        if self.name is not None and (not self.name or not self.name.replace("_", "").replace("-", "").isalnum()):
            raise UltronError(f"`name` takes letters, digits, - and _; found {self.name!r}")


@dataclass(kw_only=True)
class Plan:
    """The dataset to be; photos by relative path."""

    queries: list[str] = field(default_factory=list)
    database: list[str] = field(default_factory=list)
    labels: dict[tuple[str, str], str] = field(default_factory=dict)  # (query, photo) -> easy, hard or junk
    boxes: dict[str, Box] = field(default_factory=dict)  # of queries
    n_landmarks: int = 0
    single: list[str] = field(default_factory=list)  # landmarks with one photo, which no query can stand for


class BuiltGroundTruth(TypedDict):
    """What was written: the JSON of `ultron datasets build-gnd`."""

    ground_truth: str  # its file
    folder: str  # of the dataset
    name: str
    queries: int
    database: int  # photos
    landmarks: int
    labels: dict[str, int]  # easy, hard and junk labels
    boxes: int
    single_photo_landmarks: list[str]  # without a photo to ask with and one to find: distractors
    query_rule: str | None  # None where pairs name the queries
    seed: int


def build_ground_truth(config: GroundTruthConfig) -> BuiltGroundTruth:
    """Writes gnd_NAME.json (and with --out the photos beside it) and returns a summary. Raises UltronError, and then
    writes nothing."""
    if not config.source.is_dir():
        raise UltronError(f"{config.source} is not a folder of photos; name one")
    photo_folder = config.source / "jpg" if (config.source / "jpg").is_dir() else config.source
    photos = list_photos(photo_folder)
    if not photos:
        raise UltronError(f"{photo_folder} has no photos; name a folder that has some")
    _refuse_shared_names(photos, photo_folder)
    folder = config.out or config.source
    name = config.name or folder.resolve().name
    target = folder / f"gnd_{name}.json"
    if len(os.fsencode(target.name)) > 255:
        raise UltronError(f"the ground truth would be called {target.name}, which is too long; give it another `name`")
    if target.exists() and not config.overwrite:
        raise UltronError(f"{target} is there already; replace it with `overwrite`, or give another `name`")
    plan = _plan(config, photo_folder, photos)
    _check_boxes(plan, photo_folder)
    _warn_of_copies(plan, photo_folder)
    content = _content(plan)
    parse_ground_truth(json.loads(json.dumps(content)), target)
    with only_writer(folder, f"another `ultron datasets build-gnd` is writing {folder}"):
        if folder.resolve() != config.source.resolve():
            _place_photos(photo_folder, folder / "jpg", [*plan.database, *plan.queries], config.overwrite)
        write_text(target, json.dumps(content, indent=1))
    n_labels = {label: sum(value == label for value in plan.labels.values()) for label in ("easy", "hard", "junk")}
    return {
        "ground_truth": str(target),
        "folder": str(folder),
        "name": name,
        "queries": len(plan.queries),
        "database": len(plan.database),
        "landmarks": plan.n_landmarks,
        "labels": n_labels,
        "boxes": len(plan.boxes),
        "single_photo_landmarks": plan.single,
        "query_rule": None if config.pairs else config.query_rule,
        "seed": config.seed,
    }


def _plan(config: GroundTruthConfig, photo_folder: Path, photos: list[str]) -> Plan:
    spelled = Spelled(spellings(photos))
    boxes = {label.photo: label.box for label in read_boxes(config.boxes, spelled) if label.box} if config.boxes else {}
    if config.pairs:
        plan = plan_from_pairs(read_pairs(config.pairs, spelled), photos)
        plan.boxes = {photo: box for photo, box in boxes.items() if photo in set(plan.queries)}
        return plan
    if config.labels:
        labels = read_labels(config.labels, spelled)
    else:
        labels = [PhotoLabel(photo=photo, landmark=_landmark_folder(photo)) for photo in photos]
    boxes = {label.photo: label.box for label in labels if label.box} | boxes
    plan = plan_from_labels(labels, photos, config, photo_folder)
    plan.boxes = {photo: box for photo, box in boxes.items() if photo in set(plan.queries)}
    return plan


def _landmark_folder(photo: str) -> str:
    folder = photo.rpartition("/")[0]
    return "" if folder.split("/")[0] == DISTRACTOR_FOLDER else folder


def plan_from_labels(
    labels: list[PhotoLabel], photos: list[str], config: GroundTruthConfig, photo_folder: Path
) -> Plan:
    """Chooses queries by rule among each landmark's photos; the landmark's others are their answers. Photos without
    landmark or line are distractors."""
    by_landmark: dict[str, list[PhotoLabel]] = {}
    for label in labels:
        if label.landmark:
            by_landmark.setdefault(label.landmark, []).append(label)
    plan = Plan(n_landmarks=len(by_landmark))
    for landmark, members in sorted(by_landmark.items()):
        queries = _choose_queries(landmark, members, config, photo_folder)
        answers = [member for member in members if member.photo not in queries and member.role != "query"]
        if not queries or all(answer.label == "junk" for answer in answers):
            plan.single.append(landmark)
            continue
        plan.queries += queries
        plan.labels |= {(query, answer.photo): answer.label for query in queries for answer in answers}
    if not plan.queries:
        raise UltronError(
            f"{config.labels or photo_folder} gives {counted(len(by_landmark), 'landmark')} and none with two "
            "photos, one to ask with and one to find; "
            "sort photos into one folder per landmark, or write `labels` or `pairs`"
        )
    queries = set(plan.queries)
    plan.database = [photo for photo in photos if photo not in queries]
    return plan


def _choose_queries(
    landmark: str, members: list[PhotoLabel], config: GroundTruthConfig, photo_folder: Path
) -> list[str]:
    """The photos of role query; where there are none, as many as wanted by rule, but for one to find. A junk photo is
    no query."""
    queries = sorted(member.photo for member in members if member.role == "query")
    if queries:
        return queries
    candidates = sorted(member.photo for member in members if member.role == "" and member.label != "junk")
    if config.query_rule == "random":  # an order of each landmark's own: other landmarks may come and go
        candidates.sort(
            key=lambda photo: hashlib.sha256(
                f"{config.seed}\0{landmark}\0{photo}".encode("utf-8", "surrogateescape")
            ).digest()
        )
    elif config.query_rule == "largest":
        areas = {photo: -_area(photo_folder / photo) for photo in candidates}
        candidates.sort(key=lambda photo: (areas[photo], photo))
    return sorted(candidates[: min(config.queries_per_landmark, len(members) - 1)])


def _area(path: Path) -> int:
    width, height = photo_size(path)
    return width * height


def plan_from_pairs(pairs: Iterable[Pair], photos: list[str]) -> Plan:
    """Takes queries and answers as they are paired; every photo that is no query is in the database."""
    plan = Plan(labels={(pair.query, pair.photo): pair.label for pair in pairs})
    plan.queries = sorted({query for query, _ in plan.labels})
    queries = set(plan.queries)
    queries_as_answers = sorted({photo for _, photo in plan.labels if photo in queries})
    if queries_as_answers:
        raise UltronError(
            f"`pairs`: {queries_as_answers[0]} is a query and an answer; a query is not in the database, so make it "
            "one of the two"
        )
    answered = {query for (query, _), label in plan.labels.items() if label != "junk"}
    unanswered = [query for query in plan.queries if query not in answered]
    if unanswered or not plan.queries:
        problem = f"{unanswered[0]} has junk answers only" if unanswered else "the table has no pairs"
        raise UltronError(f"`pairs`: every query needs an answer that is easy or hard; {problem}")
    plan.n_landmarks = len(plan.queries)
    plan.database = [photo for photo in photos if photo not in queries]
    return plan


def _check_boxes(plan: Plan, photo_folder: Path) -> None:
    for photo, box in plan.boxes.items():
        clip_box(box, *photo_size(photo_folder / photo), where=str(photo_folder / photo))


def _warn_of_copies(plan: Plan, photo_folder: Path) -> None:
    """Warns of a query whose very file is in the database too: it is found at once, and its score says nothing."""
    sizes: dict[int, list[str]] = {}
    for photo in plan.database:
        sizes.setdefault((photo_folder / photo).stat().st_size, []).append(photo)
    for query in plan.queries:
        content = (photo_folder / query).read_bytes()
        copy = next(
            (photo for photo in sizes.get(len(content), ()) if (photo_folder / photo).read_bytes() == content), None
        )
        if copy:
            log.warning(
                "query %s is the same file as %s in the database; remove one, or its score means nothing", query, copy
            )


def _name(photo: str) -> str:
    """The name in a ground truth: without .jpg, as published ones have it; other suffixes stay."""
    return photo.removesuffix(".jpg")


def _refuse_shared_names(photos: Sequence[str], photo_folder: Path) -> None:
    """Raises UltronError if the name of one photo in a ground truth is the path of another."""
    paths = set(photos)
    shared = [photo for photo in photos if photo != _name(photo) and _name(photo) in paths]
    if shared:
        more = f" ({counted(len(shared) - 1, 'more pair')} like it)" if len(shared) > 1 else ""
        raise UltronError(
            f"{photo_folder}: names in a ground truth stand without .jpg, so that {_name(shared[0])!r} would mean both "
            f"{_name(shared[0])!r} and {shared[0]!r}{more}; rename one of the two"
        )


def _content(plan: Plan) -> dict[str, object]:
    row = {photo: i for i, photo in enumerate(plan.database)}
    answers: dict[str, dict[str, list[int]]] = {query: {"easy": [], "hard": [], "junk": []} for query in plan.queries}
    for (query, photo), label in plan.labels.items():
        answers[query][label].append(row[photo])
    boxes = {query: list(plan.boxes[query]) if query in plan.boxes else None for query in plan.queries}
    gnd = [
        {"bbx": boxes[query]} | {label: sorted(rows) for label, rows in answers[query].items()}
        for query in plan.queries
    ]
    return {
        "imlist": [_name(photo) for photo in plan.database],
        "qimlist": [_name(photo) for photo in plan.queries],
        "gnd": gnd,
    }


def _place_photos(source: Path, target: Path, photos: list[str], overwrite: bool) -> None:
    """Makes hard links, or copies where links are not possible; each is whole or absent. Raises UltronError if another
    file is in the way."""
    to_place = [
        photo
        for photo in photos
        if not (target / photo).exists() or not filecmp.cmp(source / photo, target / photo, shallow=False)
    ]
    in_the_way = [photo for photo in to_place if (target / photo).exists()]
    if in_the_way and not overwrite:
        raise UltronError(
            f"{target / in_the_way[0]} is there already and is another photo; name another `out`, or replace "
            "it with `overwrite`"
        )
    for photo in to_place:
        (target / photo).parent.mkdir(parents=True, exist_ok=True)
        (target / photo).unlink(missing_ok=True)
        try:
            os.link(source / photo, target / photo)
        except OSError:  # another file system, or one without links
            with open(source / photo, "rb") as stream, whole_file(target / photo) as output:
                shutil.copyfileobj(stream, output)
