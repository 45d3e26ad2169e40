"""Runs one reader over many damaged files, in a child with limits, and keeps the smallest file of every failure."""

import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.mutations import Mutation, damaged, mutate_bytes
from ultron_cli.errors import UltronError

MOST_MESSAGE = 2000  # characters of an error
SHRINKING_TRIES = 150


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A reader and the files it is tried with."""

    file: str  # that is damaged, as it lies in the folder
    seeds: tuple[Callable[[Path], object], ...]  # each makes the sound files of a reading in an empty folder
    read: Callable[[Path], object]  # reads from such a folder
    mutations: tuple[Mutation, ...] = (mutate_bytes,)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one reading may take."""

    memory_mib: int = 1024  # beyond what the process has before
    cpu_s: float = 10.0
    wall_s: float = 120.0  # of no progress: waiting for ever takes no CPU


@dataclass(kw_only=True)
class Outcome:
    """What came of a reader's files."""

    n_inputs: int = 0
    n_read: int = 0  # a right answer; the others were refused in one line
    # what happened -> the smallest file that makes it happen
    failures: dict[str, bytes] = field(default_factory=dict)


def problem_of(read: Callable[[Path], object], folder: Path) -> str | None:
    """None for an answer, an empty text for an error in one line, else what is wrong."""
    try:
        read(folder)
    except UltronError as error:
        message = str(error)
        if "\n" in message or len(message) > MOST_MESSAGE:
            return "a message of several lines" if "\n" in message else f"a message of over {MOST_MESSAGE} characters"
        try:
            message.encode()
        except UnicodeEncodeError:
            return "a message that cannot be printed"
        return ""
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
    return None


def made_seeds(reader: Reader, folder: Path) -> list[bytes]:
    """Makes every seed's folder (0, 1, ...) and returns the bytes of the file. Raises what the reader raises for them:
    a seed must be sound."""
    seeds = []
    for i, make in enumerate(reader.seeds):
        place = folder / str(i)
        place.mkdir(parents=True)
        make(place)
        reader.read(place)
        seeds.append((place / reader.file).read_bytes())
    return seeds


def input_of(reader: Reader, seeds: list[bytes], seed: int, number: int) -> tuple[int, bytes]:
    """Damaged file `number`: the folder it goes to, and its bytes. The same on every machine."""
    draws = random.Random(f"{seed}/{number}")
    return draws.randrange(len(seeds)), damaged(seeds, reader.mutations, draws)


def in_child(work: Callable[[], Iterator[tuple[int, str | None]]], limits: Limits) -> Iterator[tuple[int, str | None]]:
    """What `work` yields, run in a child; if it is killed, (-1, what happened) at the end."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(receiving)
            faulthandler.disable()
            os.nice(10)
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + (limits.memory_mib << 20),) * 2)
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_PROF, limits.cpu_s)
            for number, problem in work():
                signal.setitimer(signal.ITIMER_PROF, limits.cpu_s)
                text = b"\0" if problem is None else problem.encode("utf-8", "replace")[:500]
                os.write(sending, struct.pack("<qi", number, len(text)) + text)
            status = 0
        finally:
            os._exit(status)
    os.close(sending)
    yield from _received(receiving, child, limits)


def _received(receiving: int, child: int, limits: Limits) -> Iterator[tuple[int, str | None]]:
    import select

    with open(receiving, "rb", buffering=0) as pipe:
        buffered = b""
        while True:
            if not select.select([pipe], [], [], limits.wall_s)[0]:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                yield -1, f"no end within {limits.wall_s:.0f} s"
                return
            part = os.read(pipe.fileno(), 1 << 16)
            if not part:
                break
            buffered += part
            while len(buffered) >= 12:
                number, length = struct.unpack("<qi", buffered[:12])
                if len(buffered) < 12 + length:
                    break
                text, buffered = buffered[12 : 12 + length], buffered[12 + length :]
                yield number, None if text == b"\0" else text.decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        yield -1, f"over {limits.cpu_s:g} s" if name == "SIGPROF" else f"killed by {name}"
    elif os.WEXITSTATUS(status):
        yield -1, "the child ended early"


def fuzz(
    reader: Reader, n_inputs: int, *, seed: int = 0, limits: Limits | None = None, seconds: float | None = None
) -> Outcome:
    """Feeds a reader with damaged files 0 to n_inputs - 1, or as many as go into `seconds`."""
    limits = limits or Limits()
    outcome = Outcome()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        seeds = made_seeds(reader, folder)
        ends_s = (
            time.monotonic() + seconds if seconds else float("inf")
        )  # the seeds have imported what the reader needs

        def readings(first: int) -> Iterator[tuple[int, str | None]]:
            for number in range(first, n_inputs):
                if time.monotonic() > ends_s:
                    return
                place, data = input_of(reader, seeds, seed, number)
                (folder / str(place) / reader.file).write_bytes(data)
                yield number, problem_of(reader.read, folder / str(place))

        while outcome.n_inputs < n_inputs and time.monotonic() <= ends_s:
            first = outcome.n_inputs
            for number, problem in in_child(lambda first=first: readings(first), limits):
                if number >= 0:
                    outcome.n_inputs = number + 1
                else:
                    number = outcome.n_inputs  # the one after the last that came back
                    outcome.n_inputs += 1
                outcome.n_read += problem is None
                if problem:
                    _, data = input_of(reader, seeds, seed, number)
                    if problem not in outcome.failures or len(data) < len(outcome.failures[problem]):
                        outcome.failures[problem] = data
            if outcome.n_inputs == first:
                break
        for problem, data in list(outcome.failures.items()):
            outcome.failures[problem] = _shrunk(reader, folder / "0", data, problem, limits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _shrunk(reader: Reader, folder: Path, data: bytes, problem: str, limits: Limits) -> bytes:
    """A smaller file that makes the same happen, found by leaving parts out."""

    def still_fails(candidate: bytes) -> bool:
        (folder / reader.file).write_bytes(candidate)
        return any(
            text == problem for _, text in in_child(lambda: iter([(0, problem_of(reader.read, folder))]), limits)
        )

    n_tries = 0
    length = len(data) // 2
    while length and n_tries < SHRINKING_TRIES:
        start = 0
        while start < len(data) and n_tries < SHRINKING_TRIES:
            candidate = data[:start] + data[start + length :]
            n_tries += 1
            if still_fails(candidate):
                data = candidate
            else:
                start += length
        length //= 2
    return data


def report(name: str, outcome: Outcome, folder: Path, seconds: float) -> str:
    """One line for people; the failures' files go to `folder`."""
    for number, (problem, data) in enumerate(outcome.failures.items()):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}-{number}"
        path.write_bytes(data)
        print(f"{name}: {problem}: {path} ({len(data)} bytes)", file=sys.stderr)
    return json.dumps(
        {
            "reader": name,
            "inputs": outcome.n_inputs,
            "answered": outcome.n_read,
            "refused in one line": outcome.n_inputs - outcome.n_read,
            "failures": list(outcome.failures),
            "seconds": round(seconds),
        }
    )
