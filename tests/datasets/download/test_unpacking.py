"""Archives from strangers: what is sound is unpacked, everything else is refused and writes nothing outside."""

import io
import stat
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from tests.datasets.conftest import files_below, jpeg, tar_of
from tests.mutations import mutated
from ultron_cli.datasets.download import unpacking
from ultron_cli.datasets.download.fetching import Stopped
from ultron_cli.datasets.download.unpacking import Unsafe, unpack
from ultron_cli.errors import WorkFailed

PHOTOS = {"paris/defense/paris_defense_000000.jpg": jpeg(1), "paris/eiffel/paris_eiffel_000001.jpg": jpeg(2)}


def zip_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def write(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "a.bin").write_bytes(data)
    return tmp_path / "a.bin"


@pytest.mark.parametrize(
    "pack", [lambda f: tar_of(f, "w"), tar_of, lambda f: tar_of(f, "w:bz2"), lambda f: tar_of(f, "w:xz"), zip_of]
)
def test_every_kind_of_archive(tmp_path: Path, pack: object) -> None:
    archive = write(tmp_path, pack(PHOTOS | {"paris/._x.jpg": b"resource fork", "paris/notes.txt": b"text"}))  # type: ignore[operator]
    assert unpack(archive, tmp_path / "tree") == 3
    assert files_below(tmp_path / "tree") == {*PHOTOS, "paris/notes.txt"}
    assert unpack(archive, tmp_path / "flat", flat=True) == 2
    assert files_below(tmp_path / "flat") == {"paris_defense_000000.jpg", "paris_eiffel_000001.jpg"}
    assert (tmp_path / "flat" / "paris_eiffel_000001.jpg").read_bytes() == PHOTOS[
        "paris/eiffel/paris_eiffel_000001.jpg"
    ]


@pytest.mark.parametrize(
    "name", ["../out.jpg", "/out.jpg", "a/../../out.jpg", "C:\\out.jpg", "a\\..\\out.jpg", "a\nb.jpg"]
)
@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_paths_that_leave_the_folder(tmp_path: Path, name: str, pack: object) -> None:
    archive = write(tmp_path, pack({"good.jpg": b"x", name: b"y"}))  # type: ignore[operator]
    with pytest.raises(Unsafe, match="leaves its folder or is no file name"):
        unpack(archive, tmp_path / "in")
    assert files_below(tmp_path) == {"a.bin", "in/good.jpg"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    def edit(entry: tarfile.TarInfo) -> None:
        if entry.name == "bad.jpg":
            entry.type, entry.linkname, entry.size = kind, "/etc/passwd", 0

    with pytest.raises(Unsafe, match="only plain files are unpacked"):
        unpack(write(tmp_path, tar_of({"bad.jpg": b""}, edit=edit)), tmp_path / "in")
    assert not (tmp_path / "in" / "bad.jpg").is_symlink()


def test_a_link_in_a_zip(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        entry = zipfile.ZipInfo("bad.jpg")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(Unsafe, match="a link or a device"):
        unpack(write(tmp_path, stream.getvalue()), tmp_path / "in")


@pytest.mark.parametrize("pack", [tar_of, lambda f: tar_of(f, "w:xz"), zip_of])
def test_an_archive_that_expands_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: object) -> None:
    monkeypatch.setattr(unpacking, "SPARE_BYTES", 0)
    archive = write(tmp_path, pack({"a.jpg": bytes(1000), "bomb.jpg": bytes(3_000_000)}))  # type: ignore[operator]
    with pytest.raises(Unsafe, match="expands to more than"):
        unpack(archive, tmp_path / "in")
    assert not (tmp_path / "in" / "bomb.jpg").exists()


@pytest.mark.parametrize("pack", [lambda f: tar_of(f, "w"), tar_of, lambda f: tar_of(f, "w:xz"), zip_of])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_an_archive_that_is_cut_short(tmp_path: Path, pack: object, share: float) -> None:
    data = pack(PHOTOS | {"paris/last.jpg": bytes(i * i % 251 for i in range(90_000))})  # type: ignore[operator]
    with pytest.raises(Unsafe, match="damaged or not an archive"):
        unpack(write(tmp_path, data[: int(len(data) * share)]), tmp_path / "in")


def test_a_tar_cut_between_two_files(tmp_path: Path) -> None:
    data = tar_of({"a.jpg": bytes(512), "b.jpg": bytes(512)}, "w")
    with pytest.raises(Unsafe, match="the end mark is missing"):
        unpack(write(tmp_path, data[:1024]), tmp_path / "in")


def test_a_flipped_bit_in_a_compressed_archive(tmp_path: Path) -> None:
    data = bytearray(tar_of({"a.jpg": bytes(i * i % 251 for i in range(9000))}))
    data[-8] ^= 1  # the checksum at its end
    with pytest.raises(Unsafe, match="damaged or not an archive"):
        unpack(write(tmp_path, bytes(data)), tmp_path / "in")


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"PK\x03\x04 broken", b"\x1f\x8b broken"])
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Unsafe, match="damaged or not an archive"):
        unpack(write(tmp_path, data), tmp_path / "in")


