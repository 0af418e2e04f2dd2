"""The design behind two arms at hand, as a model that says which true differences their test finds, and how sure it is.

    found = design_of(evidence)
    stats.detectable(found.at(), alpha=0.05, power=0.8)         # what this comparison finds
    found.at(questions=2000), found.at(seeds=8)                 # the same arms, measured on more

The spread is that of the data; `found.likely` are the designs at both ends of its 95 % interval. None where nothing
can be said: fewer than FEWEST questions of means, one arm sampled too thinly, no spread at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nsd.plugins.metrics import averages
from nsd.reports import stats
from nsd.reports.judge.pairs import Evidence
from nsd.reports.stats.chances import FEWEST
from nsd.reports.stats.choose import PairTest

if TYPE_CHECKING:
    from nsd.reports.judge.values import Floats


@dataclass(frozen=True)
class Found:
    """A design with its spread. `make(questions, seeds, scale)` is its model where the spread is `scale` times as
    large: of the seeds for a recipe, else of the questions. `scales`: the 95 % interval of that.
    """

    make: Callable[[int, int, float], stats.Model | None]
    questions: int
    seeds: int
    scales: tuple[float, float] | None

    def at(self, questions: int | None = None, seeds: int | None = None, scale: float = 1.0) -> stats.Model | None:
        """The model with so many questions and seeds instead; None where nothing can be said of it."""
        return self.make(questions or self.questions, seeds or self.seeds, scale)

    def least_questions(self, enough: Callable[[stats.Model], bool], scale: float = 1.0) -> int | None:
        """Questions from which `enough` holds, at these seeds."""
        return stats.least(
            lambda n: (model := self.at(n, None, scale)) is not None and enough(model), 1, self.questions
        )

    def least_seeds(self, enough: Callable[[stats.Model], bool], scale: float = 1.0) -> int | None:
        """Seeds in each trained arm from which `enough` holds, on these questions."""

        def holds(seeds: int) -> bool:
            return (model := self.at(None, seeds, scale)) is not None and enough(model)

        return stats.least(holds, 2, max(2, self.seeds), most=10_000)


def design_of(evidence: Evidence) -> Found | None:
    """The design of a comparison; None where its test has none that can be told."""
    shape, test, n = evidence.shape, evidence.choice.test, evidence.n_a
    if evidence.difference is None:
        return None
    if test is PairTest.TWO_PROPORTION:
        return _unpaired(evidence)
    if evidence.claim == "recipe":
        return _recipe(evidence) if (n >= FEWEST and not shape.lopsided) or not test.of_recipe else None
    if test.of_table or test is PairTest.SIGN:
        found = discordance_of(evidence)
        if found is None or found[0] == 0:
            return None
        share, limits = found
        exact = test is PairTest.MCNEMAR_EXACT
        scales = None if limits is None else (limits[0] / share, limits[1] / share)
        return Found(lambda q, _, scale: stats.PairedShares(q, min(1.0, share * scale), exact), n, 1, scales)
    limit = 1.0 if shape.bounded else math.inf
    if test is PairTest.CLUSTER:
        return None if shape.lopsided else _grouped(evidence)
    spread, fewest = variance_of(evidence), 2
    if shape.bounded and evidence.differences is not None:
        fewest = stats.fewest_for_t(evidence.differences)
    if spread is None or spread[0] <= 1e-18 or shape.lopsided or n < fewest:
        return None
    variance, ends = spread
    by_flips, k = test is PairTest.PERMUTATION, _samples(evidence)

    def means(q: int, _: int, scale: float) -> stats.Model | None:
        if q < fewest:
            return None
        if by_flips:
            return stats.sign_flip_means(variance * scale, q, k, limit)
        return stats.Means(stats.Parts(variance * scale / q, q - 1), limit, units=q if shape.bounded else 0)

    return Found(means, n, 1, None if ends is None else (ends[0] / variance, ends[1] / variance))


def discordance_of(evidence: Evidence) -> tuple[float, tuple[float, float] | None] | None:
    """The share of questions that tell two arms apart, with its exact 95 % interval; None where values are means."""
    count = told_apart(evidence)
    found = None if count is None else stats.exact_binomial(count, evidence.n_a, stats.LEVEL)
    return None if found is None or count is None else (count / evidence.n_a, (found.low, found.high))


def told_apart(evidence: Evidence) -> int | None:
    """How many questions tell two arms apart; None where values are means."""
    if evidence.table is not None:
        return evidence.table[1] + evidence.table[2]
    if evidence.shape.searched and evidence.differences is not None:
        return int((evidence.differences != 0).sum())
    return None


def typical_variance(evidence: Evidence) -> float:
    """The share or variance that `discordance_of` or `variance_of` has, without its interval; 0 where neither is."""
    count = told_apart(evidence)
    if count is not None and evidence.n_a:
        return count / evidence.n_a
    d = evidence.differences
    return 0.0 if d is None or len(d) < 2 else float(d.var(ddof=1))


def variance_of(evidence: Evidence) -> tuple[float, tuple[float, float] | None] | None:
    """The variance of a question's difference with a 95 % interval: chi-square, its df those of this kurtosis.

    var(s^2) is about (m4 - s^4) / n, so that the df are 2 s^4 / var(s^2), n for normal values; None where there are no
    differences.
    """
    d = evidence.differences
    if d is None or len(d) < 2:
        return None
    variance = float(d.var(ddof=1))
    scatter = float(((d - d.mean()) ** 4).mean()) - variance**2
    df = 4.0 * len(d) if scatter <= 0 else max(1.0, 2 * variance**2 * len(d) / scatter)
    low, high = stats.variance_factors(min(df, 4.0 * len(d)))
    return variance, (variance * low, variance * high)


def _unpaired(evidence: Evidence) -> Found | None:
    right_a, n_a, right_b, n_b = evidence.counts
    pooled = (right_a + right_b) / (n_a + n_b)
    if not 0 < pooled < 1:
        return None
    ratio = n_b / n_a
    return Found(lambda q, _s, _v: stats.UnpairedShares(q, max(1, round(q * ratio)), pooled), n_a, 1, None)


def _recipe(evidence: Evidence) -> Found | None:
    """The parts that `stats.two_level` adds up, or those of the tests on seed means, which see no questions."""
    shape, test, n = evidence.shape, evidence.choice.test, evidence.n_a
    if evidence.seed_values is None or not shape.scatters or n < 2:
        return None
    blocks = [block for block, trained in zip(evidence.seed_values, shape.trained, strict=True) if trained]
    counts = [len(block) for block in blocks]
    now = min(counts)
    if test is PairTest.SEEDS_PAIRED:
        a, b = (block.mean(axis=1) for block in evidence.seed_values)
        paired = float((b - a).var(ddof=1))
        return _of_seeds(paired, 1, n, now)
    if test is PairTest.SEEDS:
        return _of_seeds(sum(float(block.mean(axis=1).var(ddof=1)) for block in blocks), len(blocks), n, now)
    if evidence.differences is None:
        return None
    return _two_levels(evidence, blocks, counts)


@dataclass(frozen=True)
class Tie:
    """How the differences of two arms go together inside `sizes` of groups, so that CR2 finds what it has found.

    `variance` of a question's difference; where it is `counted`, the share of questions on which two arms differ.
    `ends`: the 95 % interval of the variance of the mean, as factors. `fewest`: groups under which sums are too skewed.
    """

    sizes: stats.GroupSizes
    variance: float
    counted: bool
    icc: float
    of_mean: float
    ends: tuple[float, float]
    fewest: int

    def model(self, groups: int, scale: float = 1.0, bounded: bool = True) -> stats.GroupedMeans | None:
        """The cluster-robust t over so many groups like these; None under FEWEST_CLUSTERS."""
        if groups < stats.FEWEST_CLUSTERS:
            return None
        variance = min(1.0, self.variance * scale) if self.counted else self.variance * scale
        sizes = self.sizes.of_groups(groups)
        return stats.GroupedMeans(sizes, variance, self.icc, self.counted, bounded, fewest=self.fewest)

    def groups_of(self, questions: int) -> int:
        """How many whole groups like these so many questions are."""
        return int(questions * self.sizes.groups / self.sizes.questions + 1e-9)


def tie_of(evidence: Evidence) -> Tie | None:
    """None without groups of questions, under FEWEST_CLUSTERS of them, and without spread between them."""
    import numpy as np

    d, clusters = evidence.differences, evidence.clusters
    if d is None or clusters is None or len(d) < 2:
        return None
    known = stats.cluster_variance(d, clusters)
    if known.groups < stats.FEWEST_CLUSTERS or known.variance == 0:
        return None
    _, index, counts = np.unique(clusters, return_inverse=True, return_counts=True)
    sizes = stats.GroupSizes(tuple(float(count) for count in counts))
    share = discordance_of(evidence) if evidence.table is not None else None
    icc = stats.icc_of(sizes, float(d.var()), known.variance)
    fewest = 0
    if share is None and evidence.shape.bounded and known.groups >= stats.FEW_QUESTIONS:
        fewest = stats.fewest_for_t(np.bincount(index, weights=d - d.mean()))
    return Tie(
        sizes,
        float(d.var()) if share is None else share[0],
        share is not None,
        icc,
        known.variance,
        stats.variance_factors(known.df),
        fewest,
    )


def _grouped(evidence: Evidence) -> Found | None:
    """The cluster-robust t, with as many questions a group at any number of them."""
    tie, bounded = tie_of(evidence), evidence.shape.bounded
    if tie is None:
        return None
    return Found(lambda q, _, scale: tie.model(tie.groups_of(q), scale, bounded), evidence.n_a, 1, tie.ends)


def _two_levels(evidence: Evidence, blocks: Sequence[Floats], counts: Sequence[int]) -> Found | None:
    """What `stats.two_level` adds up, of trained arms [seeds, questions] with so many seeds each."""
    shape, n, differences, clusters = evidence.shape, evidence.n_a, evidence.differences, evidence.clusters
    assert differences is not None
    tie = tie_of(evidence)
    if clusters is not None and tie is None:
        return None
    left = [stats.residual_of_seeds(block, clusters) * n for block in blocks]  # of one seed at a question
    moved = [float(block.mean(axis=1).var(ddof=1)) for block in blocks]
    seed = [max(0.0, whole - residual / n) for whole, residual in zip(moved, left, strict=True)]
    whole = float(differences.var(ddof=1)) if tie is None else tie.of_mean * n
    own = max(0.0, whole - sum(residual / count for residual, count in zip(left, counts, strict=True)))
    now = min(counts)
    if own + sum(left) + sum(seed) <= 1e-18:
        return None

    def parts_at(q: int, seeds: int, scale: float) -> stats.Model | None:
        if q < FEWEST or seeds < 2:
            return None
        # An arm that has more seeds than the other keeps them.
        each = [seeds if seeds < now else max(seeds, count) for count in counts]
        noise = [residual / count / q for residual, count in zip(left, each, strict=True)]
        over = tuple(
            stats.Part(one * scale / count + residual, count - 1)
            for one, count, residual in zip(seed, each, noise, strict=True)
        )
        if tie is not None:
            here = tie.model(tie.groups_of(q), (own + sum(noise) * q) / whole, shape.bounded)
            return None if here is None else replace(here, seeds=over, residual=sum(noise))
        parts = stats.Parts(own / q + sum(noise), q - 1.0, over, sum(noise))
        return stats.Means(parts, 1.0 if shape.bounded else math.inf, units=q if shape.bounded else 0)

    return Found(parts_at, n, now, stats.variance_factors(sum(counts) - len(counts)))


def _of_seeds(variance: float, arms: int, n: int, now: int) -> Found | None:
    if variance <= 1e-18:
        return None

    def at(_: int, seeds: int, scale: float) -> stats.Model | None:
        if seeds < 2:
            return None
        of_an_arm = stats.Part(variance * scale / seeds / arms, seeds - 1)
        return stats.Means(stats.Parts(0.0, 0.0, (of_an_arm,) * arms, one_df=True))

    return Found(at, n, now, stats.variance_factors(arms * (now - 1)))


def _samples(evidence: Evidence) -> int | None:
    """Samples behind a question's value, where it is their mean."""
    runs = [*evidence.a.runs, *evidence.b.runs]
    if not all(averages(run.metric) for run in runs):
        return None
    return min(run.samples * len(arm.runs) for arm in (evidence.a, evidence.b) for run in arm.runs)
