"""Gathers what a picture needs from stored results: rankings, photos, verdicts. The model that made the descriptors is
reopened by describers.py. What is drawn stands beside the figures: cam/draw.py, ranked/draw.py, inside/draw.py,
report/."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ultron_cli.datasets.folder import Dataset, open_folder, open_recorded
from ultron_cli.datasets.protocols import Protocol
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.evaluation.metrics import average_precision
from ultron_cli.retrieval.rankings import Ranking
from ultron_cli.schema.values import shown
from ultron_cli.visualization.drawing import Verdict, title_of
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto


@dataclass(frozen=True, kw_only=True)
class PhotoChoice:
    """A query of a search and the database photos that are drawn with it."""

    query_row: int
    k: int  # how many of the best photos, where none is named
    protocol: Protocol
    names: Sequence[str] = ()  # of database photos


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A search with the photos and the ground truth behind it."""

    ranking: Ranking
    queries: Dataset | None  # None where the queries are photos by path
    database: Dataset

    def query_row(self, name: str | None, protocol: Protocol = "medium") -> int:
        """Row of a query by name; None: that of median AP under the protocol. Raises UltronError if unknown."""
        names = self.ranking.query_names
        if name is None:
            return self.typical_rows(1, protocol)[0]
        if name not in names:
            near = nearest_names(name[:255], names) or f"; its first query is {names[0]}"
            raise UltronError(f"query {shown(name)} is not in the search{near}")
        return names.index(name)

    def typical_rows(self, n: int, protocol: Protocol) -> list[int]:
        """Rows of n queries (or all), evenly from low to high AP: of one, the lower median. The first n without a
        ground truth. A first query is often one that has everything right, and tells little."""
        n = min(n, len(self.ranking.query_names))
        scored = [(self.average_precision(row, protocol), row) for row in range(len(self.ranking.query_names))]
        rows = [row for _, row in sorted((ap, row) for ap, row in scored if ap is not None)]
        if len(rows) < n:
            return list(range(n))
        return [rows[((2 * i + 1) * len(rows) - 1) // (2 * n)] for i in range(n)]

    def query_photo(self, row: int) -> QueryPhoto:
        """The query as drawn: its file and its box (none where queries were not cropped)."""
        name = self.ranking.query_names[row]
        mark = self.ranking.query_marks[row] if self.ranking.query_marks is not None else None
        if self.queries is None or not self.queries.query_names:
            search = self.ranking.origin.search
            return QueryPhoto(Path(name), Path(name).name, search.query_box if search else None, mark)
        box = self.queries.query(name).bbx if self.ranking.origin.extraction.crop == "bbx" else None
        return QueryPhoto(self.queries.photo_path(name), name, box, mark)

    def verdict(self, row: int, database_name: str, protocol: Protocol) -> Verdict:
        """Whether a database photo is a positive of a query."""
        truth = self.queries.ground_truth if self.queries else None
        name = self.ranking.query_names[row]
        if truth is None or name not in truth.query_names:
            return "unknown"
        truth_row = self._row_of_truth.get(database_name)
        positives, ignored = truth.split(truth.query_names.index(name), protocol)
        if truth_row is not None and truth_row in positives:
            return "right"
        return "ignored" if truth_row is not None and truth_row in ignored else "wrong"

    @cached_property
    def _row_of_truth(self) -> dict[str, int]:
        assert self.queries is not None and self.queries.ground_truth is not None
        return {name: i for i, name in enumerate(self.queries.ground_truth.database_names)}

    def ranks_of(self, row: int, names: Sequence[str]) -> list[int | None]:
        """The rank, from 1, of each photo named in a query's ranking; None where the ranking does not hold it."""
        rank_of = {
            self.ranking.database_names[r]: rank
            for rank, r in enumerate(self.ranking.rows[row].tolist(), start=1)
            if r >= 0
        }
        return [rank_of.get(name) for name in names]

    def ranked(self, row: int, k: int, protocol: Protocol) -> list[RankedPhoto]:
        """The k best photos of a query with verdicts."""
        rows = self.ranking.rows[row][:k].tolist()
        scores = self.ranking.with_scores()[row][:k].tolist()
        names, marks = self.ranking.database_names, self.ranking.database_marks
        inliers = self.ranking.inliers_of(row)[:k] or [None] * len(rows)
        return [
            RankedPhoto(
                self.database.photo_path(names[r]),
                rank,
                score,
                self.verdict(row, names[r], protocol),
                names[r],
                marks[r] if marks is not None else None,
                n_inliers,
                self.ranking.is_promoted(n_inliers),
            )
            for rank, (r, score, n_inliers) in enumerate(zip(rows, scores, inliers, strict=True), start=1)
            if r >= 0
        ]

    def photos_of(self, choice: PhotoChoice) -> list[RankedPhoto]:
        """The database photos named, or the k best where none is. Raises UltronError for a name that was not ranked."""
        if not choice.names:
            return self.ranked(choice.query_row, choice.k, choice.protocol)
        all_photos = self.ranked(choice.query_row, len(self.ranking.database_names), choice.protocol)
        photo_of = {photo.name: photo for photo in all_photos}
        for name in choice.names:
            if name not in photo_of:
                near = nearest_names(name[:255], photo_of) or "; name one of those"
                raise UltronError(
                    f"{shown(name)} is not among the {len(photo_of):,} ranked database photos of the query{near}"
                )
        return [photo_of[name] for name in choice.names]

    def average_precision(self, row: int, protocol: Protocol) -> float | None:
        """AP (0..1) of a query as `ultron evaluate` counts it: positives that the ranking lacks count as not found;
        None without positives."""
        truth = self.queries.ground_truth if self.queries else None
        name = self.ranking.query_names[row]
        if truth is None or name not in truth.query_names:
            return None
        positives, ignored = (
            {truth.database_names[i] for i in rows} for rows in truth.split(truth.query_names.index(name), protocol)
        )
        if not positives:
            return None
        names = [self.ranking.database_names[r] for r in self.ranking.rows[row].tolist() if r >= 0]
        counted_names = [name for name in names if name not in ignored]
        return average_precision(np.flatnonzero([name in positives for name in counted_names]), len(positives))

    def title(self, row: int, protocol: Protocol, models: str | None = None) -> str:
        """`gem-resnet50 on roxford5k, hard protocol`, of the search or the models named; without the protocol where
        there is no ground truth for the query."""
        truth = self.queries.ground_truth if self.queries else None
        is_labelled = truth is not None and self.ranking.query_names[row] in truth.query_names
        return title_of(models or self.model, self.dataset_name, protocol if is_labelled else None)

    def subtitle(self, row: int, protocol: Protocol) -> str:
        """`AP 71.3`, in percent, of a query that has positives; `in the first 100` is added where not the whole
        database was ranked."""
        ap = self.average_precision(row, protocol)
        if ap is None:
            return ""
        n_ranked = self.ranking.rows.shape[1]
        part = f" in the first {n_ranked}" if n_ranked < len(self.ranking.database_names) else ""
        return f"AP {100 * ap:.1f}{part}"

    @property
    def dataset_name(self) -> str:
        """Name of what was searched."""
        return self.ranking.origin.dataset or "unknown dataset"

    @property
    def model(self) -> str:
        """Label of the model."""
        return self.ranking.origin.model_label


def open_scene(ranking: Ranking) -> Scene:
    """The photo folders and the ground truth that a search was made with. Raises UltronError if they are gone."""
    origin = ranking.origin
    queries = open_recorded(origin.dataset_folder, origin.ground_truth)
    known_names = set(queries.query_names)
    are_stored = all(name in known_names for name in ranking.query_names)
    database = queries
    if origin.database_folder and origin.database_folder != origin.dataset_folder:
        database = open_folder(Path(origin.database_folder))
    return Scene(ranking=ranking, queries=queries if are_stored else None, database=database)


def require_same_queries(scenes: Sequence[Scene], query: str) -> None:
    """Raises UltronError unless the searches are of one dataset and all have the query."""
    datasets = list(dict.fromkeys(scene.dataset_name for scene in scenes))
    if len(datasets) > 1:
        raise UltronError(
            f"searches side by side must be of one dataset, found {' and '.join(datasets)}; search the same "
            "photos with each"
        )
    for scene in scenes:
        names = scene.ranking.query_names
        if query not in names:
            raise UltronError(
                f"searches side by side must have the same query, {query!r} is not in that of "
                f"{scene.model}{nearest_names(query, names)}"
            )


def file_name(name: str) -> str:
    """A photo's name as part of a file name: separators and odd characters become underscores, length bounded."""
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return plain.encode()[:100].decode("utf-8", "ignore")
