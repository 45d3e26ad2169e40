"""Weight files: checkpoints.py is a model's own file, model_choice.py loads the model that a command names,
importers.py reads other authors' files by the importers that the models name; pycls.py and cirtorch.py know two
layouts.

Importing this package loads no torch: an importer's file is imported when it is used.
"""

from ultron_cli.models import MODELS, Importer

# By the name that `ultron weights import --from` takes: those that the entries of MODELS name.
IMPORTERS: dict[str, Importer] = {
    source: importer for entry in MODELS.values() for source, importer in entry.importers.items()
}


def models_of(source: str) -> list[str]:
    """The models that checkpoints of a source become, by name, sorted."""
    return sorted(name for name, entry in MODELS.items() if source in entry.importers)
