"""How many inliers photos of different landmarks have by chance, and so how many are to be believed.

Calibrated on pairs of photos that show different things. A small sample is not believed beyond what it can say: every
share is counted with one pair more than reached it, and beyond the last score that TRUSTED pairs reach, shares go on
falling by the mean factor with which those pairs' scores fall off (a geometric tail, whose factor is estimated as if
one more pair had ended and one had gone on). Without a single pair the factor is a half for each inlier.
"""

from dataclasses import dataclass

import numpy as np

TRUSTED = 10  # pairs that reach a score, for its share to be counted and not extrapolated
QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """From which score on a pair of photos shows one landmark."""

    n_pairs: int  # that were tried
    quantiles: dict[str, int]  # of their scores, by share: {"0.9": 4}
    most: int  # the largest score of a chance pair
    threshold: int  # the least score that promotes
    expected_share: float  # of chance pairs that reach the threshold, counted or extrapolated
    is_extrapolated: bool  # whether fewer than TRUSTED pairs reached the threshold

    def to_json(self) -> dict[str, object]:
        """As a step's record holds it."""
        return {**vars(self), "expected_share": float(f"{self.expected_share:.3g}")}

    def text(self) -> str:
        """In one line."""
        how = "extrapolated" if self.is_extrapolated else "counted"
        return (
            f"{self.threshold} inliers promote: of {self.n_pairs:,} pairs of other photos the most have {self.most}, "
            f"{self.quantiles['0.99']} at the 99 % quantile, and {100 * self.expected_share:.2g} % reach it ({how})"
        )


def calibrate(scores: np.ndarray, *, share: float, first: int, least: int) -> Calibration:
    """The least score that at most a share of chance pairs reach.

    scores: (n,) of chance pairs, n may be 0; share: over 0; first: the least score above 0 that a pair can have; least:
    no threshold is below it.
    """
    scores = np.sort(np.asarray(scores, np.int64))
    threshold = least
    while chance_share(scores, threshold, first) > share:
        threshold += 1
    quantiles = {str(part): int(np.quantile(scores, part, method="higher")) if len(scores) else 0 for part in QUANTILES}
    return Calibration(
        n_pairs=len(scores),
        quantiles=quantiles,
        most=int(scores[-1]) if len(scores) else 0,
        threshold=threshold,
        expected_share=chance_share(scores, threshold, first),
        is_extrapolated=_n_reaching(scores, threshold) < TRUSTED,
    )


def chance_share(scores: np.ndarray, threshold: int, first: int) -> float:
    """The share of chance pairs to be expected at a threshold or above; falling with it.

    scores: (n,) int64, ascending.
    """
    level = first
    if _n_reaching(scores, first) >= TRUSTED:
        level = max(first, min(threshold, int(scores[-TRUSTED])))
    elif threshold < first:
        return 1.0
    n_at_level = _n_reaching(scores, level)
    share = (n_at_level + 1) / (len(scores) + 1)
    if threshold <= level:
        return (_n_reaching(scores, threshold) + 1) / (len(scores) + 1)
    excess = int((scores[scores >= level] - level).sum())
    return share * ((excess + 1) / (excess + n_at_level + 2)) ** (threshold - level)


def _n_reaching(scores: np.ndarray, threshold: int) -> int:
    return len(scores) - int(np.searchsorted(scores, threshold))
