"""What a design detects and what a difference takes: worked by hand, by other libraries, and by simulation."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest

import closed_forms
from nsd.plugins.errors import InputError
from nsd.reports import stats
from nsd.reports.judge.power import Claimed, Design, power_of
from toy_designs import alternating, one, undecided_against_decided
from toy_results import Results

Z = 2.8015852  # z(.975) + z(.8)


# --------------------------------------------------------------------------- questions


@pytest.fixture
def results() -> Results:
    return Results()


@pytest.mark.parametrize(("questions", "points"), [(1319, 3.4), (500, 5.6), (164, 9.6)])
def test_the_known_test_sets_detect_what_they_are_known_to_detect(questions: int, points: float) -> None:
    found = one(Design(questions))
    assert found.alone.detectable is not None and round(found.alone.detectable * 100, 1) == points
    assert found.spread.source.startswith("assumed") and "20%" in found.spread.source


def test_questions_for_two_points_by_hand() -> None:
    # Large samples: (1.95996 sqrt(.2) + .84162 sqrt(.2 - .0004))^2 / .0004 = 3922.0
    assert one(Design(1000), detect=0.02).alone.questions == pytest.approx(3922, abs=2)


def test_the_declared_level_is_divided_over_the_claims_in_the_hardest_case() -> None:
    claims = [Claimed(f"c{i}", "better", f"b{i}", "a", design=Design(1000)) for i in range(6)]
    found = power_of(claims).claims[0]
    assert found.hardest.alpha == pytest.approx(0.05 / 6)
    # z(1 - .05/12) = 2.6383, + .8416 = 3.4799; times sqrt(.2 / 1000)
    # less .7 % of it, for the estimate varies by d - difference^2 and not by d
    assert found.hardest.detectable == pytest.approx(3.4799 * (0.2 / 1000) ** 0.5, rel=5e-3)
    assert found.alone.detectable == pytest.approx(Z * (0.2 / 1000) ** 0.5, rel=2e-3)


def test_without_a_correction_the_hardest_case_is_the_test_alone() -> None:
    claims = [Claimed(f"c{i}", design=Design(1000)) for i in range(6)]
    found = power_of(claims, correction="none").claims[0]
    assert found.hardest == found.alone


@pytest.mark.parametrize(("discordance", "difference"), [(0.2, 0.05), (0.1, 0.03), (0.3, 0.08)])
def test_mcnemar_mid_p_has_the_named_power_at_the_named_n(discordance: float, difference: float) -> None:
    n = one(Design(1), detect=difference, discordance=discordance).alone.questions
    assert n is not None
    generator, trials = np.random.default_rng(5), 4000
    shares = [(discordance - difference) / 2, (discordance + difference) / 2, 1 - discordance]
    tables = generator.multinomial(n, shares, size=trials)

    @cache
    def rejected(a_only: int, b_only: int) -> bool:
        p = stats.mcnemar(a_only, b_only).p
        return p is not None and p < 0.05

    power = sum(rejected(int(a), int(b)) for a, b, _ in tables) / trials
    assert power == pytest.approx(0.8, abs=3 * (0.8 * 0.2 / trials) ** 0.5)


def test_a_difference_is_never_called_detectable_beyond_the_discordance_it_needs() -> None:
    # Five or more of 30 questions one way, none the other: 1 - P(X <= 4) = .8 at a share of .2139.
    found = one(Design(30)).alone.detectable
    assert found is not None and found > 0.2
    below = sum(math.comb(30, i) * found**i * (1 - found) ** (30 - i) for i in range(5))
    assert 1 - below == pytest.approx(0.8, abs=1e-4)
    # All one way at .5: five or more of n, 1 - P(X <= 4 | 13) = .867, of 12 .806, of 11 .726.
    assert one(Design(30), detect=0.5).alone.questions == 12


def test_one_question_detects_nothing_and_says_what_would() -> None:
    found = one(Design(1)).alone
    assert found.detectable is None and found.questions == pytest.approx(3922, abs=2)


@pytest.mark.parametrize("discordance", [0.0, -0.1, 1.2])
def test_a_discordance_that_is_none_is_refused(discordance: float) -> None:
    with pytest.raises(InputError, match="discordance"):
        one(Design(100), discordance=discordance)


def test_arms_that_always_differ_are_the_worst_case() -> None:
    # d - difference^2 is what the estimate varies by: (1.96 + .8416 sqrt(1 - .0733)) / 10
    assert one(Design(100), discordance=1.0).alone.detectable == pytest.approx(0.277, rel=0.03)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"power": 1.0},
        {"power": 0.05},
        {"detect": 0.0},
        {"detect": 1.0},
        {"seed_sd": 0.0},
        {"seed_sd": 1.0},
    ],
)
def test_numbers_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options)).replace("_sd", "")):
        one(Design(100), **options)


def test_nothing_to_plan_is_an_error_that_says_what_to_give() -> None:
    with pytest.raises(InputError, match="--questions"):
        power_of([])


# --------------------------------------------------------------------------- margins


@pytest.mark.parametrize(("kind", "questions"), [("not_worse_by", 3092), ("equivalent_within", 4282)])
def test_questions_for_a_margin_by_hand(kind: str, questions: int) -> None:
    # (1.6449 + .8416)^2 * .2 / .0004 = 3091.3; for both sides (1.64485 + 1.28155)^2 * .2 / .0004 = 4281.9;
    # a little more, for under a difference of .02 Tango's variance is larger.
    claim = Claimed("b as good as a", kind, "b", "a", 0.02, Design(1000))
    assert one(claim.design, claim).alone.questions == pytest.approx(questions, rel=5e-3)


@pytest.mark.parametrize("kind", ["not_worse_by", "equivalent_within"])
def test_the_margin_test_has_the_named_power_at_no_difference(kind: str) -> None:
    claim = Claimed("b as good as a", kind, "b", "a", 0.05, Design(1000))
    n = one(claim.design, claim).alone.questions
    assert n is not None
    generator, trials = np.random.default_rng(6), 1500
    tables = generator.multinomial(n, [0.1, 0.1, 0.8], size=trials)
    p_values = [stats.margin_test_paired(int(a), int(b), n, 0.05, kind == "equivalent_within").p for a, b, _ in tables]
    power = sum(p is not None and p < 0.05 for p in p_values) / trials
    assert power == pytest.approx(0.8, abs=3 * (0.8 * 0.2 / trials) ** 0.5)


# --------------------------------------------------------------------------- samples


def test_samples_shrink_only_the_part_that_is_sampling_noise(results: Results) -> None:
    claim = undecided_against_decided(results)
    found = one(claim.design, claim, connection=results.connection, experiment="toy", detect=0.12)
    assert found.spread.sampling == pytest.approx(0.5)
    assert found.spread.variance_at(1) == pytest.approx(0.002525 + 0.5, abs=1e-6)
    assert found.spread.variance_at(10) == pytest.approx(0.002525 + 0.05, abs=1e-6)
    # allowed: 100 * .0144 / 7.8489 = .18347; .5 / (.18347 - .00253) = 2.76
    # and half a step of the sum, with what agreeing with the interval costs
    assert (found.alone.samples, found.alone.samples_at_least) == (4, None)


def test_no_number_of_samples_is_enough_where_the_questions_alone_differ_too_much(results: Results) -> None:
    claim = undecided_against_decided(results)
    found = one(claim.design, claim, connection=results.connection, experiment="toy", detect=0.01)
    assert (found.alone.samples, found.alone.samples_at_least) == (None, None)
    # 7.8489 * .252525 / .0001 questions at two samples each; a step of a half in the sum is 1 / (2 n)
    assert found.alone.questions == pytest.approx(19821, rel=6e-3)


def test_the_split_of_two_samples_reaches_the_questions_of_millers_formula(results: Results) -> None:
    claim = undecided_against_decided(results)
    found = one(claim.design, claim, connection=results.connection, experiment="toy", detect=0.1)
    expected = closed_forms.sample_size(0.1, found.spread.between, 0.5, 2, 0.0, 2)
    assert expected is not None and found.alone.questions == pytest.approx(expected, rel=0.08)


def test_an_unknown_split_gives_both_ends(results: Results) -> None:
    found = one(Design(500, samples=8)).alone
    # The t of 499 degrees of freedom, half a step of an eighth, and 3 / 500 of a standard error.
    assert found.detectable == pytest.approx(Z * (0.2 / 500) ** 0.5 + 1 / 4000, rel=7e-3)
    assert found.at_best == pytest.approx(Z * (0.2 / 8 / 500) ** 0.5 + 1 / 4000, rel=7e-3)
    assert one(Design(1000)).alone.samples_at_least == 5  # 3924.4 / 1000 = 3.92, and the half step


def test_at_temperature_zero_no_number_of_samples_is_enough() -> None:
    found = one(Design(1000, greedy=True)).alone
    assert (found.samples, found.samples_at_least) == (None, None)


def test_repeated_evaluations_tell_how_much_is_sampling_noise(results: Results) -> None:
    results.add("toy/a/seed1", alternating(100, 40))
    results.add("toy/b/seed1", alternating(100, 60))
    again = results.add("again", alternating(100, 50))  # ten answers of a's change when it is asked again
    results.connection.execute("DELETE FROM runs WHERE run = ?", [again])
    results.connection.execute("INSERT INTO repeats VALUES ('toy/a/seed1', 'spec', 1, 'eval-again')")
    claim = Claimed("b > a", "better", "b", "a", design=Design(100))
    found = one(claim.design, claim, connection=results.connection, experiment="toy")
    # Discordance .1 between repeats is a variance of .05 in one arm; b is taken to be like a.
    assert (found.spread.variance, found.spread.sampling) == pytest.approx((0.2, 0.1))


# --------------------------------------------------------------------------- seeds


def test_seeds_and_questions_each_leave_their_part() -> None:
    """Without scatter of seeds a recipe is found by its questions, and with questions without end by its seeds."""
    design = Design(100_000, seeds=8)
    by_questions = one(design, seed_sd=1e-6).alone.detectable
    assert by_questions == pytest.approx(Z * (0.2 / 100_000) ** 0.5, rel=1e-2)
    # 2 * .01^2 / 8 of the seeds alone, each arm's on its own t of 7 degrees of freedom: 2.36 standard errors reach
    # zero, and .87 more (a standard normal's .81) leave four chances in five.
    assert one(design, seed_sd=0.01).alone.floors["questions"] == pytest.approx(3.23 * 0.005, rel=0.01)


def test_seeds_against_an_untrained_arm_scatter_in_one_arm_alone() -> None:
    from statsmodels.stats.power import TTestPower

    size = TTestPower().solve_power(nobs=4, alpha=0.05, power=0.8)
    found = one(Design(1000, seeds=4, trained=(True, False)), seed_sd=0.01)
    assert found.alone.floors["questions"] == pytest.approx(size * 0.01, rel=1e-2)


@pytest.mark.parametrize(("seeds", "p"), [(3, 0.10), (4, 0.029), (5, 0.008)])
def test_the_smallest_p_of_a_permutation_is_said_beforehand(seeds: int, p: float) -> None:
    found = one(Design(1000, seeds=seeds)).smallest_p
    assert found is not None and round(found, 3) == p


def test_one_seed_speaks_of_checkpoints_and_names_the_seeds_of_a_recipe() -> None:
    found = one(Design(1000), detect=0.02)
    assert found.about == "checkpoint" and found.smallest_p is None
    # All 1000 questions' variance at best a seed's own: 2 (.014^2 + .0001) / S; at worst 4.0 points stay.
    assert found.alone.seeds is None and found.alone.seeds_at_least == 14


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3, 0.05 / 6, 0.001])
def test_seeds_needed_agree_with_statsmodels_at_low_levels(alpha: float) -> None:
    # At thousands of seeds scipy's noncentral t gives nan; the search passes there and must not be led astray.
    from statsmodels.stats.power import TTestPower

    exact = TTestPower().solve_power(effect_size=0.02 / 0.014, alpha=alpha, power=0.8)
    assert stats.seeds_needed(0.02, 0.014, alpha, paired=True) == math.ceil(exact)


def test_questions_do_not_stand_in_for_seeds() -> None:
    found = one(Design(1000, seeds=3)).alone
    assert found.questions is None and found.floors["questions"] is not None and found.floors["questions"] > 0.02


def test_the_spread_over_seeds_comes_from_the_conditions_earlier_runs(results: Results) -> None:
    for seed, (right_a, right_b) in enumerate([(40, 50), (42, 56), (44, 53)]):
        results.add(f"toy/a/seed{seed}", alternating(100, right_a))
        results.add(f"toy/b/seed{seed}", alternating(100, right_b))
    claim = Claimed("b > a", "better", "b", "a", design=Design(100, seeds=3))
    found = one(claim.design, claim, connection=results.connection, experiment="toy").spread
    # Variances of (40, 42, 44) and (50, 56, 53) are 4 and 9 square points. Four and six questions differ between seeds:
    # two of them 1 against 2, 3 the same; residuals 2/3 and less (row means), over 2 * 99: less a hundredth of that.
    left = [(4 * 2 / 3 - 100 * 2 * 0.0004) / 198, (6 * 2 / 3 - 100 * 2 * 0.0009) / 198]
    expected = (0.0004 - left[0] / 100 + 0.0009 - left[1] / 100) / 2
    assert found.seed_sd == pytest.approx(expected**0.5)
    assert found.interaction == pytest.approx(sum(left))
    # Chi-square of 4 degrees of freedom: .48442 below, 11.14329 above in 95 cases of 100.
    ends = found.seed_sd * (4 / 11.14329) ** 0.5, found.seed_sd * (4 / 0.48442) ** 0.5
    assert found.seed_range == pytest.approx(ends, rel=1e-5)
    points = f"{found.seed_sd * 100:.2g} points"
    assert found.seed_source == f"earlier runs of a and b: SD over seeds {points} (2 conditions, 4 degrees of freedom)"


# --------------------------------------------------------------------------- where the assumption comes from


def claim_b_a(n: int = 100) -> Claimed:
    return Claimed("b > a", "better", "b", "a", design=Design(n, data_hash="data"))


def test_earlier_runs_of_the_two_conditions_come_first(results: Results) -> None:
    results.add("toy/a/seed1", alternating(100, 40))
    results.add("toy/b/seed1", alternating(100, 45))
    results.add("toy/c/seed1", alternating(100, 90))
    found = one(Design(100), claim_b_a(), connection=results.connection, experiment="toy").spread
    assert found.variance == pytest.approx(0.05)
    assert found.source == "earlier runs of a and b: discordance 5.0% of 100 questions"


def test_then_any_two_conditions_of_the_experiment(results: Results) -> None:
    results.add("toy/a/seed1", alternating(100, 40))
    results.add("toy/c/seed1", alternating(100, 70))
    results.add("else/a/seed1", alternating(100, 41))
    found = one(Design(100), claim_b_a(), connection=results.connection, experiment="toy").spread
    assert found.variance == pytest.approx(0.3) and found.source.startswith("earlier runs of toy:")


def test_then_other_runs_on_the_same_questions_only(results: Results) -> None:
    for name, right in (("m1", 40), ("m2", 50), ("m3", 80)):
        results.add(name, alternating(100, right))
    for name, right in (("x1", 0), ("x2", 100)):
        results.add(name, alternating(100, right), data="other data")
    found = one(Design(100), claim_b_a(), connection=results.connection, experiment="toy").spread
    assert found.variance == pytest.approx(0.3)  # the middle of .1, .3, .4
    assert found.source == "other runs on the same questions: discordance 30.0%, median of 3 pairs (10.0% to 40.0%)"


def test_runs_that_never_differ_say_nothing(results: Results) -> None:
    results.add("toy/a/seed1", alternating(100, 40))
    results.add("toy/b/seed1", alternating(100, 40))
    found = one(Design(100), claim_b_a(), connection=results.connection, experiment="toy")
    assert found.spread.source.startswith("assumed") and found.alone.detectable is not None


def test_one_shared_question_says_nothing(results: Results) -> None:
    results.add("toy/a/seed1", [1.0])
    results.add("toy/b/seed1", [0.0])
    found = one(Design(1), claim_b_a(1), connection=results.connection, experiment="toy")
    assert found.spread.source.startswith("assumed") and found.alone.detectable is None


def test_runs_that_share_no_question_say_nothing(results: Results) -> None:
    results.add("toy/a/seed1", {"x": 1.0, "y": 0.0}, data=None)
    results.add("toy/b/seed1", {"z": 1.0, "w": 0.0}, data=None)
    found = one(Design(100), claim_b_a(), connection=results.connection, experiment="toy")
    assert found.spread.source.startswith("assumed") and found.spread.icc_source == ""


def test_one_shared_question_of_several_samples_says_nothing(results: Results) -> None:
    results.add("toy/a/seed1", [0.25], samples=4, metric="avg@4")
    results.add("toy/b/seed1", [0.75], samples=4, metric="avg@4")
    claim = Claimed("b > a", "better", "b", "a", design=Design(100, samples=4, metric="avg@4", data_hash="data"))
    found = one(claim.design, claim, connection=results.connection, experiment="toy")
    assert found.spread.source.startswith("assumed")


def test_an_empty_database_says_nothing(results: Results) -> None:
    found = one(Design(100), claim_b_a(), connection=results.connection, experiment="toy")
    assert found.spread.source.startswith("assumed")


def test_other_metrics_say_nothing_of_this_one(results: Results) -> None:
    results.add("toy/a/seed1", alternating(100, 40), metric="maj@8")
    results.add("toy/b/seed1", alternating(100, 90), metric="maj@8")
    found = one(Design(100), claim_b_a(), connection=results.connection, experiment="toy")
    assert found.spread.source.startswith("assumed")


def test_what_a_person_states_comes_before_all(results: Results) -> None:
    results.add("toy/a/seed1", alternating(100, 40))
    results.add("toy/b/seed1", alternating(100, 45))
    stated = {"discordance": 0.3, "seed_sd": 0.02}
    found = one(Design(100), claim_b_a(), connection=results.connection, experiment="toy", **stated).spread
    assert (found.variance, found.seed_sd) == (0.3, 0.02)
    assert found.source.startswith("stated") and found.seed_source.startswith("stated")
