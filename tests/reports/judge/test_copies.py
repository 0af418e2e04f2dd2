"""A seed that changed nothing is not another observation: copies, draws of one model, and what is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import closed_forms
from nsd.plugins.errors import InputError
from nsd.reports import stats
from nsd.reports.judge.arms import summarise_arms
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.comparison import Comparison
from nsd.reports.judge.looks import look_entries
from nsd.reports.judge.noise import noise_floor, noise_sentence
from nsd.reports.judge.power import Claimed, Design, power_of
from nsd.reports.judge.runs import condition_arms
from toy_results import Results, verdicts

SEEDS = (1, 2, 3, 4)
BLOCK = {"alpha": 0.05, "correction": "none"}


@pytest.fixture
def results() -> Results:
    return Results()


def answers(n: int, right: int) -> list[float]:
    return [1.0] * right + [0.0] * (n - right)


def add(results: Results, condition: str, values: Sequence[Sequence[float]], **fields: Any) -> None:
    for seed, mine in enumerate(values, 1):
        results.add(f"s/{condition}/seed{seed}", mine, **fields)


def claimed(results: Results, better: str = "b", worse: str = "a") -> Any:
    claim = {"text": f"{better} > {worse}", "kind": "better", "better": better, "worse": worse, "margin": None}
    (found,) = verdicts(results, {**BLOCK, "claims": [claim]})
    return found


def greedy_copies(results: Results) -> None:
    """The measured case: nothing trained, temperature 0, "4 seeds", 60 questions, 2 of them discordant."""
    add(results, "a", [answers(60, 30)] * 4, trained=False, temperature=0.0)
    add(results, "b", [answers(60, 28)] * 4, trained=False, temperature=0.0)


def test_greedy_copies_are_one_observation_and_no_recipe(results: Results) -> None:
    greedy_copies(results)
    found = claimed(results)
    one = found.comparison
    assert (one.test, one.p, one.discordant) == ("McNemar mid-p", 0.25, (2, 0))
    assert found.verdict == "UNRESOLVED" and one.seeds == (1, 1) and one.claim == "checkpoint"
    assert found.about == "these models as they are (nothing was trained)" and "recipe" not in found.sentence()
    assert "s/a: 4 seeds of a model that is not trained, nothing drawn anew, count as 1" in found.note


def test_the_other_ways_to_that_comparison_say_the_same(results: Results) -> None:
    greedy_copies(results)
    (by_experiment,) = compare_runs(results.connection, ["s"])
    (by_glob,) = compare_runs(results.connection, ["s/*"])  # eight runs, two of them observations
    for one in (by_experiment, by_glob):
        assert (one.p, one.p_adjusted, one.family) == (0.25, 0.25, 1)
    assert "s/a/seed2 repeats another seed to the letter" in by_glob.note
    for asked in ("seeds", "seeds-paired", "two-level"):
        with pytest.raises(InputError, match="at least two"):
            compare_runs(results.connection, ["s"], test=asked)
    with pytest.raises(InputError, match="nothing was trained in s/a or s/b"):
        compare_runs(results.connection, ["s"], claim="recipe")


def test_more_copies_are_no_new_look_and_no_new_row(results: Results) -> None:
    greedy_copies(results)
    (entry,) = look_entries(compare_runs(results.connection, ["s"]))
    assert entry.evidence.to_json() == {"a": ["eval-s/a/seed1"], "b": ["eval-s/b/seed1"]}
    a, b = summarise_arms(results.connection, [f"s/{arm}/seed{seed}" for arm in "ab" for seed in SEEDS])
    exact = stats.exact_binomial(30, 60, 0.95)
    assert exact is not None and a.ci == (exact.low, exact.high)
    assert (a.seeds, a.seed_means, a.copies, b.samples) == ([], [0.5], 3, 1)


def test_a_recording_read_again_is_a_copy_whatever_its_temperature(results: Results) -> None:
    add(results, "a", [answers(60, 30)] * 4, temperature=0.7, engine="replay")
    add(results, "b", [answers(60, 28)] * 4, temperature=0.7, engine="replay")
    for arm in "ab":  # each condition replays a file of its own
        results.connection.execute(
            "UPDATE stages SET manifest = replace(manifest::TEXT, '\"replay\"', ?) WHERE digest LIKE ?",
            [f'"replay", "extra": "{arm}"', f"eval-s/{arm}/%"],
        )
    one = claimed(results).comparison
    assert (one.p, one.seeds, one.claim) == (0.25, (1, 1), "checkpoint")


def test_an_engine_without_weights_that_says_the_same_again_is_a_recording_whatever_its_name(results: Results) -> None:
    add(results, "a", [answers(60, 30)] * 4, trained=False, temperature=0.7, engine="theirs")
    add(results, "b", [answers(60, 28)] * 4, trained=False, temperature=0.7, engine="theirs")
    found = claimed(results)
    assert (found.comparison.test, found.comparison.p, found.comparison.seeds) == ("McNemar mid-p", 0.25, (1, 1))
    assert "s/a: 4 seeds of a model that is not trained, nothing drawn anew, count as 1" in found.note
    results.connection.execute("UPDATE eval_samples SET answer = '2' WHERE eval_digest = 'eval-s/a/seed4'")
    (arm,) = summarise_arms(results.connection, [f"s/a/seed{seed}" for seed in SEEDS])
    assert arm.samples == 4  # somebody was asked anew


def test_seeds_that_left_the_same_files_left_one_model(results: Results) -> None:
    def left(condition: str, files: Sequence[str]) -> None:
        for seed, content in enumerate(files, 1):
            manifest = {"sha256": {"model/weights": content, "log.txt": f"{condition}{seed}"}}
            results.connection.execute(
                "INSERT INTO stages(digest, kind, manifest) VALUES (?, 'train', ?)",
                [f"train-s/{condition}/seed{seed}", json.dumps(manifest)],
            )

    for condition, right in (("a", 30), ("b", 28)):
        add(results, condition, [answers(60, right)] * 3, temperature=0.0)
    left("a", ["x", "x", "x"])
    left("b", ["y", "y", "y"])
    found = claimed(results)
    assert (found.comparison.p, found.about) == (0.25, "this checkpoint (seed 1)")
    assert "s/b: 3 seeds of the same weights, nothing drawn anew, count as 1" in found.note
    results.connection.execute("DELETE FROM stages WHERE digest LIKE 'train-s/b/%'")
    left("b", ["y1", "y2", "y2"])
    assert condition_arms(results.connection, "s")["b"].seeds == [1, 2]
    assert "a has one distinct model only, so the other seeds are left out" in claimed(results).note


def test_one_model_sampled_again_is_more_samples_of_each_question(results: Results) -> None:
    generator = np.random.default_rng(0)
    a, b = (generator.binomial(1, chance, (4, 50)).astype(float) for chance in (0.4, 0.6))
    add(results, "a", a.tolist(), trained=False, temperature=0.7)
    add(results, "b", b.tolist(), trained=False, temperature=0.7)
    found = claimed(results)
    expected = stats.sign_flip(b.mean(axis=0) - a.mean(axis=0), seed=0)
    assert found.comparison.p == pytest.approx(expected.p) and found.comparison.n == 50
    assert found.about.startswith("these models as they are") and found.comparison.seeds == (1, 1)
    (arm,) = summarise_arms(results.connection, [f"s/a/seed{seed}" for seed in SEEDS])
    assert (arm.samples, arm.seeds, arm.interval) == (4, [], "bounded mean")
    assert arm.mean == pytest.approx(a.mean())


def test_pairs_rest_on_the_same_runs_as_the_answer(results: Results) -> None:
    generator = np.random.default_rng(0)
    base, trained = (generator.binomial(1, chance, (4, 50)).astype(float) for chance in (0.4, 0.6))
    add(results, "a", base.tolist(), trained=False, temperature=0.7)
    add(results, "b", trained[:1].tolist(), temperature=0.7)
    declared = claimed(results).comparison
    (pair,) = compare_runs(results.connection, ["s"])
    assert (pair.p, pair.difference) == (declared.p, declared.difference)
    assert (
        (pair.evals_a, pair.evals_b)
        == (declared.evals_a, declared.evals_b)
        == (("eval-s/a/seed1",), ("eval-s/b/seed1",))
    )


def test_the_interval_of_an_arm_stays_a_share(results: Results) -> None:
    add(results, "a", [answers(40, 1), answers(40, 36)])
    add(results, "b", [answers(40, 4), answers(40, 39)])
    (one,) = compare_runs(results.connection, ["s"])
    (arm,) = summarise_arms(results.connection, ["s/a/seed1", "s/a/seed2"])
    assert one.ci_a == arm.ci == (0.0, 1.0)


def test_the_same_training_under_two_seeds_is_one_model(results: Results) -> None:
    add(results, "a", [answers(60, 30)] * 2, temperature=0.0)
    add(results, "b", [answers(60, 28)] * 2, temperature=0.0)
    for arm in "ab":
        results.connection.execute("UPDATE runs SET train_digest = ? WHERE condition = ?", [f"one-{arm}", arm])
    found = claimed(results)
    assert found.comparison.p == 0.25 and found.about == "this checkpoint (seed 1)"


def test_equal_results_of_different_weights_stay_observations(results: Results) -> None:
    add(results, "a", [answers(100, 40), answers(100, 40), answers(100, 44)], temperature=0.0)
    add(results, "b", [answers(100, 60), answers(100, 60), answers(100, 66)], temperature=0.0)
    found = claimed(results)
    assert found.about == "this recipe (3 training seeds)" and found.comparison.seeds == (3, 3)
    a, b = ([answers(100, right) for right in rights] for rights in ((40, 40, 44), (60, 60, 66)))
    assert found.comparison.p == pytest.approx(stats.two_level(a, b).p)


def trained_against_base(results: Results) -> tuple[Any, Any]:
    generator = np.random.default_rng(3)
    base = generator.binomial(1, 0.4, 80).astype(float)
    tuned = np.array([np.where(generator.random(80) < 0.3, 1.0, base) for _ in range(3)])
    add(results, "base", [base.tolist()] * 3, trained=False, temperature=0.0)
    add(results, "tuned", tuned.tolist(), temperature=0.0)
    return base, tuned


def test_trained_against_base_is_about_the_recipe_and_needs_seeds_in_the_trained_arm_only(results: Results) -> None:
    base, tuned = trained_against_base(results)
    found = claimed(results, "tuned", "base")
    one = found.comparison
    assert found.about == "this recipe (3 training seeds; base is not trained)" and one.claim == "recipe"
    expected = stats.two_level(base, tuned, trained=(False, True))
    assert one.test == expected.name and one.p == pytest.approx(expected.p) and one.seeds == (1, 3)
    assert found.verdict == "BETTER"
    back = claimed(results, "base", "tuned")
    assert back.verdict == "WORSE" and back.comparison.p == pytest.approx(one.p)


def test_two_level_against_a_fixed_arm_by_hand() -> None:
    # Differences by question over two seeds: means 0, .5, .5, 1; seed means .5 and .5; residuals +-.5 on two questions.
    base, tuned = np.zeros(4), np.array([[0, 1, 0, 1], [0, 0, 1, 1]])
    found = stats.two_level(base, tuned, trained=(False, True))
    questions = np.var([0, 0.5, 0.5, 1], ddof=1) / 4
    assert found.estimate == 0.5 and found.standard_error == pytest.approx(questions**0.5)
    assert found.df == pytest.approx(3)


def test_one_trained_seed_is_no_recipe_however_often_base_is_repeated(results: Results) -> None:
    add(results, "base", [answers(60, 30)] * 4, trained=False, temperature=0.0)
    results.add("s/tuned/seed2", answers(60, 28), temperature=0.0)
    found = claimed(results, "tuned", "base")
    assert found.about == "this checkpoint (seed 2)" and found.comparison.p == 0.25
    with pytest.raises(InputError, match="s/tuned has 1"):
        compare_runs(results.connection, ["s/base", "s/tuned"], claim="recipe")


def test_seeds_that_answer_alike_leave_the_recipe_to_the_questions(results: Results) -> None:
    """Both arms answer the same under every seed: training again changes nothing, other questions would."""
    add(results, "a", [answers(100, 40)] * 4, temperature=0.0)
    add(results, "b", [answers(100, 60)] * 4, temperature=0.0)
    found = claimed(results)
    alone = stats.paired_t(np.array(answers(100, 60)) - np.array(answers(100, 40)))
    assert found.verdict == "BETTER" and found.comparison.p == pytest.approx(alone.p)


def test_more_seeds_do_not_stand_in_for_questions() -> None:
    generator = np.random.default_rng(1)
    base, learned = np.zeros((1, 400)), generator.beta(2, 2, 400)  # what each question gains differs: questions count
    tuned = (generator.random((4, 400)) < learned + generator.normal(0, 0.05, (4, 1))).astype(float)
    needed = closed_forms.seeds_for(base, tuned, 0.1)
    assert needed is not None and 2 <= needed <= 20
    assert closed_forms.seeds_for(base, tuned, 0.01) is None  # more seeds never show it


# --------------------------------------------------------------------------- planning and noise


def test_power_counts_copies_as_one_seed() -> None:
    untrained = Design(60, trained=(False, False))
    found = power_of([Claimed("b > a", "better", "b", "a", design=untrained)]).claims[0]
    assert found.about == "checkpoint" and found.smallest_p is None and found.alone.seeds is None


def test_against_base_the_smallest_p_is_that_of_signs() -> None:
    found = power_of([], design=Design(100, seeds=4, trained=(True, False))).overall
    assert found.about == "recipe" and found.smallest_p == pytest.approx(2 / 2**4)


def test_copies_say_nothing_of_the_spread(results: Results) -> None:
    """Four copies of each: one pair, no sampling variance, no SD over seeds."""
    greedy_copies(results)
    claim = Claimed("b > a", "better", "b", "a", design=Design(60, trained=(False, False)))
    spread = power_of([claim], connection=results.connection, experiment="s").claims[0].spread
    assert spread.source == "earlier runs of a and b: discordance 3.3% of 60 questions"
    assert spread.sampling is None and spread.seed_source.startswith("assumed")


def test_greedy_repeats_are_no_trials_of_a_test(results: Results) -> None:
    results.add("s/a/seed1", answers(10, 5), temperature=0.0)
    for number in (1, 2):
        results.connection.execute("INSERT INTO repeats VALUES ('s/a/seed1', 'spec', ?, ?)", [number, f"again{number}"])
        results.connection.execute(
            "INSERT INTO eval_info VALUES (?, 'accuracy', 'accuracy', 'data', 'numeric', 10, 1)", [f"again{number}"]
        )
        results.connection.execute(
            "INSERT INTO eval_values SELECT ?, 'q' || i, (i < 5)::DOUBLE FROM range(10) t(i)", [f"again{number}"]
        )
    (one,) = noise_floor(results.connection, ["s/a/seed1"])
    assert (one.pairs, one.sd, one.called_different) == (0, None, 0) and "calls" not in one.sentence()
    assert "within the noise" not in noise_sentence([one])


def test_a_pair_of_arms_shows_what_each_rests_on(results: Results) -> None:
    trained_against_base(results)
    (one,) = compare_runs(results.connection, ["s/base", "s/tuned"])
    assert isinstance(one, Comparison) and one.ci_a is not None and one.ci_b is not None
    assert one.evals_a == ("eval-s/base/seed1",) and len(one.evals_b) == 3
