"""Which model the flags name."""

import pytest
import torch

from ultron_cli.errors import UltronError
from ultron_cli.models.weights.model_choice import ModelChoice, untrained_model

SMALL_BACKBONE = "test_resnet"


def test_untrained_weights_depend_on_the_seed_alone() -> None:
    hashes = []
    for seed in (1, 1, 2):
        torch.rand(3)
        hashes.append(untrained_model("gem", {"backbone": SMALL_BACKBONE}, seed).weights_sha256)
    assert hashes[0] == hashes[1] != hashes[2]


def test_flags_that_exclude_each_other() -> None:
    with pytest.raises(UltronError, match="`pretrained` and `untrained` exclude each other"):
        ModelChoice(pretrained=True, untrained=True).load()
    with pytest.raises(UltronError, match="name a network, not its weights"):
        ModelChoice(model="gem", settings={"backbone": SMALL_BACKBONE}).load()
