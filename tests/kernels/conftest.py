"""Devices that the compiled operators are tested on."""

import pytest
import torch

DEVICES = ["cpu", *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """cpu, and cuda on a machine that has it (`make gpu-check`)."""
    return request.param
