"""Temporary names, which say whose they are, and the sweeping of what killed processes left under them."""

import contextlib
import os
import re
import secrets
import shutil
import time
from pathlib import Path

from ultron_cli.processes import is_alive, machine_mark, start_time

# Machine, process, a random part; .tmp is half written, .old is what it replaces, with the name that it had.
_TEMPORARY = re.compile(r"\.ultron-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.(?:tmp(?:\.[^.]{1,15})?|old-(.+))", re.DOTALL)
MOST_NAME_BYTES = 255  # of an entry of a folder, on most file systems
# Untouched so long, what another machine left (or this one, before it was started anew) is given up.
FOREIGN_LEFTOVER_S = 86400.0
CLOCK_SLACK_S = 3.0  # between the clock of files and that of processes

_swept: set[Path] = set()  # folders, by this process


def temporary_name(end: str = "tmp") -> str:
    """A name that nothing else has, and that says whose it is."""
    return f".ultron-{machine_mark()}-{os.getpid()}-{secrets.token_hex(4)}.{end}"


def aside_name(name: str) -> str:
    """What a folder is called while it is replaced: with its name, which it gets back after a kill, where that fits."""
    aside = temporary_name(f"old-{name}")
    return aside if len(os.fsencode(aside)) <= MOST_NAME_BYTES else temporary_name()


def temporary_path(target: Path) -> Path:
    """A name beside `target` to write under, with its suffix; the folder is swept of what killed processes left."""
    sweep(target.parent)
    return target.with_name(temporary_name(f"tmp{target.suffix}" if len(target.suffix) < 16 else "tmp"))


def sweep(folder: Path, *, anew: bool = False) -> None:
    """Removes what killed processes left half written in a folder, once per process and folder unless `anew`; a folder
    that was moved aside and not replaced gets its name back."""
    if folder in _swept and not anew:
        return
    _swept.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        leftovers = [(entry.path, match) for entry in entries if (match := _TEMPORARY.fullmatch(entry.name))]
        for leftover, match in leftovers:
            if _is_left(Path(leftover), match[1], int(match[2])):
                _clear_away(Path(leftover), match[3])


def _is_left(path: Path, mark: str, pid: int) -> bool:
    """Whether the process that made a temporary file is gone. Another may have its number by now."""
    if mark == machine_mark() and not is_alive(pid):
        return True
    with contextlib.suppress(OSError):
        stat = path.lstat()
        if mark != machine_mark():
            return time.time() - stat.st_mtime > FOREIGN_LEFTOVER_S
        began_s = start_time(pid)
        return began_s is not None and began_s > stat.st_ctime + CLOCK_SLACK_S
    return False


def _clear_away(path: Path, old_name: str | None) -> None:
    if old_name is not None and not os.path.lexists(path.with_name(old_name)):
        with contextlib.suppress(OSError):
            os.rename(path, path.with_name(old_name))
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
