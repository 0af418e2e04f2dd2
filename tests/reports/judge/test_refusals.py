"""What a comparison, a plan or a claim cannot be asked, in whole sentences."""

from __future__ import annotations

import re
from typing import Any

import pytest

from nsd.plugins.errors import InputError
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.power import Claimed, Design, power_of
from toy_results import Results, refusal, verdicts


@pytest.fixture
def results() -> Results:
    """Two conditions of two seeds each, an import of one and of two samples, and counts."""
    results = Results()
    for seed in (1, 2):
        results.add(f"s/a/seed{seed}", [1.0, 0.0] * 20)
        results.add(f"s/b/seed{seed + 1}", [1.0, 1.0, 0.0, 1.0] * 10)
    results.add("x", [1.0, 0.0] * 20)
    results.add("y", [0.5, 0.0] * 20, samples=2, metric="avg@2")
    results.add_counts("few", 3, 10)
    return results


@pytest.mark.parametrize("test", ["seeds", "seeds-paired"])
def test_tests_of_seed_means_know_no_groups(results: Results, test: str) -> None:
    assert refusal(results, "s/a", "s/b", test=test, groups={f"q{i}": str(i % 20) for i in range(40)}) == (
        f"--test {test} speaks of these very questions, whatever groups they come in: leave them out, or take two-level"
    )


@pytest.mark.parametrize("test", ["mcnemar", "t", "two-proportion"])
def test_a_test_of_questions_says_nothing_of_a_recipe(results: Results, test: str) -> None:
    assert refusal(results, "s/a", "s/b", test=test, claim="recipe") == (
        f"--test {test} knows questions alone and says nothing of a recipe trained again: leave it out (two-level is "
        "taken), or ask about these weights (--claim checkpoint)"
    )


@pytest.mark.parametrize("test", ["seeds", "seeds-paired", "two-level"])
def test_a_test_of_seeds_says_nothing_of_checkpoints(results: Results, test: str) -> None:
    assert refusal(results, "s/a", "s/b", test=test, claim="checkpoint") == (
        f"--test {test} takes training seeds for samples and speaks of a recipe: ask for that (--claim recipe), or "
        "leave the test out"
    )


def test_seeds_are_paired_with_the_same_seeds_alone(results: Results) -> None:
    assert refusal(results, "s/a", "s/b", test="seeds-paired") == (
        "--test seeds-paired needs the same training seeds in both arms: s/a has 1, 2, s/b 2, 3. Take --test seeds, or "
        "two-level"
    )


def test_the_same_seeds_in_another_order_are_the_same(results: Results) -> None:
    for seed in (2, 1):
        results.add(f"s/c/seed{seed}", [1.0, 1.0, 0.0, 1.0] * 9 + [1.0] * (2 + seed) + [0.0] * (2 - seed))
    (found,) = compare_runs(results.connection, ["s/a", "s/c"], test="seeds-paired")
    assert found.seeds == (2, 2)


def test_models_that_nobody_trained_are_no_recipe(results: Results) -> None:
    for name in ("old", "new"):
        results.add(f"s/{name}/seed1", [1.0, 0.0] * 20, trained=False)
    assert refusal(results, "s/old/seed1", "s/new/seed1", claim="recipe") == (
        "nothing was trained in s/old/seed1 or s/new/seed1, so there is no recipe to speak of: ask about these models "
        "as they are (--claim checkpoint)"
    )


def test_a_recipe_of_one_seed_is_told_how_many_it_takes(results: Results) -> None:
    assert refusal(results, "s/a", "s/b/seed2", claim="recipe") == (
        "a claim about a recipe needs training seeds in each trained arm, at least two; s/b/seed2 has 1. Where seeds "
        "scatter by 1.4 points, 9 seeds per arm find a difference of 2 points in 4 of 5 cases; the smallest p that a "
        "permutation of seeds can reach is 0.1 with 3, 0.029 with 4, 0.0079 with 5. Add them to the spec (seeds: [1, "
        "2, 3, 4, 5]), or ask about these checkpoints (--claim checkpoint)"
    )


