"""`ultron weights list`: the models, and whose checkpoints can be imported."""

EXAMPLE = "ultron weights list"


def command() -> None:
    """Lists the models, and whose checkpoints can be imported."""
    from ultron_cli.console import lines, print_result, table
    from ultron_cli.models import list_models
    from ultron_cli.models.weights import IMPORTERS, models_of

    sources = {name: models_of(name) for name in IMPORTERS}
    text = lines(
        table(("import --from", "becomes"), [(name, ", ".join(models)) for name, models in sources.items()]),
        "models: " + ", ".join(list_models()),
    )
    print_result({"models": list_models(), "sources": sources}, text)
