"""Ablations of the ULTRON network on rendered landmarks: one setting is changed at a time.

    python examples/ablations.py [--out ablations] [--seeds 0 1 2] [--write docs/models.md] [--set epochs=40 ...]
    python examples/ablations.py --quick        a few steps and one seed, to see that it runs; the numbers mean nothing

All variants have the same seeds and the same budget of photos; the table has mean and spread of mAP over the seeds.
Every run goes through the functions behind `ultron train`, `extract`, `search` and `evaluate`. The landmarks that are
searched are not among those that are trained on. A finished run stays in --out and is not made again unless its
settings change, so that the program can be stopped at any time. Every measurement is written to ablations.csv in --out,
which `ultron visualize ablation` draws. trained_models.py imports its runs, scores and tables from this file.
"""

import argparse
import csv
import hashlib
import io
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ultron_cli import __version__, console
from ultron_cli.configs import to_dict
from ultron_cli.console import log, markdown_table, table
from ultron_cli.datasets.named import render_toy
from ultron_cli.datasets.toy import ToyConfig
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import evaluate_ranking, find_gnd
from ultron_cli.files import replace_between, write_text
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, extract_dataset
from ultron_cli.retrieval.searching import search_files
from ultron_cli.schema.texts import read_json
from ultron_cli.training.presets import load_config
from ultron_cli.training.start import AutolaSummary, TrainRequest, TrainSummary, start_training
from ultron_cli.visualization.curves.run_pictures import draw_run
from ultron_cli.workspace import Workspace