def test_two_files_of_one_name_and_no_photos(tmp_path: Path) -> None:
    with pytest.raises(Unsafe, match=r"two files that would be 'x\.jpg'"):
        unpack(write(tmp_path, tar_of({"a/x.jpg": b"1", "b/x.jpg": b"2"})), tmp_path / "in", flat=True)
    with pytest.raises(Unsafe, match="as a file and as a folder"):
        unpack(write(tmp_path, tar_of({"a": b"1", "a/x.jpg": b"2"})), tmp_path / "in2")
    with pytest.raises(Unsafe, match="holds no photos"):
        unpack(write(tmp_path, tar_of({"readme.txt": b"1"})), tmp_path / "in3", flat=True)


def test_interruption_and_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    archive = write(tmp_path, tar_of(PHOTOS))
    with pytest.raises(Stopped):
        unpack(archive, tmp_path / "in", stop=stop)
    with pytest.raises(WorkFailed, match="could not write"):
        unpack(archive, Path("/proc/nowhere"))


def refusal(tmp_path: Path, data: bytes) -> str:
    with pytest.raises(Unsafe) as caught:
        unpack(write(tmp_path, data), tmp_path / "in")
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_damage_that_python_tells_in_other_words(tmp_path: Path) -> None:
    content = bytes(i * i % 251 for i in range(9000))
    bz2 = bytearray(tar_of({"a.jpg": content}, "w:bz2"))
    bz2[len(bz2) // 2] ^= 255
    assert "damaged" in refusal(tmp_path, bytes(bz2))
    zipped = zip_of({"a.jpg": content})
    directory = zipped.index(b"PK\x01\x02")
    for place, value in (
        (directory + 42, b"\xff\xff\xff\x7f"),  # where the file begins
        (directory + 8, b"\x00\x08"),  # a name in UTF-8 that is none
        (directory + 10, b"\x63\x00"),  # a compression that is none
        (len(zipped) - 6, b"\x00\x00\x00\xf0"),  # where the directory begins
    ):
        broken = bytearray(zipped.replace(b"a.jpg", b"\xff.jpg"))
        broken[place : place + len(value)] = value
        assert "damaged" in refusal(tmp_path, bytes(broken))


@pytest.mark.parametrize("size", ["-5", "-512", "x", "9" * 30, "1e3"])
def test_sizes_that_are_none(tmp_path: Path, size: str) -> None:
    def edit(entry: tarfile.TarInfo) -> None:
        entry.pax_headers = {"size": size}

    message = refusal(tmp_path, tar_of({"a.jpg": b"x" * 600, "b.jpg": b"y"}, edit=edit))
    assert ("expands to more than" if size == "9" * 30 else "damaged") in message


@pytest.mark.parametrize("pack", [tar_of, zip_of])
@pytest.mark.parametrize("name", ["a" * 256 + ".jpg", "ü" * 128 + ".jpg", "/".join(["a" * 250] * 20) + "/b.jpg"])
def test_names_longer_than_file_systems_take(tmp_path: Path, pack: object, name: str) -> None:
    assert "which is too long for a file system" in refusal(tmp_path, pack({name: b"x"}))  # type: ignore[operator]


@pytest.mark.parametrize("name", ["._bomb.jpg", "__MACOSX/bomb.jpg", "notes.txt"])
@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_what_is_left_out_is_decompressed_within_the_limit_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: str
) -> None:
    monkeypatch.setattr(unpacking, "SPARE_BYTES", 0)
    archive = write(tmp_path, tar_of({name: bytes(3_000_000), "a.jpg": b"x"}, mode))
    with pytest.raises(Unsafe, match="expands to more than"):
        unpack(archive, tmp_path / "in", flat=True)


def test_a_file_with_holes(tmp_path: Path) -> None:
    def edit(entry: tarfile.TarInfo) -> None:
        entry.type = tarfile.GNUTYPE_SPARSE

    assert "damaged" in refusal(tmp_path, tar_of({"a.jpg": b""}, "w", edit=edit))


@pytest.mark.parametrize(
    "pack", [lambda f: tar_of(f, "w"), tar_of, lambda f: tar_of(f, "w:bz2"), lambda f: tar_of(f, "w:xz"), zip_of]
)
def test_bytes_changed_at_random(tmp_path: Path, pack: object) -> None:
    files = {f"paris/{i}.jpg": bytes(i * j % 251 for j in range(700)) for i in range(5)} | {"paris/._x": b"y" * 600}
    n_refused = 0
    for i, content in enumerate(mutated(pack(files), 3, 40)):  # type: ignore[operator]
        try:
            unpack(write(tmp_path, content), tmp_path / f"in{i}")
        except WorkFailed as error:
            n_refused += 1
            assert str(error).isprintable()
    assert n_refused > 5
    assert {path.parts[len(tmp_path.parts)][:2] for path in tmp_path.rglob("*")} <= {"a.", "in"}
