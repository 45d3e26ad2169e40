"""The flags that two or more commands share, and what several commands make of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ultron_cli import user_code
from ultron_cli.commands.choices import FORMATS, PROTOCOLS, metavar
from ultron_cli.configs import one_of, parse_scales, within
from ultron_cli.errors import UltronError
from ultron_cli.models import require_model
from ultron_cli.models.backbones import require_backbone
from ultron_cli.retrieval.rerank import RERANKERS, parse_rerank

if TYPE_CHECKING:
    from ultron_cli.datasets.protocols import Box
    from ultron_cli.models.weights.checkpoints import LoadedModel
    from ultron_cli.models.weights.model_choice import ModelChoice
    from ultron_cli.workspace import Workspace

MODEL = "Model"  # headings in the help
WHITENING = "Whitening"
INDEX = "Index"


def checked(check: Callable[[str, Any], object]) -> Callable[[typer.CallbackParam, Any], Any]:
    """A callback that checks a flag's value, or each of several. It runs before the command begins, which would first
    load torch for seconds. check: takes the setting's name and the value, and raises UltronError."""

    def callback(parameter: typer.CallbackParam, value: Any) -> Any:
        name = str(parameter.name)
        try:
            for part in value if isinstance(value, (list, tuple)) else [value]:
                if part is not None:
                    check(name, part)
        except UltronError as error:
            raise UltronError(error.for_command({name: parameter.opts[0]})) from None
        return value

    return callback


def choice(
    names: Sequence[str],
    *declarations: str,
    help: str,
    more_names: Sequence[str] = (),
    panel: str | None = None,
    by_path: bool = False,
) -> Any:
    """An option that takes one of these names, or (by_path) the import path of code, which may then be run."""
    every_name = (*names, *more_names)

    def check(name: str, value: str) -> None:
        if by_path and user_code.is_import_path(value):
            user_code.permit(value)
        else:
            one_of(name, value, every_name)

    return typer.Option(
        *declarations,
        metavar=metavar(every_name),
        help=help,
        rich_help_panel=panel,
        autocompletion=lambda incomplete: [name for name in every_name if name.startswith(incomplete)],
        callback=checked(check),
    )


def number(
    *declarations: str,
    help: str,
    low: float,
    high: float = float("inf"),
    metavar: str = "N",
    panel: str | None = None,
) -> Any:
    """An option that takes a number from `low` to `high`: every count, size and seed of a command."""
    return typer.Option(
        *declarations,
        metavar=metavar,
        help=help,
        rich_help_panel=panel,
        callback=checked(lambda name, value: within(name, value, low, high)),
    )


# Datasets
DatasetArgument = Annotated[str, typer.Argument(metavar="NAME|DIR", help="A dataset by name, or its folder.")]
GndFlag = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Ground truth, where the folder has none or several.")
]

# Models
ModelFlag = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Model of the core, for example gem or ultron-s (`ultron weights list`).",
        rich_help_panel=MODEL,
        callback=checked(lambda _, value: require_model(value)),
    ),
]
BackboneFlag = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Any timm backbone (`ultron doctor --backbones 'resnet*'`).",
        rich_help_panel=MODEL,
        callback=checked(lambda _, value: require_backbone(value)),
    ),
]
WeightsFlag = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A timm state dict, or a checkpoint of ultron.", rich_help_panel=MODEL),
]
RunFlag = Annotated[
    str | None,
    typer.Option(metavar="NAME|DIR", help="A training run: folder or name in the workspace.", rich_help_panel=MODEL),
]
SeedFlag = Annotated[int, number(help="Seed of --untrained.", low=0, panel=MODEL)]
UntrainedFlag = Annotated[
    bool, typer.Option("--untrained", help="Fresh random weights from --seed.", rich_help_panel=MODEL)
]
ModelSetFlag = Annotated[
    list[str] | None, typer.Option("--set", metavar="model.KEY=VALUE", help="A model setting.", rich_help_panel=MODEL)
]
ScalesFlag = Annotated[
    str | None,
    typer.Option(
        metavar="1|3|5|LIST",
        help="Image scales whose descriptors are averaged (3, or what the model is made for).",
        callback=checked(lambda _, value: parse_scales(value)),
    ),
]

