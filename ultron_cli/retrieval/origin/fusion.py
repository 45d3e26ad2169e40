"""What a fusion was made of: the part of an Origin that says which results were joined, how, and by what weights."""

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal, Required, TypedDict

from ultron_cli.retrieval.origin.values import Json, number_of, object_of, of_kind, sequence_of

FusedKind = Literal["rankings", "reranker", "descriptors"]
FUSED_MODEL = "fusion"  # name of the model of joined descriptors, in their configuration
OPTIMISTIC = "tuned on the queries that are evaluated"


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


@dataclass(frozen=True, kw_only=True)
class FusedPart:
    """A result that was joined with others, and what it costs."""

    path: str
    sha256: str
    label: str  # its model, or its file
    weight: float | None = None  # None where it differs by fold, or the method has none
    bytes_per_photo: float | None = None  # of the descriptors that were searched; None where they are not known
    ms_per_query: float | None = field(default=None, compare=False)  # wall clock of its search
    origin: Json = field(default_factory=dict)  # whole, as its file says

    def __str__(self) -> str:
        return self.text()

    def text(self, *, timed: bool = True) -> str:
        """`gem-resnet50 (weight 0.5, 8,192 bytes per photo, 1.2 ms per query)`. timed: with the milliseconds."""
        facts = [
            None if self.weight is None else f"weight {self.weight:g}",
            None if self.bytes_per_photo is None else f"{self.bytes_per_photo:,.0f} bytes per photo",
            None if self.ms_per_query is None or not timed else f"{self.ms_per_query:.1f} ms per query",
        ]
        shown = ", ".join(fact for fact in facts if fact)
        return f"{self.label} ({shown})" if shown else self.label

    def to_json(self) -> dict[str, object]:
        """As files store it."""
        return {
            "path": self.path,
            "sha256": self.sha256,
            "label": self.label,
            "weight": self.weight,
            "bytes_per_photo": self.bytes_per_photo,
            "ms_per_query": self.ms_per_query,
            "origin": dict(self.origin),
        }

    @classmethod
    def from_json(cls, value: object) -> "FusedPart":
        """From a file."""
        stored = object_of(value)
        path = str(stored.get("path"))
        return cls(
            path=path,
            sha256=str(stored.get("sha256", "")),
            label=of_kind(stored.get("label"), str) or PurePath(path).name,
            weight=number_of(stored.get("weight")),
            bytes_per_photo=number_of(stored.get("bytes_per_photo")),
            ms_per_query=number_of(stored.get("ms_per_query")),
            origin=object_of(stored.get("origin")),
        )


@dataclass(frozen=True, kw_only=True)
class TuningRecord:
    """How the settings of a fusion were tuned by mAP."""

    protocol: str
    settings: tuple[tuple[float, ...], ...]  # best ones of each fold: weights, or lambda and temperature
    n_candidates: int
    seed: int = 0
    optimistic: bool = False  # on the evaluated queries themselves

    def __str__(self) -> str:
        if self.optimistic:
            return f"{OPTIMISTIC} ({self.protocol}, optimistic: the score is too high)"
        return f"tuned for {self.protocol} on other queries ({len(self.settings)} folds, seed {self.seed})"

    def to_json(self) -> dict[str, object]:
        """As files store it."""
        return {
            "protocol": self.protocol,
            "settings": [list(values) for values in self.settings],
            "n_candidates": self.n_candidates,
            "seed": self.seed,
            "optimistic": self.optimistic,
        }

    @classmethod
    def from_json(cls, value: object) -> "TuningRecord | None":
        """From a file; None where nothing was tuned."""
        stored = object_of(value)
        if not stored:
            return None
        settings = tuple(
            tuple(number for part in sequence_of(values) if (number := number_of(part)) is not None)
            for values in sequence_of(stored.get("settings"))
        )
        return cls(
            protocol=str(stored.get("protocol")),
            settings=settings,
            n_candidates=int(number_of(stored.get("n_candidates")) or 0),
            seed=int(number_of(stored.get("seed")) or 0),
            optimistic=stored.get("optimistic") is True,
        )


