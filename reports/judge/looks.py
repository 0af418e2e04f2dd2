"""Looks at growing data: has this pair been judged before, with less data than now?

    number = look_number(entries, a_evals, b_evals)    # 1 for a first look, 2 once data were added after an earlier one

Each look at data that grow between looks is another chance of a false alarm (ten looks: 20 % instead of 5 %, Armitage,
McPherson and Rowe 1969). A spec that plans L looks (`hypotheses.looks`) has each tested at alpha / L, which bounds the
error over all of them; without such a plan a later look is exploratory and says so.

Limits: only looks taken through nsd in this workspace are known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nsd.reports.judge.subgroups import ByField
from nsd.reports.judge.verdict import Verdict
from nsd.runner.store.shapes import Look, Sides

if TYPE_CHECKING:
    import duckdb

    from nsd.reports.judge.comparison import Comparison


def earlier_looks(connection: duckdb.DuckDBPyConnection, experiment: str) -> list[Look]:
    """Recorded looks at pairs of this experiment, oldest first: a, b, metric, evidence, train, n."""
    rows = connection.execute(
        "SELECT a, b, metric, evidence, n FROM looks WHERE experiment = ? ORDER BY looked_at", [experiment]
    ).fetchall()
    return [
        Look.from_json({"a": a, "b": b, "metric": metric, **json.loads(evidence), "n": n}, "looks")
        for a, b, metric, evidence, n in rows
    ]


def look_number(looks: Iterable[Look], comparison: Comparison | ByField) -> int:
    """Which look this is: 1 plus the distinct earlier ones at a part of the same data.

    Who looked at a pair by a field has seen its difference too; an interaction was seen by its own field alone.
    Earlier data are a part of these where both arms' evaluations are contained in them (seeds were added), or
    where the same trained models were evaluated on fewer questions.
    """
    seen = set()
    now_a, now_b = set(comparison.evals_a), set(comparison.evals_b)
    trained = (set(comparison.trained_a), set(comparison.trained_b))
    a, b = condition_of(comparison.a), condition_of(comparison.b)
    field = _field(comparison)
    for look in looks:
        if {look.a, look.b} != {a, b} or look.metric != comparison.metric:
            continue
        if field is not None and look.by != field:
            continue
        flip = look.a != a
        old_a, old_b = _sets(look.evidence, flip)
        if (old_a, old_b) == (now_a, now_b):
            continue
        old_models = _sets(look.train or Sides(), flip)
        more_seeds = old_a <= now_a and old_b <= now_b
        more_questions = any(old_models) and old_models == trained and (look.n or 0) < comparison.n
        if more_seeds or more_questions:
            seen.add((tuple(sorted(old_a)), tuple(sorted(old_b))))
    return 1 + len(seen)


def _sets(sides: Sides, flip: bool) -> tuple[set[str], set[str]]:
    a, b = set(sides.a), set(sides.b)
    return (b, a) if flip else (a, b)


def look_entries(comparisons: Sequence[Comparison | ByField]) -> list[Look]:
    """The record of these comparisons as looks: pairs of conditions of one experiment, judged on their evaluations.

    A pair by a field is one too, whether or not its interaction could be tested: its difference was shown.
    """
    return [
        Look(
            experiment=one.a.partition("/")[0],
            a=condition_of(one.a),
            b=condition_of(one.b),
            metric=one.metric,
            evidence=Sides(a=list(one.evals_a), b=list(one.evals_b)),
            train=Sides(a=list(one.trained_a), b=list(one.trained_b)),
            n=one.n,
            p=one.p,
            verdict=_verdict(one),
            **({} if (field := _field(one)) is None else {"by": field}),
        )
        for one in comparisons
        if (one.p is not None or _field(one) is not None) and one.evals_a and one.evals_b and _together(one)
    ]


def condition_of(arm: str) -> str:
    """`experiment/condition` of a run or of an arm."""
    return "/".join(arm.split("/")[:2])


def _field(one: Comparison | ByField) -> str | None:
    """The field of the questions that a pair was looked at by."""
    return one.field if isinstance(one, ByField) else None


def _verdict(one: Comparison | ByField) -> str:
    if isinstance(one, ByField):
        return (Verdict.DIFFERS if one.shown else Verdict.UNRESOLVED).value
    return one.verdict.value


def _together(one: Comparison | ByField) -> bool:
    return "/" in one.a and "/" in one.b and one.a.partition("/")[0] == one.b.partition("/")[0]
