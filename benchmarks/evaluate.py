"""Evaluation from scores: map_from_scores against a full sort that is then walked through as revisitop does.

    python benchmarks/evaluate.py [--rows 1005000] [--queries 70] [--gnd gnd_roxford5k.pkl] [--lift 1.0] [--json]

Each side runs in a process of its own on the same scores, which are drawn from one seed. It reports its results, its
times and its peak memory. The results are compared first: if any AP or P@k differs by more than 1e-9, no times are
printed and the exit code is 1. The limit is to read the scores once, in turns with map_from_scores.

The side that sorts is timed once, after a warm-up on one query, with both kinds of argsort. The stable kind puts equal
scores in the order of their rows, as map_from_scores does. The default kind is faster and leaves their order open, so
that its results are not compared. CPU seconds add up all cores. On a machine with other work they say more than the
wall clock, in which map_from_scores also gains from every free core.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from limits import reading, seconds_of
from rows import add_save, save

from ultron_cli.datasets.protocols import PROTOCOLS, GroundTruth, QueryTruth, load_ground_truth
from ultron_cli.evaluation.metrics import PRECISION_AT, map_from_scores
from ultron_cli.machine import cpu_name, n_cores, peak_mib
from ultron_cli.measurements import Measurement

TOLERANCE = 1e-9


def rendered_truth(n_queries: int, n_database: int, rng: np.random.Generator) -> GroundTruth:
    """A ground truth that is made up: every query has the labels of an average one of Revisited Oxford, 43 easy, 36
    hard and 19 junk."""
    queries = []
    for _ in range(n_queries):
        easy, hard, junk = np.split(rng.permutation(n_database)[:98], [43, 79])
        queries.append(QueryTruth(bbx=None, easy=easy, hard=hard, junk=junk))
    names = [f"photo{row}" for row in range(n_database)]
    return GroundTruth(
        database_names=names, query_names=[f"query{query}" for query in range(n_queries)], queries=queries
    )


def make_case(options: argparse.Namespace) -> tuple[np.ndarray, GroundTruth]:
    """(Q, N) float32 scores and their ground truth. Scores are spread as cosines are; labelled photos are lifted above
    the others."""
    rng = np.random.default_rng(options.seed)
    truth = (
        load_ground_truth(options.gnd) if options.gnd else rendered_truth(options.queries, min(4993, options.rows), rng)
    )
    scores = np.empty((len(truth.queries), options.rows), np.float32)
    for row, query in zip(scores, truth.queries, strict=True):
        rng.standard_normal(out=row, dtype=np.float32)
        row *= 0.06
        for label, lift in (("easy", 0.35), ("hard", 0.15), ("junk", 0.25)):
            row[getattr(query, label)] += lift * options.lift
    return scores, truth


def walk_ranking(ranking: np.ndarray, positive: np.ndarray, ignored: np.ndarray) -> tuple[float, list[float]]:
    """AP and P@k as revisitop computes them.

    NumPy looks up the labels in the whole ranking, and loops over the positives do the rest.

    ranking: (N,) rows, best first. positive, ignored: rows.
    """
    places = np.arange(len(ranking))
    positive_places, ignored_places = places[np.isin(ranking, positive)], places[np.isin(ranking, ignored)]
    n_above = 0
    for i in range(len(positive_places)):
        while n_above < len(ignored_places) and ignored_places[n_above] < positive_places[i]:
            n_above += 1
        positive_places[i] -= n_above
    ap = 0.0
    for i, place in enumerate(positive_places):
        left = i / place if place else 1.0
        ap += (left + (i + 1) / (place + 1)) / (2 * len(positive))
    cuts = [min(k, max(positive_places) + 1) for k in PRECISION_AT]
    return ap, [float((positive_places < cut).sum() / cut) for cut in cuts]


def walk_all(ranks: np.ndarray, truth: GroundTruth) -> dict[str, list]:
    """protocol -> [AP, P@1, P@5, P@10] per query, or None for a query without positives. ranks: (Q, N) rows."""
    results = {}
    for protocol in PROTOCOLS:
        splits = [truth.split(query, protocol) for query in range(len(truth.queries))]
        walked = [
            walk_ranking(ranking, *split) if len(split[0]) else None
            for ranking, split in zip(ranks, splits, strict=True)
        ]
        results[protocol] = [walk and [walk[0], *walk[1]] for walk in walked]
    return results


def run_ultron(scores: np.ndarray, truth: GroundTruth, repeats: int) -> dict:
    results = map_from_scores(scores, truth)  # also the warm-up
    times_s, cpu_s, reading_s = [], [], []
    read_scores = reading(scores)
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        map_from_scores(scores, truth)
        times_s.append(time.perf_counter() - start)
        cpu_s.append(time.process_time() - start_cpu)
        reading_s.append(seconds_of(read_scores))
    plain = {
        protocol: [
            None if np.isnan(ap) else [float(ap), *precision.tolist()]
            for ap, precision in zip(result.ap, result.precision, strict=True)
        ]
        for protocol, result in results.items()
    }
    return {"what": "map_from_scores", "results": plain, "times_s": times_s, "cpu_s": cpu_s, "reading_s": reading_s}


def run_sorting(scores: np.ndarray, truth: GroundTruth, kind: str) -> dict:
    np.argsort(-scores[:1], axis=1, kind=kind)  # warm-up
    start, start_cpu = time.perf_counter(), time.process_time()
    results = walk_all(np.argsort(-scores, axis=1, kind=kind), truth)
    times_s, cpu_s = [time.perf_counter() - start], [time.process_time() - start_cpu]
    return {"what": f"argsort ({kind}) and loop", "results": results, "times_s": times_s, "cpu_s": cpu_s}


SIDES = {
    "ultron": lambda scores, truth, options: run_ultron(scores, truth, options.repeats),
    "sorting-stable": lambda scores, truth, options: run_sorting(scores, truth, "stable"),
    "sorting-default": lambda scores, truth, options: run_sorting(scores, truth, "quicksort"),
}


def run_side(side: str, options: argparse.Namespace) -> dict:
    """Runs one side in a child process, so that its peak memory is its own."""
    command = [
        sys.executable,
        __file__,
        "--side",
        side,
        "--rows",
        options.rows,
        "--queries",
        options.queries,
        "--seed",
        options.seed,
    ]
    command += ["--lift", options.lift, "--repeats", options.repeats, *(["--gnd", options.gnd] if options.gnd else [])]
    print(f"running {side} ...", file=sys.stderr, flush=True)
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def largest_difference(a: dict, b: dict) -> float:
    """The largest difference of any AP or P@k over all queries and protocols; infinite where only one side has a
    number."""
    worst = 0.0
    for protocol in PROTOCOLS:
        for ours, theirs in zip(a["results"][protocol], b["results"][protocol], strict=True):
            if (ours is None) != (theirs is None):
                return float("inf")
            if ours is not None:
                worst = max(worst, *(abs(x - y) for x, y in zip(ours, theirs, strict=True)))
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows",
        type=int,
        default=1_005_000,
        help="photos scored per query, distractors included (default: %(default)s)",
    )
    parser.add_argument(
        "--queries", type=int, default=70, help="queries, where no --gnd is named (default: %(default)s)"
    )
    parser.add_argument(
        "--gnd", type=Path, help="a published ground truth; without it one with as many labels is made up"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of map_from_scores (default: %(default)s)")
    parser.add_argument(
        "--lift", type=float, default=1.0, help="how far labelled photos stand out; 0: not at all, the slowest case"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    add_save(parser)
    options = parser.parse_args()
    if options.side:
        scores, truth = make_case(options)
        before = peak_mib()
        outcome = SIDES[options.side](scores, truth, options)
        print(
            json.dumps({**outcome, "scores_mib": scores.nbytes / 2**20, "before_mib": before, "peak_mib": peak_mib()})
        )
        return 0

    sides = {side: run_side(side, options) for side in SIDES}
    difference = largest_difference(sides["ultron"], sides["sorting-stable"])
    if not difference <= TOLERANCE:
        print(f"results differ by {difference:.3g}, more than {TOLERANCE}: no times are given", file=sys.stderr)
        return 1
    own_s, own_cpu_s = (statistics.median(sides["ultron"][key]) for key in ("times_s", "cpu_s"))
    rows = []
    for outcome in sides.values():
        median_s, cpu_s = statistics.median(outcome["times_s"]), statistics.median(outcome["cpu_s"])
        row = {"what": outcome["what"], "runs": len(outcome["times_s"]), "median_s": median_s, "cpu_s": cpu_s}
        row |= {"min_s": min(outcome["times_s"]), "max_s": max(outcome["times_s"])}
        row |= {"ratio": median_s / own_s, "cpu_ratio": cpu_s / own_cpu_s}
        row |= {"peak_mib": outcome["peak_mib"], "beside_scores_mib": outcome["peak_mib"] - outcome["before_mib"]}
        rows.append(row)
    versions = {"python": platform.python_version(), "numpy": np.__version__, "system": platform.platform()}
    machine = {"cpu": cpu_name(), "cores": n_cores(), **versions}
    n_queries, gnd = len(sides["ultron"]["results"]["easy"]), str(options.gnd or "made up")
    case = {"queries": n_queries, "rows": options.rows, "dtype": "float32", "gnd": gnd, "lift": options.lift}
    times = {outcome["what"]: outcome["times_s"] for outcome in sides.values()}
    measurement = Measurement.of_rounds(
        times.pop("map_from_scores"),
        unit="s",
        of=f"{n_queries} queries, {options.rows:,} photos, three protocols, ground truth {gnd}",
        others=times,
        limits={"reading the scores once": sides["ultron"]["reading_s"]},
        equality=f"every AP and P@k, to a full stable sort within {TOLERANCE:.0e}",
    )
    save(options.save, __file__, {"mAP from scores": measurement})
    if options.json:
        print(json.dumps({"case": case, "machine": machine, "largest_difference": difference, "rows": rows}, indent=1))
        return 0
    print(", ".join(f"{key} {value}" for key, value in {**case, **machine}.items()))
    print(
        f"three protocols; scores {sides['ultron']['scores_mib']:.0f} MiB; largest difference of any AP or P@k "
        f"{difference:.2g}\n"
    )
    heads = f"{'':32}{'runs':>5}{'median s':>10}{'min':>8}{'max':>8}{'ratio':>8}{'CPU s':>8}{'ratio':>8}"
    print(f"{heads}{'peak MiB':>10}{'beside scores':>15}")
    for row in rows:
        print(
            f"{row['what']:32}{row['runs']:5}{row['median_s']:10.3f}{row['min_s']:8.3f}{row['max_s']:8.3f}{row['ratio']:7.1f}x"
            f"{row['cpu_s']:8.2f}{row['cpu_ratio']:7.1f}x{row['peak_mib']:10.0f}{row['beside_scores_mib']:15.0f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
