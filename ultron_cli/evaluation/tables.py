"""Scores as a table: on the screen, and for a paper in Markdown, LaTeX (with booktabs) or CSV.

The best score of a column is bold and the second underlined; beside it stand its 95 % interval, the spread of training
seeds, and the letters of the systems that it beats beyond chance. Below stands how the scores were made, and for
systems that were made differently, how each was.
"""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ultron_cli.console import lines, markdown_table, table
from ultron_cli.evaluation.intervals import COVERED, LEVEL
from ultron_cli.evaluation.result import percent
from ultron_cli.evaluation.significance import p_text
from ultron_cli.evaluation.systems import Standing, System, SystemScores

TableFormat = Literal["text", "markdown", "latex", "csv", "json"]
OF_THE_PHRASE = re.compile(  # told by Evaluation.protocol_text already
    r"(dataset|crop of queries|longest side in pixels|scales|resizing of photos|whitening|re-ranking|distractors)$"
    r"|search$|whitening\.|imported|fus(ion|ed)"
)
LATEX_SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


@dataclass(frozen=True, kw_only=True)
class Marks:
    """How a format sets what is marked."""

    text: Callable[[str], str]  # of what people named
    bold: Callable[[str], str]
    underlined: Callable[[str], str]
    raised: Callable[[str], str]


def _same(text: str) -> str:
    return text


def _latex(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text)


MARKS = {
    "text": Marks(text=_same, bold=lambda text: f"{text}*", underlined=_same, raised=lambda text: f" {text}"),
    "markdown": Marks(
        text=_markdown,
        bold=lambda text: f"**{text}**",
        underlined=lambda text: f"<u>{text}</u>",
        raised=lambda text: f"<sup>{text}</sup>",
    ),
    "latex": Marks(
        text=_latex,
        bold=lambda text: rf"\textbf{{{text}}}",
        underlined=lambda text: rf"\underline{{{text}}}",
        raised=lambda text: rf"\textsuperscript{{{text}}}",
    ),
}


def score_table(
    systems: Sequence[System],
    standings: Sequence[Standing],
    style: TableFormat,
    notes: "Notes | None" = None,
) -> str:
    """The table of systems (rows) and protocols (columns), in the order of `systems`.

    notes: how the scores were made; None tells it of every system that was made differently.
    """
    if style == "csv":
        return _csv(systems, standings)
    marks = MARKS[style]
    notes = notes or differing_notes(systems)
    columns, rows = score_rows(systems, standings, marks, notes)
    footnotes = [marks.text(text) for text in _legend(systems, standings)]
    footnotes += [marks.text(text) for text in notes.common]
    footnotes += [f"{marks.raised(str(number)).strip()} {marks.text(text)}" for number, text in notes.numbered.items()]
    if style == "latex":
        return _latex_table(columns, rows, footnotes)
    if style == "markdown":
        return markdown_table(columns, rows) + "\n\n" + "\n\n".join(footnotes)
    return lines(table(columns, rows, left=2 if len(systems) > 1 else 1), *footnotes)


