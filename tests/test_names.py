"""Names say what they hold: a pronoun or a participle alone says nothing of it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRONOUNS = {"own", "here", "there", "mine", "one", "those"}
PARTICIPLES = {"found", "opened", "given", "wanted", "asked", "kept", "chosen", "seen", "told", "said", "got"}
SAYS_NOTHING = PRONOUNS | PARTICIPLES
# Where JavaScript names something: a declaration, a parameter, a property.
JAVASCRIPT_NAME = re.compile(r"(?:\b(?:const|let|var|function)\s+|[(,{]\s*|\.)(\w+)(?=\s*[=:,(){}.;\[])")


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(identifier, its line) of variables, arguments, keywords, attributes, functions, classes and imports."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.keyword(arg=str(name)) | ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name, node.lineno
            case ast.alias(asname=str(name)):
                yield name, node.lineno


def names_that_say_nothing(tree: ast.AST) -> list[tuple[str, int]]:
    """Those of the identifiers that are a pronoun or a participle."""
    return [(name, line) for name, line in identifiers(tree) if name.strip("_") in SAYS_NOTHING]


def test_names_that_say_nothing_are_noticed() -> None:
    source = "found = f(x, kept=1)\ndef g(own): self.seen = [one for one in found_rows]\nn_found = 'asked'"
    assert {name for name, _ in names_that_say_nothing(ast.parse(source))} == {"found", "kept", "own", "seen", "one"}
    assert set(JAVASCRIPT_NAME.findall("const found = a; f((own) => state.seen, 'one of those asked for')")) >= {
        "found",
        "own",
        "seen",
    }


@pytest.mark.parametrize("folder", ["ultron_cli", "kernels", "benchmarks", "examples", "tests"])
def test_names_say_what_they_hold(folder: str) -> None:
    """Literal transcriptions keep the names of what they transcribe."""
    places = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not path.name.startswith("literal_")
        for name, line in names_that_say_nothing(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not places, "\n".join(places)


@pytest.mark.parametrize("page", ["serve/page.js", "visualization/report/page.js"])
def test_names_of_the_pages_say_what_they_hold(page: str) -> None:
    lines = (ROOT / "ultron_cli" / page).read_text(encoding="utf-8").splitlines()
    places = [
        f"{page}:{number}: {name}"
        for number, line in enumerate(lines, start=1)
        for name in JAVASCRIPT_NAME.findall(line)
        if name in SAYS_NOTHING
    ]
    assert not places, "\n".join(places)
