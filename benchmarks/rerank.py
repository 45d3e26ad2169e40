"""SuperGlobal re-ranking: ultron's against the authors' order of computation, on the same descriptors and threads.

    python benchmarks/rerank.py [--queries 70] [--rows 5000] [--dim 2048] [--m 400] [--k 9] [--runs 5]

Equality is checked first: both sides must give every re-ranked photo the same final score within float32 rounding, and
the same order but for photos whose scores lie that near. Otherwise no times are printed and the exit code is 1. Then
both sides run in turns, and with them the limit: the matrix products that ultron's order cannot do without, of
descriptors that are gathered before.

The authors' side follows MDescAug and RerankwMDA of their program step by step: the Gram matrices of all queries are
sorted twice, every refined descriptor is formed from gathered copies (2.3 GB for the defaults), and both scores are
products with them. --batch forms them for so many queries at a time, which saves memory and changes nothing else. The
descriptors are made up from one seed: landmarks with photos around them, and distractors.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from limits import rest
from rows import add_save, save

from ultron_cli.machine import cpu_name
from ultron_cli.measurements import Measurement
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.rankings import RankedRows
from ultron_cli.retrieval.rerank.state import RerankState, Scored, per_query
from ultron_cli.retrieval.rerank.superglobal import SuperGlobalConfig, superglobal

TOLERANCE = 5e-6  # of final scores near 1, from float32 sums of some 2,000 products in different orders
TARGET = 12.0
PRODUCTS = "its products alone"


def landmarks(rng: np.random.Generator, n: int, dim: int, centres: np.ndarray) -> np.ndarray:
    """(n, D) float32 unit rows, each of them near one of the (C, D) centres, at various distances."""
    spread = (rng.uniform(0.3, 2.0, (n, 1)) / np.sqrt(dim)).astype(np.float32)
    rows = centres[rng.integers(0, len(centres), n)] + spread * rng.standard_normal((n, dim), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def authors_order(
    queries: torch.Tensor, database: torch.Tensor, ranks: torch.Tensor, config: SuperGlobalConfig
) -> tuple[np.ndarray, np.ndarray]:
    """(Q, M) rows and final scores, best first. Every intermediate result is formed, as in the authors' program.

    queries: (Q, D). database: (N, D). ranks: (Q, M or more) rows.
    """
    top_rows, n_taken = ranks[:, : config.m], config.k + 1
    top = database[top_rows]
    gram = torch.einsum("abc,adc->abd", top, top)
    order = torch.argsort(-gram.clone(), dim=-1)[:, :, :n_taken]
    weights = -torch.sort(-gram.clone(), dim=-1)[0][:, :, :n_taken, None]
    weights[:, :, 1:] *= config.beta
    weights[:, :, 0:1] = 1.0
    gathered = torch.stack([photos[which] for photos, which in zip(top, order, strict=True)])  # (Q, M, K+1, D)
    refined = torch.sum(gathered * weights, 2) / torch.sum(weights, 2)
    refined_scores = torch.einsum("ac,adc->ad", queries, refined)
    by_score = torch.argsort(-refined_scores, dim=-1)
    sorted_scores = -torch.sort(-refined_scores, dim=-1)[0]
    best = torch.take_along_dim(refined, by_score[:, :n_taken, None], 1)
    in_order = torch.take_along_dim(refined, by_score[:, :, None], 1)
    expanded = torch.max(best, 1, True)[0]
    expanded_scores = torch.sum(torch.einsum("abc,adc->abd", expanded, in_order), 1)
    final = (sorted_scores + expanded_scores) / 2.0
    last = torch.argsort(-final, dim=-1)
    rows = torch.take_along_dim(torch.take_along_dim(top_rows, by_score, 1), last, 1)
    return rows.numpy(), torch.take_along_dim(final, last, 1).numpy()


def largest_difference(ours: RankedRows, rows: np.ndarray, scores: np.ndarray) -> float:
    """The largest difference of a photo's final scores.

    It is infinite where the two sides re-ranked different photos, or where their orders differ by more than the scores
    allow.
    """
    worst, m = 0.0, rows.shape[1]
    for query in range(len(rows)):
        expected = dict(zip(rows[query].tolist(), scores[query].tolist(), strict=True))
        if set(ours.rows[query, :m].tolist()) != set(expected):
            return float("inf")
        theirs = np.array([expected[row] for row in ours.rows[query, :m].tolist()])
        worst = max(worst, float(np.abs(theirs - ours.scores[query, :m]).max()))
        if (np.diff(theirs) > 2 * TOLERANCE).any():
            return float("inf")
    return worst


def products_alone(state: RerankState, config: SuperGlobalConfig) -> Callable[[], object]:
    """What superglobal_scores multiplies for each query: its M photos with each other, with the query, and with the
    expanded query, for which the query stands in."""
    tops = [state.rows_of(state.first_rows(query, config.m)) for query in range(len(state.queries))]

    def multiply(query: int) -> Scored:
        top, descriptor = tops[query], state.queries[query]
        return top @ top.T, np.stack([top @ descriptor, top @ descriptor])

    return lambda: per_query(len(tops), multiply)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=70, help="(default: %(default)s)")
    parser.add_argument("--rows", type=int, default=5000, help="database rows (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=2048, help="(default: %(default)s)")
    parser.add_argument("--m", type=int, default=400, help="photos re-ranked (default: %(default)s)")
    parser.add_argument("--k", type=int, default=9, help="neighbours (default: %(default)s)")
    parser.add_argument(
        "--batch", type=int, default=70, help="queries at a time on the authors' side (default: %(default)s)"
    )
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each side (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    add_save(parser)
    options = parser.parse_args()

    rng = np.random.default_rng(options.seed)
    centres = landmarks(rng, 200, options.dim, np.zeros((1, options.dim), np.float32))
    database, queries = (landmarks(rng, n, options.dim, centres) for n in (options.rows, options.queries))
    config = SuperGlobalConfig(m=min(options.m, options.rows), k=options.k)
    stage = RerankState(ranking=exact_search(queries, database, options.rows), queries=queries, database=database)
    tensors = [torch.from_numpy(array) for array in (queries, database, stage.ranking.rows)]

    def theirs() -> tuple[np.ndarray, np.ndarray]:
        parts = [
            authors_order(tensors[0][i : i + options.batch], tensors[1], tensors[2][i : i + options.batch], config)
            for i in range(0, options.queries, options.batch)
        ]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    ours, (rows, scores) = superglobal(stage, config).ranking, theirs()  # also the warm-up
    worst = largest_difference(ours, rows, scores)
    if worst > TOLERANCE:
        print(f"final scores differ by {worst:.3g}, more than rounding explains: no times are given", file=sys.stderr)
        return 1
    sides: dict[str, Callable[[], object]] = {
        "ultron superglobal": lambda: superglobal(stage, config),
        "authors' order": theirs,
        PRODUCTS: products_alone(stage, config),
    }
    n_moved = int((ours.rows[:, : config.m] != rows).sum())
    times_s: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(max(1, options.runs)):
        for name, side in sides.items():
            rest()
            started_s = time.perf_counter()
            side()
            times_s[name].append(time.perf_counter() - started_s)
    versions = f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(
        f"{options.queries} queries, {options.rows:,} x {options.dim} float32, M {config.m}, K {config.k}, "
        f"beta {config.beta}, seed {options.seed}"
    )
    print(f"{cpu_name()}, torch threads {torch.get_num_threads()}; {versions}{load}")
    print(
        f"equal: final scores within {worst:.2g}; {n_moved} of {rows.size:,} places differ, between scores that near\n"
    )
    print(f"{'':22}{'runs':>5}{'median ms':>11}{'min':>10}{'max':>10}{'ms/query':>10}{'ratio':>8}")
    own_s = statistics.median(times_s["ultron superglobal"])
    for name, seconds in times_s.items():
        median_s = statistics.median(seconds)
        spread = f"{median_s * 1e3:11.1f}{min(seconds) * 1e3:10.1f}{max(seconds) * 1e3:10.1f}"
        spread += f"{median_s * 1e3 / options.queries:10.2f}"
        print(f"{name:22}{len(seconds):5}{spread}{median_s / own_s:7.2f}x")
    ratio = statistics.median(times_s["authors' order"]) / own_s
    ms = {name: [1e3 * s for s in seconds] for name, seconds in times_s.items()}
    measurement = Measurement.of_rounds(
        ms.pop("ultron superglobal"),
        unit="ms",
        of=f"{options.queries} queries, {options.rows:,} x {options.dim} float32, M {config.m}, K {config.k}",
        limits={PRODUCTS: ms.pop(PRODUCTS)},
        others=ms,
        equality=f"final scores, to the authors' order within {TOLERANCE:.0e}",
    )
    save(options.save, __file__, {"SuperGlobal": measurement})
    print(f"\ntarget: at least {TARGET:.0f}x; {'reached' if ratio >= TARGET else 'missed'} with {ratio:.1f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
