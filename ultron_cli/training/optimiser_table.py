"""Optimisers by name.

Importing this module loads no torch: it comes when an optimiser is made.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ultron_cli import user_code
from ultron_cli.configs import one_of
from ultron_cli.errors import UltronError

if TYPE_CHECKING:
    import torch

Groups = list[dict[str, object]]  # of parameters, as optimisers of torch take them, each with its weight_decay


class OptimizerPhase(Protocol):
    """The settings of an optimiser, as TrainConfig and its `switch` have them."""

    @property
    def optimizer(self) -> str: ...
    @property
    def optimizer_settings(self) -> Mapping[str, object] | None: ...
    @property
    def lr(self) -> float: ...
    @property
    def momentum(self) -> float: ...


@dataclass(frozen=True)
class OptimizerEntry:
    """What a name of OPTIMIZERS stands for."""

    function: str  # of optimisers.py: of (groups, phase, whether momentum is Nesterov's) to an optimiser
    n_moments: int  # numbers that it keeps for each weight, at most
    # Whether the network's matrices between channels come as a group of their own, the first, with are_matrices=True.
    matrices_apart: bool = False

    def make(self, groups: Groups, phase: OptimizerPhase, nesterov: bool) -> torch.optim.Optimizer:
        """A fresh optimiser."""
        module = importlib.import_module("ultron_cli.training.optimisers")
        make: Callable[..., torch.optim.Optimizer] = getattr(module, self.function)
        return make(groups, phase, nesterov)


def check_optimizer(phase: OptimizerPhase, prefix: str = "") -> None:
    """Raises UltronError for an unknown optimiser, for settings of one that has none, and for a user's that cannot be
    made. prefix: of the settings' names."""
    if user_code.is_import_path(phase.optimizer):
        torch = importlib.import_module("torch")
        make_user_optimizer([{"params": [torch.nn.Parameter(torch.zeros(2))], "weight_decay": 0.0}], phase, prefix)
        return
    one_of(f"{prefix}optimizer", phase.optimizer, OPTIMIZERS)
    if phase.optimizer_settings:
        raise UltronError(
            f"{prefix}optimizer_settings are of an optimizer by import path, found optimizer {phase.optimizer}; name "
            "it so (torch.optim:AdamW), or leave them out"
        )


def make_user_optimizer(groups: Groups, phase: OptimizerPhase, prefix: str = "") -> torch.optim.Optimizer:
    """The optimiser of an import path (`my.py:Lion`, `torch.optim:RAdam`): a torch.optim.Optimizer that is made of
    groups of parameters, `lr` where it takes it, and its settings. Raises UltronError, naming the place."""
    part = user_code.load(phase.optimizer, "optimizer", OPTIMIZERS)
    base = importlib.import_module("torch.optim").Optimizer
    if not issubclass(part.target, base) or part.target.step is base.step:
        raise UltronError(
            f"{part.place()}: {part.name} must be a torch.optim.Optimizer with the method step; derive it and write it"
        )
    settings = dict(phase.optimizer_settings or {})
    if "lr" in settings:
        raise UltronError(f"the rate of {phase.optimizer} is `lr`, found {prefix}optimizer_settings.lr; leave it out")
    rate = {"lr": phase.lr}
    takes_rate = "lr" in inspect.signature(part.target).parameters
    made_groups = [group | rate for group in groups]
    return part.made(
        made_groups, settings=settings | (rate if takes_rate else {}), prefix=f"{prefix}optimizer_settings."
    )


# Beside these an import path names an optimiser as make_user_optimizer takes it.
OPTIMIZERS = {
    "adamw": OptimizerEntry("adamw", n_moments=2),
    "sgd": OptimizerEntry("sgd", n_moments=1),
    "muon": OptimizerEntry("muon", n_moments=2, matrices_apart=True),
}
