"""`ultron datasets build-gnd`: photos of one's own become a dataset."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.choices import QUERY_RULES
from ultron_cli.commands.flags import choice, number

EXAMPLE = """
ultron datasets build-gnd holiday/
ultron datasets build-gnd photos/ --labels labels.csv --out mine/
"""


def command(
    source: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Photos: one folder per landmark, or any folder with --labels or --pairs."),
    ],
    *,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV of photo,landmark; also label (easy, hard, junk), role (query, database) and x1,y1,x2,y2.",
        ),
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV of query,photo; also label (easy, hard, junk).")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV of photo and x1,y1,x2,y2: the landmark in query photos, in pixels."),
    ] = None,
    query_rule: Annotated[str, choice(QUERY_RULES, help="Which photos of a landmark become queries.")] = "random",
    queries_per_landmark: Annotated[
        int, number(help="How many; at least one photo is left to find.", low=1, panel="Queries per landmark")
    ] = 1,
    seed: Annotated[int, number(help="Seed of --query-rule random.", low=0)] = 0,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="Name of the dataset (that of its folder).")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Another folder for the dataset; photos are linked, or copied, into its jpg/."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a ground truth that is there.")] = False,
) -> None:
    """Makes a dataset to evaluate on from photos of your own.

    It writes their ground truth. Photos in a folder `distractors`, photos without a landmark and photos without a line
    in the CSV are in the database and right for no query.
    """
    from ultron_cli.configs import one_of
    from ultron_cli.console import counted, lines, named, print_result
    from ultron_cli.datasets.build_gnd import GroundTruthConfig, build_ground_truth

    config = GroundTruthConfig(
        source=source,
        out=out,
        name=name,
        labels=labels,
        pairs=pairs,
        boxes=boxes,
        query_rule=one_of("query_rule", query_rule, QUERY_RULES),
        queries_per_landmark=queries_per_landmark,
        seed=seed,
        overwrite=overwrite,
    )
    summary = build_ground_truth(config)
    n_labels = summary["labels"]
    single_photo_landmarks = summary["single_photo_landmarks"]
    print_result(
        summary,
        lines(
            f"{summary['name']}: {counted(summary['queries'], 'query', 'queries')} "
            f"({counted(summary['boxes'], 'box', 'boxes')}) of "
            f"{counted(summary['landmarks'] - len(single_photo_landmarks), 'landmark')}, "
            f"{counted(summary['database'], 'database photo')}, "
            f"{n_labels['easy']} easy, {n_labels['hard']} hard and {n_labels['junk']} junk labels",
            f"{counted(len(single_photo_landmarks), 'landmark')} without a photo to ask with and one to find, kept as "
            f"distractors: {named(single_photo_landmarks)}"
            if single_photo_landmarks
            else None,
            str(summary["ground_truth"]),
            f"next: ultron extract {summary['folder']} --skip-bad, then ultron evaluate",
        ),
    )
