"""Is the difference between two evaluations more than chance? They are compared in pairs, query by query.

Both methods use the 70 or so differences of AP, one per query. The randomisation test asks how often a difference in
mAP this large comes up when every query's two results change places by the toss of a coin (Smucker et al., A comparison
of statistical significance tests for information retrieval evaluation, CIKM 2007). The interval of the difference is
that of intervals.py. Neither knows of anything but the choice of queries: not of another training seed, not of another
dataset.

scipy.stats.permutation_test does the same, but takes 1.2 s of the processor to import, and counts patterns that give
the observed sum in another order of addition as smaller than it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.evaluation.intervals import DRAWS_AT_ONCE, LEVEL, RESAMPLES, SEED, mean_interval, smallest_difference
from ultron_cli.evaluation.result import Evaluation

EXACT_PATTERNS = 1 << 16  # at most this many sign patterns are tried one by one


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Evaluation B against A under one protocol. mAP, difference and interval are fractions."""

    protocol: str
    n_queries: int  # queries with positives
    mAP_a: float
    mAP_b: float
    difference: float  # B minus A
    p_value: float  # two-sided, of no difference
    exact: bool  # few enough queries differ to try every exchange
    interval: tuple[float, float]  # 95 % BCa bootstrap interval of `difference`
    smallest: float | None  # the smallest true difference that so many queries show in four of five cases
    n_better: int  # queries whose AP is higher in B
    n_worse: int  # queries whose AP is lower in B
    resamples: int
    seed: int
    metric: str = "mAP"  # whose means mAP_a and mAP_b are

    @property
    def p_text(self) -> str:
        """The p-value as people read it."""
        return p_text(self.p_value)

    @property
    def test_text(self) -> str:
        """How the p-value came about."""
        return ways_of_testing([self])[0]

    @property
    def verdict(self) -> str:
        """Which is better, and whether chance explains it, in one sentence."""
        if not self.n_better and not self.n_worse:
            return "A and B are equal on every query"
        points = 100 * abs(self.difference)
        if self.p_value < LEVEL and self.difference:
            better, worse = ("B", "A") if self.difference > 0 else ("A", "B")
            return f"{better} is better than {worse} by {points:.2f} points of {self.metric}; chance hardly explains it"
        few = ""
        if self.smallest is not None:
            few = f"; {self.n_queries} queries show a difference of {100 * self.smallest:.1f} points or more"
        return (
            f"A and B differ by {points:.2f} points of {self.metric}, which chance may explain: no evidence that "
            f"either is better{few}"
        )


def ways_of_testing(comparisons: Iterable[Comparison]) -> list[str]:
    """How the p-values of several comparisons came about: a text for all that came about alike."""
    counts: dict[str, list[str]] = {}
    for part in comparisons:
        how = "every exchange tried" if part.exact else f"{part.resamples:,} random exchanges, seed {part.seed}"
        if str(part.n_queries) not in counts.setdefault(how, []):
            counts[how].append(str(part.n_queries))
    return [
        f"paired randomisation test over {' and '.join(numbers)} queries, two-sided, {how}"
        for how, numbers in counts.items()
    ]


