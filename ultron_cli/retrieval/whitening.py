"""Whitening: a mean and a projection, applied to descriptors, which become unit vectors again; the only code that reads
or writes them.

Layout (a contract, see docs/file-formats.md): attributes format, version, method, created, ultron_version, provenance
(JSON); datasets /mean (D,), /projection (D', D) with the most important row first, /eigenvalues (D',), all float64.
"""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.files import file_state, sha256_of_file
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo
from ultron_cli.retrieval.hdf5 import H5Layout, H5Part, new_h5, open_h5, write_h5_header
from ultron_cli.retrieval.origin import ExtractionRecord, Json, LearnedFrom, WhiteningRecord

FORMAT = "ultron-whitening"
VERSION = 1
FLOATS = ("float64", "float32", "float16")
LAYOUT = H5Layout(
    format=FORMAT,
    version=VERSION,
    what="whitening file",
    parts={
        "mean": H5Part(axes="(D,)", types=FLOATS),
        "projection": H5Part(axes="(D', D)", types=FLOATS),
        "eigenvalues": H5Part(axes="(D',)", types=FLOATS),
    },
    attributes={"method": str, "provenance": str},
    defaults={"provenance": "{}"},
    again="run `ultron whiten` again",
)


@dataclass(frozen=True, kw_only=True)
class Whitening:
    """y = projection (x - mean), made a unit vector."""

    method: str  # that it was learned by: of whitening_learning.METHODS, or an import path; or a published network's
    mean: np.ndarray = field(repr=False)  # (D,) float64
    projection: np.ndarray = field(repr=False)  # (D', D) float64
    eigenvalues: np.ndarray = field(repr=False)  # (D',) float64 of the projection's rows, descending
    provenance: Json = field(default_factory=dict, repr=False)  # what it was learned from
    sha256: str = ""  # of the file it was read from
    path: Path | None = None

    @property
    def dim(self) -> int:
        """Dimensions of what it gives."""
        return len(self.projection)

    def file(self) -> Path:
        """The file it was read from. Raises ValueError if it is of none."""
        if self.path is None:
            raise ValueError("this whitening was not read from a file")
        return self.path

    def reduced(self, dim: int | None) -> "Whitening":
        """The first `dim` rows of the projection (None: all). Raises UltronError if it has fewer."""
        if dim is None:
            return self
        if not 1 <= dim <= self.dim:
            raise UltronError(
                f"`dim` must be between 1 and the {self.dim} dimensions of {self.path or 'the whitening'}; found {dim}"
            )
        return dataclasses.replace(self, projection=self.projection[:dim], eigenvalues=self.eigenvalues[:dim])

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """(n, D') float32 unit rows of (n, D) float32 ones. Raises UltronError if a row is the mean itself."""
        projected = (rows.astype(np.float64) - self.mean) @ self.projection.T
        norms = np.linalg.norm(projected, axis=1, keepdims=True)
        if not (norms > 0).all():
            row = int(np.argmin(norms))
            raise UltronError(
                f"row {row} of the descriptors is the mean of {self.path or 'the whitening'} and has no "
                "direction; leave that photo out"
            )
        return (projected / norms).astype(np.float32)

    def require_for(self, dim: int, label: str) -> None:
        """Raises UltronError unless it takes the descriptors of a model."""
        if self.mean.size != dim:
            raise UltronError(
                f"{self.path} whitens {self.mean.size}-d descriptors, {label} gives {dim}-d; learn one from this "
                "model's: ultron whiten"
            )

    def record(self) -> WhiteningRecord:
        """What descriptors and indexes made with it store; it shaped their numbers."""
        return WhiteningRecord(method=self.method, dim=self.dim, sha256=self.sha256)


