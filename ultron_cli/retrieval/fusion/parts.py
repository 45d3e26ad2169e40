"""Rank files that are to be joined: their queries and photos brought together by name, and what each costs."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

import numpy as np

from ultron_cli.console import counted, log, named
from ultron_cli.errors import UltronError
from ultron_cli.files import sha256_of_file
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.origin import ExtractionRecord, FusedPart, Origin, SearchRecord
from ultron_cli.retrieval.rankings import RankedRows, Ranking, StoredRanking

# Settings of an extraction that stand beside every score; where parts differ in them, each tells its own.
PROTOCOL = ("crop", "scales", "max_side_px", "resize", "corruption", "whitening")


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A rank file among those that are joined."""

    file: StoredRanking
    query_rows: np.ndarray  # (Q,) int64: its rows of the joined queries
    photo_rows: np.ndarray | None  # (n,) int64: joined rows of its photos; None: they are the same


class JoinedParts:
    """Rank files of the same queries; a context manager. Photos are the first file's, then those that others alone
    have."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises UltronError if a file is no sound rank file, or they do not belong together."""
        self.paths = list(paths)
        self._stack = ExitStack()
        try:
            files = [self._stack.enter_context(StoredRanking(path)) for path in paths]
            headers = [file.header for file in files]
            query_rows = [
                _query_rows(headers[0], header, paths[0], path) for header, path in zip(headers, paths, strict=True)
            ]
            photos, photo_rows = _joined_photos(headers, paths)
        except UltronError:
            self._stack.close()
            raise
        self.headers = headers
        self._parts = [
            _Part(file=file, query_rows=rows, photo_rows=of_photos)
            for file, rows, of_photos in zip(files, query_rows, photo_rows, strict=True)
        ]
        is_same = photos is headers[0].database_names
        self.header = replace(
            headers[0],
            database_names=photos,
            database_marks=headers[0].database_marks if is_same else None,
            origin=common_origin([header.origin for header in headers]),
        )
        _say_lengths(files)

    @property
    def n_queries(self) -> int:
        return len(self.header.query_names)

    def ranked(self, part: int, query: int) -> RankedRows:
        """(n,) joined rows and scores, best first, that a part has for a query; of a photo that it repeats, both."""
        source = self._parts[part]
        row = int(source.query_rows[query])
        block = source.file.read(row, row + 1)
        n_ranked = int((block.rows[0] >= 0).sum())
        rows, scores = block.rows[0, :n_ranked], block.scores[0, :n_ranked]
        return RankedRows(rows if source.photo_rows is None else source.photo_rows[rows], scores)

    def most_of(self, part: int) -> int:
        """Photos per query in a part's file, at most."""
        return self._parts[part].file.k

    def most_photos(self) -> int:
        """The largest number of photos that all parts together rank for a query."""
        n_database = len(self.header.database_names)
        if any(part.file.k >= n_database for part in self._parts) or len(self._parts) == 1:
            return min(n_database, max(part.file.k for part in self._parts))
        is_ranked = np.zeros(n_database, bool)
        most = 0
        for query in range(self.n_queries):
            is_ranked[:] = False
            for part in range(len(self._parts)):
                is_ranked[self.ranked(part, query).rows] = True
            most = max(most, int(is_ranked.sum()))
        return most

    def records(self, weights: Sequence[float] | None) -> tuple[FusedPart, ...]:
        """What is recorded of each part. weights: None where they differ by query, or mean nothing."""
        labels = [header.origin.model or path.stem for header, path in zip(self.headers, self.paths, strict=True)]
        if len(set(labels)) < len(labels):
            labels = [f"{label} of {path.name}" for label, path in zip(labels, self.paths, strict=True)]
        is_alike = bool(common_extraction([header.origin.extraction for header in self.headers]))
        return tuple(
            FusedPart(
                path=str(path.resolve()),
                sha256=sha256_of_file(path),
                label=label + _how(header.origin, with_protocol=not is_alike),
                weight=None if weights is None else float(weights[i]),
                bytes_per_photo=bytes_per_photo(header.origin, len(header.database_names)),
                ms_per_query=ms_per_query(header.origin),
                origin=header.origin.to_json(),
            )
            for i, (path, header, label) in enumerate(zip(self.paths, self.headers, labels, strict=True))
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()


def _how(origin: Origin, *, with_protocol: bool) -> str:
    """What a part's search did beside comparing descriptors, where it did. with_protocol: and how its photos were
    described, where that is recorded."""
    protocol = f", {origin.extraction.protocol_text()}" if with_protocol and origin.extraction else ""
    return protocol + replace(origin, distractors=()).search_text(timed=False).replace("; ", ", ")


def _query_rows(first: Ranking, other: Ranking, first_path: Path, path: Path) -> np.ndarray:
    """(Q,) int64 rows of the first ranking's queries in another. Raises UltronError unless both have the same."""
    if other.query_names == first.query_names:
        return np.arange(len(first.query_names))
    row_of = _row_of(other.query_names, path, "query")
    missing = [name for name in first.query_names if name not in row_of]
    surplus = sorted(set(other.query_names) - set(first.query_names))
    if missing or surplus:
        names = named(missing or surplus, most=2)
        raise UltronError(
            f"rankings that are joined must be of the same queries; {path} lacks {len(missing)} of {first_path} and "
            f"has {len(surplus)} that it lacks ({names}); search with the same queries"
        )
    log.info("queries of %s stand in another order: joined by name", path)
    return np.array([row_of[name] for name in first.query_names], np.int64)


def _row_of(names: Sequence[str], path: Path, what: str) -> dict[str, int]:
    row_of = {name: row for row, name in enumerate(names)}
    if len(row_of) < len(names):
        twice = next(name for row, name in enumerate(names) if row_of[name] != row)
        raise UltronError(
            f"{path} names a {what} twice ({twice}), so that it cannot be joined by name; give each its name"
        )
    return row_of


def _joined_photos(headers: Sequence[Ranking], paths: Sequence[Path]) -> tuple[list[str], list[np.ndarray | None]]:
    """(names of all photos; per ranking the joined rows of its photos, None where they are its own). Raises UltronError
    if a ranking has no photo of the first."""
    first = headers[0].database_names
    rows: list[np.ndarray | None] = [None]
    joined = first
    row_of: dict[str, int] | None = None
    for header, path in zip(headers[1:], paths[1:], strict=True):
        names = header.database_names
        if names == joined:
            rows.append(None)
            continue
        if row_of is None:
            row_of = _row_of(first, paths[0], "photo")
            joined = list(first)
        _row_of(names, path, "photo")
        n_before = len(joined)
        of_part = np.empty(len(names), np.int64)
        for i, name in enumerate(names):
            row = row_of.setdefault(name, len(joined))
            if row == len(joined):
                joined.append(name)
            of_part[i] = row
        n_new = len(joined) - n_before
        n_shared = int((of_part < len(first)).sum())
        if not n_shared:
            raise UltronError(
                f"rankings that are joined must be of the same photos; {path} has none of {paths[0]}"
                f"{f', for example {names[0]}' if names else ''}; search the same database"
            )
        if n_new or n_shared < len(first):
            log.warning(
                "joined by name: %s lacks %s of %s, and has %s that it lacks; from a ranking without it a photo gets "
                "nothing",
                path,
                counted(len(first) - n_shared, "photo"),
                paths[0],
                counted(n_new, "photo"),
            )
        else:
            log.info("photos of %s stand in another order: joined by name", path)
        rows.append(of_part)
    return joined, rows


def _say_lengths(files: Sequence[StoredRanking]) -> None:
    if len({file.k for file in files}) > 1:
        log.info("rankings of different length: %s", ", ".join(f"{file.path} {file.k:,}" for file in files))


def common_origin(origins: Sequence[Origin]) -> Origin:
    """What the origins of several results share. Photos that one of them skipped count as skipped, imported files of
    all stand one after the other."""
    first = origins[0]
    shared = {
        part.name: getattr(first, part.name)
        for part in fields(Origin)
        if all(getattr(other, part.name) == getattr(first, part.name) for other in origins[1:])
    }
    shared["model"] = " + ".join(dict.fromkeys(origin.model_label for origin in origins))
    shared["extraction"] = common_extraction([origin.extraction for origin in origins])
    shared["skipped"] = tuple({photo.name: photo for origin in origins for photo in origin.skipped}.values())
    shared["imported"] = tuple(dict.fromkeys(record for origin in origins for record in origin.imported))
    for name in ("searched_by", "evaluated_by", "fusion", "other", "descriptors", "search"):
        shared.pop(name, None)
    shared["search"] = SearchRecord(
        leaves_out_queries=all((origin.search or SearchRecord()).leaves_out_queries for origin in origins)
    )
    return Origin(**shared)


def common_extraction(records: Sequence[ExtractionRecord]) -> ExtractionRecord:
    """The settings that several extractions share; none where they differ in what stands beside every score."""
    first = records[0].stored
    if any(other.stored.get(key) != first.get(key) for other in records[1:] for key in PROTOCOL):
        return ExtractionRecord()
    shared = {
        key: value
        for key, value in first.items()
        if all(key in other.stored and other.stored[key] == value for other in records[1:])
    }
    return ExtractionRecord(stored=shared)


def bytes_per_photo(origin: Origin, n_photos: int) -> float | None:
    """Bytes that a photo takes in what was searched: its descriptor, its part of an index; None where that is gone or
    was never recorded."""
    if origin.fusion and origin.fusion.kind != "descriptors":
        return origin.fusion.costs()[0]
    search = origin.search
    if search and search.method == "index" and search.index:
        return _index_bytes(Path(search.index), n_photos)
    path = Path(origin.descriptors[1]) if origin.descriptors else None
    if path is None or not path.is_file():
        return None
    try:
        with DescriptorFile(path) as file:
            dim, extraction = file.dim, file.info.extraction
    except UltronError as error:
        log.debug("%s", error)
        return None
    whitening = origin.extraction.whitening
    if whitening and not extraction.whitening:
        return 4.0 * whitening.dim
    return (2.0 if extraction.storage == "float16" else 4.0) * dim


def _index_bytes(folder: Path, n_photos: int) -> float | None:
    """Of an index folder of this machine: the bytes of its files, without names and whitening, per photo."""
    sizes = [path.stat().st_size for path in folder.glob("*") if path.suffix not in (".json", ".h5")]
    return sum(sizes) / max(1, n_photos) if sizes else None


def ms_per_query(origin: Origin) -> float | None:
    """Milliseconds of searching a query; None where they are not recorded."""
    if origin.fusion and origin.fusion.kind != "descriptors":
        return origin.fusion.costs()[1]
    return origin.search.ms_per_query if origin.search else None
