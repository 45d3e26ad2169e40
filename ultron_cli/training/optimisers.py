"""Optimisers, the learning rate of each step, and the running mean of the weights."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ultron_cli import distributed
from ultron_cli.training.config import SwitchConfig, TrainConfig
from ultron_cli.training.muon import Muon, is_matrix
from ultron_cli.training.optimiser_table import OPTIMIZERS, Groups, OptimizerPhase, make_user_optimizer
from ultron_cli.training.schedules import n_warmup_steps
from ultron_cli.user_code import is_import_path

# Tables of positions and tokens, by the last part of their name in Swin and ViT as timm has them.
NOT_DECAYED = (
    "relative_position_bias_table",
    "absolute_pos_embed",
    "pos_embed",
    "cls_token",
    "reg_token",
    "dist_token",
)


def _is_spared(name: str, parameter: torch.Tensor) -> bool:
    """Whether a parameter is a bias, a norm's, a single exponent or a table of positions."""
    return parameter.ndim <= 1 or name.endswith("bias") or name.rpartition(".")[2] in NOT_DECAYED


def is_decayed(name: str, parameter: torch.Tensor, config: TrainConfig) -> bool:
    """Whether weight decay applies: not to biases, norms and single exponents, which have one dimension or none, nor to
    tables of positions.

    Of these tables SCALA's are called position_bias; Swin's, ViT's and the tokens are left out as their authors do (Liu
    et al., ICCV 2021; Touvron et al., ICML 2021). It does reach the one-dimensional convolutions of ECA, which are
    weights as others are, and the class weights, as in DOLG's code and in ArcFace's. decay_norms_and_biases: it reaches
    everything.
    """
    return config.decay_norms_and_biases or not _is_spared(name, parameter)


def make_optimizer(config: TrainConfig, *modules: nn.Module, epoch: int = 0) -> torch.optim.Optimizer:
    """The optimiser of an epoch (counted from 0) over all parameters, in two groups: with weight decay and without.

    modules: the network first. An optimiser that takes matrices apart has those of the network with weight decay in a
    group before the others.
    """
    phase = phase_at(config, epoch)
    named = [
        (name, parameter)
        for module in modules
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    ]
    decayed = [parameter for name, parameter in named if is_decayed(name, parameter, config)]
    spared = [parameter for name, parameter in named if not is_decayed(name, parameter, config)]
    groups: Groups = [
        {"params": decayed, "weight_decay": phase.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    if is_import_path(phase.optimizer):
        return make_user_optimizer(groups, phase)
    entry = OPTIMIZERS[phase.optimizer]
    if entry.matrices_apart:
        matrices = {
            parameter
            for name, parameter in modules[0].named_parameters()
            if is_matrix(parameter) and not _is_spared(name, parameter)
        }
        groups[0]["params"] = [parameter for parameter in decayed if parameter not in matrices]
        apart = [parameter for parameter in decayed if parameter in matrices]
        groups.insert(0, {"params": apart, "weight_decay": phase.weight_decay, "are_matrices": True})
    return entry.make(groups, phase, config.nesterov)


def sgd(groups: Groups, phase: OptimizerPhase, nesterov: bool) -> torch.optim.SGD:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(groups, lr=phase.lr, momentum=phase.momentum, nesterov=nesterov and phase.momentum > 0)


def adamw(groups: Groups, phase: OptimizerPhase, nesterov: bool) -> torch.optim.AdamW:
    """Adam with decoupled weight decay."""
    return torch.optim.AdamW(groups, lr=phase.lr, fused=True)  # one pass over each tensor: four times as fast on a CPU


def muon(groups: Groups, phase: OptimizerPhase, nesterov: bool) -> Muon:
    """Orthogonal steps for the network's matrices, AdamW for the rest."""
    return Muon(groups, lr=phase.lr)


def phase_at(config: TrainConfig, epoch: int) -> TrainConfig | SwitchConfig:
    """The settings (optimizer, lr, momentum, weight_decay) that hold in an epoch counted from 0."""
    return config.switch if config.switch and epoch >= config.switch.epoch else config


def lr_at(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Learning rate of a step counted from 0: a linear warm-up, then what the schedule says. One curve runs over the
    whole training; a switch of optimisers changes its height only."""
    n_warmup = n_warmup_steps(config, steps_per_epoch)
    if step < n_warmup:
        share = (step + 1) / n_warmup
    else:
        share = config.schedule_share(config, step, steps_per_epoch)
    return phase_at(config, step // steps_per_epoch).lr * share


Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


class RunningMean(AveragedModel):
    """Exponential moving average of weights and buffers: mean = decay mean + (1 - decay) weight, with a lower decay in
    the first steps.

    `module` is the model with the means; it begins with the weights of `model`.
    """

    n_averaged: torch.Tensor  # weights taken in, those at the beginning among them

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=self._mix, use_buffers=True)
        self.decay = decay
        self.start(model, n_steps=0)

    def start(self, model: nn.Module, n_steps: int) -> None:
        """Sets the means to the weights of `model`, as they are after n_steps steps."""
        self.load(model.state_dict(), n_steps)

    def load(self, means: dict[str, torch.Tensor], n_steps: int) -> None:
        """Goes on from the means after n_steps steps."""
        self.module.load_state_dict(means)
        self.n_averaged.fill_(n_steps + 1)

    @torch.no_grad()
    def _mix(self, means: Tensors, weights: Tensors, n_averaged: torch.Tensor | int) -> None:
        """Takes in weights (or buffers) of one data type after a step. n_averaged is on the weights' device; the one of
        this module is read instead, as reading from a GPU would wait for it."""
        step = int(self.n_averaged) - 1
        # With the full decay the first, random weights would stay for thousands of steps.
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        for mean, weight in zip(means, weights, strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(weight, 1.0 - decay)
            else:
                mean.copy_(weight)


def clip_gradients(replicated: Iterable[nn.Parameter], sharded: Iterable[nn.Parameter], longest: float) -> torch.Tensor:
    """Scales all gradients down together to a norm of at most `longest`; returns the norm before.

    replicated: parameters that every process has alike; sharded: parameters of which each process has its own part.
    """
    replicated = [parameter for parameter in replicated if parameter.grad is not None]
    sharded = [parameter for parameter in sharded if parameter.grad is not None]
    total = _norm(replicated).square() if replicated else torch.zeros(())
    if sharded:
        total = total + distributed.sum_over_processes(_norm(sharded).square())
    norm = total.sqrt()
    torch.nn.utils.clip_grads_with_norm_([*replicated, *sharded], longest, norm)
    return norm


def _norm(parameters: list[nn.Parameter]) -> torch.Tensor:
    """The norm of all gradients together."""
    return torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
