"""Detectors of local features: what each of them gives, and those of OpenCV.

SIFT (Lowe, IJCV 2004); RootSIFT (Arandjelovic and Zisserman, CVPR 2012); ORB (Rublee et al., ICCV 2011).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, Literal, Protocol, cast

import numpy as np

from ultron_cli.configs import within
from ultron_cli.errors import UltronError
from ultron_cli.local.features import LocalFeatures
from ultron_cli.user_code import UserPart, blaming

DescriptorType = Literal["uint8", "float16", "float32"]
# How descriptors compare: by their Euclidean distance, or by how many bits differ.
Comparison = Literal["l2", "hamming"]
ROOT_SCALE = 512.0  # of a RootSIFT number, which lies between 0 and 1 and is hardly ever over 0.5
SIFT_DIM = 128
ORB_BYTES = 32  # 256 bits


class Detector(Protocol):
    """Finds local features in photos. A class by import path has these attributes and this method, and is made of its
    settings, if it has some, by name.

    Where is_for_workers, it runs in processes that decode photos, beside each other and without a GPU.
    """

    descriptor_dim: int  # numbers of a descriptor; of binary ones, bytes
    descriptor_type: DescriptorType
    comparison: Comparison
    is_for_workers: bool

    def detect(self, pixels: np.ndarray, max_keypoints: int) -> LocalFeatures:
        """The features of an RGB photo, in any order and number; the strongest max_keypoints of them are stored.

        pixels: (H, W, 3) uint8. Positions are pixels of this array, whose size is that of the features too.
        """
        ...


def strongest(features: LocalFeatures, n: int) -> LocalFeatures:
    """At most n features, by strength and then by place, so that their order depends on nothing else."""
    x, y = features.positions.T
    order = np.lexsort((features.angles, features.scales, x, y, -features.strengths))[:n]
    return LocalFeatures(
        positions=features.positions[order],
        scales=features.scales[order],
        angles=features.angles[order],
        strengths=features.strengths[order],
        descriptors=features.descriptors[order],
        size=features.size,
    )


def root_sift(descriptors: np.ndarray) -> np.ndarray:
    """(n, 128) of SIFT, no number below 0 -> (n, 128) uint8: divided by their sum, square roots, times 512, rounded,
    at most 255. Euclidean distances of these are Hellinger distances of those."""
    sums = descriptors.sum(axis=1, keepdims=True, dtype=np.float32)
    roots = np.sqrt(descriptors / np.maximum(sums, np.finfo(np.float32).tiny))
    return np.minimum(np.rint(roots * np.float32(ROOT_SCALE)), 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class SiftSettings:
    """Of OpenCV's SIFT; the defaults are its own."""

    octave_layers: int = 3
    contrast_threshold: float = 0.04  # lower finds more in dim photos and on plain walls
    edge_threshold: float = 10.0  # higher keeps more along edges
    sigma: float = 1.6  # of the blur of the first octave, pixels

    def __post_init__(self) -> None:
        within("local.octave_layers", self.octave_layers, 1, 20)
        within("local.contrast_threshold", self.contrast_threshold, 0, 1)
        within("local.edge_threshold", self.edge_threshold, 1, 1000)
        within("local.sigma", self.sigma, 0.5, 10)


@dataclass(frozen=True, kw_only=True)
class OrbSettings:
    """Of OpenCV's ORB; the defaults are its own."""

    scale_factor: float = 1.2  # between two levels of the pyramid
    n_levels: int = 8
    fast_threshold: int = 20  # of grey levels, of a corner against its ring

    def __post_init__(self) -> None:
        within("local.scale_factor", self.scale_factor, 1.01, 4)
        within("local.n_levels", self.n_levels, 1, 32)
        within("local.fast_threshold", self.fast_threshold, 0, 255)


def _opencv() -> ModuleType:
    """OpenCV. Raises UltronError where it cannot be imported."""
    try:
        import cv2
    except ImportError as error:
        reason = str(error).strip().split("\n")[0][:160]
        raise UltronError(
            f"rootsift, sift and orb need OpenCV, which cannot be imported ({reason}); run `pip install "
            "opencv-python-headless`"
        ) from error
    return cv2


@contextmanager
def _one_thread(cv2: ModuleType) -> Iterator[None]:
    """Inside, OpenCV computes on the thread that calls it: photos share the cores, and a forked process has none of
    its parent's threads."""
    n_before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(n_before)


class Sift:
    """SIFT as OpenCV computes it: descriptors of 128 numbers, 0 to 255. A place whose gradients have several main
    directions is a feature in each of them."""

    descriptor_dim = SIFT_DIM
    descriptor_type: DescriptorType = "uint8"
    comparison: Comparison = "l2"
    is_for_workers = True

    def __init__(self, settings: SiftSettings) -> None:
        self.settings = settings
        _opencv()  # said before the first photo

    def detect(self, pixels: np.ndarray, max_keypoints: int) -> LocalFeatures:
        cv2 = _opencv()
        settings = self.settings
        # Without the precise upscaling every place would be a quarter of a pixel off to the lower right.
        sift = cv2.SIFT_create(
            nfeatures=max_keypoints,
            nOctaveLayers=settings.octave_layers,
            contrastThreshold=settings.contrast_threshold,
            edgeThreshold=settings.edge_threshold,
            sigma=settings.sigma,
            enable_precise_upscale=True,
        )
        with _one_thread(cv2):
            keypoints, descriptors = sift.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None)
        if descriptors is None:
            descriptors = np.empty((0, SIFT_DIM), np.float32)
        return _of_opencv(keypoints, self.pack(descriptors), pixels)

    def pack(self, descriptors: np.ndarray) -> np.ndarray:
        """(n, 128) float32 of whole numbers, 0 to 255 -> as they are stored."""
        return descriptors.astype(np.uint8)