@dataclass(frozen=True, kw_only=True)
class FusionRecord:
    """Results that were made one."""

    kind: FusedKind
    method: str  # of METHODS in fusion/methods.py, or an import path; mix of a re-ranker, or concatenation
    parts: tuple[FusedPart, ...]
    norm: str | None = None  # of the scores; None where the method looks at places
    # rrf_k; lambda and temperature; dim; of a method by import path its settings, and code_sha256 of the file.
    settings: Json = field(default_factory=dict)
    tuning: TuningRecord | None = None
    ms_per_query: float | None = field(default=None, compare=False)  # of joining alone

    @property
    def caution(self) -> str | None:
        """What takes worth from its scores; None for nothing."""
        if self.tuning is None or not self.tuning.optimistic:
            return None
        what = "lambda and temperature" if self.kind == "reranker" else "weights"
        return f"{what} of the fusion were {OPTIMISTIC} (optimistic): scores are too high; tune them on others"

    def costs(self) -> tuple[float | None, float | None]:
        """(bytes per photo, milliseconds per query) of all parts and of joining them; None where a part's are not
        known."""
        if self.kind == "descriptors":
            dim = number_of(self.settings.get("dim"))
            return None if dim is None else 4 * dim, None
        n_bytes = [part.bytes_per_photo for part in self.parts if self.kind != "reranker" or part.bytes_per_photo]
        spent_ms = [part.ms_per_query for part in self.parts]
        return (
            None if None in n_bytes or not n_bytes else sum(number or 0.0 for number in n_bytes),
            None if None in spent_ms else sum(ms or 0.0 for ms in spent_ms) + (self.ms_per_query or 0.0),
        )

    def text(self, *, timed: bool = True) -> str:
        """What was joined and how, in one phrase that stands beside every score. timed: with milliseconds."""
        parts = " and ".join(part.text(timed=timed) for part in self.parts)
        norm = f" of {self.norm} scores" if self.norm not in (None, "none") else ""
        settings = "".join(
            f", {name} {value:g}" for name, value in self.settings.items() if isinstance(value, (int, float))
        )
        tuned = f", settings {self.tuning}" if self.tuning else ""
        spent = f" in {self.ms_per_query:.1f} ms per query" if timed and self.ms_per_query is not None else ""
        return f"fused by {self.method}{norm}{settings}{spent}: {parts}{tuned}"

    def __str__(self) -> str:
        return self.text(timed=False)

    def to_json(self) -> dict[str, object]:
        """As files store it; what there is not is left out."""
        content: dict[str, object] = {
            "kind": self.kind,
            "method": self.method,
            "norm": self.norm,
            "settings": dict(self.settings) or None,
            "parts": [part.to_json() for part in self.parts],
            "tuning": self.tuning and self.tuning.to_json(),
            "ms_per_query": self.ms_per_query,
            "bytes_per_photo": self.costs()[0],
        }
        return {key: value for key, value in content.items() if value is not None}

    @classmethod
    def from_json(cls, value: object) -> "FusionRecord | None":
        """From a file; None where nothing was joined."""
        stored = object_of(value)
        if not stored:
            return None
        kinds: dict[object, FusedKind] = {"reranker": "reranker", "descriptors": "descriptors"}
        return cls(
            kind=kinds.get(stored.get("kind"), "rankings"),
            method=str(stored.get("method")),
            parts=tuple(FusedPart.from_json(part) for part in sequence_of(stored.get("parts"))),
            norm=of_kind(stored.get("norm"), str),
            settings=object_of(stored.get("settings")),
            tuning=TuningRecord.from_json(stored.get("tuning")),
            ms_per_query=number_of(stored.get("ms_per_query")),
        )
