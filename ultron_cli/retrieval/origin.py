"""What made a result: one frozen type that search writes and that evaluation, figures, the report and the page read.

Files hold it as JSON (`provenance` of rank files and evaluations, `config` of descriptor files) with the keys of
docs/file-formats.md. This is the only module that reads those keys. What it does not know it keeps, so that a file that
passes through loses nothing. A file made elsewhere may hold part of it only: what is absent is None or empty.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, Required, TypedDict, TypeVar, cast

from ultron_cli.configs import differences, flatten
from ultron_cli.retrieval.fusion_record import FUSED_MODEL, FusionRecord

T = TypeVar("T")
Json = Mapping[str, object]  # an object of a JSON file
SHOWN_OF_SHA256 = 16  # characters of 64, which tell any two files apart
_SHA256 = re.compile(r"[0-9a-f]{64}")
ABSENT = "none"  # how a comparison shows what a result does not have
# Keys of an extraction's configuration as people read them; the others stand for themselves.
EXTRACTION_WORDS = {
    "photos_sha256": "photos (SHA-256)",
    "weights_sha256": "weights (SHA-256)",
    "crop": "crop of queries",
    "corruption": "corruption of queries",
    "corruption.kind": "corruption of queries",
    "corruption.severity": "severity of the corruption",
    "corruption.seed": "seed of the corruption",
    "corruption.code_sha256": "code of the corruption (SHA-256)",
    "max_side_px": "longest side in pixels",
    "resize": "resizing of photos",
    "runtime": "runtime of the network",
    "precision": "arithmetic of the network",
    "storage": "number type in the file",
    "model.name": "kind of model",
    "whitening.sha256": "whitening (SHA-256)",
}

OF_THE_SYSTEM = ("model", "weights_sha256", "preprocessing", "imported")  # keys of an extraction's configuration

CROP_TEXTS = {
    "bbx": "queries cropped",
    "none": "queries NOT cropped (not comparable with published scores)",
    "unknown": "crop of queries unknown",
}
# What files of released versions, which did not say it, were made with.
BEFORE = {"runtime": "torch"}


class StoredModel(TypedDict):
    """A model, as the `config` of a descriptor file names it."""

    name: str
    settings: dict[str, object]


class StoredWhitening(TypedDict):
    """A whitening, as the `config` of a descriptor file names it."""

    method: str
    dim: int
    sha256: str


class StoredCorruption(TypedDict):
    """How query photos were made worse on purpose, as the `config` of a descriptor file says."""

    kind: str
    severity: int


class StoredExtraction(TypedDict, total=False):
    """The types of what the `config` of a descriptor file may hold, as far as they are read."""

    imported: "list[StoredImport]"
    model: StoredModel
    scales: list[float]
    crop: str
    max_side_px: int | None
    corruption: StoredCorruption | None
    resize: str
    runtime: str
    storage: str
    preprocessing: dict[str, object]
    whitening: StoredWhitening | None


class StoredSkippedPhoto(TypedDict):
    """A photo that was left out, as descriptor files store it."""

    name: str
    reason: str


def _of_kind(value: object, kind: type[T] | tuple[type[T], ...]) -> T | None:
    """`value` if it is of that kind, else None: a file from elsewhere may hold anything under a key."""
    return value if isinstance(value, kind) else None


def _object(value: object) -> Json:
    return cast(Json, value) if isinstance(value, Mapping) else {}


def _objects(values: object) -> tuple[Json, ...]:
    return tuple(_object(value) for value in values) if isinstance(values, (list, tuple)) else ()


def _in_words(value: object) -> str:
    """A setting's value as a comparison shows it."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_in_words, value)) or ABSENT
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text[:SHOWN_OF_SHA256] if _SHA256.fullmatch(text) else text


def _two_texts(values: object) -> tuple[str, str] | None:
    if isinstance(values, (list, tuple)) and len(values) == 2:
        first, second = values
        if isinstance(first, str) and isinstance(second, str):
            return first, second
    return None


