"""Whole datasets from a local server: laid out as the real ones, resumed, checked, recorded, and never half there."""

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from tests.datasets.conftest import files_below, jpeg, tar_of
from tests.datasets.misbehaving_server import MisbehavingServer
from ultron_cli.console import start_log
from ultron_cli.datasets.download import install
from ultron_cli.datasets.download.catalog import DOLG_DESCRIPTORS, GLDV2_TEST, ROXFORD5K, RPARIS6K
from ultron_cli.datasets.download.fetching import FetchOptions
from ultron_cli.datasets.download.install import Installation, InstallOptions
from ultron_cli.datasets.download.known_set import KnownSet
from ultron_cli.datasets.download.mirrors import read_mirrors
from ultron_cli.datasets.download.source_record import read_seen_checksums, read_source
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.locks import only_writer
from ultron_cli.machine import size_text

OXFORD_PHOTOS = {f"oxford_{i:06d}.jpg": jpeg(i) for i in range(4)}
PARIS_PHOTOS = [{f"paris/defense/paris_{i}_{j}.jpg": jpeg(10 * i + j) for j in range(2)} for i in (1, 2)]


def ground_truth(database: list[str], queries: list[str]) -> bytes:
    gnd = [{"bbx": [1.0, 1.0, 20.0, 20.0], "easy": [0], "hard": [1], "junk": []} for _ in queries]
    return pickle.dumps({"imlist": database, "qimlist": queries, "gnd": gnd})


def unmeasured(known: KnownSet, **changes: object) -> KnownSet:
    """A known set for small test archives: without the sizes and checksums of the real files."""
    parts = tuple(replace(part, about_bytes=None, known_sha256=None) for part in known.parts)
    return replace(known, **({"parts": parts} | changes))


ROXFORD = unmeasured(ROXFORD5K, n_database=3, n_queries=1)
RPARIS = unmeasured(RPARIS6K, n_database=3, n_queries=1)


@pytest.fixture
def oxford(server: MisbehavingServer) -> MisbehavingServer:
    server.files["roxford5k/oxbuild_images-v1.tgz"] = tar_of(OXFORD_PHOTOS)
    server.files["roxford5k/gnd_roxford5k.pkl"] = ground_truth([f"oxford_{i:06d}" for i in range(3)], ["oxford_000003"])
    return server


def installation(server: MisbehavingServer, root: Path, known: KnownSet, **changes: object) -> Installation:
    mirrors = read_mirrors(root, [server.base])
    options = InstallOptions(data_root=root, mirrors=mirrors, fetch=FetchOptions(attempts=2, timeout_s=5), **changes)  # type: ignore[arg-type]
    # Only the local server is asked: the publishers' addresses are taken away.
    known = replace(known, parts=tuple(replace(part, addresses=()) for part in known.parts))
    return Installation(known, options)


def test_oxford_is_laid_out_recorded_and_not_fetched_twice(oxford: MisbehavingServer, tmp_path: Path) -> None:
    record = installation(oxford, tmp_path, ROXFORD).run()
    assert files_below(tmp_path) == {
        "seen_checksums.json",
        "roxford5k/source.json",
        "roxford5k/gnd_roxford5k.pkl",
        *(f"roxford5k/jpg/{name}" for name in OXFORD_PHOTOS),
    }
    assert (tmp_path / "roxford5k/jpg/oxford_000002.jpg").read_bytes() == OXFORD_PHOTOS["oxford_000002.jpg"]
    assert (record.complete, record.photos_version, record.version_known_by, record.n_database, record.n_queries) == (
        True,
        "blurred",
        "file name",
        3,
        1,
    )
    archive = record.parts["oxbuild_images-v1.tgz"]
    assert archive.sha256 == hashlib.sha256(oxford.files["roxford5k/oxbuild_images-v1.tgz"]).hexdigest()
    assert (archive.checked, archive.n_files, archive.address) == (
        "first download",
        4,
        oxford.address("roxford5k/oxbuild_images-v1.tgz"),
    )
    assert read_source(tmp_path / "roxford5k") == record
    n_requests = len(oxford.requests)
    assert installation(oxford, tmp_path, ROXFORD).run() == record
    assert len(oxford.requests) == n_requests


