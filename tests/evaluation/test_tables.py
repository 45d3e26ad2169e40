"""Tables for a paper: the same scores in every format, what is marked, and that no table mixes protocols unsaid."""

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest

from tests.evaluation.test_systems import QUERIES, system
from ultron_cli.evaluation.systems import System, compare_systems
from ultron_cli.evaluation.tables import TableFormat, score_table
from ultron_cli.retrieval.origin import ExtractionRecord, Origin, SearchRecord, StepRecord, WeightsSource

ROWS = np.random.default_rng(0).random(8)
EXTRACTION = {"role": "query", "crop": "bbx", "scales": [1.0], "max_side_px": 640}
AQE = SearchRecord(steps=(StepRecord(name="aqe", settings={"n": 10}, ms_per_query=1.5),))


def of_origin(system: System, **changes: object) -> System:
    origin = Origin(
        model="m",
        weights_sha256=system.letter,
        weights=WeightsSource(path=f"{system.letter}.pt"),
        extraction=ExtractionRecord(stored=EXTRACTION),
    )
    origin = replace(origin, **changes)  # type: ignore[arg-type]
    return replace(system, evaluations=tuple(replace(part, origin=origin) for part in system.evaluations))


SYSTEMS = [
    of_origin(system("A", (0.5 * ROWS).tolist(), label="R50_GeM & co. 100%")),
    of_origin(system("B", (0.5 * ROWS + 0.4).tolist(), (0.5 * ROWS + 0.42).tolist(), label="ultron|s")),
    of_origin(system("C", (0.5 * ROWS + 0.2).tolist(), label="~dolg^{2}\\")),
]


def made(style: TableFormat, systems: list[System] = SYSTEMS) -> str:
    return score_table(systems, compare_systems(systems), style)


def test_the_best_is_bold_the_second_underlined_with_letters_and_seeds() -> None:
    rows = [line.split(" | ") for line in made("markdown").splitlines() if line.startswith("| ")]
    mean = 100 * 0.5 * ROWS.mean()
    assert rows[0] == ["| ", "system", "Hard |"]
    assert rows[2][:2] == ["| A", r"R50\_GeM & co. 100%"] and rows[2][2].startswith(f"{mean:.2f} [")
    assert rows[3][1] == r"ultron\|s"
    assert rows[3][2].startswith(f"**{mean + 41:.2f}**<sup>A,C</sup> ± 1.41 [")
    assert rows[4][2].startswith(f"<u>{mean + 20:.2f}</u><sup>A</sup> [")


def test_latex_is_sound() -> None:
    text = made("latex")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    environments = re.findall(r"\\(begin|end)\{(\w+)\}", body)
    assert environments == [("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table")]
    unescaped = re.sub(r"\\.", "", body)
    assert unescaped.count("{") == unescaped.count("}")
    assert unescaped.count("$") % 2 == 0 and not re.search(r"[%#_~^]", unescaped)
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", body)
    assert columns and columns[1] == "llr"
    table_rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(table_rows) == 4
    assert {len(re.findall(r"(?<!\\)&", row)) for row in table_rows} == {2}
    assert [part for part in (r"\toprule", r"\midrule", r"\bottomrule") if body.count(part) == 1] == [
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
    ]
    assert r"R50\_GeM \& co. 100\%" in body and r"\textasciitilde{}dolg\textasciicircum{}\{2\}\textbackslash{}" in body
    assert r"$\pm$ 1.41" in body and body.isascii()


def test_csv_holds_fractions_for_programs() -> None:
    rows = list(csv.DictReader(io.StringIO(made("csv"))))
    assert [row["system"] for row in rows] == ["A", "B", "C"]
    assert float(rows[1]["mAP"]) == pytest.approx(0.5 * ROWS.mean() + 0.41, abs=1e-6)
    assert float(rows[1]["low"]) < float(rows[1]["mAP"]) < float(rows[1]["high"])
    assert (rows[1]["seeds"], rows[1]["beats"], rows[0]["seeds_sd"]) == ("2", "A C", "")
    assert rows[0]["label"] == "R50_GeM & co. 100%" and "queries cropped" in rows[0]["how"]


def test_systems_made_alike_share_one_footnote() -> None:
    text = made("markdown")
    footnote = text.splitlines()[-1]
    assert footnote == r"toy, 8 queries, 10 photos: queries cropped, 1 scale, longest side 640 px."
    assert "paired randomisation" in text and "3 pairs" in text


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"search": AQE}, "longest side 640 px; re-ranked by aqe; aqe.n 10."),
        ({"extraction": ExtractionRecord(stored={**EXTRACTION, "crop": "none"})}, "queries NOT cropped"),
        ({"extraction": ExtractionRecord(stored={**EXTRACTION, "precision": "float16"})}, "network float16"),
        ({"k": 5, "duplicates": "first"}, "only the 5 best photos"),
        ({"ground_truth": "other.json"}, "ground truth other.json"),
    ],
)
def test_what_differs_is_a_footnote_at_the_systems_it_belongs_to(changes: dict[str, object], phrase: str) -> None:
    systems = [SYSTEMS[0], of_origin(SYSTEMS[1], **changes), SYSTEMS[2]]
    text = made("markdown", systems)
    assert "Not made alike:" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert ["<sup>1</sup> |" in row for row in rows[2:]] == [True, False, True]
    assert "<sup>2</sup> |" in rows[3]
    other, footnote = [line for line in text.splitlines() if line.startswith(("<sup>1</sup> ", "<sup>2</sup> "))]
    assert phrase in footnote and "aqe" not in other


def test_warnings_stand_below_the_table() -> None:
    warned = replace(
        SYSTEMS[0], evaluations=tuple(replace(part, warnings=("too few",)) for part in SYSTEMS[0].evaluations)
    )
    assert made("markdown", [warned]).endswith("640 px; too few.")


def test_a_table_of_one_marks_nothing() -> None:
    text = made("markdown", SYSTEMS[:1])
    assert "**" not in text and "<u>" not in text and text.startswith("| system | Hard |")
    assert len(QUERIES) == 8 and "beats" not in text
