"""What descriptors were made from: weights, photos, photos that were left out."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypedDict

from ultron_cli.retrieval.origin.fusion import FusionRecord
from ultron_cli.retrieval.origin.values import Json, object_of, objects_of, of_kind, whole_numbers


class StoredSkippedPhoto(TypedDict):
    """A photo that was left out, as descriptor files store it."""

    name: str
    reason: str


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
        stored = object_of(value)
        dataset, folder = (of_kind(stored.get(key), str) for key in ("dataset", "dataset_folder"))
        if dataset is None and folder is None:
            return None
        n_landmarks = of_kind(stored.get("n_landmarks"), int)
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
        stored = object_of(value)
        return cls(kind=of_kind(stored.get("kind"), str), path=of_kind(stored.get("path"), str), stored=stored)

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
            cls(name=str(value.get("name")), reason=str(value.get("reason")), state=whole_numbers(value.get("state")))
            for value in objects_of(values)
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
        stored = object_of(value)
        named_keys = {part.name for part in fields(cls)} - {"other"}
        return cls(
            weights=WeightsSource.from_json(stored.get("weights")),
            dataset_folder=of_kind(stored.get("dataset_folder"), str),
            ground_truth=of_kind(stored.get("ground_truth"), str),
            whitening=of_kind(stored.get("whitening"), str),
            runtime_cosine=of_kind(stored.get("runtime_cosine"), float),
            whitening_learned_from=LearnedFrom.from_json(stored.get("whitening_learned_from")),
            fusion=FusionRecord.from_json(stored.get("fusion")),
            other={key: part for key, part in stored.items() if key not in named_keys},
        )
