"""What single planted faults in the judge got past: constants, edges and the sentences that hang on them."""

from __future__ import annotations

import numpy as np
import pytest

from nsd.reports import stats
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.hypotheses import weigh_claim
from nsd.reports.judge.noise import noise_floor, noise_sentence
from nsd.reports.judge.runs import condition_arms
from nsd.reports.judge.values import load_values
from nsd.runner.store.shapes import Claim
from toy_designs import one, undecided_against_decided
from toy_repeats import RUN, with_repeats
from toy_results import Results


def shares(results: Results) -> None:
    """Two runs of 40 questions; the values are of no lattice, so that no two seeds draw the same limits."""
    draw = np.random.default_rng(3)
    for name in ("a", "b"):
        results.add(name, list(draw.random(40)), samples=64, metric="avg@64")


def test_a_resampled_p_is_the_same_to_the_digit_today_and_tomorrow() -> None:
    results = Results()
    shares(results)
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.interval == "t" and found.test == "sign-flip permutation (20000 draws)"
    # A literal, not computed here: another resampling seed gives another for the same data.
    assert found.p == pytest.approx(0.28428578571071444, abs=1e-12)


@pytest.mark.parametrize(("clusters", "few"), [(2, True), (3, False)])
def test_fewer_than_three_groups_are_refused(clusters: int, few: bool) -> None:
    differences = np.random.default_rng(0).normal(size=2 * clusters)
    found = stats.cluster_t(differences, np.repeat(np.arange(clusters), 2))
    assert (found.p is None) == few == bool(found.note)


def test_a_pair_in_two_groups_has_no_interval_and_says_why() -> None:
    results = Results()
    results.add("a", [1.0, 0.0] * 10)
    results.add("b", [1.0, 1.0, 0.0, 1.0] * 5)
    (found,) = compare_runs(results.connection, ["a", "b"], groups={f"q{i}": f"g{i % 2}" for i in range(20)})
    assert (found.verdict, found.p, found.ci) == ("UNRESOLVED", None, None)
    assert "2 group(s) of questions: at least 3 are needed" in found.note


def test_groups_of_answers_drawn_unequally_often_are_held_against_the_bounded_mean_too() -> None:
    """Of a's 60 single answers 3 are wrong, too few for t alone: its p of .0005 becomes .045."""
    a = [0.0 if i in (3, 17, 40) else 1.0 for i in range(60)]
    b = [0.25 if i % 7 == 2 else 0.5 if i % 5 == 0 else 1.0 for i in range(60)]
    results = Results()
    results.add("a", a)
    results.add("b", b, samples=4)
    (found,) = compare_runs(results.connection, ["a", "b"], groups={f"q{i}": f"g{i // 2}" for i in range(60)})
    about = (np.array(b) - np.array(a), np.arange(60) // 2, 0.95, (-1.0, 1.0))
    wider, alone = stats.cluster_t(*about, lopsided=True), stats.cluster_t(*about)
    assert found.p == wider.p and wider.interval is not None
    assert found.ci == (wider.interval.low, wider.interval.high)
    assert alone.p is not None and wider.p is not None and alone.p < 0.001 < 0.04 < wider.p


def test_checkpoints_of_equally_many_seeds_are_compared_by_their_mean() -> None:
    results = Results()
    for seed in (1, 2):
        results.add(f"s/base/seed{seed}", [1.0] * (50 + seed) + [0.0] * (50 - seed))
        results.add(f"s/tuned/seed{seed}", [1.0] * (60 + seed) + [0.0] * (40 - seed))
    arms = condition_arms(results.connection, "s")
    claim = {"text": "tuned > base", "kind": "better", "better": "tuned", "worse": "base", "margin": None}
    found = weigh_claim(Claim(**claim), arms, load_values(results.connection, list(arms.values())), 0.05, "checkpoint")
    assert found.about == "these checkpoints (2 seeds, their mean per question)"
    assert found.evidence is not None and found.evidence.mean_a == pytest.approx(0.515)


def test_these_weights_are_all_weights_whatever_their_number() -> None:
    """An answer and a comparison rest on the same runs, of three seeds and of two."""
    results, generator = Results(), np.random.default_rng(4)
    for arm, seeds in (("base", 3), ("tuned", 2)):
        for seed in range(1, seeds + 1):
            results.add(f"s/{arm}/seed{seed}", (generator.random(100) < 0.5).astype(float).tolist())
    arms = condition_arms(results.connection, "s")
    claim = Claim(text="tuned > base", kind="better", better="tuned", worse="base", margin=None)
    answered = weigh_claim(claim, arms, load_values(results.connection, list(arms.values())), 0.05, "checkpoint")
    (compared,) = compare_runs(results.connection, ["s/base", "s/tuned"], claim="checkpoint")
    assert answered.about == "these checkpoints (3 and 2 seeds, their mean per question)"
    assert answered.evidence is not None and answered.p == pytest.approx(compared.p)
    assert answered.evidence.difference == pytest.approx(compared.difference) and not answered.notes[0]


def test_counts_of_no_question_are_called_that() -> None:
    results = Results()
    results.add_counts("a", 0, 0)
    results.add_counts("b", 3, 10)
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.verdict == "UNRESOLVED" and "a: counts of no question" in found.note


def test_recipes_without_any_spread_are_not_worse_by_a_rule_of_three() -> None:
    """All seeds of both arms right on all of 200 questions: 1 - .05^(1/200) = .0149 is left open on one side."""
    results = Results()
    for arm in ("base", "tuned"):
        for seed in (1, 2):
            results.add(f"s/{arm}/seed{seed}", [1.0] * 200)
    arms = condition_arms(results.connection, "s")
    values = load_values(results.connection, list(arms.values()))
    for margin, holds in ((0.0148, False), (0.0149, True)):
        claim = Claim(text="tuned", kind="not_worse_by", better="tuned", worse="base", margin=margin)
        found = weigh_claim(claim, arms, values, 0.05, "recipe")
        assert found.p is not None and (found.p < 0.05) == holds


@pytest.mark.parametrize(
    ("temperature", "said"),
    [
        (0.0, "Repeated evaluations agreed on every question: sampling at temperature 0 repeats itself."),
        (0.1, "Repeated evaluations agreed on every question."),
    ],
)
def test_repeats_without_a_difference_read_in_full(temperature: float, said: str) -> None:
    found = noise_floor(with_repeats([1, 0], [1, 0], temperature=temperature).connection, [RUN])
    assert noise_sentence(found) == said


def test_one_sample_is_enough_where_it_is() -> None:
    results = Results()
    claim = undecided_against_decided(results)
    # .002525 + .5 is below the allowed 100 * (.22 - .01)^2 / 7.99 = .552: half a step of the sum is .01
    found = one(claim.design, claim, connection=results.connection, experiment="toy", detect=0.22)
    assert (found.alone.samples, found.alone.samples_at_least) == (1, None)
