"""Notebooks: the example runs from its first cell to its last in a kernel, and progress is shown there."""

import base64
import re
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from ultron_cli.console import is_notebook, progress, settings

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "notebook.ipynb"


@pytest.mark.slow
def test_the_example_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    import nbformat

    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "work").mkdir()
    notebook = nbformat.read(tmp_path / EXAMPLE.name, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path / "work")}})
    client.execute()
    outputs = {
        "".join(cell.source).splitlines()[-1]: output.data
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    }
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", outputs["ranking"]["text/html"])
    assert len(pictures) == 3 * 9 and base64.b64decode(pictures[0]).startswith(b"\xff\xd8")
    assert "<td" in outputs["before"]["text/html"] and "mixed" in outputs["comparison"]["text/html"]
    difference, interval, p_value = eval(outputs["medium.difference, medium.interval, medium.p_value"]["text/plain"])
    assert difference > 0.03 and interval[0] <= difference <= interval[1] and 0 < p_value <= 1
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"photos", "pooling.py", "runs"}


def test_the_example_is_stored_without_outputs() -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    cells = [cell for cell in nbformat.read(EXAMPLE, as_version=4).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)


def in_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process were the kernel of a notebook."""
    shell: Any = types.SimpleNamespace(kernel=object(), config={})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]


def test_progress_is_shown_in_a_notebook_and_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not is_notebook()
    with progress(total=2, what="work") as bar:
        bar.update(2)
    assert capsys.readouterr() == ("", "")
    in_kernel(monkeypatch)
    assert is_notebook()
    with progress(total=2, what="work") as bar:
        bar.update(2)
    assert "work: 100%" in capsys.readouterr().err
    monkeypatch.setattr(settings, "verbosity", -1)
    with progress(total=2, what="work") as bar:
        bar.update(2)
    assert capsys.readouterr() == ("", "")
