"""Local features that are wanted beside descriptors: of the same photos, in files beside theirs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from ultron_cli.datasets.folder import Dataset
from ultron_cli.local import DetectorChoice
from ultron_cli.retrieval.extraction.described import DescriptorExtraction
from ultron_cli.retrieval.extraction.files import extract_file
from ultron_cli.retrieval.extraction.processes import ExtractionProcesses
from ultron_cli.retrieval.local_features.extraction import LocalConfig, LocalExtraction
from ultron_cli.retrieval.local_features.files import local_path, open_local_features


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
    detector = choice.make()
    extractions = {}
    for role, (path, extraction) in sorted(described.items()):
        config = LocalConfig(
            dataset=dataset.name,
            photos_sha256=extraction.config.photos_sha256,
            role=role,
            crop=extraction.config.crop,
            corruption=extraction.config.corruption,
            detector=choice.name,
            settings=choice.stored_settings(),
            code_sha256=choice.part.sha256 if choice.part else None,
            comparison=detector.comparison,
            descriptor_type=detector.descriptor_type,
            max_keypoints=request.max_keypoints,
            max_side_px=request.max_side_px or None,
        )
        local = LocalExtraction(dataset, extraction.names, detector, config, extraction.work)
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
