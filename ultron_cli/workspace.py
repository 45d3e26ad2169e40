"""The workspace: a folder of results, and which of each kind is the latest, so that commands need no arguments."""

import hashlib
import json
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.files import make_folder, write_text
from ultron_cli.locks import only_writer
from ultron_cli.schema.texts import read_json

# kind of result -> the command that makes one
KINDS = {
    "train": "ultron train",
    "extract": "ultron extract --dataset DIR",
    "whiten": "ultron whiten",
    "index": "ultron index",
    "search": "ultron search --out RANKS.h5",
    "evaluate": "ultron evaluate --protocol all",
    "visualize": "ultron visualize-cam",
}


MOST_NAME_BYTES = 200  # file systems take 255, and something may follow


def file_name(text: str) -> str:
    """A text as the name of a file or folder: what cannot stand in one, or is no printable text, becomes an underscore;
    the end of one too long, a hash."""
    name = "".join("_" if c == "/" or unicodedata.category(c)[0] == "C" else c for c in text)
    if len(name.encode()) <= MOST_NAME_BYTES:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name.encode()[: MOST_NAME_BYTES - 9].decode('utf-8', 'ignore')}-{digest}"


def _default_root() -> Path:
    return Path(os.environ.get("ULTRON_WORKSPACE") or "ultron-runs").expanduser()


def _default_data_root() -> Path:
    return Path(os.environ.get("ULTRON_DATA") or "~/.cache/ultron/data").expanduser()


# Keys, at any depth, that tell of the making and not of what was made.
MAKING = {"created", "command", "packages", "python", "platform", "ultron_version", "device", "ms_per_query"}
MAKING |= {"searched_by", "evaluated_by"}


def short_hash(made_by: Mapping[str, object]) -> str:
    """8 hexadecimal digits of what makes a result: equal for results that are made alike."""
    text = json.dumps(_settings_of(made_by), sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _settings_of(value: object) -> object:
    """Plain data without the keys of MAKING."""
    if isinstance(value, Mapping):
        return {str(key): _settings_of(part) for key, part in value.items() if key not in MAKING}
    return [_settings_of(part) for part in value] if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where results and datasets are. Functions that read or remember results take it as an argument."""

    # folder of results: ULTRON_WORKSPACE, else ./ultron-runs
    root: Path = field(default_factory=_default_root)
    # folder of datasets: ULTRON_DATA, else ~/.cache/ultron/data
    data_root: Path = field(default_factory=_default_data_root)

    def __post_init__(self) -> None:
        for name, folder in (("workspace", self.root), ("data_root", self.data_root)):
            if os.path.exists(folder) and not os.path.isdir(folder):
                raise UltronError(f"`{name}` must be a folder, {folder} is something else; name another")

    def result_path(self, kind: str, name: str, made_by: Mapping[str, object] | None = None) -> Path:
        """The folder for a result of this kind and name, which may be made of names that people chose.

        made_by: what makes the result, as plain data: a short hash of it ends the folder's name, so that a result
        replaces only one that was made alike. What tells when and where it was made does not count.
        """
        end = f"-{short_hash(made_by)}" if made_by is not None else ""
        return self.root / kind / (file_name(name) + end)

    def result_folder(self, kind: str, name: str, made_by: Mapping[str, object] | None = None) -> Path:
        """As result_path, created."""
        return make_folder(self.result_path(kind, name, made_by))

    def _latest(self) -> dict[str, str]:
        path = self.root / "latest.json"
        if not path.exists():
            return {}
        return read_json(path, "the workspace's list of results", dict[str, str], advice="delete it")

    def remember(self, kind: str, result: Path) -> None:
        """Records `result` (a file or folder) as the latest of its kind; inside the workspace as a relative path. What
        went into a pipe or a device is no result to come back to."""
        if not (result.is_file() or result.is_dir()):
            return
        root = make_folder(self.root).resolve()
        target = result.resolve()
        stored = str(target.relative_to(root)) if target.is_relative_to(root) else str(target)
        path = root / "latest.json"
        with only_writer(path, f"another command is writing {path}", beside=True, wait=True):
            write_text(path, json.dumps(self._latest() | {kind: stored}, indent=1))

    def latest(self, kind: str) -> Path | None:
        """The latest result of a kind, or None if there is none or it has been deleted."""
        stored = self._latest().get(kind)
        if stored is None:
            return None
        path = self.root / stored
        return path if os.path.exists(path) else None  # Path.exists raises for a name of thousands of characters

    def take_latest(self, kind: str, instead: str) -> Path:
        """The latest result of a kind, said on stderr. Raises UltronError, with what to do instead, if there is
        none."""
        path = self.latest(kind)
        if path is None:
            raise UltronError(
                f"no result of `{KINDS[kind].split(' --')[0]}` in the workspace {self.root}; run "
                f"`{KINDS[kind]}` first, or {instead}"
            )
        log.info("taking the latest %s result: %s", kind, path)
        return path
