"""`ultron visualize-cam`: the same as `ultron visualize cam`."""

from ultron_cli.commands.visualize.cam import command

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ultron visualize-cam"
