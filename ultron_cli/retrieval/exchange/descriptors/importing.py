"""Makes queries.h5 and database.h5 of descriptors of other tools: names become photos of a ground truth, rows unit
vectors in its order."""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ultron_cli import user_code
from ultron_cli.console import counted, log, named
from ultron_cli.datasets.name_matching import match_names
from ultron_cli.errors import UltronError
from ultron_cli.files import require_regular_file, require_space, sha256_of_file
from ultron_cli.locks import only_writer
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.descriptors import Crop, DescriptorInfo, Role, new_descriptors
from ultron_cli.retrieval.exchange.descriptors import DESCRIPTOR_FORMATS
from ultron_cli.retrieval.exchange.descriptors.names import names_beside, read_names
from ultron_cli.retrieval.exchange.descriptors.rows import NamedRows, unit_rows
from ultron_cli.retrieval.exchange.known import KnownPhotos, photos_of_ground_truth, tell_of_match
from ultron_cli.retrieval.origin import DescriptorProvenance, ExtractionRecord, ImportRecord, SkippedPhoto
from ultron_cli.schema.values import shown

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
    crop: Crop = "unknown"  # of queries
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
    for format_name, format in DESCRIPTOR_FORMATS.items():
        if format.sniff(path, head):
            return format_name
    raise UltronError(
        f"{path} is of no format that is known by its content; name its `format`, one of "
        f"{', '.join(DESCRIPTOR_FORMATS)}"
    )


def read_parts(path: Path, format_name: str) -> list[NamedRows]:
    """The descriptors in a file. Raises UltronError."""
    if not user_code.is_import_path(format_name):
        return DESCRIPTOR_FORMATS[format_name].read(path)
    part = user_code.load(format_name, "descriptor format", DESCRIPTOR_FORMATS, is_function=True)
    parts = part.target(path)
    if not isinstance(parts, list) or not all(isinstance(rows, NamedRows) for rows in parts):
        raise UltronError(f"{part.place()}: {part.name} must return a list of NamedRows; found {type(parts).__name__}")
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
    parts = _with_names(parts, request, known)
    places = _placed(parts, known) if known else _placed_by_file(parts)
    if places.missing:
        _tell_of_missing(places, request)
    storage = request.storage or ("float16" if {part.dtype for part in parts} == {"float16"} else "float32")
    records = [
        ImportRecord(path=str(path), sha256=sha256_of_file(path), format=name)
        for path, name in zip(request.paths, formats, strict=True)
    ]
    n = {role: len(names) for role, names in places.names.items() if names}
    dim = parts[0].dim
    with only_writer(request.out, f"another `ultron descriptors import` is writing {request.out}"):
        n_bytes = sum(n.values()) * dim * np.dtype(storage).itemsize
        require_space(request.out, n_bytes, "the descriptors")
        lengths = _write(parts, places, request, _infos(request, places, records, known, storage), dim, on_rows)
        for role, file in FILE_OF_ROLE.items():
            if role not in n:
                (request.out / file).unlink(missing_ok=True)
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


# Names of the rows.


def _with_names(parts: list[NamedRows], request: DescriptorImport, known: KnownPhotos | None) -> list[NamedRows]:
    """The parts, of which all name their photos: by themselves, by a list, by the order of the ground truth, or by
    number."""
    nameless = [i for i, part in enumerate(parts) if part.names is None]
    lists = [(path, read_names(path)) for path in request.names]
    if lists and not nameless:
        raise UltronError(f"{parts[0].label} names its photos; leave `names` out")
    if not lists and len(request.paths) == len(parts) == len(nameless):
        beside = [names_beside(path) for path in request.paths]
        if all(map(os.path.isfile, beside)):
            lists = [(path, read_names(path)) for path in beside]
            log.info("names of the photos: %s", named([str(path) for path in beside]))
    parts = list(parts)
    if lists:
        for i, names in zip(nameless, _shared_out(lists, [parts[i] for i in nameless]), strict=True):
            parts[i] = replace(parts[i], names=names)
        return parts
    for i in nameless:
        parts[i] = _in_order_of(parts[i], known) if known else _numbered(parts[i])
    return parts


