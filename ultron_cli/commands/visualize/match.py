"""`ultron visualize match`: where a part of the query is found again."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.choices import PROTOCOLS
from ultron_cli.commands.flags import (
    DatabaseFlag,
    FigureFlag,
    LabelFlag,
    ProtocolFlag,
    QueriesFlag,
    QueryFlag,
    SystemsFlag,
    box_of,
    current_workspace,
    number,
    point_of,
    require_unused,
)
from ultron_cli.commands.visualize.searches import labels_of, scenes_of
from ultron_cli.errors import UltronError

EXAMPLE = """
ultron visualize match --query all_souls_000013 --at 500,320
ultron visualize match --box 400,200,640,420 --photo all_souls_000051
ultron visualize match --geometry --ranks ranks.h5
ultron visualize match --geometry --ranks homography.h5 --ranks affine.h5
"""


def command(
    *,
    query: QueryFlag = None,
    photo: Annotated[
        list[str] | None,
        typer.Option(
            "--photo", metavar="NAME", help="A database photo to look in, instead of the best; may be given again."
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="X,Y", help="A point of the query, in pixels of the whole photo.")
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="X1,Y1,X2,Y2", help="A box of the query, in pixels of the whole photo.")
    ] = None,
    geometry: Annotated[
        bool,
        typer.Option(
            "--geometry", help="Local features of the whole query that one transform takes to the photo, as lines."
        ),
    ] = False,
    k: Annotated[int, number("-k", help="How many of the best photos.", low=1, high=10)] = 3,
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="A stage or layer by name (the last map before pooling).")
    ] = None,
    protocol: ProtocolFlag = "medium",
    ranks: SystemsFlag = None,
    label: LabelFlag = None,
    queries: QueriesFlag = None,
    database: DatabaseFlag = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The weights that made the descriptors, if they have moved.")
    ] = None,
    out: FigureFlag = None,
) -> None:
    """Shows where a part of the query is found again.

    It draws which places of database photos match a point or box of the query, by the cosine of local features; or,
    with --geometry, the local features of the extraction that verify them, of several --ranks side by side.
    """
    from ultron_cli import console
    from ultron_cli.configs import one_of
    from ultron_cli.console import print_result
    from ultron_cli.visualization.drawing import check_suffix
    from ultron_cli.visualization.inside.draw import MatchRequest, draw_match
    from ultron_cli.visualization.scene import PhotoChoice, file_name

    workspace = current_workspace()
    if geometry:
        require_unused("--geometry verifies the whole query", at=at, box=box, layer=layer, weights=weights)
    elif (at is None) == (box is None):
        raise UltronError(
            "choose a place of the query with either --at X,Y or --box X1,Y1,X2,Y2, in pixels of the whole photo"
        )
    point = point_of(at, "--at") if at else None
    rectangle = box_of(box, "--box") if box else None
    if out:
        check_suffix(out)
    protocol = one_of("protocol", protocol, PROTOCOLS)
    scenes = scenes_of(ranks, queries, database)
    labels, scene = labels_of([scene.model for scene in scenes], label, ranks), scenes[0]
    if len(scenes) > 1 and not geometry:
        raise UltronError("several searches are drawn side by side with --geometry; add it, or give --ranks once")
    row = scene.query_row(query, protocol)
    name = file_name(f"{Path(scene.ranking.query_names[row]).name}-{at or box or 'geometry'}")
    made_by = {"rankings": [scene.ranking.origin.to_json() for scene in scenes]}
    path = (
        out
        or workspace.result_folder(
            "visualize", file_name(f"match-{scene.ranking.origin.dataset}-{scene.model}"), made_by
        )
        / f"{name}.png"
    )
    photos = PhotoChoice(query_row=row, k=k, protocol=protocol, names=photo or [])
    if geometry:
        from ultron_cli.visualization.inside.geometry import draw_geometry

        verified = draw_geometry(scenes, labels, scene.ranking.query_names[row], photos, path)
        workspace.remember("visualize", path)
        lines = [f"query {verified['query']}"]
        for system in verified.get("systems", [{"search": "", "photos": verified.get("photos", [])}]):
            lines += [system["search"]] if system["search"] else []
            lines += [
                f"{entry['rank']:>4}  {entry['n_inliers']:>4} of {entry['n_matches']:>4} matches  {entry['name']}"
                + ("  promoted" if entry["promoted"] else "")
                for entry in system["photos"]
            ]
        print_result(verified, "\n".join([*lines, verified["figure"]]))
        return
    request = MatchRequest(
        photos=photos,
        device=console.settings.device,
        at=point,
        box=rectangle,
        layer=layer,
        weights=weights,
    )
    summary = draw_match(scene, request, path)
    workspace.remember("visualize", path)
    text = [
        f"{entry['rank']:>4}  {entry['cosine']:.4f} at {entry['best_px'][0]:g},{entry['best_px'][1]:g}  {entry['name']}"
        for entry in summary["photos"]
    ]
    print_result(summary, "\n".join([f"query {summary['query']} at {summary['place']}", *text, summary["figure"]]))
