"""The numerics that tests, intervals and power share: quantiles, a root, resampling, sums over clusters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


def normal_quantile(level: float) -> float:
    """The z within which a standard normal lies with chance `level`: 1.96 at 0.95."""
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))


def upper_normal(z: float) -> float:
    """P(Z >= z)."""
    from scipy.special import ndtr

    return float(ndtr(-z))


def two_sided_normal(z: float) -> float:
    """P(|Z| >= |z|)."""
    return min(1.0, 2 * upper_normal(abs(z)))


def z_sum(alpha: float, power: float) -> float:
    """z_{alpha/2} + z_power: how many standard errors a two-sided test finds with chance `power`."""
    from scipy.special import ndtri

    return float(ndtri(1 - alpha / 2) + ndtri(power))


def t_power(shift: float, df: float, alpha: float) -> float:
    """Power of a two-sided t test whose true difference is `shift` (at most 37) standard errors."""
    from scipy.special import nctdtr, stdtrit

    limit = float(stdtrit(df, 1 - alpha / 2))
    if shift - limit > 30:
        return 1.0  # a miss is beyond all doubt, and scipy's nctdtr gives nan out there
    upper: Any = nctdtr(df, shift, limit)
    return 1 - float(upper)  # the chance of rejecting on the wrong side is left out: below 1e-4 at any useful power


def constant(x: Floats) -> bool:
    """Whether all values of `x` [n] are the same up to rounding."""
    return float(x.max() - x.min()) <= 1e-12 * max(1.0, abs(float(x[0])))


def crossing(falling: Callable[[float], float], low: float, high: float, within: float = 1e-14) -> float:
    """Where a falling function is zero in [low, high], by bisection to `within`."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
        if high - low < within:
            break
    return (low + high) / 2


def root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a monotone function is zero in [low, high], to 1e-10: the Illinois method, every third step a bisection."""
    at_low, at_high = rising(low), rising(high)
    if at_low * at_high >= 0:
        return low if abs(at_low) <= abs(at_high) else high
    for turn in range(100):
        middle = (low + high) / 2 if turn % 3 == 0 else (low * at_high - high * at_low) / (at_high - at_low)
        value = rising(middle)
        if value * at_high <= 0:
            low, at_low = high, at_high
        else:
            at_low /= 2
        high, at_high = middle, value
        if abs(high - low) < 1e-10 or abs(value) < 1e-12:
            break
    return high


def chunks(rows: int, width: int, cells: int = 4_000_000) -> list[int]:
    """Row counts that sum to `rows`, each at most `cells` cells of this width, to bound memory."""
    step = max(1, cells // max(width, 1))
    return [min(step, rows - start) for start in range(0, rows, step)]


def cluster_sums(d: Floats, clusters: ArrayLike) -> tuple[Floats, Floats]:
    """Sums of `d` [n] and sizes, by cluster: two arrays [G]. Raises ValueError where the shapes differ."""
    import numpy as np

    labels = np.asarray(clusters)
    if labels.shape != d.shape:
        raise ValueError(f"clusters of shape {labels.shape} for differences of shape {d.shape}")
    _, index = np.unique(labels, return_inverse=True)
    size = int(index.max()) + 1 if len(index) else 0
    sums: Floats = np.bincount(index, weights=d, minlength=size).astype(np.float64)
    return sums, np.bincount(index, minlength=size).astype(np.float64)
