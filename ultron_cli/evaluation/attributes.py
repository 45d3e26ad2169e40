"""What queries and photos may be sliced by: what the ground truth says of them, what the renderer wrote of its photos,
and any table of their own."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ultron_cli.console import counted, log
from ultron_cli.datasets.protocols import GroundTruth, Protocol
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.evaluation.landmarks import landmarks_of
from ultron_cli.schema.tables import csv_rows
from ultron_cli.schema.texts import read_json
from ultron_cli.schema.values import shown

Value = str | float | None
N_BINS = 4  # of numbers, each with as many of them
MOST_VALUES = 5  # different numbers that are each a slice of their own
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class QueryAttribute:
    """A value of each query."""

    name: str
    values: tuple[Value, ...] = field(repr=False)  # (Q,)


@dataclass(frozen=True, kw_only=True)
class PhotoAttribute:
    """A value of each positive of a query; it may depend on the query."""

    name: str
    value_of: Callable[[int, int], Value] = field(repr=False)  # (row of the query, row of the photo)


Attribute = QueryAttribute | PhotoAttribute


def in_bins(values: Iterable[Value]) -> dict[Value, str]:
    """The slice of each value: a text is its own, and so are a few numbers; of more, quarters of as many values."""
    occurring = [value for value in values if value is not None]
    different = sorted({value for value in occurring if isinstance(value, float)})
    texts = sorted({value for value in occurring if isinstance(value, str)})
    slices: dict[Value, str] = {text: text for text in texts}
    if len(different) <= MOST_VALUES:
        return slices | {value: f"{value:g}" for value in different}
    numbers = np.array([value for value in occurring if isinstance(value, float)])
    edges = np.unique(np.quantile(numbers, np.arange(1, N_BINS) / N_BINS))
    bins = np.searchsorted(edges, different)  # a value that is an edge belongs below it
    for number in np.unique(bins):
        members = [value for value, part in zip(different, bins, strict=True) if part == number]
        low, high = (f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}" for value in (members[0], members[-1]))
        slices |= {value: low if low == high else f"{low} to {high}" for value in members}
    return slices


def of_ground_truth(truth: GroundTruth, protocol: Protocol) -> list[Attribute]:
    """The attributes that every ground truth has: the size of the box, the number of positives, the share of easy
    ones, the landmark, and of photos the label; those without a second value are left out later."""
    boxes, positives, shares = [], [], []
    for row, query in enumerate(truth.queries):
        x1, y1, x2, y2 = query.bbx or (0.0, 0.0, 0.0, 0.0)
        boxes.append(math.sqrt((x2 - x1) * (y2 - y1)) if query.bbx else None)
        positives.append(float(len(truth.split(row, protocol)[0])))
        n_labelled = len(query.easy) + len(query.hard)
        shares.append(100 * len(query.easy) / n_labelled if n_labelled else None)
    names: list[Value] = [None] * len(truth.queries)
    for landmark in landmarks_of(truth):
        for row in landmark.queries:
            names[row] = landmark.name
    easy_rows = [set(query.easy.tolist()) for query in truth.queries]
    return [
        QueryAttribute(name="box", values=tuple(boxes)),  # its side in pixels, were it square
        QueryAttribute(name="positives", values=tuple(positives)),
        QueryAttribute(name="easy-share", values=tuple(shares)),  # in percent
        QueryAttribute(name="landmark", values=tuple(names)),
        PhotoAttribute(name="label", value_of=lambda query, photo: "easy" if photo in easy_rows[query] else "hard"),
    ]


@dataclass(frozen=True, kw_only=True)
class _View:
    """How a photo was rendered, as far as it is read."""

    light: str
    weather: str
    distance_m: float
    azimuth_deg: float


@dataclass(frozen=True, kw_only=True)
class _RenderedPhoto:
    """A photo in toy.json, as far as it is read."""

    file: str
    visible: float
    view: _View


@dataclass(frozen=True, kw_only=True)
class _Rendering:
    """toy.json, as far as it is read."""

    photos: list[_RenderedPhoto]


def of_rendering(folder: Path, truth: GroundTruth) -> list[Attribute]:
    """What the renderer wrote of the photos in a folder: light, weather, distance, how much of the landmark is to be
    seen, and the angle between query and photo; nothing of photos that it did not make. Raises UltronError for a
    damaged description."""
    path = folder / "toy.json"
    if not os.path.isfile(path):
        return []
    rendering = read_json(path, "description of rendered landmarks", _Rendering, advice="render them again")
    photo_of = {Path(photo.file).stem: photo for photo in rendering.photos}
    queries = [photo_of.get(name) for name in truth.query_names]
    photos = [photo_of.get(name) for name in truth.database_names]

    def angle(query: int, photo: int) -> Value:
        a, b = queries[query], photos[photo]
        return abs((a.view.azimuth_deg - b.view.azimuth_deg + 180) % 360 - 180) if a and b else None

    def of_both(name: str, value: Callable[[_RenderedPhoto], Value]) -> list[Attribute]:
        values = [value(photo) if photo else None for photo in photos]
        return [
            QueryAttribute(name=f"query-{name}", values=tuple(value(photo) if photo else None for photo in queries)),
            PhotoAttribute(name=name, value_of=lambda _, photo: values[photo]),
        ]

    return [
        *of_both("light", lambda photo: photo.view.light),
        *of_both("weather", lambda photo: photo.view.weather),
        *of_both("distance", lambda photo: photo.view.distance_m),  # in metres
        *of_both("visible", lambda photo: 100 * photo.visible),  # in percent
        PhotoAttribute(name="angle", value_of=angle),  # in degrees
    ]


def of_table(path: Path, truth: GroundTruth) -> list[Attribute]:
    """The attributes of a CSV: a column `photo`, which names queries or photos of the database, and one column per
    attribute; an empty field is none.

    Raises UltronError if it has no attribute, names none of the photos, or names one twice.
    """
    fields_of: dict[str, Mapping[str, str]] = {}
    columns: list[str] = []
    known = {*truth.query_names, *truth.database_names}
    n_strange = 0
    for number, fields in csv_rows(path, "the table of attributes", required=[["photo"]], delimiters=",;\t"):
        columns = columns or [column for column in fields if column and column != "photo"]
        name = fields["photo"].removesuffix(".jpg") if fields["photo"] not in known else fields["photo"]
        if name not in known:
            n_strange += 1
        elif fields_of.setdefault(name, fields) is not fields:
            raise UltronError(
                f"{path}, line {number}: {shown(name)} stands there before; a photo has one line, keep one"
            )
    if not fields_of or not columns:
        problem = "names no photo of the ground truth" if columns else "has no column beside `photo`"
        raise UltronError(f"{path} {problem}; write a line per photo: photo,light,season")
    if n_strange:
        log.warning(
            "%s: %s of no photo of the ground truth, passed over", path, counted(n_strange, "line is", "lines are")
        )
    attributes: list[Attribute] = []
    for column in columns:
        value_of = _values_of(column, fields_of)
        if any(name in value_of for name in truth.query_names):
            values = tuple(value_of.get(name) for name in truth.query_names)
            in_database = any(name in value_of for name in truth.database_names)
            attributes.append(QueryAttribute(name=f"query-{column}" if in_database else column, values=values))
        if any(name in value_of for name in truth.database_names):
            attributes.append(_photo_attribute(column, [value_of.get(name) for name in truth.database_names]))
    return attributes


def _values_of(column: str, fields_of: Mapping[str, Mapping[str, str]]) -> dict[str, Value]:
    """The values of a column by photo; numbers where all of them are."""
    texts = {name: fields[column] for name, fields in fields_of.items() if fields[column]}
    try:
        numbers: dict[str, Value] = {name: float(text) for name, text in texts.items()}
    except ValueError:
        return dict(texts)
    return numbers if all(math.isfinite(float(text)) for text in texts.values()) else dict(texts)


def _photo_attribute(name: str, values: Sequence[Value]) -> PhotoAttribute:
    return PhotoAttribute(name=name, value_of=lambda _, photo: values[photo])


def attributes_of(names: Sequence[str], truth: GroundTruth, protocol: Protocol, folder: Path | None) -> list[Attribute]:
    """The attributes that are named: `all` is those of the ground truth and of the renderer, a file of that name is a
    table. folder: of the dataset, None where it is not known. Raises UltronError for an unknown name."""
    attributes = of_ground_truth(truth, protocol) + (of_rendering(folder, truth) if folder else [])
    chosen_by_name: dict[str, Attribute] = {}
    for name in names:
        if os.path.isfile(name):
            more = of_table(Path(name), truth)
        else:
            more = [attribute for attribute in attributes if name in (ALL, attribute.name)]
        if not more:
            known = [ALL, *(attribute.name for attribute in attributes)]
            raise UltronError(
                f"{shown(name)} is neither a file nor an attribute{nearest_names(name[:255], known)} (known: "
                f"{', '.join(known)})"
            )
        chosen_by_name |= {attribute.name: attribute for attribute in more}
    return list(chosen_by_name.values())
