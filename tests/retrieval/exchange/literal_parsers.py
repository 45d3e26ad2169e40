"""How programs that reconstruct scenes read pairs, written after their sources: hloc/utils/parsers.py
(parse_retrieval) and kapture_localization/utils/pairsfile.py with kapture/io/csv.py (table_from_file)."""

from collections import defaultdict
from pathlib import Path


def hloc_retrieval(path: Path) -> dict[str, list[str]]:
    retrieval = defaultdict(list)
    for pair in path.read_text().rstrip("\n").split("\n"):
        if len(pair) == 0:
            continue
        query, reference = pair.split()
        retrieval[query].append(reference)
    return dict(retrieval)


def _kapture_table(path: Path) -> list[list[str]]:
    lines = [line.rstrip("\n\r") for line in path.read_text().splitlines(keepends=True)]
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    return [[field.strip() for field in line.split(",")] for line in lines]


def kapture_pairs(path: Path) -> list[tuple[str, str]]:
    pairs = []
    for query, photo, _ in _kapture_table(path):
        if query != photo:
            pairs.append((query, photo) if query < photo else (photo, query))
    return list(dict.fromkeys(pairs))


def kapture_ordered_pairs(path: Path) -> dict[str, list[tuple[str, float]]]:
    pairs: dict[str, list[tuple[str, float]]] = {}
    for query, photo, score in _kapture_table(path):
        pairs.setdefault(query, []).append((photo, float(score)))
    return pairs
