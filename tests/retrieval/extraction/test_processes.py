"""Extraction by several processes: the file of one process, whoever computed which shard, and nothing lost with a
process that dies."""

import datetime
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch.distributed as dist
from PIL import Image

from tests.conftest import Run, free_port
from tests.prepared_python import run_python
from ultron_cli import distributed
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.locks import only_writer
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.extraction import processes
from ultron_cli.retrieval.extraction.dataset import ALL_IS_CHOSEN, ExtractRequest, extract_dataset
from ultron_cli.retrieval.extraction.processes import ExtractionProcesses, OtherProcessFailed

pytestmark = pytest.mark.slow

N_PHOTOS, N_SHARDS = 270, 5
FLAGS = ("--untrained", "--backbone", "test_resnet", "--scales", "1", "--workers", "0", "--device", "cpu", "--skip-bad")
CHOICE = ModelChoice(untrained=True, model="gem", settings={"backbone": "test_resnet"})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small photos of noise in several shapes, so that shards have batches of every size; one is broken."""
    folder, rng = tmp_path_factory.mktemp("processes") / "photos", np.random.default_rng(0)
    folder.mkdir()
    for i in range(N_PHOTOS):
        height, width = ((40, 48), (48, 40), (44, 44), (36, 60), (40, 48))[i % 5]
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / f"{i:03d}.jpg")
    (folder / "200.jpg").write_bytes(b"no photo")
    return folder


def content(path: Path) -> tuple[list[bytes], np.ndarray, dict[str, object]]:
    """Names, descriptors, and all that the file says of its origin but when, and by which command."""
    with h5py.File(path) as stored:
        attributes = dict(stored.attrs)
        provenance = json.loads(attributes.pop("provenance"))
        del attributes["created"], provenance["created"], provenance["command"]
        return stored["names"][:].tolist(), stored["descriptors"][:], attributes | {"provenance": provenance}


def require_equal(first: Path, second: Path) -> None:
    """Bit for bit."""
    (names_a, rows_a, about_a), (names_b, rows_b, about_b) = content(first), content(second)
    assert names_a == names_b
    assert rows_a.tobytes() == rows_b.tobytes()
    assert about_a == about_b


def request(photos: Path, out: Path, **changes: object) -> ExtractRequest:
    return ExtractRequest(
        **({"dataset": str(photos), "out": out, "scales": (1.0,), "n_workers": 0, "skip_bad": True} | changes)
    )  # type: ignore[arg-type]


def extract_alone(photos: Path, out: Path) -> dict:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as each of the two processes has
    try:
        return extract_dataset(request(photos, out), CHOICE, "cpu")
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULTRON_WORKSPACE", str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """database.h5 of one process."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ULTRON_WORKSPACE", str(folder / "runs"))
        summary = extract_alone(photos, folder / "alone")
    assert summary["files"]["database"]["computed"] == N_PHOTOS
    return folder / "alone" / "database.h5"


def test_two_processes_write_the_file_of_one(photos: Path, alone: Path, tmp_path: Path) -> None:
    out, torchrun = (
        tmp_path / "two",
        (
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            "--master-addr",
            "127.0.0.1",
            "--master-port",
            free_port(),
        ),
    )
    command = (*torchrun, "-m", "ultron_cli", "extract", photos, *FLAGS, "--out", out)
    environment = os.environ | {"ULTRON_WORKSPACE": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1"}
    done = run_python(command, environment=environment, timeout_s=100)
    assert done.returncode == 0, done.stderr
    require_equal(alone, out / "database.h5")
    assert not list(out.glob("*.parts"))
    assert done.stdout.count("gem-test_resnet on photos") == 1
    assert done.stdout.count("left out 1 photo that could not be decoded: 200.jpg") == 1
    assert done.stderr.count("left out 1 photo that") == 1
    assert json.loads((tmp_path / "runs" / "latest.json").read_text())["extract"] == str(out)


def extract_and_be_killed(photos: str, out: str, left: str) -> dict:
    """What torchrun starts: process 1 dies once the first of its two shards is on disk, leaving a copy of what is
    there; restarted, it does not."""
    from ultron_cli.retrieval.extraction import described

    write = described.write_descriptors

    def write_and_die(path: Path, *arguments: Any) -> None:
        write(path, *arguments)
        if os.environ["RANK"] == "1" and not distributed.restart_count():
            shutil.copytree(out, left, ignore=shutil.ignore_patterns(".*"))
            os.kill(os.getpid(), signal.SIGKILL)

    described.write_descriptors = write_and_die
    return extract_alone(Path(photos), Path(out))


def test_what_a_killed_process_left_is_continued_by_one_and_by_two(photos: Path, alone: Path, tmp_path: Path) -> None:
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="static",
        rdzv_endpoint=f"127.0.0.1:{free_port()}",
        rdzv_configs={"rank": 0},
        run_id="test",
        max_restarts=1,
        monitor_interval=0.2,
        start_method="forkserver",
    )
    left = tmp_path / "left"
    summaries = elastic_launch(launch, extract_and_be_killed)(str(photos), str(tmp_path / "two"), str(left))
    assert summaries[0] == summaries[1]
    assert 64 <= summaries[0]["files"]["database"]["computed"] <= N_PHOTOS - 64
    require_equal(alone, tmp_path / "two" / "database.h5")

    missing = {f"shard-{i:06d}.h5" for i in range(N_SHARDS)} - {path.name for path in left.glob("database.h5.parts/*")}
    assert "shard-000003.h5" in missing and "shard-000001.h5" not in missing
    assert extract_alone(photos, left)["files"]["database"]["computed"] == 64 * len(missing) - (
        50 if "shard-000004.h5" in missing else 0
    )
    require_equal(alone, left / "database.h5")


