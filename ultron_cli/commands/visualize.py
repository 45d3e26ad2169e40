"""`ultron visualize ...`: pictures of what a model does."""

from pathlib import Path
from typing import Annotated, Any

import typer

QueryFlag = Annotated[list[str] | None, typer.Option("--query", metavar="NAME", help="A query of the search (the first); may be given again.")]
ProtocolFlag = Annotated[str, typer.Option(metavar="easy|medium|hard", help="Protocol by which photos are right, wrong or ignored.")]
RanksFlag = Annotated[Path | None, typer.Option(help="A rank file (exact search of the latest extraction).")]


def _scene(ranks: Path | None, queries: Path | None, database: Path | None, protocol: str) -> Any:
    """The search to draw: a rank file, or the exact search of descriptors."""
    from ultron_cli import console
    from ultron_cli.configs import one_of
    from ultron_cli.datasets.protocols import PROTOCOLS
    from ultron_cli.retrieval.searching import Found, latest_descriptors, search_files
    from ultron_cli.visualization.show import open_scene

    one_of("--protocol", protocol, tuple(PROTOCOLS))
    if ranks is None:
        return open_scene(search_files(*latest_descriptors(queries, database), None, console.settings.device))
    from ultron_cli.retrieval.ranks import read_ranks

    stored = read_ranks(ranks)
    return open_scene(Found(ranking=stored.ranking, query_names=stored.query_names, database_names=stored.database_names, origin=stored.provenance))


def cam(
    *,
    query: Annotated[str | None, typer.Option(metavar="NAME", help="A query of the search (the first).")] = None,
    photo: Annotated[
        list[str] | None, typer.Option("--photo", metavar="NAME", help="A database photo to compare with, instead of the best; may be given again.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many of the best photos.")] = 5,
    protocol: ProtocolFlag = "medium",
    method: Annotated[
        str, typer.Option(metavar="NAME", help="gradcam, gradcam++, hirescam, layercam, guided-backprop, guided-gradcam, or attention (ULTRON's pooling).")
    ] = "gradcam",
    layer: Annotated[str | None, typer.Option(metavar="NAME", help="A stage or layer by name (the last map before pooling).")] = None,
    ranks: RanksFlag = None,
    queries: Annotated[Path | None, typer.Option(help="Descriptors of the queries.")] = None,
    database: Annotated[Path | None, typer.Option(help="Descriptors of the database.")] = None,
    weights: Annotated[Path | None, typer.Option(help="The weights that made the descriptors, if they have moved.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures.")] = None,
) -> None:
    """Shows what makes a query and its best photos similar: Grad-CAM, or another --method, of the cosine between their descriptors."""
    from ultron_cli import console, workspace
    from ultron_cli.configs import one_of
    from ultron_cli.console import print_result
    from ultron_cli.visualization.cam import METHODS
    from ultron_cli.visualization.show import draw_cam, file_name

    one_of("--method", method, tuple(METHODS))
    scene = _scene(ranks, queries, database, protocol)
    row = scene.query_row(query)
    folder = out or workspace.result_folder(
        "visualize", f"cam-{scene.found.origin['dataset']}-{scene.model}-{file_name(Path(scene.found.query_names[row]).name)}".replace("/", "_")
    )
    summary = draw_cam(scene, row, k, protocol, folder, console.settings.device, method, weights, photo or [], layer)
    workspace.remember("visualize", folder)
    text = [f"{entry['rank']:>4}  {entry['cosine']:.4f}  {entry['verdict']:<8} {entry['name']}" for entry in summary["photos"]]
    print_result(summary, "\n".join([f"query {summary['query']}", *text, summary["figure"]]))


def ranks(
    *,
    query: QueryFlag = None,
    n_queries: Annotated[int, typer.Option("--queries-shown", min=1, help="How many queries, from the first, where none is named.")] = 1,
    k: Annotated[int, typer.Option("-k", min=1, help="Photos per query.")] = 10,
    protocol: ProtocolFlag = "medium",
    ranks: RanksFlag = None,
    queries: Annotated[Path | None, typer.Option(help="Descriptors of the queries.")] = None,
    database: Annotated[Path | None, typer.Option(help="Descriptors of the database.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for the picture (PNG).")] = None,
) -> None:
    """Shows a query and its best photos: right, wrong and ignored in frames of different colour and sign."""
    from ultron_cli import workspace
    from ultron_cli.console import print_result
    from ultron_cli.visualization.show import draw_ranks, file_name

    scene = _scene(ranks, queries, database, protocol)
    rows = [scene.query_row(name) for name in query] if query else list(range(min(n_queries, len(scene.found.query_names))))
    name = file_name(Path(scene.found.query_names[rows[0]]).name)
    path = out or workspace.result_folder("visualize", f"ranks-{scene.found.origin['dataset']}-{scene.model}".replace("/", "_")) / f"{name}-{protocol}.png"
    draw_ranks(scene, rows, k, protocol, path)
    workspace.remember("visualize", path)
    shown = [
        {
            "query": scene.found.query_names[row],
            "photos": [{"rank": p.rank, "name": p.name, "score": p.score, "verdict": p.verdict} for p in scene.ranked(row, k, protocol)],
        }
        for row in rows
    ]
    print_result({"figure": str(path), "queries": shown}, str(path))


def report(
    *,
    ranks: Annotated[list[Path] | None, typer.Option(help="A rank file; given twice, the second is compared with the first.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="Name of each search in the page, in their order.")] = None,
    k: Annotated[int, typer.Option("-k", help="Photos shown per query.")] = 10,
    thumbnail: Annotated[int, typer.Option(metavar="PIXELS", help="Longest side of a thumbnail.")] = 200,
    maps: Annotated[int, typer.Option(min=0, help="Pairs per query that get a similarity map; slow on a CPU.")] = 0,
    queries: Annotated[Path | None, typer.Option(help="Descriptors of the queries.")] = None,
    database: Annotated[Path | None, typer.Option(help="Descriptors of the database.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for the page (HTML).")] = None,
) -> None:
    """Writes one HTML file with the scores, every query's ranked photos and, on a click, pairs: opens without a server or network."""
    from ultron_cli import console, workspace
    from ultron_cli.console import print_result
    from ultron_cli.errors import UltronError
    from ultron_cli.visualization.report import ReportConfig, write_report

    paths: list[Path | None] = list(ranks) if ranks else [None]
    scenes = [_scene(path, queries, database, "medium") for path in paths]
    if label and len(label) != len(scenes):
        raise UltronError(f"--label must be given once per search, found {len(label)} for {len(scenes)}")
    same = len({scene.model for scene in scenes}) < len(scenes)
    labels = label or [f"{scene.model}, {path.parent.name}/{path.name}" if same and path else scene.model for scene, path in zip(scenes, paths, strict=True)]
    dataset = scenes[0].found.origin["dataset"]
    path = out or workspace.result_folder("visualize", f"report-{dataset}-{scenes[0].model}".replace("/", "_")) / "report.html"
    config = ReportConfig(k=k, thumbnail_px=thumbnail, n_maps=maps)
    write_report(list(zip(labels, scenes, strict=True)), config, f"{' and '.join(labels)} on {dataset}", path, console.settings.device)
    workspace.remember("visualize", path)
    print_result({"report": str(path)}, str(path))
