"""The CUDA sources compile for sm_80 and sm_90, and their kernels keep to registers. Needs nvcc, not a GPU."""

import re
import shutil

import pytest

from tests.kernels.compiled import CSRC, compiled

pytestmark = pytest.mark.slow

SOURCES = sorted(path.name for path in CSRC.glob("cuda/*.cu"))
SPILL_BYTES = 160  # written and read: a few registers cost less than running fewer warps
MAIN_SPILL_BYTES = {"sm_80": 64, "sm_90": 32}
NVCC = shutil.which("nvcc")


def test_there_are_cuda_sources_without_torch_headers() -> None:
    assert SOURCES == ["cdconv.cu", "scala_backward.cu", "scala_forward.cu"]
    for path in [*CSRC.glob("cuda/*.cu"), *CSRC.glob("cuda/*.cuh")]:
        assert not re.search(r"#include\s*<(torch|ATen|c10)/", path.read_text()), (
            f"{path.name} includes a torch header: nvcc would take minutes"
        )


@pytest.mark.skipif(NVCC is None, reason="nvcc is not on the path")
@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_compiles_and_hardly_spills(source: str) -> None:
    assert NVCC is not None
    command = [
        NVCC,
        "-std=c++17",
        "-O3",
        *(f"-gencode=arch={name.replace('sm', 'compute')},code={name}" for name in MAIN_SPILL_BYTES),
        "-Xptxas",
        "-v",
        "-Werror",
        "all-warnings",
        f"-I{CSRC}",
    ]
    _, messages = compiled("kernel.o", [*command, "-c", CSRC / "cuda" / source])
    # ptxas names the kernel and the architecture, then what it spills.
    reports = re.findall(
        r"Compiling entry function '(\w+)' for '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads",
        messages,
        re.DOTALL,
    )
    assert {architecture for _, architecture, _, _ in reports} == set(MAIN_SPILL_BYTES)
    for architecture in MAIN_SPILL_BYTES:
        require_few_spills(
            source,
            architecture,
            {name: int(stores) + int(loads) for name, of, stores, loads in reports if of == architecture},
        )


def require_few_spills(source: str, architecture: str, spills: dict[str, int]) -> None:
    """spills: bytes by kernel."""
    assert {name: n_bytes for name, n_bytes in spills.items() if n_bytes > SPILL_BYTES} == {}
    # Those that the model runs, forward and backward without dropout at head dim 32 in half precision: no more than
    # outside the inner loop.
    main = [name for name in spills if re.search(r"scala_(forward|backward)_half.*Li32E(Lb[01]E)?Lb0EEE", name)]
    assert len(main) == {"cdconv.cu": 0, "scala_forward.cu": 2, "scala_backward.cu": 4}[source]
    assert {name: spills[name] for name in main if spills[name] > MAIN_SPILL_BYTES[architecture]} == {}