def test_counts_are_held_against_one_run_of_right_or_wrong_answers(results: Results) -> None:
    assert refusal(results, "few", "s/a") == "s/a has 2 runs: compare counts with one run at a time"
    assert refusal(results, "few", "y", force=True) == (
        "y has values between 0 and 1 (avg@2) and the other arm only counts: counts compare with right-or-wrong "
        "answers alone"
    )


def test_a_baseline_is_one_run(results: Results) -> None:
    assert refusal(results, "s/a", "s/b", baseline="s/a/*") == "baseline 's/a/*' names 2 runs: name one"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"alpha": 1.0}, "alpha 1.0: a level between 0 and 1, such as 0.05"),
        ({"alpha": 0.0}, "alpha 0.0: a level between 0 and 1, such as 0.05"),
        ({"correction": "sidak"}, "no correction 'sidak': one of holm, bonferroni, bh, none"),
        ({"margin": 1.0}, "margin 1.0: a share between 0 and 1, such as 0.02 for two points"),
        ({"margin": 0.0}, "margin 0.0: a share between 0 and 1, such as 0.02 for two points"),
        ({"margin": 0.0, "metric": "tokens"}, "margin 0.0: tokens above 0, in the unit of the metric"),
        ({"margin": float("inf"), "metric": "tokens"}, "margin inf: tokens above 0, in the unit of the metric"),
        ({"detect": 1.0}, "detect 1.0: a share between 0 and 1, such as 0.02 for two points"),
        ({"intervals": "wide"}, "no intervals 'wide': holm, bonferroni or unadjusted"),
    ],
)
def test_options_that_are_none_are_refused(results: Results, asked: dict[str, Any], said: str) -> None:
    assert refusal(results, "s/a/seed1", "s/b/seed2", **asked) == said


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"alpha": 1.0}, "alpha 1.0: a level between 0 and 1, such as 0.05"),
        ({"power": 0.05}, "power 0.05: a chance above alpha and below 1, such as 0.8"),
        ({"power": 1.0}, "power 1.0: a chance above alpha and below 1, such as 0.8"),
        ({"detect": 1.0}, "detect 1.0: a share between 0 and 1, such as 0.02 for two points"),
        (
            {"discordance": 0.0},
            "discordance 0.0: the share of questions on which two arms differ, above 0 (arms that never differ have no "
            "difference to find) and at most 1, such as 0.2",
        ),
        ({"seed_sd": 1.0}, "seed SD 1.0: a share above 0 and below 1, such as 0.014 for 1.4 points"),
        ({"design": Design(0)}, "questions, samples and seeds are at least 1 each"),
        ({"design": Design(9, samples=0)}, "questions, samples and seeds are at least 1 each"),
        ({"design": Design(9, seeds=0)}, "questions, samples and seeds are at least 1 each"),
    ],
)
def test_a_plan_of_impossible_numbers_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        power_of([], **{"design": Design(100), **asked})


def test_a_plan_has_a_claim_or_a_design() -> None:
    with pytest.raises(InputError, match=r"^nothing to plan: name a spec or an experiment, or give --questions$"):
        power_of([])
    with pytest.raises(InputError, match="at least 1 each"):
        power_of([Claimed("b > a", design=Design(0))], design=Design(100))


@pytest.mark.parametrize("margin", [None, 0.0, 1.0])
@pytest.mark.parametrize("kind", ["not_worse_by", "equivalent_within"])
def test_a_claim_within_a_margin_names_it(results: Results, kind: str, margin: float | None) -> None:
    claim = {"text": "b as a", "kind": kind, "better": "b", "worse": "a", "margin": margin}
    with pytest.raises(InputError) as caught:
        verdicts(results, {"alpha": 0.05, "correction": "holm", "claims": [claim]})
    assert str(caught.value) == f"claim 'b as a': {kind} needs a margin between 0 and 1, such as 0.02"