def test_paris_comes_in_two_archives_with_folders(server: MisbehavingServer, tmp_path: Path) -> None:
    for i in (1, 2):
        server.files[f"rparis6k/paris_{i}-v1.tgz"] = tar_of(PARIS_PHOTOS[i - 1])
    server.files["rparis6k/gnd_rparis6k.pkl"] = ground_truth(["paris_1_0", "paris_1_1", "paris_2_0"], ["paris_2_1"])
    record = installation(server, tmp_path, RPARIS).run()
    assert {path.name for path in (tmp_path / "rparis6k/jpg").iterdir()} == {
        "paris_1_0.jpg",
        "paris_1_1.jpg",
        "paris_2_0.jpg",
        "paris_2_1.jpg",
    }
    assert record.complete


@pytest.mark.parametrize(("sized", "checked", "known_by"), [(True, False, "size"), (False, True, "checksum")])
def test_versions_of_the_photos_are_told_apart(
    oxford: MisbehavingServer, tmp_path: Path, sized: bool, checked: bool, known_by: str
) -> None:
    original = oxford.files["roxford5k/oxbuild_images.tgz"] = tar_of(OXFORD_PHOTOS | {"extra.jpg": jpeg(9)})
    known = ROXFORD
    if sized:
        parts = [
            replace(part, about_bytes={"original": len(original), "blurred": 5}.get(part.version))
            for part in ROXFORD.parts
        ]
        known = replace(ROXFORD, parts=tuple(parts))
    if checked:
        assert installation(oxford, tmp_path, known, version="original").run().photos_version == "original"
        (tmp_path / "roxford5k").rename(tmp_path / "before")
    oxford.files["roxford5k/oxbuild_images-v1.tgz"] = original  # a mirror that has the old photos under the new name
    record = installation(oxford, tmp_path, known).run()
    assert (record.photos_version, record.version_known_by) == ("original", known_by)
    assert installation(oxford, tmp_path, known).run() == record
    assert record.complete


def test_another_version_than_what_is_there_is_refused(oxford: MisbehavingServer, tmp_path: Path) -> None:
    installation(oxford, tmp_path, ROXFORD).run()
    with pytest.raises(UltronError, match="holds the blurred photos; delete it to download the original ones"):
        installation(oxford, tmp_path, ROXFORD, version="original")
    with pytest.raises(UltronError, match="no such version of its photos; it has blurred, original"):
        installation(oxford, tmp_path, ROXFORD, version="sharp")


def test_a_download_that_failed_goes_on(oxford: MisbehavingServer, tmp_path: Path) -> None:
    path = "roxford5k/oxbuild_images-v1.tgz"
    oxford.manners[path] = ["cut 700", "cut 0", "cut 0"]
    with pytest.raises(WorkFailed, match="the connection ended after 700 of"):
        installation(oxford, tmp_path, ROXFORD).run()
    record = read_source(tmp_path / "roxford5k")
    assert record is not None
    assert not record.complete
    assert set(record.parts) == {"gnd_roxford5k.pkl"}
    assert not (tmp_path / "roxford5k" / "jpg").exists()
    oxford.manners[path] = []
    assert installation(oxford, tmp_path, ROXFORD).run().complete
    assert oxford.ranges(path)[-1] == "bytes=700-"
    assert [path for path, _ in oxford.requests].count("roxford5k/gnd_roxford5k.pkl") == 1


