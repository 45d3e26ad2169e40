"""Photos that are named one by one, instead of as a folder: by a program that has a list of paths."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ultron_cli.datasets.folder import Dataset
from ultron_cli.datasets.photo_files import SKIP
from ultron_cli.errors import UltronError


@dataclass(frozen=True, kw_only=True)
class ListedPhotos(Dataset):
    """Photos by path; their names are their paths as they were given. There are no queries."""

    paths: tuple[str, ...] = field(repr=False)

    @property
    def database_names(self) -> list[str]:  # pyright: ignore[reportIncompatibleVariableOverride]  of the folder it is cached
        """The paths."""
        return list(self.paths)

    @property
    def unread_files(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nothing: what lies beside these photos was not asked for."""
        return None

    def _files_named(self, name: str) -> list[str]:
        return [name] if os.path.isfile(name) else []

    def photo_path(self, name: str, *, suggest: bool = True) -> Path:
        """The file of a photo. Raises UltronError if there is none."""
        if not self._files_named(name):
            raise UltronError(f"{name}: no such photo; check the path", SKIP)
        return Path(name)


def listed_photos(paths: Sequence[str | Path]) -> ListedPhotos:
    """The photos of a list of paths. Raises UltronError for an empty list."""
    if not len(paths):
        raise UltronError("the list of photos is empty; name one or more")
    folders = {os.path.abspath(os.path.dirname(path)) for path in paths}
    return ListedPhotos(name="photos", folder=Path(os.path.commonpath(folders)), paths=tuple(map(str, paths)))