class WhitenedFile(DescriptorFile):
    """A descriptor file whose rows are whitened as they are read, and which says so in its info."""

    def __init__(self, path: Path, whitening: Whitening) -> None:
        super().__init__(path)
        self.whitening = whitening
        problem = None
        if self.info.extraction.whitening:
            problem = (
                f"{path} is whitened already ({self.info.extraction.whitening}); leave out `whiten`, or name the file "
                "it was made from"
            )
        elif self.dim != whitening.mean.size:
            problem = (
                f"{whitening.path} whitens {whitening.mean.size}-d descriptors, {path} has {self.dim}-d; learn one "
                f"from these: ultron whiten {path}"
            )
        if problem:
            self.close()
            raise UltronError(problem)
        self.dim = whitening.dim
        self.info = whitened_info(self.info, whitening)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(n, D') float32 whitened rows start..stop. Raises as DescriptorFile.read does."""
        return self.whitening.apply(super().read(start, stop))

    def read_stored(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """What `read` gives: no whitened row lies in the file."""
        return self.read(start, stop)

    def read_into(self, start: int, room: np.ndarray) -> None:
        room[:] = self.read(start, start + len(room))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(n, D') float32 whitened rows in any order. Raises as DescriptorFile.take does."""
        return self.whitening.apply(super().take(rows))


def whitened_info(info: DescriptorInfo, whitening: Whitening) -> DescriptorInfo:
    """What is said of descriptors after a whitening: its record, and where it lies."""
    path = str(whitening.path.resolve()) if whitening.path else None
    return dataclasses.replace(
        info,
        extraction=info.extraction.whitened(whitening.record()),
        provenance=dataclasses.replace(
            info.provenance, whitening=path, whitening_learned_from=LearnedFrom.from_json(whitening.provenance)
        ),
    )


def open_descriptors(path: Path, whitening: Whitening | None = None) -> DescriptorFile:
    """A descriptor file, whitened as it is read unless there is no whitening, or the file was written with the same.

    Raises UltronError, beside what DescriptorFile does, if it has no rows: parts of an extraction may have none, what
    is searched or indexed may not.
    """
    descriptors = DescriptorFile(path)
    if not descriptors.n:
        descriptors.close()
        raise UltronError(f"{path} must hold at least one descriptor, it has none; extract a folder with photos")
    if whitening is None or descriptors.info.extraction.whitening == whitening.record():
        return descriptors
    descriptors.close()
    return WhitenedFile(path, whitening)


def whitening_text(extraction: ExtractionRecord) -> str:
    """`pca-whitening to 512-d`, or `no whitening`."""
    return str(extraction.whitening or "no whitening")


def require_same_whitening(first: ExtractionRecord, second: ExtractionRecord, where: str) -> None:
    """Raises UltronError if two descriptor files have different whitenings."""
    if first.whitening != second.whitening:
        first_text = whitening_text(first)
        second_text = whitening_text(second)
        is_told_apart = first_text != second_text
        fault = f"{first_text} and {second_text}" if is_told_apart else f"two files of {first_text}"
        raise UltronError(
            f"{where} must be whitened alike; found {fault}; extract both alike (`ultron extract --whiten`)"
        )


def write_whitening(path: Path, whitening: Whitening) -> None:
    """Writes a whitening file atomically."""
    with new_h5(path) as (handle, _):
        for name in ("mean", "projection", "eigenvalues"):
            handle[name] = np.asarray(getattr(whitening, name), np.float64)
        write_h5_header(handle, FORMAT, VERSION)
        handle.attrs["method"] = whitening.method
        handle.attrs["provenance"] = json.dumps(dict(whitening.provenance))


def read_whitening(path: Path, dim: int | None = None) -> Whitening:
    """Reads a whitening, cut to `dim` dimensions. Raises UltronError if it is absent, damaged, too new, or has
    fewer."""
    with open_h5(path, LAYOUT) as file:
        arrays = {name: file.array(name).astype(np.float64) for name in LAYOUT.parts}
        method = file.attributes["method"]
        provenance = file.json("provenance", dict)
    mean, projection, eigenvalues = arrays["mean"], arrays["projection"], arrays["eigenvalues"]
    fits = mean.ndim == 1 and projection.ndim == 2 and len(projection) > 0
    fits = fits and projection.shape[1] == mean.size and eigenvalues.shape == projection.shape[:1]
    if not fits or not all(np.isfinite(array).all() for array in arrays.values()):
        shapes = f"{mean.shape}, {projection.shape} and {eigenvalues.shape}"
        raise UltronError(
            f"{path}: mean (D,), projection (D', D) and eigenvalues (D',) must be finite and fit, found {shapes}; "
            f"{LAYOUT.again}"
        )
    whitening = Whitening(
        method=method,
        mean=mean,
        projection=projection,
        eigenvalues=eigenvalues,
        provenance=provenance,
        sha256=sha256_of_file(path),
        path=path,
    )
    _warn_if_source_changed(whitening)
    return whitening.reduced(dim)


def _warn_if_source_changed(whitening: Whitening) -> None:
    """Says that the descriptors a whitening was learned from are others by now. They are compared byte by byte only
    where size and time are others too; a file of a released version does not record them."""
    record = whitening.provenance
    path, state, sha256 = (record.get(key) for key in ("descriptors", "descriptors_state", "descriptors_sha256"))
    if not isinstance(path, str) or not isinstance(state, list) or not os.path.isfile(path):
        return
    if list(file_state(Path(path))) != state and sha256_of_file(Path(path)) != sha256:
        log.warning(
            "%s was learned from %s, which has changed since; learn it again with `ultron whiten --method %s`",
            whitening.path,
            path,
            whitening.method,
        )


def chosen_whitening(path: Path | None, dim: int | None) -> Whitening | None:
    """The whitening of --whiten and --dim; None without. Raises UltronError for --dim alone."""
    if path is None:
        if dim is not None:
            raise UltronError(
                "`dim` cuts the dimensions of a whitening; name one with `whiten` FILE (`ultron whiten --method "
                "pca` learns one)"
            )
        return None
    return read_whitening(path, dim)


def stored_whitening(info: DescriptorInfo, replacement: Whitening | None) -> Whitening | None:
    """The whitening that stored descriptors were made with; None for raw ones. replacement: the same, from another
    place.

    Raises UltronError if it is gone or is another one by now.
    """
    record = info.extraction.whitening
    if record is None:
        return None
    moved_to = replacement.path if replacement else None
    path = moved_to or Path(info.provenance.whitening or "")
    if not path.is_file():
        raise UltronError(
            f"the whitening of these descriptors was at {path}, which is gone; put it back, or extract again",
            "give it with `whiten`",
        )
    whitening = read_whitening(path, record.dim)
    if whitening.record() != record:
        raise UltronError(
            f"the descriptors were made with another whitening ({record}) than {path}; extract again",
            "give that one with `whiten`",
        )
    return whitening
