"""Discovery curves, and the sign test on which of two arms finds a solution with fewer samples.

    curve = discovery_curve(samples=[3, 64, 1], solved=[True, False, True], at=[1, 8, 64])
    sign_test(values_b - values_a)

A question that no sample solved is censored at the number of samples drawn: nobody knows when it would have been. The
curve is one minus the Kaplan-Meier estimate with its log-log interval, both scipy's (Kalbfleisch, Prentice 2002, The
Statistical Analysis of Failure Time Data). Questions are taken as independent draws.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsd.reports.stats.intervals import LEVEL, Interval
from nsd.reports.stats.significance import Result, mcnemar, paired_t

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SIGN_TEST = "sign test on samples to the solution (mid-p)"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The share of questions solved within `samples` samples; no interval where none or all are."""

    samples: int
    share: float
    interval: Interval | None


def discovery_curve(
    samples: Sequence[int], solved: Sequence[bool], at: Sequence[int], level: float = LEVEL
) -> list[CurvePoint]:
    """The curve at some numbers of samples.

    `samples` are, for each question, the number of the first right sample, or where it was not `solved` of those drawn.
    Beyond the largest of them nothing is known, and the last value stands. [] without a question.
    """
    if not samples:
        return []
    from scipy.stats import CensoredData, ecdf

    right = [float(count) for count, found in zip(samples, solved, strict=True) if not found]
    exact = [float(count) for count, found in zip(samples, solved, strict=True) if found]
    estimate = ecdf(CensoredData(uncensored=exact, right=right)).sf
    with warnings.catch_warnings():  # of where none or all are solved, which has no interval
        warnings.simplefilter("ignore", RuntimeWarning)
        bounds = estimate.confidence_interval(level, method="log-log")
    values = (one.evaluate(list(at)).tolist() for one in (estimate, bounds.low, bounds.high))
    return [
        CurvePoint(number, 1 - left, _interval(left, low, high, level))
        for number, left, low, high in zip(at, *values, strict=True)
    ]


def _interval(left: float, low: float, high: float, level: float) -> Interval | None:
    """Of the share solved, from that of the share left; None where scipy has none."""
    known = 0 < left < 1 and not (math.isnan(low) or math.isnan(high))
    return Interval(1 - high, 1 - low, level, "Kaplan-Meier, log-log") if known else None


def sign_test(differences: ArrayLike, level: float = LEVEL) -> Result:
    """Whether of two arms the second solves questions with fewer samples, or alone; `differences` [n] as b - a.

    Only their signs count, and those of 0 (both unsolved, or by the same number of samples) are ties that say nothing.
    H0: of the questions that tell the arms apart, each is as likely to be the second's as the first's. mid-p as in
    `mcnemar`. `estimate` is the mean difference, with the interval of a t on it: another view of the same questions,
    so that both must agree for a verdict.
    """
    import numpy as np

    d = np.asarray(differences, dtype=np.float64)
    if not len(d):
        return Result(SIGN_TEST, None, None, None, note="no question: nothing to compare")
    ahead, behind = int((d > 0).sum()), int((d < 0).sum())
    found = mcnemar(behind, ahead)
    spread = paired_t(d, level)
    return Result(SIGN_TEST, found.statistic, found.p, float(d.mean()), spread.interval, note=found.note)
