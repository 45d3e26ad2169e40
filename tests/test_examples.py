"""Every example still starts: its help answers, with all that it imports."""

import subprocess
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
def test_help_answers(name: str) -> None:
    completed = subprocess.run([sys.executable, EXAMPLES / f"{name}.py", "--help"], capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.startswith("usage:")


@pytest.mark.parametrize("name", WITHOUT_HELP)
def test_the_others_are_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    __import__(name)
