"""HDF5 files from strangers: one line, and never a crash, a hang, bytes of another file or memory for nothing."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.mutations import mutated
from tests.retrieval.hostile_hdf5 import declared, linked, replace_dataset, self_referring, stored_outside
from tests.retrieval.rows_for_tests import INFO, unit_rows
from ultron_cli.errors import UltronError
from ultron_cli.retrieval import hdf5
from ultron_cli.retrieval.descriptors import DescriptorFile, write_descriptors
from ultron_cli.retrieval.hdf5 import FEW_TEXTS
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking, read_ranks, write_ranks
from ultron_cli.retrieval.whitening import Whitening, read_whitening, write_whitening


def write_small_descriptors(path: Path) -> None:
    write_descriptors(path, [f"Kölner Dom {i}" for i in range(40)], [unit_rows(1, 40, 8)], 8, INFO)


def write_small_ranks(path: Path) -> None:
    rows = np.tile(np.arange(5), (3, 1))
    write_ranks(
        path,
        Ranking(
            query_names=list("abc"),
            database_names=list("defgh"),
            rows=rows,
            scores=-rows.astype(np.float32),
            origin=Origin(dataset="toy"),
        ),
    )


def write_small_whitening(path: Path) -> None:
    write_whitening(
        path, Whitening(method="pca-whitening", mean=np.zeros(4), projection=np.eye(4), eigenvalues=np.ones(4))
    )


def read_descriptors(path: Path) -> int:
    """All that commands read of it."""
    with DescriptorFile(path) as file:
        assert len(file.names) == file.n
        file.take(np.arange(file.n))
        return sum(len(rows) for _, rows in file.blocks(16))


READERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "descriptors": (write_small_descriptors, read_descriptors),
    "ranks": (write_small_ranks, read_ranks),
    "whitening": (write_small_whitening, read_whitening),
}
PART = {
    "descriptors": ("descriptors", (40, 8), "f4"),
    "ranks": ("scores", (3, 5), "f4"),
    "whitening": ("mean", (4,), "f8"),
}


def one_line(read: Callable[[Path], object], path: Path) -> str:
    """What is said of a file that is refused."""
    with pytest.raises(UltronError) as caught:
        read(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("kind", READERS)
def test_nothing_but_the_file_itself_is_read(tmp_path, kind):
    write, read = READERS[kind]
    part = PART[kind]
    path = tmp_path / "x.h5"
    secret = tmp_path / "secret"
    secret.write_bytes(np.ones(1000, np.float64).tobytes())
    write(tmp_path / "other.h5")
    for make, words in (
        (stored_outside(*part, secret), "must lie in the file itself"),
        (self_referring(*part), "must lie in the file itself"),
        (linked(part[0], h5py.ExternalLink(str(tmp_path / "other.h5"), part[0])), "found a ExternalLink"),
        (linked(part[0], h5py.SoftLink(f"/{part[0]}")), "found a SoftLink"),
    ):
        write(path)
        replace_dataset(path, part[0], make)
        assert words in one_line(read, path)


@pytest.mark.parametrize("kind", READERS)
def test_what_is_declared_must_be_there(tmp_path, kind):
    write, read = READERS[kind]
    name, shape, dtype = PART[kind]
    path = tmp_path / "x.h5"
    huge = (10**9, *(8 for _ in shape[1:]))
    chunks = (10**6, *(1 for _ in shape[1:]))
    before_mib = peak_mib()
    for how in ({}, {"chunks": chunks}, {"chunks": chunks, "compression": "gzip"}):
        write(path)
        replace_dataset(path, name, declared(name, huge, dtype, **how))
        assert "declares" in one_line(read, path)
    write(path)
    replace_dataset(path, name, declared(name, huge, dtype, chunks=(10**8, *(8 for _ in shape[1:]))))
    assert "stored in chunks of" in one_line(read, path)
    assert peak_mib() - before_mib < 200


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_names_are_declared_as_they_are(tmp_path):
    path = tmp_path / "x.h5"
    write_small_descriptors(path)
    replace_dataset(path, "names", declared("names", (10**9,), h5py.string_dtype("utf-8")))
    assert "/names declares" in one_line(read_descriptors, path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("complete", "yes"),
        ("complete", np.arange(3)),
        ("model", 7),
        ("model", h5py.Empty("f4")),
        ("config", "[]"),
        ("config", "{"),
        ("config", "[" * 100_000),
        ("config", '{"scales": ["a"]}'),
        ("config", '{"model": "gem"}'),
        ("config", '{"whitening": {"method": "pca", "dim": "8", "sha256": ""}}'),
        ("scales", "{}"),
        ("scales", '["1"]'),
        ("skipped", "[1]"),
        ("skipped", '[{"name": 1, "reason": ""}]'),
        ("provenance", "7"),
        ("version", "1"),
        ("version", 1.0),
        ("format", 7),
        ("format", np.arange(2)),
        ("created", np.float32(2)),
    ],
)
def test_attributes_have_their_types(tmp_path, name, value):
    path = tmp_path / "x.h5"
    write_small_descriptors(path)
    with h5py.File(path, "r+") as handle:
        handle.attrs[name] = value
    assert name in one_line(read_descriptors, path)


def test_other_encodings_and_filters(tmp_path):
    path = tmp_path / "x.h5"
    write_small_descriptors(path)
    with h5py.File(path, "r+") as handle:  # as other programs may write: texts of one length, attributes of bytes
        names = [name.encode() for name in handle["names"].asstr()[:]]
        del handle["names"]
        handle["names"] = np.array(names, "S20")
        handle.attrs["model"] = np.bytes_(b"m")
        handle.attrs["complete"] = 1
    with DescriptorFile(path) as file:
        assert file.names[3] == "Kölner Dom 3"
        assert file.info.model == "m"
    with h5py.File(path, "r+") as handle:
        del handle["names"]
        handle["names"] = np.array([b"\xff\xfe"] * 40, "S2")
    with DescriptorFile(path) as file:  # a file's name need not be UTF-8
        assert file.names[3] == "\udcff\udcfe"


def test_many_names_are_read_when_they_are_wanted(tmp_path):
    n = FEW_TEXTS + 1
    write_descriptors(tmp_path / "x.h5", [f"ü{i}" for i in range(n)], [unit_rows(1, n, 2)], 2, INFO)
    with DescriptorFile(tmp_path / "x.h5") as file:
        assert file.names == [f"ü{i}" for i in range(n)]


@pytest.mark.parametrize("kind", READERS)
def test_what_is_no_regular_file(tmp_path, kind):
    _, read = READERS[kind]
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "zero.h5").symlink_to("/dev/zero")
    (tmp_path / "broken.h5").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty.h5").touch()
    (tmp_path / "folder.h5").mkdir()
    for name, words in (
        ("pipe.h5", "must be a file, found a pipe or a device"),
        ("zero.h5", "must be a file, found a pipe or a device"),
        ("folder.h5", "must be a file, found a folder"),
        ("broken.h5", "must be a file, found a broken link"),
        ("empty.h5", "truncated or not an HDF5 file"),
        ("absent.h5", "does not exist"),
    ):
        assert words in one_line(read, tmp_path / name)


def test_a_file_that_is_being_written_is_not_called_damaged(tmp_path):
    path = tmp_path / "x.h5"
    write_small_descriptors(path)
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+', locking=True); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        message = one_line(read_descriptors, path)
        writer.communicate("")
    assert "is open for writing in" in message and "wait for it" in message
    assert "again" in message and "extract" not in message
    if Path("/proc/locks").exists():
        assert f"process {writer.pid}" in message
    assert read_descriptors(path) == 40


@pytest.mark.parametrize("kind", READERS)
def test_only_what_others_wrote_is_read_in_a_child(tmp_path, kind, monkeypatch):
    write, read = READERS[kind]
    path = tmp_path / "x.h5"
    write(path)
    in_child = hdf5.in_child
    functions = []

    def noted(function, *arguments, **limits):
        functions.append(function)
        return in_child(function, *arguments, **limits)

    monkeypatch.setattr(hdf5, "in_child", noted)
    read(path)
    assert not functions
    content = path.read_bytes()
    for changed in (path, tmp_path / "copy.h5"):
        changed.write_bytes(content)
        os.utime(changed, (1, 1))  # not within the tick of a clock
        read(changed)
        assert functions
        functions.clear()
    write(path)
    path.write_bytes(content[:-8])
    assert "truncated" in one_line(read, path) and functions


@pytest.mark.parametrize("kind", READERS)
def test_bytes_changed_at_random(tmp_path, kind):
    write, read = READERS[kind]
    path = tmp_path / "x.h5"
    write(path)
    n_refused = 0
    for content in mutated(path.read_bytes(), 7, 60):
        changed = tmp_path / "y.h5"
        changed.write_bytes(content)
        try:
            read(changed)
        except UltronError as error:
            n_refused += 1
            assert str(error).isprintable()
    assert n_refused > 5
