"""Makes queries.h5 and database.h5 of descriptors of other tools: names become photos of a ground truth, rows unit
vectors in its order."""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ultron_cli import user_code
from ultron_cli.console import counted, log, named
from ultron_cli.errors import UltronError
from ultron_cli.files import require_regular_file, sha256_of_file
from ultron_cli.locks import only_writer
from ultron_cli.output_files import require_space
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.descriptors import DescriptorInfo, NewDescriptors, Role, StoredCrop, new_descriptors
from ultron_cli.retrieval.exchange.descriptors import DESCRIPTOR_FORMATS
from ultron_cli.retrieval.exchange.descriptors.hdf5_files import SIGNATURE
from ultron_cli.retrieval.exchange.descriptors.naming import with_names
from ultron_cli.retrieval.exchange.descriptors.placing import ROLES, Places, placed, placed_by_file, put_rows
from ultron_cli.retrieval.exchange.descriptors.rows import NamedRows, unit_rows
from ultron_cli.retrieval.exchange.known import KnownPhotos, photos_of_ground_truth
from ultron_cli.retrieval.hdf5 import h5_format
from ultron_cli.retrieval.origin import DescriptorProvenance, ExtractionRecord, ImportRecord, SkippedPhoto

FILE_OF_ROLE: dict[Role, str] = {"query": "queries.h5", "database": "database.h5"}
HEAD_BYTES = 512
AUTO = "auto"
MODEL = "imported"  # the label of what nobody named


