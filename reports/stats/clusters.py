"""Questions that come in groups: the t that is robust to any tie inside them, and what guards it against rare outcomes.

    cluster_t(differences, groups).p
    cluster_limits(differences, groups, (-1.0, 1.0))            # limits, or the Result that says why there are none

CR2 with Satterthwaite's degrees of freedom (Bell, McCaffrey 2002; Pustejovsky, Tipton 2018, J Bus Econ Stat 36:672).

Limits: groups are independent draws, and means of groups near enough to normal. A kind of group of which none was seen
is known to no test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsd.reports.stats.bounded import BoundedMean
from nsd.reports.stats.intervals import LEVEL
from nsd.reports.stats.limits import FEW_QUESTIONS, Fragile, Limits, Student, fragile, interval_of, two_sided_p
from nsd.reports.stats.numerics import cluster_sums, constant, root
from nsd.reports.stats.significance import Result, degenerate, t_result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

FEWEST_CLUSTERS = 3
NAME = "cluster-robust t (CR2)"


@dataclass(frozen=True, slots=True)
class ClusterVariance:
    """CR2 `variance` of a mean over `groups` groups with Satterthwaite's `df`; 0 where the groups have equal means."""

    groups: int
    variance: float
    df: float


def cluster_variance(values: ArrayLike, clusters: ArrayLike) -> ClusterVariance:
    """CR2 variance of the mean of `values` [n] in `clusters` [n]; 0 of one cluster, of which callers make no test.

    With n_g questions and residuals r in cluster g of N questions it is sum_g (sum r)^2 / (1 - n_g/N) / N^2. Degrees of
    freedom under the working model that questions of a cluster correlate as much as they are seen to: for clusters of
    unequal size, those of independent questions are too many.
    """
    import numpy as np

    x = np.asarray(values, dtype=np.float64)
    sums, sizes = cluster_sums(x, clusters)
    n = len(x)
    if len(sums) < 2:  # all questions in one, which say nothing of another
        return ClusterVariance(len(sums), 0.0, 0.0)
    residuals = sums - sizes * float(x.mean())
    variance = float((residuals**2 / (1 - sizes / n)).sum()) / n**2
    if variance <= 1e-24:
        return ClusterVariance(len(sums), 0.0, len(sums) - 1.0)
    return ClusterVariance(len(sums), variance, _cluster_df(sizes, _within_correlation(x, clusters, sums, sizes)))


def cluster_t(
    differences: ArrayLike,
    clusters: ArrayLike,
    level: float = LEVEL,
    bounds: tuple[float, float] | None = None,
    lopsided: bool = False,
) -> Result:
    """t on the mean of differences [n] whose questions come in `clusters` [n], robust to any within-cluster tie.

    Clusters of one size: the t test of their means. Fewer than FEWEST_CLUSTERS: p None, for with two it rejects up to
    .085 of true hypotheses. With `bounds` of a difference, p and interval are those of `cluster_limits`.
    """
    import numpy as np

    d = np.asarray(differences, dtype=np.float64)
    if bounds is not None:
        limits = cluster_limits(d, clusters, bounds, lopsided)
        if isinstance(limits, Result):
            return limits
        found, mean = cluster_variance(d, clusters), float(d.mean())
        error = math.sqrt(found.variance) or None
        p, interval = two_sided_p(limits), interval_of(limits, level, bounds)
        return Result(NAME, None if error is None else mean / error, p, mean, interval, found.df, error)
    if (refused := _too_few(d, clusters)) is not None:
        return refused
    if (without := degenerate(d, NAME)) is not None:
        return without
    mean, found = float(d.mean()), cluster_variance(d, clusters)
    if found.variance == 0:
        return Result(NAME, None, None, mean, note="the groups have equal means: no spread to test against")
    return t_result(NAME, mean, math.sqrt(found.variance), found.df, level, NAME)


def cluster_limits(
    values: ArrayLike, clusters: ArrayLike, bounds: tuple[float, float] | None, lopsided: bool = False
) -> Limits | Result:
    """Limits of the mean of `values` [n] in `clusters` [n], or the result that says why there are none.

    CR2's t, and on the sides that `cluster_fragile` names the wider of it and the bounded mean of groups. That one
    alone where the groups have equal means. `lopsided` as in `limits.mean_limits`.
    """
    import numpy as np

    x = np.asarray(values, dtype=np.float64)
    if (refused := _too_few(x, clusters)) is not None:
        return refused
    found, mean = cluster_variance(x, clusters), float(x.mean())
    if bounds is None:
        plain = degenerate(x, NAME)
        if plain is not None or found.variance == 0:
            note = "the groups have equal means: no spread to test against"
            return plain or Result(NAME, None, None, mean, note=note)
        return Student(mean, math.sqrt(found.variance), found.df, NAME)
    if found.variance == 0:
        return GroupedMean(x, clusters, *bounds)
    t = Student(mean, math.sqrt(found.variance), found.df, NAME)
    sides = cluster_fragile(x, clusters, bounds, lopsided)
    if not sides.any:
        return t
    return sides.mend(t, GroupedMean(x, clusters, *bounds), f"{NAME}, bounded mean of groups where it is wider")