def _shared_out(lists: list[tuple[Path, list[str]]], parts: list[NamedRows]) -> list[list[str]]:
    """The names of each part: of its list, or its share of the only one. Raises UltronError if numbers differ."""
    if len(lists) == 1 and len(parts) > 1:
        path, names = lists[0]
        if len(names) == sum(part.n for part in parts):
            ends = np.cumsum([part.n for part in parts]).tolist()
            return [names[end - part.n : end] for end, part in zip(ends, parts, strict=True)]
    if len(lists) != len(parts):
        raise UltronError(
            f"`names` must be one list for all rows of {named([part.label for part in parts])}, or one for each; found "
            f"{counted(len(lists), 'list')} for {counted(len(parts), 'array')}"
        )
    for (path, names), part in zip(lists, parts, strict=True):
        if len(names) != part.n:
            raise UltronError(f"{path} has {len(names):,} names, {part.label} {part.n:,} rows; write a name per row")
    return [names for _, names in lists]


def _in_order_of(part: NamedRows, known: KnownPhotos) -> NamedRows:
    """Rows without names, in the order of the ground truth's photos or queries. Raises UltronError where their number
    is that of neither, or of both."""
    of_role: dict[Role, list[str]] = {"query": known.queries or [], "database": known.photos}
    fitting = [role for role in of_role if part.role in (role, None) and len(of_role[role]) == part.n]
    if len(fitting) != 1:
        numbers = f"{len(of_role['database']):,} photos and {len(of_role['query']):,} queries"
        if fitting:
            raise UltronError(
                f"{part.label} has {part.n:,} rows, and the ground truth {numbers}; say which with `role`"
            )
        transposed = part.dim in map(len, of_role.values())
        raise UltronError(
            f"{part.label} has {part.n:,} rows without names, and the ground truth {numbers}"
            + (f"; it may have its axes the wrong way round ({part.n} x {part.dim})" if transposed else "")
            + "; name the rows with `names`, or import distractors without `gnd`"
        )
    (role,) = fitting
    log.info("%s: rows in the order of the ground truth's %s", part.label, "queries" if role == "query" else "photos")
    return replace(part, role=role, names=of_role[role])


def _numbered(part: NamedRows) -> NamedRows:
    stem = Path(part.label.split(",")[0]).stem
    log.info("%s names no photos: they are called %s/0, %s/1 ...", part.label, stem, stem)
    return replace(part, names=[f"{stem}/{row}" for row in range(part.n)])


# Places of the rows.


@dataclass
class _Places:
    """Where rows go: per role, names of the file, and per part the row of each of its rows, -1 for none."""

    names: dict[Role, list[str]]
    rows: dict[Role, list[np.ndarray]]
    missing: dict[Role, list[str]] = field(default_factory=dict)
    n_surplus: int = 0


def _refuse_repeated(parts: Sequence[NamedRows]) -> None:
    """Raises UltronError where a photo stands twice in one role."""
    for role in (*FILE_OF_ROLE, None):
        group = [part for part in parts if part.role == role]
        if len({name for part in group for name in part.names or ()}) == sum(part.n for part in group):
            continue
        part_of: dict[str, NamedRows] = {}
        for part in group:
            for name in part.names or ():
                other = part_of.get(name)
                if other is part:
                    raise UltronError(f"{part.label} names {shown(name)} twice; name each photo once")
                if other is not None:
                    raise UltronError(f"{shown(name)} stands in {other.label} and in {part.label}; leave one file out")
                part_of[name] = part


def _placed_by_file(parts: Sequence[NamedRows]) -> _Places:
    """All rows, in the order of the files."""
    _refuse_repeated(parts)
    places = _Places(names={"query": [], "database": []}, rows={"query": [], "database": []})
    for part in parts:
        for role in FILE_OF_ROLE:
            if role == (part.role or "database"):
                first = len(places.names[role])
                places.names[role] += part.names or ()
                places.rows[role].append(np.arange(first, first + part.n))
            else:
                places.rows[role].append(np.full(part.n, -1))
    return places


def _placed(parts: Sequence[NamedRows], known: KnownPhotos) -> _Places:
    """Rows of the photos and queries of a ground truth, in its order."""
    _refuse_repeated(parts)
    of_role: dict[Role, list[str]] = {"query": known.queries or [], "database": known.photos}
    rows: dict[Role, list[np.ndarray]] = {role: [np.full(part.n, -1) for part in parts] for role in of_role}
    n_surplus = 0
    for told_role in ("query", "database", None):
        group = [i for i, part in enumerate(parts) if part.role == told_role]
        if not group:
            continue
        roles = [role for role in of_role if told_role in (role, None)]
        candidates = list(dict.fromkeys(name for role in roles for name in of_role[role]))
        names = [name for i in group for name in parts[i].names or ()]
        match = match_names(names, candidates)
        label = named(list(dict.fromkeys(parts[i].label for i in group)), 2)
        what, several = ("query", "queries") if told_role == "query" else ("photo", "photos")
        tell_of_match(match, names, candidates, label, what, several)
        if match.surplus:
            log.warning(
                "%s of %s left out, as the ground truth has none of that name: %s%s; import them without `gnd` to "
                "search them as distractors",
                counted(len(match.surplus), what, several),
                label,
                named(match.surplus),
                match.ambiguous_text(),
            )
            n_surplus += len(match.surplus)
        for role in roles:
            row_of = {name: row for row, name in enumerate(of_role[role])}
            target = np.array([row_of.get(name, -1) for name in candidates], np.int64)
            matched = np.where(match.rows < 0, -1, target[match.rows])
            first = 0
            for i in group:
                rows[role][i] = matched[first : first + parts[i].n]
                first += parts[i].n
    return _without_missing(of_role, rows, n_surplus)


