"""The claim about a recipe: a difference over questions and training seeds at once, and the seeds it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsd.reports.stats.intervals import LEVEL
from nsd.reports.stats.numerics import t_power
from nsd.reports.stats.significance import Result, t_result

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def two_level(
    values_a: ArrayLike, values_b: ArrayLike, level: float = LEVEL, trained: tuple[bool, bool] = (True, True)
) -> Result:
    """t on the difference of means over questions AND seeds: a claim about this recipe on questions like these.

    `values_a` [S_a, n] and `values_b` [S_b, n] hold one value per seed and shared question. The variance is that
    of the seed means plus that of the seed-averaged question differences, minus the residual both contain
    (two-way cluster-robust variance, Cameron, Gelbach, Miller 2011), never less than the larger part. df is
    that of the seeds by Satterthwaite, the questions counting as n - 1. Needs two questions and two seeds in each
    arm that is `trained`; an untrained arm is one row, which has no variance between seeds.
    """
    name = "two-level t (questions x seeds)"
    parts = _level_parts(values_a, values_b, trained)
    if isinstance(parts, Result):
        return parts
    variance = parts.variance()
    if variance <= 1e-24:
        p = 1.0 if abs(parts.estimate) < 1e-12 else None
        return Result(name, None, p, parts.estimate, note="no spread between questions or seeds")
    return t_result(name, parts.estimate, math.sqrt(variance), parts.df(), level, "two-level t")


def two_level_seeds_needed(
    values_a: ArrayLike,
    values_b: ArrayLike,
    effect: float,
    alpha: float = 0.05,
    power: float = 0.8,
    trained: tuple[bool, bool] = (True, True),
    limit: int = 10_000,
) -> int | None:
    """Seeds in each trained arm for `two_level` to find `effect` on these questions, if the spreads stay as they are.

    More seeds take nothing from the part of the variance that questions carry. None where no number up to `limit` is
    enough (more questions would be), where the effect is 0, and where `two_level` has no test.
    """
    parts = _level_parts(values_a, values_b, trained)
    if isinstance(parts, Result) or effect == 0:
        return None

    def finds(seeds: int) -> bool:
        variance = parts.variance(seeds)
        if variance <= 1e-24:
            return True
        return t_power(min(abs(effect) / math.sqrt(variance), 37.0), parts.df(seeds), alpha) >= power

    if not finds(limit):
        return None
    low, high = 1, limit  # power grows with the seeds: search for the first that is enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if finds(middle) else (middle, high)
    return high


@dataclass(frozen=True, slots=True)
class _LevelParts:
    """Variances of a difference over questions and seeds: `questions` of the mean of n questions, with the seeds' part
    in it; `seeds` and `residual` of one seed's mean, for each trained arm, which have `counts` seeds.
    """

    estimate: float
    n: int
    questions: float
    seeds: list[float]
    residual: list[float]
    counts: list[int]

    def _each(self, seeds: int | None) -> tuple[float, list[float], float]:
        """The three parts at so many seeds an arm (None: as many as there are)."""
        counts = self.counts if seeds is None else [seeds] * len(self.counts)
        now = sum(one / count for one, count in zip(self.residual, self.counts, strict=True))
        then = sum(one / count for one, count in zip(self.residual, counts, strict=True))
        questions = self.questions if seeds is None else max(0.0, self.questions - now) + then
        return questions, [one / count for one, count in zip(self.seeds, counts, strict=True)], then

    def variance(self, seeds: int | None = None) -> float:
        """Of the difference of means, never less than its larger part."""
        questions, means, residual = self._each(seeds)
        return max(questions + sum(means) - residual, questions, sum(means))

    def df(self, seeds: int | None = None) -> float:
        """By Satterthwaite, the questions counting as n - 1."""
        questions, means, _ = self._each(seeds)
        counts = self.counts if seeds is None else [seeds] * len(self.counts)
        pieces = [(part, count - 1) for part, count in zip(means, counts, strict=True)] + [(questions, self.n - 1)]
        return float(sum(part for part, _ in pieces) ** 2 / sum(part**2 / freedom for part, freedom in pieces))


def _level_parts(values_a: ArrayLike, values_b: ArrayLike, trained: tuple[bool, bool]) -> _LevelParts | Result:
    """The parts of the variance, or the result that says why there are none."""
    import numpy as np

    name = "two-level t (questions x seeds)"
    a, b = np.atleast_2d(np.asarray(values_a, dtype=np.float64)), np.atleast_2d(np.asarray(values_b, dtype=np.float64))
    n = a.shape[1]
    if n == 0:
        return Result(name, None, None, None, note="no shared question: nothing to test")
    difference = b.mean(axis=0) - a.mean(axis=0)
    estimate = float(difference.mean())
    scattering = [arm for arm, learned in zip((a, b), trained, strict=True) if learned]
    if not scattering or min(len(arm) for arm in scattering) < 2 or n < 2:
        return Result(name, None, None, estimate, note="needs two seeds in each trained arm and two shared questions")
    residuals = []
    for arm in scattering:
        residual = arm - arm.mean(axis=0) - arm.mean(axis=1, keepdims=True) + arm.mean()
        residuals.append(float((residual**2).sum()) / ((len(arm) - 1) * (n - 1)) / n)
    return _LevelParts(
        estimate=estimate,
        n=n,
        questions=float(difference.var(ddof=1)) / n,
        seeds=[float(arm.mean(axis=1).var(ddof=1)) for arm in scattering],
        residual=residuals,
        counts=[len(arm) for arm in scattering],
    )
