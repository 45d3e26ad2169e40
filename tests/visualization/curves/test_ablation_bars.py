"""Bars of an ablation: the table, its errors and the command."""

import json
from pathlib import Path

import pytest

from tests.conftest import Run
from ultron_cli.errors import UltronError
from ultron_cli.visualization.curves.ablation_bars import bars_of, read_measurements


def test_ablation_table(tmp_path: Path, ultron: Run) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        "setting,seed,metric,value,group\nbase,0,hard mAP,0.5,\nbase,1,hard mAP,0.7,\nother,0,hard mAP,0.25,\n"
    )
    base, other = bars_of(read_measurements(table))
    assert (base.mean, other.mean, other.spread) == (pytest.approx(0.6), 0.25, None)
    assert base.spread == pytest.approx(0.02**0.5)
    code, out, error = ultron(
        "visualize", "ablation", table, "--title", "model on data", "--out", tmp_path / "a.svg", "--json"
    )
    assert code == 0, error
    assert json.loads(out)["bars"][1] == {
        "group": "",
        "setting": "other",
        "metric": "hard mAP",
        "mean": 0.25,
        "spread": None,
        "seeds": 1,
    }
    code, _, error = ultron("visualize", "ablation", table, "--metric", "hard map")
    assert code == 2 and "--metric must be one of hard mAP; found 'hard map'" in error
    head = "group,setting,seed,metric,value\n"
    for text, message in (
        (
            head + "g,a,0,mAP,62.3\n",
            r"t\.csv, line 2: value must be a fraction from 0 to 1 \(0\.623, not 62\.3\); found '62\.3'",
        ),
        (head + "g,a,0,mAP,nan\n", "line 2: value must be a fraction"),
        (head + "g,,0,mAP,0.1\n", "line 2: setting and metric must not be empty"),
        (head + "g,a,0,mAP,0.1\ng,a,0,mAP,0.2\n", "line 3: 'a', seed 0, mAP stands there twice; leave one"),
        (head, "holds no measurement"),
        ("setting,value\na,1\n", "group, seed, metric is missing"),
    ):
        table.write_text(text)
        with pytest.raises(UltronError, match=message):
            read_measurements(table)
    table.write_text(head + "g,a,0,mAP,0.1\ng,b,0,mP,0.2\n")
    code, _, error = ultron("visualize", "ablation", table)
    assert code == 2 and "setting 'a' has no mP; measure every setting by every metric" in error
