"""`ultron train`: photos by landmark to a trained model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultron_cli.commands.choices import PRESETS
from ultron_cli.commands.flags import current_workspace
from ultron_cli.errors import UltronError
from ultron_cli.training.losses import LOSSES

if TYPE_CHECKING:
    from ultron_cli.training.autola.run import AutolaResult
    from ultron_cli.training.start import AutolaSummary, TrainSummary

EXAMPLE = """
ultron train
ultron train --dataset photos/ --preset gem-r50-arcface --set epochs=20
ultron train --descriptors train/database.h5
"""


def command(
    *,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Settings to start from (quickstart): {', '.join(PRESETS)}.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="A folder with one folder of photos per landmark, or GLDv2.")
    ] = None,
    descriptors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Train a head on these stored descriptors instead of a network on photos (preset linear-adaptation).",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="CSV of photo,landmark for --descriptors, where folders do not say the landmarks."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file whose settings replace the preset's.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help=f"One setting, for example epochs=20 or loss.name=cosface. Losses: {', '.join(LOSSES)}.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the run.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the interrupted run in --out, or with the latest; or with the finished one in --out and "
            "more epochs (--set epochs=N).",
        ),
    ] = False,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Only show the settings and where each came from.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Only list the runs of the workspace.")] = False,
) -> None:
    """Trains a model by landmark classification.

    With no argument it trains on rendered landmarks, in two to three minutes on two cores. --show-config shows every
    setting, those of the loss too; docs/models.md says what each loss is.

    --descriptors trains a head over the frozen network that made them, in minutes on a CPU; `ultron extract --run` then
    uses both.

    --preset autola-search looks for an attention instead (HOGA, AutoLA), on any folder of classes.

    On several GPUs: torchrun --nproc-per-node 8 -m ultron_cli train ...
    """
    from ultron_cli.console import print_result, settings, table

    if list_:
        from dataclasses import asdict

        from ultron_cli.training.run.folder import list_runs, runs_table

        runs = list_runs(current_workspace())
        print_result(
            {"runs": [asdict(run) for run in runs]},
            runs_table(runs) if runs else "no runs yet; start one with `ultron train`",
        )
        return
    if dataset and descriptors:
        raise UltronError("--descriptors are of a dataset already; leave out --dataset")
    named = {"descriptors": descriptors, "labels": labels}
    changes = [*(set_ or []), *(f"{key}={json.dumps(str(path.absolute()))}" for key, path in named.items() if path)]
    changes += [f"dataset={dataset}"] if dataset else []
    if show_config:
        from ultron_cli.training.presets import explain_config, load_config, start_preset

        preset = start_preset(preset, changes)
        sources = explain_config(preset, config, changes)
        rows = [(key, value, "--set" if source == "set" else source) for key, value, source in sources]
        result = {
            "config": load_config(preset, config, changes).to_plain(),
            "origin": {key: origin for key, _, origin in rows},
        }
        print_result(result, table(("setting", "value", "from"), rows, left=3, most=len(rows)))
        return
    if not resume:  # a mistyped setting is told before torch is loaded
        from ultron_cli.training.presets import load_config, start_preset

        load_config(start_preset(preset, changes), config, changes)
    from ultron_cli.allocator import keep_memory

    keep_memory()
    from ultron_cli.distributed import is_first_process
    from ultron_cli.training.start import TrainRequest, TrainSummary, start_training

    def draw(folder: Path, search: "AutolaResult | None" = None) -> None:
        from ultron_cli.visualization.curves.run_pictures import draw_run  # loads matplotlib: not before the training

        draw_run(folder, search)

    request = TrainRequest(
        preset=preset,
        config_file=config,
        assignments=tuple(changes),
        out=out,
        overwrite=overwrite,
        resume=resume,
    )
    summary = start_training(request, settings.device, draw, current_workspace())
    if is_first_process():
        text = _train_text(summary) if isinstance(summary, TrainSummary) else _search_text(summary)
        print_result(summary.to_plain(), text)


def _train_text(summary: "TrainSummary") -> str:
    """What a training did, for people."""
    from ultron_cli.console import counted
    from ultron_cli.training.run.journal import held_out_text

    last = summary.metrics[-1]
    held_out = f", {held_out_text(last)}" if held_out_text(last) else ""
    return (
        f"trained {summary.model} on {counted(summary.n_train_photos, 'photo')} of "
        f"{counted(summary.n_train_landmarks, 'landmark')} "
        f"in {summary.seconds:.0f} s: loss {last['loss']:.3f}, training accuracy "
        f"{100 * last['accuracy']:.1f} %{held_out}\n{summary.run}"
    )


def _search_text(summary: "AutolaSummary") -> str:
    """What a search found, for people: the weight of every operation on every edge, the chosen one of an edge
    marked."""
    from ultron_cli.console import table

    rows = []
    for edge in summary.edges:
        best = max(edge.weights[1:])  # the first, none, is never chosen
        cells = [f"{weight:.3f}{'*' if i and weight == best else ' '}" for i, weight in enumerate(edge.weights)]
        rows.append((f"{edge.input or 'group'} -> node {edge.node}", *cells))
    return "\n".join(
        [
            table(("edge", *summary.operations), rows),
            f"genotype {summary.genotype}",
            f"next: ultron train --set model.attention=hoga --set model.genotype={summary.genotype}",
            summary.genotype_file,
            summary.figure,
            summary.table,
        ]
    )
