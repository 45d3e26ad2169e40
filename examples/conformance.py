"""Small rankings with their right scores, for people who write their own evaluation: makes docs/conformance.

    python examples/conformance.py [--out docs/conformance]

The scores are those of tests/evaluation/literal_revisitop.py, which looks at one photo after the other and shares no
code with ultron. Nothing of ultron is imported.
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = [f"photo{i:02d}" for i in range(30)]
LABELS = ("easy", "hard", "junk")
CUTS = (1, 5, 10)
N_RANDOM = 100
# What a step of a ranking written in letters is: the label of the photo, or a photo without one.
LETTERS = {"E": "easy", "H": "hard", "J": "junk", ".": None}


@dataclass(frozen=True)
class Case:
    """A query: its labels by photo, and the photos of its ranking with their scores, best first."""

    name: str
    labels: dict[str, str]
    ranking: Sequence[str]
    scores: Sequence[float] = field(default=())

    def rows(self, label: str) -> list[int]:
        """The rows of the photos that have a label."""
        return [row for row, photo in enumerate(PHOTOS) if self.labels.get(photo) == label]


def written(name: str, letters: str, unranked: str = "") -> Case:
    """A ranking in letters: `EJ.H` is an easy photo, a junk one, one without a label, a hard one. unranked: photos with
    labels that the ranking does not hold."""
    labels = {PHOTOS[i]: LETTERS[letter] for i, letter in enumerate(letters + unranked) if LETTERS[letter]}
    n = len(letters)
    return Case(name, labels, PHOTOS[:n], [float(n - i) for i in range(n)])


def tied(name: str, letters: str, scores: Sequence[float]) -> Case:
    """The same with scores of photo 0, 1, 2 ..., of which equal ones stand by row."""
    case = written(name, letters)
    rows = sorted(range(len(letters)), key=lambda row: (-scores[row], row))
    return Case(name, case.labels, [PHOTOS[row] for row in rows], [scores[row] for row in rows])


BY_HAND = [
    written("one_junk_above", "EJ.E"),  # the example of the README
    written("first", "E..."),
    written("second", ".E.."),
    written("last", "...E"),
    written("all_on_top", "EEEE.."),
    written("all_at_the_end", "..EEEE"),
    written("first_and_third", "E.E."),
    written("junk_on_top", "JJJE."),
    written("junk_between", "EJEJE"),
    written("junk_below", "EE.JJ"),
    written("junk_alone", "JJJ"),
    written("no_labels", "...."),
    written("hard_alone", "H.H"),
    written("easy_alone", "E.E"),
    written("hard_above_easy", "HE"),
    written("easy_above_hard", "EH"),
    written("mixed", "EJH.EHJ.E"),
    written("nothing_ranked", "", "EH"),
    written("nothing_ranked_nothing_right", "", "J"),
    written("none_within_the_cut", "....", "EEH"),
    written("one_within_the_cut", "E", "EEH"),
    written("cut_after_junk", "JJ", "EH"),
    written("third_alone", "..E......."),  # P@5 and P@10 are 1/3: k is cut at the last positive
    written("eleventh", "..........E"),
    written("first_and_twelfth", "E..........E"),
    written("ten_of_ten", "EEEEEEEEEE"),
    written("junk_moves_up", "....JJJJJJE"),  # fifth without junk
    tied("tied_positive_first", "E.", [1, 1]),
    tied("tied_positive_second", ".E", [1, 1]),
    tied("tied_with_junk", "JE.", [1, 1, 1]),
    tied("all_tied", ".E.H.J.E", [0.5] * 8),
    tied("tied_in_two_groups", ".E.EJ.H", [0.25, 0.5, 0.5, 0.25, 0.5, 0.25, 0.25]),
    tied("zeros_of_both_signs", ".E", [0.0, -0.0]),
    tied("negative", ".EH.", [-2, -1, -3, -1]),
    Case("photos_that_nobody_labelled", {"photo00": "easy"}, ["other0", "other1", "photo00"], [3, 2, 1]),
]


def drawn(number: int, draws: random.Random) -> Case:
    """A ranking by chance: some photos without scores, many ties, all mixtures of labels."""
    kinds = draws.choice((LABELS, ("easy", "junk"), ("hard", "junk"), ("easy", "hard"), ("junk",)))
    labelled = draws.sample(PHOTOS, draws.choice((0, 1, 3, 8, 15, 30)))
    labels = {photo: draws.choice(kinds) for photo in labelled}
    ranked = draws.sample(range(len(PHOTOS)), draws.choice((0, 1, 5, 10, 20, 30, 30, 30)))
    decimals = draws.choice((0, 1, 3))
    score_of = {row: round(draws.gauss(0, 1) + 0.5 * (PHOTOS[row] in labels), decimals) + 0.0 for row in ranked}
    rows = sorted(ranked, key=lambda row: (-score_of[row], row))
    return Case(f"drawn{number:03d}", labels, [PHOTOS[row] for row in rows], [score_of[row] for row in rows])


def expected(cases: Sequence[Case]) -> dict[str, object]:
    """The right scores: per protocol the means over the queries that have positives, and each query's. None: a query
    without positives."""
    sys.path.insert(0, str(ROOT))
    from tests.evaluation.literal_revisitop import LABELS_OF, literal_query

    row_of = {photo: row for row, photo in enumerate(PHOTOS)}
    protocols: dict[str, object] = {}
    for protocol, sides in LABELS_OF.items():
        queries: dict[str, dict[str, float] | None] = {}
        for case in cases:
            rows = [row_of.get(photo, 1000 + i) for i, photo in enumerate(case.ranking)]
            positives, ignored = (
                [row for label in sides[side] for row in case.rows(label)] for side in ("positive", "ignored")
            )
            ap, precisions = literal_query(rows, positives, ignored, CUTS)
            named = {f"P@{cut}": value for cut, value in zip(CUTS, precisions, strict=True)}
            queries[case.name] = None if math.isnan(ap) else {"AP": ap, **named}
        used = [scores for scores in queries.values() if scores is not None]
        means = {f"m{key}": sum(scores[key] for scores in used) / len(used) for key in used[0]}
        protocols[protocol] = {**means, "queries_used": len(used), "queries": queries}
    return protocols


def files_of(cases: Sequence[Case]) -> dict[str, str]:
    """Name -> text of every file."""
    sys.path.insert(0, str(ROOT))
    from tests.evaluation.literal_revisitop import LABELS_OF

    entries = [{"bbx": None, **{label: case.rows(label) for label in LABELS}} for case in cases]
    truth = {"imlist": PHOTOS, "qimlist": [case.name for case in cases], "gnd": entries}
    files = {
        "gnd_conformance.json": _lines(truth),
        "rankings.json": _lines({case.name: list(case.ranking) for case in cases}),
        "scores.json": _lines(
            {case.name: dict(zip(case.ranking, case.scores, strict=True)) for case in cases if case.ranking}
        ),
        "expected.json": json.dumps(expected(cases), indent=1) + "\n",
        "run.trec": "".join(_run(case, ()) for case in cases),
    }
    for protocol, sides in LABELS_OF.items():
        files[f"{protocol}.trec"] = "".join(_run(case, sides["ignored"]) for case in cases)
        files[f"{protocol}.qrels"] = "".join(
            f"{case.name} 0 {photo} 1\n"
            for case in cases
            for photo in PHOTOS
            if case.labels.get(photo) in sides["positive"]
        )
    return files


def _run(case: Case, ignored: Sequence[str]) -> str:
    """Lines of TREC, without the photos of some labels. The scores are made of the places, so that every tool keeps
    the order."""
    photos = [photo for photo in case.ranking if case.labels.get(photo) not in ignored]
    return "".join(
        f"{case.name} Q0 {photo} {place} {len(photos) - place} conformance\n"
        for place, photo in enumerate(photos, start=1)
    )


def _lines(content: dict) -> str:
    """JSON with a line for every key, and for every part of a list of objects."""
    parts = []
    for key, value in content.items():
        text = json.dumps(value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n" + ",\n".join(json.dumps(part) for part in value) + "]"
        parts.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def all_cases() -> list[Case]:
    """Those written by hand, then those drawn by chance."""
    draws = random.Random(1)
    return BY_HAND + [drawn(number, draws) for number in range(N_RANDOM)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/conformance")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files_of(all_cases()).items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
