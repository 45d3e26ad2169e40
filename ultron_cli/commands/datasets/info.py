"""`ultron datasets info`: photos, labels and source of one dataset."""

from pathlib import Path

from ultron_cli.commands.flags import DatasetArgument, GndFlag, current_workspace

EXAMPLE = "ultron datasets info toy"


def command(
    dataset: DatasetArgument,
    *,
    gnd: GndFlag = None,
) -> None:
    """Tells a dataset's photos, queries, labels and source.

    It checks them on the way. Of a known dataset that is not there it tells the addresses and checksums.
    """
    from ultron_cli.console import lines, named, print_result, table
    from ultron_cli.datasets.download.catalog import KNOWN_SETS
    from ultron_cli.datasets.overview import describe, describe_known

    workspace = current_workspace()
    if dataset in KNOWN_SETS and not Path(dataset).is_dir() and not (workspace.data_root / dataset).is_dir():
        known = describe_known(KNOWN_SETS[dataset], workspace.data_root)
        rows = [
            (_in_words(key), value if not isinstance(value, list) else "\n".join(map(str, value)))
            for key, value in known.items()
            if key != "parts" and value
        ]
        file_text = {
            part["file"]: part["file"] + (f" ({part['version']})" if part["version"] else "") for part in known["parts"]
        }
        parts = [
            (file_text[part["file"]], part["addresses"][0] if part["addresses"] else "none", part["checked_by"])
            for part in known["parts"]
        ]
        print_result(
            known,
            lines(table(("", ""), rows, left=2), table(("file", "address", "checked by"), parts, left=3, what="files")),
        )
        return
    facts = describe(dataset, gnd, workspace)
    hidden = ("protocols", "source", "version_known_by")
    rows = [
        (_in_words(key), named(value) if isinstance(value, list) else value)
        for key, value in facts.items()
        if key not in hidden and value not in (None, [])
    ]
    rows += [
        (f"{name} protocol", f"{part['queries_used']} queries, {part['positives']:.1f} positives each")
        for name, part in facts["protocols"].items()
    ]
    for part in (facts["source"] or {"parts": {}})["parts"].values():
        rows.append(
            (
                part["file"],
                f"{part['address']} on {part['downloaded'][:10]}, {part['checked']}, SHA-256 {part['sha256']}",
            )
        )
    print_result(facts, table(("", ""), rows, left=2))


def _in_words(key: str) -> str:
    """A key of the JSON for people: `missing photos`."""
    return key.replace("_", " ")
