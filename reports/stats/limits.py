"""How far a mean can be from what was seen: one object that gives interval, p and margin test, which therefore agree.

    limits = mean_limits(differences, (-1.0, 1.0))
    interval_of(limits, 0.95), two_sided_p(limits), margin_p(limits, 0.02, both_sides=True)

Student's t where questions are many and none of them decides alone; the bounded mean (bounded.py) where they are few,
or where one arm has few samples; the wider of both where so little varies that a rare kind of question may have been
missed, and on the side to which the values are skewed (`fragile`). tests/reports/stats and `python -m benchmarks
calibration` simulate how often each covers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nsd.reports.stats.bounded import BoundedMean
from nsd.reports.stats.intervals import Interval
from nsd.reports.stats.numerics import constant, crossing, root

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

FEW_QUESTIONS = 20  # below, nothing is asked of the values but their bounds
SKEWED = 0.1  # skewness over the root of n from which t misses on the side of the long tail
TOO_SKEWED = 0.2  # the same from which the variance alone does not tell the chance of a test
FEW_CARRY = 5.0  # questions that carry the spread: sum(d^2)^2 / sum(d^4)
LITTLE = 4.0  # sum of squares about the mean, the largest possible difference counting 1: t reaches 3.7 / n from there


class Limits(Protocol):
    """One-sided limits and p-values of a mean: `upper(alpha)` is below m exactly where `p_less(m)` is below alpha."""

    @property
    def name(self) -> str: ...

    def upper(self, alpha: float) -> float: ...

    def lower(self, alpha: float) -> float: ...

    def p_less(self, mean: float) -> float: ...

    def p_greater(self, mean: float) -> float: ...


def interval_of(limits: Limits, level: float, bounds: tuple[float, float] | None = None) -> Interval:
    """Two-sided, half of 1 - level on either side, cut at the bounds of what is possible."""
    alpha = (1 - level) / 2
    low, high = limits.lower(alpha), limits.upper(alpha)
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Interval(low, high, level, limits.name)


def two_sided_p(limits: Limits, mean: float = 0.0) -> float:
    """Below alpha exactly where the interval of level 1 - alpha leaves `mean` out."""
    return min(1.0, 2 * limits.p_less(mean), 2 * limits.p_greater(mean))


def margin_p(limits: Limits, margin: float, both_sides: bool) -> float:
    """One-sided p of a mean above -margin or, with `both_sides`, within the margin on both sides (TOST)."""
    p = limits.p_greater(-margin)
    return max(p, limits.p_less(margin)) if both_sides else p


@dataclass(frozen=True, slots=True)
class Student:
    """An estimate with its standard error (positive), by Student's t."""

    estimate: float
    error: float
    df: float
    name: str = "t"

    def upper(self, alpha: float) -> float:
        """The one-sided upper limit."""
        return self.estimate + _t(self.df, alpha) * self.error

    def lower(self, alpha: float) -> float:
        """The one-sided lower limit."""
        return self.estimate - _t(self.df, alpha) * self.error

    def p_less(self, mean: float) -> float:
        """One-sided p for a true mean below `mean`."""
        return _t_tail(self.df, (mean - self.estimate) / self.error)

    def p_greater(self, mean: float) -> float:
        """One-sided p for a true mean above `mean`."""
        return _t_tail(self.df, (self.estimate - mean) / self.error)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a variance, estimated with so many degrees of freedom."""

    variance: float
    df: float


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """What training seeds add to the variance of a difference of means: one part for each trained arm.

    `residual` is what the questions' part has of it already. It is known by many values, so that it is taken off with
    the normal quantile; that of a few seeds would take off many times what the questions' part counts.
    """

    arms: tuple[Part, ...]
    residual: float

    @property
    def variance(self) -> float:
        """Of the difference of means, beyond the questions' part."""
        return max(0.0, sum(arm.variance for arm in self.arms) - self.residual)

    def square(self, alpha: float) -> float:
        """The square of the distance that a one-sided limit of level 1 - alpha goes for the seeds."""
        whole = sum(_t(arm.df, alpha) ** 2 * arm.variance for arm in self.arms if arm.variance > 0)
        return max(0.0, whole - _t(math.inf, alpha) ** 2 * self.residual)


