"""Power means as their equation reads, number by number, in decimals whose exponents never overflow."""

from collections.abc import Sequence
from decimal import Decimal, localcontext


def literal_power_mean(values: Sequence[float], p: float, eps: float = 1e-6) -> tuple[float, list[float], float]:
    """Equation 3 of Radenovic et al. (TPAMI 2019), of one channel: the mean m, dm/dx of every value and dm/dp.

    A value below eps counts as eps and has no gradient.
    """
    with localcontext() as context:
        context.prec = 40
        exponent, floor, n = Decimal(p), Decimal(eps), len(values)
        floored = [max(Decimal(value), floor) for value in values]
        powers = [value**exponent for value in floored]
        total = sum(powers, Decimal(0))
        mean = (total / n) ** (1 / exponent)
        gradient = [
            float((value / mean) ** (exponent - 1) / n) if Decimal(raw) >= floor else 0.0
            for raw, value in zip(values, floored, strict=True)
        ]
        of_logs = sum((power * value.ln() for power, value in zip(powers, floored, strict=True)), Decimal(0)) / total
        of_p = mean * (of_logs - (total / n).ln() / exponent) / exponent
        return float(mean), gradient, float(of_p)
