"""The chance that one arm beats another by more than a margin, beside a verdict and no part of it.

    chance_of(evidence, result, margin=0.0)      # Chance(0.93, 0.0, "prior: ..."), or None

It is a posterior probability (reports/stats/chance.py) of what the comparison speaks of: with training seeds, of the
recipe. Right-or-wrong answers are counted; all else rests on an estimate and its standard error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nsd.reports import stats
from nsd.reports.judge.metrics import NEUTRAL, is_search
from nsd.reports.judge.pairs import Evidence
from nsd.reports.stats.chance import PRIOR_OF_COUNTS, PRIOR_OF_T, chance_by_counts, chance_by_t


@dataclass(frozen=True)
class Chance:
    """P(difference > margin | data), with the prior in words."""

    share: float
    margin: float
    prior: str


def chance_of(evidence: Evidence, result: stats.Result, margin: float = 0.0) -> Chance | None:
    """None where only counts are known, for tokens, what is cut or failed, and searches, and without a known spread."""
    if evidence.difference is None or evidence.shape.counts_only:
        return None
    metric = evidence.a.runs[0].metric
    if metric in NEUTRAL or is_search(metric):
        return None
    grouped = evidence.clusters is not None
    if evidence.table is not None and not evidence.choice.test.of_recipe and not grouped:
        both, lost, won, neither = evidence.table
        return Chance(chance_by_counts(won, lost, both + neither, margin), margin, PRIOR_OF_COUNTS)
    if result.standard_error and result.df is not None:
        return Chance(chance_by_t(evidence.difference, result.standard_error, result.df, margin), margin, PRIOR_OF_T)
    found = evidence.differences
    if found is None or grouped or evidence.choice.test.of_recipe or len(found) < 2 or float(found.std(ddof=1)) == 0:
        return None
    spread = float(found.std(ddof=1)) / math.sqrt(len(found))
    return Chance(chance_by_t(evidence.difference, spread, len(found) - 1, margin), margin, PRIOR_OF_T)
