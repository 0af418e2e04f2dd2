"""Looks at growing data: has this pair been judged before, with less data than now?

    number = look_number(entries, a_evals, b_evals)    # 1 for a first look, 2 once data were added after an earlier one

Each look at data that grow between looks is another chance of a false alarm (ten looks: 20 % instead of 5 %, Armitage,
McPherson and Rowe 1969). A spec that plans L looks (`hypotheses.looks`) has each tested at alpha / L, which bounds the
error over all of them; without such a plan a later look is exploratory and says so.

Limits: only looks taken through nsd in this workspace are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

    from nsd.reports.judge.comparison import Comparison


def earlier_looks(connection: duckdb.DuckDBPyConnection, experiment: str) -> list[dict[str, Any]]:
    """Recorded looks at pairs of this experiment, oldest first: a, b, metric, evidence, train, n."""
    import json

    rows = connection.execute(
        "SELECT a, b, metric, evidence, n, looked_at FROM looks WHERE experiment = ? ORDER BY looked_at", [experiment]
    ).fetchall()
    found = []
    for a, b, metric, evidence, n, when in rows:
        found.append({"a": a, "b": b, "metric": metric, **json.loads(evidence), "n": n, "looked_at": when})
    return found


def look_number(entries: Iterable[Mapping[str, Any]], comparison: Comparison) -> int:
    """Which look this is: 1 plus the distinct earlier ones at a part of the same data.

    Earlier data are a part of these where both arms' evaluations are contained in them (seeds were added), or
    where the same trained models were evaluated on fewer questions.
    """
    seen = set()
    now_a, now_b = set(comparison.evals_a), set(comparison.evals_b)
    trained = (set(comparison.trained_a), set(comparison.trained_b))
    a, b = condition_of(comparison.a), condition_of(comparison.b)
    for entry in entries:
        if {entry["a"], entry["b"]} != {a, b} or entry["metric"] != comparison.metric:
            continue
        evidence, models = entry["evidence"], entry.get("train") or {}
        flip = entry["a"] != a
        old_a, old_b = (set(evidence[side]) for side in ("ba" if flip else "ab"))
        if (old_a, old_b) == (now_a, now_b):
            continue
        old_models = tuple(set(models.get(side, ())) for side in ("ba" if flip else "ab"))
        more_seeds = old_a <= now_a and old_b <= now_b
        more_questions = any(old_models) and old_models == trained and (entry["n"] or 0) < comparison.n
        if more_seeds or more_questions:
            seen.add((tuple(sorted(old_a)), tuple(sorted(old_b))))
    return 1 + len(seen)


def look_entries(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The record of these comparisons as looks: pairs of conditions of one experiment, judged on their evaluations."""
    return [
        {
            "experiment": one.a.partition("/")[0],
            "a": condition_of(one.a),
            "b": condition_of(one.b),
            "metric": one.metric,
            "evidence": {"a": list(one.evals_a), "b": list(one.evals_b)},
            "train": {"a": list(one.trained_a), "b": list(one.trained_b)},
            "n": one.n,
            "p": one.p,
            "verdict": one.verdict,
        }
        for one in comparisons
        if one.p is not None and one.evals_a and one.evals_b and _together(one)
    ]


def condition_of(arm: str) -> str:
    """`experiment/condition` of a run or of an arm."""
    return "/".join(arm.split("/")[:2])


def _together(one: Comparison) -> bool:
    return "/" in one.a and "/" in one.b and one.a.partition("/")[0] == one.b.partition("/")[0]
