"""`make gpu-check` on a lent machine: PyTorch's environment is there, optional packages are not, and nothing can be
installed."""

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MISSING = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        optional = "faiss natten pytorch_grad_cam pymilvus milvus_lite selenium pytorch_metric_learning"
        if name.split(".")[0] in optional.split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


def test_the_tests_it_runs_are_found_without_optional_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu_check

    (tmp_path / "sitecustomize.py").write_text(MISSING)
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    (command,) = gpu_check.steps("none", ["tests"]).values()
    done = subprocess.run(
        [*command, "--collect-only"], cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:]
    for file in ("test_devices.py", "test_training_on_a_gpu.py", "test_commands_on_a_gpu.py", "test_exact.py"):
        assert file in done.stdout