def p_text(p_value: float) -> str:
    """A p-value as people read it: `0.012`, or `< 0.001`; never 0."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def compare_evaluations(
    a: Evaluation, b: Evaluation, protocol: str, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Comparison:
    """Compares two evaluations under one protocol; the same seed gives the same numbers.

    Raises UltronError if the two are not of the same dataset and queries, or lack the protocol, or no query has
    positives.
    """
    if resamples < 1:
        raise UltronError(f"resamples must be at least 1; found {resamples}; 10000 is usual")
    return compare_ap(*paired_ap(a, b, protocol), protocol, resamples=resamples, seed=seed, metric=a.metric)


def compare_ap(
    ap_a: np.ndarray,
    ap_b: np.ndarray,
    protocol: str,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    metric: str = "mAP",
) -> Comparison:
    """Compares two (n,) float64 arrays of AP of the same queries, n at least 1, or of another metric that is named. The
    rest as compare_evaluations."""
    differences = ap_b - ap_a
    p_value, exact = sign_flip_p_value(differences, resamples=resamples, seed=seed)
    return Comparison(
        protocol=protocol,
        n_queries=len(differences),
        mAP_a=float(ap_a.mean()),
        mAP_b=float(ap_b.mean()),
        difference=float(differences.mean()),
        p_value=p_value,
        exact=exact,
        interval=mean_interval(differences, resamples=resamples, seed=seed),
        smallest=smallest_difference(differences),
        n_better=int((differences > 0).sum()),
        n_worse=int((differences < 0).sum()),
        resamples=resamples,
        seed=seed,
        metric=metric,
    )


def paired_ap(a: Evaluation, b: Evaluation, protocol: str) -> tuple[np.ndarray, np.ndarray]:
    """(n,) float64 twice: AP of the same queries in both, queries without positives left out. Raises as
    compare_evaluations."""
    for name, value_a, value_b, advice in (
        ("dataset", a.dataset, b.dataset, "evaluate both on the same dataset"),
        ("n_database", a.n_database, b.n_database, "use the same distractors for both"),
    ):
        if value_a != value_b:
            raise UltronError(f"two evaluations must have the same {name}; found {value_a} and {value_b}; {advice}")
    for evaluation, which in ((a, "first"), (b, "second")):
        if protocol not in evaluation.protocols:
            protocol_names = ", ".join(evaluation.protocols) or "none"
            raise UltronError(
                f"the {which} evaluation must have protocol {protocol}; it has {protocol_names}; run `ultron evaluate "
                "--protocol all`"
            )
    ap_a = a.protocols[protocol].ap
    ap_b = b.protocols[protocol].ap
    unpaired = sorted(set(ap_a) ^ set(ap_b)) or sorted(
        name for name in ap_a if (ap_a[name] is None) != (ap_b[name] is None)
    )
    if unpaired:
        raise UltronError(
            f"two evaluations must have AP for the same queries; {unpaired[0]} has it in one alone; use one "
            "ground truth"
        )
    names = [name for name in ap_a if ap_a[name] is not None]
    if not names:
        raise UltronError(
            f"a comparison must have a query with positives; found none under protocol {protocol}; choose "
            "another protocol"
        )
    return np.array([ap_a[name] for name in names], np.float64), np.array([ap_b[name] for name in names], np.float64)


def sign_flip_p_value(differences: np.ndarray, *, resamples: int, seed: int) -> tuple[float, bool]:
    """Two-sided p-value of the paired randomisation test on the mean, and whether it is exact.

    differences: (n,) float64. Where the queries that differ have no more sign patterns than `resamples` (and
    EXACT_PATTERNS), each pattern is tried once and the value is exact. Otherwise `resamples` random patterns are tried
    and the observed one is counted among them, so that the value is never 0.
    """
    # A query without difference stays the same whichever way it is exchanged.
    nonzero = differences[differences != 0]
    # Patterns that give the observed sum in another order of addition must count as equal to it.
    threshold = abs(nonzero.sum()) - 1e-12 * np.abs(nonzero).sum()
    if 2 ** len(nonzero) <= min(resamples, EXACT_PATTERNS):
        patterns = np.arange(2 ** len(nonzero))[:, None] >> np.arange(len(nonzero)) & 1
        sums = (1.0 - 2.0 * patterns) @ nonzero
        return float(np.mean(np.abs(sums) >= threshold)), True
    n_reached = 0
    for draws in _uniform_draws(resamples, len(nonzero), seed):
        n_reached += int((np.abs(np.where(draws < 0.5, -1.0, 1.0) @ nonzero) >= threshold).sum())
    return (1 + n_reached) / (1 + resamples), False


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being several (Holm, A simple sequentially rejective multiple test procedure, 1979): the
    smallest times their number m, the next times m - 1, and so on, never below an earlier one nor above 1."""
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for n_before, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - n_before) * p_values[i]))
        corrected[i] = highest
    return corrected


def _uniform_draws(n_rows: int, n_columns: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks of rows of an (n_rows, n_columns) array of float64 in [0, 1); the numbers do not depend on the block
    size."""
    generator = np.random.default_rng(seed)
    block = max(1, DRAWS_AT_ONCE // max(1, n_columns))
    for start in range(0, n_rows, block):
        yield generator.random((min(block, n_rows - start), n_columns))
