"""Runs one reader over many damaged files, in a child with limits, and keeps the smallest file of every failure.

A reader that asks a guarded child (ultron_cli/guarded.py) reads most files in the child of this module itself, as on a
system that cannot fork: a child per file would take most of the time. A file that ends this child is read again
through the guard, and what the guard makes of it counts; one file in `guarded_every` goes through it in any case.
"""

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
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tests.fuzz.mutations import damaged
from tests.fuzz.reader import Reader
from ultron_cli import guarded
from ultron_cli.errors import UltronError
from ultron_cli.memory import set_memory_budget

MOST_MESSAGE = 2000  # characters of an error
SHRINKING_TRIES = 150
CPU_S_BEFORE_GUARD = 0.25  # of a reading without the guard, which then has its own
FILES_OF_A_CHILD = 5000  # libraries leave something behind of every damaged file
BUDGET_BYTES = 1 << 28  # that files may declare


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
    n_guarded: int = 0  # of the inputs, read through the guard as in the program
    n_rescued: int = 0  # of these, those that ended a reader without the guard
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


def in_child(
    work: Callable[[], Iterator[tuple[int, str | None]]], limits: Limits, *, with_guard: bool = True
) -> Iterator[tuple[int, str | None]]:
    """What `work` yields, run in a child; if it is killed, (-1, what happened) at the end. Without the guard the child
    reads what a guarded child of its own would."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(receiving)
            faulthandler.disable()
            guarded.CAN_FORK = guarded.CAN_FORK and with_guard
            set_memory_budget(BUDGET_BYTES)
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


def read_each(
    reader: Reader,
    folder: Path,
    files: Callable[[int], tuple[int, bytes]],
    numbers: range,
    limits: Limits,
    *,
    with_guard: bool = True,
) -> Iterator[tuple[int, str | None]]:
    """(number, problem) of every file, whatever becomes of the child that reads it. folder: of made_seeds; files: the
    seed's folder and the bytes of a file, by number."""

    def readings(part: range) -> Iterator[tuple[int, str | None]]:
        for number in part:
            place, data = files(number)
            (folder / str(place) / reader.file).write_bytes(data)
            yield number, problem_of(reader.read, folder / str(place))

    while numbers:
        part = numbers[:FILES_OF_A_CHILD]
        n_read = 0
        for number, problem in in_child(partial(readings, part), limits, with_guard=with_guard):
            # one that ended the child is the one after the last that came back
            yield (number if number >= 0 else part[n_read]), problem
            n_read += 1
        if not n_read:
            return
        numbers = numbers[n_read:]


def fuzz(
    reader: Reader,
    n_inputs: int,
    *,
    seed: int = 0,
    limits: Limits | None = None,
    seconds: float | None = None,
    guarded_every: int = 50,
) -> Outcome:
    """Feeds a reader with damaged files 0 to n_inputs - 1, or as many as go into `seconds`. guarded_every: of a guarded
    reader, one file in so many is read through the guard; 1: all."""
    limits = limits or Limits()
    outcome = Outcome()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        seeds = made_seeds(reader, folder)  # also imports what the reader needs
        made_seeds(reader, folder / "guarded")
        ends_s = time.monotonic() + seconds if seconds else float("inf")

        def outcomes(numbers: range, *, with_guard: bool) -> Iterator[tuple[int, str | None]]:
            allowed = limits if with_guard else replace(limits, cpu_s=min(limits.cpu_s, CPU_S_BEFORE_GUARD))
            where = folder / "guarded" if with_guard else folder  # both go on at the same time
            files = partial(input_of, reader, seeds, seed)
            for number, problem in read_each(reader, where, files, numbers, allowed, with_guard=with_guard):
                yield number, problem
                if time.monotonic() > ends_s:
                    return

        every = guarded_every if reader.is_guarded else 1
        for number, problem in outcomes(range(n_inputs), with_guard=every == 1):
            outcome.n_inputs += 1
            if problem and every > 1:
                # What befalls a reader without the guard counts as the guard answers it.
                ((_, problem),) = outcomes(range(number, number + 1), with_guard=True)
                outcome.n_guarded += 1
                outcome.n_rescued += not problem
            elif every == 1:
                outcome.n_guarded += reader.is_guarded
            outcome.n_read += problem is None
            _keep_smallest(outcome, problem, input_of(reader, seeds, seed, number)[1] if problem else b"")
        for number, problem in outcomes(range(0, outcome.n_inputs, every), with_guard=True) if every > 1 else ():
            outcome.n_guarded += 1
            _keep_smallest(outcome, problem, input_of(reader, seeds, seed, number)[1] if problem else b"")
        for problem, data in list(outcome.failures.items()):
            outcome.failures[problem] = _shrunk(reader, folder / "0", data, problem, limits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _keep_smallest(outcome: Outcome, problem: str | None, data: bytes) -> None:
    if problem and (problem not in outcome.failures or len(data) < len(outcome.failures[problem])):
        outcome.failures[problem] = data


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
            "through the guard": outcome.n_guarded,
            "rescued by it": outcome.n_rescued,
            "failures": list(outcome.failures),
            "seconds": round(seconds),
        }
    )
