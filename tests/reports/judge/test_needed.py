"""What an unresolved comparison could have found and what it still needs: questions, seeds, and at which level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import closed_forms
from nsd.plugins.errors import InputError
from nsd.reports import stats
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.comparison import Comparison
from nsd.reports.judge.hypotheses import ClaimVerdict
from nsd.reports.text.render import attrition_lines, needs
from toy_results import Results, table_runs, verdicts


@pytest.fixture
def results() -> Results:
    return Results()


# The questions that two seeds of one condition answer differently are few: seeds carry most of the spread.
SEEDED = {
    name: np.arange(1000)[None, :] < 1000 * np.array(means)[:, None]
    for name, means in (("a", (0.500, 0.515, 0.530)), ("b", (0.505, 0.520, 0.535)))
}


@pytest.fixture
def seeded(results: Results) -> Results:
    """Three training seeds of two conditions, whose means scatter by 1.5 points."""
    for name, block in SEEDED.items():
        for seed, right in enumerate(block, 1):
            results.add(f"s/{name}/seed{seed}", right.tolist())
    return results


def judge(results: Results, kind: str, margin: float) -> ClaimVerdict:
    claim: dict[str, Any] = {"text": "b as a", "kind": kind, "better": "b", "worse": "a", "margin": margin}
    (found,) = verdicts(results, {"alpha": 0.05, "correction": "holm", "claims": [claim]})
    return found


def said(comparison: Comparison | None) -> str:
    assert comparison is not None
    return comparison.still_needed()


@pytest.mark.parametrize(("standard_error", "df", "alpha"), [(0.01, 4, 0.05), (0.02, 2, 0.05), (0.01, 18, 0.01)])
def test_the_detectable_difference_of_seeds_has_the_power_it_says(
    standard_error: float, df: float, alpha: float
) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    found = closed_forms.t_detectable(standard_error, df, alpha)
    assert found is not None
    limit = scipy_stats.t.ppf(1 - alpha / 2, df)
    assert scipy_stats.nct.sf(limit, df, found / standard_error) == pytest.approx(0.8, abs=1e-6)


def test_two_seeds_at_a_strict_level_find_nothing_that_can_be_named() -> None:
    assert closed_forms.t_detectable(0.01, 1, 0.001) is None


def test_an_unresolved_recipe_says_what_its_seeds_find_and_nothing_for_what_was_seen(seeded: Results) -> None:
    (found,) = compare_runs(seeded.connection, ["s/a", "s/b"])
    assert found.verdict == "UNRESOLVED" and found.claim == "recipe"
    assert found.needed_seeds is None and found.needed_n is None
    both = stats.two_level(SEEDED["a"], SEEDED["b"])
    assert both.standard_error is not None and both.df is not None
    # Its chance is a mean over what the parts of the error may come out as, which no single df tells exactly.
    by_one_df = closed_forms.t_detectable(both.standard_error, both.df)
    assert by_one_df is not None and found.detectable is not None
    assert 0.9 * by_one_df < found.detectable < 1.2 * by_one_df
    assert "finds" in needs(found) and "seeds" not in needs(found)


def test_a_stated_difference_of_recipes_takes_seeds_with_their_range(seeded: Results) -> None:
    (found,) = compare_runs(seeded.connection, ["s/a", "s/b"], detect=0.03)
    assert found.needed_seeds is not None and found.needed_seeds_range is not None
    assert found.needed_seeds == pytest.approx(closed_forms.seeds_for(SEEDED["a"], SEEDED["b"], 0.03), abs=1)
    low, high = found.needed_seeds_range
    assert low is not None and low < found.needed_seeds and (high is None or high > found.needed_seeds)
    assert f"needs {found.needed_seeds} seeds per arm ({low} to" in found.sentence()


@pytest.mark.parametrize(("kind", "chance"), [("not_worse_by", 0.8), ("equivalent_within", 0.9)])
def test_an_undecided_margin_claim_about_a_recipe_names_the_seeds(seeded: Results, kind: str, chance: float) -> None:
    found = judge(seeded, kind, 0.02)
    assert found.verdict == "UNRESOLVED" and found.comparison is not None
    needed = found.comparison.needed_seeds
    by_t = closed_forms.seeds_for(SEEDED["a"], SEEDED["b"], 0.02, alpha=0.1, power=chance)
    assert by_t is not None and needed in (by_t, by_t + 1)  # so little varies that the bounded mean takes a little more
    assert f"needs {needed} seeds per arm" in said(found.comparison)


def test_the_seeds_named_for_equivalence_show_it_in_four_of_five_cases() -> None:
    """1.5 points between seeds, no true difference, a margin of 2 points, by the test that nsd runs."""
    needed = stats.seeds_needed(0.02, 0.015, alpha=0.1, power=0.9)
    assert needed is not None
    generator, shown, trials = np.random.default_rng(0), 0, 2000
    for a, b in generator.normal(0.5, 0.015, size=(trials, 2, needed)):
        t = stats.welch_t(a, b)
        assert t.estimate is not None and t.standard_error is not None and t.df is not None
        shown += stats.margin_p(stats.Student(t.estimate, t.standard_error, t.df), 0.02, both_sides=True) < 0.05
    assert 0.78 < shown / trials < 0.88  # binomial SE .009


def test_an_arm_that_does_not_scatter_leaves_all_to_the_other_arms_seeds(results: Results) -> None:
    for seed, right in enumerate((520, 540, 500), 1):
        results.add(f"s/base/seed{seed}", [1.0] * 500 + [0.0] * 500)
        results.add(f"s/trained/seed{seed}", [1.0] * right + [0.0] * (1000 - right))
    (found,) = compare_runs(results.connection, ["s/base", "s/trained"], detect=0.02)
    assert found.verdict == "UNRESOLVED"
    assert found.needed_seeds == 12  # two more than for the seeds alone: questions vary as well


@pytest.mark.parametrize("correction", ["holm", "bonferroni", "bh"])
def test_what_is_needed_is_needed_at_the_level_that_the_correction_leaves(results: Results, correction: str) -> None:
    """p = .031 alone would be a difference; as one of six it is not, and 800 questions find no 2.4 points."""
    table_runs(results, "a", "b", 400, 30, 49, 321)
    results.add("c", [1.0] * 430 + [0.0] * 370)
    results.add("d", [1.0] * 429 + [0.0] * 371)
    found = compare_runs(results.connection, ["a", "b", "c", "d"], correction=correction, detect=0.024)
    open_ones = [one for one in found if one.verdict == "UNRESOLVED" and one.needed_n is not None]
    assert any(one.p is not None and one.p < 0.05 for one in open_ones)
    assert all(one.needed_n is not None and one.needed_n > one.n for one in open_ones if one.discordant == (30, 49))


def test_groups_widen_what_is_needed_as_they_widen_the_error(results: Results) -> None:
    """Ten questions of a group move together: ten times the variance, so about ten times the questions."""
    block = np.repeat(np.random.default_rng(1).permutation([1, 0, 0, 0, -1, 1, 0, -1, 0, 0] * 4), 10)
    results.add("a", (block == -1).astype(float).tolist())
    results.add("b", [*(block == 1).astype(float).tolist()[:-20], *[1.0] * 20])
    groups = {f"q{i}": f"g{i // 10}" for i in range(400)}
    (alone,) = compare_runs(results.connection, ["a", "b"], alpha=1e-9, detect=0.1)
    (grouped,) = compare_runs(results.connection, ["a", "b"], alpha=1e-9, groups=groups, detect=0.1)
    assert alone.needed_n is not None and grouped.needed_n is not None
    assert grouped.needed_n / alone.needed_n == pytest.approx(10, rel=0.1)


def test_one_question_says_why_no_number_can_be_named(results: Results) -> None:
    table_runs(results, "a", "b", 0, 0, 1, 0)
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.verdict == "UNRESOLVED" and "1 shared question: no difference, however large" in found.note


def test_a_difference_that_is_not_shown_keeps_its_sign(results: Results) -> None:
    table_runs(results, "a", "b", 50, 12, 8, 30)
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert "(-4.0 points, 95% interval -" in found.sentence()


def test_a_margin_is_answered_whatever_the_verdict(results: Results) -> None:
    table_runs(results, "a", "b", 500, 12, 8, 480)
    table_runs(results, "c", "d", 50, 12, 8, 30)
    (shown,) = compare_runs(results.connection, ["a", "b"], margin=0.02)
    (open_one,) = compare_runs(results.connection, ["c", "d"], margin=0.02)
    assert (shown.verdict, open_one.verdict) == ("EQUIVALENT", "UNRESOLVED")
    for found in (shown, open_one):
        assert "equivalence within 2.0 points: TOST equivalence (Tango score), p" in found.note
        assert "90% interval" in found.note


def test_no_harm_that_missing_answers_could_undo_says_so(results: Results) -> None:
    """Equal arms of 2000, interval 0.37 points wide to a side: not worse by 0.5, but 4 cut answers could cost 0.2."""
    cut = [f"q{i}" for i in range(1996, 2000)]
    right = [1.0] * 1000 + [0.0] * 1000
    swapped = [0.0] * 10 + [1.0] * 990 + [1.0] * 10 + [0.0] * 990
    results.add("s/a/seed1", right, truncated=cut)
    results.add("s/b/seed1", swapped)
    found = judge(results, "not_worse_by", 0.005)
    assert found.verdict == "NOT WORSE" and "the verdict depends on them" in found.note


def test_tokens_have_no_worst_case_but_missing_questions_are_told(results: Results) -> None:
    results.add("a", {f"q{i}": 1.0 for i in range(40)})
    results.add("b", {f"q{i}": 1.0 for i in range(30)})
    results.connection.execute("UPDATE eval_samples SET tokens = 9 + length(question_id) WHERE eval_digest = 'eval-b'")
    (found,) = compare_runs(results.connection, ["a", "b"], metric="tokens", margin=5.0)
    assert found.bounds is None and "10 questions only in a" in found.note
    assert "equivalence within 5.0 tokens" in found.note
    with pytest.raises(InputError, match="above 0"):
        compare_runs(results.connection, ["a", "b"], metric="tokens", margin=-1.0)


def test_left_out_questions_are_not_said_to_count_as_wrong(results: Results) -> None:
    results.add("a", [1.0] * 20 + [0.0] * 20)
    results.add("b", [1.0] * 36)
    line, incomplete = attrition_lines(compare_runs(results.connection, ["a", "b"]))
    assert "questions that one run lacks are left out" in line
    assert incomplete == "b lacks 4 questions that another run has"


def test_an_unknown_experiment_gets_the_nearest_experiment(results: Results) -> None:
    results.add("quickstart/base/seed1", [1.0, 0.0])
    results.add("quickstart/oracle/seed1", [1.0, 1.0])
    with pytest.raises(InputError, match="did you mean 'quickstart'"):
        compare_runs(results.connection, ["quickstrat"])
