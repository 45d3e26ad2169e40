"""Local features of photos that no file holds, found as those of a file were."""

from dataclasses import dataclass
from pathlib import Path

from ultron_cli.datasets.photos import PhotoShape, load_placed
from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError
from ultron_cli.local import recorded_detector
from ultron_cli.local.features import LocalFeatures
from ultron_cli.retrieval.local_features.dense import detection_like
from ultron_cli.retrieval.local_features.extraction import Placing, local_shape
from ultron_cli.retrieval.local_features.files import LocalFeatureFile


@dataclass(frozen=True, kw_only=True)
class Detection:
    """How the features of a file were found, ready to find those of other photos."""

    shape: PhotoShape  # of the pixels that `place` takes
    place: Placing

    @classmethod
    def like(cls, file: LocalFeatureFile) -> "Detection":
        """As those of a file. Raises UltronError if its detector is unknown, or is code that nobody has named."""
        info = file.info
        code_sha256 = info.extraction.stored.get("code_sha256")
        weights = info.origin.weights
        choice = recorded_detector(
            info.detector, info.settings, str(code_sha256 or "") or None, file.path, weights.path if weights else None
        )
        if choice.needs_network:
            shape, detector = detection_like(file)
            return cls(shape=shape, place=Placing(detector, info.max_keypoints))
        detector = choice.make()
        sha256 = getattr(detector, "weights_sha256", None)
        if sha256 is not None and sha256 != info.settings["weights"]:
            raise UltronError(
                f"{weights} holds other weights than those by which {file.path} was made (SHA-256 {sha256:.12}, and "
                f"{info.settings['weights']!s:.12}); put those there, or extract again"
            )
        return cls(shape=local_shape(info.max_side_px), place=Placing(detector, info.max_keypoints))

    def of_photo(self, path: Path, box: Box | None = None) -> LocalFeatures:
        """The features of a photo, or of its part within a box; pixels of the upright photo. Raises UltronError."""
        return self.place(load_placed(path, box, self.shape))
