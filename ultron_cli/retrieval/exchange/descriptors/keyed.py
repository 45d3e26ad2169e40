"""Descriptors under keys: {photo: vector}, or matrices of queries and database with their names beside them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ultron_cli.blocks import chunks
from ultron_cli.console import named
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import Role
from ultron_cli.retrieval.exchange.descriptors.rows import FLOATS, NamedRows, of_array
from ultron_cli.schema.values import shown

# What programs call the parts, in small letters -> what they are. `X` and `Q` are revisitop's.
ROLE_OF_KEY: dict[str, Role | None] = {
    **dict.fromkeys(("q", "query", "queries", "query_descriptors", "query_features"), "query"),
    **dict.fromkeys(("x", "database", "db", "gallery", "database_descriptors", "database_features"), "database"),
    **dict.fromkeys(("descriptors", "features", "embeddings", "vectors"), None),
}
NAMES_OF_ROLE: dict[Role | None, tuple[str, ...]] = {
    "query": ("query_names", "qimlist"),
    "database": ("database_names", "imlist"),
    None: ("names", "ids", "paths"),
}
# How queries, a database, and the only part of a file are called in what is written.
KEY_OF_ROLE: dict[Role | None, tuple[str, str]] = {
    "query": ("queries", "query_names"),
    "database": ("database", "database_names"),
    None: ("descriptors", "names"),
}


def of_content(content: object, label: str) -> list[NamedRows]:
    """The parts of what a file in memory stands for: a matrix, {photo: vector} or {key: matrix}. Raises UltronError for
    anything else."""
    if isinstance(content, np.ndarray):
        return [of_array(content, label)]
    if isinstance(content, dict) and content and all(isinstance(key, str) for key in content):
        arrays = {key: value for key, value in content.items() if isinstance(value, np.ndarray)}
        if len(arrays) == len(content) and all(_is_vector(array) for array in arrays.values()):
            return [_of_vectors(arrays, label)]
        matrices = {key: array for key, array in arrays.items() if array.ndim == 2 and array.dtype.name in FLOATS}
        if matrices:
            return of_keys(matrices, lambda key: of_array(matrices[key], f"{label}, {key}"), content.get, label)
    raise UltronError(
        f"{label} must hold descriptors as {{photo: vector}}, as {{key: matrix}} or as one matrix (N, D); found "
        f"{_kind(content)}; name another `format`"
    )


def of_keys(
    keys: Mapping[str, object], part: Callable[[str], NamedRows], value: Callable[[str], object], label: str
) -> list[NamedRows]:
    """The parts of a file of matrices under keys. part: makes that of a key; value: what stands under a key, of names.
    Raises UltronError where it is not clear which they are."""
    key_of = {key.lower(): key for key in keys}
    known = [key_of[name] for name in ROLE_OF_KEY if name in key_of]
    if not known and len(keys) != 1:
        raise UltronError(
            f"{label} holds several matrices ({named(sorted(keys))}), and which are queries and database is not clear; "
            "call them queries and database"
        )
    parts = []
    for key in known or list(keys):
        role = ROLE_OF_KEY.get(key.lower())
        names = _first_names(
            [f"{key}_names", *NAMES_OF_ROLE[role], *(NAMES_OF_ROLE[None] if len(keys) == 1 else ())], value
        )
        parts.append(replace(part(key), role=role, names=names))
    return parts


def _first_names(keys: Sequence[str], value: Callable[[str], object]) -> Sequence[str] | None:
    for key in keys:
        names = value(key)
        if isinstance(names, np.ndarray):
            names = names.tolist()
        if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
            return list(names)
    return None


def _is_vector(array: np.ndarray) -> bool:
    return array.dtype.name in FLOATS and array.ndim in (1, 2) and array.size == array.shape[-1] > 0


def _of_vectors(vectors: Mapping[str, np.ndarray], label: str) -> NamedRows:
    """{photo: (D,) or (1, D)}, as DOLG writes it."""
    names = list(vectors)
    first = vectors[names[0]]
    for name, vector in vectors.items():
        if vector.size != first.size or vector.dtype != first.dtype:
            raise UltronError(
                f"{label} must hold vectors of one length and type; {shown(names[0])} has {first.size} of "
                f"{first.dtype}, {shown(name)} {vector.size} of {vector.dtype}; leave that photo out"
            )

    def blocks(n_rows: int) -> Iterator[np.ndarray]:
        for start, stop in chunks(len(names), n_rows):
            yield np.stack([vectors[name].reshape(-1) for name in names[start:stop]])

    return NamedRows(label=label, n=len(names), dim=first.size, dtype=first.dtype.name, blocks=blocks, names=names)


def _kind(content: object) -> str:
    if isinstance(content, dict):
        return f"a dictionary of {named([shown(key) for key in list(content)[:6]]) or 'nothing'}"
    return f"a {type(content).__name__}"
