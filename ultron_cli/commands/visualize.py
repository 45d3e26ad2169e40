"""`ultron visualize ...`: pictures of what a model does."""

from pathlib import Path
from typing import Annotated, Any

import typer

QueryFlag = Annotated[
    list[str] | None,
    typer.Option("--query", metavar="NAME", help="A query of the search (the first); may be given again."),
]
ProtocolFlag = Annotated[
    str, typer.Option(metavar="easy|medium|hard", help="Protocol by which photos are right, wrong or ignored.")
]
RanksFlag = Annotated[Path | None, typer.Option(help="A rank file (exact search of the latest extraction).")]
SystemsFlag = Annotated[
    list[Path] | None,
    typer.Option(
        "--ranks", help="A rank file (exact search of the latest extraction); given again, another search beside it."
    ),
]
LabelFlag = Annotated[
    list[str] | None, typer.Option("--label", help="Name of each search in the picture, in their order (its model).")
]


def searches(ranks: list[Path] | None, queries: Path | None, database: Path | None) -> list[Any]:
    """The searches to draw: of rank files, or the exact search of descriptors."""
    from ultron_cli import console
    from ultron_cli.retrieval.rankings import read_ranks
    from ultron_cli.retrieval.searching import latest_descriptors, search_files

    if not ranks:
        return [search_files(*latest_descriptors(queries, database), None, console.settings.device)]
    return [read_ranks(path) for path in ranks]


def scenes_of(ranks: list[Path] | None, queries: Path | None, database: Path | None, protocol: str) -> list[Any]:
    """The searches to draw, with their photos and ground truth; one where no or one rank file is named."""
    from ultron_cli.configs import one_of
    from ultron_cli.datasets.protocols import PROTOCOLS
    from ultron_cli.visualization.scene import open_scene

    one_of("--protocol", protocol, tuple(PROTOCOLS))
    return [open_scene(ranking) for ranking in searches(ranks, queries, database)]


def labels_of(models: list[str], label: list[str] | None, ranks: list[Path] | None) -> list[str]:
    """A name for each search: as given, else its model, with the file where two are of one model. Raises UltronError
    for too few or many."""
    from ultron_cli.errors import UltronError

    if label and len(label) != len(models):
        raise UltronError(f"--label must be given once per search, found {len(label)} for {len(models)}")
    same = len(set(models)) < len(models)
    if label or not same or not ranks:
        return label or models
    apart = len({path.name for path in ranks}) == len(ranks)
    return [
        f"{model}, {path.name if apart else f'{path.resolve().parent.name}/{path.name}'}"
        for model, path in zip(models, ranks, strict=True)
    ]


