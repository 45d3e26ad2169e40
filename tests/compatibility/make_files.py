"""Makes the files of a version that later versions must go on reading, and records what that version itself says of
them.

    python tests/compatibility/make_files.py tests/compatibility/v0.2.0

Only public commands are run, so that the same script makes the set of a later version. The folder gets the files in one
archive (a third of their size) and expected.json, the answers to PARTS below; test_old_files.py asks the same questions
of the version under test. Photos are not stored: they are rendered again, byte for byte, where a question needs them.

Not stored: `.ultron-index.npz` and `.ultron-aspects.npz`, caches of 5000 photos and more that hold absolute paths
and times of change and are made again where these differ; `source.json` and `seen_checksums.json`, which only a
download writes.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Run = Callable[..., tuple[int, str, str]]
"""Runs `ultron ARGUMENTS`; returns (exit code, stdout, stderr)."""

ARCHIVE = "files.tar.xz"
# 48 photos to train on, 4 queries, 148 in the database
TOY = ("--seed", 3, "--train-landmarks", 6, "--eval-landmarks", 4, "--max-side", 64)
# A ResNet of 4 channels (6 thousand weights): what is stored is a few tens of KB. channels_last is off, as torch 2.11's
# convolutions of 4 channels in that order crash on some processors.
TINY = {
    "model.backbone": "cifar_resnet8_w4",
    "model.descriptor_dim": 16,
    "pretrained": "false",
    "channels_last": "false",
    "precision": "float32",
    "side_px": 32,
    "batch_size": 12,
    "workers": 0,
    "threads": 1,
    "validation.share": 0,
    "lr": 0.01,
    "log_every": 1,
    "keep_checkpoints": 1,
}
TINY_ULTRON = {
    "model.depths": "1,1,1,1",
    "model.widths": "8,8,8,8",
    "model.heads": "1,1",
    "model.descriptor_dim": 16,
    "side_px": 64,
    "batch_size": 12,
    "epochs": 1,
    "workers": 0,
    "validation.share": 0,
}
# Without momentum, whose state would be as large as the weights; the training's checkpoint has one.
TINY_SEARCH = {
    "backbone": "cifar_resnet8",
    "width": 8,
    "momentum": 0.0,
    "epochs": 4,
    "batch_size": 6,
    "workers": 0,
    "threads": 1,
    "keep_checkpoints": 1,
}
RERANKERS = ("superglobal", "aqe", "dba", "diffusion", "kreciprocal")
INDEXES = ("flat", "sq8", "ivf", "hnsw", "whitened")
EXTRACTION = ("--scales", "3", "--max-side", 64, "--workers", 0)
HELD_BACK = 140  # row of the database photo that stops the interrupted extraction, in its third part of 64 photos


# --- the questions: each part takes (ask, files, data root, scratch folder) and gives plain data


class Ask:
    """Runs a command and gives its JSON; AssertionError with what it said if it fails."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __call__(self, *arguments: object) -> Any:
        code, out, err = self.run(*arguments, "--json")
        assert code == 0, f"ultron {' '.join(map(str, arguments))} ended with {code}:\n{err}"
        return json.loads(out)


def scores(evaluation: dict[str, Any]) -> dict[str, Any]:
    """An evaluation without where it came from."""
    return {key: value for key, value in evaluation.items() if key != "provenance"}


def ranked(result: dict[str, Any]) -> dict[str, Any]:
    """A search's photos and scores by query."""
    return {
        query["query"]: {
            "photos": [photo["name"] for photo in query["photos"]],
            "scores": [photo["score"] for photo in query["photos"]],
        }
        for query in result["results"]
    }


def _searched(files: Path, folder: str = "whitened") -> tuple[object, ...]:
    return "--queries", files / folder / "queries.h5", "--database", files / folder / "database.h5"


def _truth(files: Path) -> tuple[object, ...]:
    return "--gnd", files / "gnd_toy.json"