# Searches
FormatFlag = Annotated[
    str, choice(FORMATS, "--format", help="How the result is printed: for a screen, or as a table for a paper.")
]
QueriesFlag = Annotated[Path | None, typer.Option(metavar="FILE", help="Descriptors of the queries.")]
DatabaseFlag = Annotated[Path | None, typer.Option(metavar="FILE", help="Descriptors of the database.")]
IndexFlag = Annotated[
    Path | None, typer.Option(metavar="DIR", help="An index to search with, instead of exact search.")
]
NprobeFlag = Annotated[
    int | None, number(help="Cells of an ivf index to look into; more finds more.", low=1, panel=INDEX)
]
EfSearchFlag = Annotated[
    int | None,
    number(help="Candidates on the way through an hnsw index; more finds more.", low=1, panel=INDEX),
]
RescoreFlag = Annotated[
    int | None,
    number(
        help="Candidates of an index, times k, that get exact scores from its descriptors; 0 none.", low=0, panel=INDEX
    ),
]
RerankFlag = Annotated[
    str | None,
    typer.Option(
        metavar="STEPS",
        help=f"Re-ranking steps in their order, of: {', '.join(RERANKERS)}, my.py:Step.",
        callback=checked(lambda _, value: parse_rerank(value, [])),
    ),
]
RerankSetFlag = Annotated[
    list[str] | None,
    typer.Option("--rerank-set", metavar="KEY=VALUE", help="A setting of a step, for example aqe.n=5."),
]
LocalFeaturesFlag = Annotated[
    list[Path] | None,
    typer.Option(
        "--local-features",
        metavar="FILE",
        help="Local features of the queries, then of the database, then of each file of distractors, for geometry "
        "(beside the descriptors).",
        rich_help_panel="Geometry",
    ),
]
WhitenFlag = Annotated[
    Path | None,
    typer.Option(
        "--whiten", metavar="FILE", help="A whitening of `ultron whiten` to apply.", rich_help_panel=WHITENING
    ),
]
DimFlag = Annotated[int | None, number("--dim", help="Dimensions to keep of --whiten (all).", low=1, panel=WHITENING)]
DatabaseWeightsFlag = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The weights that made the database, if they have moved.")
]

# Pictures of searches
QueryFlag = Annotated[str | None, typer.Option(metavar="NAME", help="A query of the search (that of median AP).")]
ProtocolFlag = Annotated[str, choice(PROTOCOLS, help="Protocol by which photos are right, wrong or ignored.")]
SystemsFlag = Annotated[
    list[Path] | None,
    typer.Option(
        "--ranks",
        metavar="FILE",
        help="A rank file (exact search of the latest extraction); given again, another search beside it.",
    ),
]
LabelFlag = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="TEXT", help="Name of each search in the picture, in their order (its model)."),
]
FigureFlag = Annotated[Path | None, typer.Option(metavar="FILE", help="File for the picture (.png, .pdf or .svg).")]

# Pictures of what a network does with the photos of a dataset
PhotosFlag = Annotated[str | None, typer.Option(metavar="NAME|DIR", help="Photos (those of the latest training run).")]
MaxSideFlag = Annotated[int, number(help="Longest side of a photo in pixels.", low=32, high=16384, metavar="PX")]
LeaveOutQueriesFlag = Annotated[
    bool,
    typer.Option(
        "--leave-out-queries",
        help="Leave a query that is in the database too out of its own ranking.",
        rich_help_panel="Queries in the database",
    ),
]


def current_workspace() -> "Workspace":
    """Where this command finds and leaves results and datasets: --workspace and --data-root, else their defaults."""
    from ultron_cli import console
    from ultron_cli.workspace import Workspace

    flags = {"root": console.settings.workspace, "data_root": console.settings.data_root}
    return Workspace(**{name: folder.expanduser() for name, folder in flags.items() if folder is not None})