# name -> the settings of the model that differ from its defaults
VARIANTS: dict[str, list[str]] = {
    "default (CDConv, gate none, MCK on key, attention pooling)": [],
    "plain depthwise convolution": ["model.depthwise=plain"],
    "gate multiply": ["model.gate=multiply"],
    "thresholds as quantiles": ["model.threshold=quantile"],
    "MCK on query": ["model.mck_on=query"],
    "MCK with bias": ["model.mck_bias=true"],
    "no MCK (NA)": ["model.mck_on=none"],
    "GeM pooling": ["model.pooling=gem"],
    "pooling's shift left in": ["model.pooling_shift=left"],
    "SimPool's beta": ["model.pooling_beta=true"],
    "query's GeM from 2, learnable": ["model.gem_p=2.0", "model.gem_p_learnable=true"],
}
QUICK_TOY = ToyConfig(
    n_train_landmarks=4, n_train_photos=4, n_eval_landmarks=3, n_database_photos=4, n_distractors=4, max_side_px=64
)
QUICK = ["epochs=1", "warmup_epochs=0", "batch_size=8", "side_px=32", "workers=0", "validation.share=0"]
PROTOCOLS = ("easy", "medium", "hard")
BEGIN, END = "<!-- begin: examples/ablations.py -->", "<!-- end: examples/ablations.py -->"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("ablations"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preset", default="ultron-t")
    parser.add_argument(
        "--set", dest="assignments", nargs="*", default=[], metavar="KEY=VALUE", help="training settings for all runs"
    )
    parser.add_argument("--only", nargs="*", default=[], help="variants whose name contains one of these words")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--write", type=Path, help="put the table into this file, between its markers")
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def score(run: TrainSummary | AutolaSummary, toy: Path, device: str, workspace: Workspace) -> dict[str, float]:
    """mAP (0..1) per protocol of a finished training run, on landmarks that it has not seen."""
    choice = ModelChoice(run=run.run)
    return score_model(choice, toy, 2 * run.config.side_px, Path(run.run) / "descriptors", device, workspace)


def score_model(
    model: ModelChoice, toy: Path, max_side_px: int, folder: Path, device: str, workspace: Workspace
) -> dict[str, float]:
    """mAP (0..1) per protocol of a model. Its descriptors are written into `folder`."""
    request = ExtractRequest(dataset=str(toy), max_side_px=max_side_px, overwrite=True, out=folder)
    extract_dataset(request, model, device, workspace)
    ranking = search_files(folder / "queries.h5", folder / "database.h5", None, device)
    evaluation = evaluate_ranking(ranking, find_gnd(None, ranking.origin))
    return {protocol: evaluation.protocols[protocol].mAP for protocol in PROTOCOLS}


def measured_once(parent: Path, settings: dict[str, Any], measure: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` returns for these settings, which is stored: it is called once for the same settings.

    measure: takes the folder below `parent` that belongs to the settings.
    """
    folder = parent / hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    if not (folder / "result.json").exists():
        write_text(folder / "result.json", console.dump_json(settings | measure(folder)))
    return read_json(folder / "result.json", "result of an ablation", dict[str, Any])


def run_one(name: str, assignments: Sequence[str], toy: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """mAP (0..1) per protocol of one training, read from its file if a run with the same settings is finished."""

    def train(folder: Path) -> dict[str, Any]:
        log.info("--- %s", name)
        # A run is remembered as the latest of its workspace, which must not be the one that the user works in.
        workspace = Workspace(root=arguments.out / "workspace")
        request = TrainRequest(
            preset=arguments.preset, dataset=str(toy), assignments=tuple(assignments), out=folder, overwrite=True
        )
        run = start_training(request, arguments.device, draw_run, workspace)
        return {"variant": name, "mAP": score(run, toy, arguments.device, workspace), "seconds": run.seconds}

    settings = {
        "config": to_dict(load_config(arguments.preset, None, assignments)),
        "toy": toy.name,
        "ultron_version": __version__,
    }
    return measured_once(arguments.out / "runs", settings, train)["mAP"]


def run_variant(variant: str, seed: int, toy: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """mAP (0..1) per protocol of one variant and seed."""
    assignments = [*(QUICK if arguments.quick else []), *arguments.assignments, *VARIANTS[variant], f"seed={seed}"]
    return run_one(f"{variant}, seed {seed}", assignments, toy, arguments)


def mean_and_spread(values: Sequence[float | None]) -> str:
    """Mean in percent as text, with the standard deviation where there are two values or more."""
    percent = [100 * value for value in values if value is not None]
    if not percent:
        return "no positives"
    return f"{statistics.mean(percent):.2f}" + (f" ± {statistics.stdev(percent):.2f}" if len(percent) > 1 else "")


def rows_of(results: dict[str, list[dict[str, float]]]) -> list[list[str]]:
    """One row per variant: its mAPs, and by how much its Medium differs from the first variant's with the same seed."""
    first = next(iter(results.values()))
    rows = []
    for variant, runs in results.items():
        differences = [run["medium"] - base["medium"] for run, base in zip(runs, first, strict=True)]
        change = "" if runs is first else mean_and_spread(differences)
        rows.append([variant, *(mean_and_spread([run[protocol] for run in runs]) for protocol in PROTOCOLS), change])
    return rows


def measurements_of(results: dict[str, list[dict[str, float]]], seeds: Sequence[int]) -> str:
    """Every measurement as CSV, which `ultron visualize ablation` draws: group, setting, seed, metric, value (0..1)."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["group", "setting", "seed", "metric", "value"])
    for variant, runs in results.items():
        for seed, run in zip(seeds, runs, strict=True):
            lines.writerows(
                ["", variant, seed, f"{protocol} mAP", run[protocol]]
                for protocol in PROTOCOLS
                if run[protocol] is not None
            )
    return text.getvalue()


def main() -> int:
    arguments = parse()
    if arguments.quick and arguments.write:
        raise UltronError("--quick measures nothing worth writing; leave out --write")
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    variants = [
        name for name in VARIANTS if not arguments.only or any(word.lower() in name.lower() for word in arguments.only)
    ]
    if not variants:
        raise UltronError(f"--only {' '.join(arguments.only)} names no variant (known: {'; '.join(VARIANTS)})")
    console.start_log(-1 if arguments.quick else 0)
    toy = render_toy(
        arguments.out / ("toy-quick" if arguments.quick else "toy"), QUICK_TOY if arguments.quick else ToyConfig()
    )
    results = {variant: [run_variant(variant, seed, toy, arguments) for seed in seeds] for variant in variants}
    write_text(arguments.out / "ablations.csv", measurements_of(results, seeds))
    columns, rows = ["mAP, %", *PROTOCOLS, "medium, against the first"], rows_of(results)
    print(table(columns, rows))
    if arguments.write:
        note = (
            f"{len(seeds)} seeds ({', '.join(map(str, seeds))}), preset "
            f"{arguments.preset}{''.join(f', {text}' for text in arguments.assignments)}."
        )
        replace_between(arguments.write, BEGIN, END, f"{markdown_table(columns, rows)}\n\n{note}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UltronError as error:
        sys.exit(f"error: {error}")
