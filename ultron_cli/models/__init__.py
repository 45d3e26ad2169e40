"""The one model core: `create_model(name, **settings)` makes every model that the commands know.

Importing this package loads no torch: a model's file is imported when the model is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ultron_cli import user_code
from ultron_cli.configs import from_dict, to_dict
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.models.backbones import create_backbone

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultron_cli.models.core import RetrievalModel
    from ultron_cli.models.weights.importers import Imported, ImportTask


@dataclass(frozen=True)
class Importer:
    """How checkpoints that somebody published become a model."""

    module: str  # below ultron_cli.models
    name: str  # in that module: a function, or an object that is called
    trained_on: str | None = None  # the dataset of all these checkpoints, as files name it

    def function(self) -> Callable[[ImportTask], Imported]:
        """The function, imported."""
        return getattr(importlib.import_module(f"ultron_cli.models.{self.module}"), self.name)


@dataclass(frozen=True)
class ModelEntry:
    """What a name of MODELS stands for."""

    module: str  # below ultron_cli.models
    class_name: str  # of a RetrievalModel in that module
    preset: Mapping[str, object] = field(
        default_factory=dict
    )  # settings of this size that are not the model's defaults
    # Whose checkpoints can be imported as this model, by the name that `ultron weights import --from` takes.
    importers: Mapping[str, Importer] = field(default_factory=dict)

    def model_class(self) -> type[RetrievalModel]:
        """The class, imported."""
        return getattr(importlib.import_module(f"ultron_cli.models.{self.module}"), self.class_name)


def list_models() -> list[str]:
    """Names that create_model takes."""
    return sorted(MODELS)


def require_model(name: str) -> None:
    """Raises UltronError, naming near ones, for a name that create_model does not take."""
    if name not in MODELS and not user_code.is_import_path(name):
        raise UltronError(f"unknown model {name!r}{nearest_names(name, MODELS)} (known: {', '.join(list_models())})")


def create_model(name: str, *, pretrained: bool = False, **settings: object) -> RetrievalModel:
    """Makes a model with fresh weights (or timm's with `pretrained`) in evaluation mode.

    name: one of MODELS, or the import path of a RetrievalModel (`my.py:Net`). settings: the fields of the model's
        settings, for example backbone="resnet50", p=3.0, descriptor_dim=512 for `gem`; each model's stand at the top
        of its file. What they name by import path is run.
    Raises UltronError for an unknown model or setting, naming near ones.
    """
    user_code.permit_in({"name": name, **settings})
    return build_model(name, settings, pretrained=pretrained)


def build_model(name: str, settings: Mapping[str, object], *, pretrained: bool = False) -> RetrievalModel:
    """As create_model, of a name and settings that a file may hold: code that they name by import path is run only if a
    person has named it too (user_code.py)."""
    require_model(name)
    from ultron_cli.models.core import BackboneModel
    from ultron_cli.models.of_users import check_outputs, user_model

    part = user_code.load(name, "model", MODELS) if user_code.is_import_path(name) else None
    model_class = user_model(part) if part else MODELS[name].model_class()
    stands_on_backbone = issubclass(model_class, BackboneModel)
    if not stands_on_backbone:
        _refuse_backbone(name, settings, pretrained)
    if part:
        checked = part.settings(model_class.settings_type, settings, prefix="model.")
    else:
        checked = from_dict(model_class.settings_type, {**MODELS[name].preset, **settings}, prefix="model.")
    if stands_on_backbone:
        model = model_class(name, checked, create_backbone(checked.backbone, pretrained=pretrained)).eval()
    else:
        model = model_class(name, checked).eval()
    if part:
        check_outputs(part, model)
    model.code = user_code.parts_of({"name": name, **to_dict(checked)})
    return model


def _refuse_backbone(name: str, settings: Mapping[str, object], pretrained: bool) -> None:
    """Raises UltronError if timm's weights or a backbone are asked of a model with a network of its own."""
    if pretrained:
        raise UltronError(
            f"there are no published weights of {name}; train it (`ultron train --set model.name={name} "
            "--set pretrained=false`)",
            "give a checkpoint with `weights`",
        )
    if "backbone" in settings:
        backbone = settings["backbone"]
        raise UltronError(
            f"{name} has a network of its own, found backbone {backbone}; a timm backbone belongs to model gem"
        )


_CFCD = {"cfcd": Importer("cfcd", "PUBLISHED", "gldv2-clean")}
_DOLG = {"dolg": Importer("dolg", "PUBLISHED", "gldv2-clean")}
_SENET = {"senet": Importer("senet", "PUBLISHED", "gldv2-clean")}

MODELS: dict[str, ModelEntry] = {
    "adapted": ModelEntry("adapted", "AdaptedModel"),
    "cfcd-r101": ModelEntry("cfcd", "CfcdModel", {"backbone": "resnet101"}, _CFCD),
    "cfcd-r50": ModelEntry("cfcd", "CfcdModel", importers=_CFCD),
    "dalg": ModelEntry("dalg", "DalgModel"),
    "dolg-r101": ModelEntry("dolg", "DolgModel", {"backbone": "resnet101"}, _DOLG),
    "dolg-r50": ModelEntry("dolg", "DolgModel", importers=_DOLG),
    "gem": ModelEntry(
        "gem",
        "GemModel",
        importers={
            "cirtorch": Importer("weights.cirtorch", "import_cirtorch"),
            "timm": Importer("weights.importers", "import_timm"),
        },
    ),
    "senet-r101": ModelEntry("senet", "SenetModel", {"backbone": "resnet101"}, _SENET),
    "senet-r50": ModelEntry("senet", "SenetModel", importers=_SENET),
    "superglobal": ModelEntry(
        "superglobal",
        "SuperGlobalModel",
        importers={"cvnet": Importer("superglobal", "PUBLISHED", "gldv2-clean")},
    ),
    # Sizes S and B are a third party's reading of the paper; T is ours: under 2 million parameters, for laptops and
    # tests.
    "ultron-b": ModelEntry(
        "ultron",
        "UltronModel",
        {"depths": (5, 7, 18, 5), "widths": (96, 192, 384, 768), "heads": (12, 24), "drop_path": 0.3},
    ),
    "ultron-s": ModelEntry("ultron", "UltronModel"),
    "ultron-t": ModelEntry(
        "ultron",
        "UltronModel",
        {
            "depths": (1, 2, 2, 2),
            "widths": (16, 32, 64, 128),
            "heads": (2, 4),
            "expansion": 2,
            "drop_path": 0.0,
            "descriptor_dim": 256,
        },
    ),
}