def score_rows(
    systems: Sequence[System], standings: Sequence[Standing], marks: Marks, notes: "Notes"
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table: letter (of several systems), label, a cell per protocol."""
    columns = ["", "system", *(standing.protocol.capitalize() for standing in standings)]
    places = [_places([scores.mAP for scores in standing.systems]) for standing in standings]
    rows = []
    for i, system in enumerate(systems):
        number = notes.number_of.get(system.letter)
        label = marks.text(system.label) + (marks.raised(str(number)) if number else "")
        cells = [_cell(standing.systems[i], place[i], marks) for standing, place in zip(standings, places, strict=True)]
        rows.append([system.letter, label, *cells])
    return (columns[1:], [row[1:] for row in rows]) if len(systems) == 1 else (columns, rows)


def _places(scores: Sequence[float]) -> list[int]:
    """0 for the best score as it is printed, 1 for the second, 2 for the others; a single system has no place."""
    printed = [percent(score) for score in scores]
    order = sorted(set(printed), key=float, reverse=True)
    return [min(2, order.index(text)) if len(scores) > 1 else 2 for text in printed]


def _cell(scores: SystemScores, place: int, marks: Marks) -> str:
    """`**81.20** ± 0.31 [76.1, 85.3] AC`."""
    number = percent(scores.mAP)
    number = (marks.bold, marks.underlined, _same)[place](number)
    seeds = "" if scores.seeds_sd is None else f" ± {percent(scores.seeds_sd)}"
    letters = marks.raised(",".join(scores.beats)) if scores.beats else ""
    low, high = (percent(side, 1) for side in scores.interval)
    return f"{number}{letters}{seeds} [{low}, {high}]"


def _legend(systems: Sequence[System], standings: Sequence[Standing]) -> list[str]:
    """What the cells hold."""
    n_queries = sorted({standing.n_queries for standing in standings})
    counts = str(n_queries[0]) if len(n_queries) == 1 else f"{n_queries[0]} to {n_queries[-1]}"
    what = f"{systems[0].evaluation.metric} in %, with its {100 * COVERED:.0f} % interval in brackets"
    text = f"{what} (BCa bootstrap over {counts} queries)"
    if any(len(system.evaluations) > 1 for system in systems):
        text += "; ± standard deviation over training seeds, whose AP is averaged query by query"
    n_pairs = len(standings[0].pairs)
    if n_pairs:
        text += (
            f"; letters: systems that it beats (paired randomisation, p < {LEVEL:.2g} after Holm's correction for "
            f"{n_pairs} {'pair' if n_pairs == 1 else 'pairs'})"
        )
    return [f"{text}."]


@dataclass(frozen=True, kw_only=True)
class Notes:
    """How the scores were made: what all systems share, and what some do otherwise."""

    common: list[str]
    numbered: Mapping[int, str]
    number_of: Mapping[str, int]  # letter of a system -> the number of its note; empty where all are made alike


def differing_notes(systems: Sequence[System]) -> Notes:
    """The footnotes of a table: dataset and size, how photos became rankings, and warnings."""
    first = systems[0].evaluation
    of_all = f"{first.dataset}, {first.n_queries:,} queries, {first.n_database:,} photos"
    facts = {system.letter: system.evaluation.origin.conditions() for system in systems}
    names = dict.fromkeys(name for part in facts.values() for name in part)
    extra = [
        name
        for name in names
        if len({part.get(name, "none") for part in facts.values()}) > 1 and not OF_THE_PHRASE.match(name)
    ]
    phrases = {
        system.letter: "; ".join(
            [
                system.evaluation.protocol_text(timed=False),
                # A setting of a step or an index that a system has not is no fact of that system.
                *(f"{name} {facts[system.letter][name]}" for name in extra if name in facts[system.letter]),
                *system.evaluation.warnings,
            ]
        )
        for system in systems
    }
    distinct = list(dict.fromkeys(phrases.values()))
    if len(distinct) == 1:
        return Notes(common=[f"{of_all}: {distinct[0]}."], numbered={}, number_of={})
    numbered = {number: f"{phrase}." for number, phrase in enumerate(distinct, start=1)}
    number_of = {letter: distinct.index(phrase) + 1 for letter, phrase in phrases.items()}
    return Notes(common=[f"{of_all}. Not made alike:"], numbered=numbered, number_of=number_of)


def _latex_table(columns: Sequence[str], rows: Sequence[Sequence[str]], footnotes: Sequence[str]) -> str:
    left = columns.index("system") + 1
    return lines(
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(columns) - left)}}}",
        r"\toprule",
        " & ".join(_latex(name) for name in columns) + r" \\",
        r"\midrule",
        *(" & ".join(row).replace("±", r"$\pm$") + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip{{\footnotesize {note}}}".replace("±", r"$\pm$") for note in footnotes),
        r"\end{table}",
    )


def _csv(systems: Sequence[System], standings: Sequence[Standing]) -> str:
    """A line per system and protocol; fractions, as files hold them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ("system", "label", "dataset", "protocol", "queries", "mAP", "low", "high", "seeds", "seeds_sd", "beats", "how")
    )
    for i, system in enumerate(systems):
        how = "; ".join((system.evaluation.protocol_text(timed=False), *system.evaluation.warnings))
        for standing in standings:
            scores = standing.systems[i]
            sd = "" if scores.seeds_sd is None else f"{scores.seeds_sd:.6f}"
            numbers = (f"{value:.6f}" for value in (scores.mAP, *scores.interval))
            writer.writerow(
                (
                    *(system.letter, system.label, system.evaluation.dataset, standing.protocol, standing.n_queries),
                    *(*numbers, scores.n_seeds, sd, " ".join(scores.beats), how),
                )
            )
    return out.getvalue().rstrip("\n")


def moved_rows(systems: Sequence[System], standing: Standing) -> list[list[str]]:
    """Rows of the table of queries that moved most: protocol, query, AP in % by system."""
    return [[standing.protocol, moved.query, *(percent(ap, 1) for ap in moved.ap)] for moved in standing.moved]


def pair_rows(standing: Standing) -> list[list[str]]:
    """Rows of the table of pairs: those of the best system, all where there are up to six."""
    best = max(standing.systems, key=lambda scores: scores.mAP).letter
    pairs = standing.pairs if len(standing.pairs) <= 6 else [p for p in standing.pairs if best in (p.a, p.b)]
    rows = []
    for pair in pairs:
        part = pair.comparison
        n_equal = part.n_queries - part.n_better - part.n_worse
        low, high = (f"{100 * side:+.2f}" for side in part.interval)
        smallest = "-" if part.smallest is None else percent(part.smallest)
        counts = f"{part.n_better} / {part.n_worse} / {n_equal}"
        difference = f"{100 * part.difference:+.2f}"
        rows.append(
            [
                *(standing.protocol, f"{pair.b} - {pair.a}", difference, f"{low} to {high}"),
                *(part.p_text, p_text(pair.p_holm), smallest, counts),
            ]
        )
    return rows
