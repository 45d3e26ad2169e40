"""Building at first use: the choice of implementation, reasons where one is not there, and several processes at
once."""

import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from ultron_kernels import build, ops, scala_attention

from tests.prepared_python import start_python

pytestmark = pytest.mark.slow

MINIMAL = (torch.zeros(1, 4, 4, 1, 8),) * 3


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with nothing built, and no memory of what was loaded; returns the cache folder."""
    monkeypatch.setenv("ULTRON_KERNEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "LOADED", {})
    monkeypatch.setattr(ops, "REASONS", {})
    for cached in (build.library_path, build.cuda_toolkit, build.version_of):
        cached.cache_clear()
    yield tmp_path / "cache"
    build.library_path.cache_clear()


def test_auto_takes_the_compiled_operator() -> None:
    assert ops.implementation("cpu", "auto") == "cpu"
    assert ops.status()["cpu"] == "loaded"


def test_off_takes_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULTRON_KERNELS", "off")
    assert ops.implementation("cpu", "auto") == "torch"
    assert ops.status()["cpu"] == "not used: ULTRON_KERNELS=off"


def test_a_wrong_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULTRON_KERNELS", "gpu")
    with pytest.raises(ValueError, match="ULTRON_KERNELS must be one of auto, off, cpu, cuda, got 'gpu'"):
        scala_attention(*MINIMAL, kernel_size=3)


def test_without_a_compiler_the_reference_runs_and_says_so_once(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.WARNING):
        assert scala_attention(*MINIMAL, kernel_size=3).shape == (1, 4, 4, 1, 8)
        scala_attention(*MINIMAL, kernel_size=3)
    assert [record.getMessage() for record in caplog.records] == [
        "the reference operators run, many times slower: no C++ compiler (no-such-compiler is not on the "
        "path); install one, or set CXX"
    ]
    assert "no C++ compiler" in ops.status()["cpu"]
    with pytest.raises(
        RuntimeError, match="the compiled cpu operators were asked for and are not there: no C\\+\\+ compiler"
    ):
        scala_attention(*MINIMAL, kernel_size=3, backend="cpu")
    monkeypatch.setenv("ULTRON_KERNELS", "cpu")
    with pytest.raises(RuntimeError, match="asked for"):
        scala_attention(*MINIMAL, kernel_size=3)
    assert not fresh.exists()


def test_a_build_that_fails_keeps_its_reason_and_is_not_repeated(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    compiler = tmp_path / "c++"
    compiler.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo broken 1.0 && exit 0\necho x >> {calls}\necho "fatal error: '
        'out of ideas" >&2\nexit 1\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    for _ in range(2):
        with pytest.raises(
            build.BuildError, match=r"compiling the cpu operators failed: .*error.*ultron doctor --build"
        ):
            build.build("cpu")
    n_calls = len(calls.read_text().splitlines())
    assert n_calls >= 1
    assert "failed" in ops.status_of("cpu")
    assert not list(fresh.rglob("*.so")) and not [
        path for path in fresh.rglob("cpu-*") if path.is_dir()
    ]  # nothing half-made is left
    with pytest.raises(build.BuildError):
        build.build("cpu", retry=True)
    assert len(calls.read_text().splitlines()) > n_calls


def test_a_cache_that_cannot_be_written_is_said(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.write_text("a file where the folder should be")
    with pytest.raises(
        build.BuildError, match=r"cannot write to the cache of compiled libraries.*set ULTRON_KERNEL_CACHE"
    ):
        build.build("cpu")


def test_a_damaged_library_is_said(fresh: Path) -> None:
    library = build.library_path("cpu")
    library.parent.mkdir(parents=True)
    library.write_bytes(b"not a library")
    with pytest.raises(build.BuildError, match=r"does not load: .*delete it and run `ultron doctor --build`"):
        build.load("cpu")


def test_the_key_follows_source_and_compiler(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.library_path("cpu")
    build.library_path.cache_clear()
    assert build.library_path("cpu") == before
    copied = tmp_path / "csrc"
    shutil.copytree(build.SOURCES, copied)
    monkeypatch.setattr(build, "SOURCES", copied)
    build.library_path.cache_clear()
    assert build.library_path("cpu") == before  # the place of the source does not matter
    (copied / "common" / "binding.h").write_text("// changed")
    build.library_path.cache_clear()
    changed = build.library_path("cpu")
    assert changed != before
    (copied / "cuda" / "binding.cpp").write_text("// of the other library")
    build.library_path.cache_clear()
    assert build.library_path("cpu") == changed


@pytest.mark.parametrize("device_type", build.NAMES)
def test_a_library_is_made_from_its_folder_and_the_common_one(device_type: str) -> None:
    folders = [build.SOURCES / "common", build.SOURCES / device_type]
    assert build.source_files(device_type) == sorted(
        path for folder in folders for path in folder.rglob("*") if path.is_file()
    )
    assert {path.name for path in build.SOURCES.iterdir()} == {"common", *build.NAMES}


FAKE_COMPILER = """#!/bin/sh
[ "$1" = --version ] && echo fake 1.0 && exit 0
while [ $# -gt 1 ]; do
    [ "$1" = -o ] && sleep 0.2 && cp LIBRARY "$2" && echo x >> CALLS
    shift
done
"""  # each of its files is the library


@pytest.mark.slow
def test_processes_that_start_at_once_build_once(tmp_path: Path) -> None:
    """With a compiler that takes no time: other tests compile."""
    calls, compiler = tmp_path / "calls", tmp_path / "c++"
    compiler.write_text(FAKE_COMPILER.replace("CALLS", str(calls)).replace("LIBRARY", str(build.build("cpu"))))
    compiler.chmod(0o755)
    program = (
        "import torch, ultron_kernels as k; print(k.scala_attention(*(torch.ones(1, 4, 4, 1, 8),) * 3, "
        "kernel_size=3, backend='cpu').sum().item())"
    )
    environment = {**os.environ, "ULTRON_KERNEL_CACHE": str(tmp_path / "cache"), "CXX": str(compiler)}
    logs = [tmp_path / f"{i}.txt" for i in range(2)]
    running = [start_python(["-c", program], log, environment=environment) for log in logs]
    for process in running:
        process.join(600)
    results = [log.read_text() for log in logs]
    assert [process.exitcode for process in running] == [0, 0], results
    assert [text.splitlines()[-1] for text in results] == ["128.0", "128.0"]
    assert sum("compiling the cpu operators" in text for text in results) == 1
    assert len(list(tmp_path.rglob("ultron_cpu.so"))) == 1
    compiled = [path for path in build.source_files("cpu") if path.suffix == ".cpp"]
    assert len(calls.read_text().splitlines()) == len(compiled) + 1  # and linked once


def test_cuda_needs_a_device() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(build.BuildError, match="no CUDA device"):
        build.load("cuda")
