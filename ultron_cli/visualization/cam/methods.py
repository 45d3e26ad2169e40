"""The rules by which a map of the cosine is made, as method_table.py names them: of a layer's gradients and
activations, guided backpropagation, the weights of attention pooling.

Legend: B batch, C channels, H W photo size, h w map size, D descriptor dims. Models come in evaluation mode with frozen
weights.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models import MODELS
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.layer_maps import run_through

# Nodes of the autograd graph that are activation functions: ReLU, ReLU6 (a hardtanh), and the smooth ones of newer
# networks.
_ACTIVATION = re.compile(r"^(Relu|Hardtanh|LeakyRelu|Elu|Gelu|Silu|Hardswish|Mish)Backward\d*$")
CLIPPED_SHARE = 0.005  # of a guided map's pixels are shown as the brightest: single pixels are far above all others
ROUNDING = 1e-6  # of float32 sums, relative to their terms


@dataclass(frozen=True, kw_only=True)
class MapTask:
    """One photo whose map towards another photo is wanted. The model is in evaluation mode and frozen."""

    model: RetrievalModel
    images: torch.Tensor  # (1, 3, H, W), normalised
    other: torch.Tensor  # (D,), of unit norm: the other photo's descriptor
    layer: str | None = None  # whose map is shown; None: the last before pooling
    package_class: str = ""  # of the grad-cam package, for package_heat and guided_gradcam_heat

    @property
    def size_px(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.images.shape[-2:]
        return height, width


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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(activations (C, h, w), gradients (C, h, w) of the cosine, descriptor (D,)) of one photo. images: (1, 3, H, W).
    other: (D,), of unit norm."""
    traced = Traced(model, layer)
    watched_maps: list[torch.Tensor] = []

    def keep(_: nn.Module, __: object, output: torch.Tensor) -> None:
        watched_maps.append(output)

    traced.map.register_forward_hook(keep)
    descriptor = traced(images)[0]
    (gradients,) = torch.autograd.grad(descriptor @ other, watched_maps[-1])
    return watched_maps[-1].detach()[0], gradients[0], descriptor.detach()


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
    nodes_to_visit = [score.grad_fn]
    visited_nodes = {score.grad_fn}
    while nodes_to_visit:
        node: Any = nodes_to_visit.pop()  # torch's stubs lack register_prehook of a node
        if _ACTIVATION.match(node.name()):
            node.register_prehook(lambda gradients: tuple(g if g is None else g.clamp(min=0) for g in gradients))
        for following, _ in node.next_functions:
            if following is not None and following not in visited_nodes:
                visited_nodes.add(following)
                nodes_to_visit.append(following)
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
            f"the attention map is of models that pool by attention ({_attention_models()}), found {model.label}; take "
            "another `method`"
        )
    return weights_and_descriptor


def _attention_models() -> str:
    """The models that can pool by attention, with the poolings by which they do."""
    names_by_poolings: dict[tuple[str, ...], list[str]] = {}
    for name, entry in MODELS.items():
        names_by_poolings.setdefault(entry.model_class().attention_poolings, []).append(name)
    return "; ".join(
        f"{', '.join(names)} with model.pooling={' or '.join(poolings)}"
        for poolings, names in names_by_poolings.items()
        if poolings
    )


def require_finite(model: RetrievalModel, numbers: np.ndarray) -> np.ndarray:
    """The numbers. Raises UltronError if one is not finite."""
    if not np.isfinite(numbers).all():
        raise UltronError(
            f"{model.label} gives numbers that are not finite for this photo; its weights are damaged, load or "
            "train others"
        )
    return numbers


def _enlarged(raw: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """(h, w) any sign, with a value above 0 -> (H, W) float32: negative as 0, bilinear, maximum 1. size_px: (H, W)."""
    positive = torch.from_numpy(raw).float().clamp(min=0)
    positive /= positive.max()  # first, so that tiny values do not underflow
    heat = F.interpolate(positive[None, None], size=size_px, mode="bilinear", align_corners=False)[0, 0]
    return (heat / heat.max()).numpy()


def _layer_heat(task: MapTask, raw: np.ndarray, activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """(H, W) float32 heat, 0..1, of a map `raw` (h, w) of any sign; all 0 where nothing of it is above what rounding
    makes. activations, gradients: (C, h, w), of which the map was made."""
    terms = (np.abs(gradients).mean(axis=(1, 2), keepdims=True) * np.abs(activations)).sum(axis=0)
    if require_finite(task.model, raw).max() <= ROUNDING * terms.max():
        return np.zeros(task.size_px, np.float32)
    return _enlarged(raw, task.size_px)


def _package_class(name: str) -> Callable[..., Any]:
    """A class of the grad-cam package, which has no types. Raises UltronError if it cannot be imported."""
    try:
        import pytorch_grad_cam
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        reason = str(error).strip().split("\n")[0][:160]
        raise UltronError(
            f"maps of similarity need the grad-cam package, which cannot be imported ({reason}); run `pip "
            "install grad-cam`"
        ) from error
    return getattr(pytorch_grad_cam, name)


def package_heat(task: MapTask) -> tuple[np.ndarray, torch.Tensor]:
    """(heat (H, W) float32, 0..1; descriptor (D,)) by the class of the grad-cam package that the task names."""
    traced = Traced(task.model, task.layer)
    tool = _package_class(task.package_class)(traced, [traced.map])
    targets = [lambda descriptor: descriptor @ task.other]
    try:
        tool(task.images, targets)  # scales its map from its own minimum to maximum; the map itself is taken below
        descriptor = tool.outputs[0].detach()
        activations = tool.activations_and_grads.activations[0].numpy()
        gradients = tool.activations_and_grads.gradients[0].numpy()
        smoothed = False
        raw = tool.get_cam_image(task.images, traced.map, targets, activations, gradients, smoothed)[0]
    finally:
        tool.activations_and_grads.release()
    return _layer_heat(task, raw, activations[0], gradients[0]), descriptor


def gradcam_plus_plus_heat(task: MapTask) -> tuple[np.ndarray, torch.Tensor]:
    """(heat (H, W) float32, 0..1; descriptor (D,)) by gradcam_plus_plus."""
    activations, gradients, descriptor = activations_and_gradients(task.model, task.images, task.other, task.layer)
    raw = gradcam_plus_plus(activations, gradients).cpu().numpy()
    return _layer_heat(task, raw, activations.cpu().numpy(), gradients.cpu().numpy()), descriptor


def guided_backprop_heat(task: MapTask) -> tuple[np.ndarray, torch.Tensor]:
    """(heat (H, W) float32, 0..1; descriptor (D,)): pixel_heat of guided_backprop."""
    gradient, descriptor = guided_backprop(task.model, task.images, task.other)
    return pixel_heat(require_finite(task.model, gradient.cpu().numpy())), descriptor


def guided_gradcam_heat(task: MapTask) -> tuple[np.ndarray, torch.Tensor]:
    """(heat (H, W) float32, 0..1; descriptor (D,)): the product of guided backpropagation and Grad-CAM."""
    heat, descriptor = package_heat(task)
    if heat.any():
        gradient, _ = guided_backprop(task.model, task.images, task.other)
        heat = pixel_heat(require_finite(task.model, gradient.cpu().numpy()) * heat[..., None])
    return heat, descriptor


def attention_heat(task: MapTask) -> tuple[np.ndarray, torch.Tensor]:
    """(heat (H, W) float32, 0..1; descriptor (D,)): attention_map, divided by its largest weight."""
    weights, descriptor = attention_map(task.model, task.images)
    return _enlarged(require_finite(task.model, weights.cpu().numpy()), task.size_px), descriptor