@dataclass(frozen=True, slots=True)
class TwoSources:
    """An estimate whose variance has parts over questions and over the seeds of each trained arm.

    The limits lie sqrt(sum t_i^2 v_i) away, every part with the quantile of its own degrees of freedom. Such limits
    cover at least as often as they promise, at any level and whatever the true parts are: F, the distribution of the
    square of a normal variable, is concave, so that F(sum t_i^2 v_i / v) is no less than the mean of the F(t_i^2 v_i /
    true v_i), weighted by the true parts, and each of those has the mean 1 - 2 alpha (Banerjee 1960, Sankhya 22:331;
    after Cochran, Cox 1957, Experimental Designs, 4.14). One df by Welch and Satterthwaite, itself estimated, is too
    large where the seeds are few and one arm scatters more, the more so the smaller alpha is.
    """

    estimate: float
    questions: Part
    seeds: OverSeeds
    name: str = "two-level t"

    def reach(self, alpha: float) -> float:
        """The distance of a one-sided limit of level 1 - alpha."""
        over_questions = _t(self.questions.df, alpha) ** 2 * self.questions.variance if self.questions.variance else 0.0
        return math.sqrt(over_questions + self.seeds.square(alpha))

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(self.questions.variance + self.seeds.variance)

    @property
    def df(self) -> float:
        """Degrees of freedom of the t whose two-sided 95 % limits lie as far away."""
        wanted = self.reach(0.025) / self.error
        known = [part.df for part in (self.questions, *self.seeds.arms) if part.variance > 0]
        low, high = math.log(min(known) / 2), math.log(max(known))  # the residual may take it a little below the least
        return math.exp(crossing(lambda log_df: _t(math.exp(log_df), 0.025) - wanted, low, high))

    def upper(self, alpha: float) -> float:
        """The one-sided upper limit."""
        return self.estimate + self.reach(alpha)

    def lower(self, alpha: float) -> float:
        """The one-sided lower limit."""
        return self.estimate - self.reach(alpha)

    def p_less(self, mean: float) -> float:
        """One-sided p for a true mean below `mean`."""
        return self._tail(mean - self.estimate)

    def p_greater(self, mean: float) -> float:
        """One-sided p for a true mean above `mean`."""
        return self._tail(self.estimate - mean)

    def _tail(self, distance: float) -> float:
        if distance == 0:
            return 0.5
        found = math.exp(crossing(lambda log: self.reach(math.exp(log)) - abs(distance), -34.0, math.log(0.5)))
        return found if distance > 0 else 1 - found


@dataclass(frozen=True, slots=True)
class Widest:
    """The widest of several on either side: it covers at least as often as each of them."""

    below: Sequence[Limits]
    above: Sequence[Limits]
    name: str

    def upper(self, alpha: float) -> float:
        """The one-sided upper limit."""
        return max(one.upper(alpha) for one in self.above)

    def lower(self, alpha: float) -> float:
        """The one-sided lower limit."""
        return min(one.lower(alpha) for one in self.below)

    def p_less(self, mean: float) -> float:
        """One-sided p for a true mean below `mean`."""
        return max(one.p_less(mean) for one in self.above)

    def p_greater(self, mean: float) -> float:
        """One-sided p for a true mean above `mean`."""
        return max(one.p_greater(mean) for one in self.below)


@dataclass(frozen=True, slots=True)
class SeedsToo:
    """Limits of a mean over questions with the variance over training seeds added: sqrt(reach^2 + seeds^2) away.

    What TwoSources is for Student's t, for any limits of the questions.
    """

    questions: Limits
    estimate: float
    seeds: OverSeeds
    name: str

    def upper(self, alpha: float) -> float:
        """The one-sided upper limit."""
        return self.estimate + math.hypot(self.questions.upper(alpha) - self.estimate, self._reach(alpha))

    def lower(self, alpha: float) -> float:
        """The one-sided lower limit."""
        return self.estimate - math.hypot(self.estimate - self.questions.lower(alpha), self._reach(alpha))

    def p_less(self, mean: float) -> float:
        """One-sided p for a true mean below `mean`."""
        return self._tail(self.questions.p_less, mean)

    def p_greater(self, mean: float) -> float:
        """One-sided p for a true mean above `mean`."""
        return self._tail(self.questions.p_greater, mean)

    def _reach(self, alpha: float) -> float:
        return math.sqrt(self.seeds.square(min(0.5, max(alpha, 1e-15))))

    def _tail(self, p_of: Callable[[float], float], mean: float) -> float:
        """The p of the limit of the questions alone which, with the seeds' reach at that p, ends at `mean`."""
        away = mean - self.estimate
        if not any(arm.variance > 0 for arm in self.seeds.arms) or p_of(mean) >= 0.5:
            return p_of(mean)

        def beyond(share: float) -> float:
            return math.hypot(share * away, self._reach(p_of(self.estimate + share * away))) - abs(away)

        share = root(beyond, 0.0, 1.0)
        return p_of(self.estimate + share * away)


