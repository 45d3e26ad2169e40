"""Parquet: a column of names and a column of lists of numbers, as collections of embeddings keep them.

It needs pyarrow, which crashes on some damaged files: a file is read through in a guarded child first.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO, TypedDict

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.files import require_regular_file
from ultron_cli.guarded import ReaderDied, ReaderFailed, in_child, one_line
from ultron_cli.retrieval.exchange.descriptors.rows import FLOATS, DescriptorFormat, NamedRows

if TYPE_CHECKING:
    import pyarrow as pa

INSTALL = 'pip install "ultron[parquet]"'
ADVICE = "write it with a column of names and a column of lists of numbers of one length"
READ_BYTES = 1 << 22
CHECK_ROWS = 1024  # that are read together where a file is looked through


class ParquetFacts(TypedDict):
    """What a child tells of a file."""

    n: int
    dim: int
    dtype: str
    rows_column: str
    names: list[bytes]


def _parquet() -> ModuleType:
    """pyarrow.parquet. Raises UltronError with the way to install it."""
    try:
        import pyarrow.parquet

        # Its allocator begins with 1 GiB of address space, which a child could not take once its memory is limited.
        pyarrow.allocate_buffer(1)
    except ImportError as error:
        raise UltronError(
            f"parquet needs pyarrow, which cannot be imported ({error}); install it: {INSTALL}"
        ) from error
    return pyarrow.parquet


def read(path: Path) -> list[NamedRows]:
    """The rows of a file. Raises UltronError."""
    require_regular_file(path, "descriptors")
    _parquet()  # here, so that the child has it before its memory is limited
    try:
        facts = in_child(look_through, str(path), cpu_s=5 + path.stat().st_size // 10_000_000)
    except ReaderDied as error:
        raise UltronError(f"{path} is damaged: reading it, pyarrow {error}; {ADVICE}") from None
    except ReaderFailed as error:
        raise UltronError(f"{path} is no Parquet file that pyarrow can read ({error}); {ADVICE}") from None
    names = [name.decode("utf-8", "surrogateescape") for name in facts["names"]]

    def blocks(n_rows: int) -> Iterator[np.ndarray]:
        try:
            for batch in _batches(path, n_rows, [facts["rows_column"]]):
                yield _matrix(batch.column(0), facts["dim"], str(path))
        except (OSError, ValueError) as error:
            raise UltronError(f"{path} is damaged ({one_line(error)}); {ADVICE}") from None

    return [
        NamedRows(
            label=str(path), n=facts["n"], dim=facts["dim"], dtype=facts["dtype"], blocks=blocks, names=names or None
        )
    ]


def look_through(path_text: str) -> "ParquetFacts":
    """Columns, names, and the number, length and type of the vectors, all of which are read once. To be called in a
    child process."""
    import pyarrow as pa

    path = Path(path_text)
    schema = _parquet().read_schema(path)
    columns = {field.name: field.type for field in schema}
    vectors = [name for name, kind in columns.items() if _numbers_in(kind) in FLOATS]
    texts = [name for name, kind in columns.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)]
    known = [name for name in ("photo", "name", "names", "id", "path", "file_name") if name in texts]
    if len(vectors) != 1 or (len(texts) > 1 and not known):
        raise UltronError(
            f"{path} must have one column of lists of numbers, and names in a column photo if there are several of "
            f"texts; found {', '.join(f'{name} ({kind})' for name, kind in columns.items())}; {ADVICE}"
        )
    names_column = next(iter([*known, *texts]), None)
    names: list[bytes] = []
    dim = n = 0
    for batch in _batches(path, CHECK_ROWS, [name for name in (vectors[0], names_column) if name]):
        rows = batch.column(vectors[0])
        dim = dim or len(rows[0])
        _matrix(rows, dim, path_text)
        n += len(rows)
        if names_column is not None:
            column = batch.column(names_column)
            column.validate(full=True)
            if column.null_count:
                raise UltronError(f"{path}: a photo without a name in column {names_column}; name each")
            names += [name.encode() for name in column.to_pylist()]
    if not n or not dim:
        raise UltronError(f"{path} holds no descriptors; {ADVICE}")
    return {"n": n, "dim": dim, "dtype": _numbers_in(columns[vectors[0]]), "rows_column": vectors[0], "names": names}


def _batches(path: Path, n_rows: int, columns: list[str]) -> "Iterator[pa.RecordBatch]":
    # Without a buffer a column is read whole, row group by row group, of which many files have one.
    with _parquet().ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES) as file:
        for batch in file.iter_batches(batch_size=n_rows, columns=columns, use_threads=False):
            if len(batch):
                yield batch


def _numbers_in(kind: "pa.DataType") -> str:
    """NumPy's name of the type of the numbers in a type of lists; empty for other types."""
    import pyarrow as pa

    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return ""
    value = kind.value_type
    return np.dtype(value.to_pandas_dtype()).name if pa.types.is_floating(value) else ""


def _matrix(column: "pa.Array", dim: int, label: str) -> np.ndarray:
    """(n, D) of a column of lists. Raises UltronError where they differ in length or lack numbers."""
    column.validate(full=True)
    values = column.flatten()
    is_even = not column.null_count and not values.null_count and len(values) == dim * len(column)
    if (
        not is_even
        or any(len(row) != dim for row in (column[0], column[-1]))
        or set(column.value_lengths().to_pylist()) != {dim}
    ):
        raise UltronError(f"{label} must hold lists of {dim} numbers each, found others; {ADVICE}")
    return values.to_numpy(zero_copy_only=False).reshape(-1, dim)


def write(parts: Sequence[NamedRows], output: BinaryIO) -> None:
    """Columns `photo` and `descriptor`."""
    import pyarrow as pa

    (part,) = parts
    numbers = pa.list_(pa.from_numpy_dtype(np.dtype(part.dtype)), part.dim)
    schema = pa.schema([("photo", pa.string()), ("descriptor", numbers)])
    names = part.names or ()
    row = 0
    with _parquet().ParquetWriter(output, schema) as writer:
        for block in part.blocks(part.rows_per_block()):
            flat = pa.array(np.ascontiguousarray(block).reshape(-1))
            columns = [pa.array(names[row : row + len(block)]), pa.FixedSizeListArray.from_arrays(flat, part.dim)]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            row += len(block)


FORMAT = DescriptorFormat(
    what="Parquet: a column of names and one of lists of numbers (needs pyarrow)",
    read=read,
    sniff=lambda path, head: head.startswith(b"PAR1"),
    write=write,
)