@pytest.mark.parametrize("at", ["unpack", "move_tree", "_tell_version", "_finish"])
def test_a_kill_at_any_moment_is_mended_by_the_next_run(
    oxford: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    def killed(*arguments: object, **options: object) -> None:
        if at == "unpack":  # half of it has been written
            Path(arguments[1]).mkdir(parents=True)  # type: ignore[arg-type]
            (Path(arguments[1]) / "oxford_000000.jpg").write_bytes(b"half")  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(install.Installation if at.startswith("_") else install, at, killed)
        with pytest.raises(KeyboardInterrupt):
            installation(oxford, tmp_path, ROXFORD).run()
    record = read_source(tmp_path / "roxford5k")
    assert record is None or not record.complete
    assert installation(oxford, tmp_path, ROXFORD).run().complete
    for name, data in OXFORD_PHOTOS.items():
        assert (tmp_path / "roxford5k/jpg" / name).read_bytes() == data
    assert not (tmp_path / ".downloads/roxford5k").exists()


def test_a_damaged_archive_is_told_deleted_and_fetched_again(oxford: MisbehavingServer, tmp_path: Path) -> None:
    path = "roxford5k/oxbuild_images-v1.tgz"
    good, oxford.files[path] = oxford.files[path], oxford.files[path][:-300]
    with pytest.raises(WorkFailed, match="damaged or not an archive"):
        installation(oxford, tmp_path, ROXFORD).run()
    assert not list(tmp_path.rglob("*.jpg"))
    oxford.files[path] = good
    with pytest.raises(
        WorkFailed, match="the first download"
    ):  # its checksum was recorded: another file is suspicious, and said to be
        installation(oxford, tmp_path, ROXFORD).run()
    (tmp_path / "seen_checksums.json").unlink()
    assert installation(oxford, tmp_path, ROXFORD).run().complete


def test_a_file_that_changed_since_the_first_download_is_refused(oxford: MisbehavingServer, tmp_path: Path) -> None:
    installation(oxford, tmp_path, ROXFORD).run()
    (tmp_path / "roxford5k").rename(tmp_path / "elsewhere")
    oxford.files["roxford5k/oxbuild_images-v1.tgz"] = tar_of(OXFORD_PHOTOS | {"new.jpg": jpeg(8)})
    with pytest.raises(WorkFailed, match=r"the first download \(20.*had .*it was deleted.*seen_checksums.json"):
        installation(oxford, tmp_path, ROXFORD).run()
    assert not list((tmp_path / "roxford5k").rglob("*.jpg"))


def test_a_file_that_ultron_knows_is_compared(
    oxford: MisbehavingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start_log(0)
    sha256 = hashlib.sha256(oxford.files["roxford5k/gnd_roxford5k.pkl"]).hexdigest()
    for known_sha256, checked in ((sha256, "known SHA-256"), ("0" * 64, "first download")):
        parts = tuple(
            replace(part, known_sha256=known_sha256 if part.kind == "file" else None) for part in ROXFORD.parts
        )
        record = installation(oxford, tmp_path / known_sha256, replace(ROXFORD, parts=parts)).run()
        assert record.parts["gnd_roxford5k.pkl"].checked == checked
    assert capsys.readouterr().err.count("is not the file that ultron knows") == 1


def gldv2(server: MisbehavingServer, checksum: str | None = None) -> KnownSet:
    """Two archives of gldv2-test with their MD5 files, and a table."""
    parts = []
    for part in (*GLDV2_TEST.parts[:2], GLDV2_TEST.parts[20]):
        data = tar_of({f"0/1/2/{part.file[7:10]}.jpg": jpeg(3)}, "w") if part.kind == "photos" else b"id\n0123\n"
        server.files[f"gldv2-test/{part.file}"] = data
        if part.checksum_address:
            name = part.checksum_address.rsplit("/", 1)[1]
            server.files[f"gldv2-test/{name}"] = f"{checksum or hashlib.md5(data).hexdigest()}  {part.file}\n".encode()
            part = replace(part, checksum_address=server.address(f"gldv2-test/{name}"))
        parts.append(replace(part, about_bytes=None))
    return replace(GLDV2_TEST, parts=tuple(parts))


def test_published_checksums_are_fetched_and_compared(server: MisbehavingServer, tmp_path: Path) -> None:
    record = installation(server, tmp_path, gldv2(server), n_at_once=2).run()
    assert [record.parts[f"images_00{i}.tar"].checked for i in (0, 1)] == ["published MD5"] * 2
    assert files_below(tmp_path / "gldv2-test") == {
        "source.json",
        "test.csv",
        "test/0/1/2/000.jpg",
        "test/0/1/2/001.jpg",
    }
    assert set(read_seen_checksums(tmp_path)) == {"gldv2-test/test.csv"}


def test_a_wrong_published_checksum(server: MisbehavingServer, tmp_path: Path) -> None:
    with pytest.raises(
        WorkFailed, match=f"where {'a' * 32} is published; it was deleted.*2 files of gldv2-test still missing"
    ):
        installation(server, tmp_path, gldv2(server, checksum="a" * 32)).run()
    assert not list(tmp_path.rglob("*.jpg"))
    with pytest.raises(WorkFailed, match=r"holds none for images_00\d.tar"):
        installation(server, tmp_path / "other", gldv2(server, checksum="no sum")).run()


def test_descriptors_are_checked_by_the_name_that_git_has_for_them(server: MisbehavingServer, tmp_path: Path) -> None:
    data, blob = b"hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"  # as `git hash-object` says
    part = next(part for part in DOLG_DESCRIPTORS.parts if part.git_blob)
    known = replace(DOLG_DESCRIPTORS, parts=(replace(part, git_blob=blob),))
    name = f"dolg-descriptors/{part.file}"
    server.files[name] = data[::-1]
    with pytest.raises(WorkFailed, match=rf"has GIT BLOB git:\w{{40}} where git:{blob} is published; it was deleted"):
        installation(server, tmp_path, known).run()
    assert not list(tmp_path.rglob(part.file))
    server.files[name] = data
    record = installation(server, tmp_path, known).run()
    assert record.complete and (tmp_path / name).read_bytes() == data
    assert record.parts[part.file].checked == "published GIT BLOB"
    assert read_seen_checksums(tmp_path) == {}  # what is published needs no first download to be compared with
    by_hand = tmp_path / "other/.downloads" / name
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(b"hello")
    with pytest.raises(WorkFailed, match=r"has GIT BLOB .*; put the right file there"):
        installation(server, tmp_path / "other", known, offline=True).run()
    by_hand.write_bytes(data)
    assert installation(server, tmp_path / "other", known, offline=True).run().complete


def test_archives_put_there_by_hand_and_offline(oxford: MisbehavingServer, tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match=r"lacks .* and downloads are off .*put the file at"):
        installation(oxford, tmp_path, ROXFORD, offline=True).run()
    for path, data in oxford.files.items():
        (tmp_path / ".downloads" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ".downloads" / path).write_bytes(data)
    record = installation(oxford, tmp_path, ROXFORD, offline=True).run()
    assert record.complete
    assert oxford.requests == []
    assert installation(oxford, tmp_path, ROXFORD, offline=True).run() == record


def test_archives_are_kept_on_request(oxford: MisbehavingServer, tmp_path: Path) -> None:
    installation(oxford, tmp_path, ROXFORD, keep_archives=True).run()
    assert (tmp_path / ".downloads/roxford5k/oxbuild_images-v1.tgz").is_file()


def test_disk_space_is_checked_before_and_when_the_size_is_told(
    oxford: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "free_bytes", lambda folder: 10**9)
    big = replace(ROXFORD, parts=tuple(replace(part, about_bytes=10**9) for part in ROXFORD.parts))
    with pytest.raises(WorkFailed, match=r"needs about 4\.3 GB of disk, .* has 1\.0 GB free"):
        installation(oxford, tmp_path, big).run()
    assert oxford.requests == []
    monkeypatch.setattr(install, "free_bytes", lambda folder: install.RESERVE_BYTES + 1)
    with pytest.raises(WorkFailed, match="of disk"):
        installation(oxford, tmp_path, ROXFORD).run()
    assert not list(tmp_path.rglob("*.jpg"))


def test_published_counts_are_checked(oxford: MisbehavingServer, tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match="has 3 database photos where 4,993 are published"):
        installation(oxford, tmp_path, unmeasured(ROXFORD5K)).run()


def test_a_folder_that_ultron_did_not_make_is_left_alone(oxford: MisbehavingServer, tmp_path: Path) -> None:
    (tmp_path / "roxford5k/jpg").mkdir(parents=True)
    with pytest.raises(UltronError, match="was not downloaded by ultron: it can be used as it is"):
        installation(oxford, tmp_path, ROXFORD).run()
    assert oxford.requests == []


def test_two_downloads_of_one_set(oxford: MisbehavingServer, tmp_path: Path) -> None:
    waiting = installation(oxford, tmp_path, ROXFORD)
    with (
        only_writer(waiting.downloads, "held", beside=True),
        pytest.raises(UltronError, match="another `ultron datasets download` is downloading roxford5k"),
    ):
        waiting.run()
    assert oxford.requests == []


def test_one_bad_archive_of_many_does_not_stop_the_others(server: MisbehavingServer, tmp_path: Path) -> None:
    known = gldv2(server)
    server.manners["gldv2-test/images_000.tar"] = ["404"] * 9
    with pytest.raises(WorkFailed, match=r"images_000\.tar could not be downloaded: .* answered 404"):
        installation(server, tmp_path, known, n_at_once=1).run()
    assert (tmp_path / "gldv2-test/test/0/1/2/001.jpg").is_file()


def test_sizes_as_text() -> None:
    assert [size_text(n) for n in (0, 12, 4_200, 640_000_000, 1_938_238_004, 6.3e12)] == [
        "?",
        "12 B",
        "4.2 kB",
        "640 MB",
        "1.9 GB",
        "6.3 TB",
    ]