def _numbers(text: str, form: str, flag: str) -> list[float]:
    """`3,4.5` as numbers, as many as form has (`X,Y`). Raises UltronError for anything else."""
    n = form.count(",") + 1
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != n or not all(map(math.isfinite, values)):
        raise UltronError(
            f"{flag} takes {form}, {n} numbers with commas between, in pixels of the whole photo; found {text!r}"
        )
    return values


def point_of(text: str, flag: str) -> tuple[float, float]:
    """A point from the command line. Raises UltronError for anything but `X,Y`."""
    x, y = _numbers(text, "X,Y", flag)
    return x, y


def box_of(text: str, flag: str) -> "Box":
    """A box from the command line. Raises UltronError for anything but `X1,Y1,X2,Y2` in this order."""
    x1, y1, x2, y2 = _numbers(text, "X1,Y1,X2,Y2", flag)
    if x1 >= x2 or y1 >= y2:
        raise UltronError(f"{flag} takes X1,Y1,X2,Y2 with X1 < X2 and Y1 < Y2; found {text!r}")
    return x1, y1, x2, y2


def require_one_each(flag: str, values: Sequence[object] | None, what: str, n: int) -> None:
    """Raises UltronError unless a flag that is given once per picture's part was given so, or not at all. what: such a
    part (`search`); n: how many there are."""
    if values and len(values) != n:
        raise UltronError(f"{flag} must be given once per {what}, found {len(values)} for {n}; give {n}, or none")


def require_unused(why: str, **flags: object) -> None:
    """Raises UltronError if flags were given that the others make void, naming those. why: the rule, as the beginning
    of a sentence; flags: values by the names of their settings, None or empty where a flag was not given."""
    from ultron_cli import console

    names = [console.settings.flags[name] for name, value in flags.items() if value is not None and value != []]
    if names:
        raise UltronError(f"{why}; leave out {' and '.join(names)}")


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """The values of a command's model flags; a command that lacks one leaves its default."""

    model: str | None = None
    backbone: str | None = None
    run: str | None = None
    weights: Path | None = None
    pretrained: bool = False
    untrained: bool = False
    seed: int = 0
    assignments: list[str] | None = None  # of --set, each model.KEY=VALUE

    def choice(self) -> "ModelChoice":
        """The model that they name. Raises UltronError for a setting that is none of a model."""
        from ultron_cli.configs import apply_set
        from ultron_cli.models.weights.model_choice import ModelChoice

        named = {"model": {"backbone": self.backbone} if self.backbone else {}}
        values = apply_set(named, self.assignments or [], example="model.p=4")
        foreign = [key for key in values if key != "model"]
        if foreign:
            raise UltronError(
                f"--set {foreign[0]}: only settings of the model can be set here; write model.KEY=VALUE (model.p=4)"
            )
        return ModelChoice(
            run=self.run,
            weights=self.weights,
            pretrained=self.pretrained,
            untrained=self.untrained,
            seed=self.seed,
            model=self.model,
            settings=values["model"],
            workspace=current_workspace(),
        )

    def load(self) -> "LoadedModel":
        """The same, loaded on the command's device, in evaluation mode."""
        from ultron_cli import console
        from ultron_cli.machine import resolve_device

        loaded = self.choice().load()
        loaded.model.to(resolve_device(console.settings.device)).eval()
        return loaded


def index_settings(
    nprobe: int | None, ef_search: int | None, rescore: int | None, index: Path | None
) -> dict[str, int]:
    """What the flags say of searching an index. Raises UltronError where there is none."""
    flags = {"nprobe": nprobe, "ef_search": ef_search, "rescore": rescore}
    settings = {name: value for name, value in flags.items() if value is not None}
    if settings and index is None:
        raise UltronError(f"--{next(iter(settings)).replace('_', '-')} belongs to an index; name one with --index")
    return settings
