"""How descriptors were made, as the `config` of their file says."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from ultron_cli.configs import differences
from ultron_cli.retrieval.origin.fusion import FUSED_MODEL
from ultron_cli.retrieval.origin.imported import ImportRecord, StoredImport
from ultron_cli.retrieval.origin.values import Json, object_of, objects_of, of_kind

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

    imported: list[StoredImport]
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
        return None if self.imported else of_kind(object_of(self.stored.get("model")).get("name"), str)

    @property
    def imported(self) -> tuple[ImportRecord, ...]:
        """The files of other tools that the descriptors are of; none where ultron made them."""
        return tuple(ImportRecord.from_json(record) for record in objects_of(self.stored.get("imported")))

    @property
    def model_settings(self) -> Json:
        """Settings of the model."""
        return object_of(object_of(self.stored.get("model")).get("settings"))

    @property
    def crop(self) -> str | None:
        """`bbx`: queries were cropped to their boxes; `none`: whole photos; `unknown`: another tool made them, and
        nobody said."""
        return of_kind(self.stored.get("crop"), str)

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
        return of_kind(self.stored.get("max_side_px"), int)

    @property
    def corruption(self) -> str | None:
        """`jpeg 3`: how query photos were made worse on purpose, and how severely; None for plain photos."""
        record = object_of(self.stored.get("corruption"))
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
        record = object_of(self.stored.get("whitening"))
        if not record:
            return None
        return WhiteningRecord(
            method=str(record.get("method")),
            dim=of_kind(record.get("dim"), int) or 0,
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