def _without_missing(of_role: dict[Role, list[str]], rows: dict[Role, list[np.ndarray]], n_surplus: int) -> _Places:
    """Places among the photos that are there, without gaps."""
    places = _Places(names={}, rows={}, n_surplus=n_surplus)
    for role, names in of_role.items():
        is_there = np.zeros(len(names) + 1, bool)
        for of_part in rows[role]:
            is_there[of_part] = True
        is_there[-1] = False  # -1, of rows that go nowhere
        place = np.where(is_there, np.cumsum(is_there) - 1, -1)
        places.names[role] = [name for name, there in zip(names, is_there, strict=False) if there]
        places.rows[role] = [place[of_part] for of_part in rows[role]]
        if missing := [name for name, there in zip(names, is_there, strict=False) if not there]:
            places.missing[role] = missing
    return places


def _tell_of_missing(places: _Places, request: DescriptorImport) -> None:
    """Says which photos have no descriptor. Raises UltronError unless that is allowed."""
    counts = " and ".join(
        counted(len(names), *(("query", "queries") if role == "query" else ("photo", "photos"))) + f" ({named(names)})"
        for role, names in places.missing.items()
    )
    files = named([str(path) for path in request.paths], 2)
    if not request.allow_missing:
        raise UltronError(
            f"{counts} of the ground truth {'are' if ' and ' in counts else 'have no descriptor'} "
            f"in {files}; name all files of the set together",
            "go on without them with `allow_missing`",
        )
    log.warning("%s of the ground truth not in %s: photos count as not found, queries are left out", counts, files)


# Writing.


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
    places: _Places,
    records: Sequence[ImportRecord],
    known: KnownPhotos | None,
    storage: str,
) -> dict[Role, DescriptorInfo]:
    """What each file says of its origin."""
    origin = known.origin if known else None
    dataset = (origin and origin.dataset) or request.out.absolute().name
    model = request.model or MODEL
    files = named([str(path) for path in request.paths], 2)
    infos = {}
    for role in FILE_OF_ROLE:
        crop: Crop = request.crop if role == "query" else "none"
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
    places: _Places,
    request: DescriptorImport,
    infos: dict[Role, DescriptorInfo],
    dim: int,
    on_rows: Callable[[int], object],
) -> _Lengths:
    """Writes both files in one pass over the parts."""
    lengths = _Lengths()
    with contextlib.ExitStack() as files:
        puts = {
            role: files.enter_context(new_descriptors(request.out / FILE_OF_ROLE[role], names, dim, infos[role]))
            for role, names in places.names.items()
            if names
        }
        for i, part in enumerate(parts):
            rows_of = {role: places.rows[role][i] for role in puts}
            storage = infos["database"].extraction.storage
            first = 0
            for block in part.blocks(part.rows_per_block()):
                stop = first + len(block)
                is_wanted = np.zeros(len(block), bool)
                for rows in rows_of.values():
                    is_wanted |= rows[first:stop] >= 0
                numbers = np.flatnonzero(is_wanted)
                unit, of_rows, is_off = unit_rows(
                    block if len(numbers) == len(block) else block[numbers], storage, first + numbers, part
                )
                for role, rows in rows_of.items():
                    _put_runs(puts[role], unit, rows[first:stop][numbers])
                lengths.note(of_rows, is_off)
                on_rows(len(block))
                first = stop
            if first != part.n:
                raise UltronError(f"{part.label} has {first:,} rows where {part.n:,} were declared; get it again")
    return lengths


def _put_runs(put: Callable[[int, np.ndarray], None], block: np.ndarray, rows: np.ndarray) -> None:
    """Writes rows of a block to their places, -1 for none; those that follow each other on both sides, together."""
    placed = np.flatnonzero(rows >= 0)
    if len(placed) < len(rows):
        block, rows = block[placed], rows[placed]
    if not len(rows):
        return
    starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1).tolist()
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        put(int(rows[start]), block[start:stop])