def cluster_fragile(
    values: Floats, clusters: ArrayLike, bounds: tuple[float, float], lopsided: bool = False
) -> Fragile:
    """On which sides CR2's t is not to be trusted alone: `limits.fragile` of the groups' sums about the mean.

    On both with fewer than FEW_QUESTIONS groups: where answers are mostly right (or wrong) their means are skewed, and
    t alone then misses the margin of a claim of no harm in up to .17 of cases.
    """
    sums, sizes = cluster_sums(values, clusters)
    mean = float(values.mean())
    residuals = sums - sizes * mean
    if lopsided or len(sums) < FEW_QUESTIONS or constant(residuals):
        return Fragile(True, True)
    return fragile(residuals, bounds, float(((values - mean) ** 2).sum()))


class GroupedMean:
    """The bounded mean of a variable in [low, high] whose values [n] come in clusters.

    A true mean m is held against the groups' sums of values - m, over the size of the largest group: each lies between
    low - m and high - m, and their expectation is 0 whatever the sizes have to do with the values. Groups of one size:
    the bounded mean of their means.
    """

    name = "bounded mean of groups"

    def __init__(self, values: ArrayLike, clusters: ArrayLike, low: float, high: float) -> None:
        import numpy as np

        x = np.asarray(values, dtype=np.float64)
        BoundedMean(x, low, high)  # raises for values outside
        self.low, self.high = low, high
        self._sums, self._sizes = cluster_sums(np.clip(x, low, high), clusters)
        self._mean = float(self._sums.sum() / self._sizes.sum())

    def upper(self, alpha: float) -> float:
        """The one-sided upper limit."""
        return root(lambda mean: alpha - self.p_less(mean), self._mean, self.high)

    def lower(self, alpha: float) -> float:
        """The one-sided lower limit."""
        return root(lambda mean: self.p_greater(mean) - alpha, self.low, self._mean)

    def p_less(self, mean: float) -> float:
        """One-sided p for a true mean below `mean`."""
        return 0.0 if mean >= self.high else self._about(mean).p_less(0.0)

    def p_greater(self, mean: float) -> float:
        """One-sided p for a true mean above `mean`."""
        return 0.0 if mean <= self.low else self._about(mean).p_greater(0.0)

    def _about(self, mean: float) -> BoundedMean:
        mean = min(max(mean, self.low), self.high)
        about = (self._sums - self._sizes * mean) / float(self._sizes.max())
        return BoundedMean(about, self.low - mean, self.high - mean)


def _too_few(d: Floats, clusters: ArrayLike) -> Result | None:
    groups = len(cluster_sums(d, clusters)[0])
    if groups >= FEWEST_CLUSTERS:
        return None
    estimate = float(d.mean()) if len(d) else None
    note = f"{groups} group(s) of questions: at least {FEWEST_CLUSTERS} are needed"
    return Result(NAME, None, None, estimate, note=note)


def _within_correlation(d: Floats, clusters: ArrayLike, sums: Floats, sizes: Floats) -> float:
    """Intraclass correlation of differences by analysis of variance, between 0 and 1."""
    import numpy as np

    n, groups = len(d), len(sums)
    if groups == n:
        return 0.0
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    means = sums / sizes
    within = float(((d - means[index]) ** 2).sum()) / (n - groups)
    between = float((sizes * (means - d.mean()) ** 2).sum()) / (groups - 1)
    shared = max(0.0, (between - within) / ((n - float((sizes**2).sum()) / n) / (groups - 1)))
    return shared / (shared + within) if shared > 0 else 0.0


def _cluster_df(sizes: Floats, correlation: float) -> float:
    """Satterthwaite's df: see `CR2Moments`."""
    import numpy as np

    return cr2_moments(sizes, np.ones_like(sizes), correlation).df


@dataclass(frozen=True, slots=True)
class CR2Moments:
    """Of values with variance 1: the CR2 variance of their mean that is expected, and Satterthwaite's `df` of it."""

    expected: float
    df: float


def cr2_moments(sizes: Floats, counts: Floats, correlation: float) -> CR2Moments:
    """Moments of CR2's variance of a mean over `counts` [m] groups of each of `sizes` [m]: (trace W)^2 / trace(W^2).

    W_gh = p_g' Phi p_h with p_g = a_g (1_g - n_g/N 1), a_g^2 = 1 / (1 - n_g/N) / N^2, and Phi has 1 on its diagonal and
    `correlation` between questions of one group (Pustejovsky, Tipton 2018). W is diagonal plus products of vectors, so
    that m sizes take time and memory m, however many groups have each.
    """
    import numpy as np

    n, rest = float(counts @ sizes), 1 - correlation
    weights = np.sqrt(1 / (1 - sizes / n)) / n
    share = sizes / n
    squares = float(counts @ sizes**2)
    # W_gh = a_g a_h [rest (n_g [g=h] - n_g n_h / N)
    #                 + correlation (n_g^2 [g=h] - s_g n_h^2 - s_h n_g^2 + s_g s_h squares)], s = n / N
    own = weights**2 * (rest * sizes + correlation * sizes**2)
    u, v = weights * share, weights * sizes**2
    first, second = correlation * squares - rest * n, -correlation
    # W = diag(own) + first u u' + second (u v' + v u')
    uu, vv, uv = float(counts @ (u * u)), float(counts @ (v * v)), float(counts @ (u * v))
    trace = float(counts @ own) + first * uu + 2 * second * uv
    low_rank = first**2 * uu**2 + 4 * first * second * uu * uv + 2 * second**2 * (uv**2 + uu * vv)
    cross = float(first * (counts @ (own * u * u)) + 2 * second * (counts @ (own * u * v)))
    return CR2Moments(trace, trace**2 / (float(counts @ (own**2)) + 2 * cross + low_rank))
