"""What a sweep is to compute: a TOML file, or one of the presets, as cells.

The tables [model], [extract], [head], [whiten], [index], [search] and [evaluate] hold the settings of every cell.
[grid] holds lists of values, of which each combination is tried; [[cell]] is a list of changes, each tried with every
combination. The first cell of a list, or of a grid alone, is the one that the others are compared with.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path

from ultron_cli.configs import apply_set, differences
from ultron_cli.console import named
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.schema.texts import read_toml
from ultron_cli.schema.values import shown
from ultron_cli.sweep.settings import NONE, CellSettings
from ultron_cli.user_code import code_named

PRESETS = resources.files("ultron_cli.sweep") / "presets"
MOST_CELLS = 2000
STEPS = tuple(part.name for part in fields(CellSettings))
KEYS = (*STEPS, "grid", "cell")
# Dotted keys that name a cell by another word than their last part.
WORDS = {
    "whiten.method": "whiten",
    "whiten.source": "learned on",
    "index.kind": "index",
    "model.name": "model",
    "head.name": "head",
}
CODE = "code"  # beside the settings of a cell, in a stored plan
LABEL = "label"  # of a table among the values of a grid: how its cells are called
Table = Mapping[str, object]
Axis = tuple[str, list[object]]  # dotted key, its values


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of settings: a row of the table."""

    name: str
    settings: CellSettings
    baseline: str  # name of the cell that this one is compared with, which may be itself


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """All cells of a sweep."""

    name: str  # of the file or the preset
    cells: tuple[Cell, ...]

    def to_plain(self) -> dict[str, object]:
        """Plain data, by which a sweep that goes on is told from another: the settings of each cell, and the SHA-256 of
        code that they name."""
        cells = {cell.name: asdict(cell.settings) for cell in self.cells}
        code = {name: {CODE: code_named(settings)} for name, settings in cells.items()}
        return json.loads(json.dumps({name: cells[name] | (code[name] if code[name][CODE] else {}) for name in cells}))

    def differences(self, stored: Mapping[str, object]) -> list[str]:
        """One phrase for each cell or setting in which an earlier sweep's to_plain differs."""
        requested = self.to_plain()
        gone = [name for name in stored if name not in requested]
        new = [name for name in requested if name not in stored]
        phrases = [f"without {named(gone, 3)}"] * bool(gone) + [f"with {named(new, 3)}"] * bool(new)
        for name, settings in requested.items():
            earlier = stored.get(name)
            if isinstance(earlier, Mapping) and isinstance(settings, Mapping):
                if CODE not in earlier:  # of an ultron that did not store it
                    settings = {key: value for key, value in settings.items() if key != CODE}
                phrases += [f"{name}: {phrase}" for phrase in differences(earlier, settings)]
        return phrases


def list_presets() -> list[str]:
    """Names of the presets."""
    entries = PRESETS.iterdir()
    return sorted(entry.name.removesuffix(".toml") for entry in entries if entry.name.endswith(".toml"))


def read_plan(source: str, assignments: Sequence[str], fixed: Table | None = None) -> SweepPlan:
    """The plan of a preset by name, or of a TOML file.

    assignments: KEY=VALUE, each replacing one setting (`model.weights=a.pth`). fixed: tables that replace the file's
    settings too. Raises UltronError, which names the file, for what it must not hold.
    """
    path = Path(source)
    if source in list_presets():
        with resources.as_file(PRESETS / f"{source}.toml") as preset:
            values = read_toml(preset, "sweep", dict[str, object])
    elif path.suffix != ".toml" and not path.exists():
        near = nearest_names(source, list_presets())
        raise UltronError(
            f"a sweep is a TOML file or one of {', '.join(list_presets())}; found {shown(source)}{near}; write one as "
            "docs/evaluation.md shows"
        )
    else:
        values = read_toml(path, "sweep", dict[str, object])
    try:
        merged = _merged(apply_set(values, assignments, example="extract.scales=3"), fixed or {})
        return SweepPlan(name=path.stem, cells=tuple(_cells(merged)))
    except UltronError as error:
        raise UltronError(f"{source}: {error.message}", *error.ways) from None


