"""One download against a server that misbehaves: it ends whole or with a clear error, and never under its name when it
is not whole."""

import hashlib
import json
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from tests.datasets.misbehaving_server import MisbehavingServer
from ultron_cli.datasets.download import fetching, transport
from ultron_cli.datasets.download.fetching import Download, FetchedFile, FetchOptions, FileRequest, Stopped, find_digest
from ultron_cli.errors import WorkFailed

DATA = bytes(i * 7 % 251 for i in range(700_000))
SHA256 = hashlib.sha256(DATA).hexdigest()
MD5 = hashlib.md5(DATA).hexdigest()
GIT = "git:" + hashlib.sha1(b"blob 700000\0" + DATA).hexdigest()  # as `git hash-object` names it
OPTIONS = FetchOptions(attempts=3, timeout_s=5.0)


@pytest.fixture
def place(tmp_path: Path, server: MisbehavingServer) -> Path:
    server.files["f.tar"] = DATA
    return tmp_path / "f.tar"


def fetch(
    server: MisbehavingServer,
    place: Path,
    *paths: str,
    digest: str | None = None,
    n_bytes: int | None = None,
    options: FetchOptions = OPTIONS,
) -> FetchedFile:
    addresses = tuple(server.address(path) for path in paths or ("f.tar",))
    return Download(FileRequest(path=place, addresses=addresses, digest=digest, n_bytes=n_bytes), options).run()


def whole(place: Path) -> bool:
    return place.read_bytes() == DATA and {path.name for path in place.parent.iterdir()} == {place.name}


@pytest.mark.parametrize("digest", [None, SHA256, MD5, MD5.upper(), GIT])
def test_a_good_server(server: MisbehavingServer, place: Path, digest: str | None) -> None:
    fetched = fetch(server, place, digest=digest, n_bytes=len(DATA))
    assert whole(place)
    assert (fetched.sha256, fetched.n_bytes, fetched.address) == (SHA256, len(DATA), server.address("f.tar"))


def test_cut_connections_are_continued_where_they_ended(server: MisbehavingServer, place: Path) -> None:
    server.manners["f.tar"] = [
        "cut 100000",
        "cut 200000",
        "cut 5",
        "cut 1",
        "cut 1",
    ]  # more than the attempts, but each brings something
    fetch(server, place)
    assert whole(place)
    assert server.ranges("f.tar") == ["", *(f"bytes={n}-" for n in (100000, 300000, 300005, 300006, 300007))]


def test_a_server_that_ignores_ranges_sends_it_all_again(server: MisbehavingServer, place: Path) -> None:
    server.manners["f.tar"] = ["cut 100000", "no ranges"]
    fetch(server, place)
    assert whole(place)
    assert server.ranges("f.tar") == ["", "bytes=100000-"]


def test_a_file_that_changes_on_the_way_is_fetched_anew(server: MisbehavingServer, place: Path) -> None:
    server.manners["f.tar"] = ["cut 100000"] * 2
    with pytest.raises(WorkFailed):
        fetch(server, place, options=FetchOptions(attempts=1))
    server.manners["f.tar"] = []
    server.files["f.tar"] = changed = DATA[::-1]
    fetch(server, place)
    assert place.read_bytes() == changed


def test_without_a_tag_nothing_is_continued_unless_a_checksum_tells(server: MisbehavingServer, place: Path) -> None:
    server.manners["f.tar"] = ["weak", "weak"]
    part = place.with_name("f.tar.part")
    part.write_bytes(DATA[:1000])
    fetch(server, place)
    assert server.ranges("f.tar") == [""]
    place.unlink()
    part.write_bytes(DATA[:1000])
    fetch(server, place, digest=SHA256)
    assert whole(place)
    assert server.ranges("f.tar") == ["", "bytes=1000-"]


def test_a_wrong_beginning_is_noticed_and_fetched_once_more(server: MisbehavingServer, place: Path) -> None:
    place.with_name("f.tar.part").write_bytes(b"x" * 1000)
    fetch(server, place, digest=SHA256)
    assert whole(place)
    assert server.ranges("f.tar") == ["bytes=1000-", ""]


def test_a_part_that_is_whole_already_needs_no_request(server: MisbehavingServer, place: Path) -> None:
    place.with_name("f.tar.part").write_bytes(DATA)
    note = {"address": server.address("f.tar"), "n_bytes": len(DATA), "validator": '"x"'}
    place.with_name("f.tar.part.json").write_text(json.dumps(note))
    fetch(server, place)
    assert whole(place)
    assert server.requests == []


