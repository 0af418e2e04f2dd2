"""Where the spread between training seeds comes from, and what paired seeds and counts need, worked by hand."""

from __future__ import annotations

import math

import pytest

from nsd.reports import stats
from nsd.reports.judge.answer import answer
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.power import Claimed, Design
from toy_designs import alternating, one
from toy_results import Results


def seeds(results: Results, arm: str, rights: list[int]) -> None:
    """Trained runs of one condition, one a seed, on the same hundred questions."""
    for seed, right in enumerate(rights, 1):
        results.add(f"{arm}/seed{seed}", alternating(100, right), order="same")


def spread(results: Results, experiment: str = "toy", data_hash: str | None = "data") -> tuple[float, str]:
    claim = Claimed("d > c", "better", "d", "c", design=Design(100, seeds=3, data_hash=data_hash))
    found = one(claim.design, claim, connection=results.connection, experiment=experiment).spread
    return found.seed_sd, "; ".join([found.source, *found.notes, found.seed_source])


def test_the_spread_of_the_experiments_own_arms_is_pooled_by_degrees_of_freedom() -> None:
    results = Results()
    seeds(results, "toy/a", [50, 52, 54])  # variance 4 points^2, 2 degrees of freedom
    seeds(results, "toy/b", [60, 64])  # variance 8, 1 degree
    sd, source = spread(results)
    # Less the noise of a seed at a question: (4 * 2/3 - 100 * 2 * .0004) / 198 of a, (4 / 2 - 100 * .0008) / 99 of b.
    left = (2 * (8 / 3 - 0.08) / 198 + (2 - 0.08) / 99) / 3
    assert sd == pytest.approx(math.sqrt((2 * 4 + 1 * 8) / 3 / 10_000 - left / 100))
    assert "earlier runs of toy" in source and "2 conditions, 3 degrees of freedom" in source


def test_other_experiments_count_on_the_same_questions_alone() -> None:
    results = Results()
    seeds(results, "other/a", [50, 52, 54])
    sd, source = spread(results)
    assert sd == pytest.approx(math.sqrt(0.0004 - (8 / 3 - 0.08) / 198 / 100))
    assert "other runs on the same questions" in source
    sd, source = spread(results, data_hash="elsewhere")
    assert sd == 0.014 and "assumed" in source


def test_the_claims_own_arms_come_first() -> None:
    results = Results()
    seeds(results, "toy/c", [50, 55, 60])
    seeds(results, "toy/d", [52, 58, 61])  # variances 25 and 21 points^2
    sd, source = spread(results)
    left = (10 * 2 / 3 - 0.5 + 9 * 2 / 3 - 0.42) / 2 / 198
    assert sd == pytest.approx(math.sqrt(23 / 10_000 - left / 100)) and "earlier runs of c and d" in source


def test_paired_seeds_are_tested_by_their_differences() -> None:
    results = Results()
    seeds(results, "toy/c", [50, 55, 60])
    seeds(results, "toy/d", [52, 58, 61])
    (found,) = compare_runs(results.connection, ["toy/c", "toy/d"], test="seeds-paired")
    expected = stats.paired_t([0.02, 0.03, 0.01])
    assert found.p == pytest.approx(expected.p) and expected.interval is not None
    assert found.ci == pytest.approx((expected.interval.low, expected.interval.high))


def test_a_pair_outside_the_claims_says_which_seeds_were_left_out() -> None:
    results = Results()
    seeds(results, "toy/a", [50, 52, 54])
    seeds(results, "toy/b", [60])
    (pair,) = answer(results.connection, "toy").exploratory
    assert "b has one seed only, so the other seeds are left out" in pair.note


@pytest.mark.parametrize(("test", "claim"), [("mcnemar", "checkpoint"), ("seeds", "recipe"), ("two-level", "recipe")])
def test_the_test_that_is_asked_for_says_what_the_claim_is_about(test: str, claim: str) -> None:
    results = Results()
    for arm, right in (("a", 50), ("b", 60)):
        seeds(results, f"toy/{arm}", [right, right + 2])
    runs = ["toy/a/seed1", "toy/b/seed1"] if claim == "checkpoint" else ["toy/a", "toy/b"]
    (found,) = compare_runs(results.connection, runs, test=test)
    assert found.claim == claim