@dataclass(frozen=True, slots=True)
class Fragile:
    """On which sides of a mean Student's t is not to be trusted alone."""

    below: bool
    above: bool

    @property
    def any(self) -> bool:
        """On one side at least."""
        return self.below or self.above

    def mend(self, t: Limits, bounded: Limits, name: str) -> Limits:
        """`t`, and on these sides the wider of it and `bounded`."""
        if not self.any:
            return t
        both: list[Limits] = [t, bounded]
        return Widest(both if self.below else [t], both if self.above else [t], name)


def fragile(values: ArrayLike, bounds: tuple[float, float], seen: float | None = None) -> Fragile:
    """What the spread of `values` [n], not all the same, says of t, where a value can be anything within `bounds`.

    Both sides where fewer than FEW_CARRY values carry the spread; where their sum of squares is below LITTLE, for a
    rare kind of question of which none was seen moves the mean further than t reaches (n questions leave out what
    happens on 3.7 / n of all with chance .025); the side of the long tail from SKEWED. `seen` replaces that sum.
    """
    import numpy as np

    x = np.asarray(values, dtype=np.float64)
    centred = x - x.mean()
    squares = centred * centred
    total = float(squares.sum())
    carry = total**2 / float((squares * squares).sum())
    skew = float((squares * centred).sum()) / total**1.5
    varied = (total if seen is None else seen) / ((bounds[1] - bounds[0]) / 2) ** 2
    few = carry < FEW_CARRY or varied < LITTLE
    return Fragile(few or skew < -SKEWED, few or skew > SKEWED)


def mean_limits(values: ArrayLike, bounds: tuple[float, float] | None, lopsided: bool = False) -> Limits | None:
    """Limits of the mean of `values` [n], one a question. None with fewer than two, or where nothing can be said.

    `bounds` are those of a value, None where it has none (tokens); then t stands alone, and values without any spread
    have no limits. `lopsided`: one arm has so few samples that even many questions may not show its rare outcome.
    """
    import numpy as np

    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n < 2:
        return None
    flat = constant(x)
    if bounds is None:
        return None if flat else Student(float(x.mean()), float(x.std(ddof=1)) / math.sqrt(n), n - 1)
    if flat or lopsided or n < FEW_QUESTIONS:
        return BoundedMean(x, *bounds)
    t = Student(float(x.mean()), float(x.std(ddof=1)) / math.sqrt(n), n - 1)
    sides = fragile(x, bounds)
    if not sides.any:
        return t
    return sides.mend(t, BoundedMean(x, *bounds), "t, bounded mean where it is wider")


def fewest_for_t(values: ArrayLike) -> int:
    """From how many questions with values like these [n] the chance of `mean_limits` is told by their variance.

    Beyond it what is left of the skew costs less than the chance is given to.
    """
    import numpy as np

    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2 or constant(x):
        return FEW_QUESTIONS
    squares = (x - x.mean()) ** 2
    skew = float((squares * (x - x.mean())).mean()) / float(squares.mean()) ** 1.5
    tails = float((squares * squares).mean()) / float(squares.mean()) ** 2
    by_skew, by_tails = math.ceil((skew / TOO_SKEWED) ** 2), math.ceil(FEW_CARRY * tails)
    return max(FEW_QUESTIONS, int(by_skew), int(by_tails))


def _t(df: float, alpha: float) -> float:
    """The quantile that t exceeds with chance alpha."""
    from scipy.special import ndtri, stdtrit

    return -float(ndtri(alpha) if math.isinf(df) else stdtrit(df, alpha))


def _t_tail(df: float, t: float) -> float:
    """P(T >= t)."""
    from scipy.special import stdtr

    return float(stdtr(df, -t))
