"""Rows that were run again as tables: for the screen and, with all that they need, as Markdown."""

from collections.abc import Sequence

from ultron_cli.console import counted, lines, markdown_table, table
from ultron_cli.evaluation.reproduce import Attempt, Need

MOST_NAMES = 3  # of rows that lack the same
COLUMNS = ("row", "protocol", "ours", "published", "by others", "difference")


def score_rows(attempts: Sequence[Attempt]) -> list[tuple[str, ...]]:
    """A row of COLUMNS per protocol: mAP in percent, ours minus the published one."""
    rows = []
    for attempt in attempts:
        for protocol in attempt.protocols():
            ours, published = attempt.ours(protocol), attempt.row.mAP.get(protocol)
            others = [part.mAP[protocol] for part in attempt.row.reproduced if protocol in part.mAP]
            rows.append(
                (
                    attempt.row.name,
                    protocol,
                    *(_number(value) for value in (ours, published)),
                    ", ".join(f"{value:.2f}" for value in others) or "-",
                    "-" if ours is None or published is None else f"{ours - published:+.2f}",
                )
            )
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def missing_lines(attempts: Sequence[Attempt]) -> list[str]:
    """What is missing: for each way to get something a line with the rows and the way, and one for each thing."""
    needs_of: dict[str, dict[Need, None]] = {}
    rows_of: dict[str, dict[str, None]] = {}
    for attempt in attempts:
        for need in attempt.missing:
            get = need.get or "ask its authors"
            needs_of.setdefault(get, {})[need] = None
            rows_of.setdefault(get, {})[attempt.row.name] = None
    return [
        line
        for get, needs in needs_of.items()
        for line in (f"missing for {_first(list(rows_of[get]))}; get it: {get}", *map(_need_line, needs))
    ]


def _first(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _need_line(need: Need) -> str:
    size = f"{need.n_bytes:,} bytes" if need.n_bytes else "size not published"
    return f"  {need.what}: {need.address} ({size})" if need.address else f"  {need.what}"


def shown(attempts: Sequence[Attempt]) -> str:
    """Scores, what differs, and what is missing, for people."""
    return lines(
        table(COLUMNS, score_rows(attempts), left=2),
        *(
            f"{attempt.row.name}, of {attempt.made_of}: {'; '.join(attempt.differs) or 'nothing differs'}"
            for attempt in attempts
            if attempt.evaluation
        ),
        *(f"{attempt.row.name} could not run: {attempt.fault}" for attempt in attempts if attempt.fault),
        *missing_lines(attempts),
    )


def markdown(attempts: Sequence[Attempt]) -> str:
    """The same as a Markdown document."""
    n_run = sum(attempt.evaluation is not None for attempt in attempts)
    sources = [
        (
            attempt.row.name,
            "; ".join([attempt.row.source, *(f"by others: {part.source}" for part in attempt.row.reproduced)]),
            "; ".join(attempt.differs) or ("nothing differs" if attempt.evaluation else "not run"),
        )
        for attempt in attempts
    ]
    parts = [
        f"mAP in %, {n_run} of {counted(len(attempts), 'row')} run.",
        markdown_table(COLUMNS, score_rows(attempts)),
        markdown_table(("row", "source", "what differs"), sources),
        "\n".join(f"  - {line.strip()}" if line.startswith(" ") else f"- {line}" for line in missing_lines(attempts)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
