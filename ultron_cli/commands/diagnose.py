"""`ultron diagnose`: why descriptors, or a score, are not those of somebody else."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import DimFlag, WhitenFlag, number, require_unused
from ultron_cli.errors import UltronError

EXAMPLE = """
ultron diagnose queries.h5 --against theirs.h5
ultron diagnose queries.h5 --expected
"""


def command(
    descriptors: Annotated[
        Path, typer.Argument(metavar="MINE.h5", help="Descriptors of `ultron extract`: queries.h5 or database.h5.")
    ],
    *,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="REF.h5",
            help="Descriptors of the same photos, made elsewhere: HDF5 with /names and /descriptors, in any order.",
        ),
    ] = None,
    expected: Annotated[
        bool,
        typer.Option("--expected", help="Instead: what differs from the protocol of this model's published score."),
    ] = False,
    n_photos: Annotated[int, number(help="Photos that are described again, at most.", low=1, high=1000)] = 10,
    dataset: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the photos, if they have moved.")
    ] = None,
    gnd: Annotated[Path | None, typer.Option(metavar="FILE", help="Ground truth, if it has moved.")] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The weights that made MINE.h5, if they have moved.")
    ] = None,
    whiten: WhitenFlag = None,
    dim: DimFlag = None,
) -> None:
    """Says why descriptors differ from somebody else's.

    Some ten photos are described again with one setting changed at a time: crop, channels, mean and sd, resizing,
    scales, pooling, flips, EXIF, whitening and so on. What brings MINE.h5 to REF.h5 is named, with what mends it.
    """
    from ultron_cli import console
    from ultron_cli.console import print_result, progress
    from ultron_cli.evaluation.diagnose.published import published_differences
    from ultron_cli.retrieval.whitening import chosen_whitening

    if expected == (against is not None):
        raise UltronError(
            "MINE.h5 must be held against one thing; name --against REF.h5, or --expected for a published score"
        )
    if expected:
        require_unused(
            "--expected reads what MINE.h5 records, not photos",
            **{"dataset": dataset, "gnd": gnd, "weights": weights, "whiten": whiten, "dim": dim},
        )
        print_result(*published_differences(descriptors))
        return
    assert against is not None
    from ultron_cli.evaluation.diagnose.diagnosis import DiagnoseRequest, diagnose
    from ultron_cli.machine import resolve_device

    request = DiagnoseRequest(
        ours=descriptors,
        reference=against,
        n_photos=n_photos,
        dataset=dataset,
        gnd=gnd,
        weights=weights,
        whitening=chosen_whitening(whiten, dim),
    )
    with progress(total=None, what="diagnose", unit="variant") as bar:
        diagnosis = diagnose(request, resolve_device(console.settings.device), on_try=bar.update)
    print_result(diagnosis.to_json(), diagnosis.to_text())
