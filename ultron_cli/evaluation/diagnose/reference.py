"""The descriptors that ours are held against: a descriptor file of ultron, or an HDF5 file of another program with
/names and /descriptors."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import FORMAT, VERSION, DescriptorFile
from ultron_cli.retrieval.hdf5 import TEXT, H5Layout, H5Part, damage_said, open_h5
from ultron_cli.retrieval.origin import ExtractionRecord, StoredExtraction

MOST_ROWS = 2000  # of each file, that the look at the descriptors alone takes
LAYOUT = H5Layout(
    format=FORMAT,
    version=VERSION,
    what="file of descriptors",
    parts={
        "names": H5Part(axes="(N,)", types=(TEXT,)),
        "descriptors": H5Part(axes="(N, D)", types=("float64", "float32", "float16")),
    },
    attributes={"config": str},
    defaults={"config": "{}"},
    again="write it again with /names and /descriptors",
    may_be_foreign=True,
)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Descriptors of the same photos from both files, in the order of the reference."""

    names: list[str]  # (n,) as ours calls them
    ours_rows: np.ndarray  # (n,) int64 rows of our file
    ours: np.ndarray  # (n, D) float64, of unit norm
    reference: np.ndarray  # (n, D') float64, as stored
    n: int  # photos that both files have, of which these are the first
    recorded: ExtractionRecord  # what the reference's file says of itself; empty for another program's


def _stem(name: str) -> str:
    """A photo's name without folders and suffix."""
    return PurePosixPath(name).stem


def read_pairs(ours: DescriptorFile, path: Path) -> Pairs:
    """The first MOST_ROWS pairs of descriptors. Raises UltronError if the files share no photo, or a number is not
    finite."""
    with open_h5(path, LAYOUT) as file:
        names, stored = file.texts("names"), file.dataset("descriptors")
        if stored.shape[0] != len(names) or stored.shape[1] < 1:
            raise UltronError(
                f"{path}: /descriptors must be (N, D) with one name per row, found {stored.shape} and {len(names)} "
                f"names; {LAYOUT.again}"
            )
        recorded = ExtractionRecord(stored=file.json("config", StoredExtraction))
        rows = _shared(ours.names, names)
        if not rows:
            raise UltronError(
                f"{ours.path} and {path} must have photos of the same names, found {_first(ours.names)} and "
                f"{_first(names)}; describe the same photos"
            )
        taken = np.array(rows[:MOST_ROWS], np.int64)
        with damage_said(path, LAYOUT.again):
            reference = stored[np.sort(taken[:, 1])].astype(np.float64)
    if not np.isfinite(reference).all():
        name = names[int(taken[np.argmin(np.isfinite(reference).all(axis=1)), 1])]
        raise UltronError(f"{path}: descriptors must be finite, that of {name} has NaN or infinity; make it again")
    our_names = ours.names
    return Pairs(
        names=[our_names[row] for row in taken[:, 0]],
        ours_rows=taken[:, 0],
        ours=ours.take(taken[:, 0]).astype(np.float64),
        reference=reference,
        n=len(rows),
        recorded=recorded,
    )


def _first(names: list[str]) -> str:
    return repr(names[0]) if names else "none"


def _shared(ours: list[str], reference: list[str]) -> list[tuple[int, int]]:
    """(row of ours, row of the reference), ascending in the second, of photos of one name; of one name without folder
    and suffix where none have one name."""
    for form in (str, _stem):
        row_of = {form(name): row for row, name in enumerate(ours)}
        rows = [(row_of[form(name)], row) for row, name in enumerate(reference) if form(name) in row_of]
        if rows:
            return rows
    return []