def cam(
    *,
    query: Annotated[str | None, typer.Option(metavar="NAME", help="A query of the search (the first).")] = None,
    photo: Annotated[
        list[str] | None,
        typer.Option(
            "--photo", metavar="NAME", help="A database photo to compare with, instead of the best; may be given again."
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many of the best photos.")] = 5,
    protocol: ProtocolFlag = "medium",
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="gradcam, gradcam++, hirescam, layercam, guided-backprop, guided-gradcam, or attention (ULTRON, "
            "simpool, cls).",
        ),
    ] = "gradcam",
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="NAME",
            help="A stage or layer by name (the last map before pooling); once, or once per model.",
        ),
    ] = None,
    ranks: SystemsFlag = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run", help="A training run whose model gets a column, for the photos of the search; may be given again."
        ),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            help="The weights that made the descriptors, if they have moved; given again or beside --run, "
            "checkpoints of ultron with a column each."
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="Name over each column, in their order (model or run).")
    ] = None,
    queries: Annotated[Path | None, typer.Option(help="Descriptors of the queries.")] = None,
    database: Annotated[Path | None, typer.Option(help="Descriptors of the database.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures.")] = None,
) -> None:
    """Shows what makes a query and its best photos similar: Grad-CAM, or another --method, of the cosine between their
    descriptors.

    Several --ranks, or several models by --run and --weights, are drawn in columns beside the photos.
    """
    from ultron_cli import console, workspace
    from ultron_cli.configs import one_of
    from ultron_cli.console import print_result
    from ultron_cli.visualization.cam.similarity import METHODS
    from ultron_cli.visualization.scene import draw_cam, file_name
    from ultron_cli.visualization.show_columns import draw_cam_columns

    one_of("--method", method, tuple(METHODS))
    scenes = scenes_of(ranks, queries, database, protocol)
    systems = _systems(scenes, ranks, run or [], weights or [], label, layer or [])
    scene, models = scenes[0], "-".join(system.label for system in systems) or scenes[0].model
    row = scene.query_row(query)
    name = scene.ranking.query_names[row]
    folder = out or workspace.result_folder(
        "visualize",
        f"cam-{scene.ranking.origin.dataset}-{models}-{file_name(Path(name).name)}"[:200].replace("/", "_"),
    )
    if systems:
        summary = draw_cam_columns(systems, name, k, protocol, method, folder, photo or [])
        entries = [(entry | {"model": part["model"]}) for part in summary["models"] for entry in part["photos"]]
    else:
        one_layer, moved = (layer or [None])[0], (weights or [None])[0]
        summary = draw_cam(
            scene, row, k, protocol, folder, console.settings.device, method, moved, photo or [], one_layer
        )
        entries = summary["photos"]
    workspace.remember("visualize", folder)
    text = [
        f"{entry['rank']:>4}  {entry['cosine']:.4f}  {entry['verdict']:<8} {entry['name']}  "
        f"{entry.get('model', '')}".rstrip()
        for entry in entries
    ]
    print_result(summary, "\n".join([f"query {summary['query']}", *text, summary["figure"]]))


def _systems(
    scenes: list[Any],
    ranks: list[Path] | None,
    run: list[str],
    weights: list[Path],
    label: list[str] | None,
    layer: list[str],
) -> list[Any]:
    """The models to draw in columns: of several searches, or of runs and checkpoints; none for the one model of one
    search."""
    from ultron_cli import console
    from ultron_cli.errors import UltronError
    from ultron_cli.models.weights.model_choice import ModelChoice
    from ultron_cli.visualization.show_columns import chosen_system, searched_system

    choices = (
        [ModelChoice(run=name) for name in run] + [ModelChoice(weights=path) for path in weights]
        if run or len(weights) > 1
        else []
    )
    if (run or weights) and len(scenes) > 1:
        raise UltronError(
            "several --ranks bring their own models; leave out --run and --weights, or give one --ranks for the photos"
        )
    n_models = len(choices) or len(scenes)
    if choices and n_models < 2:
        raise UltronError(
            "maps side by side need two models or more; give --run or --weights again, or search with the "
            "run's descriptors"
        )
    for flag, given, wanted in (
        ("--label", len(label or []), (0, n_models)),
        ("--layer", len(layer), (0, 1, n_models)),
    ):
        if given not in wanted:
            raise UltronError(f"{flag} must be given once per model, found {given} for {n_models}")
    if n_models == 1:
        return []
    layers = (layer * n_models if len(layer) == 1 else layer) or [None] * n_models
    device = console.settings.device
    if choices:
        names = label or [None] * n_models
        return [
            chosen_system(scenes[0], choice, name, at, device)
            for choice, name, at in zip(choices, names, layers, strict=True)
        ]
    names = labels_of([scene.model for scene in scenes], label, ranks)
    return [searched_system(scene, name, at, device) for scene, name, at in zip(scenes, names, layers, strict=True)]


