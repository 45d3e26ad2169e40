"""`ultron datasets download|verify`: getting known datasets, and checking photos."""

from pathlib import Path
from typing import Annotated

import typer


def download(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Known datasets, see `ultron datasets list`.")],
    *,
    photos: Annotated[
        str | None,
        typer.Option(
            metavar="blurred|original",
            help="Oxford and Paris: faces blurred (as published today), or photos as before 2022.",
        ),
    ] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="Take files from URL/NAME/FILE first; may be repeated (mirrors.toml in the data root)."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Files at a time.")] = 4,
    retries: Annotated[
        int, typer.Option(help="Tries per address after a failure, as long as nothing arrives in between.")
    ] = 4,
    timeout: Annotated[
        float, typer.Option(help="Seconds of silence after which a connection counts as broken.")
    ] = 60.0,
    offline: Annotated[bool, typer.Option("--offline", help="Use only what is there (also ULTRON_OFFLINE=1).")] = False,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives", help="Keep archives below .downloads after unpacking.")
    ] = False,
) -> None:
    """Downloads known datasets, checks and unpacks them.

    Interrupted at any moment, the same command goes on where it stopped; done twice, it does nothing.
    """
    from ultron_cli.console import counted, print_result
    from ultron_cli.datasets.download.catalog import find_set
    from ultron_cli.datasets.download.fetching import FetchOptions
    from ultron_cli.datasets.download.install import Installation, InstallOptions
    from ultron_cli.datasets.download.mirrors import is_offline, read_mirrors
    from ultron_cli.workspace import data_root

    mirrors = read_mirrors(data_root(), mirror or [])
    installations = []
    for known in dict.fromkeys(
        map(find_set, names)
    ):  # every name and option is checked before the first byte is asked for
        options = InstallOptions(
            data_root=data_root(),
            mirrors=mirrors,
            fetch=FetchOptions(attempts=retries + 1, timeout_s=timeout),
            n_at_once=jobs,
            version=photos,
            offline=is_offline(offline),
            keep_archives=keep_archives,
        )
        installations.append(Installation(known, options))
    results, text = [], []
    for installation in installations:
        record = installation.run()
        name, needs = installation.known.name, installation.known.needs
        version = f", {record.photos_version} photos (by {record.version_known_by})" if record.photos_version else ""
        text.append(f"{name}: {installation.folder} ({counted(len(record.parts), 'file')} downloaded{version})")
        if needs and not (data_root() / needs).is_dir():
            text.append(f"{name} is a list of photos of {needs}: run `ultron datasets download {needs}` too")
        results.append(
            {
                "name": name,
                "folder": str(installation.folder),
                "photos_version": record.photos_version,
                "database": record.n_database,
                "queries": record.n_queries,
                "parts": [vars(part) for part in record.parts.values()],
                "needs": needs or None,
            }
        )
    print_result({"data_root": str(data_root()), "datasets": results}, "\n".join(text))


def verify(
    dataset: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A dataset by name, or its folder.")],
    *,
    gnd: Annotated[Path | None, typer.Option(help="Ground truth, where the folder has none or several.")] = None,
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
    from ultron_cli.workspace import data_root

    within("--workers", workers or 1, 1, 256)
    opened = open_named_dataset(dataset, gnd)
    report = verify_photos(opened, workers)
    path = write_bad_photos(opened.folder, report.bad, report.odd, report.n_checked)
    version = tell_version(opened, report, data_root())
    result = {
        "dataset": opened.name,
        "folder": str(opened.folder),
        "checked": report.n_checked,
        "counts": report.counts(),
        "used_bad": report.n_used_bad,
        "bad": [vars(finding) for finding in report.bad],
        "odd": [vars(finding) for finding in report.odd],
        "list": str(path),
        "photos_sha256": report.photos_sha256,
        "photos_version": version,
    }
    print_result(result, "\n".join([*report_lines(report, opened.name, version), str(path)]))
    return 1 if report.n_used_bad else 0
