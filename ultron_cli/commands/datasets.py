"""`ultron datasets list|info|make-toy`: what is known and there, and rendering the toy landmarks."""

from pathlib import Path
from typing import Annotated, Any

import typer


def list_datasets() -> None:
    """Lists the known datasets (size, licence, what for, whether present) and those of your own below the data root."""
    from ultron_cli.console import lines, print_result, table
    from ultron_cli.datasets.download.install import size_text
    from ultron_cli.datasets.folder import summaries
    from ultron_cli.datasets.overview import known_overview
    from ultron_cli.workspace import data_root

    def about(entry: dict[str, Any]) -> str:
        n_bytes = entry["download_bytes"] or 0
        return size_text(n_bytes) if entry["download_bytes_of_all"] or not n_bytes else f"> {size_text(n_bytes)}"

    found, known = summaries(data_root()), known_overview(data_root())
    rows = [
        (entry["name"], entry["state"], about(entry), entry["purpose"], entry["photos"], entry["licence"])
        for entry in known
    ]
    text = table(("known dataset", "state", "download", "what for", "photos", "licence"), rows, left=6)
    names = {entry["name"] for entry in known}
    rows = [(entry["name"], entry["database"], entry["queries"], entry["error"] or entry["folder"]) for entry in found]
    there = table(("dataset here", "database", "queries", "folder"), rows) if rows else None
    hint = (
        None
        if any(entry["name"] not in names for entry in found)
        else "render landmarks of your own with `ultron datasets make-toy`"
    )
    text = lines(
        text,
        there,
        f"data root: {data_root()}; get one with `ultron datasets download NAME`; `?`: its publisher tells no size",
        hint,
    )
    print_result({"data_root": str(data_root()), "datasets": found, "known": known}, text)


def info(
    dataset: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A dataset by name, or its folder.")],
    *,
    gnd: Annotated[Path | None, typer.Option(help="Ground truth, where the folder has none or several.")] = None,
) -> None:
    """Checks a dataset and tells its photos, queries, labels and source; of a known one that is not there, its
    addresses and checksums."""
    from ultron_cli.console import print_result, table
    from ultron_cli.datasets.download.catalog import KNOWN_SETS
    from ultron_cli.datasets.overview import describe, describe_known
    from ultron_cli.workspace import data_root

    if dataset in KNOWN_SETS and not Path(dataset).is_dir() and not (data_root() / dataset).is_dir():
        known = describe_known(KNOWN_SETS[dataset], data_root())
        rows = [
            (key, value if not isinstance(value, list) else "\n".join(map(str, value)))
            for key, value in known.items()
            if key != "parts" and value
        ]
        file = {
            part["file"]: part["file"] + (f" ({part['version']})" if part["version"] else "") for part in known["parts"]
        }
        shown = [
            (file[part["file"]], part["addresses"][0] if part["addresses"] else "none", part["checked_by"])
            for part in known["parts"]
        ]
        shown = shown if len(shown) <= 12 else [*shown[:5], (f"... {len(shown) - 8} more", "", ""), *shown[-3:]]
        print_result(
            known, table(("", ""), rows, left=2) + "\n" + table(("file", "address", "checked by"), shown, left=3)
        )
        return
    facts = describe(dataset, gnd)
    hidden = ("protocols", "source", "version_known_by")
    rows = [(key, value) for key, value in facts.items() if key not in hidden and value not in (None, [])]
    rows += [
        (f"{name} protocol", f"{part['queries_used']} queries, {part['positives']:.1f} positives each")
        for name, part in facts["protocols"].items()
    ]
    for part in list((facts["source"] or {"parts": {}})["parts"].values())[:8]:
        rows.append(
            (
                part["file"],
                f"{part['address']} on {part['downloaded'][:10]}, {part['checked']}, SHA-256 {part['sha256']}",
            )
        )
    print_result(facts, table(("", ""), rows, left=2))


def make_toy(
    *,
    out: Annotated[Path | None, typer.Option(help="Folder to render into (data root/toy).")] = None,
    seed: Annotated[int, typer.Option(help="Seed; the same seed gives the same files.")] = 0,
    train_landmarks: Annotated[int | None, typer.Option(help="Landmarks to train on.")] = None,
    eval_landmarks: Annotated[int | None, typer.Option(help="Other landmarks, to evaluate on.")] = None,
    max_side: Annotated[int | None, typer.Option(help="Longest side in pixels.")] = None,
    difficulty: Annotated[
        float | None, typer.Option(help="0 easy to 2 hard: spread of views, light and occlusion.")
    ] = None,
) -> None:
    """Renders photos of made-up landmarks with exact ground truth, for trying and testing without any download."""
    from ultron_cli.console import print_result
    from ultron_cli.datasets.named import render_toy
    from ultron_cli.datasets.toy import ToyConfig
    from ultron_cli.workspace import data_root

    given = {
        "n_train_landmarks": train_landmarks,
        "n_eval_landmarks": eval_landmarks,
        "max_side_px": max_side,
        "difficulty": difficulty,
    }
    config = ToyConfig(seed=seed, **{key: value for key, value in given.items() if value is not None})
    folder = render_toy(out or data_root() / "toy", config)
    print_result({"folder": str(folder)}, str(folder))
