"""The searches that a picture shows: of rank files, or the exact search of descriptors."""

from pathlib import Path
from typing import TYPE_CHECKING

from ultron_cli.commands.flags import current_workspace, require_one_each, require_unused

if TYPE_CHECKING:
    from ultron_cli.retrieval.rankings import Ranking
    from ultron_cli.visualization.scene import Scene


def searches(ranks: list[Path] | None, queries: Path | None, database: Path | None) -> list["Ranking"]:
    """The searches to draw: of rank files, or the exact search of descriptors. With none of them named and an
    extraction that has no queries, as of photos of one's own, that is the latest `ultron search`."""
    from ultron_cli import console
    from ultron_cli.retrieval.rankings import read_ranks
    from ultron_cli.retrieval.searching import latest_descriptors, search_files

    if ranks:
        require_unused("--ranks holds the search already", queries=queries, database=database)
        return [read_ranks(path) for path in ranks]
    workspace = current_workspace()
    if queries is None and database is None and workspace.latest("search"):
        extraction = workspace.latest("extract")
        if extraction is None or not (extraction / "queries.h5").exists():
            return [read_ranks(workspace.take_latest("search", "name a rank file with --ranks"))]
    files = latest_descriptors(queries, database, workspace)
    return [search_files(*files, None, console.settings.device)]


def scenes_of(ranks: list[Path] | None, queries: Path | None, database: Path | None) -> list["Scene"]:
    """The searches to draw, with their photos and ground truth; one where no or one rank file is named."""
    from ultron_cli.visualization.scene import open_scene

    return [open_scene(ranking) for ranking in searches(ranks, queries, database)]


def labels_of(models: list[str], label: list[str] | None, ranks: list[Path] | None) -> list[str]:
    """A name for each search: as given, else its model, with the file where two are of one model, and the file alone
    where all are (but the model where they are one file, named again for another layer). Raises UltronError for too few
    or many."""
    require_one_each("--label", label, "search", len(models))
    same = len(set(models)) < len(models)
    if label or not same or not ranks or len(set(ranks)) == 1:
        return label or models
    apart = len({path.name for path in ranks}) == len(ranks)
    files = [path.name if apart else f"{path.resolve().parent.name}/{path.name}" for path in ranks]
    if len(set(models)) == 1:
        return files
    return [f"{model}, {file}" for model, file in zip(models, files, strict=True)]
