"""Writes descriptors for other tools."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ultron_cli.console import counted, log, named
from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file
from ultron_cli.output_files import require_space
from ultron_cli.retrieval.descriptors import DescriptorFile, require_same_dim
from ultron_cli.retrieval.exchange.descriptors import DESCRIPTOR_FORMATS
from ultron_cli.retrieval.exchange.descriptors.names import UNFIT, UNFIT_RULE, names_beside, names_text
from ultron_cli.retrieval.exchange.descriptors.rows import DescriptorFormat, NamedRows
from ultron_cli.retrieval.exchange.exporting import file_names
from ultron_cli.retrieval.exchange.known import photos_of_ground_truth
from ultron_cli.schema.values import shown

WRITABLE = tuple(name for name, format in DESCRIPTOR_FORMATS.items() if format.write is not None)
IN_ORDER = ("revisitop",)  # of the ground truth: no names are written


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    out: Path
    names: Path | None  # the list of names, for formats without them
    n: int
    dim: int
    dtype: str


def export_descriptors(paths: Sequence[Path], out: Path, format_name: str) -> Exported:
    """Writes descriptor files: one, or where the format has both, queries and database. Raises UltronError where the
    format cannot carry them."""
    format = DESCRIPTOR_FORMATS[format_name]
    if format.write is None:
        raise UltronError(f"{format_name} is read and not written; name another `format` of {', '.join(WRITABLE)}")
    with contextlib.ExitStack() as files:
        parts = [_part(files.enter_context(DescriptorFile(path)), format) for path in paths]
        _require_fit(parts, format_name, format)
        if format_name in IN_ORDER:
            _require_order(parts, paths)
        n_bytes = sum(part.n * part.dim * np.dtype(part.dtype).itemsize for part in parts)
        require_space(out.parent, n_bytes, str(out))
        beside = None if format.has_names or format_name in IN_ORDER else names_beside(out)
        if beside is not None:
            with whole_file(beside) as output:
                output.writelines(names_text(parts[0].names or ()))
        with whole_file(out) as output:
            format.write(parts, output)
    return Exported(out=out, names=beside, n=sum(part.n for part in parts), dim=parts[0].dim, dtype=parts[0].dtype)


def _part(file: DescriptorFile, format: DescriptorFormat) -> NamedRows:
    dtype = file.dtype.newbyteorder("=").name

    def blocks(n_rows: int) -> Iterator[np.ndarray]:
        for _, rows in file.blocks(n_rows):
            yield rows.astype(dtype, copy=False)  # of float16, the numbers that are stored

    part = NamedRows(
        label=file.label, n=file.n, dim=file.dim, dtype=dtype, blocks=blocks, names=file.names, role=file.info.role
    )
    return _named_by_files(part, file) if format.is_of_files else part


def _named_by_files(part: NamedRows, file: DescriptorFile) -> NamedRows:
    """The part with photos named by their files, where these are there; else by their names, which is said."""
    names = list(part.names or ())
    origin = file.info.provenance
    file_of = file_names(names, origin.dataset_folder, origin.ground_truth)
    if lost := [name for name in names if name not in file_of]:
        log.warning(
            "%s without a file in %s, written by name, which may lack a suffix: %s",
            counted(len(lost), "photo"),
            origin.dataset_folder or "a folder that is recorded",
            named(lost),
        )
    return replace(part, names=[file_of.get(name, name) for name in names])


def _require_order(parts: Sequence[NamedRows], paths: Sequence[Path]) -> None:
    """Raises UltronError where photos that are known by their order are not those of the recorded ground truth."""
    for part, path in zip(parts, paths, strict=True):
        with DescriptorFile(path) as file:
            gnd = file.info.provenance.ground_truth
        if gnd is None or not os.path.isfile(gnd):
            log.warning("%s: its photos are known by their order alone, which is that of the file", part.label)
            continue
        known = photos_of_ground_truth(Path(gnd))
        if list(part.names or ()) != (known.queries if part.role == "query" else known.photos):
            raise UltronError(
                f"{part.label} has not the photos of {gnd} in their order, by which alone they would be known; name "
                "another `format`"
            )


def _require_fit(parts: Sequence[NamedRows], format_name: str, format: DescriptorFormat) -> None:
    """Raises UltronError unless the format can carry the parts."""
    for part in parts:
        if not part.n:
            raise UltronError(f"{part.label} must hold at least one descriptor, it has none")
        require_same_dim(Path(part.label), part.dim, Path(parts[0].label), parts[0].dim)
        if part.dtype != parts[0].dtype:
            raise UltronError(
                f"{parts[0].label} is stored as {parts[0].dtype}, {part.label} as {part.dtype}; export one"
            )
    if len(parts) > 1 and not format.has_both:
        both = [name for name in WRITABLE if DESCRIPTOR_FORMATS[name].has_both]
        raise UltronError(
            f"{format_name} holds one descriptor file, found {len(parts)}; export them one by one, or name another "
            f"`format` ({', '.join(both)})"
        )
    if len(parts) > 1 and (len(parts) > 2 or {part.role for part in parts} != {"query", "database"}):
        roles = ", ".join(f"{part.label} ({part.role})" for part in parts)
        raise UltronError(f"{format_name} holds queries and database; found {roles}; name one of each")
    unfit, rule = (format.unfit, format.unfit_rule) if format.has_names else (UNFIT, UNFIT_RULE)
    names = [name for part in parts for name in part.names or ()]
    if unfit is not None:
        for name in names:
            if unfit.search(name):
                raise UltronError(f"{format_name} needs {rule}; found {shown(name)}; name another `format`")
    if len(set(names)) < len(names) and format_name in ("dolg", "hloc"):
        name = next(name for name in names if names.count(name) > 1)
        raise UltronError(
            f"{format_name} has one vector for a photo, and {shown(name)} is a query and in the database too; export "
            "them one by one"
        )
