"""Re-rankers, whitenings and kinds of index side by side, on made-up descriptors in the shape of ROxford.

    python examples/roxford_table.py [--groundtruth ../shared/groundtruth] [--seed 0] [--write docs/retrieval.md]

The ground truth is the real one: the folder holds gnd_roxford5k.pkl or .json, as revisitop publishes it, with 70
queries and 4,993 database photos. No photo and no model is needed: each photo gets a 512-d descriptor that is drawn
from a seed such that its labels make sense (`Photos` says how). The difficulty is set so that plain search scores about
what published models do (Medium near 80, Hard near 60 % mAP). The table therefore compares methods with each other, not
models, and no line of it is to be compared with a paper.

Everything goes through the functions behind `ultron search`, `evaluate`, `whiten` and `index`. The ms per query are
wall clock of all 70 queries in one call, the median of --runs, with the reading (and whitening) of the database. It
takes minutes, most of them to train opq-ivfpq.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ultron_cli.console import markdown_table, start_log, table
from ultron_cli.datasets.protocols import GroundTruth, load_ground_truth
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import evaluate_ranking
from ultron_cli.evaluation.result import percent
from ultron_cli.files import replace_between
from ultron_cli.retrieval.descriptors import DescriptorInfo, write_descriptors
from ultron_cli.retrieval.index.building import build_index
from ultron_cli.retrieval.index.kinds import INDEX_KINDS
from ultron_cli.retrieval.rerank import parse_rerank
from ultron_cli.retrieval.searching import (
    PLAIN,
    Searcher,
    SearchOptions,
    open_database,
    open_index_of,
    search_files,
    whitening_for,
)
from ultron_cli.retrieval.whitening import open_descriptors, read_whitening, write_whitening
from ultron_cli.retrieval.whitening_learning import learn_whitening, pairs_of_labels

DIM, N_VIEWS = 512, 4
# How far round its landmark a photo was taken, by label: from 0, the front, to 1, the other side.
DEPTHS = {"easy": (0.0, 0.45), "hard": (0.32, 0.7), "junk": (0.5, 1.0)}
QUERY_VIEW, NOISE, NUISANCE, MEAN = 0.45, 0.95, 0.78, 0.5  # lengths; the landmark's part of a photo is 1 long
LOOKALIKES = 0.1  # the share of the photos of other buildings that look like a landmark
N_TRAINING_LANDMARKS, PHOTOS_PER_LANDMARK = 400, 12
INDEX_K = 1000
PROTOCOLS = ("easy", "medium", "hard")
BEGIN, END = "<!-- begin: examples/roxford_table.py -->", "<!-- end: examples/roxford_table.py -->"
# (steps, settings) as --rerank and --rerank-set take them
RERANKINGS: list[tuple[str, list[str]]] = [
    ("", []),
    ("superglobal", []),
    ("aqe", []),
    ("aqe", ["aqe.n=10"]),
    ("dba", []),
    ("diffusion", []),
    ("kreciprocal", []),
    ("aqe,superglobal", ["aqe.n=10"]),
    ("aqe,diffusion", ["aqe.n=10"]),
]
WHITENINGS: list[tuple[str, int]] = [
    ("pca", 512),
    ("pca-whitening", 512),
    ("pca-whitening", 128),
    ("lw", 512),
    ("lw", 128),
]


class Photos:
    """Draws descriptors.

    A landmark is a direction, its front, and N_VIEWS other directions, its sides. A photo at depth t of a side lies on
    the arc from the front to that side, so that photos far apart are joined by those between them. A query also has a
    direction for its framing, which the photos that are easy for it share.

    Three things are added to every photo. Noise is stronger in some photos than in others (log-normal). Nuisance
    (light, season, camera) lies in a few directions, the same for all landmarks, in which photos differ most. One mean
    is the same for all photos. Nuisance and mean are what whitening can learn.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.mean = MEAN * self.directions(1)[0]
        self.nuisance = (
            NUISANCE * np.linalg.qr(self.rng.standard_normal((DIM, 32)))[0].T * np.sqrt(_shares(32))[:, None]
        )

    def directions(self, *shape: int) -> np.ndarray:
        """(..., D) vectors of about unit length."""
        return self.rng.standard_normal((*shape, DIM)) / np.sqrt(DIM)

    def at(self, front: np.ndarray, side: np.ndarray, depth: float) -> np.ndarray:
        """(D,) the place at a depth (0..1) on the arc from a landmark's front to one of its sides."""
        return np.cos(depth * np.pi / 2) * front + np.sin(depth * np.pi / 2) * side

    def descriptors(self, places: np.ndarray) -> np.ndarray:
        """(n, D) float32 unit rows: a photo at each of the (n, D) places."""
        n = len(places)
        noise = NOISE * self.rng.lognormal(-0.05, 0.3, (n, 1)) * self.directions(n)
        rows = places + noise + self.rng.standard_normal((n, len(self.nuisance))) @ self.nuisance + self.mean
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _shares(n: int) -> np.ndarray:
    """(n,) shares that fall and add up to 1."""
    values = 1 / (2.0 + np.arange(n))
    return values / values.sum()