def descriptors(ask: Ask, files: Path, data: Path, scratch: Path) -> Any:
    raw = (*_searched(files, "extract"), *_truth(files), "--whiten", files / "whitening.h5")
    return {
        "whitened": scores(ask("evaluate", *_searched(files), *_truth(files))),
        "whitened now": scores(ask("evaluate", *raw)),
        "whitened now to 6": scores(ask("evaluate", *raw, "--dim", 6)),
        "distractors": scores(ask("evaluate", *raw, "--distractors", files / "distractors.h5")),
    }


def searches(ask: Ask, files: Path, data: Path, scratch: Path) -> Any:
    results = {"exact": ask("search", *_searched(files), "-k", 12, "--out", scratch / "ranks.h5")}
    for step in RERANKERS:
        results[step] = ask("search", *_searched(files), "-k", 12, "--rerank", step, "--out", scratch / f"{step}.h5")
    return {name: ranked(result) for name, result in results.items()}


def indexes(ask: Ask, files: Path, data: Path, scratch: Path) -> Any:
    # The descriptor files that the indexes name are gone, so that these scores are the indexes' own.
    answers = {}
    for kind in INDEXES:
        searched = _searched(
            files, "extract" if kind == "whitened" else "whitened"
        )  # that index whitens its queries itself
        answers[kind] = ranked(
            ask("search", *searched, "-k", 12, "--index", files / f"{kind}.index", "--out", scratch / f"{kind}.h5")
        )
    return answers


def milvus(ask: Ask, files: Path, data: Path, scratch: Path) -> Any:
    return ranked(
        ask(
            "search",
            *_searched(files),
            "-k",
            12,
            "--index",
            files / "milvus/milvus.index",
            "--out",
            scratch / "milvus.h5",
        )
    )


def rank_files(ask: Ask, files: Path, data: Path, scratch: Path) -> Any:
    return {
        name: scores(ask("evaluate", "--ranks", files / f"{name}.h5", *_truth(files))) for name in ("ranks", "reranked")
    }


def evaluations(ask: Ask, files: Path, data: Path, scratch: Path) -> Any:
    compared = ask("compare", files / "evaluation.json", files / "evaluation-reranked.json")
    return {key: value for key, value in compared.items() if key not in ("before", "after")}


def ground_truths(ask: Ask, files: Path, data: Path, scratch: Path) -> Any:
    keys = ("dataset", "name", "queries", "database", "n_queries", "n_database", "protocols")
    infos = {
        "rendered": ask("datasets", "info", data / "toy", "--gnd", files / "gnd_toy.json"),
        "built": ask("datasets", "info", data / "toy/train", "--gnd", files / "gnd_built.json"),
    }
    return {name: {key: facts[key] for key in keys if key in facts} for name, facts in infos.items()}


def checkpoints(ask: Ask, files: Path, data: Path, scratch: Path) -> Any:
    """What a checkpoint holds, and the score of what it describes now, with the score of photos searched by path."""
    answers: dict[str, Any] = {}
    for name, weights in (("gem", files / "finished/checkpoint.pt"), ("ultron", files / "ultron.pt")):
        out = scratch / name
        made = ask("extract", "--dataset", "toy", "--data-root", data, "--weights", weights, *EXTRACTION, "--out", out)
        inspection = ask("weights", "inspect", weights)
        answers[name] = {
            "inspected": {key: value for key, value in inspection.items() if key not in ("path", "file")},
            "model": made["model"],
            "weights_sha256": made["weights_sha256"],
            "protocol": made["protocol"],
            "descriptors": [rows_of(out / file)[:6].tolist() for file in ("queries.h5", "database.h5")],
        }
    query = sorted((data / "toy/jpg").glob("*.jpg"))[0]
    photo_search = ask(
        "search",
        query,
        "--database",
        files / "extract/database.h5",
        "--weights",
        files / "finished/checkpoint.pt",
        "-k",
        5,
    )
    return answers | {"photo": [photo["score"] for photo in photo_search["results"][0]["photos"]]}