@pytest.mark.parametrize(
    "change", [{"validator": '"x"\r\nHost: y'}, {"validator": "\u00e9"}, {"validator": 7}, {"n_bytes": "9"}]
)
def test_a_part_with_an_odd_note_is_fetched_anew(server: MisbehavingServer, place: Path, change: dict) -> None:
    place.with_name("f.tar.part").write_bytes(DATA[:1000])
    note = {"address": server.address("f.tar"), "n_bytes": len(DATA), "validator": '"x"', **change}
    place.with_name("f.tar.part.json").write_text(json.dumps(note))
    fetch(server, place)
    assert whole(place)
    assert server.ranges("f.tar") == [""]


def test_a_part_longer_than_the_file(server: MisbehavingServer, place: Path) -> None:
    place.with_name("f.tar.part").write_bytes(DATA + b"more")
    fetch(server, place, digest=SHA256)
    assert whole(place)


@pytest.mark.parametrize("manner", ["wrong range", "500", "503", "429"])
def test_passing_troubles(server: MisbehavingServer, place: Path, manner: str) -> None:
    server.manners["f.tar"] = ["cut 1000", manner]
    fetch(server, place)
    assert whole(place)


def test_redirects_are_followed_with_their_range(server: MisbehavingServer, place: Path) -> None:
    server.manners["old"] = ["redirect f.tar", "redirect f.tar"]
    server.manners["f.tar"] = ["cut 4000"]
    fetch(server, place, "old")
    assert whole(place)
    assert server.ranges("f.tar") == ["", "bytes=4000-"]


def test_a_silent_server_is_left_and_continued(server: MisbehavingServer, place: Path) -> None:
    server.manners["f.tar"] = ["stall 3000"]
    fetch(server, place, options=FetchOptions(attempts=2, timeout_s=0.2))
    assert whole(place)
    assert server.ranges("f.tar") == ["", "bytes=3000-"]


@pytest.mark.parametrize(
    ("manners", "words"),
    [
        (["404"], ("answered 404",)),
        (["403"], ("answered 403",)),
        (["500"] * 3, ("failed 3 times without progress", "answered 500")),
        (
            ["cut 10", "cut 0", "cut 0", "cut 0"],
            ("the connection ended after 10 of 700,000 bytes", "10 bytes are kept"),
        ),
        (["short 50"] * 20, ("failed 3 times without progress",)),
        (["page"], ("answered with a web page",)),
        (["no length"], ("does not tell the file's size", "no checksum is published")),
        (["redirect old"] * 20, ("answered 302",)),
        (["encoded"], ("sends the file in content encoding x-gzip",)),
    ],
)
def test_what_cannot_be_mended_is_told(
    server: MisbehavingServer, place: Path, manners: list[str], words: tuple[str, ...]
) -> None:
    server.manners["old" if "redirect old" in manners else "f.tar"] = manners
    with pytest.raises(WorkFailed) as raised:
        fetch(server, place, "old" if "redirect old" in manners else "f.tar")
    assert not place.exists()
    for word in (*words, "`mirror`", str(place)):
        assert word in str(raised.value)


def test_a_tgz_that_is_said_to_be_encoded_is_taken_as_it_is(server: MisbehavingServer, place: Path) -> None:
    server.files["f.tgz"] = DATA
    server.manners["f.tgz"] = ["encoded"]
    fetch(server, place, "f.tgz")
    assert whole(place)


def test_no_length_is_enough_with_a_checksum(server: MisbehavingServer, place: Path) -> None:
    server.manners["f.tar"] = ["no length"]
    fetch(server, place, digest=SHA256)
    assert whole(place)


def test_a_wrong_checksum_is_told_and_nothing_is_left(server: MisbehavingServer, place: Path) -> None:
    with pytest.raises(WorkFailed, match=f"has SHA256 {SHA256} where {'0' * 64} is published; it was deleted"):
        fetch(server, place, digest="0" * 64)
    assert list(place.parent.iterdir()) == []
    assert len(server.requests) == 1  # what came in one piece is not asked for again


def test_a_wrong_checksum_ends_even_if_every_connection_is_cut(server: MisbehavingServer, place: Path) -> None:
    server.manners["f.tar"] = ["cut 300000", ""] * 10
    with pytest.raises(WorkFailed, match="is published; it was deleted"):
        fetch(server, place, digest="0" * 32)
    assert not place.exists()


def test_a_wrong_size_is_told_before_anything_is_fetched(server: MisbehavingServer, place: Path) -> None:
    with pytest.raises(WorkFailed, match="has 700,000 bytes where 700,001 are published"):
        fetch(server, place, n_bytes=700_001)
    assert list(place.parent.iterdir()) == []