def _box(values: object) -> tuple[float, float, float, float] | None:
    """(x1, y1, x2, y2), if that is what it is."""
    numbers = [float(value) for value in values if isinstance(value, (int, float))] if isinstance(values, list) else []
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None


def _whole_numbers(values: object) -> tuple[int, ...] | None:
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, int) for value in values):
        return None
    return tuple(values)


@dataclass(frozen=True, kw_only=True)
class WhiteningRecord:
    """The whitening that descriptors went through."""

    method: str
    dim: int  # dimensions of what it gives
    sha256: str  # of the whitening file

    def __str__(self) -> str:
        return f"{self.method} to {self.dim}-d"

    def to_json(self) -> dict[str, object]:
        """As descriptor files and indexes store it."""
        return {"method": self.method, "dim": self.dim, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True)
class ExtractionRecord:
    """How descriptors were made, as their file's `config` says: everything that shaped the numbers.

    Two records are equal when everything stored is.
    """

    stored: Json = field(default_factory=dict)  # whole, as JSON

    def __bool__(self) -> bool:
        return bool(self.stored)

    @property
    def model_name(self) -> str | None:
        """Name of the model in the core (`gem`, `ultron-s`); None where it is not one of the core, or not known."""
        return None if self.imported else _of_kind(_object(self.stored.get("model")).get("name"), str)

    @property
    def imported(self) -> "tuple[ImportRecord, ...]":
        """The files of other tools that the descriptors are of; none where ultron made them."""
        return tuple(ImportRecord.from_json(record) for record in _objects(self.stored.get("imported")))

    @property
    def model_settings(self) -> Json:
        """Settings of the model."""
        return _object(_object(self.stored.get("model")).get("settings"))

    @property
    def crop(self) -> str | None:
        """`bbx`: queries were cropped to their boxes; `none`: whole photos; `unknown`: another tool made them, and
        nobody said."""
        return _of_kind(self.stored.get("crop"), str)

    @property
    def scales(self) -> tuple[float, ...]:
        """Scales whose descriptors were joined; empty where they are not recorded."""
        values = self.stored.get("scales")
        if not isinstance(values, (list, tuple)) or not all(isinstance(value, (int, float)) for value in values):
            return ()
        return tuple(float(value) for value in values)

    @property
    def max_side_px(self) -> int | None:
        """Longest side of the photos, in pixels; None is no limit (or not recorded)."""
        return _of_kind(self.stored.get("max_side_px"), int)

    @property
    def corruption(self) -> str | None:
        """`jpeg 3`: how query photos were made worse on purpose, and how severely; None for plain photos."""
        record = _object(self.stored.get("corruption"))
        return f"{record.get('kind')} {record.get('severity')}" if record else None

    @property
    def enlarges(self) -> bool:
        """Whether smaller photos were enlarged to the longest side."""
        return self.stored.get("resize") == "always"

    @property
    def storage(self) -> str:
        """Number type of the file: float32 or float16."""
        return str(self.stored.get("storage", "float32"))

    @property
    def runtime(self) -> str:
        """What computed the network: torch or a runtime that agrees with it (models/runtimes/)."""
        return str(self.with_defaults().get("runtime", "unknown"))

    def with_defaults(self) -> Json:
        """What is stored, and what was not yet said when the file was made; empty where nothing is stored."""
        before = {} if self.imported else BEFORE
        return {**before, **self.stored} if self.stored else {}

    @property
    def whitening(self) -> WhiteningRecord | None:
        """The whitening that followed; None for raw descriptors."""
        record = _object(self.stored.get("whitening"))
        if not record:
            return None
        return WhiteningRecord(
            method=str(record.get("method")),
            dim=_of_kind(record.get("dim"), int) or 0,
            sha256=str(record.get("sha256", "")),
        )

    def whitened(self, whitening: WhiteningRecord) -> "ExtractionRecord":
        """The record of the same descriptors after a whitening."""
        return ExtractionRecord(stored={**self.stored, "whitening": whitening.to_json()})

    def differences(self, other: "ExtractionRecord", keys: Sequence[str] | None = None) -> list[str]:
        """One phrase per setting in which two records differ. keys: the settings compared; None: all."""
        if keys is None:
            return differences(self.with_defaults(), other.with_defaults())
        return differences({key: self.stored.get(key) for key in keys}, {key: other.stored.get(key) for key in keys})

    def protocol_text(self) -> str:
        """How photos were turned into descriptors, in one phrase that stands beside every score."""
        crop = CROP_TEXTS.get(self.crop or "none", CROP_TEXTS["none"])
        side = f"longest side {self.max_side_px} px" if self.max_side_px else "full resolution"
        n_scales = len(self.scales)
        scales = f"{n_scales} scale{'s' if n_scales > 1 else ''}"
        if self.model_name == FUSED_MODEL:  # of several extractions, which share what is stored
            crop = crop if self.crop else "queries of each part cropped in its own way"
            side = side if "max_side_px" in self.stored else "sides of each part"
            scales = scales if n_scales else "scales of each part"
        of_queries = "" if self.stored.get("role") == "database" else f"{crop}, "
        always = ", small photos enlarged" if self.enlarges else ""
        corrupted = f", queries corrupted by {self.corruption}" if self.corruption else ""
        whitened = f", {self.whitening}" if self.whitening else ""
        if self.imported:
            scales = scales if n_scales else "scales unknown"
            files = ", ".join(record.path for record in self.imported[:2]) + " ..." * (len(self.imported) > 2)
            return f"{of_queries}{scales}, descriptors imported from {files}{whitened}"
        return f"{of_queries}{scales}, {side}{always}{corrupted}{whitened}"


