"""`ultron datasets download`: known datasets from their publishers or a mirror."""

from typing import Annotated

import typer

from ultron_cli.commands.flags import current_workspace, number

EXAMPLE = """
ultron datasets download roxford5k rparis6k
ultron datasets download instre --mirror /mnt/datasets
"""


def command(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Known datasets, see `ultron datasets list`.")],
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
    jobs: Annotated[int, number(help="Files at a time.", low=1)] = 4,
    retries: Annotated[
        int, number(help="Tries per address after a failure, as long as nothing arrives in between.", low=0)
    ] = 4,
    timeout: Annotated[
        float, number(help="Seconds of silence after which a connection counts as broken.", low=0, metavar="S")
    ] = 60.0,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use only what is there (as ULTRON_OFFLINE does).")
    ] = False,
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

    workspace = current_workspace()
    mirrors = read_mirrors(workspace.data_root, mirror or [])
    installations = []
    for known in dict.fromkeys(
        map(find_set, names)
    ):  # every name and option is checked before the first byte is asked for
        options = InstallOptions(
            data_root=workspace.data_root,
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
        if needs and not (workspace.data_root / needs).is_dir():
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
    print_result({"data_root": str(workspace.data_root), "datasets": results}, "\n".join(text))
