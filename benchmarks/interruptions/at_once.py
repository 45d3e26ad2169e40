"""Two commands that replace one index at the same time."""

import os
import random
import shutil
import time

from benchmarks.interruptions.checking import faults_below, fork, leftovers_below, result_of
from benchmarks.interruptions.stage import EXTRACT, Stage, ultron


def index_at_once(stage: Stage, n_trials: int, draws: random.Random) -> list[str]:
    """Builds an index of two descriptor files at once, n_trials times; returns what was wrong."""
    folder = stage.folder / "at-once"
    folder.mkdir()
    other = stage.folder / "described-otherwise"
    assert ultron("extract", stage.toy, *EXTRACT, "--seed", "1", "--out", other, "--workers", "0") == 0
    sources = [stage.database, other / "database.h5"]

    def build(source: object) -> int:
        return ultron("index", source, "--type", "hnsw", "--report", "--overwrite", "--out", folder / "x.index")

    expected = []
    for source in sources:
        os.waitpid(fork(lambda source=source: build(source), stage.folder / "log"), 0)
        expected.append(result_of(folder))
    wrong: list[str] = []
    codes = []
    for _ in range(n_trials):
        if draws.random() < 0.3:
            shutil.rmtree(folder / "x.index", ignore_errors=True)
        pids = []
        for i, source in enumerate(sources):
            pids.append(fork(lambda source=source: build(source), stage.folder / f"log-{i}"))
            time.sleep(draws.uniform(0, 0.03))
        codes += [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        texts = [(stage.folder / f"log-{i}").read_text() for i in range(2)]
        wrong += [
            f"ended with {code}: {text[-400:]}"
            for code, text in zip(codes[-2:], texts, strict=True)
            if code and not (code == 2 and "another `ultron index` is writing" in text)
        ]
        wrong += faults_below(folder)
        if result_of(folder) not in expected:
            wrong.append("the index is none of the two")
        if leftovers := leftovers_below(folder, locks=True):
            wrong.append(f"left {leftovers[:3]}")
    print(f"index at once    {n_trials:4} times, {codes.count(0)} of {len(codes)} ended with 0: {len(wrong)} faults")
    return wrong
