"""What is to be told of descriptors, ours and those of other tools: `ultron descriptors info`."""

from pathlib import Path
from typing import TypedDict

import numpy as np

from ultron_cli.console import named
from ultron_cli.files import require_regular_file
from ultron_cli.retrieval.descriptors import FORMAT, DescriptorFile
from ultron_cli.retrieval.exchange.descriptors import DESCRIPTOR_FORMATS
from ultron_cli.retrieval.exchange.descriptors.importing import AUTO, format_of, read_parts
from ultron_cli.retrieval.exchange.descriptors.rows import NamedRows
from ultron_cli.retrieval.hdf5 import h5_format
from ultron_cli.retrieval.searching import origin_of

LOOKED_AT = 1000  # rows whose lengths are told
SHOWN_NAMES = 3
HDF5 = b"\x89HDF\r\n\x1a\n"


PartFacts = dict[str, object]


class DescriptorFacts(TypedDict):
    """Facts of a file."""

    file: str
    format: str
    what: str
    parts: list[PartFacts]
    made_by: dict[str, str]  # of ultron's own


def describe_descriptors(path: Path, format_name: str = AUTO) -> DescriptorFacts:
    """Facts of a file of descriptors. Raises UltronError if it is none."""
    require_regular_file(path, "descriptors")
    with open(path, "rb") as handle:
        is_ours = handle.read(len(HDF5)) == HDF5 and h5_format(path) == FORMAT
    if is_ours:
        return _of_ours(path)
    format_name = format_of(path, format_name)
    parts = read_parts(path, format_name)
    what = DESCRIPTOR_FORMATS[format_name].what if format_name in DESCRIPTOR_FORMATS else format_name
    return {
        "file": str(path),
        "format": format_name,
        "what": what,
        "parts": [_of_part(part) for part in parts],
        "made_by": {},
    }


def _of_part(part: NamedRows) -> PartFacts:
    names = part.names
    rows = next(part.blocks(LOOKED_AT), np.empty((0, part.dim)))[:LOOKED_AT].astype(np.float64)
    return {
        "what": {"query": "queries", "database": "database", None: "photos"}[part.role],
        "descriptors": part.n,
        "dimensions": part.dim,
        "type": part.dtype,
        "names": named(names, SHOWN_NAMES) if names is not None else "none, by the order of rows",
        "lengths": lengths_text(rows),
    }


def _of_ours(path: Path) -> DescriptorFacts:
    with DescriptorFile(path) as file:
        info = file.info
        rows = file.read(0, min(file.n, LOOKED_AT))
        made_by = origin_of(info).facts()
        part: PartFacts = {
            "what": {"query": "queries", "database": "database"}.get(info.role, info.role),
            "descriptors": file.n,
            "dimensions": file.dim,
            "type": file.dtype.newbyteorder("=").name,
            "names": named(file.names, SHOWN_NAMES),
            "lengths": lengths_text(rows.astype(np.float64)),
            "photos_left_out": len(info.skipped),
        }
    of_search = ("search", "re-ranking", "distractors", "photos of equal score", "photos ranked per query")
    made_by = {name: value for name, value in made_by.items() if value != "none" and name not in of_search}
    return {"file": str(path), "format": "ultron", "what": "descriptors of ultron", "parts": [part], "made_by": made_by}


def lengths_text(rows: np.ndarray) -> str:
    """`1`, `0.98 to 1.2` or why there is none: the lengths of rows."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(rows, axis=1)
    if not lengths.size or not np.isfinite(lengths).all():
        return "not finite" if lengths.size else "no rows"
    low, high = float(lengths.min()), float(lengths.max())
    return "1" if max(abs(low - 1), abs(high - 1)) < 1e-3 else f"{low:.4g} to {high:.4g}"
