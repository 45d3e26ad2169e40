"""The demo: every step of the pipeline through the same functions as the commands, on rendered landmarks."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ultron_cli import console
from ultron_cli.console import lines, log, table
from ultron_cli.datasets.named import render_toy
from ultron_cli.datasets.toy import ToyConfig
from ultron_cli.evaluation.evaluate import evaluate_ranking, find_gnd
from ultron_cli.evaluation.result import Evaluation, percent
from ultron_cli.files import write_text
from ultron_cli.machine import limited_threads
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, extract_dataset
from ultron_cli.retrieval.index.building import build_index
from ultron_cli.retrieval.rankings import Ranking, write_ranks
from ultron_cli.retrieval.searching import search_files
from ultron_cli.training.start import TrainRequest, TrainSummary, start_training
from ultron_cli.visualization.cam.draw import CamRequest, draw_cam
from ultron_cli.visualization.curves.run_pictures import draw_run
from ultron_cli.visualization.ranked.draw import draw_ranks
from ultron_cli.visualization.report.report import ReportConfig, write_report
from ultron_cli.visualization.scene import PhotoChoice, open_scene
from ultron_cli.workspace import Workspace


class Steps:
    """Announces each step and measures its time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started_s = time.perf_counter()

    def start(self, name: str) -> None:
        """Says on stderr what comes next."""
        log.info("--- %s", name)
        self._name, self._started_s = name, time.perf_counter()

    def end(self) -> None:
        """Records how long the step took."""
        self.seconds[self._name] = round(time.perf_counter() - self._started_s, 1)


def _evaluate(folder: Path, device: str) -> tuple[Ranking, Evaluation]:
    ranking = search_files(folder / "queries.h5", folder / "database.h5", None, device)
    return ranking, evaluate_ranking(ranking, find_gnd(None, ranking.origin))


def run_demo(out: Path, seed: int, device: str) -> tuple[dict[str, Any], str]:
    """Runs all steps below `out` (dataset in out/data, results in out/runs, a workspace).

    Returns the summary and a text for people.
    """
    workspace = Workspace(root=out / "runs", data_root=out / "data")
    toy = workspace.data_root / "toy"
    steps = Steps()
    steps.start("render landmarks: photos with exact ground truth, training and evaluation landmarks disjoint")
    render_toy(toy, ToyConfig(seed=seed))
    steps.end()
    steps.start("train ULTRON-T with ArcFace")
    train_request = TrainRequest(dataset=str(toy), assignments=(f"seed={seed}",))
    run = start_training(train_request, device, draw_run, workspace)
    assert isinstance(run, TrainSummary)  # the default preset is of a training
    steps.end()
    steps.start("extract descriptors of queries and database, trained and untrained")
    request = ExtractRequest(dataset=str(toy), max_side_px=2 * run.config.side_px, overwrite=True)
    choice = ModelChoice(untrained=True, seed=seed, model=run.config.model_name, settings=run.config.model_settings)
    with limited_threads(run.config.threads):
        trained = extract_dataset(request, ModelChoice(run=run.run), device, workspace)
        untrained = extract_dataset(request, choice, device, workspace)
    workspace.remember("extract", Path(trained["folder"]))
    steps.end()
    steps.start("index and search")
    index = workspace.result_folder("index", "demo") / "flat.index"
    build_index(Path(trained["folder"]) / "database.h5", index, kind="flat", overwrite=True)
    workspace.remember("index", index)
    ranking, report = _evaluate(Path(trained["folder"]), device)
    ranks = workspace.result_folder("search", "demo") / "ranks.h5"
    write_ranks(ranks, replace(ranking, origin=replace(ranking.origin, searched_by=provenance())))
    workspace.remember("search", ranks)
    steps.end()
    steps.start("evaluate")
    _, baseline = _evaluate(Path(untrained["folder"]), device)
    evaluation = workspace.result_folder("evaluate", "demo") / "evaluation.json"
    write_text(evaluation, console.dump_json(report.to_json()))
    workspace.remember("evaluate", evaluation)
    steps.end()
    steps.start("draw ranked lists and activation maps, write the report")
    scene = open_scene(ranking)
    pictures = workspace.result_folder("visualize", "demo")
    ranked = draw_ranks(scene, scene.typical_rows(4, "medium"), 10, "medium", pictures / "ranks.png")
    cam_request = CamRequest(photos=PhotoChoice(query_row=scene.query_row(None), k=5, protocol="medium"), device=device)
    maps = draw_cam(scene, cam_request, pictures / "cam")
    before = open_scene(
        search_files(Path(untrained["folder"]) / "queries.h5", Path(untrained["folder"]) / "database.h5", None, device)
    )
    compared = [("untrained", before), ("trained", scene)]
    page = write_report(
        compared,
        ReportConfig(),
        "The demo: a network before and after training, on rendered landmarks",
        pictures / "report.html",
        device,
    )
    workspace.remember("visualize", pictures)
    steps.end()
    scores = {
        name: {"untrained": baseline.protocols[name].mAP, "trained": report.protocols[name].mAP}
        for name in report.protocols
    }
    summary = {
        "dataset": str(toy),
        "toy": asdict(ToyConfig(seed=seed)),
        "workspace": str(out / "runs"),
        "run": run.run,
        "descriptors": trained["folder"],
        "index": str(index),
        "ranks": str(ranks),
        "evaluation": str(evaluation),
        "pictures": [str(ranked), maps["figure"]],
        "report": str(page),
        "mAP": scores,
        "seconds": steps.seconds,
    }
    rows = [(name, percent(part["untrained"], 1), percent(part["trained"], 1)) for name, part in scores.items()]
    text = lines(
        table(("mAP, %", "untrained", "trained"), rows),
        f"{trained['model']}, {trained['protocol']}",
        *(f"{key:<12} {summary[key]}" for key in ("dataset", "run", "descriptors", "index", "ranks", "evaluation")),
        *(f"{'picture':<12} {path}" for path in summary["pictures"]),
        f"{'report':<12} {page} (open it in a browser)",
        f"{sum(steps.seconds.values()):.0f} s in all; go on with these results: ultron search PHOTO.jpg "
        f"--workspace {out / 'runs'}",
    )
    return summary, text
