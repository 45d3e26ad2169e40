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
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from PIL import Image
from torch import nn

from ultron_cli.configs import one_of
from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.visualization import drawing
from ultron_cli.visualization.cam import methods

# Descriptors nearer than this differ by rounding (float16 files: 3e-4); so would the gradient of their cosine.
SAME_DESCRIPTOR = 1e-3
ROUNDING = 1e-6  # of float32 sums, relative to their terms

HEAT_OPACITY = (0.35, 0.75)  # where heat is 0, where it is 1: the photo stays readable, the colours rise in lightness

# name -> as it is written
METHODS = {
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "guided-backprop": "Guided backpropagation",
    "guided-gradcam": "Guided Grad-CAM",
    "attention": "Attention pooling",
}
PACKAGE_CLASSES = {
    "gradcam": "GradCAM",
    "guided-gradcam": "GradCAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
}  # of the grad-cam package
NO_LAYER = ("guided-backprop", "attention")


@dataclass(frozen=True)
class Cam:
    """heat: (H, W) float32 from 0 to 1 at the photo's size; cosine: of the two descriptors; flat: nothing is above 0,
    so heat is all 0.

    layer: whose map it is of; None: the last before pooling.
    """

    heat: np.ndarray
    cosine: float
    flat: bool = False
    method: str = "gradcam"
    layer: str | None = None


@contextmanager
def _left_as_found(model: nn.Module) -> Iterator[None]:
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
        for parameter, wanted, gradient in parameters:  # grad-cam calls zero_grad
            parameter.requires_grad_(wanted)
            parameter.grad = gradient


def _cam_class(method: str) -> Any:
    """The class of the grad-cam package for one of PACKAGE_CLASSES. Raises UltronError if it cannot be imported."""
    try:
        import pytorch_grad_cam
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        reason = str(error).strip().split("\n")[0][:160]
        raise UltronError(
            f"maps of similarity need the grad-cam package, which cannot be imported ({reason}); run `pip "
            "install grad-cam`"
        ) from error
    return getattr(pytorch_grad_cam, PACKAGE_CLASSES[method])


