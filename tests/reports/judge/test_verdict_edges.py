"""Edges of a verdict that a single wrong sign, bound or side would move."""

from __future__ import annotations

import json
from typing import Any

import pytest

import closed_forms
from nsd.reports import stats
from nsd.reports.judge.answer import answer
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.hypotheses import family_adjusted
from nsd.reports.judge.looks import look_number
from nsd.runner.store.shapes import Look, Sides
from toy_results import Results, table_runs, verdicts

BLOCK = {"alpha": 0.05, "correction": "holm"}


@pytest.fixture
def results() -> Results:
    return Results()


def claim(better: str, worse: str, kind: str = "better", margin: float | None = None) -> dict[str, Any]:
    return {"text": f"{better} > {worse}", "kind": kind, "better": better, "worse": worse, "margin": margin}


def declare(results: Results, at: str, *claims: dict[str, Any]) -> None:
    results.connection.execute(
        "INSERT INTO experiments VALUES ('s', 'v', 'Why?', '', '{}', ?, ?, ?)",
        [json.dumps({**BLOCK, "claims": list(claims)}), at, at],
    )


def finished(results: Results, run: str, at: str) -> None:
    results.connection.execute(
        "INSERT INTO stages(digest, kind, ended_at, manifest) VALUES (?, 'eval', ?, '{}')", [f"eval-{run}", at]
    )


def test_a_result_exists_once_both_conditions_are_evaluated(results: Results) -> None:
    """The claim stands between the first arm's evaluation and the second's: it came in time, to the second."""
    table_runs(results, "s/a/seed1", "s/b/seed1", 50, 10, 25, 15)
    finished(results, "s/a/seed1", "2026-01-01 09:00")
    finished(results, "s/b/seed1", "2026-01-01 11:00")
    declare(results, "2026-01-01 11:00", claim("b", "a"))
    assert answer(results.connection, "s").verdicts[0].mark == ""


def test_no_harm_is_refuted_only_beyond_the_margin(results: Results) -> None:
    """b is 8 points worse at most 5.1 for sure: the interval lies beyond 5 points, yet not beyond 7."""
    table_runs(results, "s/a/seed1", "s/b/seed1", 400, 90, 10, 500)
    interval = stats.newcombe_paired(400, 90, 10, 500)
    assert interval is not None and -0.07 < interval.high < -0.05
    for margin, holds in ((0.05, False), (0.07, None)):
        (found,) = verdicts(results, {**BLOCK, "claims": [claim("b", "a", "not_worse_by", margin)]})
        assert found.holds is holds


def test_a_refutation_is_corrected_for_the_family(results: Results) -> None:
    """Alone b is beyond the margin; as one of twenty claims the interval is wider and reaches into it."""
    table_runs(results, "s/a/seed1", "s/b/seed1", 400, 90, 10, 500)
    alone, wide = (stats.newcombe_paired(400, 90, 10, 500, level) for level in (0.95, 1 - 0.05 / 20))
    assert alone is not None and wide is not None
    margin = -(alone.high + wide.high) / 2
    claims = [claim("b", "a", "not_worse_by", margin), *(claim(f"ghost{i}", "a") for i in range(19))]
    assert verdicts(results, {**BLOCK, "claims": claims[:1]})[0].holds is False
    assert verdicts(results, {**BLOCK, "claims": claims})[0].holds is None


def test_a_better_arm_stays_better_whatever_margin_is_asked_for(results: Results) -> None:
    table_runs(results, "a", "b", 900, 2, 30, 68)
    (found,) = compare_runs(results.connection, ["a", "b"], margin=0.2)
    assert found.verdict == "BETTER" and "equivalence within" in found.note


def test_counts_are_told_by_the_smaller_arm_and_each_arm_has_its_own_interval(results: Results) -> None:
    results.add_counts("few", 30, 100)
    results.add_counts("many", 700, 1000)
    (found,) = compare_runs(results.connection, ["few", "many"])
    assert (found.n, found.n_a, found.n_b) == (100, 100, 1000)
    few, many = stats.exact_binomial(30, 100, 0.95), stats.exact_binomial(700, 1000, 0.95)
    assert few is not None and many is not None
    assert (found.ci_a, found.ci_b) == ((few.low, few.high), (many.low, many.high))


def test_shares_that_were_cut_or_failed_are_each_arms_own(results: Results) -> None:
    results.add("a", [0.0] * 10, truncated=["q0", "q1"])
    results.add("b", [1.0] * 10)
    results.connection.execute(
        "UPDATE eval_samples SET stop_reason = 'error' WHERE eval_digest = 'eval-b' AND question_id = 'q5'"
    )
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.truncated == (0.2, 0.0) and found.failed == (0.0, 0.1)


def test_an_interval_wholly_below_zero_agrees_with_its_p(results: Results) -> None:
    table_runs(results, "a", "b", 50, 25, 5, 20)
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.verdict == "WORSE" and "disagree" not in found.note


def test_a_family_without_a_correction_leaves_every_p_as_it_is() -> None:
    assert family_adjusted([0.04, None], "none") == [0.04, None]


def test_what_is_found_and_needed_is_told_at_the_level_that_the_correction_leaves(results: Results) -> None:
    table_runs(results, "a", "b", 200, 50, 60, 190)
    results.add("c", [1.0] * 262 + [0.0] * 238)
    for correction in ("holm", "none"):
        found = compare_runs(results.connection, ["a", "b", "c"], correction=correction)
        levels = []
        for one in found:
            assert one.p is not None and one.p_adjusted is not None and one.discordant is not None
            left = 1 - one.level
            a_only, b_only = one.discordant
            model = stats.PairedShares(500, (a_only + b_only) / 500)
            assert one.detectable == pytest.approx(stats.detectable(model, left, 0.8))
            levels.append(left)
        assert min(levels) == pytest.approx(0.05 if correction == "none" else 0.05 / 3)


def test_counts_of_unequal_size_weigh_each_arms_own_spread(results: Results) -> None:
    results.add_counts("few", 50, 100)
    results.add_counts("many", 540, 1000)
    (found,) = compare_runs(results.connection, ["few", "many"])
    expected = closed_forms.minimum_detectable_effect(0.25 / 100 + 0.54 * 0.46 / 1000, 1)
    assert found.detectable == pytest.approx(expected, rel=0.02)


def test_every_earlier_look_at_a_part_of_the_data_counts(results: Results) -> None:
    for seed in (1, 2, 3):
        results.add(f"s/a/seed{seed}", [1.0, 0.0, 0.0, 1.0])
        results.add(f"s/b/seed{seed}", [1.0, 1.0, 0.0, 1.0])
    (now,) = compare_runs(results.connection, ["s"])
    parts = [([1], [1]), ([1, 2], [1, 2]), ([1, 2], [1, 2]), ([1, 2, 3], [1, 2, 3]), ([1], [9])]
    entries = [
        Look(
            a="s/a",
            b="s/b",
            metric="accuracy",
            n=4,
            evidence=Sides(a=[f"eval-s/a/seed{one}" for one in a], b=[f"eval-s/b/seed{one}" for one in b]),
        )
        for a, b in parts
    ]
    assert look_number(entries, now) == 3  # two distinct parts; the same data and foreign data are no earlier look
