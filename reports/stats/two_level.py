"""The claim about a recipe: a difference over questions and training seeds at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsd.reports.stats.bounded import BoundedMean
from nsd.reports.stats.clusters import FEWEST_CLUSTERS, GroupedMean, cluster_fragile, cluster_variance
from nsd.reports.stats.intervals import LEVEL, Interval
from nsd.reports.stats.limits import (
    FEW_QUESTIONS,
    Fragile,
    Limits,
    OverSeeds,
    Part,
    SeedsToo,
    TwoSources,
    fragile,
    interval_of,
    two_sided_p,
)
from nsd.reports.stats.numerics import constant
from nsd.reports.stats.significance import Result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


NAME = "two-level t (questions x seeds)"
GROUPED = "two-level t (groups of questions x seeds, CR2)"


def two_level(
    values_a: ArrayLike,
    values_b: ArrayLike,
    level: float = LEVEL,
    trained: tuple[bool, bool] = (True, True),
    bounds: tuple[float, float] | None = (-1.0, 1.0),
    lopsided: bool = False,
    clusters: ArrayLike | None = None,
) -> Result:
    """t on the difference of means over questions AND seeds: a claim about this recipe on questions like these.

    `values_a` [S_a, n] and `values_b` [S_b, n] hold one value per seed and shared question. The variance is that
    of the seed means plus that of the seed-averaged question differences, minus the residual both contain
    (two-way cluster-robust variance, Cameron, Gelbach, Miller 2011), never less than the questions' part. That part and
    the seeds' of each arm count with the t quantile of their own degrees of freedom (`limits.TwoSources`).

    Needs two questions and two seeds in each arm that is `trained`; an untrained arm is one row, without variance
    between seeds. With questions in `clusters` [n] the questions' part and the residual are CR2 (clusters.py), and
    FEWEST_CLUSTERS groups are needed.

    Where t does not hold for the questions (few of them, one arm sampled too thinly (`lopsided`), or `limits.fragile`)
    their part is never smaller than the bounded mean's; without any spread it is that alone.
    """
    limits = two_level_limits(values_a, values_b, trained, bounds, lopsided, clusters)
    if isinstance(limits, Result):
        return limits
    parts = _level_parts(values_a, values_b, trained, clusters)
    assert not isinstance(parts, Result)
    sources = parts.sources
    error = sources.error if parts.spread else None
    return Result(
        NAME if clusters is None else GROUPED,
        None if not error else parts.estimate / error,
        two_sided_p(limits),
        parts.estimate,
        interval_of(limits, level, bounds),
        None if not error else sources.df,
        error,
    )


def two_level_limits(
    values_a: ArrayLike,
    values_b: ArrayLike,
    trained: tuple[bool, bool] = (True, True),
    bounds: tuple[float, float] | None = (-1.0, 1.0),
    lopsided: bool = False,
    clusters: ArrayLike | None = None,
) -> Limits | Result:
    """The limits behind `two_level`, or the result that says why there are none."""
    import numpy as np

    parts = _level_parts(values_a, values_b, trained, clusters)
    if isinstance(parts, Result):
        return parts
    if bounds is None and not parts.spread:
        p = 1.0 if abs(parts.estimate) < 1e-12 else None
        return Result(parts.name, None, p, parts.estimate, note="no spread between questions or seeds")
    sources = parts.sources
    if bounds is None:
        return sources
    a, b = (np.atleast_2d(np.asarray(values, dtype=np.float64)).mean(axis=0) for values in (values_a, values_b))
    sides = _guarded(b - a, bounds, lopsided, clusters)
    if not sides.any:
        return sources
    bounded = BoundedMean(b - a, *bounds) if clusters is None else GroupedMean(b - a, clusters, *bounds)
    if not parts.spread:
        return bounded
    name = "two-level t, bounded mean where it is wider"
    return sides.mend(sources, SeedsToo(bounded, parts.estimate, sources.seeds, name), name)


def _guarded(d: Floats, bounds: tuple[float, float], lopsided: bool, clusters: ArrayLike | None) -> Fragile:
    """On which sides the questions' part takes the bounded mean."""
    if lopsided or constant(d) or len(d) < FEW_QUESTIONS:
        return Fragile(True, True)
    return fragile(d, bounds) if clusters is None else cluster_fragile(d, clusters, bounds)


