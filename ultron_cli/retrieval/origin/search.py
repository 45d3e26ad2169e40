"""How a ranking was searched: its engine, its re-ranking steps, its distractors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Required, TypedDict

from ultron_cli.retrieval.origin.values import Json, box_of, object_of, objects_of, of_kind


class StoredStep(TypedDict, total=False):
    """A re-ranking step, as files store it."""

    name: Required[str]
    ms_per_query: float


class StoredSearch(TypedDict, total=False):
    """A search, as files store it."""

    method: str
    index: str | None
    kind: str | None
    rerank: list[StoredStep]


class StoredDistractors(TypedDict):
    """A file of distractors, as files store it."""

    path: str
    n: int
    dataset: str


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """A re-ranking step of a search."""

    name: str
    settings: Json = field(default_factory=dict)
    ms_per_query: float = 0.0  # wall clock
    measured: Json = field(default_factory=dict, compare=False)  # what the step says of its work

    def to_json(self) -> dict[str, object]:
        """As files store it: name, settings and time side by side."""
        content = {"name": self.name, **self.settings, "ms_per_query": self.ms_per_query}
        return {**content, "measured": dict(self.measured)} if self.measured else content

    @classmethod
    def from_json(cls, value: Json) -> "StepRecord":
        """From a file."""
        named_keys = ("name", "ms_per_query", "measured")
        settings = {key: part for key, part in value.items() if key not in named_keys}
        spent_ms = value.get("ms_per_query")
        return cls(
            name=str(value.get("name")),
            settings=settings,
            ms_per_query=float(spent_ms) if isinstance(spent_ms, (int, float)) else 0.0,
            measured=object_of(value.get("measured")),
        )


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """How a ranking was searched."""

    method: Literal["exact", "index"] = "exact"
    index: str | None = None  # folder of the index
    kind: str | None = None  # of the index: flat, ivfpq, ...
    settings: Json = field(default_factory=dict)  # of the index: nprobe, ef_search, rescore
    steps: tuple[StepRecord, ...] = ()  # of re-ranking, in their order
    leaves_out_queries: bool = False  # each out of its own ranking
    # Files that a step looked at: of the queries ("" for photos by path), the database and each file of distractors.
    local_features: tuple[str, ...] = field(default=(), compare=False)
    query_box: tuple[float, float, float, float] | None = None  # of a photo by path, in its pixels
    ms_per_query: float | None = field(default=None, compare=False)  # wall clock, re-ranking included

    @property
    def engine(self) -> str:
        """The index's kind, or `exact`."""
        return self.kind or self.method

    @property
    def is_approximate(self) -> bool:
        """Whether an index that may miss neighbours was searched."""
        return self.method == "index" and self.kind not in (None, "flat")

    @property
    def promoting_inliers(self) -> int | None:
        """The inliers from which on geometric verification put photos in front; None where it did not run."""
        measured = [step.measured for step in self.steps if step.name == "geometry"]
        if not measured:
            return None
        calibration = object_of(measured[-1].get("calibration"))
        return of_kind(calibration.get("threshold"), int) if calibration else 1  # without the guard any inlier does

    def to_json(self) -> dict[str, object]:
        """As files store it."""
        content: dict[str, object] = {"method": self.method}
        if self.method == "index":
            content |= {"index": self.index, "kind": self.kind, **self.settings}
        if self.steps:
            content["rerank"] = [step.to_json() for step in self.steps]
        if self.leaves_out_queries:
            content["leaves_out_queries"] = True
        if self.local_features:
            content["local_features"] = list(self.local_features)
        if self.query_box:
            content["query_box"] = list(self.query_box)
        if self.ms_per_query is not None:
            content["ms_per_query"] = self.ms_per_query
        return content

    @classmethod
    def from_json(cls, value: object) -> "SearchRecord | None":
        """From a file; None where nothing is recorded."""
        if not isinstance(value, Mapping) or not value:
            return None
        stored = object_of(value)
        named_keys = ("method", "index", "kind", "rerank", "leaves_out_queries", "local_features", "query_box")
        files = stored.get("local_features")
        return cls(
            method="index" if stored.get("method") == "index" or stored.get("kind") else "exact",
            index=of_kind(stored.get("index"), str),
            kind=of_kind(stored.get("kind"), str),
            settings={key: part for key, part in stored.items() if key not in (*named_keys, "ms_per_query")},
            steps=tuple(StepRecord.from_json(step) for step in objects_of(stored.get("rerank"))),
            leaves_out_queries=stored.get("leaves_out_queries") is True,
            local_features=tuple(map(str, files)) if isinstance(files, list) else (),
            query_box=box_of(stored.get("query_box")),
            ms_per_query=of_kind(stored.get("ms_per_query"), float),
        )


@dataclass(frozen=True, kw_only=True)
class DistractorRecord:
    """A file of photos that answer no query, searched behind the database."""

    path: str
    n: int
    dataset: str

    def to_json(self) -> dict[str, object]:
        """As files store it."""
        return {"path": self.path, "n": self.n, "dataset": self.dataset}

    @classmethod
    def from_json(cls, value: Json) -> "DistractorRecord":
        """From a file."""
        n_photos = value.get("n")
        return cls(
            path=str(value.get("path")),
            n=n_photos if isinstance(n_photos, int) else 0,
            dataset=str(value.get("dataset")),
        )
