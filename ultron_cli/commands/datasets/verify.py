"""`ultron datasets verify`: decodes every photo of a dataset."""

from typing import Annotated

import typer

from ultron_cli.commands.flags import DatasetArgument, GndFlag, current_workspace

EXAMPLE = "ultron datasets verify roxford5k"


def command(
    dataset: DatasetArgument,
    *,
    gnd: GndFlag = None,
    workers: Annotated[int | None, typer.Option(help="Threads that decode (one per core).")] = None,
) -> int:
    """Decodes every photo: finds missing, empty, truncated and wrong-type photos and duplicates.

    Writes bad_photos.json into the dataset's folder; --skip-bad and training leave the photos on it out. Exit code 1 if
    the dataset uses a bad one.
    """
    from ultron_cli.configs import within
    from ultron_cli.console import print_result
    from ultron_cli.datasets.bad_photos import write_bad_photos
    from ultron_cli.datasets.named import open_named_dataset
    from ultron_cli.datasets.verify import report_lines, tell_version
    from ultron_cli.datasets.verify import verify as verify_photos

    workspace = current_workspace()
    within("workers", workers or 1, 1, 256)
    photos = open_named_dataset(dataset, gnd, workspace)
    report = verify_photos(photos, workers)
    path = write_bad_photos(photos.folder, report.bad, report.odd, report.n_checked)
    version = tell_version(photos, report, workspace.data_root)
    result = {
        "dataset": photos.name,
        "folder": str(photos.folder),
        "checked": report.n_checked,
        "counts": report.counts(),
        "used_bad": report.n_used_bad,
        "bad": [vars(finding) for finding in report.bad],
        "odd": [vars(finding) for finding in report.odd],
        "not_read": report.not_read,
        "list": str(path),
        "photos_sha256": report.photos_sha256,
        "photos_version": version,
    }
    print_result(result, "\n".join([*report_lines(report, photos.name, version), str(path)]))
    return 1 if report.n_used_bad else 0