def test_the_next_address_is_tried_and_continues_with_a_checksum(server: MisbehavingServer, place: Path) -> None:
    server.files["g.tar"] = DATA
    server.manners["f.tar"] = ["cut 5000", "404"]
    assert fetch(server, place, "nowhere", "f.tar", "g.tar", digest=SHA256).address == server.address("g.tar")
    assert whole(place)
    assert server.ranges("g.tar") == ["bytes=5000-"]


def test_an_unreachable_server(server: MisbehavingServer, place: Path) -> None:
    server.close()
    with pytest.raises(WorkFailed, match="Connection refused"):
        fetch(server, place)


def test_a_folder_as_a_mirror(tmp_path: Path) -> None:
    (tmp_path / "source.bin").write_bytes(DATA)
    for address in (str(tmp_path / "source.bin"), (tmp_path / "source.bin").as_uri()):
        place = tmp_path / "target" / "f.bin"
        Download(FileRequest(path=place, addresses=(address,)), OPTIONS).run()
        assert whole(place)
        place.unlink()


def test_a_proxy_is_asked_instead(server: MisbehavingServer, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.base)
    server.files["http://no-such-host.invalid/f.tar".lstrip("/")] = DATA
    Download(FileRequest(path=place, addresses=("http://no-such-host.invalid/f.tar",)), OPTIONS).run()
    assert whole(place)


def test_interruption_keeps_what_came(server: MisbehavingServer, place: Path) -> None:
    stop = threading.Event()

    def on_progress(done: int, total: int | None) -> None:
        if done:
            stop.set()

    with pytest.raises(Stopped):
        Download(
            FileRequest(path=place, addresses=(server.address("f.tar"),)), FetchOptions(stop=stop), on_progress
        ).run()
    assert not place.exists()
    n_kept = place.with_name("f.tar.part").stat().st_size
    assert 0 < n_kept < len(DATA)
    fetch(server, place)
    assert whole(place)
    assert server.ranges("f.tar") == ["", f"bytes={n_kept}-"]


def test_a_disk_that_takes_half_of_a_block(server: MisbehavingServer, place: Path) -> None:
    """A write may be cut short without an error; what is there is what is counted."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_001, before[1]))
    try:
        with pytest.raises(WorkFailed, match=r"at .* bytes of .*free some space, the same command goes on from there"):
            fetch(server, place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    fetch(server, place)
    assert whole(place) and server.ranges("f.tar")[-1] != ""


def test_a_full_disk_is_told(server: MisbehavingServer, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Download, reply: transport.Reply) -> None:
        raise OSError(28, "No space left on device")

    real = Download._write

    def write(self: Download, reply: transport.Reply) -> None:
        real(
            self,
            transport.Reply(
                read=lambda n: full(self, reply), close=reply.close, start=0, n_bytes=reply.n_bytes, validator=""
            ),
        )  # type: ignore[arg-type, return-value]

    monkeypatch.setattr(fetching.Download, "_write", write)
    with pytest.raises(WorkFailed, match="the disk is full at 0 bytes"):
        fetch(server, place)
    assert not place.exists()


class _FakeFtp:
    """Stands for ftplib.FTP: anonymous, one file, continued by REST; the first connection is cut."""

    connections: ClassVar[list[int]] = []

    def __init__(self, timeout: float) -> None:
        assert timeout == 5.0

    def connect(self, host: str, port: int) -> None:
        assert (host, port) == ("ftp.example.org", 21)

    def login(self, user: str, password: str) -> None:
        assert user == "anonymous"

    def voidcmd(self, command: str) -> None:
        assert command == "TYPE I"

    def size(self, path: str) -> int:
        assert path == "/a b/f.tar"
        return len(DATA)

    def sendcmd(self, command: str) -> str:
        return "213 20170101000000"

    def transfercmd(self, command: str, rest: int | None) -> "_FakeFtp":
        self.connections.append(rest or 0)
        end = 9000 if len(self.connections) == 1 else len(DATA)
        self._left = DATA[rest or 0 : end]
        return self

    def recv(self, n: int) -> bytes:
        block, self._left = self._left[:n], self._left[n:]
        return block

    def close(self) -> None:
        pass


def test_ftp_is_continued(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport.ftplib, "FTP", _FakeFtp)
    Download(FileRequest(path=place, addresses=("ftp://ftp.example.org/a%20b/f.tar",)), OPTIONS).run()
    assert whole(place)
    assert _FakeFtp.connections == [0, 9000]


def test_a_digest_is_found_in_a_checksum_file(tmp_path: Path) -> None:
    (tmp_path / "sums").write_text(f"{'0' * 64} https://x.org/other.tar\n{'A' * 64} https://x.org/ilias_core.tar\n")
    assert find_digest(tmp_path / "sums", "ilias_core.tar") == "a" * 64