@dataclass(frozen=True, kw_only=True)
class LearnedFrom:
    """The photos that weights or a whitening were learned from, as far as it is known."""

    dataset: str | None = None
    folder: str | None = None
    n_landmarks: int | None = None
    excluded: bool = False  # whether lists kept landmarks or photos out of training

    def to_json(self) -> dict[str, object]:
        """As files store it; what is not known is left out."""
        content: dict[str, object] = {
            "dataset": self.dataset,
            "dataset_folder": self.folder,
            "n_landmarks": self.n_landmarks,
            "excluded": self.excluded or None,
        }
        return {key: value for key, value in content.items() if value is not None}

    @classmethod
    def from_json(cls, value: object) -> "LearnedFrom | None":
        """From a file, or from the provenance of a whitening, which has these keys; None where neither dataset nor
        folder is known."""
        stored = _object(value)
        dataset, folder = (_of_kind(stored.get(key), str) for key in ("dataset", "dataset_folder"))
        if dataset is None and folder is None:
            return None
        n_landmarks = _of_kind(stored.get("n_landmarks"), int)
        return cls(dataset=dataset, folder=folder, n_landmarks=n_landmarks, excluded=stored.get("excluded") is True)


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Where a model's weights came from."""

    kind: str | None = None  # checkpoint, backbone, pretrained, untrained
    path: str | None = None  # of the file
    stored: Json = field(default_factory=dict)  # whole, as JSON: a seed, and what an importer noted

    @classmethod
    def from_json(cls, value: object) -> "WeightsSource | None":
        """From a file; None where nothing is recorded."""
        if not isinstance(value, Mapping):
            return None
        stored = _object(value)
        return cls(kind=_of_kind(stored.get("kind"), str), path=_of_kind(stored.get("path"), str), stored=stored)

    @property
    def trained_on(self) -> LearnedFrom | None:
        """The photos that the weights were trained on; None where it is not recorded."""
        return LearnedFrom.from_json(self.stored.get("trained_on"))

    def __str__(self) -> str:
        return self.path or self.kind or ""


