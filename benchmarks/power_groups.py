"""Questions in groups for benchmarks/power.py: answers that go together inside groups, and what is promised of them.

    counted(groups=40, icc=0.1, share=0.2)    # one answer a question: differences of -1, 0 and 1, Dirichlet by group
    sampled(groups=40, tie=1.0, seeds=1)      # eight samples a question, logits; seeds > 1: a recipe in both arms

A case gives the other arm's effect at which .8 is promised, and a way to draw. Truths are those of MANY_GROUPS groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nsd.reports import stats

Floats = NDArray[np.float64]
Generator = np.random.Generator
MANY_GROUPS, MANY_SEEDS = 1500, 10
IN_A_GROUP, SAMPLES = 10, 8
SEED_LOGIT = 0.15


@dataclass(frozen=True)
class Case:
    """`promised` for the truth that was chosen, and `found`, which draws once and judges."""

    label: str
    promised: float
    found: Callable[[Generator], bool]


def _shown(limits: stats.Limits | stats.Result) -> bool:
    return not isinstance(limits, stats.Result) and limits.p_greater(0.0) < 0.025


def counted(groups: int, icc: float, share: float) -> Case | None:
    """One answer a question; None where no figure is given."""
    model = stats.GroupedMeans(stats.GroupSizes((float(IN_A_GROUP),) * groups), share, icc, counted=True)
    effect = stats.detectable(model, 0.05, 0.8)
    if effect is None:
        return None
    wide, index = max(share, effect), np.repeat(np.arange(groups), IN_A_GROUP)
    chances = np.array([(wide + effect) / 2, (wide - effect) / 2, 1 - wide]).clip(1e-12)

    def found(generator: Generator) -> bool:
        tied = generator.dirichlet(chances * (1 / icc - 1), size=groups) if icc else np.tile(chances, (groups, 1))
        drawn, ends = generator.random(len(index)), tied.cumsum(axis=1)[index]
        d = (drawn < ends[:, 0]) * 1.0 - ((drawn >= ends[:, 0]) & (drawn < ends[:, 1]))
        return _shown(stats.cluster_limits(d, index, (-1.0, 1.0)))

    return Case(
        f"{groups} groups, icc {icc}, share {share}, {effect * 100:.1f} points", model.chance(effect, 0.05), found
    )


def _arms(generator: Generator, groups: int, tie: float, seeds: int, shift: float) -> tuple[Floats, Floats]:
    """Values [seeds, n] of both arms: means of SAMPLES samples."""
    index = np.repeat(np.arange(groups), IN_A_GROUP)
    common = generator.normal(size=groups)[index] + generator.normal(size=len(index))
    found = []
    for moved, tied in ((-shift / 2, 0.0), (shift / 2, tie)):
        logit = common + moved + tied * generator.normal(size=groups)[index]
        scatter = SEED_LOGIT * generator.normal(size=(seeds, 1)) if seeds > 1 else np.zeros((1, 1))
        found.append(generator.binomial(SAMPLES, 1 / (1 + np.exp(-(logit + scatter)))) / SAMPLES)
    return found[0], found[1]


def _of_seeds(moved: float, tied: float) -> tuple[float, float]:
    """An arm's true mean and its variance over seeds, by quadrature: a few dozen seeds tell neither well enough."""
    from scipy.special import ndtri

    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    logit = moved + math.sqrt(2 + tied**2) * ndtri((np.arange(4000) + 0.5) / 4000)
    means = np.array([float((1 / (1 + np.exp(-(logit + SEED_LOGIT * node)))).mean()) for node in nodes])
    shares = weights / weights.sum()
    mean = float(shares @ means)
    return mean, float(shares @ means**2) - mean**2


def _covariance(d: Floats) -> tuple[float, float]:
    """Variance of values [n] in groups of IN_A_GROUP, and the covariance inside one, by analysis of variance."""
    block = d.reshape(-1, IN_A_GROUP)
    within = float(block.var(axis=1, ddof=1).mean())
    between = max(0.0, float(block.mean(axis=1).var(ddof=1)) - within / IN_A_GROUP)
    return within + between, between


def sampled(groups: int, tie: float, seeds: int) -> Case | None:
    """Eight samples a question, of one model in each arm or of `seeds` trainings; None where no figure is given."""
    sizes = stats.GroupSizes((float(IN_A_GROUP),) * groups)

    def model_at(shift: float) -> tuple[stats.GroupedMeans, float]:
        many = MANY_SEEDS if seeds > 1 else 1
        a, b = _arms(np.random.default_rng(1), MANY_GROUPS, tie, many, shift)
        variance, shared = _covariance((b - a).mean(axis=0))
        effect = float((b - a).mean())
        if seeds == 1:
            return stats.GroupedMeans(sizes, variance, shared / variance), effect
        scatter = [_of_seeds(moved, tied) for moved, tied in ((-shift / 2, 0.0), (shift / 2, tie))]
        parts = [one for block in (a, b) if (one := stats.two_way(block)) is not None]
        left = sum(one.interaction for one in parts)
        variance += left / seeds - left / many
        residual = left / seeds * sizes.spread(0.0)
        over = tuple(
            stats.Part(moved / seeds + one.interaction / seeds * sizes.spread(0.0), seeds - 1)
            for (_, moved), one in zip(scatter, parts, strict=True)
        )
        return stats.GroupedMeans(sizes, variance, shared / variance, seeds=over, residual=residual), scatter[1][
            0
        ] - scatter[0][0]

    low, high = 0.0, 6.0
    for _ in range(9):
        middle = (low + high) / 2
        model, effect = model_at(middle)
        low, high = (middle, high) if model.chance(effect, 0.05) < 0.8 else (low, middle)
    model, effect = model_at(high)
    promised = model.chance(effect, 0.05)
    if promised < 0.75 or not model.told(effect):
        return None
    index = np.repeat(np.arange(groups), IN_A_GROUP)

    def found(generator: Generator) -> bool:
        a, b = _arms(generator, groups, tie, seeds, high)
        if seeds == 1:
            return _shown(stats.cluster_limits((b - a)[0], index, (-1.0, 1.0)))
        return _shown(stats.two_level_limits(a, b, clusters=index))

    label = f"{groups} groups, icc {model.icc:.2f}, seeds {seeds}, {effect * 100:.1f} points"
    return Case(label, promised, found)