def extractions(ask: Ask, files: Path, data: Path, scratch: Path) -> Any:
    """How many photos are described when files, whole ones and an interrupted one, are taken up: settings are known
    again, or all are."""
    answers: dict[str, Any] = {}
    for name in ("extract", "interrupted"):
        shutil.copytree(files / name, scratch / name)
        made = ask(
            "extract",
            "--dataset",
            "toy",
            "--data-root",
            data,
            "--weights",
            files / "finished/checkpoint.pt",
            *EXTRACTION,
            "--out",
            scratch / name,
        )
        answers[name] = {role: [file["n"], file["computed"]] for role, file in made["files"].items()}
    answers["interrupted"]["descriptors"] = rows_of(scratch / "interrupted/database.h5")[60:140:8].tolist()
    return answers


def bad_photos(ask: Ask, files: Path, data: Path, scratch: Path) -> Any:
    shutil.copytree(data / "toy", scratch / "toy")
    shutil.copy(files / "bad_photos.json", scratch / "toy")
    missing = json.loads((files / "bad_photos.json").read_text())["bad"][0]["path"]
    (scratch / "toy" / missing).unlink()
    made = ask(
        "extract",
        "--dataset",
        scratch / "toy",
        "--weights",
        files / "finished/checkpoint.pt",
        "--scales",
        1,
        "--workers",
        0,
        "--max-side",
        48,
        "--skip-bad",
        "--out",
        scratch / "skipped",
    )
    return {
        "skipped": [[entry["name"], entry["role"]] for entry in made["skipped"]],
        "n": made["files"]["database"]["n"],
    }


def runs(ask: Ask, files: Path, data: Path, scratch: Path) -> Any:
    keys = ("run", "state", "model", "loss_name", "dataset", "epochs", "epochs_done", "loss", "accuracy")
    for name in ("finished", "stopped", "search"):
        shutil.copytree(files / name, scratch / "workspace/train" / name)
    runs = ask("train", "--list", "--workspace", scratch / "workspace")["runs"]
    return [{key: run[key] for key in keys} for run in runs]


def resumed(ask: Ask, files: Path, data: Path, scratch: Path) -> Any:
    """A stopped training goes on to its end."""
    out = Path(shutil.copytree(files / "stopped", scratch / "stopped"))
    ask("train", "--resume", "--out", out, "--data-root", data)
    steps = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    epochs = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "steps": [{key: line[key] for key in ("step", "epoch", "loss", "lr", "margin", "scale")} for line in steps],
        "epochs": [{key: line[key] for key in ("epoch", "loss", "lr")} for line in epochs],
        "is whole": (out / "checkpoint.pt").is_file(),
    }


def resumed_search(ask: Ask, files: Path, data: Path, scratch: Path) -> Any:
    """A stopped search for an attention goes on to its end."""
    out = Path(shutil.copytree(files / "search", scratch / "search"))
    made = ask("train", "--resume", "--out", out, "--data-root", data)
    history = [{key: line[key] for key in ("epoch", "architecture_loss", "loss", "lr")} for line in made["metrics"]]
    return {"history": history, "edges": made["edges"], "is whole": (out / "genotype.txt").is_file()}


def rows_of(path: Path) -> Any:
    with h5py.File(path) as handle:
        return handle["descriptors"][:].astype("float32")


PARTS: dict[str, Callable[[Ask, Path, Path, Path], Any]] = {
    "descriptors": descriptors,
    "searches": searches,
    "indexes": indexes,
    "milvus": milvus,
    "rank files": rank_files,
    "evaluations": evaluations,
    "ground truths": ground_truths,
    "checkpoints": checkpoints,
    "extractions": extractions,
    "bad photos": bad_photos,
    "runs": runs,
    "resumed": resumed,
    "resumed search": resumed_search,
}


# --- the files


