"""The methods by which `ultron visualize cam` makes a map, one entry each; no heavy import, so that help texts can list
them."""

from dataclasses import dataclass

_PAIR = "the query's own map is for rank {rank}."


@dataclass(frozen=True, kw_only=True)
class MapMethod:
    """What the commands, the figures and the computation know of a method."""

    title: str  # as it is written in figures
    function: str  # of methods.py; it takes a MapTask and gives (heat, descriptor)
    of_layer: bool = True  # --layer chooses the map; else the method is of pixels or of the pooling
    of_pair: bool = True  # else the other photo plays no part
    package_class: str = ""  # of the grad-cam package, where it computes the map
    # Below the figure's title. {method}: title; {layer}: " at NAME" or nothing; {rank}: of the photo that the query's
    # own map is for.
    note: str = "{method} of the cosine between query and photo{layer}. Bright places make the two alike; " + _PAIR


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
    "attention": MapMethod(
        title="Attention pooling",
        function="attention_heat",
        of_layer=False,
        of_pair=False,
        note="Weights of the attention pooling, divided by the largest. Bright places count most in a photo's "
        "descriptor, whatever the other photo is.",
    ),
}
