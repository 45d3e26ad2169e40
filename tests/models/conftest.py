"""What the tests of models share."""

import pytest
import torch


@pytest.fixture
def images() -> torch.Tensor:
    """(2, 3, 96, 160), normalised."""
    return torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
