"""The command line: the Typer app, the flags that every command takes, and main(), which turns errors into one line."""

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ultron_cli import __version__, console
from ultron_cli.commands import (
    bench,
    compare,
    datasets,
    datasets_build,
    datasets_get,
    demo,
    doctor,
    evaluate,
    extract,
    index,
    search,
    serve,
    train,
    visualize,
    visualize_curves,
    visualize_inside,
    visualize_layers,
    weights,
    whiten,
)
from ultron_cli.errors import UltronError

PANEL = "Global options"
INTERRUPTED = 130  # what Typer makes of Ctrl-C
GlobalFlags: dict[str, tuple[Any, Any]] = {
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
        given = values.pop(name)
        if given is not None:
            setattr(settings, name, given)
    settings.json = values.pop("json") or settings.json
    verbose, quiet = values.pop("verbose"), values.pop("quiet")
    if verbose or quiet:
        settings.verbosity = 1 if verbose else -1
    console.start_log(settings.verbosity)


def with_global_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command `function` with the global flags added to its signature."""

    @functools.wraps(function)
    def command(**values: Any) -> Any:
        _take_global_flags(values)
        return function(**values)

    own = inspect.signature(function, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in GlobalFlags.items()
    ]
    command.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    command.__annotations__ = {
        parameter.name: parameter.annotation for parameter in command.__signature__.parameters.values()
    }  # type: ignore[attr-defined]
    return command


def _version(asked: bool) -> None:
    if asked:
        print(f"ultron {__version__}")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
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


def _add(to: typer.Typer, name: str, function: Callable[..., Any], example: str) -> None:
    to.command(name, epilog="Example:\n\n" + example.replace("\n", "\n\n"), no_args_is_help=False)(
        with_global_flags(function)
    )


def _group(name: str, summary: str) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, help=summary, rich_markup_mode=None)
    app.add_typer(group, name=name)
    return group


_add(app, "demo", demo.demo, "ultron demo")
_add(app, "train", train.train, "ultron train\nultron train --dataset photos/ --preset gem-r50-arcface --set epochs=20")
_add(
    app,
    "extract",
    extract.extract,
    "ultron extract --dataset roxford5k\nultron extract --dataset photos/ --backbone resnet50 --weights "
    "resnet50.pth --scales 3",
)
_add(
    app,
    "whiten",
    whiten.whiten,
    "ultron whiten train.h5 --method pca-whitening --dim 256 --out w.h5\nultron whiten train.h5 --method lw "
    "--labels labels.csv",
)
_add(app, "index", index.index, "ultron index\nultron index --type ivfpq --report")
_add(
    app,
    "search",
    search.search,
    "ultron search holiday.jpg -k 20\nultron search --rerank aqe,superglobal --rerank-set superglobal.beta=0.2",
)
_add(
    app,
    "evaluate",
    evaluate.evaluate,
    "ultron evaluate --protocol hard\nultron evaluate --rerank superglobal\nultron evaluate --distractors "
    "revisitop1m.h5",
)
_add(app, "serve", serve.serve, "ultron serve\nultron serve --index photos.index --rerank superglobal --port 0")
_add(app, "visualize-cam", visualize.cam, "ultron visualize-cam")
_add(app, "compare", compare.compare, "ultron compare before.json after.json")
_add(app, "doctor", doctor.doctor, "ultron doctor")
_add(
    app, "bench", bench.bench, "ultron bench\nultron bench --backbone resnet50 --side 640 --batch-size 8 --device cuda"
)
_visualize = _group("visualize", "Pictures of what a model does.")
_add(
    _visualize,
    "cam",
    visualize.cam,
    "ultron visualize cam --query all_souls_000013 -k 5\nultron visualize cam --ranks na.h5 --ranks scala.h5 "
    "--label NA --label SCALA --layer stage4 -k 3",
)
_add(
    _visualize,
    "ranks",
    visualize.ranks,
    "ultron visualize ranks --query all_souls_000013 -k 10\nultron visualize ranks --ranks before.h5 --ranks "
    "after.h5 --moves -k 8",
)
_add(_visualize, "tsne", visualize_layers.tsne, "ultron visualize tsne --perplexity 20")
_add(
    _visualize,
    "genotype",
    visualize_layers.genotype,
    "ultron visualize genotype skip:0/sep_spatial:0,sep:1/cbam:0,skip:2,sep:1/sep:0,skip:1,sep:3,dil:2",
)
_add(
    _visualize,
    "selectivity",
    visualize_layers.selectivity,
    "ultron visualize selectivity --run a --run b --dataset toy",
)
_add(
    _visualize,
    "match",
    visualize_inside.match,
    "ultron visualize match --query all_souls_000013 --at 500,320\nultron visualize match --box "
    "400,200,640,420 --photo all_souls_000051",
)
_add(
    _visualize,
    "dilation",
    visualize_inside.dilation,
    "ultron visualize dilation --dataset photos/ --photos 40\nultron visualize dilation --model ultron-t "
    "--untrained --dataset toy",
)
_add(
    _visualize,
    "attention",
    visualize_inside.attention,
    "ultron visualize attention --dataset photos/ --photo holiday --at 500,320 --stage 4",
)
_add(
    _visualize,
    "curves",
    visualize_curves.curves,
    "ultron visualize curves --run a --run b --label plain --label CDConv",
)
_add(
    _visualize,
    "precision-recall",
    visualize_curves.precision_recall,
    "ultron visualize precision-recall\nultron visualize precision-recall --ranks before.h5 --ranks after.h5 "
    "--protocol hard --out curves.pdf",
)
_add(
    _visualize,
    "recall-speed",
    visualize_curves.recall_speed,
    "ultron visualize recall-speed ivf.report.json ivfpq.report.json hnsw.report.json --at 10",
)
_add(
    _visualize,
    "ablation",
    visualize_curves.ablation,
    'ultron visualize ablation ablations.csv --metric "medium mAP" --out ablation.pdf',
)
_add(
    _visualize,
    "report",
    visualize.report,
    "ultron visualize report -k 20 --maps 3\nultron visualize report --ranks before.h5 --ranks after.h5",
)
_datasets = _group("datasets", "Photos and their ground truth.")
_add(_datasets, "list", datasets.list_datasets, "ultron datasets list")
_add(_datasets, "info", datasets.info, "ultron datasets info toy")
_add(
    _datasets,
    "download",
    datasets_get.download,
    "ultron datasets download roxford5k rparis6k\nultron datasets download instre --mirror /mnt/datasets",
)
_add(_datasets, "verify", datasets_get.verify, "ultron datasets verify roxford5k")
_add(
    _datasets,
    "build-gnd",
    datasets_build.build_gnd,
    "ultron datasets build-gnd holiday/\nultron datasets build-gnd photos/ --labels labels.csv --out mine/",
)
_add(_datasets, "make-toy", datasets.make_toy, "ultron datasets make-toy --out toy --seed 1")
_weights = _group("weights", "Weight files.")
_add(_weights, "list", weights.list_weights, "ultron weights list")
_add(_weights, "import", weights.import_file, "ultron weights import r101.pyth --from dolg --out dolg-r101.pt")
_add(_weights, "inspect", weights.inspect, "ultron weights inspect resnet50.pth")


def main(arguments: list[str] | None = None) -> int:
    """Runs a command. Returns 0 done, 1 the work failed, 2 bad usage or input; an unexpected error keeps its
    traceback."""
    # OpenMP's default is to wait spinning: with a decoding process or another program on the cores, 15 times slower.
    # Before torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    console.settings.__init__()  # a process may call main() more than once
    console.start_log(0)
    try:
        code = app(args=arguments, standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except UltronError as error:
        if console.settings.verbosity > 0:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    except typer.Abort:
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        # Typer's usage errors (unknown option, missing argument) know their message; all else is a bug.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        message = error.format_message()
        if not message.strip():  # `ultron` or `ultron visualize` alone: the help was asked for
            return 2
        print(f"error: {message} See `{context.command_path if context else 'ultron'} --help`.", file=sys.stderr)
        return 2
