"""The power of a comparison, and the needs of an unresolved one: questions, seeds, a paired re-run.

    left = level_left(p, p_adjusted, alpha=0.05, correction="holm", family=6)
    detectable, questions, seeds, paired, remark = power(evidence, result, Verdict.UNRESOLVED, left)

All at 80 % power, and at the level that the correction for the family leaves. Before any data, power.py asks
the same of a plan. Limits: the spread is that of the data at hand, and the observed difference is itself uncertain,
so what is needed is an order of magnitude.
"""

from __future__ import annotations

import math

from nsd.reports import stats
from nsd.reports.judge.pairs import Evidence
from nsd.reports.judge.verdict import Verdict
from nsd.reports.stats.choose import PairTest

OBSERVED = "a true difference as large as the observed one"
ASSUMED_DISCORDANCE = 0.2  # where no paired data say better; about that of two similar models on GSM8K


def level_left(p: float | None, p_adjusted: float | None, alpha: float, correction: str, family: int) -> float:
    """The level at which p itself would have to pass for its adjusted p to pass alpha: alpha p / p_adjusted.

    An adjusted p of 1 hides by how much p was multiplied; then it is alpha / family for the corrections of the
    family's error. An unresolved comparison is therefore never said to need fewer questions than it has.
    """
    if p is None or not p_adjusted:
        return alpha
    if p_adjusted >= 1 and correction in ("holm", "bonferroni"):
        return alpha / max(family, 1)
    return alpha * p / p_adjusted


def power(
    evidence: Evidence, result: stats.Result, verdict: Verdict, alpha: float
) -> tuple[float | None, int | None, int | None, int | None, str]:
    """Detectable difference; questions, seeds, or questions of a paired re-run needed (where unresolved); a remark.

    "Needed" is for a true difference as large as the observed one, at 80 % power; the observed one is itself
    uncertain, so it is an order of magnitude.
    """
    difference = evidence.difference
    if difference is None:
        return None, None, None, None, ""
    unresolved = not verdict.resolved
    remark = "no difference at all was observed, so no n can be named" if unresolved and difference == 0 else ""
    if evidence.shape.counts_only or evidence.choice.test is PairTest.TWO_PROPORTION:
        right_a, n_a, right_b, n_b = evidence.counts
        spread = [right / n * (1 - right / n) for right, n in ((right_a, n_a), (right_b, n_b))]
        detectable = stats.minimum_detectable_effect(spread[0] / n_a + spread[1] / n_b, 1, alpha)
        needed = stats.sample_size(difference, sum(spread), alpha=alpha) if unresolved else None
        again = stats.sample_size(difference, ASSUMED_DISCORDANCE, alpha=alpha) if unresolved else None
        return detectable, needed, None, again, remark
    if evidence.claim == "recipe":
        seeds = _seeds_needed(evidence, difference, alpha) if unresolved else None
        return _seeds_detect(result, alpha), None, seeds, None, remark
    if evidence.choice.test is PairTest.SIGN:
        return None, _sign_needed(evidence, alpha) if unresolved else None, None, None, remark
    variance = _variance(evidence, result)
    if not variance:
        if unresolved and not remark:
            asked = f"{evidence.n_a} shared question{'' if evidence.n_a == 1 else 's'} without any spread"
            remark = f"{asked}: too few to say how many it takes"
        return None, None, None, None, remark
    detectable = stats.minimum_detectable_effect(variance, evidence.n_a, alpha)
    needed = stats.sample_size(difference, variance, alpha=alpha) if unresolved else None
    return detectable, needed, None, None, remark


def needed_within(
    evidence: Evidence, result: stats.Result, verdict: Verdict, alpha: float, kind: str, margin: float
) -> tuple[int | None, int | None]:
    """Questions, or seeds, that show non-inferiority or equivalence within the margin if the true difference is zero.

    One-sided at alpha (z; for seeds the noncentral t), with 80 % power; for equivalence 90 % on each side, so that
    both pass in at least 80 %.
    """
    if verdict.resolved or evidence.difference is None:
        return None, None
    chance = 0.9 if kind == "equivalent_within" else 0.8
    if evidence.claim == "recipe":
        return None, _seeds_needed(evidence, margin, 2 * alpha, chance)
    variance = _variance(evidence, result)
    if evidence.shape.counts_only:
        right_a, n_a, right_b, n_b = evidence.counts
        variance = right_a / n_a * (1 - right_a / n_a) + right_b / n_b * (1 - right_b / n_b)
    if not variance:
        return None, None
    return stats.sample_size(margin, variance, alpha=2 * alpha, power=chance), None


def _sign_needed(evidence: Evidence, alpha: float) -> int | None:
    """Questions for the sign test: the share that one arm has alone less that of the other is what it looks at."""
    assert evidence.differences is not None
    ahead, behind = (float((evidence.differences * sign > 0).mean()) for sign in (1, -1))
    if ahead == behind:
        return None
    return stats.sample_size(ahead - behind, ahead + behind - (ahead - behind) ** 2, alpha=alpha)


def _variance(evidence: Evidence, result: stats.Result) -> float | None:
    """Variance of a question's difference; where questions come in groups, what their mean's standard error implies."""
    if evidence.choice.test is PairTest.CLUSTER and result.standard_error is not None:
        return result.standard_error**2 * evidence.n_a
    return evidence.variance()


def _seeds_detect(result: stats.Result, alpha: float) -> float | None:
    """The true difference that these seeds find with 80 % power."""
    if not result.standard_error or result.df is None:
        return None
    return stats.t_detectable(result.standard_error, result.df, alpha)


def _seeds_needed(evidence: Evidence, effect: float, alpha: float, chance: float = 0.8) -> int | None:
    if evidence.seed_values is None or not evidence.shape.scatters:
        return None
    if evidence.choice.test is PairTest.TWO_LEVEL:
        return stats.two_level_seeds_needed(*evidence.seed_values, effect, alpha, chance, evidence.shape.trained)
    a, b = (block.mean(axis=1) for block in evidence.seed_values)
    if evidence.choice.test is PairTest.SEEDS_PAIRED:
        return stats.seeds_needed(effect, float((b - a).std(ddof=1)), alpha, chance, paired=True)
    parts = [float(means.var(ddof=1)) for means in (a, b)]
    if min(parts) <= 1e-12 * max(parts):  # one arm does not scatter: all rests on the other's seeds
        return stats.seeds_needed(effect, math.sqrt(sum(parts)), alpha, chance, paired=True)
    return stats.seeds_needed(effect, math.sqrt(sum(parts) / 2), alpha, chance)
