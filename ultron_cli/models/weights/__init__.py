"""Weight files: checkpoints.py is a model's own file, model_choice.py loads the model that a command names,
importers.py reads other authors' files by the functions of pycls.py and cirtorch.py.

Importing this package loads no torch: an importer's file is imported when it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ultron_cli.models.weights.importers import Imported, ImportTask


@dataclass(frozen=True)
class Importer:
    """How checkpoints of one source are read, and what they become."""

    models: tuple[str, ...]  # names as create_model takes them, sorted
    module: str  # below ultron_cli.models.weights
    function_name: str  # in that module

    def function(self) -> Callable[[ImportTask], Imported]:
        """The function, imported."""
        return getattr(importlib.import_module(f"ultron_cli.models.weights.{self.module}"), self.function_name)


# By the name that `ultron weights import --from` takes; those of pycls.py are also the names of its LAYOUTS.
IMPORTERS: dict[str, Importer] = {
    "dolg": Importer(("dolg-r101", "dolg-r50"), "pycls", "import_layout"),
    "cvnet": Importer(("superglobal",), "pycls", "import_layout"),
    "senet": Importer(("senet-r101", "senet-r50"), "pycls", "import_layout"),
    "cfcd": Importer(("cfcd-r101", "cfcd-r50"), "pycls", "import_layout"),
    "cirtorch": Importer(("gem",), "cirtorch", "import_cirtorch"),
    "timm": Importer(("gem",), "importers", "import_timm"),
}