def _check(model: RetrievalModel, photo: np.ndarray, other_descriptor: torch.Tensor) -> None:
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        raise ValueError(f"photo must be (H, W, 3) uint8, found {photo.shape} {photo.dtype}")
    height, width = photo.shape[:2]
    if min(height, width) < model.min_side_px:
        raise UltronError(
            f"{model.label} takes photos of at least {model.min_side_px} px a side, found {width} x {height}; "
            "enlarge the photo"
        )
    found, wanted = tuple(other_descriptor.shape), (model.descriptor_dim,)
    if found != wanted:
        raise UltronError(
            f"the other photo's descriptor has shape {found}, {model.label} gives {wanted}; take one of the same model"
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
    method: `gradcam` (Selvaraju et al., ICCV 2017, eq. 1 and 2), `gradcam++` (Chattopadhyay et al., WACV 2018),
    `hirescam` (Draelos and Carin 2020) and `layercam` (Jiang et al., TIP 2021) are of a map, the last before pooling or
    the output of `layer` (a stage or a module by name): it is enlarged bilinearly to the photo and divided by its
    maximum; where a backbone pads a photo to whole patches it is stretched by less than one cell. `guided-backprop`
    (Springenberg et al. 2015) is of the photo's pixels, `guided-gradcam` (Selvaraju et al., section 3.2) its product
    with `gradcam`; see methods.pixel_heat. `attention` are the weights of ULTRON's pooling, whatever the other photo
    is. The model's modes and gradients stay as they were. Raises UltronError for a descriptor of another model, a photo
    too small, an unknown method or layer, or without grad-cam.
    """
    _check(model, photo, other_descriptor)
    one_of("CAM method", method, list(METHODS))
    if layer is not None and method in NO_LAYER:
        raise UltronError(f"{METHODS[method]} is not of a layer; leave out --layer, or take another --method")
    device = next(model.parameters()).device
    size = photo.shape[:2]
    with _left_as_found(model), torch.inference_mode(False), torch.enable_grad():
        other = F.normalize(other_descriptor.detach().clone().to(device, torch.float32), dim=0)
        images = normalise_images(torch.tensor(np.ascontiguousarray(photo), device=device)[None], model.preprocessing)
        if method == "attention":
            weights, descriptor = methods.attention_map(model, images)
            heat = _enlarged(_finite(model, weights.cpu().numpy()), *size)
        elif method == "guided-backprop":
            gradient, descriptor = methods.guided_backprop(model, images, other)
            heat = methods.pixel_heat(_finite(model, gradient.cpu().numpy()))
        else:
            raw, descriptor = _map_cam(model, images, other, method, layer)
            heat = np.zeros(size, np.float32) if raw is None else _enlarged(raw, *size)
        if method == "guided-gradcam" and heat.any():
            gradient, _ = methods.guided_backprop(model, images, other)
            heat = methods.pixel_heat(_finite(model, gradient.cpu().numpy()) * heat[..., None])
    _finite(model, descriptor.cpu().numpy())
    if method != "attention" and torch.linalg.vector_norm(descriptor - other) < SAME_DESCRIPTOR:
        heat = np.zeros(size, np.float32)
    return Cam(heat, float(descriptor @ other), not heat.any(), method, layer)


def _finite(model: RetrievalModel, numbers: np.ndarray) -> np.ndarray:
    """The numbers. Raises UltronError if one is not finite."""
    if not np.isfinite(numbers).all():
        raise UltronError(
            f"{model.label} gives numbers that are not finite for this photo; its weights are damaged, load or "
            "train others"
        )
    return numbers


def _map_cam(
    model: RetrievalModel, images: torch.Tensor, other: torch.Tensor, method: str, layer: str | None
) -> tuple[np.ndarray | None, torch.Tensor]:
    """(map (h, w) of any sign, None where nothing is above 0; descriptor (D,)) of one photo: images (1, 3, H, W)."""
    if method == "gradcam++":
        watched = methods.activations_and_gradients(model, images, other, layer)
        raw, (activations, gradients) = (
            methods.gradcam_plus_plus(*watched[:2]).cpu().numpy(),
            (kept.cpu().numpy() for kept in watched[:2]),
        )
        descriptor = watched[2]
    else:
        traced = methods.Traced(model, layer)
        tool, targets = _cam_class(method)(traced, [traced.map]), [lambda descriptor: descriptor @ other]
        try:
            tool(images, targets)  # scales its map from its own minimum to maximum; the map itself is taken below
            descriptor = tool.outputs[0].detach()
            activations, gradients = (
                kept[0].numpy()
                for kept in (tool.activations_and_grads.activations, tool.activations_and_grads.gradients)
            )
            raw = tool.get_cam_image(images, traced.map, targets, activations, gradients, False)[0]  # no smoothing
        finally:
            tool.activations_and_grads.release()
        activations, gradients = activations[0], gradients[0]
    terms = (np.abs(gradients).mean(axis=(1, 2), keepdims=True) * np.abs(activations)).sum(axis=0)
    return (None if _finite(model, raw).max() <= ROUNDING * terms.max() else raw), descriptor


def _enlarged(raw: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """(h, w) any sign, with a value above 0 -> (height_px, width_px) float32: negative as 0, bilinear, maximum 1."""
    positive = torch.from_numpy(raw).float().clamp(min=0)
    positive /= positive.max()  # first, so that tiny values do not underflow
    heat = F.interpolate(positive[None, None], size=(height_px, width_px), mode="bilinear", align_corners=False)[0, 0]
    return (heat / heat.max()).numpy()


def overlay(photo: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the photo in grey under the colours of heat (H, W), 0..1; grey, so that every colour is the
    heat's.

    The colours are inferno: even steps in perception, rising in lightness, safe for colour-blind readers.
    """
    if photo.shape[:2] != heat.shape:
        raise ValueError(f"photo and heat must be of one size, found {photo.shape[:2]} and {heat.shape}")
    grey = np.asarray(Image.fromarray(photo).convert("L"), dtype=np.float64)[..., None]
    opacity = (HEAT_OPACITY[0] + (HEAT_OPACITY[1] - HEAT_OPACITY[0]) * heat)[..., None]
    return (grey * (1 - opacity) + colormaps["inferno"](heat)[..., :3] * 255.0 * opacity).round().astype(np.uint8)


def write_overlay(path: Path, photo: np.ndarray, heat: np.ndarray) -> None:
    """Writes overlay(photo, heat) as PNG at the photo's size. Raises UltronError for another suffix."""
    drawing.save_png(path, overlay(photo, heat))