def landmark_of_query(truth: GroundTruth) -> list[int]:
    """The number of the landmark that each query shows.

    Queries show the same landmark when most of their positives are the same. A photo can show two landmarks.
    """
    landmark = list(range(len(truth.queries)))
    positives = [set(query.rows(("easy", "hard")).tolist()) for query in truth.queries]
    for i, rows in enumerate(positives):
        for j in range(i):
            if 2 * len(rows & positives[j]) > len(rows | positives[j]):
                landmark = [landmark[j] if known == landmark[i] else known for known in landmark]
    return landmark


def draw_roxford(truth: GroundTruth, photos: Photos) -> tuple[np.ndarray, np.ndarray]:
    """(Q, D) queries and (N, D) database, float32 unit rows that suit the ground truth."""
    rng, n_queries = photos.rng, len(truth.queries)
    landmark = landmark_of_query(truth)
    fronts, sides, framings = (
        photos.directions(n_queries),
        photos.directions(n_queries, N_VIEWS),
        QUERY_VIEW * photos.directions(n_queries),
    )
    queries = [photos.at(fronts[c], sides[c, 0], rng.uniform(0, 0.15)) + framings[q] for q, c in enumerate(landmark)]
    labels: dict[int, list[tuple[int, str]]] = {}
    for q, query in enumerate(truth.queries):
        for label in DEPTHS:
            for row in getattr(query, label).tolist():
                labels.setdefault(row, []).append((q, label))
    places = np.empty((len(truth.database_names), DIM))
    for row, known in labels.items():
        shown = sorted({landmark[q] for q, _ in known})
        place = np.zeros(DIM)
        for c in shown:
            depth = np.mean([rng.uniform(*DEPTHS[label]) for q, label in known if landmark[q] == c])
            place += photos.at(fronts[c], sides[c, rng.integers(N_VIEWS)], depth)
        easy_for = [q for q, label in known if label == "easy"]
        framing = (
            framings[easy_for].sum(axis=0) / np.sqrt(len(easy_for))
            if easy_for
            else QUERY_VIEW * photos.directions(1)[0]
        )
        places[row] = place / np.sqrt(len(shown)) + framing
    # The rest shows other buildings, in eight photos each. One in ten of these photos looks like one of the landmarks
    # to some degree.
    rest = np.array([row for row in range(len(places)) if row not in labels])
    other = photos.directions(len(rest) // 8 + 1)
    for i, row in enumerate(rest):
        place = photos.at(other[i // 8], photos.directions(1)[0], rng.uniform(0, 0.6))
        if rng.random() < LOOKALIKES:
            place = photos.at(fronts[rng.choice(landmark)], place, rng.uniform(0.6, 0.9))
        places[row] = place + QUERY_VIEW * photos.directions(1)[0]
    return photos.descriptors(np.array(queries)), photos.descriptors(places)


def draw_training(photos: Photos) -> tuple[list[str], np.ndarray]:
    """Names LANDMARK/PHOTO and (n, D) float32 unit rows: photos of landmarks elsewhere, to learn whitening from."""
    names, places = [], []
    for landmark in range(N_TRAINING_LANDMARKS):
        front, sides = photos.directions(1)[0], photos.directions(N_VIEWS)
        for photo in range(PHOTOS_PER_LANDMARK):
            place = photos.at(front, sides[photo % N_VIEWS], photos.rng.uniform(0, 0.9))
            places.append(place + QUERY_VIEW * photos.directions(1)[0])
            names.append(f"{landmark:04d}/{photo:02d}")
    return names, photos.descriptors(np.array(places))


def write(path: Path, names: Sequence[str], rows: np.ndarray, role: str) -> None:
    info = DescriptorInfo(model="made-up", weights_sha256="", dataset="roxford5k", role=role, crop="none", scales=[1.0])
    write_descriptors(path, names, [rows], DIM, info)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all rows of the table are measured with."""

    folder: Path  # holds queries.h5, database.h5 and train.h5
    gnd: Path  # what they are scored against
    runs: int  # timed runs of each row
    device: str

    def line(self, what: str, options: SearchOptions = PLAIN, k: int | None = None) -> list[str]:
        """One row of the table: what it measures, mAP per protocol in percent, ms per query."""
        queries, database = self.folder / "queries.h5", self.folder / "database.h5"
        evaluation = evaluate_ranking(search_files(queries, database, k, self.device, options=options), self.gnd)
        index = open_index_of(options)
        whitening = whitening_for(index, options)
        times_ms = []
        with (
            open_descriptors(queries, whitening) as query_file,
            open_database(database, options, whitening) as database_file,
        ):
            searcher = Searcher(database_file, index, self.device)
            query_descriptors = query_file.read()
            for _ in range(self.runs):
                started_s = time.perf_counter()
                searcher.search(query_descriptors, k, options.steps)
                times_ms.append(1e3 * (time.perf_counter() - started_s) / len(query_descriptors))
        return [
            what,
            *(percent(evaluation.protocols[protocol].mAP, 1) for protocol in PROTOCOLS),
            f"{statistics.median(times_ms):.1f}",
        ]

    def lines(self) -> Iterator[list[str]]:
        """All rows of the table. A row of one cell is the heading of those below it."""
        yield ["**Re-ranking**, exact search"]
        for steps, settings in RERANKINGS:
            options = SearchOptions(steps=parse_rerank(steps or None, settings))
            yield self.line(
                f"`{steps}`" + (f", `{', '.join(settings)}`" if settings else "") if steps else "none", options
            )
        yield [f"**Whitening**, learned from {N_TRAINING_LANDMARKS * PHOTOS_PER_LANDMARK:,} photos of other landmarks"]
        for method, dim in WHITENINGS:
            path = self.folder / f"{method}.h5"
            if not path.exists():
                with open_descriptors(self.folder / "train.h5") as training:
                    pairs = pairs_of_labels(None, training.names, 100_000, 0) if method == "lw" else None
                write_whitening(path, learn_whitening(self.folder / "train.h5", method, pairs=pairs))
            yield self.line(f"`{method}` to {dim}-d", SearchOptions(whitening=read_whitening(path, dim)))
        yield [f"**Index**, {INDEX_K:,} photos per query"]
        for kind in INDEX_KINDS:
            path = self.folder / f"{kind}.index"
            build_index(self.folder / "database.h5", path, kind)
            yield self.line(f"`{kind}`", SearchOptions(index=path), k=INDEX_K)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "groundtruth"
    parser.add_argument(
        "--groundtruth",
        type=Path,
        default=beside,
        help="folder of gnd_roxford5k.pkl or .json (default: ../shared/groundtruth)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each line (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plain", action="store_true", help="only plain search, to see the difficulty")
    parser.add_argument("--write", type=Path, help="put the table into this file, between its markers")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    start_log(-1)
    files = [arguments.groundtruth / f"gnd_roxford5k{suffix}" for suffix in (".pkl", ".json")]
    gnd = next((path for path in files if path.is_file()), None)
    if gnd is None:
        raise UltronError(
            f"{arguments.groundtruth} has no gnd_roxford5k.pkl or .json; name the folder that has one with "
            "--groundtruth"
        )
    truth, photos = load_ground_truth(gnd), Photos(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        queries, database = draw_roxford(truth, photos)
        write(Path(folder) / "queries.h5", truth.query_names, queries, "query")
        write(Path(folder) / "database.h5", truth.database_names, database, "database")
        write(Path(folder) / "train.h5", *draw_training(photos), "database")
        bench = Bench(folder=Path(folder), gnd=gnd, runs=arguments.runs, device=arguments.device)
        rows = []
        for row in [bench.line("none")] if arguments.plain else bench.lines():
            print(*row, file=sys.stderr, flush=True)
            rows.append(row)
    columns = ["", *(f"{protocol.capitalize()}, mAP %" for protocol in PROTOCOLS), "ms per query"]
    full = [[*row, *[""] * (len(columns) - len(row))] for row in rows]
    print(table(columns, [[cell.replace("*", "").replace("`", "") for cell in row] for row in full]))
    if arguments.write and not arguments.plain:
        note = f"{len(truth.queries)} queries, {len(truth.database_names):,} photos, {DIM}-d, seed {arguments.seed}."
        replace_between(arguments.write, BEGIN, END, f"{markdown_table(columns, full)}\n\n{note}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UltronError as error:
        sys.exit(f"error: {error}")
