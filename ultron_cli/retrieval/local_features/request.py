"""Local features that are wanted beside descriptors: of the same photos, in files beside theirs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypedDict, cast

from ultron_cli.datasets.folder import Dataset
from ultron_cli.local import DetectorChoice
from ultron_cli.local.dense import DenseSettings
from ultron_cli.local.detectors import Detector
from ultron_cli.retrieval.extraction.described import DescriptorExtraction
from ultron_cli.retrieval.extraction.files import extract_file
from ultron_cli.retrieval.extraction.processes import ExtractionProcesses
from ultron_cli.retrieval.local_features.dense import DenseDetector, DenseExtraction, projection_digest
from ultron_cli.retrieval.local_features.extraction import LocalConfig, LocalExtraction
from ultron_cli.retrieval.local_features.files import local_path, open_local_features
from ultron_cli.retrieval.origin import WeightsSource


@dataclass(frozen=True, kw_only=True)
class LocalRequest:
    """Local features that are wanted beside the descriptors."""

    detector: DetectorChoice
    max_keypoints: int = 800  # of a photo
    max_side_px: int = 640  # longest side of photos, or of their boxes; 0: as they are


class LocalFile(TypedDict):
    """What is said of one written file of local features."""

    path: str
    n: int  # photos
    computed: int  # of them, now
    n_features: int
    bytes_per_photo: float


def local_extractions(
    request: LocalRequest,
    dataset: Dataset,
    described: Mapping[Literal["query", "database"], tuple[Path, DescriptorExtraction]],
) -> dict[str, tuple[Path, LocalExtraction]]:
    """By role, the database first, where the local features go and their extraction. described: where the descriptors
    of the same photos go, and theirs."""
    choice = request.detector
    if choice.needs_network:
        return _dense_extractions(request, dataset, described)
    detector = choice.make(next(extraction for _, extraction in described.values()).work.device)
    weights_path = getattr(detector, "weights_path", None)
    weights = WeightsSource.from_json({"kind": "detector", "path": str(weights_path)}) if weights_path else None
    extractions = {}
    for role, (path, extraction) in sorted(described.items()):
        config = _config(request, dataset, extraction, detector)
        local = LocalExtraction(dataset, extraction.names, detector, config, extraction.work, weights)
        extractions[role] = (local_path(path), local)
    return extractions


def _config(
    request: LocalRequest, dataset: Dataset, extraction: DescriptorExtraction, detector: Detector
) -> LocalConfig:
    choice, described = request.detector, extraction.config
    settings = choice.stored_settings()
    if sha256 := getattr(detector, "weights_sha256", None):
        settings["weights"] = sha256  # a file is known by what it holds, wherever it lies
    return LocalConfig(
        dataset=dataset.name,
        photos_sha256=described.photos_sha256,
        role=described.role,
        crop=described.crop,
        corruption=described.corruption,
        detector=choice.name,
        settings=settings,
        code_sha256=choice.part.sha256 if choice.part else None,
        comparison=detector.comparison,
        descriptor_type=detector.descriptor_type,
        max_keypoints=request.max_keypoints,
        max_side_px=request.max_side_px or None,
    )


def _dense_extractions(
    request: LocalRequest,
    dataset: Dataset,
    described: Mapping[Literal["query", "database"], tuple[Path, DescriptorExtraction]],
) -> dict[str, tuple[Path, LocalExtraction]]:
    """As local_extractions, of places of the map of the network that describes the photos."""
    settings = cast(DenseSettings, request.detector.settings)
    first = next(extraction for _, extraction in described.values())
    loaded, work = first.loaded, first.work
    detector = DenseDetector(settings, loaded.model, work.device)
    source = Path(settings.projection).expanduser() if settings.projection else None
    # A file is known by what it holds, wherever it lies.
    stored = {**request.detector.stored_settings(), "projection": projection_digest(source) if source else ""}
    extractions: dict[str, tuple[Path, LocalExtraction]] = {}
    for role, (path, extraction) in sorted(described.items()):
        network = {
            "model": loaded.model.made_of(),
            "weights_sha256": loaded.weights_sha256,
            "preprocessing": extraction.config.preprocessing,
            "resize": extraction.config.resize,
            "box_edges": extraction.config.box_edges,
            "layer": detector.layer,
            "cell_px": detector.cell_px,
        }
        config = replace(_config(request, dataset, extraction, detector), settings=stored, network=network)
        local = DenseExtraction(
            dataset,
            extraction.names,
            detector,
            config,
            work,
            shape=replace(extraction.shape, max_side_px=config.max_side_px),
            weights=WeightsSource.from_json(loaded.source),
            source=source or (None if role == "database" else local_path(described["database"][0])),
        )
        extractions[role] = (local_path(path), local)
    return extractions


def extract_local(extraction: LocalExtraction, path: Path, processes: ExtractionProcesses) -> LocalFile:
    """Writes a file of local features; returns what is said of it."""
    result = extract_file(extraction, path, processes)
    with open_local_features(path) as file:
        return {
            "path": str(path),
            "n": result.n_photos,
            "computed": result.n_computed,
            "n_features": file.n_features,
            "bytes_per_photo": round(file.bytes_per_photo, 1),
        }
