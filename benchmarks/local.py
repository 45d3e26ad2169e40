"""Geometric verification: a pair of photos beside OpenCV and pycolmap, and a whole search that re-ranks by it.

    python benchmarks/local.py [--folder EXTRACTION] [--landmarks 20] [--side 640] [--pairs 200] [--runs 5]

EXTRACTION is what `ultron extract --local rootsift` wrote; without it landmarks are rendered, and their descriptors
drawn. The search verifies the first 100 of every ranking and 1,000 chance pairs, without a store of known
ones. Pairs are the first of its rankings, and as many drawn ones. Equality is checked first: the matches of every pair
must be those of OpenCV's BFMatcher, of whole squared distances. Otherwise no times are printed and the exit code is 1.

Sides of a pair, of the same features, and at 4 px, ratio 0.85 and one thread:

- ultron: `verify`, mutual matches that are turned alike, MAGSAC++ and the checks of the homography
- OpenCV: BFMatcher, the ratio of its two nearest, MAGSAC++
- pycolmap: `match_image_pairs` with its defaults, which match by Faiss and estimate homography and fundamental matrix,
  out of its database and into it

Times of pairs are CPU times, in turns: they vary less with a machine's other work. The limit of a pair is the product
of its descriptors in whole numbers, which torch computes of signed bytes. The limits of the search are that of its
pairs, on all cores, and a process that imports what the command imports.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from commands import LIBRARIES, Run, imports_alone, modules_of, row_of, timed
from PIL import Image
from rows import add_save, save
from threadpoolctl import threadpool_limits

from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.datasets.toy.dataset import ToyConfig, make_toy
from ultron_cli.local import choose_detector
from ultron_cli.local.detectors import strongest
from ultron_cli.local.features import LocalFeatures
from ultron_cli.local.matching import mutual_matches, prepare
from ultron_cli.local.verification import VerifiablePhoto, VerifiableQuery, VerifySettings, verify
from ultron_cli.machine import cpu_name, n_cores, n_threads
from ultron_cli.measurements import Measurement
from ultron_cli.retrieval.descriptors import DescriptorInfo, write_descriptors
from ultron_cli.retrieval.local_features.files import (
    LocalFeatureInfo,
    local_path,
    open_local_features,
    write_local_features,
)
from ultron_cli.retrieval.origin import ExtractionRecord
from ultron_cli.retrieval.rankings import read_ranks

FILES = ("queries.h5", "database.h5", "queries.local.h5", "database.local.h5")
STORE = "database.local.verified.db"
SEARCH = "search --queries queries.h5 --database database.h5 --rerank geometry --out ranks.h5"
SETTINGS = VerifySettings()
SIDE_PX, POINTS = 640, 800  # as `ultron extract` detects
DIM = 64  # of drawn descriptors
BELIEVED = 15  # inliers from which on pycolmap believes a pair
PRODUCT = "product of its bytes alone"
TARGET_MS, TARGET_S = 2.0, 15.0


@dataclass(frozen=True, eq=False)
class Photos:
    """Features of the photos of some pairs."""

    queries: dict[int, LocalFeatures]
    database: dict[int, LocalFeatures]
    pairs: list[tuple[int, int]]  # query, database photo; those of a query together

    @property
    def mean_features(self) -> float:
        """Of a photo of a pair."""
        return statistics.mean(len(of[row]) for pair in self.pairs for of, row in zip(self.both, pair, strict=True))

    @property
    def both(self) -> tuple[dict[int, LocalFeatures], dict[int, LocalFeatures]]:
        """Queries and database."""
        return self.queries, self.database


def rendered(folder: Path, options: argparse.Namespace) -> None:
    """Rendered landmarks with local features, and drawn descriptors: as good as any for the work of verification."""
    config = ToyConfig(
        n_train_landmarks=0,
        n_eval_landmarks=options.landmarks,
        n_distractors=5 * options.landmarks,
        max_side_px=options.side,
        difficulty=1,
    )
    make_toy(folder / "toy", config, workers=2 if options.landmarks > 1 else 0)
    truth = load_ground_truth(folder / "toy" / "gnd_toy.json")
    detector = choose_detector("rootsift").make()
    draws = np.random.default_rng(options.seed)
    for role, names in (("query", truth.query_names), ("database", truth.database_names)):
        photos = [Image.open(folder / "toy" / "jpg" / f"{name}.jpg").convert("RGB") for name in names]
        features = [strongest(detector.detect(np.asarray(photo), POINTS), POINTS) for photo in photos]
        rows = draws.standard_normal((len(names), DIM), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        path = folder / FILES[role == "database"]
        origin = {"dataset": "toy", "role": role, "crop": "none"}
        described = DescriptorInfo(model="none", weights_sha256="", scales=[1.0], **origin)
        write_descriptors(path, names, [rows], DIM, described)
        stored = {"settings": {}, "comparison": "l2", "max_keypoints": POINTS, "max_side_px": SIDE_PX}
        info = LocalFeatureInfo(detector="rootsift", extraction=ExtractionRecord(stored=stored), **stored, **origin)
        counts = [len(of_photo) for of_photo in features]
        write_local_features(local_path(path), names, counts, features, (128, np.dtype(np.uint8)), info)


def searched(folder: Path, modules: str) -> tuple[Run, float]:
    """A search by a process of its own that knows no verified pair, as `timed` gives it; seconds of one that only
    imports modules."""
    (folder / STORE).unlink(missing_ok=True)
    return timed(SEARCH.split(), folder), imports_alone(modules, folder)


def photos_of(folder: Path, n: int, seed: int) -> Photos:
    """n pairs: half of them the first of the re-ranked search, the others drawn."""
    ranking, draws = read_ranks(folder / "ranks.h5"), np.random.default_rng(seed)
    n_queries = len(ranking.rows)
    n_first = -(-n // (2 * n_queries))
    pairs = []
    for query, rows in enumerate(ranking.rows):
        others = draws.permutation(rows[n_first:])[:n_first]
        pairs += [(query, int(row)) for row in (*rows[:n_first], *others)]
    pairs = pairs[:n]
    with open_local_features(folder / FILES[2]) as queries, open_local_features(folder / FILES[3]) as database:
        of_queries = {query: queries.read(queries.rows[ranking.query_names[query]]) for query, _ in pairs}
        of_photos = {row: database.read(database.rows[ranking.database_names[row]]) for _, row in pairs}
    return Photos(of_queries, of_photos, pairs)


def ready(features: LocalFeatures) -> VerifiablePhoto:
    return VerifiablePhoto.of(features, max_side_px=SIDE_PX)


def ours(photos: Photos) -> list[int]:
    """Inliers of each pair."""
    queries = {query: VerifiableQuery.of(ready(features)) for query, features in photos.queries.items()}
    return [verify(queries[query], ready(photos.database[row]), SETTINGS).n_inliers for query, row in photos.pairs]


def products_alone(photos: Photos) -> Callable[[], list[int]]:
    """What multiplies the descriptors of each pair in whole numbers: bytes less 128, as signed ones."""
    queries, database = (
        {row: torch.from_numpy((features.descriptors ^ 128).view(np.int8)) for row, features in of.items()}
        for of in photos.both
    )

    def multiply() -> list[int]:
        for query, row in photos.pairs:
            torch.ops.aten._int_mm(queries[query], database[row].T)
        return []

    return multiply


def at_detection(features: LocalFeatures) -> np.ndarray:
    """(n, 2) positions in the pixels that features were detected in."""
    return features.positions * min(1.0, SIDE_PX / max(features.size))


def of_opencv(photos: Photos) -> list[int]:
    """Inliers of each pair."""
    matcher, counts = cv2.BFMatcher(cv2.NORM_L2), []
    queries, database = ({row: at_detection(features) for row, features in of.items()} for of in photos.both)
    vectors = [{row: features.descriptors.astype(np.float32) for row, features in of.items()} for of in photos.both]
    for query, row in photos.pairs:
        two = matcher.knnMatch(vectors[0][query], vectors[1][row], k=2)
        good = [match[0] for match in two if len(match) == 2 and match[0].distance < SETTINGS.ratio * match[1].distance]
        mask = None
        if len(good) >= SETTINGS.min_matches:
            places = (
                np.array([queries[query][match.queryIdx] for match in good]),
                np.array([database[row][match.trainIdx] for match in good]),
            )
            _, mask = cv2.findHomography(
                *places, cv2.USAC_MAGSAC, SETTINGS.threshold_px, maxIters=1000, confidence=0.999
            )
        counts.append(0 if mask is None else int(mask.sum()))
    return counts


class OfPycolmap:
    """pycolmap's matching and verification of pairs, out of its database and into it."""

    def __init__(self, photos: Photos, folder: Path) -> None:
        import pycolmap

        pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR
        self._pycolmap, self._pairs, self._folder = pycolmap, photos.pairs, folder
        self._ids: list[dict[int, int]] = [{}, {}]
        with pycolmap.Database.open(folder / "empty.db") as database:
            for side, of in enumerate(photos.both):
                for row, features in of.items():
                    self._ids[side][row] = self._write(database, f"{'qd'[side]}{row}", features)
        lines = [f"q{query} d{row}\n" for query, row in self._pairs]
        (folder / "pairs.txt").write_text("".join(lines), encoding="utf-8")

    def _write(self, database: "object", name: str, features: LocalFeatures) -> int:
        pycolmap = self._pycolmap
        width, height = (side * min(1.0, SIDE_PX / max(features.size)) for side in features.size)
        camera = pycolmap.Camera(
            model="SIMPLE_PINHOLE",
            width=round(width),
            height=round(height),
            params=[1.2 * max(width, height), width / 2, height / 2],
        )
        image = database.write_image(pycolmap.Image(name=name, camera_id=database.write_camera(camera)))
        database.write_keypoints(image, at_detection(features))
        descriptors = pycolmap.FeatureDescriptors(type=pycolmap.FeatureExtractorType.SIFT, data=features.descriptors)
        database.write_descriptors(image, descriptors)
        return image

    def prepare(self) -> None:
        """A database without matches."""
        shutil.copyfile(self._folder / "empty.db", self._folder / "matched.db")

    def match(self) -> list[int]:
        """Writes matches and inliers into the database, where `inliers` reads them."""
        matching, pairing = self._pycolmap.FeatureMatchingOptions(), self._pycolmap.ImportedPairingOptions()
        matching.use_gpu, matching.num_threads, matching.sift.max_ratio = False, 1, SETTINGS.ratio
        pairing.match_list_path = self._folder / "pairs.txt"
        verification = self._pycolmap.TwoViewGeometryOptions()
        verification.ransac.max_error, verification.ransac.random_seed = SETTINGS.threshold_px, 0
        self._pycolmap.match_image_pairs(self._folder / "matched.db", matching, pairing, verification)
        return []

    def inliers(self) -> list[int]:
        """Of each pair, as the database has them."""
        with self._pycolmap.Database.open(self._folder / "matched.db") as database:
            ids = [(self._ids[0][query], self._ids[1][row]) for query, row in self._pairs]
            return [len(database.read_two_view_geometry(*pair).inlier_matches) for pair in ids]


