"""Measured speeds: a row of ours beside what a user would take instead and what the machine allows; the file that
`ultron bench --json` and benchmarks/ write; two of them compared."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from ultron_cli.console import counted
from ultron_cli.schema.texts import read_json

MACHINE_KEYS = ("cpu", "gpu", "cores", "threads", "git_commit")
Verdict = Literal["faster", "slower", "no difference", "not comparable"]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The rounds of one side, in the unit of its row."""

    value: float | None  # the median; None where nothing was measured
    lowest: float | None = None
    highest: float | None = None
    rounds: int = 0

    @classmethod
    def over(cls, rounds: Sequence[float]) -> "Spread":
        """Of what each round gave."""
        if not rounds:
            return cls(value=None)
        return cls(value=statistics.median(rounds), lowest=min(rounds), highest=max(rounds), rounds=len(rounds))

    def __str__(self) -> str:
        if self.value is None or self.lowest is None or self.highest is None or self.lowest == self.highest:
            return number_text(self.value)
        return f"{number_text(self.value)} ({number_text(self.lowest)} to {number_text(self.highest)})"


@dataclass(frozen=True, kw_only=True)
class Measurement(Spread):
    """One row: our side, and what it is held against."""

    unit: str  # `ms`, `s`: less is better; `photos/s`, `queries/s`: more is better
    of: str  # what was measured: sizes, device
    note: str = ""  # what was seen beside it, as a peak of memory
    problem: str = ""  # why nothing was measured
    benchmark: str = ""  # the file of benchmarks/ that measured it, without .py
    others: Mapping[str, Spread] = field(default_factory=dict)  # what a user would take instead, by name
    limits: Mapping[str, Spread] = field(default_factory=dict)  # what the machine allows, by name
    equality: str = ""  # what was seen to be equal before anything was timed

    @classmethod
    def of_rounds(
        cls,
        rounds: Sequence[float],
        *,
        unit: str,
        of: str,
        note: str = "",
        problem: str = "",
        others: Mapping[str, Sequence[float]] | None = None,
        limits: Mapping[str, Sequence[float]] | None = None,
        equality: str = "",
    ) -> "Measurement":
        """Of what each round gave: of ours, and of each other side and limit."""
        return cls(
            **asdict(Spread.over(rounds)),
            unit=unit,
            of=of,
            note=note,
            problem=problem,
            others={name: Spread.over(values) for name, values in (others or {}).items()},
            limits={name: Spread.over(values) for name, values in (limits or {}).items()},
            equality=equality,
        )

    def gain_over(self, other: Spread) -> float | None:
        """How many times as fast as `other` this is; None where one of them was not measured."""
        if not self.value or not other.value:
            return None
        return self.value / other.value if self.unit.endswith("/s") else other.value / self.value

    def to_json(self) -> dict[str, object]:
        """As files store it, without what is not there."""
        content = {key: value for key, value in asdict(self).items() if key in ("value", "problem") or value != ""}
        return {key: value for key, value in content.items() if value != {}}


@dataclass(frozen=True, kw_only=True)
class Results:
    """A file of measurements."""

    results: dict[str, Measurement]  # by name
    machine: dict[str, object] = field(default_factory=dict)  # processor, cores, versions, commit

    def to_json(self) -> dict[str, object]:
        """As the file stores it."""
        return {"results": {name: row.to_json() for name, row in self.results.items()}, "machine": self.machine}


def read_results(path: Path) -> Results:
    """What `ultron bench --json` or a benchmark wrote. Raises UltronError."""
    return read_json(path, "file of measurements", Results, advice="name what `ultron bench --json` printed")


def number_text(value: float | None) -> str:
    """A measured number with three or four digits."""
    if value is None:
        return "none"
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.4f}"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One row of two files."""

    name: str
    unit: str
    before: Measurement | None  # None: only the other file has it
    after: Measurement | None
    gain: float | None  # how many times as fast `after` is
    verdict: Verdict


def changes(before: Results, after: Results) -> list[Change]:
    """Every row of either file. Faster or slower is what lies outside the other's rounds altogether."""
    rows = []
    for name in dict.fromkeys([*before.results, *after.results]):
        old, new = before.results.get(name), after.results.get(name)
        gain = new.gain_over(old) if old and new and old.unit == new.unit else None
        verdict: Verdict = "not comparable"
        if old and new and gain is not None:
            overlaps = _lowest(new) <= _highest(old) and _lowest(old) <= _highest(new)
            verdict = "no difference" if overlaps else "faster" if gain > 1 else "slower"
        unit = new.unit if new else old.unit if old else ""
        rows.append(Change(name=name, unit=unit, before=old, after=new, gain=gain, verdict=verdict))
    return rows


def _lowest(spread: Spread) -> float:
    return spread.lowest if spread.lowest is not None else spread.value or 0.0


def _highest(spread: Spread) -> float:
    return spread.highest if spread.highest is not None else spread.value or 0.0


def differences(before: Results, after: Results) -> list[str]:
    """What else differs, a line each: the machine, and what rows of the same name were measured of."""
    machines = [(key, before.machine.get(key), after.machine.get(key)) for key in MACHINE_KEYS]
    shared = [name for name in before.results if name in after.results]
    rows = [(name, before.results[name].of, after.results[name].of) for name in shared]
    return [f"{name}: A {old}; B {new}" for name, old, new in [*machines, *rows] if old != new]


def machine_text(machine: Mapping[str, object]) -> str:
    """The machine of a file in one line: processor, cores, GPU, versions, how busy it was."""
    counts = [counted(n, what) for what in ("core", "thread") if isinstance(n := machine.get(f"{what}s"), int)]
    packages = machine.get("packages")
    known = packages if isinstance(packages, dict) else {}
    versions = [f"{name} {known[name]}" for name in ("torch", "timm", "numpy") if name in known]
    load = machine.get("load_average")
    parts = [
        str(machine.get("cpu")),
        *counts,
        str(machine.get("gpu") or "no GPU used"),
        f"ultron {machine.get('ultron_version')}",
        f"Python {machine.get('python')}",
        *versions,
        *([f"load average {load:.1f}"] if isinstance(load, float) else []),
    ]
    return ", ".join(parts)