def ranks(
    *,
    query: QueryFlag = None,
    n_queries: Annotated[
        int, typer.Option("--queries-shown", min=1, help="How many queries, from the first, where none is named.")
    ] = 1,
    k: Annotated[int, typer.Option("-k", min=1, help="Photos per query.")] = 10,
    protocol: ProtocolFlag = "medium",
    ranks: SystemsFlag = None,
    label: LabelFlag = None,
    moves: Annotated[
        bool, typer.Option("--moves", help="Arrows from each search to the next: how far photos moved up or down.")
    ] = False,
    queries: Annotated[Path | None, typer.Option(help="Descriptors of the queries.")] = None,
    database: Annotated[Path | None, typer.Option(help="Descriptors of the database.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for the picture (PNG).")] = None,
) -> None:
    """Shows a query and its best photos: right, wrong and ignored in frames of different colour and sign.

    Several --ranks are drawn one below the other, each with its AP of the query; --moves shows what changed between
    them.
    """
    from ultron_cli import workspace
    from ultron_cli.console import print_result
    from ultron_cli.errors import UltronError
    from ultron_cli.visualization.scene import draw_ranks, file_name
    from ultron_cli.visualization.show_columns import draw_systems

    scenes = scenes_of(ranks, queries, database, protocol)
    labels, scene = labels_of([scene.model for scene in scenes], label, ranks), scenes[0]
    if moves and len(scenes) < 2:
        raise UltronError("--moves compares searches; give --ranks twice, before and after")
    rows = (
        [scene.query_row(name) for name in query]
        if query
        else list(range(min(n_queries, len(scene.ranking.query_names))))
    )
    names = [scene.ranking.query_names[row] for row in rows]
    folder = f"ranks-{scene.ranking.origin.dataset}-{'-'.join(labels) if len(scenes) > 1 else scene.model}"[
        :200
    ].replace("/", "_")
    path = out or workspace.result_folder("visualize", folder) / f"{file_name(Path(names[0]).name)}-{protocol}.png"
    if len(scenes) > 1:
        draw_systems(scenes, labels, names, k, protocol, moves, path)
    else:
        draw_ranks(scene, rows, k, protocol, path)
    workspace.remember("visualize", path)
    shown = [
        {
            "query": name,
            "search": label,
            "ap": scene.average_precision(scene.query_row(name), protocol),
            "photos": [
                {"rank": p.rank, "name": p.name, "score": p.score, "verdict": p.verdict}
                for p in scene.ranked(scene.query_row(name), k, protocol)
            ],
        }
        for name in names
        for label, scene in zip(labels, scenes, strict=True)
    ]
    print_result({"figure": str(path), "queries": shown}, str(path))


def report(
    *,
    ranks: Annotated[
        list[Path] | None, typer.Option(help="A rank file; given twice, the second is compared with the first.")
    ] = None,
    label: LabelFlag = None,
    k: Annotated[int, typer.Option("-k", help="Photos shown per query.")] = 10,
    thumbnail: Annotated[int, typer.Option(metavar="PIXELS", help="Longest side of a thumbnail.")] = 200,
    maps: Annotated[int, typer.Option(min=0, help="Pairs per query that get a similarity map; slow on a CPU.")] = 0,
    queries: Annotated[Path | None, typer.Option(help="Descriptors of the queries.")] = None,
    database: Annotated[Path | None, typer.Option(help="Descriptors of the database.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for the page (HTML).")] = None,
) -> None:
    """Writes one HTML file with the scores, every query's ranked photos and, on a click, pairs: opens without a server
    or network."""
    from ultron_cli import console, workspace
    from ultron_cli.console import print_result
    from ultron_cli.visualization.report.report import ReportConfig, write_report

    scenes = scenes_of(ranks, queries, database, "medium")
    labels = labels_of([scene.model for scene in scenes], label, ranks)
    dataset = scenes[0].ranking.origin.dataset
    path = (
        out
        or workspace.result_folder("visualize", f"report-{dataset}-{scenes[0].model}".replace("/", "_")) / "report.html"
    )
    config = ReportConfig(k=k, thumbnail_px=thumbnail, n_maps=maps)
    write_report(
        list(zip(labels, scenes, strict=True)),
        config,
        f"{' and '.join(labels)} on {dataset}",
        path,
        console.settings.device,
    )
    workspace.remember("visualize", path)
    print_result({"report": str(path)}, str(path))
