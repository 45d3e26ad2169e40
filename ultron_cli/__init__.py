"""Ultron: landmark retrieval experiments from photographs to mAP.

Start at cli.py (the commands), api.py (the same steps from Python) or models/ (the networks). What this package offers
is loaded when it is first used, so that `import ultron_cli` and every `--help` answer at once.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ultron_cli.allocator import keep_memory
    from ultron_cli.api import compare, descriptors, evaluate, extract, search, train
    from ultron_cli.errors import UltronError
    from ultron_cli.models import create_model, list_models
    from ultron_cli.models.weights.model_choice import ModelChoice
    from ultron_cli.retrieval.extraction.dataset import ExtractRequest
    from ultron_cli.retrieval.searching import SearchOptions
    from ultron_cli.workspace import Workspace

__all__ = [
    "ExtractRequest",
    "ModelChoice",
    "SearchOptions",
    "UltronError",
    "Workspace",
    "compare",
    "create_model",
    "descriptors",
    "evaluate",
    "extract",
    "keep_memory",
    "list_models",
    "search",
    "train",
]

# name -> the module that has it
_MODULES = {
    "ExtractRequest": "ultron_cli.retrieval.extraction.dataset",
    "ModelChoice": "ultron_cli.models.weights.model_choice",
    "SearchOptions": "ultron_cli.retrieval.searching",
    "UltronError": "ultron_cli.errors",
    "Workspace": "ultron_cli.workspace",
    "compare": "ultron_cli.api",
    "create_model": "ultron_cli.models",
    "descriptors": "ultron_cli.api",
    "evaluate": "ultron_cli.api",
    "extract": "ultron_cli.api",
    "keep_memory": "ultron_cli.allocator",
    "list_models": "ultron_cli.models",
    "search": "ultron_cli.api",
    "train": "ultron_cli.api",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
