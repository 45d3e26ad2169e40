"""The command line: the Typer app, the flags that every command takes, and main(), which turns errors into one line."""

import functools
import importlib
import inspect
import keyword
import os
import sys
import traceback
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Protocol, cast

import typer
from typer.models import ArgumentInfo

from ultron_cli import __version__, console
from ultron_cli.errors import UltronError, install_line
from ultron_cli.machine import parse_bytes, set_memory_budget
from ultron_cli.processes import StoppedBySignal, signals_interrupt

# In the order of the help. `visualize precision-recall` is the function `command` of
# commands/visualize/precision_recall.py, with its EXAMPLE; a group's SUMMARY stands in commands/GROUP/__init__.py.
COMMANDS = (
    "demo",
    "train",
    "extract",
    "whiten",
    "index",
    "search",
    "evaluate",
    "serve",
    "visualize-cam",
    "compare",
    "doctor",
    "bench",
    "visualize cam",
    "visualize ranks",
    "visualize tsne",
    "visualize genotype",
    "visualize selectivity",
    "visualize match",
    "visualize dilation",
    "visualize attention",
    "visualize curves",
    "visualize precision-recall",
    "visualize recall-speed",
    "visualize ablation",
    "visualize report",
    "datasets list",
    "datasets info",
    "datasets download",
    "datasets verify",
    "datasets build-gnd",
    "datasets make-toy",
    "weights list",
    "weights import",
    "weights inspect",
)
PANEL = "Global options"
INTERRUPTED = 130  # what Typer makes of Ctrl-C
GLOBAL_FLAGS: dict[str, tuple[Any, Any]] = {
    "device": (
        Annotated[
            str | None, typer.Option(metavar="auto|cpu|cuda[:N]", help="Where to compute.", rich_help_panel=PANEL)
        ],
        None,
    ),
    "workspace": (
        Annotated[
            Path | None,
            typer.Option(help="Folder of results (ULTRON_WORKSPACE, ./ultron-runs).", rich_help_panel=PANEL),
        ],
        None,
    ),
    "data_root": (
        Annotated[
            Path | None,
            typer.Option(help="Folder of datasets (ULTRON_DATA, ~/.cache/ultron/data).", rich_help_panel=PANEL),
        ],
        None,
    ),
    "max_memory": (
        Annotated[
            str | None,
            typer.Option(
                metavar="SIZE",
                help="The most memory that reading one file may take (ULTRON_MAX_MEMORY, 3/4 of what is free).",
                rich_help_panel=PANEL,
            ),
        ],
        None,
    ),
    "json": (
        Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.", rich_help_panel=PANEL)],
        False,
    ),
    "verbose": (
        Annotated[
            bool, typer.Option("--verbose", "-v", help="More log lines; tracebacks of errors.", rich_help_panel=PANEL)
        ],
        False,
    ),
    "quiet": (
        Annotated[bool, typer.Option("--quiet", "-q", help="Warnings and errors only.", rich_help_panel=PANEL)],
        False,
    ),
}


def _take_global_flags(values: dict[str, Any]) -> None:
    """Moves the global flags out of `values` into console.settings; a flag given before or after the command counts."""
    settings = console.settings
    for name in ("device", "workspace", "data_root"):
        value = values.pop(name)
        if value is not None:
            setattr(settings, name, value)
    max_memory = values.pop("max_memory")
    if max_memory is not None:
        set_memory_budget(parse_bytes(max_memory, "--max-memory"))
    settings.json = values.pop("json") or settings.json
    verbose = values.pop("verbose")
    quiet = values.pop("quiet")
    if verbose or quiet:
        settings.verbosity = 1 if verbose else -1
    console.start_log(settings.verbosity)


def flags_of(parameters: Iterable[inspect.Parameter]) -> dict[str, str]:
    """The flags of a command, each under the name of its parameter and under its own: {"source": "--from", "from":
    "--from"}. A positional argument is shown as the help calls it."""
    flags: dict[str, str] = {}
    for parameter in parameters:
        (option,) = typing.get_args(parameter.annotation)[1:]
        names = (option.default, *(option.param_decls or ()))  # what is annotated has its first name as its default
        flag = next((name for name in names if isinstance(name, str) and name.startswith("-")), None)
        if isinstance(option, ArgumentInfo):
            flags[parameter.name] = option.metavar or parameter.name.upper()
        else:
            flag = flag or "--" + parameter.name.strip("_").replace("_", "-")
            flags[parameter.name] = flags[flag.lstrip("-").replace("-", "_")] = flag
    return flags


