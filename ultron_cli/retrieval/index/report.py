"""What an index finds and how fast, against exact search, over the setting that trades one for the other."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypedDict, TypeVar

import numpy as np

from ultron_cli.console import counted, dump_json, lines, log, table
from ultron_cli.files import write_text
from ultron_cli.retrieval.descriptors import require_same_dim
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.index.building import behind_transforms, bytes_per_photo
from ultron_cli.retrieval.index.faiss_index import FaissIndex, load_faiss
from ultron_cli.retrieval.index.kinds import SearchSettings
from ultron_cli.retrieval.whitening import open_descriptors, require_same_whitening

T = TypeVar("T")

RECALL_AT = (1, 10, 100)
SAMPLED_QUERIES = 100
RUNS = 3


class ReportRow(TypedDict):
    """One setting, measured."""

    nprobe: int
    ef_search: int
    rescore: int
    recall: dict[str, float]  # by cut, as text: 0 to 1
    queries_per_s: float


class IndexReport(TypedDict):
    """What the report's JSON file holds."""

    dataset: str
    model: str
    index: str  # folder
    kind: str
    factory: str
    n: int
    dim: int
    n_queries: int
    k: int
    queries: str  # file, or how they were sampled
    bytes_per_photo: float
    exact_queries_per_s: float
    rows: list[ReportRow]
    figure: str  # file
    file: str  # of the report itself


def recall_at(index_rows: np.ndarray, exact_rows: np.ndarray, k: int) -> float:
    """The part, 0 to 1, of the k best rows by exact search that are among the k best of an index. Both: (Q, K) int64,
    K >= k."""
    shares = [np.isin(exact_rows[query, :k], index_rows[query, :k]).mean() for query in range(len(index_rows))]
    return float(np.mean(shares))


def swept_settings(index: FaissIndex) -> list[SearchSettings]:
    """The index's settings with nprobe or efSearch doubled from low to high, and with and without re-scoring where it
    has one."""
    faiss = load_faiss()
    inner = behind_transforms(index.faiss_index)
    swept = [index.settings]
    if isinstance(inner, faiss.IndexIVF):
        n_probed = [2**i for i in range(0, 20, 2) if 2**i < inner.nlist] + [inner.nlist]
        swept = [dataclasses.replace(index.settings, nprobe=n) for n in n_probed]
    elif isinstance(inner, faiss.IndexHNSW):
        swept = [dataclasses.replace(index.settings, ef_search=n) for n in (16, 32, 64, 128, 256, 512)]
    if not index.settings.rescore or index.is_exact:
        return swept
    return [*(dataclasses.replace(settings, rescore=0) for settings in swept), *swept]


def _timed(search: Callable[[], T]) -> tuple[T, float]:
    """(result, median seconds) of a warm-up and RUNS runs."""
    result = search()
    seconds = []
    for _ in range(RUNS):
        started_s = time.perf_counter()
        search()
        seconds.append(time.perf_counter() - started_s)
    return result, statistics.median(seconds)


def index_report(index: FaissIndex, descriptors: Path, queries: Path | None) -> IndexReport:
    """Measures recall@1, 10, 100 and queries per second of every setting; writes report.json beside the index folder,
    and says where its figure belongs.

    queries: None takes queries.h5 beside the descriptors, or else 100 of them, which find themselves. Exact search is
    timed in the same run. Raises UltronError if the queries do not fit.
    """
    beside = descriptors.with_name("queries.h5")
    source = queries or (beside if beside.is_file() else None)
    with open_descriptors(descriptors, index.whitening) as database:
        if source is None:
            sampled = np.unique(np.linspace(0, database.n - 1, SAMPLED_QUERIES).astype(np.int64))
            query_descriptors = database.take(sampled)
        else:
            with open_descriptors(source, index.whitening) as query_file:
                require_same_dim(source, query_file.dim, descriptors, database.dim)
                where = f"{source} and {descriptors}"
                require_same_whitening(query_file.info.extraction, database.info.extraction, where)
                query_descriptors = query_file.read()
        info = database.info
        k = min(max(RECALL_AT), index.n)
        expected, exact_s = _timed(lambda: exact_search(query_descriptors, database, k))
    rows: list[ReportRow] = []
    for settings in swept_settings(index):
        ranked, seconds = _timed(lambda settings=settings: index.search(query_descriptors, k, settings))
        rows.append(
            {
                "nprobe": settings.nprobe,
                "ef_search": settings.ef_search,
                "rescore": settings.rescore,
                "recall": {str(cut): recall_at(ranked.rows, expected.rows, cut) for cut in RECALL_AT if cut <= k},
                "queries_per_s": len(query_descriptors) / seconds,
            }
        )
        log.debug("%s", rows[-1])
    stem = index.path.with_suffix("")
    report: IndexReport = {
        "dataset": info.dataset,
        "model": info.model,
        "index": str(index.path),
        "kind": index.kind,
        "factory": index.factory,
        "n": index.n,
        "dim": index.dim,
        "n_queries": len(query_descriptors),
        "k": k,
        "queries": str(source) if source else "sampled from the database",
        "bytes_per_photo": bytes_per_photo(index.faiss_index, index.dim),
        "exact_queries_per_s": len(query_descriptors) / exact_s,
        "rows": rows,
        "figure": str(stem.with_name(stem.name + ".report.png")),
        "file": str(stem.with_name(stem.name + ".report.json")),
    }
    write_text(Path(report["file"]), dump_json(report))
    return report


def swept_setting(report: IndexReport) -> Literal["nprobe", "ef_search"] | None:
    """The setting that differs between the rows, beside re-scoring."""
    if len({row["nprobe"] for row in report["rows"]}) > 1:
        return "nprobe"
    return "ef_search" if len({row["ef_search"] for row in report["rows"]}) > 1 else None


def report_text(report: IndexReport) -> str:
    """The report as a table for people."""
    knob = swept_setting(report)
    cuts = list(report["rows"][0]["recall"])
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
