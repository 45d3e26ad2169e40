"""Published methods of statistics, loop by loop from their papers; slow, and sharing no code with ultron."""

import bisect
import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist


def bca_interval(values: Sequence[float], resampled_means: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Efron and Tibshirani, An Introduction to the Bootstrap, 1993: equations 14.10, 14.14 and 14.15, for the mean.

    The percentiles of the resampled means lie between order statistics, as NumPy's linear rule has them.
    """
    n = len(values)
    mean = sum(values) / n
    normal = NormalDist()
    smaller = sum(m < mean for m in resampled_means)
    not_larger = sum(m <= mean for m in resampled_means)
    z0 = normal.inv_cdf((smaller + not_larger) / 2 / len(resampled_means))
    left_out = [sum(values[j] for j in range(n) if j != i) / (n - 1) for i in range(n)]
    middle = sum(left_out) / n
    cubes = sum((middle - value) ** 3 for value in left_out)
    squares = sum((middle - value) ** 2 for value in left_out)
    a = cubes / (6 * squares**1.5)
    ordered = sorted(resampled_means)
    ends = []
    for alpha in ((1 - level) / 2, (1 + level) / 2):
        z = normal.inv_cdf(alpha)
        share = normal.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))
        place = share * (len(ordered) - 1)
        low = math.floor(place)
        ends.append(ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]))
    return ends[0], ends[1]


def holm_rejects(p_values: Sequence[float], level: float) -> list[bool]:
    """Holm 1979, as a procedure: from the smallest p on, reject while p <= level / (number left); stop at the
    first that is not."""
    rejected = [False] * len(p_values)
    left = list(range(len(p_values)))
    while left:
        smallest = min(left, key=lambda i: p_values[i])
        if p_values[smallest] > level / len(left):
            break
        rejected[smallest] = True
        left.remove(smallest)
    return rejected


def rbo_ext(a: Sequence[str], b: Sequence[str], p: float) -> float:
    """Webber et al. 2010, equation 32, for lists of one length k: X_k / k p^k + (1 - p) / p sum of X_d / d p^d."""
    k = len(a)
    total = 0.0
    for d in range(1, k + 1):
        total += len(set(a[:d]) & set(b[:d])) / d * p**d
    return len(set(a) & set(b)) / k * p**k + (1 - p) / p * total


def kendall_tau_a(pairs: Sequence[tuple[int, int]]) -> float:
    """Kendall 1938: concordant less discordant pairs over all, without ties."""
    score = sum((1 if (x[0] - y[0]) * (x[1] - y[1]) > 0 else -1) for x, y in itertools.combinations(pairs, 2))
    return score / math.comb(len(pairs), 2)


def ktau_union_pairs(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """The two lists of numbers that repro-eval's document_order.py correlates, in pairs by place."""
    union = sorted(set(a) | set(b))
    return [(bisect.bisect_left(union, x), bisect.bisect_left(union, y)) for x, y in zip(a, b, strict=True)]


def fisher_randomization(control: Sequence[float], treatment: Sequence[float]) -> float:
    """The p-value that ranx's fisher_randomization_test draws permutations for, with every one of them: for each query
    the two values stand as they are or change places; the share of absolute differences of means not below the one
    that was observed."""
    n = len(control)
    observed = abs(sum(control) / n - sum(treatment) / n)
    n_reached = 0
    for exchanged in itertools.product((False, True), repeat=n):
        first = sum(t if swap else c for c, t, swap in zip(control, treatment, exchanged, strict=True)) / n
        second = sum(c if swap else t for c, t, swap in zip(control, treatment, exchanged, strict=True)) / n
        n_reached += abs(first - second) >= observed - 1e-12
    return n_reached / 2**n
