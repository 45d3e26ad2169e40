"""What detectors give: places to a fraction of a pixel, in one order, packed as documented."""

from pathlib import Path

import numpy as np
import pytest

from ultron_cli import user_code
from ultron_cli.errors import UltronError
from ultron_cli.local import DETECTORS, choose_detector
from ultron_cli.local.detectors import root_sift, strongest
from ultron_cli.local.features import LocalFeatures

NAMES = sorted(name for name, entry in DETECTORS.items() if entry.detector and not entry.takes_weights)


def blob(x: float, y: float, sd: float, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    """(H, W, 3) uint8: a bright spot at a place, the centre of the upper left pixel at (0, 0)."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    grey = 40 + 170 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sd * sd))
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2)


def noise(seed: int = 0, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    """(H, W, 3) uint8: blocks of chance, full of corners."""
    blocks = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


@pytest.mark.parametrize("name", ["sift", "rootsift"])
@pytest.mark.parametrize(("x", "y", "sd"), [(60.3, 50.7, 4.0), (81.5, 60.25, 8.0)])
def test_a_spot_is_where_it_is(name: str, x: float, y: float, sd: float) -> None:
    """Within 0.1 px; without OpenCV's precise upscaling it would be 0.25 px off."""
    features = strongest(choose_detector(name).make().detect(blob(x, y, sd), 800), 800)
    assert np.abs(features.positions - (x, y)).max() < 0.1
    assert abs(features.scales[0] / sd - 1.78) < 0.1  # a diameter
    assert len(features) > 1 and len(set(features.angles.tolist())) == len(features)  # one in each direction


@pytest.mark.parametrize("name", NAMES)
def test_every_detector_gives_what_it_promises(name: str) -> None:
    detector = choose_detector(name).make()
    features = strongest(detector.detect(noise(), 50), 50)
    assert 0 < len(features) <= 50 and features.size == (160, 120)
    assert features.descriptors.shape == (len(features), detector.descriptor_dim)
    assert features.descriptors.dtype == detector.descriptor_type
    assert (np.diff(features.strengths) <= 0).all() and (features.scales > 0).all()
    assert ((features.angles >= 0) & (features.angles < 360)).all()
    again = strongest(detector.detect(noise(), 50), 50)
    assert again.descriptors.tobytes() == features.descriptors.tobytes()
    assert again.positions.tobytes() == features.positions.tobytes()
    for pixels in (np.full((64, 64, 3), 90, np.uint8), noise(size=(16, 16)), noise(size=(1600, 16))):
        flat = detector.detect(pixels, 50)  # a wall, small, thin
        assert flat.descriptors.shape[1:] == (detector.descriptor_dim,)
        assert flat.descriptors.dtype == detector.descriptor_type


def test_opencv_keeps_its_threads() -> None:
    cv2 = pytest.importorskip("cv2")
    n_before = cv2.getNumThreads()
    choose_detector("orb").make().detect(noise(), 5)
    assert cv2.getNumThreads() == n_before


def test_root_sift_by_hand() -> None:
    descriptors = np.zeros((3, 128), np.float32)
    descriptors[0, :4] = 1  # shares of a quarter: roots of a half, 256, at most 255
    descriptors[1] = 7  # 1 / 128 each: 512 * 0.0884
    packed = root_sift(descriptors)
    assert packed.dtype == np.uint8 and packed[0, :5].tolist() == [255, 255, 255, 255, 0]
    assert set(packed[1].tolist()) == {45} and not packed[2].any()


def test_raw_sift_is_as_opencv_gives_it() -> None:
    raw, root = (choose_detector(name).make().detect(noise(), 20) for name in ("sift", "rootsift"))
    assert root_sift(raw.descriptors.astype(np.float32)).tolist() == root.descriptors.tolist()


def test_equal_strengths_are_ordered_by_place() -> None:
    features = LocalFeatures(
        positions=np.array([[5, 2], [4, 2], [9, 1], [0, 0]], np.float32),
        scales=np.ones(4, np.float32),
        angles=np.zeros(4, np.float32),
        strengths=np.array([1, 1, 1, 2], np.float32),
        descriptors=np.arange(4, dtype=np.uint8)[:, None],
        size=(10, 10),
    )
    assert strongest(features, 3).descriptors[:, 0].tolist() == [3, 2, 1]


@pytest.mark.parametrize(
    ("name", "assignment", "text"),
    [
        ("surf", "", "must be one of rootsift, sift, orb, dense"),
        ("sift", "contrast=1", "unknown setting contrast"),
        ("sift", "contrast_threshold=2", "`local.contrast_threshold` must lie between 0 and 1"),
        ("orb", "n_levels", "`local_set` takes key=value (sigma=1.2)"),
    ],
)
def test_wrong_choices_are_one_line(name: str, assignment: str, text: str) -> None:
    with pytest.raises(UltronError) as error:
        choose_detector(name, [assignment] if assignment else [])
    assert text in error.value.message


CORNERS = """
import numpy as np
from ultron_cli.local.features import LocalFeatures

class Corners:
    descriptor_dim = 2
    descriptor_type = "float32"
    comparison = "l2"

    def __init__(self, *, margin: int = 0) -> None:
        self.margin = margin

    def detect(self, pixels, max_keypoints):
        height, width = pixels.shape[:2]
        places = np.array([[self.margin, self.margin], [width - 1, height - 1]], np.float32)
        return LocalFeatures(positions=places, scales=np.ones(2, np.float32), angles=np.zeros(2, np.float32),
            strengths=np.ones(2, np.float32), descriptors=np.eye(2, dtype=np.float32), size=(width, height))
"""


@pytest.fixture
def corners(tmp_path: Path) -> Path:
    path = tmp_path / "corners.py"
    path.write_text(CORNERS)
    return path


def test_a_detector_goes_in_by_import_path(corners: Path) -> None:
    choice = choose_detector(f"{corners}:Corners", ["margin=3"])
    features = choice.make().detect(noise(), 10)
    assert features.positions.tolist() == [[3, 3], [159, 119]] and choice.stored_settings() == {"margin": 3}
    user_code.forget_permissions()


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("    descriptor_dim = 2\n", "", "needs descriptor_dim"),
        ('comparison = "l2"', 'comparison = "cosine"', "needs comparison, one of l2, hamming"),
        ("def detect(", "def find(", "needs the method detect"),
        ("np.eye(2, ", "np.eye(3, ", "must be"),
        ("dtype=np.float32)", "dtype=np.float64)", "must give descriptors of ((2, 2), 'float32')"),
        ("size=(width, height)", "size=(1, 1)", "must give the size of its pixels"),
        ("scales=np.ones(", "scales=np.zeros(", "scales over 0"),
        ("strengths=np.ones(2", "strengths=np.nan * np.ones(2", "must give finite numbers"),
        ("return LocalFeatures(", "return dict(", "must give LocalFeatures"),
    ],
)
def test_a_detector_that_lacks_something_is_named(corners: Path, old: str, new: str, text: str) -> None:
    corners.write_text(CORNERS.replace(old, new))
    with pytest.raises(UltronError) as error:
        choose_detector(f"{corners}:Corners").make().detect(noise(), 10)
    assert text in error.value.message, error.value.message
    user_code.forget_permissions()
