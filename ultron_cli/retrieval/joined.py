"""A database with distractors: several descriptor files read as one."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ultron_kernels.halves import widened

from ultron_cli.datasets.photo_marks import PhotoMarks
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import DescriptorFile, Descriptors, require_same_dim, require_same_model
from ultron_cli.retrieval.origin import DistractorRecord
from ultron_cli.retrieval.overlap import warn_of_repeats
from ultron_cli.retrieval.whitening import Whitening, open_descriptors, require_same_whitening

COMPARED = ("scales", "max_side_px", "resize")  # settings that shape every descriptor alike, beside the model


class JoinedFiles(Descriptors):
    """The rows of a database file, then those of distractor files; each is read from disk when it is needed.

    Names of distractors get the prefix `distractor:`, so that none can be descriptors for a photo of the ground truth.
    """

    def __init__(self, database: Path, distractors: Sequence[Path], whitening: Whitening | None = None) -> None:
        self.label = str(database)
        self.files: list[DescriptorFile] = []
        try:
            for path in (database, *distractors):
                self.files.append(open_descriptors(path, whitening))
                self._check_alike(self.files[0], self.files[-1])
            for file in self.files[1:]:
                warn_of_repeats(self.files[0], file)
        except UltronError:
            self.close()
            raise
        self.starts = np.cumsum([0, *(file.n for file in self.files)])
        self.n = int(self.starts[-1])
        self.dim = self.files[0].dim
        self.info = self.files[0].info
        distractor_names = (f"distractor:{name}" for file in self.files[1:] for name in file.names)
        self._names = [*self.files[0].names, *distractor_names]

    @staticmethod
    def _check_alike(database: DescriptorFile, distractors: DescriptorFile) -> None:
        if distractors is database:
            return
        where = f"{database.path} and {distractors.path}"
        require_same_dim(distractors.path, distractors.dim, database.path, database.dim)
        require_same_model(database.info.extraction, distractors.info.extraction, where)
        require_same_whitening(database.info.extraction, distractors.info.extraction, where)
        differing = database.info.extraction.differences(distractors.info.extraction, COMPARED)
        if differing:
            raise UltronError(
                f"{where} were extracted differently: {'; '.join(differing)}; extract the distractors as the database"
            )

    @property
    def names(self) -> list[str]:
        """Photo names, one per row."""
        return self._names

    @property
    def marks(self) -> PhotoMarks | None:
        """The marks of all photos; None where one file has none."""
        marks = [part for file in self.files if (part := file.marks) is not None]
        return PhotoMarks.joined(marks) if len(marks) == len(self.files) else None

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(n, D) float32 rows start..stop. Raises as DescriptorFile.read does."""
        return widened(self.read_stored(start, stop))

    def read_stored(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(n, D) rows start..stop, float16 where all files hold such. Raises as DescriptorFile.read does."""
        start, stop, _ = slice(start, stop).indices(self.n)
        files = [file for file, _, _ in self._parts(start, stop)] or self.files[:1]
        rows = np.empty((max(0, stop - start), self.dim), np.result_type(*(file.stored_dtype for file in files)))
        self.read_into(start, rows)
        return rows

    @property
    def stored_dtype(self) -> np.dtype:
        return np.result_type(*(file.stored_dtype for file in self.files))

    def read_into(self, start: int, room: np.ndarray) -> None:
        stop = start + len(room)
        for file, low, first_row in self._parts(start, stop):
            begin = first_row + low - start
            file.read_into(low, room[begin : begin + min(file.n, stop - first_row) - low])

    def _parts(self, start: int, stop: int) -> Iterator[tuple[DescriptorFile, int, int]]:
        """Each file that rows start..stop are of: (file, its first row of them, its first row in the whole)."""
        for file, first_row in zip(self.files, self.starts.tolist(), strict=False):
            low = max(start - first_row, 0)
            if low < file.n and first_row < stop:
                yield file, low, first_row

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(n, D) float32 rows in any order. Raises as DescriptorFile.take does."""
        descriptors = np.empty((len(rows), self.dim), np.float32)
        file_of_row = np.searchsorted(self.starts, rows, side="right") - 1
        for i, file in enumerate(self.files):
            is_of_file = file_of_row == i
            if is_of_file.any():
                descriptors[is_of_file] = file.take(rows[is_of_file] - self.starts[i])
        return descriptors

    def close(self) -> None:
        """Closes all files."""
        for file in self.files:
            file.close()

    @property
    def distractors(self) -> tuple[DistractorRecord, ...]:
        """The distractor files, as an Origin holds them."""
        return tuple(
            DistractorRecord(path=str(file.path.resolve()), n=file.n, dataset=file.info.dataset)
            for file in self.files[1:]
        )
