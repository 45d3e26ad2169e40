"""Fusion as its papers write it, photo by photo in plain dictionaries, slowly."""

import math
import statistics
from collections.abc import Mapping, Sequence

Scores = Mapping[str, float]  # of one query, best first


def normalised(scores: Scores, norm: str) -> dict[str, float]:
    values = list(scores.values())
    low, high = min(values), max(values)
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    total = sum(value - low for value in values)
    out = {}
    for i, (photo, value) in enumerate(scores.items()):
        if norm == "minmax":
            out[photo] = (value - low) / max(high - low, 1e-9)
        elif norm == "zscore":
            out[photo] = (value - mean) / max(deviation, 1e-9)
        elif norm == "max":
            out[photo] = value / max(high, 1e-9)
        elif norm == "sum":
            out[photo] = (value - low) / max(total, 1e-9)
        elif norm == "rank":
            out[photo] = 1 - i / len(values)
        else:
            out[photo] = value
    return out


def fused(
    runs: Sequence[Scores], method: str, norm: str, weights: Sequence[float], rrf_k: int = 60
) -> dict[str, float]:
    if method == "rrf":
        parts = [{photo: 1 / (rrf_k + place) for place, photo in enumerate(run, start=1)} for run in runs]
    elif method in ("isr", "logisr"):
        parts = [{photo: 1 / place**2 for place, photo in enumerate(run, start=1)} for run in runs]
    else:
        parts = [normalised(run, norm) if run else {} for run in runs]
    out = {}
    for photo in {photo for run in runs for photo in run}:
        having = [(weight, part[photo]) for weight, part in zip(weights, parts, strict=True) if photo in part]
        n = sum(weight != 0 for weight, _ in having)
        total = sum(weight * value for weight, value in having)
        products = [weight * value for weight, value in having]
        out[photo] = {
            "rrf": total,
            "combsum": total,
            "combmnz": total * n,
            "isr": total * n,
            "logisr": total * math.log(max(n, 1)),
            "combanz": total / max(n, 1),
            "wmnz": sum(value for _, value in having) * sum(weight for weight, _ in having),
            "combmax": max(products),
            "combmin": min(products),
            "combmed": statistics.median(products),
        }[method]
    return out