def literal_matches(query: np.ndarray, photo: np.ndarray) -> list[tuple[int, int]]:
    """Mutual matches with the ratio of whole squared distances, of OpenCV's nearest."""
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    back = {match.queryIdx: match.trainIdx for match in matcher.match(photo, query)}
    matches = []
    for two in matcher.knnMatch(query, photo, k=2):
        if len(two) == 2 and back[two[0].trainIdx] == two[0].queryIdx:
            square, next_square = (np.float32(round(match.distance**2)) for match in two)
            if square < np.float32(SETTINGS.ratio**2) * next_square:
                matches.append((two[0].queryIdx, two[0].trainIdx))
    return matches


def n_unequal(photos: Photos) -> int:
    """Pairs whose matches are not those of OpenCV's nearest."""
    queries, database = ({row: ready(features).comparable for row, features in of.items()} for of in photos.both)
    return sum(
        mutual_matches(queries[query], database[row], SETTINGS.ratio).tolist()
        != [list(match) for match in literal_matches(queries[query].rows, database[row].rows)]
        for query, row in photos.pairs
    )


def agreement(inliers: Sequence[int], others: Sequence[int]) -> str:
    """How often two sides believe the same of a pair."""
    believed, by_other = np.array(inliers) >= BELIEVED, np.array(others) >= BELIEVED
    both = believed & by_other
    text = (
        f"{BELIEVED} inliers or more: both {both.sum()} pairs, ultron alone {(believed & ~by_other).sum()}, the other "
        f"alone {(by_other & ~believed).sum()} of {len(both)}"
    )
    if both.any():
        text += f"; ultron has {np.median(np.array(inliers)[both] / np.array(others)[both]):.2f} times as many inliers"
    return text


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="an extraction with local features (default: one is made)")
    parser.add_argument("--landmarks", type=int, default=20, help="rendered, of 18 photos each (default: %(default)s)")
    parser.add_argument("--side", type=int, default=SIDE_PX, help="of rendered photos, px (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each side (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    add_save(parser)
    return parser.parse_args()


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.folder is None:
            rendered(folder, options)
        else:
            for file in FILES:
                shutil.copyfile(options.folder / file, folder / file)
        return measure(folder, options)


def measure(folder: Path, options: argparse.Namespace) -> int:
    """Checks and times a copy of an extraction."""
    modules = modules_of(SEARCH.split(), folder)  # also compiles and fills the caches
    searches, import_s = zip(*(searched(folder, modules) for _ in range(options.runs)), strict=True)
    photos = photos_of(folder, options.pairs, options.seed)
    prepare(sys.maxsize)
    n_search_threads = n_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        if n := n_unequal(photos):
            print(
                f"matches of {n} of {len(photos.pairs)} pairs differ from OpenCV's: no times are given", file=sys.stderr
            )
            return 1
        sides: dict[str, Callable[[], list[int]]] = {
            "ultron": lambda: ours(photos),
            "OpenCV": lambda: of_opencv(photos),
            PRODUCT: products_alone(photos),
        }
        try:
            pycolmap = OfPycolmap(photos, folder)
            sides["pycolmap"] = pycolmap.match
        except ImportError:
            pycolmap = None
        ms: dict[str, list[float]] = {side: [] for side in sides}
        inliers: dict[str, list[int]] = {}
        for _ in range(options.runs):
            if pycolmap is not None:
                pycolmap.prepare()
            for side, work in sides.items():
                started_s = time.process_time()
                inliers[side] = work()
                ms[side].append(1e3 * (time.process_time() - started_s) / len(photos.pairs))
        if pycolmap is not None:
            inliers["pycolmap"] = pycolmap.inliers()
        of = f"{len(photos.pairs)} pairs, {photos.mean_features:.0f} features a photo"
        print(f"{of}; {cpu_name()}, {n_cores()} cores, load average {os.getloadavg()[0]:.1f}")
        print("equal: the matches of every pair, to OpenCV's BFMatcher\n")
        print(f"{'CPU ms of a pair':28}{'runs':>5}{'median':>9}{'min':>9}{'max':>9}{'ratio':>8}")
        pair_ms = statistics.median(ms["ultron"])
        for side, rounds in ms.items():
            median = statistics.median(rounds)
            spread = f"{median:9.3f}{min(rounds):9.3f}{max(rounds):9.3f}{median / pair_ms:7.2f}x"
            print(f"{side:28}{len(rounds):5}{spread}")
        print()
        for side in [side for side in sides if side not in ("ultron", PRODUCT)]:
            print(f"beside {side}: {agreement(inliers['ultron'], inliers[side])}")
    product_ms = ms.pop(PRODUCT)
    ranking = read_ranks(folder / "ranks.h5")
    assert ranking.origin.search is not None, "it was searched"
    n_pairs = sum(int(str(step.measured["n_pairs"])) for step in ranking.origin.search.steps)
    limits = {
        "products of its pairs alone": [1e-3 * n_pairs * pair / n_search_threads for pair in product_ms],
        LIBRARIES: import_s,
    }
    of_search = f"{len(ranking.rows)} queries, M 100, 1,000 chance pairs"
    search = row_of(searches, of_search, "the matches of pairs, to BFMatcher's", limits)
    print(f"\nsearch --rerank geometry of {len(ranking.rows)} queries: {search!s} s, {search.note}")
    print("".join(f"{name} {side} s\n" for name, side in search.limits.items()))
    rows = {
        "verified pair": Measurement.of_rounds(
            ms.pop("ultron"),
            unit="ms",
            of=f"{of}, CPU",
            others=ms,
            limits={PRODUCT: product_ms},
            equality="matches, to BFMatcher's",
        ),
        "search --rerank geometry": search,
    }
    save(options.save, __file__, rows)
    is_reached = pair_ms < TARGET_MS and (search.value or 0) < TARGET_S
    print(f"target: under {TARGET_MS:.0f} ms a pair and {TARGET_S:.0f} s; {'reached' if is_reached else 'missed'}")
    return 0 if is_reached else 1


if __name__ == "__main__":
    sys.exit(main())
