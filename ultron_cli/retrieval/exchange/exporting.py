"""Writes a ranking for other tools: of names as a ground truth has them, or of the files that a reconstruction opens.

Tools order photos by their scores, and equal scores each in its own way, so that a ranking whose scores do not fall
(photos of equal score, re-ranked photos in front) would be another one there. Unless they are wanted as they are, such
scores are lowered, each by the least that float32 can tell.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from ultron_cli.console import counted, log, named
from ultron_cli.datasets.folder import open_recorded
from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file
from ultron_cli.retrieval.exchange import RANK_FORMATS
from ultron_cli.retrieval.exchange.run import NamedRanking, RankFormat, falling, n_not_falling, score_texts
from ultron_cli.retrieval.exchange.trec import judgements_text
from ultron_cli.retrieval.overlap import own_rows_of
from ultron_cli.retrieval.rankings import PADDING, Ranking
from ultron_cli.schema.values import shown

Scores = Literal["falling", "stored"]


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """How a ranking is written."""

    format: str
    k: int | None = None  # photos per query; None: all
    is_self: bool = False  # whether it is of a collection against itself
    scores: Scores = "falling"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    n_queries: int
    n_lines: int  # of a query and a photo each
    n_lowered: int = 0  # scores that did not fall

    def to_json(self) -> dict[str, object]:
        """As a command prints it."""
        return {"queries": self.n_queries, "photos": self.n_lines, "scores_not_falling": self.n_lowered}


def export_ranking(ranking: Ranking, path: Path, request: ExportRequest) -> Exported:
    """Writes a ranking. Raises UltronError where the format cannot carry a name, a score is not finite, or a query of a
    collection against itself is not in it."""
    format = RANK_FORMATS[request.format]
    own_rows = own_rows_of(ranking) if format.is_pairs or request.is_self else {}
    if request.is_self and len(own_rows) < len(ranking.query_names):
        strangers = [name for query, name in enumerate(ranking.query_names) if query not in own_rows]
        raise UltronError(
            f"`self` is for photos that are searched among themselves; "
            f"{counted(len(strangers), 'query is', 'queries are')} not in the database, for example "
            f"{shown(strangers[0])}; search it for its own descriptors (`ultron search --queries D.h5 --database "
            "D.h5`), or leave `self` out"
        )
    if own_rows or request.k is not None:
        ranking = ranking.without_own_rows(own_rows, request.k)
    scores, is_photo = ranking.with_scores(), ranking.rows != PADDING
    if (is_photo & ~np.isfinite(scores)).any():
        raise UltronError("a score of the ranking is infinite, which no text can hold; search again")
    n_lowered = 0
    if format.has_scores:
        n_lowered, n_higher = n_not_falling(scores, is_photo)
        if n_lowered:
            _tell_of_scores(n_lowered, n_higher, request.scores)
    if format.is_pairs:
        ranking = _withfile_names(ranking)
    is_ranked = np.zeros(len(ranking.database_names), bool)
    for rows in ranking.rows:
        is_ranked[rows[rows != PADDING]] = True
    ranked_names = (ranking.database_names[row] for row in np.flatnonzero(is_ranked).tolist())
    _require_fit(chain(ranking.query_names, ranked_names), request.format)
    ranked = _named(ranking, are_lowered=n_lowered > 0 and request.scores == "falling")
    if format.is_pairs:
        ranked = _pairs(ranked, once=request.is_self)
    counts = _Counts()
    with whole_file(path) as output:
        for text in format.write(counts.over(ranked), ranking.origin.model or "ultron"):
            output.write(text.encode())
    return Exported(n_queries=counts.n_queries, n_lines=counts.n_lines, n_lowered=n_lowered)


def write_judgements(positives: Sequence[tuple[str, Sequence[str]]], path: Path) -> Exported:
    """Writes relevance judgements of (query, its positives). Raises UltronError for a name that they cannot carry."""
    _require_fit([name for query, photos in positives for name in (query, *photos)], "trec")
    with whole_file(path) as output:
        for text in judgements_text(positives):
            output.write(text.encode())
    return Exported(n_queries=len(positives), n_lines=sum(len(photos) for _, photos in positives))


@dataclass
class _Counts:
    n_queries: int = 0
    n_lines: int = 0

    def over(self, rankings: Iterable[NamedRanking]) -> Iterator[NamedRanking]:
        """The same rankings, counted as they pass."""
        for ranking in rankings:
            self.n_queries += 1
            self.n_lines += len(ranking.photos)
            yield ranking


def _tell_of_scores(n_lowered: int, n_higher: int, scores: Scores) -> None:
    what = (
        f"{counted(n_lowered, 'score equals or exceeds', 'scores equal or exceed')} the one before "
        f"{'it' if n_lowered == 1 else 'them'} ({n_higher:,} exceed)"
    )
    if scores == "falling":
        log.info("%s: lowered by the least of float32, so that tools that order by score keep the ranking", what)
    else:
        log.warning("%s: tools that order by score will show another ranking", what)


def _named(ranking: Ranking, *, are_lowered: bool) -> Iterator[NamedRanking]:
    """The rankings by name, a query at a time: of a million photos a second table of scores would be felt."""
    names, scores = ranking.database_names, ranking.with_scores()
    for query, name in enumerate(ranking.query_names):
        n = int((ranking.rows[query] != PADDING).sum())
        rows = ranking.rows[query, :n].tolist()
        of_query = scores[query, :n]
        if are_lowered:
            of_query = falling(of_query[np.newaxis])[0]
            if not np.isfinite(of_query).all():
                raise UltronError(
                    f"the scores of query {shown(name)} are the lowest of float32 and cannot be lowered; scale them"
                )
        yield NamedRanking(name, [names[row] for row in rows], score_texts(of_query))


def _pairs(rankings: Iterable[NamedRanking], *, once: bool) -> Iterator[NamedRanking]:
    """The rankings without a photo that is the query itself, and with `once` without pairs that came before the other
    way round."""
    before: set[frozenset[str]] = set()
    for ranking in rankings:
        places: list[int] = []
        for place, photo in enumerate(ranking.photos):
            pair = frozenset((ranking.query, photo))
            if len(pair) == 1 or (once and pair in before):
                continue
            if once:
                before.add(pair)
            places.append(place)
        yield NamedRanking(ranking.query, [ranking.photos[i] for i in places], [ranking.scores[i] for i in places])


def _withfile_names(ranking: Ranking) -> Ranking:
    """The ranking with photos named by their files below the folders of photos, where they are there; else by their
    names, which is said."""
    origin = ranking.origin

    def side(names: list[str], folder: str | None, what: str, several: str) -> list[str]:
        file_of = file_names(names, folder, origin.ground_truth)
        if lost := [name for name in names if name not in file_of]:
            log.warning(
                "%s without a file in %s, written by name, which may lack a suffix: %s",
                counted(len(lost), what, several),
                folder or "a folder that is recorded",
                named(lost),
            )
        return [file_of.get(name, name) for name in names]

    return replace(
        ranking,
        query_names=side(ranking.query_names, origin.dataset_folder, "query", "queries"),
        database_names=side(
            ranking.database_names, origin.database_folder or origin.dataset_folder, "database photo", "database photos"
        ),
    )


def file_names(names: Sequence[str], folder: str | None, gnd: str | None) -> Mapping[str, str]:
    """Name -> the path of its file below the folder of photos; nothing where that is gone."""
    if folder is None:
        return {}
    try:
        dataset = open_recorded(folder, gnd)
        files = dataset.photo_files([name for name in names if not os.path.isabs(name)]).files
    except UltronError as error:
        log.debug("%s", error)
        return {}
    return {name: path.relative_to(dataset.photo_folder).as_posix() for name, path in files.items()}


def _require_fit(names: Iterable[str], format_name: str) -> None:
    """Raises UltronError for a name that the format cannot carry, naming the formats that can."""
    format = RANK_FORMATS[format_name]
    if format.unfit is None:
        return
    for name in names:
        if format.unfit.search(name):
            others = [key for key, other in RANK_FORMATS.items() if _is_alike(other, format) and _carries(other, name)]
            advice = f"{' and '.join(others)} can carry it" if others else "rename the photo"
            raise UltronError(f"{format_name} needs {format.unfit_rule}; found {shown(name)}; {advice}")


def _is_alike(a: RankFormat, b: RankFormat) -> bool:
    return a.is_pairs == b.is_pairs


def _carries(format: RankFormat, name: str) -> bool:
    return format.unfit is None or not format.unfit.search(name)
