"""Names of backbones, known without loading timm or torch: a mistyped one is told at once."""

import fnmatch
import functools
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from ultron_cli import user_code
from ultron_cli.errors import UltronError, nearest_names

CIFAR_NAMES = ("cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56", "cifar_resnet110")
SMALL_SWIN = "test_swin"
# How timm's files name what timm.create_model takes; tests/models/backbones/test_names.py holds it against timm itself.
_MODEL = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)
_FORMER_MODELS = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)\}\)", re.MULTILINE | re.DOTALL)
_FORMER_NAME = re.compile(r"['\"]([\w.]+)['\"]\s*:")


def is_cifar_resnet(name: str) -> bool:
    """Whether the name is of the ResNets for photos of 32 px."""
    return name.startswith("cifar_resnet")


@functools.cache
def _timm_sources() -> tuple[str, ...]:
    """The texts of timm's files of networks."""
    spec = find_spec("timm")
    folders = spec.submodule_search_locations if spec else None
    paths = sorted(Path(folders[0], "models").glob("*.py")) if folders else []
    return tuple(path.read_text(encoding="utf-8") for path in paths)


@functools.cache
def timm_names() -> frozenset[str]:
    """The networks of timm by their present names, as timm.list_models gives them."""
    return frozenset(name for source in _timm_sources() for name in _MODEL.findall(source))


@functools.cache
def former_timm_names() -> frozenset[str]:
    """Names of earlier versions that timm still takes."""
    return frozenset(
        name
        for source in _timm_sources()
        for table in _FORMER_MODELS.findall(source)
        for name in _FORMER_NAME.findall(table)
    )


def is_timm_network(name: str) -> bool:
    """Whether timm has a network of this name, which may end in a tag of weights (resnet50.a1_in1k)."""
    base_name = name.split(".")[0]
    timm = sys.modules.get("timm")  # which then knows the networks that a script has registered, too
    return base_name in timm_names() or base_name in former_timm_names() or bool(timm and timm.is_model(base_name))


def list_backbones(pattern: str = "*") -> list[str]:
    """Names that create_backbone takes and the pattern (resnet*) matches: timm's, then this project's."""
    return [
        *sorted(fnmatch.filter(timm_names(), pattern), key=_natural_key),
        *fnmatch.filter([*CIFAR_NAMES, SMALL_SWIN], pattern),
    ]


def require_backbone(name: str) -> None:
    """Raises UltronError, naming near ones, for a name that is of no backbone. What an import path names is looked at
    when the backbone is made."""
    if user_code.is_import_path(name):
        return
    if not (is_timm_network(name) or is_cifar_resnet(name) or name == SMALL_SWIN):
        near = nearest_names(name, list_backbones())
        raise UltronError(f"unknown backbone {name!r}{near} (see `ultron doctor --backbones '*'`)")


def _natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Sorts as timm does: runs of digits by their value."""
    parts = re.split(r"(\d+)", name.lower())
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
