"""What geometric verification is worth: mAP with and without its guard, and inliers against exact correspondences.

Of real photos and rendered landmarks that `ultron extract --local rootsift` has described:

    ultron extract --dataset ../shared/minidev --model gem --weights ... --local rootsift --out minidev
    ultron extract --dataset toy --model gem --weights ... --local rootsift --out toy-described
    python examples/local_features.py minidev toy-described --write docs/local.md

With --guard the differences to the plain search, with their intervals, of folders of any features, such as dense ones.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ultron_cli.console import start_log
from ultron_cli.datasets.protocols import Protocol
from ultron_cli.datasets.toy.building import Building, make_building
from ultron_cli.datasets.toy.raster import Camera, Frame, draw, new_frame
from ultron_cli.datasets.toy.scene import SAMPLES, photo_size, place_camera
from ultron_cli.datasets.toy.street import make_street
from ultron_cli.datasets.toy.views import View
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import find_gnd, score_ranking
from ultron_cli.evaluation.significance import compare_evaluations
from ultron_cli.files import replace_between
from ultron_cli.local.verification import VerifiablePhoto, VerifiableQuery, VerifySettings, verify
from ultron_cli.retrieval.local_features.files import LocalFeatureFile, open_local_features
from ultron_cli.retrieval.rankings import Ranking
from ultron_cli.retrieval.rerank import parse_rerank
from ultron_cli.retrieval.searching import SearchOptions, search_files
from ultron_cli.schema.texts import read_json

BEGIN, END = "<!-- begin: examples/local_features.py -->", "<!-- end: examples/local_features.py -->"
GUARD_BEGIN = "<!-- begin: examples/local_features.py --guard -->"
GUARD_END = "<!-- end: examples/local_features.py --guard -->"
PROTOCOLS: tuple[Protocol, ...] = ("easy", "medium", "hard")
ALL = 1_000_000
MODELS = ("homography", "affine", "similarity", "fundamental")
ANGLES = (0, 10, 20, 30, 45, 60, 180)  # degrees between two views of a rendered landmark
RIGHT_PX = 4.0  # of an inlier, from where the renderer puts the query's place


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="extractions with local features")
    parser.add_argument("--guard", action="store_true", help="the table of differences to the plain search")
    parser.add_argument("--write", type=Path, help="put the tables into this file, between its markers")
    return parser.parse_args()


def searched(folder: Path, settings: Sequence[str] | None) -> Ranking:
    """The search of a folder, verified with these settings of `geometry`; None: plain."""
    steps = [] if settings is None else parse_rerank("geometry", [f"geometry.{setting}" for setting in settings])
    files = (folder / "queries.h5", folder / "database.h5")
    return search_files(*files, None, "cpu", options=SearchOptions(steps=steps))


def score_row(folder: Path, what: str, settings: Sequence[str] | None) -> str:
    """A row of the table of scores."""
    ranking = searched(folder, settings)
    protocols = score_ranking(ranking, find_gnd(None, ranking.origin)).evaluation.to_json()["protocols"]
    scores = " | ".join(f"{100 * protocols[name]['mAP']:.2f}" for name in ("easy", "medium", "hard"))
    measured: dict[str, Any] = {}
    if settings is not None and ranking.origin.search is not None:
        measured = dict(ranking.origin.search.steps[-1].measured)
    threshold = (measured.get("calibration") or {}).get("threshold", "")
    return f"| {folder.name} | {what} | {scores} | {threshold} | {measured.get('n_promoted', '')} |"


def score_table(folders: Sequence[Path]) -> str:
    """mAP of each folder: plain, by M and guard, and by model."""
    lines = ["| photos | search | Easy | Medium | Hard | inliers that promote | promoted |", "| --- " * 7 + "|"]
    for folder in folders:
        lines.append(score_row(folder, "plain", None))
        for m, name in ((10, "10"), (50, "50"), (ALL, "all")):
            for guard in ("true", "false"):
                what = f"M {name}" + ("" if guard == "true" else ", no guard")
                lines.append(score_row(folder, what, [f"m={m}", f"guard={guard}"]))
        lines += [score_row(folder, f"M all, {model}", [f"m={ALL}", f"model={model}"]) for model in MODELS[1:]]
    return "\n".join(lines)


def guard_table(folders: Sequence[Path]) -> str:
    """Of each folder by M, with the guard and without: how far mAP is from the plain one, and its 95 % interval."""
    lines = ["| photos | features | search | " + " | ".join(PROTOCOLS).title() + " | inliers that promote | promoted |"]
    lines.append("| --- " * 8 + "|")
    for folder in folders:
        gnd = find_gnd(None, searched(folder, None).origin)
        plain = score_ranking(searched(folder, None), gnd).evaluation
        with open_local_features(folder / "database.local.h5") as file:
            detector = file.info.detector
        scores = " | ".join(f"{100 * plain.protocols[name].mAP:.2f}" for name in PROTOCOLS)
        lines.append(f"| {folder.name} | {detector} | plain | {scores} | | |")
        for m, m_name in ((10, "10"), (50, "50"), (ALL, "all")):
            for guard in (True, False):
                ranking = searched(folder, [f"m={m}", f"guard={str(guard).lower()}"])
                evaluation = score_ranking(ranking, gnd).evaluation
                differences = [compare_evaluations(plain, evaluation, name) for name in PROTOCOLS]
                texts = [difference_text(part.difference, part.interval) for part in differences]
                assert ranking.origin.search is not None
                measured: dict[str, Any] = dict(ranking.origin.search.steps[-1].measured)
                threshold = (measured["calibration"] or {}).get("threshold", "")
                what = f"M {m_name}" + ("" if guard else ", no guard")
                texts += [str(threshold), str(measured["n_promoted"])]
                lines.append(f"| {folder.name} | {detector} | {what} | {' | '.join(texts)} |")
    return "\n".join(lines)


def difference_text(difference: float, interval: tuple[float, float]) -> str:
    """In points, bold where the whole interval is below 0."""
    text = f"{100 * difference:+.2f} ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"
    return f"**{text}**" if interval[1] < 0 else text


@dataclass(frozen=True, kw_only=True)
class Landmark:
    """A rendered landmark as one photo shows it."""

    building: Building
    camera: Camera
    view: View

    def frame(self) -> Frame:
        """What the photo shows of the landmark, were nothing else there."""
        frame = new_frame(self.camera)
        draw(frame, self.camera, self.building.mesh, self.building.atlas)
        return frame


def landmark_of(photo: dict[str, Any], config: dict[str, Any]) -> Landmark:
    """The landmark of an entry of toy.json."""
    stored = {part.name: photo["view"][part.name] for part in fields(View)}
    view = View(**{name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()})
    building = make_building(config["seed"], photo["landmark"], make_street(config["seed"]).atlas)
    width, height = photo_size(view.aspect, config["max_side_px"])
    return Landmark(
        building=building, camera=place_camera(building, view, width * SAMPLES, height * SAMPLES), view=view
    )


def errors_px(query: Landmark, frame: Frame, photo: Landmark, places: np.ndarray, matched: np.ndarray) -> np.ndarray:
    """(n,) how far the (n, 2) places of a photo are from where the query's (n, 2) places on the landmark truly are;
    infinite where the query shows no landmark."""
    fine = (places.astype(np.float64) + 0.5) * SAMPLES - 0.5
    last = np.array([query.camera.width_px, query.camera.height_px]) - 1
    columns, rows = np.clip(np.rint(fine), 0, last).astype(np.int64).T
    nearness = frame.inverse_depth[rows, columns].astype(np.float64)
    centre, focal = query.camera.centre_px, query.camera.focal_px
    rays = np.stack([(fine[:, 0] - centre[0]) / focal, (centre[1] - fine[:, 1]) / focal, np.ones(len(fine))], axis=1)
    points = query.camera.position + (rays / np.maximum(nearness, 1e-9)[:, None]) @ query.camera.axes
    x, y, _ = photo.camera.project(points)
    true = (np.stack([x, y], axis=1) + 0.5) / SAMPLES - 0.5
    return np.where(nearness > 0, np.linalg.norm(true - matched, axis=1), np.inf)


def correspondences(folder: Path) -> str:
    """A row: the share of right inliers of promoted pairs, and by angle that of positives that are promoted."""
    ranking = searched(folder, [f"m={ALL}"])
    assert ranking.origin.search is not None and ranking.origin.dataset_folder is not None
    threshold = dict(ranking.origin.search.steps[-1].measured)["calibration"]["threshold"]
    toy = Path(ranking.origin.dataset_folder)
    description = read_json(toy / "toy.json", "description of rendered landmarks", dict[str, Any])
    truth = read_json(toy / "gnd_toy.json", "ground truth", dict[str, Any])
    photo_of = {Path(photo["file"]).stem: photo for photo in description["photos"]}
    n_right = n_inliers = 0
    pairs = []  # (angle, whether it is promoted)
    with (
        open_local_features(folder / "queries.local.h5") as queries,
        open_local_features(folder / "database.local.h5") as database,
    ):
        for name, labels in zip(truth["qimlist"], truth["gnd"], strict=True):
            query = landmark_of(photo_of[name], description["config"])
            frame, first = query.frame(), VerifiableQuery.of(_verifiable(queries, name))
            for row in (*labels["easy"], *labels["hard"]):
                photo = landmark_of(photo_of[truth["imlist"][row]], description["config"])
                second = _verifiable(database, truth["imlist"][row])
                verified = verify(first, second, VerifySettings())
                angle = abs(query.view.azimuth_deg - photo.view.azimuth_deg)
                pairs.append((min(angle, 360 - angle), verified.score >= threshold))
                if verified.score >= threshold:
                    places = first.photo.features.positions[verified.inliers[:, 0]]
                    matched = second.features.positions[verified.inliers[:, 1]]
                    n_right += int((errors_px(query, frame, photo, places, matched) < RIGHT_PX).sum())
                    n_inliers += verified.n_inliers
    angles, promoted = np.array([angle for angle, _ in pairs]), np.array([is_promoted for _, is_promoted in pairs])
    recalls = []
    for low, high in pairwise(ANGLES):
        within = (angles >= low) & (angles < high)
        recalls.append(f"{100 * promoted[within].mean():.0f} of {within.sum()}" if within.any() else "")
    difficulty = description["config"]["difficulty"]
    shares = f"{100 * n_right / max(1, n_inliers):.1f} of {n_inliers:,}"
    return f"| {difficulty} | {threshold} | {shares} | " + " | ".join(recalls) + " |"


def _verifiable(file: LocalFeatureFile, name: str) -> VerifiablePhoto:
    return VerifiablePhoto.of(file.read(file.rows[name]), max_side_px=file.info.max_side_px)


def correspondence_table(folders: Sequence[Path]) -> str:
    """The rows of folders that are of rendered landmarks."""
    spans = [f"{low} to {high}" for low, high in pairwise(ANGLES)]
    lines = ["| difficulty | inliers that promote | right inliers, % | " + " | ".join(f"{s}°" for s in spans) + " |"]
    lines.append("| --- " * (3 + len(spans)) + "|")
    for folder in folders:
        toy = searched(folder, None).origin.dataset_folder
        if toy and (Path(toy) / "toy.json").exists():
            lines.append(correspondences(folder))
    return "\n".join(lines)


def main() -> int:
    arguments = parse()
    start_log(0)
    if arguments.guard:
        text = guard_table(arguments.folders)
        print(text)
        if arguments.write:
            replace_between(arguments.write, GUARD_BEGIN, GUARD_END, text)
        return 0
    text = f"{score_table(arguments.folders)}\n\n{correspondence_table(arguments.folders)}"
    print(text)
    if arguments.write:
        replace_between(arguments.write, BEGIN, END, text)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UltronError as error:
        sys.exit(f"error: {error}")
