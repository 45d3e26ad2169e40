"""The whole of what made a ranking or a score, and what two of them differ in."""

from dataclasses import dataclass, field, fields, replace
from typing import TypedDict

from ultron_cli.configs import flatten
from ultron_cli.retrieval.origin.extraction import ExtractionRecord, StoredExtraction
from ultron_cli.retrieval.origin.fusion import FusionRecord, StoredFusion
from ultron_cli.retrieval.origin.imported import ImportRecord, StoredImport
from ultron_cli.retrieval.origin.search import DistractorRecord, SearchRecord, StoredDistractors, StoredSearch
from ultron_cli.retrieval.origin.sources import LearnedFrom, SkippedPhoto, StoredSkippedPhoto, WeightsSource
from ultron_cli.retrieval.origin.values import (
    ABSENT,
    SHOWN_OF_SHA256,
    Json,
    in_words,
    object_of,
    objects_of,
    of_kind,
    two_texts,
)

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
            packages = object_of((record or {}).get("packages"))
            versions = {"ultron": (record or {}).get("ultron_version"), **packages}
            facts |= {f"{who} {name}": version for name, version in versions.items() if version is not None}
        return {name: in_words(value) for name, value in facts.items()}

    def conditions(self) -> dict[str, str]:
        """The facts without those of the system itself (model, weights, its preprocessing) and without versions: under
        which conditions it was evaluated."""
        stored = {key: value for key, value in self.extraction.stored.items() if key not in OF_THE_SYSTEM}
        if whitening := object_of(stored.get("whitening")):
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
        stored = object_of(value)
        named_keys = {"config", *(part.name for part in fields(cls))} - {"extraction", "other"}
        cut = stored.get("k")
        return cls(
            dataset=of_kind(stored.get("dataset"), str),
            model=of_kind(stored.get("model"), str),
            weights_sha256=of_kind(stored.get("weights_sha256"), str),
            extraction=ExtractionRecord(stored=object_of(stored.get("config"))),
            weights=WeightsSource.from_json(stored.get("weights")),
            dataset_folder=of_kind(stored.get("dataset_folder"), str),
            database_folder=of_kind(stored.get("database_folder"), str),
            ground_truth=of_kind(stored.get("ground_truth"), str),
            whitening_learned_from=LearnedFrom.from_json(stored.get("whitening_learned_from")),
            descriptors=two_texts(stored.get("descriptors")),
            skipped=SkippedPhoto.list_from_json(stored.get("skipped")),
            search=SearchRecord.from_json(stored.get("search")),
            distractors=tuple(DistractorRecord.from_json(part) for part in objects_of(stored.get("distractors"))),
            imported=tuple(ImportRecord.from_json(record) for record in objects_of(stored.get("imported"))),
            fusion=FusionRecord.from_json(stored.get("fusion")),
            searched_by=of_kind(stored.get("searched_by"), dict),
            k=cut if isinstance(cut, int) else None,
            duplicates=of_kind(stored.get("duplicates"), str),
            ties=of_kind(stored.get("ties"), str),
            evaluated_by=of_kind(stored.get("evaluated_by"), dict),
            other={key: part for key, part in stored.items() if key not in named_keys},
        )
