"""Confidence intervals of shares and of differences of shares; bounds for what is missing. Those of means: limits.py.

    stats.wilson(successes=40, n=62)

Every difference is b - a. `None` means that no interval exists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsd.reports.stats.numerics import crossing, normal_quantile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval: limits in the units of the estimate, nominal level, method."""

    low: float
    high: float
    level: float
    name: str


# --------------------------------------------------------------------------- proportions


def wilson(successes: int, n: int, level: float = LEVEL) -> Interval | None:
    """Wilson score interval of a proportion (Wilson 1927), without continuity correction; None where n = 0."""
    if n == 0:
        return None
    z = normal_quantile(level)
    share, squared = successes / n, z * z
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    half = z / (1 + squared / n) * math.sqrt(share * (1 - share) / n + squared / (4 * n * n))
    # At 0 and n successes the limit is 0 or 1 exactly; the formula misses it by a rounding error.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high, level, "Wilson")


def newcombe_unpaired(right_a: int, n_a: int, right_b: int, n_b: int, level: float = LEVEL) -> Interval | None:
    """Interval of p_b - p_a from two independent samples: Newcombe 1998 (Stat Med 17:873), method 10.

    None where either sample is empty.
    """
    interval_a, interval_b = wilson(right_a, n_a, level), wilson(right_b, n_b, level)
    if interval_a is None or interval_b is None:
        return None
    low, high = _square_and_add(right_a / n_a, interval_a, right_b / n_b, interval_b, 0.0)
    return Interval(low, high, level, "Newcombe unpaired")


# --------------------------------------------------------------------------- paired proportions


def newcombe_paired(both: int, a_only: int, b_only: int, neither: int, level: float = LEVEL) -> Interval | None:
    """Interval of a difference of paired proportions: Newcombe 1998 (Stat Med 17:2635), method 10.

    Wilson limits of both margins, joined through the correlation phi, whose numerator is continuity corrected:
    max(D - n/2, 0) where D = both*neither - a_only*b_only is positive. None where n = 0.
    """
    n = both + a_only + b_only + neither
    if n == 0:
        return None
    right_a, right_b = both + a_only, both + b_only
    interval_a, interval_b = wilson(right_a, n, level), wilson(right_b, n, level)
    assert interval_a is not None and interval_b is not None
    product = math.sqrt(right_a * (n - right_a)) * math.sqrt(right_b * (n - right_b))
    numerator = float(both * neither - a_only * b_only)
    if numerator > 0:
        numerator = max(numerator - n / 2, 0.0)
    phi = numerator / product if product else 0.0
    low, high = _square_and_add(right_a / n, interval_a, right_b / n, interval_b, phi)
    return Interval(low, high, level, "Newcombe paired")


def rule_of_three(n: int, level: float = LEVEL) -> Interval | None:
    """Interval of a difference of which `n` paired questions show none; None where n = 0.

    Questions that differ one way make up at most 1 - alpha^(1/n), or one would have shown with chance 1 - alpha, alpha
    being (1 - level) / 2 (about 3 / n at .05: Hanley, Lippman-Hand 1983, JAMA 249:1743).
    """
    if n == 0:
        return None
    reach = 1 - ((1 - level) / 2) ** (1 / n)
    return Interval(-reach, reach, level, "rule of three")


def tango_score(a_only: int, b_only: int, n: int, difference: float) -> float:
    """Tango's score statistic of H0: p_b - p_a = difference, asymptotically standard normal.

    Tango 1998 (Stat Med 17:891), the restricted maximum likelihood under H0 in closed form; 0 where the
    observed difference equals the hypothesis and has no variance.
    """
    quadratic = 2.0 * n
    linear = -b_only - a_only + (2 * n - b_only + a_only) * difference
    constant = -a_only * difference * (1 - difference)
    root = math.sqrt(max(linear * linear - 4 * quadratic * constant, 0.0))
    share_a_only = (root - linear) / (2 * quadratic)
    variance = n * (2 * share_a_only + difference * (1 - difference))
    numerator = b_only - a_only - n * difference
    if variance <= 1e-12 * max(n, 1):
        return 0.0 if abs(numerator) < 1e-9 * max(n, 1) else math.copysign(math.inf, numerator)
    return numerator / math.sqrt(variance)


def tango_interval(a_only: int, b_only: int, n: int, level: float = LEVEL) -> Interval | None:
    """Interval of a difference of paired proportions by inverting `tango_score`; None where n = 0."""
    if n == 0:
        return None
    z, estimate = normal_quantile(level), (b_only - a_only) / n
    low = crossing(lambda d: tango_score(a_only, b_only, n, d) - z, -1.0, estimate)
    high = crossing(lambda d: tango_score(a_only, b_only, n, d) + z, estimate, 1.0)
    return Interval(low, high, level, "Tango score")


# --------------------------------------------------------------------------- missing values


def missing_bounds(
    summed_difference: float, shared: int, only_a: ArrayLike, only_b: ArrayLike
) -> tuple[float, float] | None:
    """Least and largest difference over ALL questions if the missing values, in [0, 1], were the worst or best.

    `summed_difference` is sum(b - a) over the `shared` questions; `only_a` [m_a] and `only_b` [m_b] hold the
    values of the questions that the other arm lacks (Manski's worst-case bounds). None without any question.
    """
    import numpy as np

    a, b = np.asarray(only_a, dtype=np.float64), np.asarray(only_b, dtype=np.float64)
    total = shared + len(a) + len(b)
    if total == 0:
        return None
    low = (summed_difference - float(a.sum()) + float((b - 1).sum())) / total
    high = (summed_difference + float((1 - a).sum()) + float(b.sum())) / total
    return low, high


# --------------------------------------------------------------------------- the part they share


def _square_and_add(
    share_a: float, interval_a: Interval, share_b: float, interval_b: Interval, phi: float
) -> tuple[float, float]:
    """Newcombe's joining of two Wilson intervals into limits for share_b - share_a."""
    down_a, up_a = share_a - interval_a.low, interval_a.high - share_a
    down_b, up_b = share_b - interval_b.low, interval_b.high - share_b
    difference = share_b - share_a
    low = difference - math.sqrt(max(down_b**2 - 2 * phi * down_b * up_a + up_a**2, 0.0))
    high = difference + math.sqrt(max(down_a**2 - 2 * phi * down_a * up_b + up_b**2, 0.0))
    return low, high
