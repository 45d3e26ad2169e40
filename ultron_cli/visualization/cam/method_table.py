"""The methods by which `ultron visualize cam` makes a map, one entry each; no heavy import, so that help texts can list
them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ultron_cli import user_code
from ultron_cli.configs import one_of
from ultron_cli.errors import UltronError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ultron_cli.visualization.cam.methods import MapTask

    Heat = Callable[[MapTask], tuple[np.ndarray, torch.Tensor]]

_PAIR = "the query's own map is for rank {rank}."


@dataclass(frozen=True, kw_only=True)
class MapMethod:
    """What the commands, the figures and the computation know of a method."""

    title: str  # as it is written in figures
    # It takes a MapTask and gives (heat (H, W) float32 from 0 to 1, the photo's unit descriptor (D,)).
    function: str
    module: str = "methods"  # of this package, where the function is
    of_layer: bool = True  # --layer chooses the map; else the method is of pixels or of the pooling
    of_pair: bool = True  # else the other photo plays no part
    package_class: str = ""  # of the grad-cam package, where it computes the map
    # Below the figure's title. {method}: title; {layer}: " at NAME" or nothing; {rank}: of the photo that the query's
    # own map is for.
    note: str = "{method} of the cosine between query and photo{layer}. Bright places make the two alike; " + _PAIR

    def heat_of(self) -> Heat:
        """The function, imported."""
        return getattr(importlib.import_module(f"ultron_cli.visualization.cam.{self.module}"), self.function)


@dataclass(frozen=True, kw_only=True)
class UserMethod(MapMethod):
    """A method that a user names by import path: a class that is made without arguments and called with a MapTask. Its
    attributes `title`, `of_layer`, `of_pair` and `note` are as those of MapMethod, where it has them."""

    part: user_code.UserPart

    def heat_of(self) -> Heat:
        """An object of the class, which tells a user where its heat is none."""
        compute: Heat = self.part.target()

        def heat_of(task: MapTask) -> tuple[np.ndarray, torch.Tensor]:
            with user_code.blaming(compute, "__call__"):
                heat, descriptor = compute(task)
                shape, dim = tuple(heat.shape), task.model.descriptor_dim
            if shape != task.size_px or tuple(descriptor.shape) != (dim,) or not 0 <= heat.min() <= heat.max() <= 1:
                raise UltronError(
                    f"{self.part.place('__call__')}: {self.part.name} must give heat {task.size_px} from 0 to 1 and a "
                    f"descriptor ({dim},); found heat {shape} from {heat.min():.3g} to {heat.max():.3g} and "
                    f"{tuple(descriptor.shape)}"
                )
            return heat, descriptor

        return heat_of


def map_method(name: str) -> MapMethod:
    """A method by its name in METHODS, or by import path (`my.py:Map`). Raises UltronError for an unknown one, and for
    a class that cannot be called."""
    if not user_code.is_import_path(name):
        return METHODS[one_of("method", name, tuple(METHODS))]
    part = user_code.load(name, "map method", METHODS)
    part.require_method("__call__(task)", UserMethod)
    part.require_made_of()
    words = {key: getattr(part.target, key) for key in ("of_layer", "of_pair", "note") if hasattr(part.target, key)}
    return UserMethod(title=getattr(part.target, "title", part.name), function="", part=part, **words)


METHODS = {
    # Selvaraju et al., ICCV 2017, eq. 1 and 2
    "gradcam": MapMethod(title="Grad-CAM", function="package_heat", package_class="GradCAM"),
    # Chattopadhyay et al., WACV 2018
    "gradcam++": MapMethod(title="Grad-CAM++", function="gradcam_plus_plus_heat"),
    # Draelos and Carin 2020
    "hirescam": MapMethod(title="HiResCAM", function="package_heat", package_class="HiResCAM"),
    # Jiang et al., TIP 2021
    "layercam": MapMethod(title="LayerCAM", function="package_heat", package_class="LayerCAM"),
    # Springenberg et al. 2015
    "guided-backprop": MapMethod(
        title="Guided backpropagation",
        function="guided_backprop_heat",
        of_layer=False,
        note="{method} of the cosine between query and photo. Bright pixels change it most; " + _PAIR,
    ),
    # Selvaraju et al., section 3.2
    "guided-gradcam": MapMethod(
        title="Guided Grad-CAM",
        function="guided_gradcam_heat",
        package_class="GradCAM",
        note="{method} of the cosine between query and photo{layer}. Bright pixels change it most, where the two are "
        "alike; " + _PAIR,
    ),
    # Zeiler and Fergus, ECCV 2014, section 4.2
    "occlusion": MapMethod(
        title="Occlusion",
        module="occlusion",
        function="occlusion_heat",
        of_layer=False,
        note="{method}: how much the cosine between query and photo falls where a square covers the place; " + _PAIR,
    ),
    "attention": MapMethod(
        title="Attention pooling",
        function="attention_heat",
        of_layer=False,
        of_pair=False,
        note="Weights of the attention pooling, divided by the largest. Bright places count most in a photo's "
        "descriptor, whatever the other photo is.",
    ),
}
