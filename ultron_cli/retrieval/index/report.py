"""What an index finds and how fast, against exact search, over the setting that trades one for the other."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ultron_cli.console import counted, dump_json, lines, log, table
from ultron_cli.files import write_text
from ultron_cli.retrieval.descriptors import require_same_dim
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.index.building import bytes_per_photo
from ultron_cli.retrieval.index.faiss_index import FaissIndex, load_faiss
from ultron_cli.retrieval.index.kinds import SearchSettings
from ultron_cli.retrieval.whitening import open_descriptors, require_same_whitening

RECALL_AT = (1, 10, 100)
SAMPLED_QUERIES = 100
RUNS = 3


def recall_at(found: np.ndarray, expected: np.ndarray, k: int) -> float:
    """The part, 0 to 1, of the k best rows by exact search that are among the k best found. found, expected: (Q, K)
    int64, K >= k."""
    return float(np.mean([np.isin(expected[query, :k], found[query, :k]).mean() for query in range(len(found))]))


def swept_settings(index: FaissIndex) -> list[SearchSettings]:
    """The index's settings with nprobe or efSearch doubled from low to high, and with and without re-scoring where it
    has one."""
    faiss = load_faiss()
    own, name, values = index.settings, None, [0]
    inner = faiss.downcast_index(index.faiss_index)
    while isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    if isinstance(inner, faiss.IndexIVF):
        name, values = "nprobe", [2**i for i in range(0, 20, 2) if 2**i < inner.nlist] + [inner.nlist]
    elif isinstance(inner, faiss.IndexHNSW):
        name, values = "ef_search", [16, 32, 64, 128, 256, 512]
    swept = [dataclasses.replace(own, **({name: value} if name else {})) for value in values]
    return (
        swept
        if not own.rescore or index.is_exact
        else [*(dataclasses.replace(one, rescore=0) for one in swept), *swept]
    )


def _timed(search: Callable[[], Any]) -> tuple[Any, float]:
    """(result, median seconds) of a warm-up and RUNS runs."""
    found, seconds = search(), []
    for _ in range(RUNS):
        started_s = time.perf_counter()
        search()
        seconds.append(time.perf_counter() - started_s)
    return found, statistics.median(seconds)


def index_report(index: FaissIndex, descriptors: Path, queries: Path | None) -> dict[str, Any]:
    """Measures recall@1, 10, 100 and queries per second of every setting; writes report.json beside the index folder,
    and says where its figure belongs.

    queries: None takes queries.h5 beside the descriptors, or else 100 of them, which find themselves. Exact search is
    timed in the same run. Raises UltronError if the queries do not fit.
    """
    beside = descriptors.with_name("queries.h5")
    source = queries or (beside if beside.is_file() else None)
    with open_descriptors(descriptors, index.whitening) as database:
        if source is None:
            asked = database.take(np.unique(np.linspace(0, database.n - 1, SAMPLED_QUERIES).astype(np.int64)))
        else:
            with open_descriptors(source, index.whitening) as opened:
                require_same_dim(source, opened.dim, descriptors, database.dim)
                require_same_whitening(opened.info.extraction, database.info.extraction, f"{source} and {descriptors}")
                asked = opened.read()
        described = {"dataset": database.info.dataset, "model": database.info.model}
        k = min(max(RECALL_AT), index.n)
        expected, exact_s = _timed(lambda: exact_search(asked, database, k))
    rows = []
    for settings in swept_settings(index):
        found, seconds = _timed(lambda settings=settings: index.search(asked, k, settings))
        recalls = {str(at): recall_at(found.rows, expected.rows, at) for at in RECALL_AT if at <= k}
        rows.append(dataclasses.asdict(settings) | {"recall": recalls, "queries_per_s": len(asked) / seconds})
        log.debug("%s", rows[-1])
    report = described | {
        "index": str(index.path),
        "kind": index.kind,
        "factory": index.factory,
        "n": index.n,
        "dim": index.dim,
        "n_queries": len(asked),
        "k": k,
        "queries": str(source) if source else "sampled from the database",
        "bytes_per_photo": bytes_per_photo(index.faiss_index, index.dim),
        "exact_queries_per_s": len(asked) / exact_s,
        "rows": rows,
    }
    stem = index.path.with_suffix("")
    report["figure"], report["file"] = (
        str(stem.with_name(stem.name + ".report.png")),
        str(stem.with_name(stem.name + ".report.json")),
    )
    write_text(Path(report["file"]), dump_json(report))
    return report


def _knob(report: dict[str, Any]) -> str | None:
    """The setting that was swept."""
    return next((name for name in ("nprobe", "ef_search") if len({row[name] for row in report["rows"]}) > 1), None)


def report_text(report: dict[str, Any]) -> str:
    """The report as a table for people."""
    knob, cuts = _knob(report), list(report["rows"][0]["recall"])
    body = [
        (
            *((str(row[knob]),) if knob else ()),
            f"{row['rescore']} x k" if row["rescore"] else "no",
            *(f"{100 * row['recall'][cut]:.1f}" for cut in cuts),
            f"{row['queries_per_s']:,.0f}",
            f"{row['queries_per_s'] / report['exact_queries_per_s']:.1f}x",
        )
        for row in report["rows"]
    ]
    columns = (*((knob,) if knob else ()), "re-scored", *(f"recall@{cut}" for cut in cuts), "queries/s", "exact")
    queries = counted(report["n_queries"], "query", "queries")
    sampled = "" if report["queries"].endswith(".h5") else " sampled from the database, each finding itself"
    return lines(
        table(columns, body, left=0),
        f"{queries}{sampled}, k {report['k']}; exact search {report['exact_queries_per_s']:,.0f} queries/s; "
        f"{report['bytes_per_photo']:.0f} bytes per photo",
        report["file"],
        report["figure"],
    )
