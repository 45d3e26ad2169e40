"""The rules by which a CAM of the cosine is made: what is watched, Grad-CAM++, guided backpropagation, attention
pooling's weights.

Legend: B batch, C channels, H W photo size, h w map size, D descriptor dims. Models come in evaluation mode with frozen
weights.
"""

import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel
from ultron_cli.visualization.inside.stages import run_through

# Nodes of the autograd graph that are activation functions: ReLU, ReLU6 (a hardtanh), and the smooth ones of newer
# networks.
_ACTIVATION = re.compile(r"^(Relu|Hardtanh|LeakyRelu|Elu|Gelu|Silu|Hardswish|Mish)Backward\d*$")
CLIPPED_SHARE = 0.005  # of a guided map's pixels are shown as the brightest: single pixels are far above all others


class Traced(nn.Module):
    """The model with one of its maps passing through `map`, a module that a CAM can watch whatever the network is.

    layer: whose output the map is; None: the last before pooling. Gradients begin at the map: none of what is before it
    is kept.
    """

    def __init__(self, model: RetrievalModel, layer: str | None = None) -> None:
        super().__init__()
        self.model, self.layer = model, layer
        self.map = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        def watched(features: torch.Tensor) -> torch.Tensor:
            return self.map(
                features.detach().requires_grad_()
            ).clone()  # a clone, so that what follows may work in place

        return F.normalize(run_through(self.model, images, self.layer, watched), dim=1)


def activations_and_gradients(
    model: RetrievalModel, images: torch.Tensor, other: torch.Tensor, layer: str | None
) -> tuple[torch.Tensor, ...]:
    """(activations (C, h, w), gradients (C, h, w) of the cosine, descriptor (D,)) of one photo. images: (1, 3, H, W).
    other: (D,), of unit norm."""
    traced = Traced(model, layer)
    kept: list[torch.Tensor] = []
    traced.map.register_forward_hook(lambda _, __, output: kept.append(output))
    descriptor = traced(images)[0]
    (gradients,) = torch.autograd.grad(descriptor @ other, kept[-1])
    return kept[-1].detach()[0], gradients[0], descriptor.detach()


def gradcam_plus_plus(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Grad-CAM++ (Chattopadhyay et al., WACV 2018, eq. 9, 10 and 19): activations and gradients (C, h, w) -> map (h, w)
    of any sign.

    alpha = g^2 / (2 g^2 + sum(A) g^3) and w = sum of alpha relu(g) over places, computed as alpha = 1 / (2 + sum(A) g):
    gradients of a cosine are as small as 1e-5, and their cubes would be lost beside an epsilon. The paper's A is not
    negative, and then the denominator is at least 2 where relu(g) counts; where negative activations make it 0 or less,
    alpha is 0.
    """
    activations, gradients = activations.double(), gradients.double()
    denominator = 2.0 + activations.sum(dim=(1, 2), keepdim=True) * gradients
    alpha = torch.where(denominator > 0, 1.0 / denominator.clamp(min=1e-12), 0.0)
    weights = (alpha * gradients.clamp(min=0)).sum(dim=(1, 2), keepdim=True)
    return (weights * activations).sum(dim=0)


def guided_gradient(score: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Guided backpropagation (Springenberg et al., ICLR 2015 workshop): the gradient of a scalar, in which every
    activation function lets only positive gradients back: R = [f > 0] [R > 0] R for a ReLU.

    For GELU, SiLU and their like, which the paper does not have, their own derivative stands for [f > 0]. The rule is
    set on the nodes of the autograd graph, so it does not matter how the network calls its activations; the graph is
    used up. images: a leaf that requires a gradient. Returns its shape.
    """
    todo, seen = [score.grad_fn], {score.grad_fn}
    while todo:
        node: Any = todo.pop()
        if _ACTIVATION.match(node.name()):
            node.register_prehook(lambda gradients: tuple(g if g is None else g.clamp(min=0) for g in gradients))
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                todo.append(following)
    return torch.autograd.grad(score, images)[0]


def guided_backprop(
    model: RetrievalModel, images: torch.Tensor, other: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(gradient (H, W, 3) of the cosine by the normalised photo, descriptor (D,)). images: (1, 3, H, W). other: (D,),
    of unit norm."""
    leaf = images.detach().clone().requires_grad_()
    descriptor = model(leaf.clone())[0]
    return guided_gradient(descriptor @ other, leaf)[0].permute(1, 2, 0), descriptor.detach()


def pixel_heat(gradient: np.ndarray) -> np.ndarray:
    """(H, W, 3) gradient of any sign -> (H, W) float32 heat, 0..1: the largest of the three colours' amounts (Simonyan
    et al. 2014).

    The brightest CLIPPED_SHARE of the pixels are all 1. Zero everywhere stays zero.
    """
    amount = np.abs(gradient).max(axis=2)
    top = np.quantile(amount, 1 - CLIPPED_SHARE) or amount.max()
    return (amount / top).clip(0, 1).astype(np.float32) if top > 0 else np.zeros(amount.shape, np.float32)


def attention_map(model: RetrievalModel, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(weights (h, w) of attention pooling, summing to 1; descriptor (D,)) of one photo.

    Of a class token: what it takes from each patch in the last block, the mean over heads (as DINO's maps, Caron et
    al., ICCV 2021); the rest of 1 goes to itself and to register tokens. Raises UltronError for other poolings.
    """
    weights_and_descriptor = model.pooling_attention(images)
    if weights_and_descriptor is None:
        raise UltronError(
            "the attention map is of models that pool by attention (ultron-s, ultron-b, ultron-t, "
            f"model.pooling=simpool or cls), found {model.label}; "
            "take another --method"
        )
    return weights_and_descriptor
