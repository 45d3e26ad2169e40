"""`ultron train` on the command line: the settings and their origin, the table of runs, a run resumed."""

import json
from pathlib import Path

from tests.conftest import Run

QUICK = (
    "--set",
    "epochs=1",
    "--set",
    "batch_size=8",
    "--set",
    "side_px=32",
    "--set",
    "workers=0",
    "--set",
    "log_every=1",
)


def test_show_config_says_where_values_come_from(ultron: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("epochs = 3\n")
    code, out, _ = ultron(
        "train",
        "--show-config",
        "--preset",
        "ultron-s",
        "--config",
        tmp_path / "mine.toml",
        "--set",
        "switch.epoch=2",
        "--set",
        "warmup_epochs=1",
        "--json",
    )
    shown = json.loads(out)
    assert code == 0
    assert (shown["config"]["epochs"], shown["config"]["switch"]["epoch"], shown["config"]["loss"]["rho"]) == (
        3,
        2,
        0.04,
    )
    assert (shown["origin"]["epochs"], shown["origin"]["loss.rho"], shown["origin"]["ema"]) == (
        str(tmp_path / "mine.toml"),
        "preset ultron-s",
        "default",
    )
    code, out, _ = ultron("train", "--show-config")
    assert "side_px" in out
    assert "preset quickstart" in out


def test_runs_are_listed_and_resumed_by_command(ultron: Run, toy: Path, tmp_path: Path) -> None:
    assert "no runs yet" in ultron("train", "--list")[1]
    code, _, err = ultron("train", "--resume")
    assert code == 2
    assert "no unfinished run" in err
    code, out, err = ultron("train", "--dataset", toy, *QUICK, "--set", "checkpoint_minutes=0", "--json")
    assert code == 0, err
    run = Path(json.loads(out)["run"])
    assert "finished" in ultron("train", "--list")[1]
    (run / "checkpoint.pt").unlink()  # as if stopped before the end
    (entry,) = json.loads(ultron("train", "--list", "--json")[1])["runs"]
    assert (entry["state"], entry["epochs"], entry["model"]) == ("stopped, saved at step 4", 1, "ultron-t")
    code, _, err = ultron("train", "--dataset", toy, *QUICK, "--out", run)
    assert (code, "holds an unfinished run; go on with --resume" in err) == (2, True)
    code, _, err = ultron("train", "--resume", "--set", "lr=3")
    assert (code, "another configuration: lr (stored 0.01, asked 3.0)" in err) == (2, True)
    code, out, err = ultron("train", "--resume")
    assert code == 0, err
    assert "going on after step 4 of 4" in err
    assert (run / "checkpoint.pt").exists()
    code, _, err = ultron("train", "--resume", "--out", run)
    assert (code, "is finished after epoch 1, there is nothing to resume" in err) == (2, True)