def with_global_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command `function` with the global flags added to its signature."""

    @functools.wraps(function)
    def command(**values: Any) -> Any:
        _take_global_flags(values)
        console.settings.flags.update(flags)
        return function(**values)

    signature = inspect.signature(function, eval_str=True)
    global_parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in GLOBAL_FLAGS.items()
    ]
    parameters = [*signature.parameters.values(), *global_parameters]
    flags = flags_of(parameters)
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # functions take any
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"ultron {__version__}")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Landmark retrieval experiments from photographs to mAP.

    Start with `ultron demo`, or: ultron train, ultron extract --dataset DIR, ultron evaluate --protocol all, ultron
    visualize-cam. What a command is not told it takes from the latest results in the workspace, and says so on stderr.
    """


app = typer.Typer(
    name="ultron", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
app.callback()(with_global_flags(_root))


class CommandModule(Protocol):
    """What a file of commands/ has."""

    command: Callable[..., Any]
    EXAMPLE: str  # one command line or more, each on its own line


def command_module(name: str) -> CommandModule:
    """The file of a command by its name: `weights import` is commands/weights/import_.py, as `import` is a keyword."""
    parts = [part.replace("-", "_") for part in name.split()]
    parts = [f"{part}_" if keyword.iskeyword(part) else part for part in parts]
    return cast(CommandModule, importlib.import_module(".".join(["ultron_cli.commands", *parts])))


def _add_commands() -> None:
    """Adds every command to the app, and a group before its first command."""
    groups: dict[str, typer.Typer] = {}
    for name in COMMANDS:
        *group_names, last = name.split()
        parent = app
        for group_name in group_names:  # at most one
            if group_name not in groups:
                summary = importlib.import_module(f"ultron_cli.commands.{group_name}").SUMMARY
                groups[group_name] = typer.Typer(no_args_is_help=True, help=summary, rich_markup_mode=None)
                app.add_typer(groups[group_name], name=group_name)
            parent = groups[group_name]
        module = command_module(name)
        epilog = "Example:\n\n" + module.EXAMPLE.strip().replace("\n", "\n\n")
        parent.command(last, epilog=epilog, no_args_is_help=False)(with_global_flags(module.command))


_add_commands()


def main(arguments: list[str] | None = None) -> int:
    """Runs a command. Returns 0 done, 1 the work failed, 2 bad usage or input; an unexpected error keeps its
    traceback."""
    # OpenMP's default is to wait spinning: with a decoding process or another program on the cores, 15 times slower.
    # Before torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    console.reset_settings()
    set_memory_budget(None)
    console.start_log(0)
    try:
        with signals_interrupt() as stopped_by:
            code = app(args=arguments, standalone_mode=False)
        if code == INTERRUPTED and stopped_by:
            raise StoppedBySignal(stopped_by[0])
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except UltronError as error:
        if console.settings.verbosity > 0:
            traceback.print_exc()
        print(f"error: {console.printable(error.for_command(console.settings.flags))}", file=sys.stderr)
        return error.exit_code
    except StoppedBySignal as stopped:
        print(f"stopped by {stopped}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    except typer.Abort:
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (line := install_line(error)):
            print(f"error: {line}", file=sys.stderr)
            return UltronError.exit_code
        # Typer's usage errors (unknown option, missing argument) know their message; all else is a bug.
        format_message: Callable[[], str] | None = getattr(error, "format_message", None)
        if format_message is None:
            raise
        context = getattr(error, "ctx", None)
        message = format_message()
        if not message.strip():  # `ultron` or `ultron visualize` alone: the help was asked for
            return 2
        print(
            f"error: {console.printable(message)} See `{context.command_path if context else 'ultron'} --help`.",
            file=sys.stderr,
        )
        return 2
