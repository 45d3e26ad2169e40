"""Muon: steps of momentum made orthogonal for the matrices of a network, AdamW for everything else.

Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024; one learning rate and one weight decay for
both kinds as in Liu et al., Muon is scalable for LLM training, 2025.
"""

from typing import TypedDict, cast

import torch
from torch.optim.adamw import adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the odd polynomial that takes singular values towards 1 (Jordan et al.)
N_ROUNDS = 5
MOMENTUM = 0.95
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of AdamW
RMS_OF_ADAMW = 0.2  # root mean square of AdamW's steps, divided by the rate (Liu et al.)
LEAST_STRETCH = 1.5  # of a matrix, above which its Gram matrix takes fewer products


class Group(TypedDict):
    """A group of parameters. are_matrices: their steps are made orthogonal."""

    params: list[torch.Tensor]
    weight_decay: float
    lr: float
    are_matrices: bool


def is_matrix(parameter: torch.Tensor) -> bool:
    """Whether a weight is a matrix between channels: of a linear layer, or of a convolution across channels, whose
    places count as further columns; not of a depthwise convolution, nor a single row."""
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter.shape[1]) > 1


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """(M, N) -> (M, N): about U V^T of its singular value decomposition U S V^T, with singular values of 0.7 to 1.2 for
    those above a thousandth of the norm.

    Five rounds of x <- (a + b G + c G^2) x with G = x x^T. Of a wide matrix the polynomials are multiplied in the small
    space of G and applied once, which takes half the arithmetic.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalised(matrix.mT).mT
    a, b, c = COEFFICIENTS
    unit = matrix / matrix.norm().clamp(min=1e-7)
    gram = unit @ unit.mT
    if matrix.shape[1] < LEAST_STRETCH * matrix.shape[0]:
        for i in range(N_ROUNDS):
            gram = unit @ unit.mT if i else gram
            unit = torch.addmm(unit, torch.addmm(gram, gram, gram, beta=b, alpha=c), unit, beta=a)
        return unit
    product: torch.Tensor | None = None
    for i in range(N_ROUNDS):
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal().add_(a)
        product = polynomial if product is None else polynomial @ product
        if i < N_ROUNDS - 1:
            gram = polynomial @ gram @ polynomial
    assert product is not None
    return product @ unit


class Muon(torch.optim.Optimizer):
    """Groups as `Group` has them; those without `are_matrices` go by AdamW."""

    def __init__(self, groups: list[dict[str, object]], lr: float) -> None:
        # fused: the state's step counts stay float32 beside their parameters when a state is loaded
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "are_matrices": False, "fused": True})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step along the gradients."""
        for each in self.param_groups:
            group = cast(Group, each)
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["are_matrices"]:
                for parameter in parameters:
                    self._step_matrix(parameter, group)
            else:
                self._step_others(parameters, group)

    def _step_matrix(self, parameter: torch.Tensor, group: Group) -> None:
        gradient, state = cast(torch.Tensor, parameter.grad), self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum: torch.Tensor = state["momentum_buffer"]
        momentum.lerp_(gradient, 1.0 - MOMENTUM)
        direction = orthogonalised(gradient.lerp(momentum, MOMENTUM).flatten(1))
        parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
        rate = group["lr"] * RMS_OF_ADAMW * max(direction.shape) ** 0.5
        parameter.add_(direction.reshape(parameter.shape), alpha=-rate)

    def _step_others(self, parameters: list[torch.Tensor], group: Group) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [cast(torch.Tensor, parameter.grad) for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=EPSILON,
            maximize=False,
        )
