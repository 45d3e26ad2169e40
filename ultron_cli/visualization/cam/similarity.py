"""What drives the similarity of two photos: Grad-CAM with the cosine of their descriptors where a classifier has its
class score.

Retrieval has no class (compare Chen et al., Adapting Grad-CAM for embedding networks, WACV 2020). The target here is
the cosine between the descriptor of the photo under study and the fixed descriptor of the other photo. A cosine does
not change with the length of a descriptor, so gradient times activation sums to 0 over the map of a GeM, average or
maximum pooling: the heat shows which places make the photos MORE alike than the photo as a whole, and between two equal
descriptors there is no such place.

Grad-CAM weighs a channel by its mean gradient, also where the activation is negative and GeM, which clamps it, takes
nothing from it. For backbones whose last map has negative values (ViT, Swin) the result can be negative everywhere, and
was so with random weights; `hirescam` multiplies gradient and activation place by place and has no such error.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.visualization.cam import methods
from ultron_cli.visualization.cam.method_table import map_method

# Descriptors nearer than this differ by rounding (float16 files: 3e-4); so would the gradient of their cosine.
SAME_DESCRIPTOR = 1e-3


@dataclass(frozen=True)
class Cam:
    """A map of one photo towards another."""

    heat: np.ndarray  # (H, W) float32 from 0 to 1, at the photo's size
    cosine: float  # of the two descriptors
    flat: bool = False  # nothing is above 0, so heat is all 0
    method: str = "gradcam"
    layer: str | None = None  # whose map it is of; None: the last before pooling


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Frozen and in evaluation mode inside; modes, requires_grad and gradients as before outside."""
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _, _ in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training
        for parameter, required_grad, gradient in parameters:  # grad-cam calls zero_grad
            parameter.requires_grad_(required_grad)
            parameter.grad = gradient


def _check(model: RetrievalModel, photo: np.ndarray, other_descriptor: torch.Tensor) -> None:
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        raise ValueError(f"photo must be (H, W, 3) uint8, found {photo.shape} {photo.dtype}")
    height, width = photo.shape[:2]
    if min(height, width) < model.min_side_px:
        raise UltronError(
            f"{model.label} takes photos of at least {model.min_side_px} px a side, found {width} x {height}; "
            "enlarge the photo"
        )
    shape = tuple(other_descriptor.shape)
    model_shape = (model.descriptor_dim,)
    if shape != model_shape:
        raise UltronError(
            f"the other photo's descriptor has shape {shape}, {model.label} gives {model_shape}; take one of the same "
            "model"
        )
    if not torch.isfinite(other_descriptor).all() or not other_descriptor.any():
        raise UltronError("the other photo's descriptor is zero or not finite; extract it again")


def similarity_cam(
    model: RetrievalModel,
    photo: np.ndarray,
    other_descriptor: torch.Tensor,
    *,
    method: str = "gradcam",
    layer: str | None = None,
) -> Cam:
    """Where the photo is like the other photo: a CAM of the cosine between its descriptor (at scale 1) and the other's.

    photo: (H, W, 3) uint8, as the model is to see it (cropped, resized). other_descriptor: (D,), any length but 0.
    method: a name of METHODS. `gradcam`, `gradcam++`, `hirescam` and `layercam` are of a map, the last before pooling
    or the output of `layer` (a stage or a module by name): it is enlarged bilinearly to the photo and divided by its
    maximum; where a backbone pads a photo to whole patches it is stretched by less than one cell. `guided-backprop` is
    of the photo's pixels, `guided-gradcam` its product with `gradcam`; see methods.pixel_heat. `attention` are the
    weights of attention pooling, whatever the other photo is; `occlusion` is of squares over the photo. The model's
    modes and gradients stay as they were.
    Raises UltronError for a descriptor of another model, a photo too small, an unknown method or layer, or without
    grad-cam.
    """
    _check(model, photo, other_descriptor)
    entry = map_method(method)
    if layer is not None and not entry.of_layer:
        raise UltronError(f"{entry.title} is not of a layer; leave out `layer`, or take another `method`")
    heat_of = entry.heat_of()
    device = next(model.parameters()).device
    with _left_as_it_was(model), torch.inference_mode(False), torch.enable_grad():
        other = F.normalize(other_descriptor.detach().clone().to(device, torch.float32), dim=0)
        images = normalise_images(torch.tensor(np.ascontiguousarray(photo), device=device)[None], model.preprocessing)
        task = methods.MapTask(model=model, images=images, other=other, layer=layer, package_class=entry.package_class)
        heat, descriptor = heat_of(task)
    methods.require_finite(model, descriptor.cpu().numpy())
    if entry.of_pair and torch.linalg.vector_norm(descriptor - other) < SAME_DESCRIPTOR:
        heat = np.zeros(photo.shape[:2], np.float32)
    return Cam(heat, float(descriptor @ other), not heat.any(), method, layer)
