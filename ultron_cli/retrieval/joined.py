"""A database with distractors: several descriptor files read as one."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ultron_cli.configs import differences
from ultron_cli.errors import UltronError
from ultron_cli.models.weights.model_choice import require_same_model
from ultron_cli.retrieval.descriptors import DescriptorFile, require_same_dim
from ultron_cli.retrieval.whitening import Whitening, open_descriptors, require_same_whitening

COMPARED = ("scales", "max_side_px", "resize")  # settings that shape every descriptor alike, beside the model


class JoinedFiles(DescriptorFile):
    """The rows of a database file, then those of distractor files, read from disk only when asked for.

    Names of distractors get the prefix `distractor:`, so that none can be taken for a photo of the ground truth.
    """

    def __init__(self, database: Path, distractors: Sequence[Path], whitening: Whitening | None = None) -> None:
        self.path, self.files = database, []
        try:
            for path in (database, *distractors):
                self.files.append(open_descriptors(path, whitening))
                self._check_alike(self.files[0], self.files[-1])
        except UltronError:
            self.close()
            raise
        self.starts = np.cumsum([0, *(file.n for file in self.files)])
        self.n, self.dim, self.info = int(self.starts[-1]), self.files[0].dim, self.files[0].info

    @staticmethod
    def _check_alike(database: DescriptorFile, other: DescriptorFile) -> None:
        if other is database:
            return
        where = f"{database.path} and {other.path}"
        require_same_dim(other.path, other.dim, database.path, database.dim)
        require_same_model(database.info.config, other.info.config, where)
        require_same_whitening(database.info.config, other.info.config, where)
        own, theirs = (
            {key: config.get(key) for key in COMPARED} for config in (database.info.config, other.info.config)
        )
        differing = differences(own, theirs)
        if differing:
            raise UltronError(
                f"{where} were extracted differently: {'; '.join(differing)}; extract the distractors as the database"
            )

    @cached_property
    def names(self) -> list[str]:  # type: ignore[override]
        """Photo names, one per row."""
        return [*self.files[0].names, *(f"distractor:{name}" for file in self.files[1:] for name in file.names)]

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(n, D) float32 rows start..stop. Raises as DescriptorFile.read does."""
        stop = self.n if stop is None else stop
        parts = []
        for file, first in zip(self.files, self.starts.tolist(), strict=False):
            low, high = max(start, first) - first, min(stop, first + file.n) - first
            if low < high:
                parts.append(file.read(low, high))
        return parts[0] if len(parts) == 1 else np.concatenate([*parts, np.empty((0, self.dim), np.float32)])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(n, D) float32 rows in any order. Raises as DescriptorFile.take does."""
        found = np.empty((len(rows), self.dim), np.float32)
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        for i, file in enumerate(self.files):
            own = owner == i
            if own.any():
                found[own] = file.take(rows[own] - self.starts[i])
        return found

    def close(self) -> None:
        """Closes all files."""
        for file in self.files:
            file.close()

    def recorded(self) -> list[dict[str, Any]]:
        """The distractors as an evaluation stores them."""
        return [
            {"path": str(file.path.resolve()), "n": file.n, "dataset": file.info.dataset} for file in self.files[1:]
        ]
