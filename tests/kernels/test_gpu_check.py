"""`make gpu-check` on a lent machine: PyTorch's environment is there, optional packages are not, and nothing can be
installed."""

import sys
from pathlib import Path

import pytest

from tests.prepared_python import run_python

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MISSING = """
import sys

import pytest

OPTIONAL = "faiss natten pytorch_grad_cam pymilvus milvus_lite selenium pytorch_metric_learning".split()

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OPTIONAL:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

assert not set(OPTIONAL) & set(sys.modules)
sys.meta_path.insert(0, Missing())
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_the_tests_it_runs_are_found_without_optional_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu_check

    (command,) = gpu_check.steps("none", ["tests"]).values()
    python, *start = command[:3]
    assert (python, start) == (sys.executable, ["-m", "pytest"])
    done = run_python(["-c", MISSING, *command[3:], "--collect-only"], ROOT)
    assert done.returncode == 0, done.stdout[-2000:]
    for file in ("test_devices.py", "test_training_on_a_gpu.py", "test_commands_on_a_gpu.py", "test_exact.py"):
        assert file in done.stdout
