"""The chance that a test finds a true difference, for every test that choose.py can take: exact, or by noncentral t.

    model = PairedShares(n=164, discordance=0.2)              # chances_of_shares.py: McNemar, sign and score tests
    model.chance(0.10, alpha=0.05)                            # found: significant, and on the right side
    detectable(model, alpha=0.05, power=0.8)                  # smallest true difference found in 4 of 5 cases
    Means(Parts(questions=0.25 / 100, questions_df=99))       # t, sign-flip; with seeds the two-level t
    GroupedMeans(sizes, variance=0.2, icc=0.1)                # chances_of_groups.py: the cluster t

A design is a model; `margin_chance` is that of a claim of no harm (or equivalence) at a true difference of zero. A
"found" on the wrong side is none.

Limits: `Means` takes the means for normal. tests/reports/stats/test_chances.py and `python -m benchmarks calibration`
hold every model against the tests themselves; where a few bounded values decide (fewer than FEWEST questions) the
variance does not tell the chance, and callers give no figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypeVar

from nsd.reports.stats.limits import FEW_QUESTIONS, LITTLE, Part

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEWEST = FEW_QUESTIONS  # under it a test of means rests on the bounds of the values, not on their variance
MOST = 10_000_000


class Model(Protocol):
    """A design with its spreads."""

    @property
    def largest(self) -> float:
        """No difference, or margin, beyond this is asked about."""

    def told(self, effect: float) -> bool:
        """Whether the chance that is given for this true difference is a figure to go by."""

    def error(self, effect: float) -> float:
        """The standard error that a test will estimate where this is the true difference."""

    def chance(self, effect: float, alpha: float) -> float:
        """That a two-sided test at alpha finds a true difference `effect` > 0."""

    def margin_chance(self, margin: float, alpha: float, both_sides: bool) -> float:
        """That a one-sided test at alpha shows no harm (equivalence) within `margin` where the truth is zero."""


# --------------------------------------------------------------------------- means


@dataclass(frozen=True, slots=True)
class Parts:
    """The true variance of a difference of means, in parts as a test sees them.

    `questions`: of the mean over questions, sampling included, known with `questions_df` degrees of freedom. `seeds`:
    of the mean of each trained arm's seeds about its recipe; none for a test that looks at questions alone. `residual`:
    what is in both of them, the noise of a seed at a question. `extra`: what moves every result and no test sees (an
    engine's noise). `one_df`: the seeds of both arms have one df by Welch and Satterthwaite, as in tests on seed means.
    """

    questions: float
    questions_df: float
    seeds: tuple[Part, ...] = ()
    residual: float = 0.0
    extra: float = 0.0
    one_df: bool = False

    @property
    def variance(self) -> float:
        """Of the difference of means."""
        over_seeds = sum(part.variance for part in self.seeds)
        return max(self.questions + over_seeds - self.residual, self.questions, over_seeds) + self.extra


@dataclass(frozen=True, slots=True)
class Means:
    """A t test on a difference of means: of questions, of groups of them, of seeds, or the two-level one of both.

    The standard error is itself estimated: the chance is a mean over what it may turn out to be, which for a single
    part is the noncentral t. `limit`: the largest difference that the metric allows. `coarse`: by how much the mean is
    to be larger for a sign-flip test, whose sums of multiples of 1/k go in steps of 2/k: half a step, 1 / (k n). It
    costs nothing where the bounded mean asks for more.
    `units`: questions (or groups of them) whose differences lie between -1 and 1 and which therefore have the bounded
    mean where little varies (`limits.fragile`); 0 for none.
    """

    parts: Parts
    limit: float = 1.0
    coarse: float = 0.0
    units: int = 0

    @property
    def largest(self) -> float:
        """The limit, or 60 standard errors."""
        return min(self.limit, 60 * math.sqrt(self.parts.variance) + self.coarse)

    def told(self, effect: float) -> bool:
        """Of any difference."""
        return True

    def error(self, effect: float) -> float:
        """Without what no test sees."""
        return math.sqrt(max(self.parts.variance - self.parts.extra, 0.0))

    def chance(self, effect: float, alpha: float) -> float:
        """P(estimate above its critical value)."""
        return self._passing(effect, alpha / 2, False, 1.0, self.coarse)

    def margin_chance(self, margin: float, alpha: float, both_sides: bool) -> float:
        """P(estimate further from the margin than its critical value)."""
        return self._passing(margin, alpha, both_sides, max(0.0, 1 - margin))

    def _passing(self, room: float, tail: float, both_sides: bool, worst: float, coarse: float = 0.0) -> float:
        """`worst`: how far the worst difference that a question can have lies beyond what is to be left out."""
        import numpy as np
        from scipy.special import ndtr

        error = math.sqrt(self.parts.variance)
        if error == 0:
            return 1.0
        one_side = ndtr((room - _reaches(self.parts, tail, self.units, worst if self.units else 1.0, coarse)) / error)
        return float(np.mean(np.maximum(0.0, 2 * one_side - 1) if both_sides else one_side))


@dataclass(frozen=True, slots=True)
class Groups:
    """Welch's F over groups of questions of these `sizes`, whose differences have one `variance` a question.

    The effect: by how much the difference in one group, the smallest, is not that of all others, which are alike. By
    the noncentral F; the test takes a permutation as well, which seldom costs anything.
    """

    sizes: tuple[int, ...]
    variance: float

    @property
    def largest(self) -> float:
        """All one way in one group, all the other way in the others."""
        return 2.0

    def told(self, effect: float) -> bool:
        """Of any difference."""
        return True

    def error(self, effect: float) -> float:
        """Of the smallest group's difference from the rest."""
        smallest, n = min(self.sizes), sum(self.sizes)
        return math.sqrt(self.variance * (1 / smallest + 1 / (n - smallest)))

    def chance(self, effect: float, alpha: float) -> float:
        """P(F above its critical value)."""
        from scipy.special import fdtri, ncfdtr

        n, groups = sum(self.sizes), len(self.sizes)
        spread = sum((1 - size / n) ** 2 / (size - 1) for size in self.sizes)
        df = (groups**2 - 1) / (3 * spread)
        noncentral = (effect / self.error(effect)) ** 2 if self.variance > 0 else math.inf
        return float(1 - ncfdtr(groups - 1, df, min(noncentral, 1e4), fdtri(groups - 1, df, 1 - alpha)))

    def margin_chance(self, margin: float, alpha: float, both_sides: bool) -> float:
        """Nothing shows that all groups are alike."""
        return 0.0


def sign_flip_means(variance: float, n: int, k: int | None, limit: float = 1.0, extra: float = 0.0) -> Means:
    """The sign-flip test on `n` means of `k` samples (None: not such means) whose differences have this variance.

    A verdict asks the t interval as well. That both agree costs a little more than either: 3 / n standard errors, as
    simulated (benchmarks/power.py) at 20 to 200 questions.
    """
    coarse = 0.0 if k is None else 1 / (k * n)
    parts = Parts(variance / n, n - 1, extra=extra)
    return Means(parts, limit, coarse + 3 * math.sqrt(variance / n) / n, n if math.isfinite(limit) else 0)


@lru_cache(maxsize=256)
def _reaches(parts: Parts, tail: float, units: int = 0, worst: float = 1.0, coarse: float = 0.0) -> Floats:
    """The critical values that may come up, equally likely: those of limits.TwoSources, Student's and Welch's."""
    import numpy as np
    from scipy.special import stdtrit

    squares = np.zeros(1)
    if parts.questions:
        asked = parts.questions * variances(parts.questions_df, 24 if parts.seeds else 400)
        squares = (np.sqrt(asked) * -float(stdtrit(parts.questions_df, tail)) + coarse) ** 2
        if units and (little := asked * units**2 < LITTLE).any():
            reach = _bounded_reach(asked[little] * units**2, units, tail, max(worst, 1e-3))
            squares[little] = np.maximum(squares[little], reach**2)
    over_seeds = tuple(part for part in parts.seeds if part.variance > 0)
    if over_seeds:
        squares = seeds_squares(over_seeds, tail, parts.residual, parts.one_df)[:, None] + squares[None, :]
    return np.asarray(np.sqrt(squares))


def _bounded_reach(varied: Floats, units: int, tail: float, worst: float = 1.0) -> Floats:
    """How far a limit of the bounded mean lies from the mean of `units` values with these sums of squares about it.

    A limit w away is where sum G_i (x_i + w) - E = 0 has chance `tail` of being negative, G_i and E exponential and E
    that of the worst value, whose mean is `worst`, its distance from the limit. The sum has the mean n w, the variance
    `varied` + n w^2 and the third cumulant 2 n w^3 + 6 w `varied` (of values without skewness), and is taken for a
    shifted gamma variable of these.
    """
    import numpy as np

    varied = varied / worst**2
    low, high = np.zeros_like(varied), np.ones_like(varied)
    for _ in range(40):
        away = (low + high) / 2
        spread = np.maximum(varied + units * away**2, 1e-12)
        scale = np.maximum((units * away**3 + 3 * away * varied) / spread, 1e-9)
        beyond = below_an_exponential(units * away, spread, scale)
        low, high = np.where(beyond > tail, away, low), np.where(beyond > tail, high, away)
    return np.asarray(high * worst)


def below_an_exponential(mean: Floats, variance: Floats, scale: Floats) -> Floats:
    """P(X < E) of a gamma variable X of this scale, shifted to this mean and variance, and E exponential of mean 1."""
    import numpy as np
    from scipy.special import gammainc, gammaincc

    shape = variance / scale**2
    start = mean - shape * scale
    under = np.maximum(0.0, -start / scale)
    rest = np.log(np.maximum(gammaincc(shape, under * (1 + scale)), 1e-300))
    found: Floats = gammainc(shape, under) + np.exp(np.minimum(0.0, rest - start - shape * np.log1p(scale)))
    return found


def seeds_squares(parts: tuple[Part, ...], tail: float, residual: float, one_df: bool = False) -> Floats:
    """The squares of how far seeds take a critical value, equally likely: as `limits.OverSeeds.square`."""
    import numpy as np
    from scipy.special import ndtri

    return np.asarray(np.maximum(0.0, _between(parts, tail, one_df) - float(ndtri(tail)) ** 2 * residual))


def _between(parts: tuple[Part, ...], tail: float, one_df: bool) -> Floats:
    """What t^2 times the variance of seed means may come out as, of one arm or two, equally likely."""
    import numpy as np
    from scipy.special import stdtrit

    found = [part.variance * variances(part.df, 200 if len(parts) == 1 else 24) for part in parts]
    if not one_df or len(parts) == 1:
        each = [float(stdtrit(part.df, tail)) ** 2 * seen for part, seen in zip(parts, found, strict=True)]
        return np.asarray(each[0] if len(each) == 1 else np.add.outer(*each).ravel())
    a, b = (one.ravel() for one in np.meshgrid(*found, indexing="ij"))
    df = (a + b) ** 2 / (a * a / parts[0].df + b * b / parts[1].df)
    return np.asarray(stdtrit(df, tail) ** 2 * (a + b))


@lru_cache(maxsize=4096)
def variances(df: float, steps: int) -> Floats:
    """What a variance of 1 may be estimated as from `df` degrees of freedom: middles of equally likely parts."""
    import numpy as np
    from scipy.special import gammaincinv

    found: Floats = gammaincinv(df / 2, (np.arange(steps) + 0.5) / steps) * 2 / df
    return found


def variance_factors(df: float, level: float = 0.95) -> tuple[float, float]:
    """The interval of a true variance whose estimate from `df` degrees of freedom is 1 (chi-square)."""
    from scipy.special import gammaincinv

    low, high = (float(gammaincinv(df / 2, share)) for share in ((1 + level) / 2, (1 - level) / 2))
    return df / 2 / low, df / 2 / max(high, 1e-12)


# --------------------------------------------------------------------------- the other way round


def detectable(model: Model, alpha: float, power: float) -> float | None:
    """Smallest true difference found with chance `power`; None where not even the largest is, or no figure is told."""
    found = _smallest(lambda effect: model.chance(effect, alpha), model, power)
    return found if found is None or model.told(found) else None


def smallest_margin(model: Model, alpha: float, power: float, both_sides: bool) -> float | None:
    """Smallest margin shown with chance `power` (one-sided alpha) where there is no difference; None as above."""
    if not model.told(0.0):
        return None
    return _smallest(lambda margin: model.margin_chance(margin, alpha, both_sides), model, power)


def _smallest(chance: Callable[[float], float], model: Model, power: float) -> float | None:
    """By the Illinois method, every third step a bisection, to 1e-5 of the difference."""
    low, high = 0.0, model.largest
    at_low, at_high = chance(low) - power, chance(high) - power
    if at_high < 0:
        return None
    for turn in range(100):
        if high - low <= 1e-5 * high:
            break
        middle = (low + high) / 2 if turn % 3 == 0 else (low * at_high - high * at_low) / (at_high - at_low)
        value = chance(middle) - power
        if value >= 0:
            high, at_high, at_low = middle, value, at_low / 2
        else:
            low, at_low, at_high = middle, value, at_high / 2
    return high


Count = TypeVar("Count", int, float)
Ends = tuple[Count | None, Count | None]


def spanning(ends: Ends[Count], estimate: Count | None) -> Ends[Count]:
    """The ends of a range, in which None is "no number": widened to hold the estimate.

    A verdict at any look asks more of a smaller error, so that what it takes need not grow with the spread.
    """
    low, high = ends
    if estimate is None:
        return low, None
    return estimate if low is None else min(low, estimate), None if high is None else max(high, estimate)


def least(enough: Callable[[int], bool], start: int = 1, guess: int = 1, most: int = MOST) -> int | None:
    """The first whole number from `start` that is enough, of those beyond which all are; None above `most`.

    `guess` shortens the search where it is near.
    """
    low, high = start - 1, max(start, min(guess, most))
    while not enough(high):
        if high >= most:
            return None
        low, high = high, min(most, high + max(1, high // 2))
    while high - low > 1:
        halved = low * 2 > high or low < start
        middle = (low + high) // 2 if halved else max(low + 1, math.isqrt(low * high))
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
