"""Every example still starts: its help answers, with all that it imports."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
WITHOUT_HELP = {
    "make_pictures": "draws the pictures of the finished demo",
    "toy_sheet": "a function; tests/datasets/toy calls it",
}
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", sorted({path.stem for path in EXAMPLES.glob("*.py")} - set(WITHOUT_HELP)))
def test_help_answers(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(EXAMPLES / f"{name}.py")
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", [path, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(path, run_name="__main__")
    assert ended.value.code in (0, None)
    assert capsys.readouterr().out.startswith("usage:")


@pytest.mark.parametrize("name", WITHOUT_HELP)
def test_the_others_are_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    __import__(name)
