"""The flags that two or more commands share, and what several commands make of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultron_cli.commands.choices import PROTOCOLS, metavar
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.rerank import RERANKERS

if TYPE_CHECKING:
    from ultron_cli.models.weights.checkpoints import LoadedModel
    from ultron_cli.models.weights.model_choice import ModelChoice
    from ultron_cli.workspace import Workspace

MODEL = "Model"  # headings in the help
WHITENING = "Whitening"
INDEX = "Index"

# Datasets
DatasetArgument = Annotated[str, typer.Argument(metavar="NAME|DIR", help="A dataset by name, or its folder.")]
GndFlag = Annotated[Path | None, typer.Option(help="Ground truth, where the folder has none or several.")]

# Models
ModelFlag = Annotated[
    str | None, typer.Option("--model", help="Model of the core, for example gem or ultron-s.", rich_help_panel=MODEL)
]
BackboneFlag = Annotated[str | None, typer.Option(help="Any timm backbone.", rich_help_panel=MODEL)]
WeightsFlag = Annotated[
    Path | None, typer.Option(help="A timm state dict, or a checkpoint of ultron.", rich_help_panel=MODEL)
]
RunFlag = Annotated[
    str | None, typer.Option(help="A training run: folder or name in the workspace.", rich_help_panel=MODEL)
]
SeedFlag = Annotated[int, typer.Option(help="Seed of --untrained.", rich_help_panel=MODEL)]
UntrainedFlag = Annotated[
    bool, typer.Option("--untrained", help="Fresh random weights from --seed.", rich_help_panel=MODEL)
]
ModelSetFlag = Annotated[
    list[str] | None, typer.Option("--set", metavar="model.KEY=VALUE", help="A model setting.", rich_help_panel=MODEL)
]

# Searches
QueriesFlag = Annotated[Path | None, typer.Option(help="Descriptors of the queries.")]
DatabaseFlag = Annotated[Path | None, typer.Option(help="Descriptors of the database.")]
IndexFlag = Annotated[Path | None, typer.Option(help="An index to search with, instead of exact search.")]
NprobeFlag = Annotated[
    int | None, typer.Option(help="Cells of an ivf index to look into; more finds more.", rich_help_panel=INDEX)
]
EfSearchFlag = Annotated[
    int | None,
    typer.Option(help="Candidates on the way through an hnsw index; more finds more.", rich_help_panel=INDEX),
]
RescoreFlag = Annotated[
    int | None,
    typer.Option(
        help="Candidates of an index, times k, that get exact scores from its descriptors; 0 none.",
        rich_help_panel=INDEX,
    ),
]
RerankFlag = Annotated[
    str | None,
    typer.Option(metavar="STEP[,STEP]", help=f"Re-ranking, in this order: {', '.join(RERANKERS)}."),
]
RerankSetFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--rerank-set", metavar="STEP.KEY=VALUE", help="A setting of a step, for example superglobal.beta=0.15."
    ),
]
WhitenFlag = Annotated[
    Path | None, typer.Option("--whiten", help="A whitening of `ultron whiten` to apply.", rich_help_panel=WHITENING)
]
DimFlag = Annotated[
    int | None, typer.Option("--dim", help="Dimensions to keep of --whiten (all).", rich_help_panel=WHITENING)
]
DatabaseWeightsFlag = Annotated[
    Path | None, typer.Option(help="The weights that made the database, if they have moved.")
]

# Pictures of searches
QueryFlag = Annotated[str | None, typer.Option(metavar="NAME", help="A query of the search (the first).")]
ProtocolFlag = Annotated[
    str,
    typer.Option(metavar=metavar(PROTOCOLS), help="Protocol by which photos are right, wrong or ignored."),
]
SystemsFlag = Annotated[
    list[Path] | None,
    typer.Option(
        "--ranks", help="A rank file (exact search of the latest extraction); given again, another search beside it."
    ),
]
LabelFlag = Annotated[
    list[str] | None, typer.Option("--label", help="Name of each search in the picture, in their order (its model).")
]
FigureFlag = Annotated[Path | None, typer.Option(help="File for the picture (.png, .pdf or .svg).")]

# Pictures of what a network does with the photos of a dataset
PhotosFlag = Annotated[str | None, typer.Option(metavar="NAME|DIR", help="Photos (those of the latest training run).")]
LeaveOutQueriesFlag = Annotated[
    bool,
    typer.Option("--leave-out-queries", help="Leave a query that is in the database too out of its own ranking."),
]
MaxSideFlag = Annotated[int, typer.Option(min=32, help="Longest side of a photo in pixels.")]


def current_workspace() -> "Workspace":
    """Where this command finds and leaves results and datasets: --workspace and --data-root, else their defaults."""
    from ultron_cli import console
    from ultron_cli.workspace import Workspace

    flags = {"root": console.settings.workspace, "data_root": console.settings.data_root}
    return Workspace(**{name: folder.expanduser() for name, folder in flags.items() if folder is not None})


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

        values = apply_set({"model": {"backbone": self.backbone} if self.backbone else {}}, self.assignments or [])
        foreign = [key for key in values if key != "model"]
        if foreign:
            raise UltronError(
                f"--set {foreign[0]}: only model settings can be set here (model.p=4); see `ultron extract --help`"
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