def in_folder(work: Path) -> Run:
    """Commands as processes of their own, in the folder `work`, so that what they write names files relative to it."""
    environment = environment_of(work)

    def run(*arguments: object) -> tuple[int, str, str]:
        print("ultron", *arguments, file=sys.stderr)
        command = [sys.executable, "-m", "ultron_cli", *map(str, arguments)]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return run


def in_this_process(work: Path) -> Run:
    """Commands by main() in this process, which imports once: the answers take many."""
    os.environ |= environment_of(work)
    from ultron_cli.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        print("ultron", *arguments, file=sys.stderr)
        stdout = io.StringIO()
        with contextlib.redirect_stdout(stdout):
            code = main([str(argument) for argument in arguments])
        return code, stdout.getvalue(), "see above"

    return run


def environment_of(work: Path) -> dict[str, str]:
    return os.environ | {
        "ULTRON_WORKSPACE": str(work / "runs"),
        "ULTRON_DATA": str(work / "data"),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def stop_half_way(work: Path, lines_file: Path, n_lines: int, *arguments: object) -> None:
    """Starts a run and stops it by SIGTERM, as a scheduler does, when `lines_file` has n_lines lines."""
    print("ultron", *arguments, "(stopped half way)", file=sys.stderr)
    command = [sys.executable, "-m", "ultron_cli", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=work, env=environment_of(work), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (lines_file.is_file() and lines_file.read_text().count("\n") >= n_lines):
        time.sleep(0.002)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    stderr = process.communicate()[1]
    if "stopped by SIGTERM" not in stderr:
        raise SystemExit(f"the run was not stopped half way:\n{stderr}")


def settings(values: dict[str, object], **more: object) -> list[object]:
    """--set for each setting."""
    return [part for key, value in (values | more).items() for part in ("--set", f"{key}={value}")]


def make(work: Path) -> None:
    """Writes the files into work/files."""
    ask, files = Ask(in_folder(work)), work / "files"
    ask("datasets", "make-toy", *TOY)
    gem = ("train", "--dataset", "toy", "--preset", "gem-r50-arcface")
    ask(*gem, *settings(TINY, epochs=3, warmup_epochs=1), "--out", "files/finished")
    stop_half_way(
        work,
        files / "stopped/steps.jsonl",
        11,
        *gem,
        *settings(TINY, epochs=6, warmup_epochs=1, ema=0.9, clip_norm=5.0),
        "--out",
        "files/stopped",
    )
    ask("train", "--dataset", "toy", "--preset", "ultron-t", *settings(TINY_ULTRON), "--out", "ultron")
    shutil.copy(work / "ultron/checkpoint.pt", files / "ultron.pt")
    search = ("train", "--dataset", "toy", "--preset", "autola-search", *settings(TINY_SEARCH), "--out", "files/search")
    stop_half_way(work, files / "search/metrics.jsonl", 2, *search)
    make_descriptors(ask, work, files)
    make_rankings(ask, work, files)
    make_ground_truths(work, files)
    for name in ("finished", "stopped", "search"):  # pictures and events are written, never read
        shutil.rmtree(files / name / "events", ignore_errors=True)
        (files / name / "curves.png").unlink(missing_ok=True)


def make_descriptors(ask: Ask, work: Path, files: Path) -> None:
    """Descriptor files: whole, of distractors, whitened, and an extraction that a broken photo stopped."""
    extract = ("extract", "--run", "files/finished", *EXTRACTION)
    ask(*extract, "--dataset", "toy", "--out", "files/extract")
    ask(*extract, "--dataset", "data/toy/train", "--storage", "float16", "--out", "distractors")
    shutil.copy(work / "distractors/database.h5", files / "distractors.h5")
    ask("whiten", "files/extract/database.h5", "--dim", 8, "--out", "files/whitening.h5")
    ask(*extract, "--dataset", "toy", "--whiten", "files/whitening.h5", "--out", "files/whitened")
    shutil.rmtree(files / "whitened/raw")
    with h5py.File(files / "extract/database.h5") as handle:
        photo = work / f"data/toy/jpg/{handle['names'].asstr()[HELD_BACK].removesuffix('.jpg')}.jpg"
    whole = photo.read_bytes()
    photo.write_bytes(whole[: len(whole) // 2])
    code, _, stderr = ask.run(*extract, "--dataset", "toy", "--out", "files/interrupted")
    photo.write_bytes(whole)
    if code == 0 or not list(files.glob("interrupted/database.h5.parts/shard-*.h5")):
        raise SystemExit(f"the extraction was not interrupted:\n{stderr}")


def make_rankings(ask: Ask, work: Path, files: Path) -> None:
    """Rank files, evaluations, indexes."""
    # Of whitened descriptors: those of so small a network are so alike that rounding would decide their ranks.
    searched = ("--queries", "files/whitened/queries.h5", "--database", "files/whitened/database.h5")
    ask("search", *searched, "-k", 100, "--out", "files/ranks.h5")
    ask("search", *searched, "-k", 100, "--rerank", "aqe,superglobal", "--out", "files/reranked.h5")
    ask("evaluate", *searched, "--out", "files/evaluation.json")
    ask("evaluate", *searched, "--rerank", "superglobal", "--out", "files/evaluation-reranked.json")
    for kind in INDEXES:
        if kind == "whitened":
            ask("index", "files/extract/database.h5", "--whiten", "files/whitening.h5", "--out", "files/whitened.index")
        else:
            ask("index", "files/whitened/database.h5", "--type", kind, "--out", f"files/{kind}.index")
    ask("index", "files/whitened/database.h5", "--engine", "milvus", "--out", "files/milvus/milvus.index")


def make_ground_truths(work: Path, files: Path) -> None:
    """A rendered ground truth, a built one, and the list of bad photos of a dataset that lacks one."""
    run = in_folder(work)
    shutil.copy(work / "data/toy/gnd_toy.json", files)
    Ask(run)("datasets", "build-gnd", "data/toy/train", "--name", "built")
    shutil.move(next((work / "data/toy/train").glob("gnd_*.json")), files / "gnd_built.json")
    shutil.copytree(work / "data/toy", work / "lacking")
    name = json.loads((files / "gnd_toy.json").read_text())["imlist"][0]
    (work / f"lacking/jpg/{name.removesuffix('.jpg')}.jpg").unlink()
    run("datasets", "verify", "lacking")  # exit code 1, as the dataset uses the missing photo
    shutil.copy(work / "lacking/bad_photos.json", files)


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """An archive's entry without the user's name and number."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def unpack(version: Path, folder: Path) -> Path:
    """Unpacks the files of a version into `folder` and returns where they lie."""
    with tarfile.open(version / ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "files"


def main() -> None:
    target = Path(sys.argv[1]).absolute()
    if target.exists():
        raise SystemExit(f"{target} is there already; name a new folder")
    with tempfile.TemporaryDirectory(prefix="ultron-files-") as name:
        work = Path(name)
        (work / "files").mkdir()
        make(work)
        target.mkdir(parents=True)
        with tarfile.open(target / ARCHIVE, "w:xz", preset=9) as archive:
            archive.add(work / "files", "files", filter=anonymous)
    # Asked where the files that they name (descriptors of an index, photos) are gone, as in a test.
    with tempfile.TemporaryDirectory(prefix="ultron-files-") as name:
        work = Path(name)
        run = in_this_process(work)
        Ask(run)("datasets", "make-toy", *TOY)
        expected = {}
        for part, question in PARTS.items():
            files, scratch = unpack(target, work / part), work / part / "scratch"
            scratch.mkdir()
            expected[part] = question(Ask(run), files, work / "data", scratch)
            for file in sorted(scratch.glob("*.h5")):
                with h5py.File(file) as handle:
                    print(
                        f"{part}, {file.name}: least difference of neighbours' scores "
                        f"{np.abs(np.diff(handle['scores'][:])).min():.2g}",
                        file=sys.stderr,
                    )
        (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
