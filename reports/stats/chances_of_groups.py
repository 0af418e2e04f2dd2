"""The chance that the test of questions in groups finds a true difference: CR2's t, and what guards it.

    sizes = GroupSizes((8, 8, 12, 30))                         # questions in each group
    model = GroupedMeans(sizes, variance=0.2, icc=0.1)
    model.chance(0.10, alpha=0.05); detectable(model, 0.05, 0.8)
    GroupedMeans(sizes.of_groups(40), 0.2, 0.1)                # ten times as many groups like these
    GroupedMeans(sizes.of_questions(580), 0.2, 0.1)            # ten times as many questions in the same groups

The variance of a mean of N questions in groups of n_g is V (1 - icc + icc sum n_g^2 / N) / N: with the questions of the
same groups without end V icc sum n_g^2 / N^2 is left. What CR2 estimates has Satterthwaite's degrees of freedom and, of
unequal groups, a smaller mean. Whether the bounded mean of groups is asked as well (`clusters.cluster_fragile`) depends
on how the sums of groups come out, which is drawn (normal, of a fixed stream); how far that one reaches is told by
three moments of its weighted sum, as in chances.py.

Limits: sums of groups are taken for normal; `told` says where they are not near enough to it, or the sizes so unequal
that a few groups decide. Past MOST_DRAWN groups nothing is drawn: the guard is then hardly ever
asked. tests/reports/stats/test_chances_of_groups.py and `python -m benchmarks.power` hold it against the tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from nsd.reports.stats.chances import below_an_exponential, seeds_squares, variances
from nsd.reports.stats.clusters import FEWEST_CLUSTERS, CR2Moments, cr2_moments
from nsd.reports.stats.limits import FEW_CARRY, FEW_QUESTIONS, LITTLE, SKEWED, TOO_SKEWED, Part

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MOST_DRAWN = 300
DRAWS = 400
FEWEST_TOLD = 8  # bounded means of fewer groups find what is promised only within .1
UNSURE = 1.3  # so near to LITTLE, chance says whether the bounded mean is asked
EVEN = 0.8  # of as many equal groups: less, and the largest groups decide alone
_STREAM = 20261127


@dataclass(frozen=True, slots=True)
class GroupSizes:
    """How many questions each group has. `times`: of more groups than are known, how many stand behind each size."""

    sizes: tuple[float, ...]
    times: float = 1.0

    @property
    def groups(self) -> int:
        """Their number."""
        return round(len(self.sizes) * self.times)

    @property
    def questions(self) -> float:
        """Of all groups."""
        return sum(self.sizes) * self.times

    @property
    def squares(self) -> float:
        """The sum of n_g^2."""
        return sum(size * size for size in self.sizes) * self.times

    def of_groups(self, groups: int) -> GroupSizes:
        """So many groups with sizes like these: every size as often, as far as a number allows it."""
        ordered = sorted(self.sizes)
        if groups > MOST_DRAWN:
            return GroupSizes(tuple(ordered), groups / len(ordered))
        if groups == self.groups:
            return self
        places = [int((i + 0.5) * len(ordered) / groups) for i in range(groups)]
        mean = sum(ordered) / len(ordered)
        kept = sum(ordered[place] for place in places) / groups
        return GroupSizes(tuple(ordered[place] * mean / kept for place in places))

    def of_questions(self, questions: float) -> GroupSizes:
        """The same groups with so many questions in all."""
        return GroupSizes(tuple(size * questions / self.questions for size in self.sizes), self.times)

    def spread(self, icc: float) -> float:
        """The variance of a mean of values with variance 1; 0 where groups so large can have no `icc` so negative."""
        n = self.questions
        return max(0.0, 1 - icc + icc * self.squares / n) / n

    @property
    def effective(self) -> float:
        """How many equal groups leave a mean as uncertain, where groups are all that varies: N^2 / sum n^2."""
        return self.questions**2 / self.squares

    def third(self, icc: float) -> float:
        """The third moment of the sum of all values, of which one has 1: beta-binomial, summed over the groups."""
        found = sum(n * (1 - icc + n * icc) * (1 - icc + 2 * n * icc) / (1 + icc) for n in self.sizes)
        return found * self.times

    def seen(self, icc: float) -> CR2Moments:
        """What CR2 is expected to make of it, and its degrees of freedom."""
        import numpy as np

        distinct, counts = np.unique(np.asarray(self.sizes, dtype=np.float64), return_counts=True)
        return cr2_moments(distinct, np.asarray(counts * self.times, dtype=np.float64), icc)


def icc_of(sizes: GroupSizes, variance: float, of_mean: float) -> float:
    """The correlation inside groups of `sizes` under which CR2 is expected to find `of_mean`, at most 1.

    `variance` is that of a question. Negative where the groups are more alike than groups by chance.
    """
    alone, whole = (sizes.seen(icc).expected for icc in (0.0, 1.0))
    return 0.0 if whole <= alone or variance <= 0 else min(1.0, (of_mean / variance - alone) / (whole - alone))


@dataclass(frozen=True, slots=True)
class GroupedMeans:
    """The cluster-robust t on questions in groups, or the two-level one of these and of training seeds.

    `variance` of a question's difference and `icc`, how its differences correlate inside a group. `counted`: they are
    -1, 0 or 1 and `variance` is their share that is not 0, of which a true difference takes its square. `seeds`,
    `residual`, `extra` as in `chances.Parts`, the questions' part being the groups'. `bounded`: differences lie between
    -1 and 1 and the bounded mean of groups guards t. `fewest`: groups under which their sums are known to be skewed.
    """

    sizes: GroupSizes
    variance: float
    icc: float
    counted: bool = False
    bounded: bool = True
    seeds: tuple[Part, ...] = ()
    residual: float = 0.0
    extra: float = 0.0
    fewest: int = 0

    @property
    def largest(self) -> float:
        """One, or 60 standard errors."""
        return 1.0 if self.bounded else 60 * self.error(0.0)

    def told(self, effect: float) -> bool:
        """Whether the figure of this difference is one: the mean not too skewed, the sizes not too unequal."""
        groups, like = self.sizes.groups, self.sizes.effective
        if groups < max(FEWEST_TOLD, self.fewest) or (self.bounded and like < min(FEW_QUESTIONS, EVEN * groups)):
            return False
        if not self.bounded or groups < FEW_QUESTIONS:
            return True
        varied = self._of_question(effect) * self.sizes.questions
        return self._skew(effect) <= TOO_SKEWED and not LITTLE / UNSURE < varied < LITTLE * UNSURE

    def error(self, effect: float) -> float:
        """Without what no test sees."""
        return math.sqrt(self._variance_at(effect))

    def chance(self, effect: float, alpha: float) -> float:
        """P(estimate above its critical value)."""
        return self._passing(effect, effect, alpha / 2, False, 1.0)

    def margin_chance(self, margin: float, alpha: float, both_sides: bool) -> float:
        """P(estimate further from the margin than its critical value)."""
        return self._passing(margin, 0.0, alpha, both_sides, max(1e-3, 1 - margin))

    def _of_question(self, effect: float) -> float:
        return max(0.0, max(self.variance, effect) - effect**2) if self.counted else self.variance

    def _third(self, effect: float) -> float:
        """The third moment of a question's difference about its mean; 0 where only its variance is known."""
        if not self.counted:
            return 0.0
        return effect - 3 * effect * max(self.variance, effect) + 2 * effect**3

    def _skew(self, effect: float) -> float:
        """The skewness of the mean."""
        variance = self._of_question(effect) * self.sizes.spread(self.icc)
        third = self._third(effect) * self.sizes.third(max(0.0, self.icc)) / self.sizes.questions**3
        return third / variance**1.5 if variance > 0 else 0.0

    def _variance_at(self, effect: float) -> float:
        over_seeds = sum(part.variance for part in self.seeds)
        questions = self._of_question(effect) * self.sizes.spread(self.icc)
        return max(questions + over_seeds - self.residual, questions, over_seeds)

    def _passing(self, room: float, effect: float, tail: float, both_sides: bool, worst: float) -> float:
        """`worst`: how far the worst difference that a question can have lies beyond what is to be left out."""
        import numpy as np
        from scipy.special import ndtr

        if self.sizes.groups < FEWEST_CLUSTERS:
            return 0.0
        error = math.sqrt(self._variance_at(effect) + self.extra)
        reach = np.sqrt(self._squares(effect, tail, worst))
        if error == 0:
            return float(np.mean(reach < room))
        one_side = ndtr((room - reach) / error)
        return float(np.mean(np.maximum(0.0, 2 * one_side - 1) if both_sides else one_side))

    def _squares(self, effect: float, tail: float, worst: float) -> Floats:
        """The squares of the critical values that may come up, equally likely."""
        from scipy.special import stdtrit

        variance, seen = self._of_question(effect), self.sizes.seen(min(1.0, max(0.0, self.icc)))
        expected = variance * max(0.0, self.sizes.seen(self.icc).expected)
        t = -float(stdtrit(seen.df, tail))
        if self.bounded and self.sizes.groups <= MOST_DRAWN:
            drawn = _drawn(replace(self.sizes, times=1.0), min(1.0, max(0.0, self.icc)))
            squares = t**2 * expected * drawn.cr2
            few = self.sizes.groups < FEW_QUESTIONS or variance * self.sizes.questions < LITTLE
            guarded = drawn.below | few
            if guarded.any():
                third = self._third(effect) * self.sizes.third(max(0.0, self.icc)) if few else 0.0
                reach = drawn.bounded(guarded, math.sqrt(variance), tail, worst, third)
                squares[guarded] = squares[guarded].clip(reach**2)
        else:
            squares = t**2 * expected * variances(seen.df, 24 if self.seeds else 400)
        over = tuple(part for part in self.seeds if part.variance > 0)
        if not over:
            return squares
        added: Floats = seeds_squares(over, tail, self.residual)[:, None] + squares[None, :]
        return added


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Sums of groups about their mean, of values with variance 1, `residuals` [DRAWS, G] with `sizes` [G].

    `cr2` [DRAWS]: CR2's variance over its mean. `below` [DRAWS]: whether `limits.fragile` asks for the bounded mean
    below the mean.
    """

    sizes: Floats
    residuals: Floats
    cr2: Floats
    below: NDArray[np.bool_]

    def bounded(self, which: NDArray[np.bool_], scale: float, tail: float, worst: float, skewed: float) -> Floats:
        """How far the lower limit of the bounded mean of groups lies from the mean, of values `scale` times as large.

        A limit w away is where sum G_g (n_g w + r_g) - E has chance `tail` of being negative, G_g and E exponential and
        E of mean `worst` times the largest group. It is taken for a shifted gamma variable with its moments.
        """
        import numpy as np

        unit = worst * float(self.sizes.max())
        sizes, r = self.sizes / unit, self.residuals[which] * scale / unit
        n, n2, n3 = (float((sizes**power).sum()) for power in (1, 2, 3))
        nr, n2r, nr2 = r @ sizes, r @ sizes**2, (r * r) @ sizes
        r2, r3 = (r * r).sum(axis=1), (r**3).sum(axis=1) + skewed / unit**3
        low, high = np.zeros(len(r)), np.ones(len(r))
        for _ in range(30):
            away = (low + high) / 2
            spread = np.maximum(away**2 * n2 + 2 * away * nr + r2, 1e-12)
            third = away**3 * n3 + 3 * away**2 * n2r + 3 * away * nr2 + r3
            gamma = np.maximum(third / spread, 1e-6)
            beyond = below_an_exponential(n * away, spread, gamma)
            low, high = np.where(beyond > tail, away, low), np.where(beyond > tail, high, away)
        return np.asarray(high)


@lru_cache(maxsize=64)
def _drawn(sizes: GroupSizes, icc: float) -> _Drawn:
    import numpy as np

    each = np.asarray(sizes.sizes, dtype=np.float64)
    n = float(each.sum())
    draws = np.random.default_rng(_STREAM).normal(size=(DRAWS // 2, len(each)))
    draws = np.concatenate([draws, -draws])  # so that skewness to either side is as likely
    sums = draws * np.sqrt(each * (1 - icc) + icc * each**2)
    residuals = sums - each * (sums.sum(axis=1) / n)[:, None]
    squares = residuals**2
    cr2 = (squares / (1 - each / n)).sum(axis=1)
    total = squares.sum(axis=1)
    carry = total**2 / (squares**2).sum(axis=1)
    skew = (squares * residuals).sum(axis=1) / total**1.5
    return _Drawn(each, residuals, cr2 / cr2.mean(), (carry < FEW_CARRY) | (skew < -SKEWED))
