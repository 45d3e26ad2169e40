"""Models that a user named by import path, tried before they are used."""

import dataclasses

import torch

from ultron_cli.errors import UltronError
from ultron_cli.models.core import BackboneModel, RetrievalModel
from ultron_cli.models.parts.of_users import shape_text
from ultron_cli.user_code import UserPart, blaming


def user_model(part: UserPart) -> type[RetrievalModel]:
    """The class of a user's model. Raises UltronError, naming the place, unless it has all that a model needs."""
    model_class = part.target
    if not issubclass(model_class, RetrievalModel):
        raise UltronError(f"{part.place()}: {part.name} must be a RetrievalModel of ultron_cli.models.core; derive it")
    if not dataclasses.is_dataclass(getattr(model_class, "settings_type", None)):
        raise UltronError(
            f"{part.place()}: {part.name} needs settings_type, a frozen dataclass of its settings; set it"
        )
    for method in ("feature_map", "pool"):
        if getattr(model_class, method) is getattr(RetrievalModel, method):
            raise UltronError(f"{part.place()}: {part.name} needs the method {method}; see RetrievalModel")
    if not issubclass(model_class, BackboneModel):
        part.require_made_of("name", "settings")
        return model_class
    part.require_made_of("name", "settings", "backbone")
    if "backbone" not in {field.name for field in dataclasses.fields(model_class.settings_type)}:
        raise UltronError(f"{part.place()}: settings_type of {part.name} needs the setting backbone, a name; add it")
    return model_class


def check_outputs(part: UserPart, model: RetrievalModel) -> None:
    """Raises UltronError, naming the place, unless a user's model gives a map and descriptors of descriptor_dim."""
    images = torch.zeros(2, 3, model.min_side_px, model.min_side_px)
    with torch.no_grad(), blaming(model):
        maps = model.feature_map(images)
        descriptors = model.describe(images)
    for method, output, form in (
        ("feature_map", maps, "(2, C, h, w)"),
        ("pool", descriptors, f"(2, {getattr(model, 'descriptor_dim', 'descriptor_dim')})"),
    ):
        is_right = isinstance(output, torch.Tensor) and output.ndim == form.count(",") + 1 and len(output) == 2
        if not is_right or (method == "pool" and output.shape[1] != getattr(model, "descriptor_dim", None)):
            raise UltronError(
                f"{part.place(method)}: {part.name}.{method} must give {form} for 2 photos; found {shape_text(output)}"
            )
