"""Comparisons from a real (small) database: pairing, choice of test, verdicts, refusals, missing answers."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import closed_forms
from nsd.plugins.errors import InputError
from nsd.reports import stats
from nsd.reports.judge.compare import compare_runs
from nsd.reports.stats.choose import NEEDS, PairTest, Shape, choose
from toy_results import Results, table_runs


@pytest.fixture
def results() -> Results:
    return Results()


def test_the_promised_keys_come_first_and_in_order(results: Results) -> None:
    table_runs(results, "a", "b", 50, 10, 25, 15)
    (found,) = compare_runs(results.connection, ["a", "b"])
    promised = "a b metric n mean_a mean_b difference ci test p p_adjusted discordant verdict"
    assert " ".join(list(found.to_json())[:13]) == promised
    assert found.to_json()["discordant"] == [10, 25]


def test_one_binary_value_per_question_is_paired_by_question(results: Results) -> None:
    table_runs(results, "a", "b", 50, 10, 25, 15)
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert (found.mean_a, found.mean_b, found.difference) == pytest.approx((0.60, 0.75, 0.15))
    assert found.p == stats.mcnemar(10, 25).p and found.test == "McNemar mid-p"
    interval = stats.newcombe_paired(50, 10, 25, 15)
    assert interval is not None and found.ci == (interval.low, interval.high)
    assert found.verdict == "BETTER"
    (back,) = compare_runs(results.connection, ["b", "a"])
    assert back.verdict == "WORSE" and back.discordant == (25, 10) and back.difference == pytest.approx(-0.15)


def test_pairing_goes_by_id_and_not_by_order(results: Results) -> None:
    results.add("a", {"x": 1.0, "y": 0.0, "z": 1.0})
    results.add("b", {"z": 1.0, "y": 0.0, "x": 1.0})
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.discordant == (0, 0) and found.p == 1.0 and found.verdict == "UNRESOLVED"


def test_every_pair_comes_in_the_order_named_and_is_adjusted_over_all(results: Results) -> None:
    table_runs(results, "c", "a", 50, 10, 25, 15)
    table_runs(results, "b", "d", 50, 12, 22, 16)
    found = compare_runs(results.connection, ["c", "a", "b"])
    assert [(one.a, one.b) for one in found] == [("c", "a"), ("c", "b"), ("a", "b")]
    assert [one.p_adjusted for one in found] == stats.adjust([one.p for one in found], "bh")
    assert {one.family for one in found} == {3}
    raw = compare_runs(results.connection, ["c", "a", "b"], correction="none")
    assert [one.p_adjusted for one in raw] == [one.p for one in raw]


def test_a_baseline_limits_the_family(results: Results) -> None:
    table_runs(results, "c", "a", 50, 10, 25, 15)
    table_runs(results, "b", "d", 50, 12, 22, 16)
    found = compare_runs(results.connection, ["a", "b", "d"], baseline="c")
    assert [(one.a, one.b, one.family) for one in found] == [("c", "a", 3), ("c", "b", 3), ("c", "d", 3)]


def test_samples_are_never_pooled(results: Results) -> None:
    generator = np.random.default_rng(0)
    a, b = generator.binomial(8, 0.5, 60) / 8, generator.binomial(8, 0.6, 60) / 8
    results.add("a", list(a), samples=8)
    results.add("b", list(b), samples=8)
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.n == 60 and found.discordant is None
    assert found.test == "sign-flip permutation (exact)" and found.interval == "t"
    assert found.p == stats.sign_flip(b - a, seed=0).p


def test_a_vote_over_samples_is_one_binary_decision(results: Results) -> None:
    results.add("a", [1.0, 0.0, 1.0, 0.0] * 9, samples=8, metric="maj@8")
    results.add("b", [1.0, 1.0, 1.0, 0.0] * 9, samples=8, metric="maj@8")
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.test == "McNemar mid-p" and found.discordant == (0, 9)


def test_continuous_values_take_permutation_and_t(results: Results) -> None:
    generator = np.random.default_rng(1)
    results.add("a", list(generator.random(40)))
    results.add("b", list(generator.random(40)))
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.test.startswith("sign-flip permutation (") and found.interval == "t"
    assert compare_runs(results.connection, ["a", "b"])[0] == found  # resampling repeats to the digit


@pytest.mark.parametrize(("test", "paired"), [(None, True), ("t", True), ("two-proportion", False)])
def test_answers_are_paired_where_their_test_takes_question_by_question(
    results: Results, test: str | None, paired: bool
) -> None:
    table_runs(results, "a", "b", 50, 10, 25, 15)
    (found,) = compare_runs(results.connection, ["a", "b"], test=test)
    assert found.paired is paired


def test_counts_are_unpaired_and_say_so(results: Results) -> None:
    results.add_counts("baseline", 135, 500)
    results.add_counts("oracle", 162, 500)
    (found,) = compare_runs(results.connection, ["baseline", "oracle"])
    assert round(float(found.p or 0), 3) == 0.062
    assert "unpaired" in found.test and found.discordant is None and not found.paired
    assert found.verdict == "UNRESOLVED" and found.needed_n is None and found.needed_paired is None
    (asked,) = compare_runs(results.connection, ["baseline", "oracle"], detect=0.05)
    assert asked.needed_n is not None and asked.needed_paired is not None and asked.needed_paired < asked.needed_n


def test_counts_against_answers_use_the_answers_as_counts(results: Results) -> None:
    results.add_counts("published", 60, 100)
    results.add("mine", [1.0] * 75 + [0.0] * 25)
    (found,) = compare_runs(results.connection, ["published", "mine"])
    assert found.p == stats.two_proportion(60, 100, 75, 100).p


@pytest.mark.parametrize(
    ("fields", "word"),
    [({"data": "other"}, "data"), ({"verifier": "math"}, "verifiers"), ({"metric": "pass@8"}, "metrics")],
)
def test_different_measurements_are_refused_unless_forced(results: Results, fields: dict[str, str], word: str) -> None:
    results.add("a", [1.0, 0.0] * 20)
    results.add("b", [1.0, 1.0] * 20, **fields)
    with pytest.raises(InputError, match=f"different {word}.*--force"):
        compare_runs(results.connection, ["a", "b"])
    (found,) = compare_runs(results.connection, ["a", "b"], force=True)
    assert found.forced and "FORCED" in found.note


def test_a_majority_within_a_number_of_tokens_is_held_against_single_answers_and_says_so(results: Results) -> None:
    results.add("a", [1.0] * 50 + [0.0] * 50)
    results.add("b", [1.0] * 70 + [0.0] * 30, metric="maj@tokens:56", samples=8)
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.metric == "maj@tokens:56 against accuracy"
    apart = "b is measured by maj@tokens:56, the majority of 8 completions and a is measured by accuracy"
    assert found.note == apart


def test_notes_stand_in_one_line_with_semicolons_between(results: Results) -> None:
    results.add("a", {f"q{i}": 1.0 for i in range(5)})
    results.add("b", {f"q{i}": 1.0 for i in range(1, 8)})
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.note == (
        "no question on which the two differ; 4 shared questions without any spread: too few to say what it takes; "
        "1 questions only in a, 3 only in b: left out"
    )


def test_an_import_whose_data_are_not_known_is_not_refused(results: Results) -> None:
    results.add("a", [1.0, 0.0] * 20, data=None, verifier=None)
    results.add("b", [1.0, 1.0] * 20)
    assert compare_runs(results.connection, ["a", "b"])[0].n == 40


def test_missing_questions_are_reported_and_bounded(results: Results) -> None:
    full = {f"q{i}": float(i % 2) for i in range(100)}
    results.add("a", full)
    results.add("b", dict.fromkeys(list(full)[:90], 1.0))
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.n == 90 and found.unmatched == (10, 0)
    assert found.bounds == pytest.approx(((45 - 5) / 100, (45 + 5) / 100))
    assert "10 questions only in a" in found.note and "depends" not in found.note


def test_a_verdict_that_hangs_on_missing_questions_says_so(results: Results) -> None:
    full = {f"q{i}": float(i % 2) for i in range(200)}
    results.add("a", full)
    results.add("b", {f"q{i}": 1.0 if i < 20 else full[f"q{i}"] for i in range(150)})
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.verdict == "BETTER" and "the verdict depends on them" in found.note


def test_truncated_answers_count_as_wrong_and_are_bounded(results: Results) -> None:
    results.add("a", [1.0] * 50 + [0.0] * 50, truncated=[f"q{i}" for i in range(50, 80)])
    results.add("b", [1.0] * 70 + [0.0] * 30)
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.difference == pytest.approx(0.2) and found.verdict == "BETTER"
    assert found.truncated == (0.3, 0.0)
    assert found.bounds == pytest.approx((-0.1, 0.2)) and "depends on them" in found.note


def test_one_question_in_common_is_not_asked_for_its_spread(results: Results) -> None:
    results.add("a", [0.25], samples=4, metric="avg@4")
    results.add("b", [0.75], samples=4, metric="avg@4")
    with warnings.catch_warnings(action="error"):
        (found,) = compare_runs(results.connection, ["a", "b"], detect=0.05)
    assert found.detectable is None and "1 shared question without any spread" in found.note


def test_no_question_in_common_is_a_sentence_and_not_a_number(results: Results) -> None:
    results.add("a", {"x": 1.0, "y": 0.0})
    results.add("b", {"u": 1.0, "v": 0.0})
    results.add("c", {"x": 1.0, "y": 0.0})
    _, found, _ = compare_runs(results.connection, ["a", "c", "b"])
    assert (found.n, found.mean_a, found.ci, found.p, found.verdict) == (0, None, None, None, "UNRESOLVED")
    assert "no question in common" in found.sentence()


def test_runs_that_share_no_question_are_refused_where_nothing_else_is_compared(results: Results) -> None:
    results.add("a", {"x": 1.0, "y": 0.0})
    results.add("b", {"u": 1.0, "v": 0.0})
    with pytest.raises(InputError, match="no question in common between a and b, so there is nothing to compare"):
        compare_runs(results.connection, ["a", "b"])


@pytest.mark.parametrize("detect", [math.nan, math.inf, 0.0, 1.0])
def test_a_difference_that_is_no_share_is_refused(results: Results, detect: float) -> None:
    results.add("a", {"x": 1.0, "y": 0.0})
    results.add("b", {"x": 1.0, "y": 0.0})
    with pytest.raises(InputError, match=f"detect {detect}"):
        compare_runs(results.connection, ["a", "b"], detect=detect)


@pytest.mark.parametrize("values", [[1.0] * 30, [0.0] * 30, [1.0], [0.5] * 30, [0.5]])
def test_runs_without_any_difference_are_unresolved(results: Results, values: list[float]) -> None:
    results.add("a", values)
    results.add("b", values)
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.verdict == "UNRESOLVED" and found.difference == 0
    assert found.p in (1.0, None)
    numbers = [value for value in found.to_json().values() if isinstance(value, float)]
    assert not any(math.isnan(number) for number in numbers)


def test_an_unresolved_pair_names_what_it_could_see_and_nothing_for_what_it_saw(results: Results) -> None:
    table_runs(results, "a", "b", 200, 50, 60, 190)
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.verdict == "UNRESOLVED"
    # 110 of 500 questions discordant, exactly: 2.80 sqrt(.22 / 500) and less, by (d - difference^2) in the estimate
    assert found.detectable == pytest.approx(2.8016 * math.sqrt(110 / 500 / 500), rel=0.01)
    low, high = found.detectable_range or (None, None)
    assert low is not None and high is not None and low < found.detectable < high  # type: ignore[operator]
    assert found.needed_n is None and found.needed_for == "" and "needs" not in found.sentence()


def test_a_stated_difference_takes_a_number_of_questions_with_its_range(results: Results) -> None:
    table_runs(results, "a", "b", 200, 50, 60, 190)
    (found,) = compare_runs(results.connection, ["a", "b"], detect=0.02)
    # (1.95996 sqrt(.22) + .84162 sqrt(.22 - .0004))^2 / .0004; the exact interval of 110 of 500 is .1844 to .2589
    expected = [closed_forms.sample_size(0.02, share) for share in (0.1844, 0.22, 0.2589)]
    assert found.needed_range is not None and found.needed_n is not None
    assert [found.needed_range[0], found.needed_n, found.needed_range[1]] == pytest.approx(expected, rel=2e-3)
    said = f"a true difference of 2.0 points needs {found.needed_n} questions ({found.needed_range[0]} to"
    assert said.lower() in found.sentence().lower()


def test_a_margin_can_show_equivalence(results: Results) -> None:
    table_runs(results, "a", "b", 900, 20, 22, 400)
    assert compare_runs(results.connection, ["a", "b"])[0].verdict == "UNRESOLVED"
    assert compare_runs(results.connection, ["a", "b"], margin=0.02)[0].verdict == "EQUIVALENT"


# --------------------------------------------------------------------------- names


def test_globs_conditions_and_experiments_name_arms(results: Results) -> None:
    for condition in ("base", "tuned"):
        for seed in (1, 2, 3):
            generator = np.random.default_rng([seed, condition == "base"])
            results.add(f"study/{condition}/seed{seed}", list(generator.integers(0, 2, 40).astype(float)))
    assert len(compare_runs(results.connection, ["study/*/seed1"])) == 1
    assert len(compare_runs(results.connection, ["study/*"])) == 15
    (by_condition,) = compare_runs(results.connection, ["study/base", "study/tuned"])
    (by_experiment,) = compare_runs(results.connection, ["study"])
    assert by_condition == by_experiment
    assert by_condition.claim == "recipe" and by_condition.seeds == (3, 3) and by_condition.test.startswith("two-level")


def test_an_unknown_name_gets_the_nearest(results: Results) -> None:
    results.add("study/base/seed1", [1.0])
    results.add("study/tuned/seed1", [1.0])
    with pytest.raises(InputError, match="did you mean 'study/tuned/seed1'"):
        compare_runs(results.connection, ["study/base/seed1", "study/tuend/seed1"])


def test_one_run_is_not_a_comparison(results: Results) -> None:
    results.add("a", [1.0])
    results.add("c", None, status="failed")
    says = "names 1 run\\(s\\) with a result{}: name two or more to compare, `nsd runs` lists them$"
    with pytest.raises(InputError, match="^a a " + says.format("")):
        compare_runs(results.connection, ["a", "a"])
    with pytest.raises(InputError, match="^. " + says.format(r" \(c has no result yet \(failed\)\)")):
        compare_runs(results.connection, ["?"])


def test_an_unfinished_run_is_refused_by_name_and_reported_under_a_glob(results: Results) -> None:
    results.add("s/a/seed1", [1.0, 0.0])
    results.add("s/b/seed1", [1.0, 1.0])
    results.add("s/c/seed1", None, status="failed")
    with pytest.raises(InputError, match="no result to compare"):
        compare_runs(results.connection, ["s/a/seed1", "s/c/seed1"])
    (found,) = compare_runs(results.connection, ["s/*"])
    assert "s/c/seed1 has no result yet" in found.note


def test_names_with_glob_characters_are_found_as_they_are(results: Results) -> None:
    results.add("odd[1]*", [1.0, 0.0])
    results.add("plain", [1.0, 1.0])
    assert compare_runs(results.connection, ["odd[1]*", "plain"])[0].a == "odd[1]*"


# --------------------------------------------------------------------------- seeds and named tests


def add_seeds(results: Results, condition: str, means: list[float], order: str | None = None) -> None:
    for seed, mean in enumerate(means, 1):
        right = round(100 * mean)
        results.add(f"s/{condition}/seed{seed}", [1.0] * right + [0.0] * (100 - right), order=order and f"{order}")


def test_seeds_carry_a_claim_about_a_recipe(results: Results) -> None:
    add_seeds(results, "a", [0.30, 0.34, 0.28])
    add_seeds(results, "b", [0.40, 0.44, 0.45])
    (found,) = compare_runs(results.connection, ["s/a", "s/b"])
    a, b = (
        np.arange(100) < np.array([[round(100 * mean)] for mean in means])
        for means in ([0.30, 0.34, 0.28], [0.40, 0.44, 0.45])
    )
    both = stats.two_level(a, b)
    assert both.interval is not None
    assert (found.p, found.difference) == pytest.approx((both.p, both.estimate))
    assert found.ci == pytest.approx((both.interval.low, both.interval.high))


def test_a_recipe_claim_without_seeds_is_refused(results: Results) -> None:
    table_runs(results, "s/a/seed1", "s/b/seed1", 50, 10, 25, 15)
    with pytest.raises(InputError, match=r"needs training seeds.*s/a has 1.*9 seeds per arm.*seeds: \[1, 2"):
        compare_runs(results.connection, ["s/a", "s/b"], claim="recipe")


def test_a_checkpoint_claim_over_seeds_averages_each_question(results: Results) -> None:
    add_seeds(results, "a", [0.30, 0.34, 0.28])
    add_seeds(results, "b", [0.40, 0.44, 0.45])
    (found,) = compare_runs(results.connection, ["s/a", "s/b"], claim="checkpoint")
    assert found.test == "sign-flip permutation (exact)" and found.n == 100


def test_every_test_can_be_asked_for_by_its_name() -> None:
    assert {name: choice.test for name, (_, _, choice) in NEEDS.items()} == {one: one for one in PairTest}


def test_a_test_reads_the_table_the_differences_the_seeds_or_counts() -> None:
    reads = {one: (one.of_table, one.of_differences, one.of_recipe) for one in PairTest}
    assert sum(map(sum, reads.values())) == len(PairTest) - 1 and not any(reads[PairTest.TWO_PROPORTION])
    assert {one.value for one in PairTest if not one.paired} == {"two-proportion", "seeds"}


@pytest.mark.parametrize("test", sorted(set(NEEDS) - {"cluster", "sign", "seeds", "seeds-paired", "two-level"}))
def test_a_person_may_name_another_test(results: Results, test: str) -> None:
    table_runs(results, "a", "b", 50, 10, 25, 15)
    (found,) = compare_runs(results.connection, ["a", "b"], test=test)
    assert found.verdict in ("BETTER", "UNRESOLVED") and found.ci is not None and found.because == "asked for"


def test_a_named_test_that_cannot_be_right_is_refused_with_the_one_that_fits(results: Results) -> None:
    results.add("a", [0.5, 0.25] * 10, samples=4)
    results.add("b", [0.75, 0.25] * 10, samples=4)
    with pytest.raises(InputError, match=r"'mcnemar' needs one right-or-wrong.*'permutation' fits"):
        compare_runs(results.connection, ["a", "b"], test="mcnemar")
    with pytest.raises(InputError, match=r"'seeds' needs as many training seeds in each.*'permutation' fits"):
        compare_runs(results.connection, ["a", "b"], test="seeds")
    with pytest.raises(InputError, match="no test 'anova'"):
        compare_runs(results.connection, ["a", "b"], test="anova")


@pytest.mark.parametrize(
    ("shape", "test"),
    [
        (Shape(counts_only=True), "two-proportion"),
        (Shape(binary=True, n=500), "mcnemar"),
        (Shape(sampled=True, n=500), "permutation"),
        (Shape(sampled=True, n=5_000), "permutation"),
        (Shape(sampled=True, n=5_001), "t"),
        (Shape(n=500), "permutation"),
        (Shape(searched=True, n=19), "sign"),
        (Shape(binary=True, n=19), "mcnemar"),
        (Shape(clustered=True, recipe=True, seeds=(3, 3), n=500), "two-level"),
        (Shape(sampled=True, n=20), "permutation"),
        (Shape(sampled=True, n=19, bounded=False), "permutation"),
        (Shape(sampled=True, lopsided=True, n=500, bounded=False), "permutation"),
        (Shape(clustered=True, binary=True, n=500), "cluster"),
        (Shape(recipe=True, binary=True, seeds=(3, 3), n=500), "two-level"),
        (Shape(recipe=True, seeds=(1, 3), trained=(False, True), n=500), "two-level"),
        (Shape(sampled=True, n=19), "bounded"),
        (Shape(sampled=True, unequal=True, n=500), "t"),
        (Shape(sampled=True, unequal=True, lopsided=True, n=500), "bounded"),
    ],
)
def test_the_table_of_tests(shape: Shape, test: str) -> None:
    assert choose(shape).test == test
    assert choose(shape).because


@pytest.mark.parametrize(("seeds", "taken"), [((2, 2), True), ((2, 5), False), ((4, 8), False), ((5, 8), True)])
def test_seed_means_of_few_and_unequal_seeds_are_refused(seeds: tuple[int, int], taken: bool) -> None:
    shape = Shape(recipe=True, seeds=seeds, n=500)
    if taken:
        assert choose(shape, "seeds").test == "seeds"
    else:
        with pytest.raises(ValueError, match=r"or 5 or more in each; for these runs 'two-level' fits"):
            choose(shape, "seeds")


@pytest.mark.parametrize("arguments", [{"alpha": 0.0}, {"correction": "sidak"}, {"margin": 2.0}])
def test_bad_options_are_input_errors(results: Results, arguments: dict[str, object]) -> None:
    table_runs(results, "a", "b", 5, 1, 2, 1)
    with pytest.raises(InputError):
        compare_runs(results.connection, ["a", "b"], **arguments)  # type: ignore[arg-type]