@dataclass(frozen=True, kw_only=True)
class DescriptorImport:
    """Files, the photos that they are of, and what their user knows of how they were made."""

    paths: Sequence[Path]
    out: Path  # folder
    format: str = AUTO  # of DESCRIPTOR_FORMATS, or an import path
    names: Sequence[Path] = ()  # lists, one for all files without names or one for each
    gnd: Path | None = None  # None: all photos are a database
    role: Role | None = None  # of all photos; None: by their names
    model: str | None = None
    crop: StoredCrop = "unknown"  # of queries
    scales: tuple[float, ...] = ()  # empty: unknown
    storage: str | None = None  # None: float16 where the files are, else float32
    allow_missing: bool = False
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What was written."""

    files: dict[Role, Path]
    n: dict[Role, int]
    dim: int
    storage: str
    format: str  # of the files, in their order, each once
    n_made_unit: int  # rows whose length was not 1
    shortest: float
    longest: float
    n_missing: int
    n_surplus: int

    def lengths_text(self) -> str:
        """How long the rows were."""
        if not self.n_made_unit:
            return "all rows were unit vectors"
        return f"{counted(self.n_made_unit, 'row')} made unit (lengths {self.shortest:.4g} to {self.longest:.4g})"


def format_of(path: Path, name: str = AUTO) -> str:
    """The format of a file, by its content. name: that somebody told. Raises UltronError for a file of none."""
    require_regular_file(path, "descriptors")
    if name != AUTO:
        return name
    with open(path, "rb") as handle:
        head = handle.read(HEAD_BYTES)
    if head.startswith(SIGNATURE) and str(kind := h5_format(path)).startswith("ultron-"):
        raise UltronError(f"{path} is a file of ultron itself ({kind}); commands take it as it is")
    for format_name, format in DESCRIPTOR_FORMATS.items():
        if format.sniff(path, head):
            return format_name
    raise UltronError(
        f"{path} is of no format that is known by its content; name its `format`, one of "
        f"{', '.join(DESCRIPTOR_FORMATS)}"
    )


def read_parts(path: Path, format_name: str) -> list[NamedRows]:
    """The descriptors in a file. Raises UltronError."""
    if user_code.is_import_path(format_name):
        parts = _read_by_user(path, format_name)
    else:
        parts = DESCRIPTOR_FORMATS[format_name].read(path)
    for part in parts:
        if part.names is not None and len(part.names) != part.n:
            raise UltronError(
                f"{part.label} has {part.n:,} rows and {len(part.names):,} names, and must have a name for each; write "
                "the file again"
            )
    return parts


def _read_by_user(path: Path, import_path: str) -> list[NamedRows]:
    code = user_code.load(import_path, "descriptor format", DESCRIPTOR_FORMATS, is_function=True)
    with user_code.blaming(code.target):
        parts = code.target(path)
    if not isinstance(parts, list) or not parts or not all(isinstance(rows, NamedRows) for rows in parts):
        what = "an empty one" if parts == [] else type(parts).__name__
        raise UltronError(f"{code.place()}: {code.name} must return a list of NamedRows; found {what}")
    return parts


def import_descriptors(request: DescriptorImport, on_rows: Callable[[int], object] = lambda n: None) -> Imported:
    """Writes queries.h5 and database.h5. on_rows: is told of rows that are done.

    Raises UltronError for unsound files, photos that are missing, and rows without a direction.
    """
    _refuse_present(request)
    formats = [format_of(path, request.format) for path in request.paths]
    parts = [part for path, name in zip(request.paths, formats, strict=True) for part in read_parts(path, name)]
    parts = [replace(part, role=request.role or part.role) for part in parts]
    _require_alike(parts)
    known = photos_of_ground_truth(request.gnd) if request.gnd else None
    parts = with_names(parts, request.paths, request.names, known)
    places = placed(parts, known) if known else placed_by_file(parts)
    if places.missing:
        _tell_of_missing(places, request)
    storage = request.storage or ("float16" if {part.dtype for part in parts} == {"float16"} else "float32")
    records = [
        ImportRecord(
            path=str(path),
            sha256=sha256_of_file(path),
            format=name,
            code_sha256=user_code.code_named({"format": name}).get(name),
        )
        for path, name in zip(request.paths, formats, strict=True)
    ]
    n: dict[Role, int] = {role: len(names) for role, names in places.names.items() if names}
    dim = parts[0].dim
    with only_writer(request.out, f"another `ultron descriptors import` is writing {request.out}"):
        n_bytes = sum(n.values()) * dim * np.dtype(storage).itemsize
        require_space(request.out, n_bytes, "the descriptors")
        lengths = _write(parts, places, request, _infos(request, places, records, known, storage), dim, on_rows)
        for role in ROLES:
            if role not in n:
                (request.out / FILE_OF_ROLE[role]).unlink(missing_ok=True)
    imported = Imported(
        files={role: request.out / FILE_OF_ROLE[role] for role in n},
        n=n,
        dim=dim,
        storage=storage,
        format=", ".join(dict.fromkeys(formats)),
        n_made_unit=lengths.n_made_unit,
        shortest=lengths.shortest,
        longest=lengths.longest,
        n_missing=sum(map(len, places.missing.values())),
        n_surplus=places.n_surplus,
    )
    log.info("%s", imported.lengths_text())
    return imported


def _refuse_present(request: DescriptorImport) -> None:
    present = [file for file in FILE_OF_ROLE.values() if os.path.lexists(request.out / file)]
    if present and not request.overwrite:
        raise UltronError(
            f"{request.out} has {' and '.join(present)} already; name another folder with `out`",
            "replace what is there with `overwrite`",
        )


def _require_alike(parts: Sequence[NamedRows]) -> None:
    for part in parts:
        if not part.n:
            raise UltronError(f"{part.label} holds no descriptors; leave it out")
        if part.dim != parts[0].dim:
            raise UltronError(
                f"{part.label} has descriptors of {part.dim} numbers, {parts[0].label} of {parts[0].dim}; import files "
                "of one network together"
            )


def _tell_of_missing(places: Places, request: DescriptorImport) -> None:
    """Says which photos have no descriptor. Raises UltronError unless that is allowed."""
    counts = " and ".join(
        counted(len(names), *(("query", "queries") if role == "query" else ("photo", "photos"))) + f" ({named(names)})"
        for role, names in places.missing.items()
    )
    files = named([str(path) for path in request.paths], 2)
    if not request.allow_missing:
        raise UltronError(
            f"{counts} of the ground truth not in {files}; name all files of the set together",
            "go on without them with `allow_missing`",
        )
    log.warning("%s of the ground truth not in %s: photos count as not found, queries are left out", counts, files)


@dataclass
class _Lengths:
    n_made_unit: int = 0
    shortest: float = float("inf")
    longest: float = 0.0

    def note(self, lengths: np.ndarray, is_off: np.ndarray) -> None:
        if not len(lengths):
            return
        self.n_made_unit += int(is_off.sum())
        self.shortest = min(self.shortest, float(lengths.min()))
        self.longest = max(self.longest, float(lengths.max()))


def _infos(
    request: DescriptorImport,
    places: Places,
    records: Sequence[ImportRecord],
    known: KnownPhotos | None,
    storage: str,
) -> dict[Role, DescriptorInfo]:
    """What each file says of its origin."""
    origin = known.origin if known else None
    dataset = (origin and origin.dataset) or request.out.absolute().name
    model = request.model or MODEL
    files = named([str(path) for path in request.paths], 2)
    infos: dict[Role, DescriptorInfo] = {}
    for role in ROLES:
        crop: StoredCrop = request.crop if role == "query" else "none"
        stored: dict[str, object] = {
            "imported": [record.to_json() for record in records],
            "model": {"name": model, "settings": {}},
            "dataset": dataset,
            "role": role,
            "crop": crop,
            "scales": list(request.scales),
            "storage": storage,
        }
        infos[role] = DescriptorInfo(
            model=model,
            weights_sha256="",
            extraction=ExtractionRecord(stored=stored),
            dataset=dataset,
            role=role,
            crop=crop,
            scales=list(request.scales),
            skipped=tuple(SkippedPhoto(name=name, reason=f"not in {files}") for name in places.missing.get(role, ())),
            provenance=DescriptorProvenance(
                dataset_folder=origin.dataset_folder if origin else None,
                ground_truth=origin.ground_truth if origin else None,
                other=provenance(),
            ),
        )
    return infos


def _write(
    parts: Sequence[NamedRows],
    places: Places,
    request: DescriptorImport,
    infos: dict[Role, DescriptorInfo],
    dim: int,
    on_rows: Callable[[int], object],
) -> _Lengths:
    """Writes both files in one pass over the parts."""
    lengths = _Lengths()
    with contextlib.ExitStack() as files:
        outputs: dict[Role, NewDescriptors] = {
            role: files.enter_context(
                new_descriptors(request.out / FILE_OF_ROLE[role], names, dim, infos[role], in_any_order=True)
            )
            for role, names in places.names.items()
            if names
        }
        for i, part in enumerate(parts):
            rows_of = {role: places.rows[role][i] for role in outputs}
            storage = infos["database"].extraction.storage
            first = 0
            for block in part.blocks(part.rows_per_block()):
                stop = first + len(block)
                if stop > part.n:
                    raise UltronError(f"{part.label} has more rows than the {part.n:,} declared; get it again")
                is_wanted = np.zeros(len(block), bool)
                for rows in rows_of.values():
                    is_wanted |= rows[first:stop] >= 0
                numbers = np.flatnonzero(is_wanted)
                unit, of_rows, is_off = unit_rows(
                    block if len(numbers) == len(block) else block[numbers], storage, first + numbers, part
                )
                for role, output in outputs.items():
                    put_rows(output, unit, rows_of[role][first:stop][numbers])
                lengths.note(of_rows, is_off)
                on_rows(len(block))
                first = stop
            if first != part.n:
                raise UltronError(f"{part.label} has {first:,} rows where {part.n:,} were declared; get it again")
    return lengths
