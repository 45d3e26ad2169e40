"""`ultron datasets list`: datasets that are known, and those that are there."""

from ultron_cli.commands.flags import current_workspace

EXAMPLE = "ultron datasets list"


def command() -> None:
    """Lists known datasets and those that are there.

    Of known ones it tells size, licence, purpose and whether they are below the data root; then those of your own.
    """
    from ultron_cli.console import lines, print_result, table
    from ultron_cli.datasets.folder import summaries
    from ultron_cli.datasets.overview import KnownSetFacts, known_overview
    from ultron_cli.machine import size_text

    workspace = current_workspace()

    def about(entry: KnownSetFacts) -> str:
        n_bytes = entry["download_bytes"] or 0
        return size_text(n_bytes) if entry["download_bytes_of_all"] or not n_bytes else f"> {size_text(n_bytes)}"

    present = summaries(workspace.data_root)
    known = known_overview(workspace.data_root)
    rows = [
        (entry["name"], entry["state"], about(entry), entry["purpose"], entry["photos"], entry["licence"])
        for entry in known
    ]
    known_table = table(("known dataset", "state", "download", "what for", "photos", "licence"), rows, left=6)
    names = {entry["name"] for entry in known}
    rows = [
        (entry["name"], entry["database"], entry["queries"], entry["error"] or entry["folder"]) for entry in present
    ]
    present_table = "\n" + table(("dataset here", "database", "queries", "folder"), rows) if rows else None
    hint = (
        None
        if any(entry["name"] not in names for entry in present)
        else "render landmarks of your own with `ultron datasets make-toy`"
    )
    text = lines(
        known_table,
        present_table,
        f"data root: {workspace.data_root}; get one with `ultron datasets download NAME`; "
        "`?`: its publisher tells no size",
        hint,
    )
    print_result({"data_root": str(workspace.data_root), "datasets": present, "known": known}, text)
