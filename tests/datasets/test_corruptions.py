"""Photos made worse: the same for a name whatever else happens, worse by severity, and never of another kind."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ultron_cli.datasets.corruptions import CORRUPTIONS, MOST_SEVERE, Corruption, parse_corruption
from ultron_cli.datasets.photos import PhotoShape, load_photo
from ultron_cli.errors import UltronError
from ultron_cli.user_code import fault_of_user, forget_permissions


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 x 120, smooth with edges."""
    y, x = np.mgrid[:120, :200]
    pixels = np.stack([x, 2 * y, (x * y) % 256], axis=2).astype(np.uint8)
    pixels[40:80, 60:120] = (200, 30, 30)
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


SHAPE = PhotoShape(max_side_px=128)
BOX = (20.0, 20.0, 180.0, 100.0)


def worse(photo: Path, kind: str, severity: int, name: str = "a", seed: int = 0) -> np.ndarray:
    return load_photo(photo, BOX, SHAPE, Corruption(kind=kind, severity=severity, seed=seed), name)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_is_drawn_from_seed_kind_and_name(photo: Path, kind: str) -> None:
    plain = load_photo(photo, BOX, SHAPE)
    first = worse(photo, kind, 3)
    assert np.array_equal(first, worse(photo, kind, 3)) and not np.array_equal(first, plain)
    others = [worse(photo, kind, 3, name="b"), worse(photo, kind, 3, seed=1)]
    is_drawn = kind not in ("resolution", "jpeg", "blur", "light")
    changed = [other.shape != first.shape or not np.array_equal(first, other) for other in others]
    assert not any(changed) if not is_drawn else changed[1] or kind == "rotation"  # of two directions


@pytest.mark.parametrize("kind", [kind for kind in CORRUPTIONS if kind not in ("box", "resolution")])
def test_each_severity_is_worse_than_the_one_before(photo: Path, kind: str) -> None:
    plain = load_photo(photo, BOX, SHAPE).astype(float)
    errors = [np.abs(worse(photo, kind, severity) - plain).mean() for severity in range(1, MOST_SEVERE + 1)]
    assert errors == sorted(errors) and errors[0] > 0


def test_resolution_is_of_the_query_as_the_network_gets_it(photo: Path) -> None:
    shapes = [worse(photo, "resolution", severity).shape for severity in (1, 2)]
    assert shapes == [(48, 96, 3), (32, 64, 3)]
    enlarged = PhotoShape(max_side_px=128, resize="always")
    corruption = Corruption(kind="resolution", severity=2)
    assert load_photo(photo, BOX, enlarged, corruption, "a").shape == (64, 128, 3)
    assert worse(photo, "resolution", 5).shape == (32, 32, 3)  # no side below what the network takes


def test_a_box_moves_and_stays_inside() -> None:
    corruption = Corruption(kind="box", severity=5)
    for name in map(str, range(200)):
        x1, y1, x2, y2 = corruption.box((10.0, 5.0, 90.0, 45.0), 100, 50, name)
        assert 0 <= x1 < x2 <= 100 and 0 <= y1 < y2 <= 50
        assert max(abs(x1 - 10), abs(x2 - 90)) <= 24 and max(abs(y1 - 5), abs(y2 - 45)) <= 12
    assert Corruption(kind="blur", severity=5).box(BOX, 100, 50, "a") == BOX


def test_severity_0_is_no_corruption() -> None:
    assert parse_corruption("none") is parse_corruption("jpeg:0") is None
    assert parse_corruption("jpeg:3", seed=2) == Corruption(kind="jpeg", severity=3, seed=2)
    assert Corruption(kind="jpeg", severity=3).amount == 15


@pytest.mark.parametrize(
    "text", ["jpeg", "jpeg:", "jpeg:x", "jpeg:1.5", "jpeg:6", "jpeg:-1", "jpg:3", ":3", "jpeg:³", "a" * 5000]
)
def test_what_is_no_corruption(text: str) -> None:
    with pytest.raises(UltronError, match=r"`corruption` (takes KIND:SEVERITY|must be one of)|`severity` must lie"):
        parse_corruption(text)


def test_a_kind_by_import_path(tmp_path: Path, photo: Path) -> None:
    """Drawn and recorded as those of ultron; of a file only after a person has named its code; wrong ones name the
    place."""
    code_file = tmp_path / "code_file.py"
    code_file.write_text(
        "class Dark:\n    amounts = [0.9, 0.7, 0.5, 0.3, 0.1]\n"
        "    def __call__(self, photo, amount, draws): return photo.point(lambda level: amount * level)\n"
        "class Grey(Dark):\n    def __call__(self, photo, amount, draws): return photo.convert('L')\n"
        "class Few(Dark): amounts = (1, 2)\n"
        "class Fails(Dark):\n    def __call__(self, photo, amount, draws): raise ValueError('no')\n"
        "class Made(Dark):\n    def __init__(self, n): ...\nclass Nothing: ...\n"
    )
    corruption = parse_corruption(f"{code_file}:Dark:3")
    assert corruption is not None and len(corruption.code_sha256 or "") == 64 and corruption.amount == 0.5
    assert pickle.loads(pickle.dumps(corruption)) == corruption  # as a process gets it that reads photos
    plain = load_photo(photo, BOX, SHAPE)
    assert np.abs(load_photo(photo, BOX, SHAPE, corruption, "a") - 0.5 * plain).max() <= 1
    assert parse_corruption(f"{code_file}:Dark:0") is None and corruption.box(BOX, 200, 120, "a") == BOX
    for name, words in (
        ("Grey", "line 5: Grey must give an RGB photo of Pillow; found a photo of mode L"),
        ("Few", "line 6: amounts of Few must be 5 numbers, by severity; found (1, 2)"),
        ("Made", "line 10: Made must be made by Made(); found (n)"),
        ("Nothing", "line 11: Nothing needs the method __call__(photo, amount, draws), see UserCorruption"),
    ):
        with pytest.raises(UltronError) as error:
            parse_corruption(f"{code_file}:{name}:1")
        assert str(error.value).startswith(f"{code_file}, {words}")
    with pytest.raises(ValueError, match="no") as fault:
        parse_corruption(f"{code_file}:Fails:1")
    assert fault_of_user(fault.value) == f"{code_file}, line 8, in __call__: ValueError: no; mend it"
    forget_permissions()
    stored = Corruption(kind="other/code_file.py:Dark", severity=3, code_sha256=corruption.code_sha256)
    with pytest.raises(
        UltronError, match=r"these descriptors was made with other/code_file\.py:Dark, code that is run only"
    ):
        stored.box(BOX, 200, 120, "a")