@pytest.fixture
def pair() -> tuple[ExtractionProcesses, ExtractionProcesses]:
    """Two processes that share a store, in this process."""
    stores = [dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)]
    stores.append(dist.TCPStore("127.0.0.1", stores[0].port, is_master=False, wait_for_workers=False))
    return ExtractionProcesses(0, 2, stores[0]), ExtractionProcesses(1, 2, stores[1])


def test_what_one_tells_the_other_hears(pair: tuple[ExtractionProcesses, ExtractionProcesses]) -> None:
    first, second = pair
    first.tell("missing", [3, 1, 2])
    assert second.hear("missing") == [3, 1, 2]
    assert (first.share([3, 1, 2]), second.share([3, 1, 2])) == ([3, 2], [1])
    assert (first.count(5), second.count(2), first.count(0)) == (5, 7, 7)


def test_nobody_waits_for_ever(
    pair: tuple[ExtractionProcesses, ExtractionProcesses], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    monkeypatch.setattr(processes, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(processes, "TIMEOUT", datetime.timedelta(milliseconds=60))
    with pytest.raises(
        WorkFailed,
        match=r"process 0 waited .* in which no process finished a batch, for 'x': .* start the same command again",
    ):
        first.hear("x")
    second.fail(UltronError("no such photo"))
    with pytest.raises(OtherProcessFailed, match="process 1 of 2 failed: no such photo"):
        first.hear("x")


def test_processes_that_go_on_are_waited_for(
    pair: tuple[ExtractionProcesses, ExtractionProcesses], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    monkeypatch.setattr(processes, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(processes, "TIMEOUT", datetime.timedelta(milliseconds=30))
    counts: list[int] = []

    def goes_on(n_photos: int) -> None:
        counts.append(n_photos)
        second.count(1)
        if n_photos == 9:
            second.tell("x", "done")

    count = first.count
    monkeypatch.setattr(first, "count", lambda n: count(n if counts else 1))  # something has happened by the first look
    assert first.hear("x", goes_on) == "done"
    assert counts == list(range(2, 10))


@pytest.fixture
def of_two(
    pair: tuple[ExtractionProcesses, ExtractionProcesses], monkeypatch: pytest.MonkeyPatch
) -> ExtractionProcesses:
    """Makes this process number 1 of 2; returns number 0."""
    first, second = pair
    for name, value in {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(processes, "_store", lambda process: second._store)
    first.tell(ALL_IS_CHOSEN, "torch")
    first.tell("missing database shards", {0: [0], 1: [64]})
    return first


def test_a_process_that_does_not_share_the_folder_says_so(
    photos: Path, tmp_path: Path, of_two: ExtractionProcesses
) -> None:
    with pytest.raises(
        UltronError,
        match=r"process 1 does not see .*config\.json, which process 0 wrote; `out` must lie on a file system that "
        r"all machines share",
    ):
        extract_dataset(request(photos, tmp_path / "x"), CHOICE, "cpu")
    with pytest.raises(OtherProcessFailed, match="process 1 of 2 failed: process 1 does not see"):
        of_two.hear("process 1 has its database shards")


def test_a_process_with_another_configuration_is_refused(
    photos: Path, alone: Path, tmp_path: Path, of_two: ExtractionProcesses
) -> None:
    parts = tmp_path / "x" / "database.h5.parts"
    parts.mkdir(parents=True)
    with h5py.File(alone) as stored:
        (parts / "config.json").write_text(stored.attrs["config"])
    with pytest.raises(
        UltronError,
        match=r"process 1 differs from process 0: scales \(stored \[1.0\], asked \[0.5\]\); start all with the "
        r"same command",
    ):
        extract_dataset(request(photos, tmp_path / "x", scales=(0.5,)), CHOICE, "cpu")
    assert not list(parts.glob("shard-*.h5"))


def test_the_failure_of_another_process_ends_this_one_without_a_word(
    photos: Path, tmp_path: Path, of_two: ExtractionProcesses, ultron: Run
) -> None:
    of_two.fail(UltronError("another `ultron extract` is writing"))
    of_two._store.delete_key(ALL_IS_CHOSEN)
    assert ultron("extract", photos, *FLAGS, "--out", tmp_path / "x") == (1, "", "")


def test_the_first_process_tells_why_it_gives_up(
    photos: Path,
    tmp_path: Path,
    pair: tuple[ExtractionProcesses, ExtractionProcesses],
    of_two: ExtractionProcesses,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(processes, "_store", lambda process: of_two._store)
    refusal = "another `ultron extract` is writing"
    with only_writer(tmp_path / "x", "held"), pytest.raises(UltronError, match=refusal):
        extract_dataset(request(photos, tmp_path / "x"), CHOICE, "cpu")
    with pytest.raises(OtherProcessFailed, match=f"process 0 of 2 failed: {refusal}"):
        pair[1].hear("summary")
