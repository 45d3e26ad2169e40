"""Maps that the attentions are tested on."""

import pytest
import torch
from torch import Tensor

C, H, W = 16, 5, 7


@pytest.fixture
def maps() -> Tensor:
    return torch.randn(2, C, H, W, generator=torch.Generator().manual_seed(0))
