"""Means of bounded values from few questions: limits that ask nothing of the values but their bounds.

    interval_of(BoundedMean(values, 0.0, 1.0), level=0.95)       # of limits.py
    BoundedMean(differences, -1.0, 1.0).p_greater(0.0)

Gaffke's bound (Gaffke 2005, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a
nonnegative variable", Math Methods Stat 14:451): the upper limit of level 1 - alpha is the 1 - alpha quantile of
sum D_i x_i + D_{n+1} high, with D uniform on the simplex, and the lower limit the same with `low`: the values and one
more, the worst that could have been. For right-or-wrong values it is the exact interval of Clopper and Pearson; where
all n values are the same it is a rule of three (1 - alpha^(1/n) beyond them); for many values it is the t interval.

Limits: that it covers for every distribution is proved for right-or-wrong values and else conjectured (no
counter-example is known; Learned-Miller, Thomas 2019, arXiv 1905.06208); tests/reports/stats simulate it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nsd.reports.stats.intervals import Interval
from nsd.reports.stats.numerics import crossing, root

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

MOST_DISTINCT = 512  # more values than that are rounded outwards, by at most a 512th of the range
_STEP = 0.05  # between heights, in their logarithm: an error of 1e-10, which grows quickly beyond twice the step


class BoundedMean:
    """Limits and p-values for the mean of `values` [n], n >= 1, of a variable in [low, high].

    Raises ValueError for values outside the bounds.
    """

    name = "bounded mean"

    def __init__(self, values: ArrayLike, low: float, high: float) -> None:
        import numpy as np

        x = np.asarray(values, dtype=np.float64)
        if not len(x) or float(x.min()) < low - 1e-9 or float(x.max()) > high + 1e-9:
            raise ValueError(f"a bounded mean needs values between {low:g} and {high:g}")
        self.low, self.high, self.n = low, high, len(x)
        distinct, counts = np.unique(np.clip(x, low, high), return_counts=True)
        below = above = (distinct, counts)
        if len(distinct) > MOST_DISTINCT:
            unit = (high - low) / MOST_DISTINCT
            below, above = (
                np.unique(low + turn((x - low) / unit) * unit, return_counts=True) for turn in (np.floor, np.ceil)
            )
        self._down = np.append(below[0], low), np.append(below[1], 1).astype(np.float64)
        self._up = np.append(np.minimum(above[0], high), high), np.append(above[1], 1).astype(np.float64)

    def upper(self, alpha: float) -> float:
        """The limit that the true mean is above in at most a share `alpha` of samples."""
        values, counts = self._up
        return root(lambda at: alpha - (1 - _share_below(values, counts, at)), float(values.min()), self.high)

    def lower(self, alpha: float) -> float:
        """The limit that the true mean is below in at most a share `alpha` of samples."""
        values, counts = self._down
        return root(lambda at: _share_below(values, counts, at) - alpha, self.low, float(values.max()))

    def p_less(self, mean: float) -> float:
        """One-sided p for a true mean below `mean`: below alpha exactly where `upper(alpha)` is below it."""
        values, counts = self._up
        return min(1.0, max(0.0, 1 - _share_below(values, counts, mean)))

    def p_greater(self, mean: float) -> float:
        """One-sided p for a true mean above `mean`."""
        values, counts = self._down
        return min(1.0, max(0.0, _share_below(values, counts, mean)))


def exact_binomial(successes: int, n: int, level: float) -> Interval | None:
    """Exact interval of a share (Clopper, Pearson 1934); None where n = 0."""
    if n == 0:
        return None
    from scipy.special import betaincinv

    alpha = (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, alpha))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - alpha))
    return Interval(low, high, level, "exact binomial")


def _share_below(values: Floats, counts: Floats, at: float) -> float:
    """P(sum D_i x_i <= at) for D uniform on the simplex, `counts` equal values together, to about 1e-8.

    D is a vector of exponentials over its sum, so it is P(Q <= 0) for Q = sum G_i (x_i - at) with gamma variables G_i
    of shapes `counts`: the inversion of its moment generating function along the line through the saddlepoint, where
    nothing oscillates, by the trapezoidal rule over the logarithm of the height.
    """
    import numpy as np

    if at >= float(values.max()):
        return 1.0
    if at <= float(values.min()):
        return 0.0
    slopes = values - at
    scale = math.sqrt(float((counts * slopes * slopes).sum()))
    first, last = 1 / float(slopes.min()), 1 / float(slopes.max())
    # The integral is the same along every line between the poles; near the saddlepoint it is merely the best behaved.
    near = (last - first) * 1e-4
    saddle = crossing(lambda s: -float((counts * slopes / (1 - slopes * s)).sum()), first, last, near)
    if abs(saddle) < 0.5 / scale:  # the line must keep away from the pole at 0
        saddle = math.copysign(0.5 / scale, saddle)
    heights = np.exp(np.arange(-14.0, 14.0, _STEP)) / scale
    turned = np.outer(heights, slopes / (1 - slopes * saddle))
    angles, sizes = np.arctan(turned) @ counts, np.exp(-np.log1p(turned * turned) @ counts / 2)
    parts = sizes * (np.cos(angles) * saddle + np.sin(angles) * heights) / (saddle**2 + heights**2) * heights
    below_first = float(parts[0]) * (1 - _STEP / 2)  # flat down to height 0
    whole = float(parts.sum()) * _STEP + below_first
    tail = math.exp(-float(counts @ np.log1p(-slopes * saddle))) * whole / math.pi
    return min(1.0, max(0.0, 1 - tail if saddle > 0 else -tail))
