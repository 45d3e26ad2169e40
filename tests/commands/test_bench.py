"""`ultron bench` as a person uses it, through main()."""

import json
import re
from pathlib import Path

import pytest

from tests.commands.test_bad_input import expect_error
from tests.conftest import Run, read_json
from ultron_cli.measurements import Measurement

ROWS = [
    "decoding",
    "network",
    "scala_attention, compiled",
    "scala_attention, reference",
    "cdconv, compiled",
    "cdconv, reference",
    "exact search",
]
QUICK = ("bench", "--quick", "--device", "cpu")


def test_quick_measures_everything(ultron: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ULTRON_KERNELS", raising=False)
    code, out, err = ultron(*QUICK, "--rounds", 3, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert list(report["results"]) == ROWS
    for name, row in report["results"].items():
        if row["problem"]:  # no compiler here: said, and nothing made up
            assert name.endswith(", compiled") and (row["value"], row["rounds"]) == (None, 0)
            continue
        assert 0 < row["lowest"] <= row["value"] <= row["highest"], name
        assert row["rounds"] == 3
    assert {name: row["unit"] for name, row in report["results"].items() if row["unit"] != "ms"} == {
        "decoding": "photos/s",
        "network": "photos/s",
        "exact search": "queries/s",
    }
    assert report["results"]["decoding"]["of"].startswith("2 rendered JPEGs of 128 px, read at 64 px")
    assert "ultron-t, 2 x 64 px" in report["results"]["network"]["of"]
    assert report["results"]["exact search"]["of"].startswith("2,000 x 512 float32 (3.9 MiB), 70 queries, k 100")
    assert report["results"]["exact search"]["note"].startswith("process peak ")
    assert (
        report["machine"]["cpu"] and report["machine"]["device"] == "cpu" and "torch" in report["machine"]["packages"]
    )
    assert "measuring" in err


def test_the_table_has_the_rows_of_the_json_and_the_machine(ultron: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the operators switched off it says so instead of a time; an option given beside --quick counts; the backbone
    alone means gem."""
    monkeypatch.setenv("ULTRON_KERNELS", "off")
    code, out, err = ultron(*QUICK, "--backbone", "test_resnet", "--side", 96, "--batch-size", 1, "--n", 1)
    assert code == 0, err
    cells = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    rows = {row[0]: row[1:] for row in cells if row[0] in ROWS}
    assert list(rows) == ROWS
    assert rows["network"][0].startswith("gem-test_resnet, 1 x 96 px")
    assert rows["exact search"][0].startswith("1 x 512 float32") and "k 1," in rows["exact search"][0]
    assert rows["cdconv, compiled"][1] == "none"
    assert float(rows["cdconv, reference"][1].replace(",", "")) > 0
    assert "scala_attention, compiled: not used: ULTRON_KERNELS=off" in out
    assert "core" in out.splitlines()[-1] and "torch 2." in out.splitlines()[-1]


def test_short_calls_are_repeated_and_sides_take_turns() -> None:
    import torch

    from ultron_cli.bench import BenchConfig, seconds_per_call

    calls: list[str] = []
    sides = {"quick": lambda: calls.append("quick"), "long": lambda: (calls.append("long"), sum(range(3_000_000)))}
    seconds = seconds_per_call(sides, BenchConfig(rounds=2, n=1, shortest_s=0.02), torch.device("cpu"))
    assert [len(seconds[name]) for name in sides] == [2, 2]
    assert 0 < min(seconds["quick"]) < min(seconds["long"])
    assert calls.count("long") == 3  # once to see how long it takes, then once in each round
    assert calls.count("quick") > 5
    in_turns = [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]
    assert in_turns == ["quick", "long"] * 3


def measured(*rounds: float, unit: str = "ms", of: str = "(1, 2)") -> dict[str, object]:
    return Measurement.of_rounds(rounds, unit=unit, of=of).to_json()


def test_two_results_are_shown_side_by_side(ultron: Run, tmp_path: Path) -> None:
    before = {
        "cdconv": measured(4.0, 3.9, 4.1),
        "network": measured(10.0, unit="photos/s"),
        "search": measured(7.0, 9.0, of="1,000 rows"),
        "old": measured(1.0),
        "decoding": measured(5.0),
    }
    after = {
        "cdconv": measured(2.0, 2.1, 1.9),
        "network": measured(8.0, unit="photos/s"),
        "search": measured(8.5, of="2,000 rows"),
        "new": measured(),
        "decoding": measured(5.0, unit="photos/s"),
    }
    files = tmp_path / "a.json", tmp_path / "b.json"
    for file, results, cores in zip(files, (before, after), (2, 4), strict=True):
        file.write_text(json.dumps({"results": results, "machine": {"cpu": "X", "cores": cores}}), encoding="utf-8")
    report = read_json(ultron("bench", "--compare", *files, "--json"))
    verdicts = {
        name: (row["gain"] and round(row["gain"], 3), row["verdict"]) for name, row in report["results"].items()
    }
    assert verdicts == {
        "cdconv": (2.0, "faster"),
        "network": (0.8, "slower"),
        "search": (0.941, "no difference"),
        "old": (None, "not comparable"),
        "decoding": (None, "not comparable"),
        "new": (None, "not comparable"),
    }
    assert report["differences"] == ["cores: A 2; B 4", "search: A 1,000 rows; B 2,000 rows"]
    code, out, _ = ultron("bench", "--compare", *files)
    assert code == 0 and re.search(r"cdconv +4.00 \(3.90 to 4.10\) +2.00 \(1.90 to 2.10\) +ms +2.00x +faster", out)
    assert "cores: A 2; B 4" in out
    files[1].write_text('{"results": {"cdconv": {"unit": 3}}}', encoding="utf-8")
    expect_error(
        ultron("bench", "--compare", *files), "file of measurements", "b.json", "cdconv", "ultron bench --json"
    )
    expect_error(ultron("bench", "--compare", *files, "--quick"), "--compare shows what was measured")
    expect_error(ultron("bench", "--compare", files[0], tmp_path / "c.json"), "c.json")


def test_wrong_options_get_one_line(ultron: Run) -> None:
    from ultron_cli.memory import available_bytes

    expect_error(ultron(*QUICK, "--model", "ultron-x"), "unknown model 'ultron-x'", "did you mean")
    expect_error(ultron(*QUICK, "--backbone", "resnet5o"), "resnet5o")
    expect_error(ultron(*QUICK, "--side", 31), "--side must lie between 32 and 4096; found 31")
    expect_error(
        ultron(*QUICK, "--backbone", "inception_v3", "--side", 64),
        "gem-inception_v3 takes photos from 75 px a side; found --side 64",
    )
    expect_error(ultron(*QUICK, "--n", 0), "--n must be at least 1", "found 0")
    if available_bytes() is not None:
        expect_error(ultron(*QUICK, "--n", 2**32 - 1), "--n 4,294,967,295 needs 8,388,608 MiB", "ask for fewer")
    expect_error(ultron(*QUICK, "--rounds", 0), "--rounds must be at least 1; found 0")
    expect_error(ultron(*QUICK, "--batch-size", 65), "--batch-size must lie between 1 and 64; found 65")
    expect_error(ultron("bench", "--quick", "--device", "gpu"), "--device takes auto, cpu, cuda or cuda:N")
