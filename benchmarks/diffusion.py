"""Times diffusion: the building of its graph, and the queries once the graph is there.

    python benchmarks/diffusion.py [--queries 70] [--rows 5000] [--dim 2048] [--runs 5] [--seed 0]

Equality is checked first: conjugate gradients that run to the end must give the solution of a direct solver (scipy's
sparse LU) on random right sides. Otherwise no times are printed and the exit code is 1. The descriptors are made up
from one seed, as in benchmarks/rerank.py.

Limits, in turns with ours: of the graph, the product of all nodes with each other, of which BLAS computes one half; of
the queries, as many products of the graph with a vector per query as their conjugate gradients make.
"""

import argparse
import dataclasses
import os
import platform
import statistics
import sys
import time
from functools import partial
from typing import cast

import numpy as np
import scipy
import torch
from limits import product, seconds_of
from rerank import landmarks
from rows import add_save, save
from scipy import sparse
from scipy.sparse.linalg import splu

from ultron_cli.machine import cpu_name
from ultron_cli.measurements import Measurement
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.rerank.diffusion import (
    DiffusionConfig,
    conjugate_gradients,
    graph_nodes,
    neighbour_graph,
    normalised_graph,
    spread_over,
)
from ultron_cli.retrieval.rerank.state import RerankState

TOLERANCE, TARGET_S, N_COMPARED = 1e-9, 2.0, 5


def difference_from_direct(graph: sparse.csr_array, config: DiffusionConfig, seed: int) -> float:
    """The largest difference between conjugate gradients and the direct solution, over the direct one's largest value.

    graph: (n, n) normalised. The right sides are (n, N_COMPARED), random, a hundredth of them not zero.
    """
    n = graph.shape[0]
    rng = np.random.default_rng(seed)
    start = np.where(rng.random((n, N_COMPARED)) < 0.01, rng.random((n, N_COMPARED)), 0.0)
    direct = splu(sparse.csc_matrix(sparse.eye_array(n) - config.alpha * graph)).solve(start)
    to_the_end = dataclasses.replace(config, iterations=10_000, tolerance=1e-14)
    return float(np.abs(conjugate_gradients(graph, start, to_the_end) - direct).max() / np.abs(direct).max())


class CountingGraph:
    """A graph that counts its products."""

    def __init__(self, graph: sparse.csr_array) -> None:
        self.graph = graph
        self.n_products = 0

    def __matmul__(self, vectors: np.ndarray) -> np.ndarray:
        self.n_products += 1
        return self.graph @ vectors


def sparse_products(graph: sparse.csr_array, vectors: np.ndarray, n: int) -> None:
    """n products of (nodes, nodes) and (nodes, Q)."""
    for _ in range(n):
        graph @ vectors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("queries", 70), ("rows", 5000), ("dim", 2048), ("runs", 5), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help="(default: %(default)s)")
    add_save(parser)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    centres = landmarks(rng, 200, options.dim, np.zeros((1, options.dim), np.float32))
    database, queries = (landmarks(rng, n, options.dim, centres) for n in (options.rows, options.queries))
    config = DiffusionConfig()
    stage = RerankState(ranking=exact_search(queries, database, options.rows), queries=queries, database=database)
    nodes = graph_nodes(stage.ranking.rows, config.nodes)

    graph = normalised_graph(neighbour_graph(stage, nodes, config))
    counting = CountingGraph(graph)
    spread_over(stage, nodes, cast(sparse.csr_array, counting), config)
    vectors = rng.random((len(nodes), options.queries))
    node_rows = stage.rows_of(nodes)
    node_products = product(node_rows, node_rows)

    graph_s, queries_s, product_s, sparse_s = [], [], [], []
    for _ in range(options.runs + 1):  # the first one warms up and is not counted
        started_s = time.perf_counter()
        graph = normalised_graph(neighbour_graph(stage, nodes, config))
        built_s = time.perf_counter()
        spread_over(stage, nodes, graph, config)
        graph_s.append(built_s - started_s)
        queries_s.append(time.perf_counter() - built_s)
        product_s.append(seconds_of(node_products))
        sparse_s.append(seconds_of(partial(sparse_products, graph, vectors, counting.n_products)))
    worst = difference_from_direct(graph, config, options.seed)
    if worst > TOLERANCE:
        print(
            f"the solution differs from the direct one by {worst:.3g}, more than rounding explains: no times are given",
            file=sys.stderr,
        )
        return 1
    print(f"{options.queries} queries, {options.rows:,} x {options.dim} float32, {graph.nnz // 2:,} edges, {config}")
    versions = (
        f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, scipy "
        f"{scipy.__version__}"
    )
    print(f"{cpu_name()}, torch threads {torch.get_num_threads()}; {versions}, load average {os.getloadavg()[0]:.1f}")
    print(f"equal: conjugate gradients to the end and the direct solution within {worst:.2g}\n")
    limits = {
        "diffusion, graph": {"product of all nodes alone": product_s[1:]},
        "diffusion, queries": {"sparse products alone": sparse_s[1:]},
    }
    printed = {"graph": graph_s[1:], f"{options.queries} queries": queries_s[1:]}
    for side in limits.values():
        printed |= side
    for name, seconds in printed.items():
        print(
            f"{name:26} median {statistics.median(seconds) * 1e3:8.1f} ms, {min(seconds) * 1e3:.1f} to "
            f"{max(seconds) * 1e3:.1f} over {len(seconds)} runs"
        )
    measurements = {
        name: Measurement.of_rounds(
            seconds[1:],
            unit="s",
            of=f"{options.queries} queries, {options.rows:,} x {options.dim} float32, {graph.nnz // 2:,} edges",
            limits=limits[name],
            equality=f"conjugate gradients to the end, to sparse LU within {TOLERANCE:.0e}",
        )
        for name, seconds in (("diffusion, graph", graph_s), ("diffusion, queries", queries_s))
    }
    save(options.save, __file__, measurements)
    median_s = statistics.median(queries_s[1:])
    print(
        f"\ntarget: queries under {TARGET_S:.0f} s; {'reached' if median_s < TARGET_S else 'missed'} with "
        f"{median_s:.2f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
