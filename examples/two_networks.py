"""Is one network better than another on some hundred photos, by how much, and is it more than chance?

    python examples/two_networks.py [--out two_networks] [--write docs/evaluation.md]

Two networks of ImageNet describe 120 real photos (../shared/minidev, 19 queries), once; what is in --out already is not
described again. The text is what `ultron compare` prints of the two evaluations, its table for a paper, and what
`ultron evaluate --slices all --ceilings` prints of each network.
"""

import argparse
import sys
from pathlib import Path

from ultron_cli.console import dump_json, start_log
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import find_gnd, score_ranking
from ultron_cli.evaluation.explanation import explain
from ultron_cli.evaluation.summaries import compare_all
from ultron_cli.evaluation.systems import open_systems
from ultron_cli.files import replace_between, write_text
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, extract_dataset
from ultron_cli.retrieval.searching import search_files
from ultron_cli.workspace import Workspace

NETWORKS = ("tf_efficientnet_lite0", "tf_efficientnet_lite2")
SCALES = (0.7071, 1.0, 1.4142)
BEGIN, END = "<!-- begin: examples/two_networks.py -->", "<!-- end: examples/two_networks.py -->"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).resolve().parents[2] / "shared"
    parser.add_argument("--photos", type=Path, default=shared / "minidev", help="dataset (default: %(default)s)")
    parser.add_argument("--weights", type=Path, default=shared / "weights", help="folder of NETWORK.pth")
    parser.add_argument("--out", type=Path, default=Path("two_networks"), help="folder of descriptors and evaluations")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", type=Path, help="put the text into this file, between its markers")
    return parser.parse_args()


def evaluation_of(network: str, arguments: argparse.Namespace) -> tuple[Path, str]:
    """The evaluation of one network, as a file in --out, and what explains its score under Medium; its photos are
    described where they are not yet."""
    workspace = Workspace(root=arguments.out / "runs")
    folder = arguments.out / network
    request = ExtractRequest(dataset=str(arguments.photos), scales=SCALES, max_side_px=640, n_workers=0, out=folder)
    choice = ModelChoice(
        weights=arguments.weights / f"{network}.pth",
        model="gem",
        settings={"backbone": network},
        workspace=workspace,
    )
    extract_dataset(request, choice, arguments.device, workspace)
    ranking = search_files(folder / "queries.h5", folder / "database.h5", None, arguments.device)
    path = arguments.out / f"{network.removeprefix('tf_efficientnet_')}.json"
    scored = score_ranking(ranking, find_gnd(None, ranking.origin))
    explanation = explain(scored, "medium", ["all"], with_ceilings=True)
    write_text(path, dump_json(scored.evaluation.to_json() | explanation.to_json()))
    return path, explanation.text()


def main() -> int:
    arguments = parse()
    start_log(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = [evaluation_of(network, arguments) for network in NETWORKS]
    systems = open_systems([str(path) for path, _ in results])
    comparison = compare_all(systems)
    screen = comparison.text("text").replace(f"{arguments.out}/", "").replace(f"{arguments.weights}/", "")
    explained = "\n\n".join(f"{path.stem}:\n{text}" for path, text in results)
    text = f"```text\n{screen}\n```\n\n{comparison.text('markdown')}\n\n```text\n{explained}\n```"
    print(text)
    if arguments.write:
        replace_between(arguments.write, BEGIN, END, text)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UltronError as error:
        sys.exit(f"error: {error}")
