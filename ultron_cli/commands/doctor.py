"""`ultron doctor`: what this installation has and where it keeps things."""

from typing import Annotated

import typer

from ultron_cli.commands.flags import current_workspace

EXAMPLE = "ultron doctor"


def command(
    *,
    backbones: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="List backbones that match (resnet*).")
    ] = None,
    build: Annotated[bool, typer.Option("--build", help="Compile the operators now, instead of at first use.")] = False,
) -> None:
    """Shows what this installation has.

    That is: versions, GPU, compiled operators (or why there are none), Faiss, datasets, workspace and data root.
    """
    from ultron_cli.console import cut, lines, print_result, table

    if backbones is not None:
        from ultron_cli.models.backbones import list_backbones

        names = list_backbones(backbones)
        shown, rest = cut(names, "backbones")
        print_result({"backbones": names}, lines(*shown, rest) or f"no backbone matches {backbones!r}")
        return
    from ultron_cli.doctor import examine

    facts = examine(current_workspace(), build=build)
    print_result(
        facts,
        table(
            ("", ""),
            [(key, value) for key, value in facts.items() if not isinstance(value, (dict, list))]
            + [(key, "\n".join(_lines(value))) for key, value in facts.items() if isinstance(value, (dict, list))],
            left=2,
        ),
    )


def _lines(value: dict[str, object] | list[object]) -> list[str]:
    if isinstance(value, dict):
        return [f"{key} {entry}" for key, entry in value.items()] or ["none"]
    return [str(entry) for entry in value] or ["none"]
