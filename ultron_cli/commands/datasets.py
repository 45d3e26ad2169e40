"""`ultron datasets ...`: what is there, and rendering the toy landmarks."""

from pathlib import Path
from typing import Annotated

import typer


def list_datasets() -> None:
    """Lists the datasets below the data root."""
    from ultron_cli.console import print_result, table
    from ultron_cli.datasets.folder import summaries
    from ultron_cli.workspace import data_root

    found = summaries(data_root())
    rows = [(entry["name"], entry["database"], entry["queries"], entry["folder"]) for entry in found]
    text = table(("dataset", "database", "queries", "folder"), rows) if rows else f"no datasets in {data_root()}; render one with `ultron datasets make-toy`"
    print_result({"data_root": str(data_root()), "datasets": found}, text)


def info(
    dataset: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A dataset by name, or its folder.")],
    *,
    gnd: Annotated[Path | None, typer.Option(help="Ground truth, where the folder has none or several.")] = None,
) -> None:
    """Checks a dataset and tells its photos, queries and labels per protocol."""
    from ultron_cli.console import print_result, table
    from ultron_cli.datasets.folder import describe_dataset
    from ultron_cli.datasets.toy_default import open_named_dataset

    facts = describe_dataset(open_named_dataset(dataset, gnd))
    rows = [(key, value) for key, value in facts.items() if key != "protocols"]
    rows += [(f"{name} protocol", f"{part['queries_used']} queries, {part['positives']:.1f} positives each") for name, part in facts["protocols"].items()]
    print_result(facts, table(("", ""), rows, left=2))


def make_toy(
    *,
    out: Annotated[Path | None, typer.Option(help="Folder to render into (data root/toy).")] = None,
    seed: Annotated[int, typer.Option(help="Seed; the same seed gives the same files.")] = 0,
    train_landmarks: Annotated[int | None, typer.Option(help="Landmarks to train on.")] = None,
    eval_landmarks: Annotated[int | None, typer.Option(help="Other landmarks, to evaluate on.")] = None,
    max_side: Annotated[int | None, typer.Option(help="Longest side in pixels.")] = None,
    difficulty: Annotated[float | None, typer.Option(help="0 easy to 2 hard: spread of views, light and occlusion.")] = None,
) -> None:
    """Renders photos of made-up landmarks with exact ground truth, for trying and testing without any download."""
    from ultron_cli.console import print_result
    from ultron_cli.datasets.toy import ToyConfig
    from ultron_cli.datasets.toy_default import render_toy
    from ultron_cli.workspace import data_root

    given = {"n_train_landmarks": train_landmarks, "n_eval_landmarks": eval_landmarks, "max_side_px": max_side, "difficulty": difficulty}
    config = ToyConfig(seed=seed, **{key: value for key, value in given.items() if value is not None})
    folder = render_toy(out or data_root() / "toy", config)
    print_result({"folder": str(folder)}, str(folder))
