"""The losses' equations transcribed literally: sample by sample, class by class, in plain Python."""

import math
import statistics

import numpy as np


def cosine(x: np.ndarray, w: np.ndarray) -> float:
    return float(x @ w / (np.linalg.norm(x) * np.linalg.norm(w)))


def cross_entropy(rows: list[list[float]], labels: list[int]) -> float:
    total = 0.0
    for logits, label in zip(rows, labels, strict=True):
        highest = max(logits)
        total += highest + math.log(sum(math.exp(z - highest) for z in logits)) - logits[label]
    return total / len(labels)


def softmax(descriptors: np.ndarray, weight: np.ndarray, labels: list[int]) -> float:
    return cross_entropy([[float(x @ w) for w in weight] for x in descriptors], labels)


def cosface(descriptors: np.ndarray, weight: np.ndarray, labels: list[int], margin: float, scale: float) -> float:
    """Wang et al. (CVPR 2018), eq. 4."""
    rows = [
        [scale * (cosine(x, w) - (margin if j == label else 0.0)) for j, w in enumerate(weight)]
        for x, label in zip(descriptors, labels, strict=True)
    ]
    return cross_entropy(rows, labels)


def arcface(
    descriptors: np.ndarray, weight: np.ndarray, labels: list[int], margin: float, scale: float, centres: int = 1
) -> float:
    """Deng et al. (CVPR 2019), eq. 3, with the angle itself; with centres (ECCV 2020, eq. 4) the class's nearest weight
    counts."""
    rows = []
    for x, label in zip(descriptors, labels, strict=True):
        logits = []
        for j in range(len(weight) // centres):
            value = max(cosine(x, w) for w in weight[j * centres : (j + 1) * centres])
            if j == label:
                angle = math.acos(max(-1.0, min(1.0, value)))
                value = math.cos(angle + margin) if angle + margin < math.pi else value - margin * math.sin(margin)
            logits.append(scale * value)
        rows.append(logits)
    return cross_entropy(rows, labels)


def curricular(
    descriptors: np.ndarray, weight: np.ndarray, labels: list[int], margin: float, scale: float, t: float
) -> tuple[float, float]:
    """Huang et al. (CVPR 2020), eq. 4 to 6, in the words of DOLG's code: returns the loss and the new t.

    Other classes are compared with cos(angle + margin) whatever the angle; the target's logit goes on linearly beyond
    angle + margin = pi.
    """
    t = 0.99 * t + 0.01 * statistics.mean(
        cosine(x, weight[label]) for x, label in zip(descriptors, labels, strict=True)
    )
    rows = []
    for x, label in zip(descriptors, labels, strict=True):
        angle = math.acos(cosine(x, weight[label]))
        threshold = math.cos(angle + margin)
        target = threshold if angle + margin < math.pi else math.cos(angle) - margin * math.sin(margin)
        logits = []
        for j, w in enumerate(weight):
            value = cosine(x, w)
            logits.append(scale * (target if j == label else value if value <= threshold else value * (t + value)))
        rows.append(logits)
    return cross_entropy(rows, labels), t


def madacos(descriptors: np.ndarray, weight: np.ndarray, labels: list[int], rho: float) -> tuple[float, float, float]:
    """CFCD (ICCV 2023) in the words of its code: returns loss, margin and scale."""
    cosines = [[cosine(x, w) for w in weight] for x in descriptors]
    targets = [row[label] for row, label in zip(cosines, labels, strict=True)]
    m = sorted(targets)[(len(targets) - 1) // 2]
    scale = max(math.log(9999999 * (1 - rho) / rho) / (1 - m), 32.0)
    sample = targets.index(m)
    b = sum(math.exp(scale * value) for j, value in enumerate(cosines[sample]) if j != labels[sample])
    margin = max(m - math.log(b * rho / (1 - rho)) / scale, 0.0)
    rows = [
        [scale * (value - (margin if j == label else 0.0)) for j, value in enumerate(row)]
        for row, label in zip(cosines, labels, strict=True)
    ]
    return cross_entropy(rows, labels), margin, scale
