"""The command line: the Typer app, the flags that every command takes, and main(), which turns errors into one line."""

import functools
import gc
import importlib
import inspect
import keyword
import os
import sys
import traceback
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast

import typer
import typer.main
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.models import ArgumentInfo

from ultron_cli import __version__, console, user_code
from ultron_cli.commands.flags import checked
from ultron_cli.commands.values import refuse_output_among_inputs, with_reading
from ultron_cli.errors import UltronError, WorkFailed, install_line
from ultron_cli.machine import check_device_name, share_cores
from ultron_cli.memory import parse_bytes, set_memory_budget
from ultron_cli.output_files import NO_SPACE, write_failure
from ultron_cli.stops import StoppedBySignal, signals_interrupt, stop_behind, stop_line

# Importing torch makes a million objects that stay. With Python's own 700 they are gone through again and again, for a
# third of a second of a training's start.
OBJECTS_BETWEEN_COLLECTIONS = 50_000
EXPERIMENTS = "Experiments"  # headings in the help
PICTURES = "Pictures and pages"
DATA = "Data and weights"
MACHINE = "This machine"
SEARCHES = "Of searches"
NETWORKS = "Of networks"
SERIES = "Of several runs, indexes or settings"
# Every command under its heading, in the order of the help. `visualize precision-recall` is the function `command` of
# commands/visualize/precision_recall.py, with its EXAMPLE; a group's SUMMARY stands in commands/GROUP/__init__.py.
COMMANDS = {
    "demo": EXPERIMENTS,
    "train": EXPERIMENTS,
    "extract": EXPERIMENTS,
    "whiten": EXPERIMENTS,
    "index": EXPERIMENTS,
    "search": EXPERIMENTS,
    "fuse": EXPERIMENTS,
    "evaluate": EXPERIMENTS,
    "compare": EXPERIMENTS,
    "reproduce": EXPERIMENTS,
    "diagnose": EXPERIMENTS,
    "sweep": EXPERIMENTS,
    "visualize-cam": PICTURES,
    "serve": PICTURES,
    "doctor": MACHINE,
    "bench": MACHINE,
    "visualize cam": SEARCHES,
    "visualize ranks": SEARCHES,
    "visualize match": SEARCHES,
    "visualize precision-recall": SEARCHES,
    "visualize tsne": SEARCHES,
    "visualize report": SEARCHES,
    "visualize attention": NETWORKS,
    "visualize dilation": NETWORKS,
    "visualize selectivity": NETWORKS,
    "visualize genotype": NETWORKS,
    "visualize curves": SERIES,
    "visualize recall-speed": SERIES,
    "visualize ablation": SERIES,
    "datasets list": "Commands",
    "datasets info": "Commands",
    "datasets download": "Commands",
    "datasets verify": "Commands",
    "datasets leaks": "Commands",
    "datasets build-gnd": "Commands",
    "datasets make-toy": "Commands",
    "descriptors info": "Commands",
    "descriptors import": "Commands",
    "descriptors export": "Commands",
    "ranks info": "Commands",
    "ranks export": "Commands",
    "ranks import": "Commands",
    "weights list": "Commands",
    "weights import": "Commands",
    "weights export": "Commands",
    "weights inspect": "Commands",
}
GROUPS = {"visualize": PICTURES, "datasets": DATA, "descriptors": DATA, "ranks": DATA, "weights": DATA}
PANEL = "Global options"
INTERRUPTED = 130  # what Typer makes of Ctrl-C
GLOBAL_FLAGS: dict[str, tuple[Any, Any]] = {
    "device": (
        Annotated[
            str | None,
            typer.Option(
                metavar="NAME",
                help="Where to compute: auto, cpu, cuda or cuda:N.",
                rich_help_panel=PANEL,
                callback=checked(lambda _, value: check_device_name(value)),
            ),
        ],
        None,
    ),
    "workspace": (
        Annotated[
            Path | None,
            typer.Option(
                metavar="DIR", help="Folder of results (ULTRON_WORKSPACE, ./ultron-runs).", rich_help_panel=PANEL
            ),
        ],
        None,
    ),
    "data_root": (
        Annotated[
            Path | None,
            typer.Option(
                metavar="DIR", help="Folder of datasets (ULTRON_DATA, ~/.cache/ultron/data).", rich_help_panel=PANEL
            ),
        ],
        None,
    ),
    "code": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--code",
                metavar="FILE",
                help="Your Python file or module, which a checkpoint may use; may be given again.",
                rich_help_panel=PANEL,
                callback=checked(lambda _, value: user_code.require_source(value)),
            ),
        ],
        None,
    ),
    "changed_code": (
        Annotated[
            bool,
            typer.Option(
                "--changed-code",
                help="Take such code also where it has changed since then.",
                rich_help_panel=PANEL,
            ),
        ],
        False,
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
        Annotated[
            bool,
            typer.Option("--quiet", "-q", help="Errors only, and what --json prints.", rich_help_panel=PANEL),
        ],
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
    user_code.permit(*(values.pop("code") or []))
    if values.pop("changed_code"):
        user_code.take_changed()
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


class _Stopped(Exception):
    """Carries what stopped a command past Typer, which would make an exit code of it."""

    def __init__(self, stop: KeyboardInterrupt) -> None:
        super().__init__(str(stop))
        self.stop = stop


def with_global_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command `function` with the global flags added to its signature."""

    @functools.wraps(function)
    def command(**values: Any) -> Any:
        _take_global_flags(values)
        console.settings.flags.update(flags)
        refuse_output_among_inputs(values, flags)
        try:
            return function(**values)
        except KeyboardInterrupt as stop:
            raise _Stopped(stop) from stop

    signature = inspect.signature(function, eval_str=True)
    global_parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in GLOBAL_FLAGS.items()
    ]
    flags = flags_of([*signature.parameters.values(), *global_parameters])
    parameters = [
        with_reading(parameter, flags[parameter.name])
        for parameter in (*signature.parameters.values(), *global_parameters)
    ]
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
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Landmark retrieval experiments from photographs to mAP.

    Start with `ultron demo`, or with `ultron train`, `ultron extract --dataset DIR`, `ultron evaluate` and `ultron
    visualize-cam`. What a command is not told it takes from the latest results in the workspace, and says so on stderr.
    `ultron COMMAND --help` shows what a command takes, and an example.
    """


class _PlainHelp(TyperCommand if TYPE_CHECKING else object):
    """Help that shows arguments as people write them, `ultron search [QUERY.jpg]...`, and no types of Python."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                name = parameter.metavar or str(parameter.name).upper()
                usage = (name if parameter.required else f"[{name}]") + ("..." if parameter.nargs != 1 else "")
                vars(parameter).update(
                    get_usage_pieces=lambda ctx, usage=usage: [usage],
                    display_type_rich=lambda ctx: None,  # the name says it: FILE, DIR
                )

    def get_params(self, ctx: Any) -> list[Any]:  # its Context and Parameter are no public classes
        """All parameters, --help and those that Typer adds among them; a switch takes no value."""
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if isinstance(parameter, TyperOption) and parameter.is_flag:
                parameter.metavar = ""
        return parameters


class _Command(_PlainHelp, TyperCommand):
    """A command with that help."""


class _Group(_PlainHelp, TyperGroup):
    """A group of commands with that help."""


HELP_FLAGS = {"help_option_names": ["-h", "--help"]}


def help_text(docstring: str | None) -> str:
    """A docstring for the terminal: paragraphs of one line each, which the help wraps, and no markup."""
    paragraphs = inspect.cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).replace("[", "\\[")


class CommandModule(Protocol):
    """What a file of commands/ has."""

    command: Callable[..., Any]
    EXAMPLE: str  # one command line or more, each on its own line


def command_module(name: str) -> CommandModule:
    """The file of a command by its name: `weights import` is commands/weights/import_.py, as `import` is a keyword."""
    parts = [part.replace("-", "_") for part in name.split()]
    parts = [f"{part}_" if keyword.iskeyword(part) else part for part in parts]
    return cast(CommandModule, importlib.import_module(".".join(["ultron_cli.commands", *parts])))


def made_app(names: Iterable[str]) -> typer.Typer:
    """The app with the commands of these names, and a group before its first command."""
    app = typer.Typer(
        name="ultron",
        cls=_Group,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings=HELP_FLAGS,
    )
    app.callback(help=help_text(_root.__doc__))(with_global_flags(_root))
    groups: dict[str, typer.Typer] = {}
    for name in names:
        *group_names, last = name.split()
        parent = app
        for group_name in group_names:  # at most one
            if group_name not in groups:
                summary = importlib.import_module(f"ultron_cli.commands.{group_name}").SUMMARY
                groups[group_name] = typer.Typer(
                    cls=_Group,
                    no_args_is_help=True,
                    help=summary,
                    rich_markup_mode="rich",
                    context_settings=HELP_FLAGS,
                )
                app.add_typer(groups[group_name], name=group_name, rich_help_panel=GROUPS[group_name])
            parent = groups[group_name]
        module = command_module(name)
        add = parent.command(
            last,
            cls=_Command,
            help=help_text(module.command.__doc__),
            epilog="\n  ".join(("Example:", *module.EXAMPLE.strip().split("\n"))).replace("[", "\\["),
            no_args_is_help=False,
            context_settings=HELP_FLAGS,
            rich_help_panel=COMMANDS[name],
        )
        add(with_global_flags(module.command))
    return app


@functools.cache
def _root_command(name: str | None) -> Callable[..., object]:
    """The app, built once in a process: with one command alone, or with all of them, which takes a quarter of a second
    more."""
    return typer.main.get_command(made_app(COMMANDS if name is None else [name]))


def _drop_output() -> None:
    """What is still to be written to stdout, which takes no more, is not tried again when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _named_command(arguments: list[str]) -> str | None:
    """`visualize cam`: the command that arguments begin with, if they begin with one."""
    return next((name for name in COMMANDS if arguments[: len(name.split())] == name.split()), None)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command. Returns 0 done, 1 the work failed, 2 bad usage or input; an unexpected error keeps its
    traceback."""
    share_cores()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    name = _named_command(sys.argv[1:] if arguments is None else arguments)
    console.reset_settings()
    user_code.forget_permissions()
    set_memory_budget(None)
    console.start_log(0)
    console.prints_anything()
    try:
        with signals_interrupt() as stopped_by:
            code = _root_command(name)(args=arguments, prog_name="ultron", standalone_mode=False)
        if code == INTERRUPTED and stopped_by:
            raise StoppedBySignal(stopped_by[0])
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except UltronError as error:
        if console.settings.verbosity > 0:
            traceback.print_exc()
        print(console.labelled("error", error.for_command(console.settings.flags)), file=sys.stderr)
        return error.exit_code
    except _Stopped as stopped:
        print(stop_line(stopped.stop), file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(stop_line(stop), file=sys.stderr)
        return 1
    except typer.Abort:
        return 1
    except BrokenPipeError:
        _drop_output()
        return 0
    except Exception as error:
        if stop := stop_behind(error):
            print(stop_line(stop), file=sys.stderr)
            return 1
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            # Of what does not go through an OutputFile: the output itself, and libraries' temporary files.
            _drop_output()
            print(f"error: {write_failure(Path(error.filename or 'the output'), error).message}", file=sys.stderr)
            return WorkFailed.exit_code
        if isinstance(error, ModuleNotFoundError) and (line := install_line(error)):
            print(f"error: {line}", file=sys.stderr)
            return UltronError.exit_code
        if line := user_code.fault_of_user(error):
            if console.settings.verbosity > 0:
                traceback.print_exc()
            print(console.labelled("error", line), file=sys.stderr)
            return UltronError.exit_code
        # Typer's usage errors (unknown option, missing argument) know their message; all else is a bug.
        format_message: Callable[[], str] | None = getattr(error, "format_message", None)
        if format_message is None:
            raise
        context = getattr(error, "ctx", None)
        message = format_message()
        if not message.strip():  # `ultron` or `ultron visualize` alone: the help has been shown
            return 0
        # Of an option without its value Typer does not say whose it is.
        command = context.command_path if context else " ".join(filter(None, ("ultron", name)))
        hint = f"See `{command} --help`."
        print(console.labelled("error", f"{console.printable(message)} {hint}"), file=sys.stderr)
        return 2