@dataclass(frozen=True, kw_only=True)
class SkippedPhoto:
    """A photo left out by --skip-bad."""

    name: str
    reason: str
    state: tuple[int, ...] | None = None  # of its file then (datasets/photo_marks.py); None where it is not recorded

    def to_json(self) -> dict[str, object]:
        """As files store it."""
        content: dict[str, object] = {"name": self.name, "reason": self.reason}
        return content if self.state is None else {**content, "state": list(self.state)}

    @classmethod
    def list_from_json(cls, values: object) -> "tuple[SkippedPhoto, ...]":
        """From a file."""
        return tuple(
            cls(name=str(value.get("name")), reason=str(value.get("reason")), state=_whole_numbers(value.get("state")))
            for value in _objects(values)
        )


@dataclass(frozen=True, kw_only=True)
class DescriptorProvenance:
    """Where descriptors were made; shapes no number."""

    weights: WeightsSource | None = None
    dataset_folder: str | None = None
    ground_truth: str | None = None  # file
    whitening: str | None = None  # file
    # The least cosine of the first photos' descriptors with torch's, where another runtime made them.
    runtime_cosine: float | None = None
    whitening_learned_from: LearnedFrom | None = None
    fusion: FusionRecord | None = None  # of the descriptors that were made one
    other: Json = field(default_factory=dict)  # versions, command, machine, device, time

    def to_json(self) -> dict[str, object]:
        """As descriptor files store it."""
        content: dict[str, object] = {
            "weights": dict(self.weights.stored) if self.weights else None,
            "dataset_folder": self.dataset_folder,
            "ground_truth": self.ground_truth,
            "whitening": self.whitening,
            "runtime_cosine": self.runtime_cosine,
            "whitening_learned_from": self.whitening_learned_from and self.whitening_learned_from.to_json(),
            "fusion": self.fusion and self.fusion.to_json(),
        }
        return {**self.other, **{key: value for key, value in content.items() if value is not None}}

    @classmethod
    def from_json(cls, value: object) -> "DescriptorProvenance":
        """From a descriptor file."""
        stored = _object(value)
        named_keys = {part.name for part in fields(cls)} - {"other"}
        return cls(
            weights=WeightsSource.from_json(stored.get("weights")),
            dataset_folder=_of_kind(stored.get("dataset_folder"), str),
            ground_truth=_of_kind(stored.get("ground_truth"), str),
            whitening=_of_kind(stored.get("whitening"), str),
            runtime_cosine=_of_kind(stored.get("runtime_cosine"), float),
            whitening_learned_from=LearnedFrom.from_json(stored.get("whitening_learned_from")),
            fusion=FusionRecord.from_json(stored.get("fusion")),
            other={key: part for key, part in stored.items() if key not in named_keys},
        )


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
            measured=_object(value.get("measured")),
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
        calibration = _object(measured[-1].get("calibration"))
        return _of_kind(calibration.get("threshold"), int) if calibration else 1  # without the guard any inlier does

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
        stored = _object(value)
        named_keys = ("method", "index", "kind", "rerank", "leaves_out_queries", "local_features", "query_box")
        files = stored.get("local_features")
        return cls(
            method="index" if stored.get("method") == "index" or stored.get("kind") else "exact",
            index=_of_kind(stored.get("index"), str),
            kind=_of_kind(stored.get("kind"), str),
            settings={key: part for key, part in stored.items() if key not in (*named_keys, "ms_per_query")},
            steps=tuple(StepRecord.from_json(step) for step in _objects(stored.get("rerank"))),
            leaves_out_queries=stored.get("leaves_out_queries") is True,
            local_features=tuple(map(str, files)) if isinstance(files, list) else (),
            query_box=_box(stored.get("query_box")),
            ms_per_query=_of_kind(stored.get("ms_per_query"), float),
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


@dataclass(frozen=True, kw_only=True)
class ImportRecord:
    """A file of another tool that descriptors or a ranking were made of, or that ordered its first photos anew."""

    path: str
    sha256: str
    format: str  # of RANK_FORMATS or DESCRIPTOR_FORMATS in exchange/
    order: Literal["score", "file"] = "score"  # by which photos stand
    n_first: int | None = None  # photos of a ranking that it ordered, at most; None: it is the whole ranking

    def __str__(self) -> str:
        first = "" if self.n_first is None else f", the first {self.n_first:,} of a ranking"
        return f"{self.path} ({self.format}{first}{', in the order of its lines' if self.order == 'file' else ''})"

    def to_json(self) -> dict[str, object]:
        """As files store it."""
        return {
            "path": self.path,
            "sha256": self.sha256,
            "format": self.format,
            "order": self.order,
            **({} if self.n_first is None else {"n_first": self.n_first}),
        }

    @classmethod
    def from_json(cls, value: Json) -> "ImportRecord":
        """From a file."""
        return cls(
            path=str(value.get("path")),
            sha256=str(value.get("sha256", "")),
            format=str(value.get("format")),
            order="file" if value.get("order") == "file" else "score",
            n_first=_of_kind(value.get("n_first"), int),
        )


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What made a ranking or a score."""

    dataset: str | None = None
    model: str | None = None  # the model's label
    weights_sha256: str | None = None
    extraction: ExtractionRecord = field(default_factory=ExtractionRecord)  # of the queries, where both are known
    weights: WeightsSource | None = None
    dataset_folder: str | None = None  # of the queries' photos
    database_folder: str | None = None  # of the database's photos
    ground_truth: str | None = None  # file
    whitening_learned_from: LearnedFrom | None = None
    descriptors: tuple[str, str] | None = None  # files of the queries' and the database's that were searched
    skipped: tuple[SkippedPhoto, ...] = ()
    search: SearchRecord | None = None
    distractors: tuple[DistractorRecord, ...] = ()
    imported: tuple[ImportRecord, ...] = ()  # files of other tools, one after the other
    fusion: FusionRecord | None = None  # of the results that were made one
    searched_by: Json | None = None  # versions, command and machine of the search
    k: int | None = None  # of an evaluation: photos ranked per query
    duplicates: str | None = None  # of an evaluation: how photos that a ranking repeats count
    ties: str | None = None  # of an evaluation: how photos of equal score stand; None: by row
    evaluated_by: Json | None = None  # versions, command and machine of the evaluation
    other: Json = field(default_factory=dict)  # what a file says beside these, kept for the next file

    @property
    def model_label(self) -> str:
        """The model's label, or `unknown model`."""
        return self.model or "unknown model"

    def search_text(self, *, timed: bool = True) -> str:
        """What a search did beside comparing descriptors exactly, in one phrase that stands beside every score; empty
        for nothing. timed: with the milliseconds of re-ranking."""
        search = self.search or SearchRecord()
        n_distractors = sum(part.n for part in self.distractors)
        joined = f", {n_distractors:,} of them distractors" if self.distractors else ""
        index = f"; approximate index {search.kind}" if search.is_approximate else ""
        steps = ", ".join(
            f"{step.name} ({step.ms_per_query:.1f} ms per query)" if timed else step.name for step in search.steps
        )
        left_out = "; queries left out of their own ranking" if search.leaves_out_queries else ""
        imported = "".join(
            f"; imported from {record.path}" if record.n_first is None else f"; ordered anew by {record.path}"
            for record in self.imported
        )
        fused = f"; {self.fusion.text(timed=timed)}" if self.fusion else ""
        return joined + index + (f"; re-ranked by {steps}" if steps else "") + imported + fused + left_out

    @property
    def is_search(self) -> bool:
        """Whether ultron searched, and no other tool made the whole ranking."""
        return all(record.n_first is not None for record in self.imported)

    def facts(self) -> dict[str, str]:
        """Everything that shaped the result, in words: what it is -> how it was."""
        search = self.search or SearchRecord()
        facts: dict[str, object] = {
            "dataset": self.dataset,
            "ground truth": self.ground_truth,
            "model": self.model,
            "weights": str(self.weights or "") or None,
            "weights (SHA-256)": self.weights_sha256 or None,
        }
        extraction = {key: value for key, value in self.extraction.with_defaults().items() if key != "imported"}
        for key, value in flatten(extraction).items():
            facts.setdefault(EXTRACTION_WORDS.get(key, key), value)
        if self.extraction:
            facts["whitening"] = self.extraction.whitening
        if records := self.extraction.imported:
            facts["descriptors imported"] = ", ".join(map(str, records))
            facts["descriptors imported (SHA-256)"] = ", ".join(record.sha256[:SHOWN_OF_SHA256] for record in records)
        engine = "exact" if search.method == "exact" else f"index {search.kind}"
        if self.fusion and self.fusion.kind != "descriptors":
            engine = "those of its parts"
        facts["search"] = engine if self.is_search else "that of another tool"
        facts |= {f"index {name}": value for name, value in search.settings.items()}
        facts["re-ranking"] = ", ".join(step.name for step in search.steps) or None
        for step in search.steps:
            facts |= {f"{step.name}.{name}": value for name, value in step.settings.items()}
        facts["distractors"] = ", ".join(f"{part.path} ({part.n:,} photos)" for part in self.distractors) or None
        if self.imported:
            facts["imported"] = ", ".join(map(str, self.imported))
            facts["imported (SHA-256)"] = ", ".join(record.sha256[:SHOWN_OF_SHA256] for record in self.imported)
        if self.fusion:
            facts["fusion"] = str(self.fusion)
            facts["fused (SHA-256)"] = ", ".join(part.sha256[:SHOWN_OF_SHA256] for part in self.fusion.parts)
        facts["photos ranked per query"] = self.k
        facts["photos that a ranking repeats"] = self.duplicates
        facts["photos of equal score"] = self.ties or "by row"
        facts["photos left out"] = ", ".join(sorted(photo.name for photo in self.skipped)) or None
        for who, record in (("searched with", self.searched_by), ("evaluated with", self.evaluated_by)):
            packages = _object((record or {}).get("packages"))
            versions = {"ultron": (record or {}).get("ultron_version"), **packages}
            facts |= {f"{who} {name}": version for name, version in versions.items() if version is not None}
        return {name: _in_words(value) for name, value in facts.items()}

    def conditions(self) -> dict[str, str]:
        """The facts without those of the system itself (model, weights, its preprocessing) and without versions: under
        which conditions it was evaluated."""
        stored = {key: value for key, value in self.extraction.stored.items() if key not in OF_THE_SYSTEM}
        if whitening := _object(stored.get("whitening")):
            stored["whitening"] = {key: value for key, value in whitening.items() if key != "sha256"}
        reduced = replace(self, model=None, weights=None, weights_sha256=None, searched_by=None, evaluated_by=None)
        return replace(reduced, extraction=ExtractionRecord(stored=stored)).facts()

    def differences(self, other: "Origin") -> list[str]:
        """What shaped the two results differently, A's and B's in one phrase each: `re-ranking: A none, B aqe`."""
        a, b = self.facts(), other.facts()
        phrases = []
        for name in dict.fromkeys((*a, *b)):
            how_a, how_b = (facts.get(name, ABSENT) for facts in (a, b))
            # Who searched is known of a rank file alone; that is no difference of two results.
            is_version = name.startswith(("searched with ", "evaluated with "))
            if how_a != how_b and not (is_version and ABSENT in (how_a, how_b)):
                phrases.append(f"{name}: A {how_a}, B {how_b}")
        return phrases

    def to_json(self) -> dict[str, object]:
        """As rank files and evaluations store it; what is not known is left out."""
        content: dict[str, object] = {
            "dataset": self.dataset,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "config": dict(self.extraction.stored) if self.extraction else None,
            "weights": dict(self.weights.stored) if self.weights else None,
            "dataset_folder": self.dataset_folder,
            "database_folder": self.database_folder,
            "ground_truth": self.ground_truth,
            "whitening_learned_from": self.whitening_learned_from and self.whitening_learned_from.to_json(),
            "descriptors": self.descriptors and list(self.descriptors),
            "skipped": [photo.to_json() for photo in self.skipped],
            "search": self.search.to_json() if self.search else None,
            "distractors": [part.to_json() for part in self.distractors] or None,
            "imported": [record.to_json() for record in self.imported] or None,
            "fusion": self.fusion.to_json() if self.fusion else None,
            "searched_by": self.searched_by,
            "k": self.k,
            "duplicates": self.duplicates,
            "ties": self.ties,
            "evaluated_by": self.evaluated_by,
        }
        return {**self.other, **{key: value for key, value in content.items() if value is not None}}

    @classmethod
    def from_json(cls, value: object) -> "Origin":
        """From the `provenance` of a rank file or an evaluation."""
        stored = _object(value)
        named_keys = {"config", *(part.name for part in fields(cls))} - {"extraction", "other"}
        cut = stored.get("k")
        return cls(
            dataset=_of_kind(stored.get("dataset"), str),
            model=_of_kind(stored.get("model"), str),
            weights_sha256=_of_kind(stored.get("weights_sha256"), str),
            extraction=ExtractionRecord(stored=_object(stored.get("config"))),
            weights=WeightsSource.from_json(stored.get("weights")),
            dataset_folder=_of_kind(stored.get("dataset_folder"), str),
            database_folder=_of_kind(stored.get("database_folder"), str),
            ground_truth=_of_kind(stored.get("ground_truth"), str),
            whitening_learned_from=LearnedFrom.from_json(stored.get("whitening_learned_from")),
            descriptors=_two_texts(stored.get("descriptors")),
            skipped=SkippedPhoto.list_from_json(stored.get("skipped")),
            search=SearchRecord.from_json(stored.get("search")),
            distractors=tuple(DistractorRecord.from_json(part) for part in _objects(stored.get("distractors"))),
            imported=tuple(ImportRecord.from_json(record) for record in _objects(stored.get("imported"))),
            fusion=FusionRecord.from_json(stored.get("fusion")),
            searched_by=_of_kind(stored.get("searched_by"), dict),
            k=cut if isinstance(cut, int) else None,
            duplicates=_of_kind(stored.get("duplicates"), str),
            ties=_of_kind(stored.get("ties"), str),
            evaluated_by=_of_kind(stored.get("evaluated_by"), dict),
            other={key: part for key, part in stored.items() if key not in named_keys},
        )


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


class StoredImport(TypedDict, total=False):
    """An imported file, as files store it."""

    path: Required[str]
    sha256: str
    format: str
    order: str
    n_first: int | None


class StoredFusion(TypedDict, total=False):
    """A fusion, as files store it; its parts hold whole origins."""

    kind: str
    method: Required[str]
    norm: str
    settings: dict[str, object]
    parts: list[dict[str, object]]
    tuning: dict[str, object]
    ms_per_query: float
    bytes_per_photo: float


class StoredOrigin(TypedDict, total=False):
    """The types of what `provenance` of an evaluation or a rank file may hold, as far as they are read."""

    dataset: str | None
    model: str | None
    weights_sha256: str | None
    config: StoredExtraction | None
    weights: dict[str, object] | None
    dataset_folder: str | None
    database_folder: str | None
    ground_truth: str | None
    skipped: list[StoredSkippedPhoto]
    search: StoredSearch | None
    distractors: list[StoredDistractors] | None
    imported: list[StoredImport] | None
    fusion: StoredFusion | None
    k: int | None
    duplicates: str | None
    ties: str | None
