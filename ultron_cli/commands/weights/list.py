"""`ultron weights list`: the models, and whose checkpoints can be imported."""

EXAMPLE = "ultron weights list"


def command() -> None:
    """Lists the models, and whose checkpoints can be imported."""
    from ultron_cli.console import lines, print_result, table
    from ultron_cli.models import list_models
    from ultron_cli.models.weights import IMPORTERS

    sources = {name: list(importer.models) for name, importer in IMPORTERS.items()}
    text = lines(
        table(("import --from", "becomes"), [(name, ", ".join(models)) for name, models in sources.items()]),
        "models: " + ", ".join(list_models()),
    )
    print_result({"models": list_models(), "sources": sources}, text)
