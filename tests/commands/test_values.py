"""Wrong values on the command line: one line that names the flag, the rule and what was found, for every command."""

import inspect
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from ultron_cli import cli
from ultron_cli.commands.values import FREE_TEXT, LARGEST, refuse_output_among_inputs, with_reading
from ultron_cli.errors import UltronError

TOO_LONG = "x" * 5000


def parameters(kinds: set[type]) -> Iterator[tuple[str, str, str]]:
    """(command, flag or first argument, its metavar) of every parameter whose text becomes a value of these kinds."""
    for command in cli.COMMANDS:
        function = cli.with_global_flags(cli.command_module(command).command)
        signature = inspect.signature(function)
        flags = cli.flags_of(signature.parameters.values())
        arguments = [name for name in signature.parameters if not flags[name].startswith("-")]
        for parameter in signature.parameters.values():
            if parameter.name in arguments[1:]:  # a text alone is the first
                continue
            leaf, option = typing.get_args(parameter.annotation)
            if "tuple" in str(leaf):  # takes several texts at once
                continue
            while typing.get_args(leaf):
                leaf = typing.get_args(leaf)[0]
            if leaf in kinds:
                yield command, flags[parameter.name], option.metavar


def run_with(ultron: Run, command: str, flag: str, value: str) -> str:
    """The one error line of a command with a flag, or an argument, of this value."""
    name = [flag] if flag.startswith("-") else []
    code, out, err = ultron(*command.split(), *name, value)
    assert (code, out) == (2, ""), err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    return line


def test_no_command_takes_an_empty_text(ultron: Run) -> None:
    flags = [(command, flag, form) for command, flag, form in parameters({str, int, float, Path})]
    assert len(flags) > 200
    for command, flag, form in flags:
        if form != FREE_TEXT:
            assert run_with(ultron, command, flag, "") == f"error: {flag} was given an empty text; give it a value"


def test_no_command_takes_a_path_that_no_system_takes(ultron: Run) -> None:
    for command, flag, _ in parameters({Path}):
        assert "found one that is too long, 5,000 bytes" in run_with(ultron, command, flag, TOO_LONG)
    assert "too long" in run_with(ultron, "extract", "--dataset", TOO_LONG)


def test_numbers_that_are_none(ultron: Run) -> None:
    for command, flag, _ in parameters({int}):
        assert f"{flag} takes a whole number; found '1.5'" in run_with(ultron, command, flag, "1.5")
        assert f"{flag} takes a whole number up to {LARGEST}" in run_with(ultron, command, flag, "1" + "0" * 30)
    for command, flag, _ in parameters({float}):
        assert f"{flag} takes a number; found 'many'" in run_with(ultron, command, flag, "many")
        assert f"{flag} must" in run_with(ultron, command, flag, "nan")
        assert f"{flag} must" in run_with(ultron, command, flag, "inf")


def test_labels_may_be_empty() -> None:
    import typer

    parameter = inspect.Parameter(
        "label", inspect.Parameter.KEYWORD_ONLY, annotation=typing.Annotated[str, typer.Option(metavar=FREE_TEXT)]
    )
    option = typing.get_args(with_reading(parameter, "--label").annotation)[1]
    assert option.parser("") == ""


def test_a_result_does_not_replace_what_it_is_made_from(tmp_path: Path, ultron: Run) -> None:
    source = tmp_path / "descriptors.h5"
    source.write_bytes(b"precious")
    (tmp_path / "link.h5").symlink_to(source)
    flags = {"out": "--out", "descriptors": "FILE", "queries": "--queries"}
    for values in ({"descriptors": source}, {"queries": [tmp_path / "link.h5"]}):
        with pytest.raises(UltronError, match=r"--out .*descriptors\.h5 is what (FILE|--queries) reads; name another"):
            refuse_output_among_inputs({"out": source, **values}, flags)
    refuse_output_among_inputs({"out": tmp_path / "new.h5", "descriptors": source}, flags)
    code, _, err = ultron("whiten", source, "--out", source)
    assert code == 2 and "is what FILE reads" in err
    assert source.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("search", "--weights", "w.pt"), "no photo is named; leave out --weights"),
        (("index", "--queries", "q.h5"), "without --report nothing is measured; leave out --queries"),
        (("evaluate", "--ranks", "r.h5", "-k", 3, "--dim", 2), "leave out -k and --dim"),
        (("visualize", "ranks", "--ranks", "r.h5", "--queries", "q.h5"), "leave out --queries"),
        (("search", "--rerank", "aqe", "--rerank-set", "n"), "--rerank-set takes key=value (aqe.n=5)"),
        (("search", "--rerank-set", "model.p=3"), "must be one of superglobal, aqe"),
        (("extract", ".", "--untrained", "--set", "p"), "--set takes key=value (model.p=4)"),
        (("train", "--set", "p"), "--set takes key=value (epochs=20)"),
        (("search", "--workspace", "/dev/null"), "--workspace must be a folder, /dev/null is something else"),
        (("datasets", "list", "--data-root", "/dev/null"), "--data-root must be a folder, /dev/null is something else"),
        (("evaluate", "--protocol"), "See `ultron evaluate --help`"),
        (("visualize", "cam", "--query"), "See `ultron visualize cam --help`"),
        (("visualize", "genotype", "skip:0/" * 200), "genotype has"),
        (("visualize", "tsne", "--seed", 2**32, "--database", "d.h5"), "--seed must lie between 0 and 4294967295"),
    ],
)
def test_what_would_be_ignored_or_misread(ultron: Run, arguments: tuple[object, ...], words: str) -> None:
    code, _, err = ultron(*arguments)
    assert code == 2 and words in err
