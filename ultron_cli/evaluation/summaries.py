"""What a comparison of systems tells: as plain data, as text for people or for a paper, and in a notebook."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ultron_cli.console import counted, dump_json, html_table, lines, log, table
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.reproduction import Reproduction, as_reproduction
from ultron_cli.evaluation.result import Evaluation, percent
from ultron_cli.evaluation.significance import ways_of_testing
from ultron_cli.evaluation.systems import Standing, System, compare_systems
from ultron_cli.evaluation.tables import (
    MARKS,
    TableFormat,
    differing_notes,
    moved_rows,
    pair_rows,
    score_rows,
    score_table,
)

PAIR_COLUMNS = (
    *("protocol", "pair", "difference", "95 % interval", "p", "p (Holm)", "smallest shown"),
    "better / worse / equal",
)
Summary = tuple[dict[str, object], str]  # plain data, text


def table_of_one(evaluation: Evaluation, path: Path, style: TableFormat) -> str:
    """The table of one evaluation, which lies at `path`."""
    label = evaluation.origin.model_label
    systems = [System(letter="A", label=label, paths=(path,), evaluations=(evaluation,), rankings=(None,))]
    return score_table(systems, compare_systems(systems), style)


@dataclass(frozen=True, repr=False)
class ComparedSystems(Mapping[str, Standing]):
    """Several systems side by side: by protocol (comparison["hard"]), how they stand. As text it is what `ultron
    compare` prints, in a notebook a table."""

    systems: Sequence[System]
    standings: Sequence[Standing]

    def __getitem__(self, protocol: str) -> Standing:
        return {standing.protocol: standing for standing in self.standings}[protocol]

    def __iter__(self) -> Iterator[str]:
        return (standing.protocol for standing in self.standings)

    def __len__(self) -> int:
        return len(self.standings)

    def __repr__(self) -> str:
        return self.text("text")

    def _repr_html_(self) -> str:
        columns, rows = score_rows(self.systems, self.standings, MARKS["text"], differing_notes(self.systems))
        verdicts = [f"{standing.protocol}: {standing.verdict(self.systems)}" for standing in self.standings]
        return html_table(columns, rows, left=2, below="; ".join(verdicts))

    def text(self, style: TableFormat) -> str:
        """What `ultron compare --format` prints."""
        if style == "json":
            return dump_json(self.to_json(), ascii_only=True)
        if style != "text":
            return score_table(self.systems, self.standings, style)
        tell = _two if len(self.systems) == 2 else _several
        return tell(self.systems, self.standings)

    def to_json(self) -> dict[str, object]:
        """As --json prints it: fractions."""
        return comparison_content(self.systems, self.standings)


def compare_all(systems: Sequence[System]) -> ComparedSystems:
    """The comparison of any number of systems. Raises UltronError if they cannot be compared."""
    return ComparedSystems(systems, compare_systems(systems))


def comparison_content(systems: Sequence[System], standings: Sequence[Standing]) -> dict[str, object]:
    """As --json prints it: fractions. Of two systems each protocol also has the fields of their comparison."""
    protocols: dict[str, object] = {}
    for standing in standings:
        part: dict[str, object] = dataclasses.asdict(standing)
        part["pairs"] = [
            {"a": pair.a, "b": pair.b, **dataclasses.asdict(pair.comparison), "p_holm": pair.p_holm}
            for pair in standing.pairs
        ]
        if len(systems) == 2 and standing.pairs:
            comparison = standing.pairs[0].comparison
            part |= dataclasses.asdict(comparison) | {"test": comparison.test_text, "verdict": comparison.verdict}
        else:
            part["verdict"] = standing.verdict(systems)
        protocols[standing.protocol] = part
    files = [",".join(map(str, system.paths)) or system.label for system in systems]
    return {
        **({"before": files[0], "after": files[1]} if len(systems) == 2 else {}),
        "systems": [
            {"letter": system.letter, "label": system.label, "files": [str(path) for path in system.paths]}
            for system in systems
        ],
        "protocols": protocols,
        "settings_that_differ": [phrase for system in systems[1:] for phrase in _differing(systems[0], system)],
        **({"cautions": cautions} if (cautions := _cautions(systems)) else {}),
    }


def _differing(first: System, other: System) -> list[str]:
    """What shaped two systems differently, by their letters."""
    phrases = first.evaluation.origin.differences(other.evaluation.origin)
    if (first.letter, other.letter) == ("A", "B"):
        return phrases
    return [phrase.replace(", B ", f", {other.letter} ", 1) for phrase in phrases]


def _cautions(systems: Sequence[System]) -> list[str]:
    """What takes worth from the scores of systems that were joined of others, by their letters."""
    origins = [(system.letter, part.origin) for system in systems for part in system.evaluations]
    cautions = [
        f"{letter}: {origin.fusion.caution}" for letter, origin in origins if origin.fusion and origin.fusion.caution
    ]
    return list(dict.fromkeys(cautions))


def _named(systems: Sequence[System]) -> list[str]:
    return [f"{system.letter} {', '.join(map(str, system.paths)) or system.label}" for system in systems]


def _moved(systems: Sequence[System], standings: Sequence[Standing]) -> str:
    rows = [row for standing in standings for row in moved_rows(systems, standing)]
    if not rows:
        return ""
    letters = [f"AP of {system.letter}" for system in systems]
    return lines("the queries that differ most:", table(("protocol", "query", *letters), rows, left=2))


def _seeds(systems: Sequence[System], standings: Sequence[Standing]) -> str:
    """The spread of training seeds, in words; nothing where each system has one."""
    phrases = []
    for i, system in enumerate(systems):
        parts = [
            f"{standing.protocol} {percent(sd)}"
            for standing in standings
            if (sd := standing.systems[i].seeds_sd) is not None
        ]
        if parts:
            phrases.append(f"{system.letter} {', '.join(parts)} over {counted(len(system.evaluations), 'seed')}")
    what = "standard deviation over training seeds, which p and intervals know nothing of"
    return f"{what}: {'; '.join(phrases)}" if phrases else ""


def _tests(standings: Sequence[Standing]) -> str:
    tests = ways_of_testing(standing.pairs[0].comparison for standing in standings)
    return (
        f"p: {'; '.join(tests)}. Interval: BCa bootstrap over queries. Smallest: the true difference that so many "
        "queries show in four of five cases"
    )


def _two(systems: Sequence[System], standings: Sequence[Standing]) -> str:
    rows, verdicts = [], []
    for standing in standings:
        part = standing.pairs[0].comparison
        low, high = (f"{100 * side:+.2f}" for side in part.interval)
        n_equal = part.n_queries - part.n_better - part.n_worse
        scores = (percent(part.mAP_a), percent(part.mAP_b), f"{100 * part.difference:+.2f}")
        smallest = "-" if part.smallest is None else percent(part.smallest)
        counts = f"{part.n_better} / {part.n_worse} / {n_equal}"
        rows.append((standing.protocol, *scores, f"{low} to {high}", part.p_text, smallest, counts))
        verdicts.append(f"{standing.protocol}: {part.verdict} (p {part.p_text})")
    columns = ("protocol", "A", "B", "B - A", "95 % interval", "p", "smallest", "better / worse / equal")
    differing = _differing(*systems)
    return lines(
        *_named(systems),
        table(columns, rows),
        *verdicts,
        *_cautions(systems),
        _tests(standings),
        _seeds(systems, standings),
        _moved(systems, standings),
        "differing: nothing that is recorded" if not differing else "differing:",
        *(f"  {phrase}" for phrase in differing),
    )


def _several(systems: Sequence[System], standings: Sequence[Standing]) -> str:
    pairs = [row for standing in standings for row in pair_rows(standing)]
    return lines(
        *_named(systems),
        score_table(systems, standings, "text"),
        table(PAIR_COLUMNS, pairs, left=2) if pairs else "",
        *(f"{standing.protocol}: {standing.verdict(systems)}" for standing in standings if pairs),
        *_cautions(systems),
        _tests(standings) if pairs else "",
        _moved(systems, standings),
    )


def reproduced(original: System, reproduction: System, style: TableFormat) -> Summary:
    """The second result held against the first. Raises UltronError for several seeds, and as as_reproduction."""
    for system in (original, reproduction):
        if len(system.evaluations) > 1:
            n_seeds = counted(len(system.evaluations), "training seed")
            raise UltronError(f"a reproduction is of one result; found {n_seeds} in {system.letter}; name one file")
    held = as_reproduction(original, reproduction)
    content = {"original": str(original.paths[0]), "reproduction": str(reproduction.paths[0]), **held.to_json()}
    content["settings_that_differ"] = _differing(original, reproduction)
    if style == "json":
        return content, dump_json(content, ascii_only=True)
    if held.rankings is None:
        log.info("the order of photos is compared of rank files (`ultron search --out`); these are evaluations")
    return content, _reproduction_text(original, reproduction, held)


def _reproduction_text(original: System, reproduction: System, held: Reproduction) -> str:
    rows = [
        (name, *(percent(score) for score in part.mAP), percent(part.rmse), percent(part.largest), part.n_different)
        for name, part in held.protocols.items()
    ]
    firsts = [
        f"{name}: the first query that differs is {part.first.query}, AP {percent(part.first.ap[0])} and "
        f"{percent(part.first.ap[1])}"
        for name, part in held.protocols.items()
        if part.first
    ]
    ranks = held.rankings
    differing = _differing(original, reproduction)
    return lines(
        *_named((original, reproduction)),
        table(("protocol", "A", "B", "RMSE of AP", "largest", "queries that differ"), rows),
        *firsts,
        f"rankings: rank-biased overlap {ranks.rbo:.4f}, Kendall's tau {ranks.kendall_tau:.4f} (tau union "
        f"{ranks.kendall_tau_union:.4f})"
        if ranks
        else "",
        f"the first ranking that differs is that of {ranks.first_query}, from rank {ranks.first_rank} on"
        if ranks and ranks.first_query
        else "",
        *(
            f"{role} descriptors: cosine {part.mean:.6f} on average over {counted(part.n, 'photo')}, lowest "
            f"{part.lowest:.6f} ({part.lowest_photo})"
            for role, part in held.descriptors.items()
        ),
        held.verdict,
        *_cautions((original, reproduction)),
        "differing: nothing that is recorded" if not differing else "differing:",
        *(f"  {phrase}" for phrase in differing),
    )
