"""What test and interval together decide, and at which level each interval of a family is drawn.

    levels = levels_left(p_values, adjusted, "holm", alpha=0.05)
    verdict, interval, note = settle(difference, adjusted[0], 0.05, evidence.interval(1 - levels[0]))

A verdict and the interval beside it rest on one level: the one that the correction leaves this claim. Tests and
intervals here are not always exact duals (mid-p and Newcombe, permutation and t). Where they disagree nothing is
decided: no UNRESOLVED has an interval without 0, no BETTER or WORSE one with it. For a claim with a margin, the margin
stands for 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nsd.reports import stats
from nsd.reports.judge.verdict import Verdict

INTERVALS = ("corrected", "bonferroni", "unadjusted")


def levels_left(
    p_values: Sequence[float | None], adjusted: Sequence[float | None], correction: str, alpha: float
) -> list[float]:
    """The level at which each p of a family was judged: below it exactly where its adjusted p is below alpha.

    Holm: alpha / m for the smallest p, alpha / (m - 1) for the next, and for all that are not rejected that of the
    first of them. Benjamini-Hochberg: alpha R / m for R rejected ones (Benjamini, Yekutieli 2005, JASA 100:71), alpha
    (R + 1) / m for the others. A p of None counts as 1 and keeps its place.
    """
    m = len(p_values)
    order = sorted(range(m), key=lambda i: 1.0 if (p := p_values[i]) is None else p)
    rejected = sum(p is not None and p < alpha for p in adjusted)
    found = [alpha] * m
    for rank, i in enumerate(order):
        if correction == "holm":
            found[i] = alpha / (m - min(rank, rejected, m - 1))
        elif correction == "bonferroni":
            found[i] = alpha / m
        elif correction == "bh":
            found[i] = alpha * (rejected if rank < rejected else min(rejected + 1, m)) / m
    return found


def settle(
    difference: float | None, p: float | None, alpha: float, interval: stats.Interval | None
) -> tuple[Verdict, stats.Interval | None, str]:
    """The verdict on "no difference" from the adjusted, two-sided p and the interval at the level left; a note."""
    rejects = p is not None and p < alpha and bool(difference)
    if interval is None or difference is None:
        return _shown(difference) if rejects and difference else Verdict.UNRESOLVED, interval, ""
    excludes = interval.low > 0 or interval.high < 0
    if rejects and excludes:
        return _shown(difference), interval, ""
    if rejects:
        return Verdict.UNRESOLVED, interval, "the test finds a difference and the interval does not: nothing is decided"
    if excludes:
        touching = replace(interval, low=min(interval.low, 0.0), high=max(interval.high, 0.0))
        return Verdict.UNRESOLVED, touching, "the interval alone would leave 0 out; the test does not: extended to 0"
    return Verdict.UNRESOLVED, interval, ""


def settle_margin(
    kind: str, margin: float, p: float | None, alpha: float, interval: stats.Interval | None
) -> tuple[Verdict, stats.Interval | None, str]:
    """The same of non-inferiority or equivalence within a margin, from its one-sided p and its interval."""
    both = kind == "equivalent_within"
    passes = p is not None and p < alpha
    shown = Verdict.EQUIVALENT if both else Verdict.NOT_WORSE
    if interval is None:
        return shown if passes else Verdict.UNRESOLVED, None, ""
    inside = interval.low > -margin and (not both or interval.high < margin)
    if passes and inside:
        return shown, interval, ""
    if passes:
        said = "the test is within the margin and the interval is not: nothing is decided"
        return Verdict.UNRESOLVED, interval, said
    low, high = interval.low, interval.high
    if inside and both and margin - high < low + margin:
        high = margin
    elif inside:
        low = -margin
    low, high = min(low, margin) if both else low, max(high, -margin)
    if (low, high) == (interval.low, interval.high):
        return Verdict.UNRESOLVED, interval, ""
    said = "the interval alone would decide; the test does not: extended to the margin"
    return Verdict.UNRESOLVED, replace(interval, low=low, high=high), said


def _shown(difference: float) -> Verdict:
    return Verdict.BETTER if difference > 0 else Verdict.WORSE
