"""The local features by which leaks are told, found where they are not there yet.

RootSIFT at a quarter of its usual contrast: photos of fog, of the night and blurred ones have few features, and a copy
among them would be missed for want of places to compare.
"""

from pathlib import Path

import torch

from ultron_cli.console import log
from ultron_cli.datasets.folder import open_recorded
from ultron_cli.errors import UltronError
from ultron_cli.local import choose_detector
from ultron_cli.locks import only_writer
from ultron_cli.retrieval.extraction.files import extract_file
from ultron_cli.retrieval.extraction.shards import ExtractWork
from ultron_cli.retrieval.local_features.extraction import LocalConfig, LocalExtraction
from ultron_cli.retrieval.local_features.files import local_path, open_local_features
from ultron_cli.retrieval.whitening import open_descriptors

DETECTOR = "rootsift"
CONTRAST = 0.01  # of RootSIFT's contrast_threshold
MAX_KEYPOINTS, MAX_SIDE_PX = 800, 640  # as `ultron extract --local` has them
SUFFIX = ".leaks.local.h5"
USUAL_CONTRAST = 0.04


def leak_features(descriptor_path: Path, n_workers: int | None = None) -> Path | None:
    """A file of local features of the photos of a descriptor file: one that lies beside it and is of faint features
    too, else one that is made, continued or taken up beside it. Where the photos are gone, whatever lies beside; None
    where nothing does. n_workers: processes that detect, 1: this one; None chooses.

    Raises UltronError if a file is damaged, or the photos are others by now.
    """
    beside = local_path(descriptor_path)
    if beside.exists() and has_faint_features(beside):
        return beside
    with open_descriptors(descriptor_path) as descriptors:
        info, names = descriptors.info, list(descriptors.names)
    try:
        dataset = open_recorded(info.provenance.dataset_folder, info.provenance.ground_truth)
    except UltronError as error:
        log.info("no faint features are found for leaks of %s: %s", descriptor_path, error.message)
        return beside if beside.exists() else None
    choice = choose_detector(DETECTOR, [f"contrast_threshold={CONTRAST}"])
    detector = choice.make()
    config = LocalConfig(
        dataset=dataset.name,
        photos_sha256=dataset.fingerprint(names, boxes=info.crop == "bbx"),
        role=info.role,
        crop="bbx" if info.crop == "bbx" else "none",
        detector=choice.name,
        settings=choice.stored_settings(),
        comparison=detector.comparison,
        descriptor_type=detector.descriptor_type,
        max_keypoints=MAX_KEYPOINTS,
        max_side_px=MAX_SIDE_PX,
    )
    work = ExtractWork(device=torch.device("cpu"), n_workers=0 if n_workers == 1 else n_workers, skip_bad=True)
    path = descriptor_path.with_suffix(SUFFIX)
    with only_writer(path.parent, f"another command is writing {path.parent}", wait=True):
        return extract_file(LocalExtraction(dataset, names, detector, config, work), path).path


def has_faint_features(path: Path) -> bool:
    """Whether the features of a file are SIFT's, of no more contrast than is asked for here. Raises UltronError if it
    is damaged."""
    with open_local_features(path) as file:
        settings = file.info.settings
        contrast = settings.get("contrast_threshold", USUAL_CONTRAST)
        return file.info.detector in ("rootsift", "sift") and isinstance(contrast, float) and contrast <= CONTRAST