class RootSift(Sift):
    """SIFT whose Euclidean distances are Hellinger distances: root_sift of its descriptors."""

    def pack(self, descriptors: np.ndarray) -> np.ndarray:
        return root_sift(descriptors)


class Orb:
    """ORB as OpenCV computes it: 256 bits."""

    descriptor_dim = ORB_BYTES
    descriptor_type: DescriptorType = "uint8"
    comparison: Comparison = "hamming"
    is_for_workers = True

    def __init__(self, settings: OrbSettings) -> None:
        self.settings = settings
        _opencv()

    def detect(self, pixels: np.ndarray, max_keypoints: int) -> LocalFeatures:
        cv2 = _opencv()
        settings = self.settings
        orb = cv2.ORB_create(
            nfeatures=max_keypoints,
            scaleFactor=settings.scale_factor,
            nlevels=settings.n_levels,
            fastThreshold=settings.fast_threshold,
        )
        with _one_thread(cv2):
            keypoints, descriptors = orb.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None)
        if descriptors is None:
            descriptors = np.empty((0, ORB_BYTES), np.uint8)
        return _of_opencv(keypoints, descriptors, pixels)


class _Keypoint(Protocol):
    """A keypoint of OpenCV."""

    pt: tuple[float, float]
    size: float
    angle: float  # -1 where it has none
    response: float


def _of_opencv(keypoints: Sequence[_Keypoint], descriptors: np.ndarray, pixels: np.ndarray) -> LocalFeatures:
    numbers = [(*point.pt, point.size, max(0.0, point.angle), point.response) for point in keypoints]
    columns = np.array(numbers, np.float32).reshape(-1, 5)
    return LocalFeatures(
        positions=columns[:, :2],
        scales=columns[:, 2],
        angles=columns[:, 3] % 360,
        strengths=columns[:, 4],
        descriptors=descriptors,
        size=(pixels.shape[1], pixels.shape[0]),
    )


class UserDetector:
    """A detector by import path, which is held to what it promises."""

    ATTRIBUTES: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "descriptor_type": ("uint8", "float16", "float32"),
        "comparison": ("l2", "hamming"),
    }

    def __init__(self, part: UserPart, detector: Detector) -> None:
        self.part = part
        self.detector = detector
        dim = getattr(detector, "descriptor_dim", None)
        if not isinstance(dim, int) or dim < 1:
            self._refuse("needs descriptor_dim, how many numbers (or bytes of bits) a descriptor has", dim)
        for name, values in self.ATTRIBUTES.items():
            if getattr(detector, name, None) not in values:
                self._refuse(f"needs {name}, one of {', '.join(map(str, values))}", getattr(detector, name, None))
        self.descriptor_dim: int = detector.descriptor_dim
        self.descriptor_type: DescriptorType = detector.descriptor_type
        self.comparison: Comparison = detector.comparison
        self.is_for_workers = False

    def _refuse(self, rule: str, value: object, method: str | None = None) -> None:
        raise UltronError(f"{self.part.place(method)}: {self.part.name} {rule}; found {value!s:.80}")

    def detect(self, pixels: np.ndarray, max_keypoints: int) -> LocalFeatures:
        with blaming(self.detector, "detect"):
            features = self.detector.detect(pixels, max_keypoints)
        if not isinstance(features, LocalFeatures):
            self._refuse("must give LocalFeatures of ultron_cli.local.features", type(features), "detect")
        form = (len(features), self.descriptor_dim), self.descriptor_type
        if (features.descriptors.shape, features.descriptors.dtype.name) != form:
            value = features.descriptors.shape, features.descriptors.dtype.name
            self._refuse(f"must give descriptors of {form}", value, "detect")
        numbers = (features.positions, features.scales, features.angles, features.strengths, features.descriptors)
        if not all(np.isfinite(values).all() for values in numbers):
            self._refuse("must give finite numbers", "others", "detect")
        width_and_height = (pixels.shape[1], pixels.shape[0])
        is_sound = (features.scales > 0) & (features.angles >= 0) & (features.angles < 360)
        if features.size != width_and_height or not is_sound.all():
            rule = "must give the size of its pixels, scales over 0 and angles of 0 up to 360"
            self._refuse(rule, f"{features.size} of {width_and_height}", "detect")
        return features


def user_detector(part: UserPart, settings: Mapping[str, object]) -> UserDetector:
    """The detector of a class by import path. Raises UltronError, naming the place, unless it is one."""
    part.require_method("detect", Detector)
    return UserDetector(part, cast(Detector, part.made(settings=settings, prefix="local.")))
