"""What is the protocol worth, and how much does a system bear? Both presets of `ultron sweep` on some hundred photos.

    python examples/protocol_worth.py [--out protocol_worth] [--write docs/evaluation.md]

EfficientNet-Lite0 with its weights of ImageNet describes 120 real photos (../shared/minidev, 19 queries) in as many
ways as the preset protocol-worth has; then it and Lite2 meet, at one scale, the corruptions of the preset robustness.
The landmarks from which a whitening is learned are rendered. What is in --out already is not computed again.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ultron_cli.console import start_log
from ultron_cli.datasets.toy import ToyConfig, make_toy
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.files import replace_between
from ultron_cli.sweep.plan import read_plan
from ultron_cli.sweep.run import SweepOptions, run_sweep
from ultron_cli.sweep.tables import (
    SweepTable,
    draw_tables,
    failures_text,
    robustness_table,
    sweep_content,
    sweep_tables,
    sweep_text,
)
from ultron_cli.workspace import Workspace

SEVERITIES = (0, 1, 3, 5)
NETWORKS = ("lite0", "lite2")
RENDERED = ToyConfig(n_train_landmarks=1, n_train_photos=1, n_eval_landmarks=8, max_side_px=320)
MARKS = {
    what: (f"<!-- begin: examples/protocol_worth.py, {what} -->", f"<!-- end: examples/protocol_worth.py, {what} -->")
    for what in ("worth", "robustness")
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).resolve().parents[2] / "shared"
    parser.add_argument("--photos", type=Path, default=shared / "minidev", help="dataset (default: %(default)s)")
    parser.add_argument("--weights", type=Path, default=shared / "weights", help="folder of tf_efficientnet_*.pth")
    parser.add_argument("--out", type=Path, default=Path("protocol_worth"), help="workspace of the sweeps")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runtime", default="torch", help="what computes the networks, as in `ultron extract`")
    parser.add_argument("--what", nargs="+", default=list(MARKS), choices=list(MARKS))
    parser.add_argument("--write", type=Path, help="put the tables into this file, between their markers")
    return parser.parse_args()


def swept(
    preset: str, networks: tuple[str, ...], arguments: argparse.Namespace, **changes: object
) -> tuple[SweepTable, str]:
    """(the table of a preset, its text in Markdown). changes: of its settings of extraction. Raises WorkFailed if a
    cell failed."""
    models = [
        {
            "label": name,
            "name": "gem",
            "backbone": f"tf_efficientnet_{name}",
            "weights": str(arguments.weights / f"tf_efficientnet_{name}.pth"),
        }
        for name in networks
    ]
    extract = {"dataset": str(arguments.photos), "max_side_px": 640, "runtime": arguments.runtime, **changes}
    plan = read_plan(preset, [], {"extract": extract, "grid": {"model": models}})
    plan = replace(plan, cells=tuple(c for c in plan.cells if c.settings.extract.severity in SEVERITIES))
    workspace = Workspace(root=arguments.out, data_root=arguments.out / "data")
    folder, results = run_sweep(plan, SweepOptions(device_name=arguments.device), workspace)
    if failed := failures_text(results):
        raise WorkFailed(f"{failed}; start the same command again")
    tables = sweep_tables(results)
    draw_tables(tables, folder)
    return tables[0], sweep_text(sweep_content(folder, results, tables), tables, "markdown")


def main() -> int:
    arguments = parse()
    start_log(0)
    texts = {}
    if "worth" in arguments.what:
        make_toy(arguments.out / "data" / "toy", RENDERED, workers=0)
        _, worth = swept("protocol-worth", NETWORKS[:1], arguments)
        texts["worth"] = worth[worth.index("|  | change") :].replace(f"{NETWORKS[0]}, ", "")
    if "robustness" in arguments.what:
        table, _ = swept("robustness", NETWORKS, arguments, scales=1)
        texts["robustness"] = robustness_table(table, SEVERITIES)
    for what, text in texts.items():
        print(text)
        if arguments.write:
            replace_between(arguments.write, *MARKS[what], text)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UltronError as error:
        sys.exit(f"error: {error}")