def _cells(values: Table) -> Iterator[Cell]:
    unknown = [key for key in values if key not in KEYS]
    if unknown:
        raise UltronError(
            f"unknown table {shown(unknown[0])[1:-1]}{nearest_names(unknown[0][:60], KEYS)} (known: {', '.join(KEYS)})"
        )
    base = {key: values[key] for key in STEPS if key in values}
    axes = _axes(_table(values.get("grid", {}), "grid"))
    changes = _changes(values.get("cell", []), axes)
    n_cells = len(changes)
    for _, choices in axes:
        n_cells *= len(choices)
    if n_cells > MOST_CELLS:
        raise UltronError(f"a sweep has up to {MOST_CELLS:,} cells; found {n_cells:,}; name fewer values")
    names: set[str] = set()
    baseline = None
    for combination in itertools.product(*(choices for _, choices in axes)):
        group = _combination_name(axes, combination)
        settings = base
        for (key, _), value in zip(axes, combination, strict=True):
            settings = _merged(settings, _nested(key, _without_label(value)))
        if len(changes) > 1:
            baseline = None
        for change_name, change in changes:
            name = ", ".join(part for part in (group, change_name) if part) or "all"
            if name in names:
                raise UltronError(f"two cells are called {shown(name)}; give each a name of its own with name or label")
            names.add(name)
            baseline = baseline or name
            try:
                cell_settings = CellSettings.of(_merged(settings, change))
            except UltronError as error:
                raise UltronError(f"cell {shown(name)}: {error.message}", *error.ways) from None
            yield Cell(name=name, settings=cell_settings, baseline=baseline)


def _table(value: object, key: str) -> Table:
    if not isinstance(value, Mapping):
        raise UltronError(f"{key} must be a table; found {shown(value)}")
    return value


def _axes(grid: Table, prefix: str = "") -> list[Axis]:
    """The lists of a grid with their dotted keys, in the order of the file."""
    axes: list[Axis] = []
    for key, value in grid.items():
        if isinstance(value, Mapping):
            axes += _axes(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value:
            axes.append((prefix + key, value))
        else:
            raise UltronError(f"grid.{prefix}{key} must be a list of values to try; found {shown(value)}")
    return axes


def _changes(cells: object, axes: Sequence[Axis]) -> list[tuple[str, Table]]:
    """(name, changed settings) of each entry of the list of cells; without a list, one that changes nothing."""
    if not isinstance(cells, list):
        raise UltronError(f"cell must be a list of tables, each under [[cell]]; found {shown(cells)}")
    changes = []
    for i, entry in enumerate(cells):
        table = dict(_table(entry, f"cell[{i}]"))
        name = table.pop("name", None)
        if name is not None and not (isinstance(name, str) and name.strip()):
            raise UltronError(f"cell[{i}].name must be text; found {shown(name)}")
        unknown = [key for key in table if key not in STEPS]
        if unknown:
            raise UltronError(
                f"cell[{i}] has an unknown table {shown(unknown[0])[1:-1]}{nearest_names(unknown[0][:60], STEPS)} "
                f"(known: {', '.join(STEPS)})"
            )
        changes.append((name or _change_name(table), table))
    return changes or [("", {})]


def _change_name(change: Table) -> str:
    flat = _flat(change)
    return ", ".join(f"{_short(key, flat)}={_value_name(value)}" for key, value in flat.items()) or "default"


def _flat(table: Table, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _combination_name(axes: Sequence[Axis], combination: Sequence[object]) -> str:
    keys = [key for key, _ in axes]
    parts = []
    for key, value in zip(keys, combination, strict=True):
        has_label = isinstance(value, Mapping) and LABEL in value
        parts.append(_value_name(value) if has_label else f"{_short(key, keys)}={_value_name(value)}")
    return ", ".join(parts)


def _short(key: str, keys: Sequence[str] | Mapping[str, object]) -> str:
    """A word for a dotted key; its last part, where that tells it from the others."""
    if key in WORDS:
        return WORDS[key]
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _value_name(value: object) -> str:
    """A value as part of a cell's name."""
    if isinstance(value, Mapping):
        label = value.get(LABEL)
        flat = _flat(value)
        return str(label) if label else " ".join(f"{_short(k, flat)}={_value_name(v)}" for k, v in flat.items()) or NONE
    if isinstance(value, (list, tuple)):
        return "+".join(map(_value_name, value)) or NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or NONE


def _without_label(value: object) -> object:
    return {key: part for key, part in value.items() if key != LABEL} if isinstance(value, Mapping) else value


def _nested(key: str, value: object) -> Table:
    """{"extract": {"scales": 3}} of `extract.scales` and 3."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return _table(value, key)


def _merged(values: Table, changes: Table) -> dict[str, object]:
    """`values` with `changes` over them, table by table."""
    merged = dict(values)
    for key, change in changes.items():
        table = merged.get(key)
        merged[key] = _merged(table, change) if isinstance(table, Mapping) and isinstance(change, Mapping) else change
    return merged
