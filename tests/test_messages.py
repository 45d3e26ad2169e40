"""Messages of the library name settings, as Python calls them; a command shows its flags instead."""

import ast
import dataclasses
import inspect
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ultron_cli import cli, console
from ultron_cli.errors import UltronError, WorkFailed, with_flags
from ultron_cli.training.config import TrainConfig

PACKAGE = Path(cli.__file__).parent
COMMAND_LINE = re.compile(r"\bultron [a-z].*")  # a whole command to type, flags and all
FLAG = re.compile(r"(?<![\w}-])(--[a-z]|-[a-z]\b)")
UNIT = re.compile(r"_(px|mib|s)$")
SETTING = re.compile(r"`([a-z_]\w*)`")
RULE_OR_WAY = re.compile(r"; |\b(must|takes?|needs?|unknown|choose)\b|near|stages_clause|\.message|problem")
OTHER_PROGRAMS = {
    "distributed.py": "torchrun",
    "guarded.py": "python",
    "training/environment.py": "git",
    "training/run/checkpoints.py": "torchrun",
}
OF_LIBRARIES = {"key"}  # in backquotes in msgspec's messages
COMMAND_PARTS = {"retrieval/milvus/index.py": " --engine milvus"}  # a command is put together from parts


def texts() -> Iterator[tuple[str, str]]:
    """(file, text) of every string below the commands but docstrings; what an f-string fills in is {}."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith("commands/") or name == "cli.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        passed = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                passed.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                passed |= set(node.values)
                yield name, "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in passed:
                yield name, node.value


def settings_of_commands() -> set[str]:
    names: set[str] = set()
    for command in cli.COMMANDS:
        function = cli.with_global_flags(cli.command_module(command).command)
        names |= cli.flags_of(inspect.signature(function).parameters.values()).keys()
    return names


def test_no_text_below_the_commands_names_a_flag() -> None:
    flags = [
        (file, text)
        for file, text in texts()
        if FLAG.search(COMMAND_LINE.sub("", text)) and file not in OTHER_PROGRAMS
        if not text.startswith(COMMAND_PARTS.get(file, "--"))
    ]
    assert not flags


def test_settings_that_texts_name_are_those_of_a_command() -> None:
    known = OF_LIBRARIES | settings_of_commands() | {field.name for field in dataclasses.fields(TrainConfig)}
    named = {(file, name) for file, text in texts() for name in SETTING.findall(text)}
    assert len(named) > 50
    assert not {(file, name) for file, name in named if name not in known and UNIT.sub("", name) not in known}


@pytest.mark.parametrize(("folder", "prefix"), [("models", "model."), ("training/losses", "loss.")])
def test_settings_of_a_part_are_named_as_they_are_set(folder: str, prefix: str) -> None:
    """`dim` of a model is not --dim of the command that makes it."""
    names = [
        "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in getattr(name, "values", [name]))
        for path in (PACKAGE / folder).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("within", "one_of")
        for name in call.args[:1]
    ]
    assert names and not [name for name in names if not name.startswith((prefix, "{}"))]


def test_every_error_says_a_rule_or_a_way() -> None:
    """Beside what is wrong it says what must hold, or what to do."""
    calls = [
        (path.relative_to(PACKAGE).as_posix(), call)
        for path in sorted(PACKAGE.rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("UltronError", "WorkFailed") and call.args
    ]
    literal = (ast.Constant, ast.JoinedStr)
    messages = [
        (file, ast.unparse(call))
        for file, call in calls
        if isinstance(call.args[0], literal) and len(call.args) == 1  # further arguments are ways
    ]
    assert len(messages) > 350
    assert not [(file, text) for file, text in messages if not RULE_OR_WAY.search(text)]


@pytest.mark.parametrize(
    ("text", "flags", "shown"),
    [
        ("name it with `gnd`", {"gnd": "--gnd"}, "name it with --gnd"),
        ("use `device` cpu", {"device": "--device"}, "use --device cpu"),
        ("`side_px` must lie between 1 and 2", {"side": "--side"}, "--side must lie between 1 and 2"),
        ("use `batch_size=8`", {"set": "--set"}, "use --set batch_size=8"),
        ("use `batch_size=8`", {"batch_size": "--batch-size", "set": "--set"}, "use --batch-size 8"),
        ("`loss.margin` must be a number", {"set": "--set"}, "`loss.margin` must be a number"),
        ("run `ultron extract --overwrite`", {"overwrite": "--overwrite"}, "run `ultron extract --overwrite`"),
    ],
)
def test_a_command_shows_its_flags(text: str, flags: dict[str, str], shown: str) -> None:
    assert with_flags(text, flags) == shown


@pytest.mark.parametrize("kind", [UltronError, WorkFailed])
def test_a_way_is_shown_to_those_who_have_it(kind: type[UltronError]) -> None:
    error = kind("a.jpg cannot be decoded; replace it", "go on without it with `skip_bad`", "name another `out`")
    assert error.for_command({"out": "--out"}) == "a.jpg cannot be decoded; replace it, or name another --out"
    assert error.for_command({}) == "a.jpg cannot be decoded; replace it"
    assert str(error).endswith("replace it, or go on without it with `skip_bad`, or name another `out`")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # workers send theirs


def test_log_lines_show_flags_too(capsys: pytest.CaptureFixture[str]) -> None:
    console.reset_settings()
    console.start_log(0)
    console.settings.flags["most"] = "--most"
    console.log.warning("%d photos are shown (`most`)", 4)
    assert capsys.readouterr().err == "warning: 4 photos are shown (--most)\n"
    console.reset_settings()
