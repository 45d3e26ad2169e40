"""The help of every command, what it loads, and how a shell completes commands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run
from ultron_cli.cli import COMMANDS, command_module

GROUPS = tuple(dict.fromkeys(name.split()[0] for name in COMMANDS if " " in name))
# Runs the help of every command named as an argument; prints heavy modules that it loaded. Its seconds are those of
# benchmarks/commands.py.
HELP_OF_ALL = """
import sys
from ultron_cli.cli import main
for name in sys.argv[1:]:
    assert main([*name.split(), "--help"]) == 0
heavy = {"torch", "timm", "faiss", "h5py", "numpy", "PIL", "matplotlib", "scipy", "msgspec", "multiprocessing"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


def test_every_help_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP_OF_ALL, "", *GROUPS, *COMMANDS], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_text_and_an_example(ultron: Run, name: str) -> None:
    code, out, _ = ultron(*name.split(), "--help")
    assert code == 0
    assert "Usage:" in out
    assert f"ultron {name}" in out.split("Example:")[1]
    assert "--json" in out


@pytest.mark.parametrize("name", ["", *GROUPS])
def test_the_help_of_a_group_lists_its_commands(ultron: Run, name: str) -> None:
    code, out, _ = ultron(*name.split(), "--help")
    assert code == 0
    assert "Usage:" in out
    for command in COMMANDS:
        group, _, last = command.rpartition(" ")
        if group == name:
            assert f"\n│ {last} " in out


def test_every_file_of_commands_is_in_the_table() -> None:
    folder = Path(command_module("demo").__file__).parent  # type: ignore[attr-defined]  # modules have it
    files = {path for path in folder.rglob("*.py") if "\nEXAMPLE = " in path.read_text(encoding="utf-8")}
    assert files == {Path(command_module(name).__file__) for name in COMMANDS}  # type: ignore[attr-defined]  # as above


def test_version_and_no_arguments(ultron: Run) -> None:
    assert ultron("--version")[1].startswith("ultron 0.")
    assert ultron("-V") == ultron("--version")
    for name in ("", *GROUPS):
        alone, with_long_flag, with_short_flag = (ultron(*name.split(), *flags) for flags in ((), ("--help",), ("-h",)))
        assert alone[1].rstrip() == with_long_flag[1].rstrip() == with_short_flag[1].rstrip()
        assert alone[0] == 0
    code, out, err = ultron()
    assert (code, err) == (0, "")
    assert "Experiments" in out and "Data and weights" in out


@pytest.mark.parametrize("columns", [80, 60])
def test_help_fits_the_terminal_and_speaks_no_python(
    ultron: Run, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in ("", *GROUPS, *COMMANDS):
        code, out, _ = ultron(*name.split(), "--help")
        assert code == 0
        assert max(map(len, out.splitlines())) <= columns
        assert not re.search(r"<[a-z]+|list\[|\{[A-Z]|\[\[|int range|\.\.\.\]|…", out), name
        if columns == 80 and name in ("", *GROUPS):  # a summary is one line, whole
            summaries = re.findall(r"^│ ([a-z][\w-]+) +(\S.*?) +│$", out, re.MULTILINE)
            assert summaries and all(summary.endswith(".") for _, summary in summaries), name


def test_help_shows_arguments_as_people_write_them(ultron: Run) -> None:
    def usage(name: str) -> str:
        return (
            next(line for line in ultron(*name.split(), "-h")[1].splitlines() if "Usage:" in line)
            .split("Usage: ")[1]
            .strip()
        )

    assert usage("search") == "ultron search [OPTIONS] [QUERY.jpg]..."
    assert usage("compare") == "ultron compare [OPTIONS] A.json [B.json]..."
    assert usage("extract") == "ultron extract [OPTIONS] [DIR]"
    assert usage("datasets download") == "ultron datasets download [OPTIONS] NAME..."


def test_a_shell_can_complete_commands_and_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    def completed(words: str) -> list[str]:
        environment = os.environ | {
            "_ULTRON_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        code = "import sys; sys.argv[0] = 'ultron'; from ultron_cli.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        return done.stdout.split()

    assert completed("ultron eva") == ["evaluate"]
    assert completed("ultron evaluate --protocol m") == ["medium"]
    assert "recall-speed" in completed("ultron visualize re")
