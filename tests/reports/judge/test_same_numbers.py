"""A plan, a comparison and a spec give one number for one thing."""

from __future__ import annotations

import pytest

from nsd.reports.judge.answer import answer
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.power import Claimed, Design, power_of
from nsd.runner.store.shapes import Claim, Hypotheses
from toy_designs import undecided_against_decided
from toy_results import Results, table_runs

DATA = "data"


def test_a_plan_finds_what_the_comparison_that_it_learnt_from_finds() -> None:
    results = Results()
    table_runs(results, "toy/a/seed1", "toy/b/seed1", 50, 12, 8, 30)
    (found,) = compare_runs(results.connection, ["toy/a/seed1", "toy/b/seed1"], detect=0.1)
    claim = Claimed("b > a", "better", "b", "a", design=Design(100, data_hash=DATA))
    planned = power_of([claim], connection=results.connection, experiment="toy", detect=0.1).claims[0].alone
    assert planned.detectable == pytest.approx(found.detectable)
    assert (planned.questions, planned.questions_range) == (found.needed_n, found.needed_range)


def test_a_plan_of_samples_finds_what_their_comparison_finds() -> None:
    results = Results()
    claim = undecided_against_decided(results)
    (found,) = compare_runs(results.connection, ["toy/a/seed1", "toy/b/seed1"], detect=0.1)
    planned = power_of([claim], connection=results.connection, experiment="toy", detect=0.1).claims[0].alone
    assert planned.detectable == pytest.approx(found.detectable)
    assert planned.questions == found.needed_n


@pytest.mark.slow
def test_a_plan_of_recipes_has_each_arms_own_seeds_as_the_comparison_has() -> None:
    """Three seeds of a scatter by 5 points and of b by none: pooled, both would scatter by half of that."""
    results = Results()
    for seed, right in enumerate((100, 120, 140), 1):
        results.add(f"toy/a/seed{seed}", [i < right for i in range(200)])
        results.add(f"toy/b/seed{seed}", [i < 126 + seed % 2 for i in range(200)])
    (found,) = compare_runs(results.connection, ["toy/a", "toy/b"], detect=0.1)
    assert found.claim == "recipe" and found.detectable is not None
    design = Design(200, seeds=3, data_hash=DATA)
    claim = Claimed("b > a", "better", "b", "a", design=design)
    (planned,) = power_of([claim], connection=results.connection, experiment="toy", detect=0.1).claims
    assert planned.alone.detectable == pytest.approx(found.detectable)
    assert planned.alone.detectable_range == pytest.approx(found.detectable_range)
    assert (planned.alone.questions, planned.alone.seeds) == (found.needed_n, found.needed_seeds)
    assert (planned.alone.questions_range, planned.alone.seeds_range) == (found.needed_range, found.needed_seeds_range)
    within = Claimed("b as a", "not_worse_by", "b", "a", 0.1, design)
    (margin,) = power_of([within], connection=results.connection, experiment="toy").claims
    same = Claim(text="b as a", kind="not_worse_by", better="b", worse="a", margin=0.1)
    (verdict,) = answer(results.connection, "toy", hypotheses=Hypotheses(claims=[same])).verdicts
    assert verdict.comparison is not None and verdict.comparison.detectable is not None
    assert margin.alone.detectable == pytest.approx(verdict.comparison.detectable)


def test_the_spec_states_the_difference_for_its_claims() -> None:
    results = Results()
    table_runs(results, "s/a/seed1", "s/b/seed1", 50, 12, 8, 30)
    claim = Claim(text="b > a", kind="better", better="b", worse="a")
    (silent,) = answer(results.connection, "s", hypotheses=Hypotheses(claims=[claim])).verdicts
    (stated,) = answer(results.connection, "s", hypotheses=Hypotheses(claims=[claim], detect=0.1)).verdicts
    assert silent.comparison is not None and stated.comparison is not None
    assert silent.comparison.needed_n is None and stated.comparison.needed_n is not None
    assert "a true difference of 10.0 points needs" in stated.comparison.needed_in_short()


def test_few_questions_of_means_get_no_figure() -> None:
    results = Results()
    results.add("a", [0.25, 0.5, 0.75, 0.0, 1.0, 0.5], samples=4, metric="avg@4")
    results.add("b", [0.5, 0.5, 0.25, 0.5, 1.0, 0.75], samples=4, metric="avg@4")
    (found,) = compare_runs(results.connection, ["a", "b"], detect=0.1)
    assert found.detectable is None and found.needed_n is None
    assert "6 shared questions: too few to say which difference they find" in found.note
