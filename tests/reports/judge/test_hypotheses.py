"""Verdicts on declared claims: kinds, the family, seeds or checkpoint, and runs that are not there."""

from __future__ import annotations

from typing import Any

import pytest

import closed_forms
from nsd.reports import stats
from nsd.reports.judge import hypotheses
from nsd.reports.judge.hypotheses import weigh_claim
from nsd.reports.judge.runs import condition_arms
from nsd.reports.judge.values import load_values
from nsd.runner.store.shapes import Claim
from toy_results import Results, table_runs, verdicts


def claim(better: str, worse: str, kind: str = "better", margin: float | None = None) -> dict[str, Any]:
    return {"text": f"{better} > {worse}", "kind": kind, "better": better, "worse": worse, "margin": margin}


def block(*claims: dict[str, Any], correction: str = "holm") -> dict[str, Any]:
    return {"alpha": 0.05, "correction": correction, "claims": list(claims)}


@pytest.fixture
def results() -> Results:
    """base 0.6, oracle 0.8 on the same 200 questions, and twin, which is like base."""
    results = Results()
    table_runs(results, "s/base/seed1", "s/oracle/seed1", 110, 10, 50, 30)
    results.add("s/twin/seed1", [1.0] * 118 + [0.0] * 2 + [1.0] * 1 + [0.0] * 79)
    return results


def test_better_is_two_sided_and_adjusted_over_the_declared_family(results: Results) -> None:
    found = verdicts(results, block(claim("oracle", "base"), claim("base", "oracle")))
    assert [one.verdict for one in found] == ["BETTER", "WORSE"]
    assert [one.holds for one in found] == [True, False]
    raw = stats.mcnemar(10, 50).p
    assert raw is not None
    assert [one.comparison and one.comparison.p_adjusted for one in found] == pytest.approx([2 * raw, 2 * raw])
    assert found[0].family == 2


def test_one_seed_is_about_a_checkpoint_and_says_so(results: Results) -> None:
    (found,) = verdicts(results, block(claim("oracle", "base")))
    assert found.about == "this checkpoint (seed 1)" and "McNemar" in found.sentence()


def test_several_seeds_are_about_the_recipe() -> None:
    results = Results()
    for seed, (base, tuned) in enumerate([(60, 80), (62, 84), (57, 79)], 1):
        results.add(f"s/base/seed{seed}", [1.0] * base + [0.0] * (100 - base))
        results.add(f"s/tuned/seed{seed}", [1.0] * tuned + [0.0] * (100 - tuned))
    (found,) = verdicts(results, block(claim("tuned", "base")))
    assert found.about == "this recipe (3 training seeds)" and found.holds is True
    assert found.comparison is not None
    base, tuned = ([[1.0] * n + [0.0] * (100 - n) for n in right] for right in ((60, 62, 57), (80, 84, 79)))
    assert found.comparison.p == pytest.approx(stats.two_level(base, tuned).p)


def test_a_condition_with_one_seed_is_compared_at_that_seed() -> None:
    results = Results()
    results.add("s/base/seed2", [1.0] * 50 + [0.0] * 50)
    for seed in (1, 2, 3):
        results.add(f"s/tuned/seed{seed}", [1.0] * (60 + seed) + [0.0] * (40 - seed))
    (found,) = verdicts(results, block(claim("tuned", "base")))
    assert found.about == "this checkpoint (seed 2)" and "base has one seed only" in found.note
    assert found.comparison is not None and found.comparison.mean_b == pytest.approx(0.62)


def test_no_harm_and_equivalence_within_a_margin(results: Results) -> None:
    claims = [claim("twin", "base", "not_worse_by", 0.05), claim("twin", "base", "equivalent_within", 0.05)]
    no_harm, same = verdicts(results, block(*claims, correction="none"))
    assert (no_harm.verdict, no_harm.holds) == ("NOT WORSE", True)
    assert (same.verdict, same.holds) == ("EQUIVALENT", True)
    assert same.comparison is not None and same.comparison.level == pytest.approx(0.9)
    expected = stats.margin_test_paired(2, 1, 200, 0.05, both_sides=True)
    assert same.comparison.p == expected.p


def test_a_margin_claim_can_be_refuted(results: Results) -> None:
    claims = [claim("base", "oracle", "not_worse_by", 0.05), claim("oracle", "base", "equivalent_within", 0.05)]
    worse, better = verdicts(results, block(*claims))
    assert (worse.verdict, worse.holds, worse.note) == ("WORSE", False, "")
    assert (better.verdict, better.holds, better.note) == ("BETTER", False, "")


def test_an_undecided_margin_claim_names_the_questions_it_needs(results: Results) -> None:
    results.add("s/noisy/seed1", [0.0] * 15 + [1.0] * 105 + [1.0] * 15 + [0.0] * 65)
    (found,) = verdicts(results, block(claim("noisy", "base", "equivalent_within", 0.01)))
    assert found.holds is None and found.comparison is not None
    expected = closed_forms.sample_size(0.01, 30 / 200, alpha=0.1, power=0.9)
    assert found.comparison.needed_n == pytest.approx(expected, rel=5e-3)  # Tango's variance at the margin is larger
    assert "true difference of zero" in found.sentence()


def test_a_condition_without_a_run_is_unresolved_and_counts_in_the_family_as_p_one(results: Results) -> None:
    found = verdicts(results, block(claim("oracle", "base"), claim("ghost", "base")))
    assert found[1].verdict == "UNRESOLVED" and "no finished run of ghost" in found[1].note
    assert found[0].family == 2 and found[0].comparison is not None and found[0].comparison.p is not None
    assert found[0].comparison.p_adjusted == pytest.approx(2 * found[0].comparison.p)


def test_conditions_measured_differently_do_not_stop_the_other_claims(results: Results) -> None:
    results.add("s/other/seed1", [1.0] * 200, verifier="math")
    found = verdicts(results, block(claim("other", "base"), claim("oracle", "base")))
    assert found[0].holds is None and "different verifiers" in found[0].note
    assert found[1].holds is True


def test_verdicts_are_plain_data(results: Results) -> None:
    import json

    (found,) = verdicts(results, block(claim("oracle", "base")))
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["comparison"]["verdict"] == "BETTER"


def interaction_without_questions(looks: str | None = None) -> tuple[hypotheses.TestedClaim, str]:
    """The claim that `b` against `a` differs by level, on tables of counts; and the one note that it leaves."""
    results = Results()
    table_runs(results, "s/a/seed1", "s/b/seed1", 10, 5, 10, 15)
    arms = condition_arms(results.connection, "s")
    values = load_values(results.connection, list(arms.values()))
    claim = Claim(text="differs", kind="interaction", better="b", worse="a", by="level")
    found = weigh_claim(claim, arms, values, 0.05, looks=looks)
    assert (found.evidence, found.result, found.about) == (None, None, "these weights")
    (note,) = found.notes
    return found, note


def test_an_interaction_without_the_questions_is_not_tested() -> None:
    _, note = interaction_without_questions()
    assert note == "the questions are not at hand, so no interaction is tested"


def test_an_interaction_is_for_one_look_or_planned_ones() -> None:
    found, note = interaction_without_questions(looks="any")
    assert note == "no verdict at any look: the test of an interaction is for one look, or planned ones"
    assert found.p is None and found.by is None
