"""cdconv's CUDA kernels, forward and backward, against literal loops in float64; no GPU needed."""

import ctypes

import pytest

from tests.kernels.emulator.cdconv_runs import CONV_CASES, ConvCase, check_cdconv

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_cdconv(kernels: ctypes.CDLL, case: ConvCase) -> None:
    check_cdconv(kernels, case)
