"""The workspace: a folder of results, and which of each kind is the latest, so that commands need no arguments."""

import json
import os
from pathlib import Path

from ultron_cli import console
from ultron_cli.errors import UltronError
from ultron_cli.files import make_folder, read_json, write_text

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


def workspace_root() -> Path:
    """--workspace, else ULTRON_WORKSPACE, else ./ultron-runs."""
    return Path(console.settings.workspace or os.environ.get("ULTRON_WORKSPACE") or "ultron-runs").expanduser()


def data_root() -> Path:
    """--data-root, else ULTRON_DATA, else ~/.cache/ultron/data."""
    return Path(console.settings.data_root or os.environ.get("ULTRON_DATA") or "~/.cache/ultron/data").expanduser()


def result_folder(kind: str, name: str) -> Path:
    """The folder for a result of this kind and name, created."""
    return make_folder(workspace_root() / kind / name)


def _latest() -> dict[str, str]:
    path = workspace_root() / "latest.json"
    return read_json(path, "the workspace's list of results") if path.exists() else {}


def remember(kind: str, result: Path) -> None:
    """Records `result` (a file or folder) as the latest of its kind; inside the workspace as a relative path."""
    root = make_folder(workspace_root()).resolve()
    target = result.resolve()
    stored = str(target.relative_to(root)) if target.is_relative_to(root) else str(target)
    write_text(root / "latest.json", json.dumps(_latest() | {kind: stored}, indent=1))


def latest(kind: str) -> Path | None:
    """The latest result of a kind, or None if there is none or it has been deleted."""
    stored = _latest().get(kind)
    if stored is None:
        return None
    path = workspace_root() / stored
    return path if path.exists() else None


def take_latest(kind: str, instead: str) -> Path:
    """The latest result of a kind, said on stderr. Raises UltronError, with what to do instead, if there is none."""
    path = latest(kind)
    if path is None:
        raise UltronError(
            f"no result of `{KINDS[kind].split(' --')[0]}` in the workspace {workspace_root()}; run "
            f"`{KINDS[kind]}` first, or {instead}"
        )
    console.log.info("taking the latest %s result: %s", kind, path)
    return path
