"""What compilers make for tests. It lies beside the compiled operators, under a key of all that shapes it, so that it
is made once for a machine, and once where two processes of pytest want it at the same time."""

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ultron_kernels.build import SOURCE_SUFFIXES, cache_folder, version_of

ROOT = Path(__file__).resolve().parents[2]
EMULATOR = Path(__file__).parent / "emulator"
CSRC = ROOT / "kernels" / "csrc"


def compiled(name: str, command: Sequence[str | Path]) -> tuple[Path, str]:
    """The file that a compiler makes of our sources, and what it said on stderr meanwhile.

    name: of the file. command: without `-o FILE`. Raises AssertionError with what the compiler said if it fails, which
    is not remembered.
    """
    texts = [str(part) for part in command]
    parts = [version_of(texts[0]), version_of("g++"), *(text.replace(str(ROOT), "") for text in texts)]
    for folder in (CSRC, EMULATOR):
        for path in sorted(path for path in folder.rglob("*") if path.suffix in SOURCE_SUFFIXES):
            parts += [path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    place = cache_folder() / "tests" / key / name
    log = place.with_suffix(".txt")
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            unfinished = place.with_name(f"unfinished-{name}")
            result = subprocess.run([*texts, "-o", str(unfinished)], capture_output=True, text=True, timeout=600)
            assert result.returncode == 0, result.stderr[-4000:]
            log.write_text(result.stderr, encoding="utf-8")
            os.replace(unfinished, place)
    return place, log.read_text(encoding="utf-8")