def residual_of_seeds(values: ArrayLike, clusters: ArrayLike | None = None) -> float:
    """Of the variance of a seed's mean, what is its noise at single questions: `values` [S, n], S and n two or more.

    Of questions in `clusters` [n], at single groups (CR2).
    """
    import numpy as np

    x = np.asarray(values, dtype=np.float64)
    left = x - x.mean(axis=0) - x.mean(axis=1, keepdims=True) + x.mean()
    seeds, n = len(x), int(x.shape[1])
    if clusters is None:
        return float((left**2).sum()) / ((seeds - 1) * (n - 1)) / n
    return sum(cluster_variance(row, clusters).variance for row in left) / int(seeds - 1)


def seeds_interval(
    values: ArrayLike,
    level: float = LEVEL,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    clusters: ArrayLike | None = None,
) -> Interval | None:
    """Interval of one arm's mean over training seeds and questions, `values` [S, n], questions in `clusters` [n].

    The two-level t, and with `bounds` never inside the bounded mean of the questions (or groups) with the seeds'
    variance added. None with fewer than two seeds or questions, or without bounds and spread.
    """
    import numpy as np

    block = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if len(block) < 2 or block.shape[1] < 2:
        return None
    flat = np.zeros((1, block.shape[1]))
    limits = two_level_limits(flat, block, (False, True), bounds, lopsided=True, clusters=clusters)
    return None if isinstance(limits, Result) else interval_of(limits, level, bounds)


@dataclass(frozen=True, slots=True)
class _LevelParts:
    """Variances of a difference over questions and seeds: `questions` of the mean of n questions, with the seeds' part
    in it; `seeds` and `residual` of one seed's mean, for each trained arm, which have `counts` seeds.
    """

    estimate: float
    n: int
    questions: float
    questions_df: float
    name: str
    seeds: list[float]
    residual: list[float]
    counts: list[int]

    @property
    def spread(self) -> bool:
        """Whether anything varies."""
        return self.questions + sum(self.seeds) > 1e-24

    @property
    def sources(self) -> TwoSources:
        """The parts of the variance of the difference of means, each with its degrees of freedom."""
        over = [
            (mean / count, left / count, count)
            for mean, left, count in zip(self.seeds, self.residual, self.counts, strict=True)
        ]
        arms = tuple(Part(mean, count - 1.0) for mean, _, count in over)
        residual = min(sum(left for _, left, _ in over), self.questions)
        return TwoSources(self.estimate, Part(self.questions, self.questions_df), OverSeeds(arms, residual))


def _level_parts(
    values_a: ArrayLike, values_b: ArrayLike, trained: tuple[bool, bool], clusters: ArrayLike | None = None
) -> _LevelParts | Result:
    """The parts of the variance, or the result that says why there are none."""
    import numpy as np

    a, b = np.atleast_2d(np.asarray(values_a, dtype=np.float64)), np.atleast_2d(np.asarray(values_b, dtype=np.float64))
    n, name = a.shape[1], NAME if clusters is None else GROUPED
    if n == 0:
        return Result(name, None, None, None, note="no shared question: nothing to test")
    difference = b.mean(axis=0) - a.mean(axis=0)
    estimate = float(difference.mean())
    scattering = [arm for arm, learned in zip((a, b), trained, strict=True) if learned]
    if not scattering or min(len(arm) for arm in scattering) < 2 or n < 2:
        return Result(name, None, None, estimate, note="needs two seeds in each trained arm and two shared questions")
    found = None if clusters is None else cluster_variance(difference, clusters)
    if found is not None and found.groups < FEWEST_CLUSTERS:
        note = f"{found.groups} group(s) of questions: at least {FEWEST_CLUSTERS} are needed"
        return Result(name, None, None, estimate, note=note)
    return _LevelParts(
        estimate=estimate,
        n=n,
        questions=float(difference.var(ddof=1)) / n if found is None else found.variance,
        questions_df=n - 1.0 if found is None else found.df,
        name=name,
        seeds=[float(arm.mean(axis=1).var(ddof=1)) for arm in scattering],
        residual=[residual_of_seeds(arm, clusters) for arm in scattering],
        counts=[len(arm) for arm in scattering],
    )
