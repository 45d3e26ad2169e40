"""Every method, or every loss, trained from nothing on rendered landmarks: mAP before and after, mean and spread over
seeds.

    python examples/trained_models.py [--out trained] [--seeds 0 1 2] [--write docs/models.md] [--set epochs=40 ...]
    python examples/trained_models.py --table losses [...]     the losses, all over one network

All methods have one budget of photos. They stand on small networks, so that a laptop can train them: on timm's
test_resnet (0.5 M parameters) where they are published on ResNet-50 or 101, on small transformers elsewhere. So the
table shows that each of them learns and what it costs, not which is best on photographs. Landmarks that are searched
are not among those that are trained on. Runs are made seed after seed, and a finished run stays in --out, so that the
program can be stopped at any time.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from ablations import PROTOCOLS, mean_and_spread, measured_once, run_one, score_model

from ultron_cli import __version__, console
from ultron_cli.console import markdown_table, table
from ultron_cli.datasets.named import render_toy
from ultron_cli.datasets.toy import ToyConfig
from ultron_cli.errors import UltronError
from ultron_cli.files import replace_between
from ultron_cli.models import create_model
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.training.presets import load_config
from ultron_cli.workspace import Workspace

RESNET = ["model.backbone=test_resnet"]
# Networks of convolutions learn sooner with SGD and smaller photos than with AdamW, senet excepted.
WITH_SGD = ["optimizer=sgd", "lr=0.1", "weight_decay=0.0005", "side_px=64", "batch_size=32"]
WITH_ADAMW = ["optimizer=adamw", "lr=0.001", "side_px=64"]
# Transformers are trained in smaller batches, and so in more steps for the same number of photos.
SWIN = ["model.backbone=test_swin", *WITH_ADAMW, "batch_size=16"]
SYSTEMS: dict[str, list[str]] = {
    "ultron-t": [],
    "gem over test_resnet": ["model.name=gem", *RESNET, *WITH_SGD],
    "dolg over test_resnet": [
        "model.name=dolg-r50",
        *RESNET,
        "model.atrous_dim=64",
        "model.local_dim=128",
        "model.dilations=[1,2,3]",
        *WITH_SGD,
    ],
    "superglobal over test_resnet": ["model.name=superglobal", *RESNET, "model.descriptor_dim=256", *WITH_SGD],
    "cfcd over test_resnet": ["model.name=cfcd-r50", *RESNET, "model.descriptor_dim=256", *WITH_SGD],
    "senet over test_resnet": [
        "model.name=senet-r50",
        *RESNET,
        "model.descriptor_dim=256",
        "model.similarity_dim=32",
        *WITH_ADAMW,
        "batch_size=32",
    ],
    "dalg over test_swin": [
        "model.name=dalg",
        *SWIN,
        "model.dim=128",
        "model.n_heads=4",
        "model.descriptor_dim=256",
        "model.window=4",
    ],
    "se in test_resnet": ["model.name=gem", *RESNET, "model.attention=se", *WITH_SGD],
    "eca in test_resnet": ["model.name=gem", *RESNET, "model.attention=eca", *WITH_SGD],
    "sca in test_resnet": ["model.name=gem", *RESNET, "model.attention=sca", *WITH_SGD],
    "glam in test_resnet": ["model.name=gem", *RESNET, "model.attention=glam", *WITH_SGD],
    "cbam in test_resnet": ["model.name=gem", *RESNET, "model.attention=cbam", *WITH_SGD],
    "hoga in test_resnet": ["model.name=gem", *RESNET, "model.attention=hoga", *WITH_SGD],
    "ggem over test_swin": ["model.name=gem", *SWIN, "model.pooling=ggem"],
}
# All over `gem over test_resnet`. At the rate of the others batch-hard triplets end below the untrained network; the
# contrastive loss learned nothing in 240 steps with its own margin.
OVER_GEM = ["model.name=gem", *RESNET, *WITH_SGD]
CONTRASTIVE = [*OVER_GEM, "loss.name=contrastive", "loss.margin=1.0"]
SLOWER = ["lr=0.02"]
LOSSES: dict[str, list[str]] = {
    "arcface": OVER_GEM,
    "contrastive": CONTRASTIVE,
    "mined tuples": [*CONTRASTIVE, "loss.batches=mined", "loss.negatives=6", *SLOWER],
    "triplet, semi-hard": [*OVER_GEM, "loss.name=triplet", *SLOWER],
    "triplet, batch-hard": [*OVER_GEM, "loss.name=triplet", "loss.mining=batch-hard", *SLOWER],
    "multi-similarity": [*OVER_GEM, "loss.name=multi-similarity"],
    "ntxent": [*OVER_GEM, "loss.name=ntxent"],
    "smooth-ap": [*OVER_GEM, "loss.name=smooth-ap"],
    "fastap": [*OVER_GEM, "loss.name=fastap"],
}
# Of each table: its systems, and what its markers in a page are called.
TABLES = {"networks": (SYSTEMS, "examples/trained_models.py"), "losses": (LOSSES, "examples/trained_models.py losses")}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("trained"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--set", dest="assignments", nargs="*", default=[], metavar="KEY=VALUE", help="training settings for all runs"
    )
    parser.add_argument("--table", choices=TABLES, default="networks")
    parser.add_argument("--only", nargs="*", default=[], help="systems whose name contains one of these words")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--write", type=Path, help="put the table into this file, between its markers")
    parser.set_defaults(preset="quickstart")
    return parser.parse_args()


def before_and_after(
    name: str, system: list[str], seed: int, toy: Path, arguments: argparse.Namespace
) -> tuple[dict[str, float], dict[str, float]]:
    """mAP (0..1) per protocol of the network as the seed makes it, and of the trained one. system: its settings."""
    assignments = [*system, *arguments.assignments, f"seed={seed}"]
    after = run_one(f"{name}, seed {seed}", assignments, toy, arguments)
    config: Any = load_config(arguments.preset, None, assignments)
    settings = {key: value for key, value in config.model.items() if key != "name"}
    choice = ModelChoice(untrained=True, seed=seed, model=config.model["name"], settings=settings)
    measured = {
        "model": config.model,
        "seed": seed,
        "side_px": config.side_px,
        "toy": toy.name,
        "ultron_version": __version__,
    }
    workspace = Workspace(root=arguments.out / "workspace")
    before = measured_once(
        arguments.out / "untrained",
        measured,
        lambda folder: {"mAP": score_model(choice, toy, 2 * config.side_px, folder, arguments.device, workspace)},
    )
    return before["mAP"], after


def row_of(
    name: str, system: list[str], scores: list[tuple[dict[str, float], dict[str, float]]], preset: str
) -> list[str]:
    """A row of the table: name, parameters, Hard mAP untrained, mAP trained per protocol, and what training gained on
    Hard in the mean and with the worst seed."""
    model = load_config(preset, None, system).model  # type: ignore[union-attr]
    n_million = sum(p.numel() for p in create_model(**model).parameters()) / 1e6
    gains = [100 * (after["hard"] - before["hard"]) for before, after in scores]
    trained = [mean_and_spread([after[protocol] for _, after in scores]) for protocol in PROTOCOLS]
    before = mean_and_spread([before["hard"] for before, _ in scores])
    return [name, f"{n_million:.2f}", before, *trained, f"{statistics.mean(gains):+.1f} ({min(gains):+.1f})"]


def main() -> int:
    arguments = parse()
    systems, marker = TABLES[arguments.table]
    names = [
        name for name in systems if not arguments.only or any(word.lower() in name.lower() for word in arguments.only)
    ]
    if not names:
        raise UltronError(f"--only {' '.join(arguments.only)} names no system (known: {'; '.join(systems)})")
    console.start_log(0)
    toy = render_toy(arguments.out / "toy", ToyConfig())
    scores: dict[str, list[Any]] = {name: [] for name in names}
    for seed in arguments.seeds:  # so that every system has as many runs when it is stopped early
        for name in names:
            scores[name].append(before_and_after(name, systems[name], seed, toy, arguments))
    columns = ["system", "parameters, millions", "hard untrained", *PROTOCOLS, "gained on hard: mean (least)"]
    rows = [row_of(name, systems[name], scores[name], arguments.preset) for name in names]
    print(table(columns, rows))
    if arguments.write:
        note = (
            f"mAP in %, {len(arguments.seeds)} seeds "
            f"({', '.join(map(str, arguments.seeds))}){''.join(f', {text}' for text in arguments.assignments)}."
        )
        markers = (f"<!-- begin: {marker} -->", f"<!-- end: {marker} -->")
        replace_between(arguments.write, *markers, f"{markdown_table(columns, rows)}\n\n{note}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UltronError as error:
        sys.exit(f"error: {error}")
