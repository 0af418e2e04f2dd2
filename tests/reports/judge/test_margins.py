"""Margins of what is known by counts, by one question, or with questions missing."""

from __future__ import annotations

import pytest

from nsd.reports import stats
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.pairs import Evidence, gather
from nsd.reports.judge.runs import resolve
from nsd.reports.judge.values import load_values
from toy_results import Results


@pytest.fixture
def results() -> Results:
    return Results()


def evidence(results: Results, *names: str) -> Evidence:
    arms, _ = resolve(results.connection, names)
    return gather(*arms, load_values(results.connection, arms))


@pytest.mark.parametrize("both_sides", [True, False])
def test_counts_are_held_against_a_margin_unpaired(results: Results, both_sides: bool) -> None:
    results.add_counts("a", 300, 500)
    results.add_counts("b", 320, 500)
    expected = stats.margin_test_unpaired(300, 500, 320, 500, 0.08, both_sides, 0.1)
    assert evidence(results, "a", "b").margin_test(0.08, both_sides, 0.1) == expected


@pytest.mark.parametrize(("both_sides", "name"), [(True, "equivalence"), (False, "non-inferiority")])
def test_counts_of_no_question_are_within_no_margin(results: Results, both_sides: bool, name: str) -> None:
    results.add_counts("a", 0, 0)
    results.add_counts("b", 3, 4)
    note = "a: counts of no question, nothing to compare"
    expected = stats.Result(name, None, None, None, note=note)
    assert evidence(results, "a", "b").margin_test(0.1, both_sides) == expected


@pytest.mark.parametrize(("both_sides", "name"), [(True, "equivalence"), (False, "non-inferiority")])
def test_one_question_is_within_no_margin_and_says_why(results: Results, both_sides: bool, name: str) -> None:
    for run, value in (("a", 0.25), ("b", 0.75)):
        results.add(run, [value], samples=4, metric="avg@4")
    found = evidence(results, "a", "b")
    expected = stats.Result(name, None, None, 0.5, note=found.test().note)
    assert found.margin_test(0.1, both_sides) == expected and "one" in expected.note


@pytest.mark.parametrize(("margin", "depends"), [(0.045, False), (0.03, True)])
def test_equivalence_hangs_on_missing_questions_where_they_could_leave_the_margin(
    results: Results, margin: float, depends: bool
) -> None:
    # None of 200 differs: limits 1.5 points away. Five of the ten missing of 210 were right in a: 2.4 points.
    results.add("a", [1.0, 0.0] * 105)
    results.add("b", [1.0, 0.0] * 100)
    (found,) = compare_runs(results.connection, ["a", "b"], margin=margin)
    assert found.verdict == "EQUIVALENT"
    assert ("the verdict depends on them" in found.note) is depends


def test_an_arm_of_so_few_samples_that_its_rare_outcome_is_hardly_seen_has_bounded_limits(results: Results) -> None:
    results.add("a", [0.0] * 55 + [1.0] * 5)
    results.add("b", [0.25, 0.0, 0.5] * 20, samples=4, metric="avg@4")
    arms, _ = resolve(results.connection, ["a", "b"])
    found = gather(*arms, load_values(results.connection, arms), test="t")
    assert found.shape.lopsided and found.differences is not None
    limits = found.limits()
    assert limits is not None and limits.name == "bounded mean"
    plain = stats.mean_limits(found.differences, (-1.0, 1.0))
    assert plain is not None and plain.name != "bounded mean"
