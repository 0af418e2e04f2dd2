"""Evidence whose tests and intervals hold at any look: for data that grow, looked at as often as one likes.

    evidence = at_any_look(gather(a, b, values))      # the same evidence, with anytime-valid tests
    evidence.test(0.95).p, evidence.test(0.95).interval

The test and interval are those of the table (`reports/stats/choose.py`), asked for at the level that a look must reach
where any number of them is taken: see `reports/stats/anytime.py`. Nothing is needed of earlier looks: no order of the
questions, no record, and no plan.

Limits: what two looks must have in common is that the later holds the earlier's data. Counts say nothing of that, and
two training seeds are too few: they are refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property

from nsd.plugins.errors import InputError
from nsd.plugins.words import SEEDS_AT_ANY_LOOK
from nsd.reports import stats
from nsd.reports.judge.metrics import UNITS
from nsd.reports.judge.pairs import Evidence
from nsd.reports.stats.anytime import (
    anytime_one_sided_p,
    anytime_p,
    fixed_alpha,
    fixed_one_sided_alpha,
    information_ratio,
)

ANY_LOOK = "any"


def check_looks(looks: str | None) -> None:
    """Raises InputError for looks of a comparison that are neither None nor "any"."""
    if looks not in (None, ANY_LOOK):
        raise InputError(f"looks {looks!r}: only {ANY_LOOK!r} can be asked for here; a spec plans a number of them")


def planned_looks(looks: int | str | None) -> int:
    """Into how many looks a spec's rules split alpha: 1 where none, or any number, was planned."""
    return 1 if looks is None or isinstance(looks, str) else looks


def no_promise(evidence: Evidence) -> str:
    """Why no verdict at any look is possible on these data, with the way out; "" where one is."""
    metric, shape = evidence.a.runs[0].metric, evidence.shape
    if shape.counts_only:
        why = "only counts are known, and counts do not say how they grew"
        return f"{why}: import the values of each question, or judge once"
    if metric in UNITS:
        return f"{metric} have no largest value, so no effect to look for can be named beforehand: judge them once"
    seeds = [count for count, trained in zip(shape.seeds, shape.trained, strict=True) if trained]
    if shape.recipe and min(seeds) < SEEDS_AT_ANY_LOOK:
        checkpoints = "ask about these checkpoints (--claim checkpoint)"
        few = f"{min(seeds)} training seeds are too few (at least {SEEDS_AT_ANY_LOOK})"
        return f"{few}: add some to the spec, or {checkpoints}"
    return ""


def at_any_look(evidence: Evidence) -> Evidence:
    """The same evidence with anytime-valid tests. Raises InputError where there are none."""
    if why := no_promise(evidence):
        raise InputError(f"{evidence.a.name} and {evidence.b.name} cannot be judged at any look: {why}")
    return AnytimeEvidence(**{one.name: getattr(evidence, one.name) for one in fields(evidence)}, once=evidence)


@dataclass(frozen=True, kw_only=True)
class AnytimeEvidence(Evidence):
    """Evidence judged at any look; `once` is the same evidence judged as if this were the only one."""

    once: Evidence

    @cached_property
    def ratio(self) -> float:
        """What these data know against the effects looked for: see `stats.anytime.information_ratio`.

        The standard error is at least that of one question on which the two differ, so that data without any spread
        have one.
        """
        among_more = self.claim == "recipe" or self.shape.clustered  # than questions
        error = self.once.test().standard_error if among_more else None
        if not error:
            error = math.sqrt((self.once.variance() or 0.0) / max(self.n_a, 1))
        return information_ratio(max(error, 1 / max(self.n_a, 1)))

    def test(self, level: float = stats.LEVEL) -> stats.Result:
        """The two-sided test and interval of `level`, both valid at any look."""
        alpha = 1 - level
        here = fixed_alpha(alpha, self.ratio)
        found = self.once.test(1 - here)
        p = None if found.p is None else anytime_p(found.p, self.ratio)
        return _named(found, p, level, self._said(found, level), self.shape.bounded)

    def p_value(self) -> float | None:
        """That of `test`."""
        return self.test().p

    def interval(self, level: float) -> stats.Interval | None:
        """The interval of `level`, valid at any look."""
        return self.test(level).interval

    def margin_test(self, margin: float, both_sides: bool, alpha: float = 0.05) -> stats.Result:
        """Non-inferiority or equivalence, one-sided at alpha, valid at any look."""
        here = fixed_one_sided_alpha(alpha, self.ratio)
        found = self.once.margin_test(margin, both_sides, here)
        p = None if found.p is None else anytime_one_sided_p(found.p, self.ratio)
        return _named(found, p, 1 - 2 * alpha, self._said(found, 1 - 2 * alpha), self.shape.bounded)

    def _said(self, found: stats.Result, level: float) -> str:
        """What looking at any time costs: with few seeds or groups much more than with many questions."""
        said = "valid at any look (normal mixture)"
        alone = self.once.test(level).interval
        if found.interval is None or alone is None or not alone.high > alone.low:
            return said
        wider = (found.interval.high - found.interval.low) / (alone.high - alone.low)
        return f"{said}: the interval is about {wider:.1f} times as wide as for one look alone"


def _named(found: stats.Result, p: float | None, level: float, said: str, bounded: bool) -> stats.Result:
    """A look's result with its anytime-valid p, called what it is; as it was where nothing could be tested."""
    interval = found.interval
    if p is None and interval is None:
        return found
    if interval is not None:
        low, high = interval.low, interval.high
        if bounded:  # at so strict a level a t of few seeds or groups reaches beyond what a difference of shares can be
            low, high = max(low, -1.0), min(high, 1.0)
        interval = replace(interval, low=low, high=high, level=level, name=f"{interval.name}, any look")
        if not (math.isfinite(low) and math.isfinite(high)):
            interval = None
    note = "; ".join(filter(None, (found.note, said)))
    return replace(found, name=f"{found.name}, any look", p=p, interval=interval, note=note)
