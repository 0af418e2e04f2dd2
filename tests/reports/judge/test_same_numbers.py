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
