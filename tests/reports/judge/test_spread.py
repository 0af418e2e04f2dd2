"""What earlier runs say of the spread, and where they say nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scipy.stats import chi2

from nsd.reports.judge.designs import Asked
from nsd.reports.judge.power import Claimed, Design
from nsd.reports.judge.spread import Spread, Spreads
from toy_designs import alternating, one, undecided_against_decided
from toy_results import Results


@pytest.fixture
def results() -> Results:
    return Results()


def spread_of(results: Results, design: Design) -> Spread:
    claim = Claimed("b > a", "better", "b", "a", design=design)
    return one(design, claim, connection=results.connection, experiment="toy").spread


def test_seeds_that_share_one_question_tell_no_scatter(results: Results) -> None:
    for seed, value in enumerate((0.0, 1.0)):
        results.add(f"toy/a/seed{seed}", [value])
    found = spread_of(results, Design(100, seeds=3, data_hash="data"))
    assert found.seed_source.startswith("assumed") and found.seed_range is None


def test_seeds_with_the_same_mean_tell_no_scatter(results: Results) -> None:
    results.add("toy/a/seed0", [1.0, 0.0] * 10)
    results.add("toy/a/seed1", [0.0, 1.0] * 10)
    assert spread_of(results, Design(20, seeds=3, data_hash="data")).seed_source.startswith("assumed")


def test_one_condition_alone_tells_the_scatter_of_its_seeds(results: Results) -> None:
    for seed, right in enumerate((40, 42, 44)):
        results.add(f"toy/a/seed{seed}", alternating(100, right))
    found = spread_of(results, Design(100, seeds=3, data_hash="data"))
    points = f"{found.seed_sd * 100:.2g} points"
    assert found.seed_source == f"earlier runs of a and b: SD over seeds {points} (1 condition, 2 degrees of freedom)"


def test_the_range_of_a_variance_of_means_goes_by_their_kurtosis(results: Results) -> None:
    results.add("toy/a/seed1", [0.5] * 100, samples=2, metric="avg@2")
    results.add("toy/b/seed1", [1.0] * 10 + [0.0] * 10 + [0.5] * 80, samples=2, metric="avg@2")
    found = spread_of(results, Design(100, samples=2, metric="avg@2", data_hash="data"))
    # Twenty differences of a half: s^2 = 5 / 99, the fourth moment .0125. 2 s^4 100 / (.0125 - s^4) = 51.275.
    ends = [5 / 99 * 51.275 / chi2.ppf(share, 51.275) for share in (0.975, 0.025)]
    assert found.variance == pytest.approx(5 / 99) and found.variance_range == pytest.approx(ends, rel=1e-4)


def test_the_range_of_the_scatter_gives_the_range_of_what_seeds_detect(results: Results) -> None:
    for seed, (right_a, right_b) in enumerate([(400, 500), (420, 560), (440, 530)]):
        results.add(f"toy/a/seed{seed}", alternating(1000, right_a))
        results.add(f"toy/b/seed{seed}", alternating(1000, right_b))
    claim = Claimed("b > a", "better", "b", "a", design=Design(1000, seeds=5, data_hash="data"))
    found = one(claim.design, claim, connection=results.connection, experiment="toy")
    low, high = found.alone.detectable_range or (None, None)
    assert low is not None and high is not None and found.alone.detectable is not None
    assert low < found.alone.detectable < high


@pytest.mark.parametrize(
    ("about", "seed_sd", "known", "scales"),
    [
        ("recipe", 0.02, True, (0.25, 9.0)),  # variances: squares of (.01, .06) over .02
        ("checkpoint", 0.02, True, (0.5, 2.0)),
        ("recipe", 0.0, True, None),
        ("recipe", 0.02, False, None),
        ("checkpoint", 0.02, False, None),
    ],
)
def test_the_interval_of_a_spread_is_that_of_seeds_for_a_recipe_and_else_of_questions(
    about: str, seed_sd: float, known: bool, scales: tuple[float, float] | None
) -> None:
    ranges = ((0.02, 0.08), (0.01, 0.06)) if known else (None, None)
    spread = Spread(0.04, 1, None, "toy", seed_sd, False, "toy", variance_range=ranges[0], seed_range=ranges[1])
    found = Asked(Claimed("b > a"), spread, about, 0.02, 0.05, 0.8).scales
    assert found == (None if scales is None else pytest.approx(scales))


def test_what_is_known_of_samples_leaves_no_room_for_less_variance() -> None:
    # .1 of the variance of one sample each: .25 - .1 / 2 = .2 remains whatever is drawn.
    known = Spread(0.25, 2, 0.1, "toy", 0.0, False, "toy")
    assert known.least_variance_at(4) == known.variance_at(4) == pytest.approx(0.225)
    unknown = Spread(0.25, 2, None, "toy", 0.0, False, "toy")
    assert unknown.least_variance_at(4) == pytest.approx(0.125) and unknown.variance_at(4) == 0.25


def test_without_an_experiment_the_runs_of_none_are_looked_at(results: Results) -> None:
    results.add("toy/a/seed1", [1.0, 0.0])
    results.add("imported", [1.0, 0.0])
    results.add_counts("paper", 1, 2)
    assert [run.name for run in Spreads(results.connection, None).mine] == ["imported"]
    assert [run.name for run in Spreads(results.connection, "toy").mine] == ["toy/a/seed1"]
    assert Spreads(None, "toy").mine == []


@pytest.mark.parametrize(
    ("measured", "planned", "fits"),
    [
        ("accuracy", "avg@4", True),
        ("avg@2", "accuracy", True),
        ("maj@4", "maj@4", True),
        ("maj@4", "accuracy", False),
        ("accuracy", "maj@4", False),
        ("maj@4", "maj@8", False),
    ],
)
def test_runs_tell_of_a_plan_in_their_own_metric_and_of_one_mean_over_samples_by_another(
    results: Results, measured: str, planned: str, fits: bool
) -> None:
    results.add("toy/a/seed1", alternating(20, 8), metric=measured)
    results.add("toy/b/seed1", alternating(20, 12), metric=measured)
    found = spread_of(results, Design(20, samples=4, metric=planned, data_hash="data"))
    assert found.source.startswith("earlier runs of a and b: " if fits else "assumed, for want of earlier runs: ")


def test_the_noise_of_samples_is_the_mean_over_both_runs(results: Results) -> None:
    claim = undecided_against_decided(results)
    found = spread_of(results, replace(claim.design, data_hash="data"))
    # One sample within a question: .5 of a, which is undecided everywhere, and none of b.
    assert found.sampling == pytest.approx(0.5) and found.samples == 2
    assert found.source == "earlier runs of a and b: variance of the difference 0.2525 of 100 questions"


def test_the_conditions_of_a_claim_are_told_apart_from_the_others_of_their_experiment(results: Results) -> None:
    for name, right in (("a", 8), ("b", 12), ("c", 2), ("d", 18)):
        results.add(f"toy/{name}/seed1", alternating(20, right))
    found = spread_of(results, Design(20, data_hash="data"))
    assert found.source == "earlier runs of a and b: discordance 20.0% of 20 questions"
    claim = Claimed("x > y", "better", "x", "y", design=Design(20, data_hash="data"))
    found = one(claim.design, claim, connection=results.connection, experiment="toy").spread
    # Pairs differ on 4, 6, 10, 10, 6 and 16 of 20 questions.
    assert found.source == "earlier runs of toy: discordance 50.0%, median of 6 pairs (20.0% to 80.0%)"


def test_runs_of_one_seed_are_held_against_each_other_and_else_the_first_ones(results: Results) -> None:
    for name, seed, right in (("a", 1, 8), ("a", 2, 10), ("b", 2, 12), ("b", 3, 20)):
        results.add(f"toy/{name}/seed{seed}", alternating(20, right))
    found = spread_of(results, Design(20, data_hash="data"))
    assert found.source == "earlier runs of a and b: discordance 10.0% of 20 questions"  # seed 2 of both
    results.connection.execute("DELETE FROM runs WHERE run = 'toy/b/seed2'")
    found = spread_of(results, Design(20, data_hash="data"))
    assert found.source == "earlier runs of a and b: discordance 60.0% of 20 questions"  # 8 against 20


def test_what_is_stated_comes_before_what_was_measured(results: Results) -> None:
    results.add("toy/a/seed1", alternating(20, 8))
    results.add("toy/b/seed1", alternating(20, 12))
    claim = Claimed("b > a", "better", "b", "a", design=Design(20, seeds=2, data_hash="data"))
    found = Spreads(results.connection, "toy", discordance=0.123, seed_sd=0.0123).of(claim)
    assert (found.variance, found.samples, found.sampling, found.fewest) == (0.123, 1, None, 2)
    assert (found.source, found.seed_source) == ("stated: discordance 12.3%", "stated: SD over seeds 1.2 points")
    assert (found.seed_sd, found.seed_range, found.variance_range, found.recipe) == (0.0123, None, None, None)
    assert (found.icc, found.icc_range, found.icc_source) == (0.0, None, "")


def test_where_nothing_ran_everything_is_assumed_and_says_so() -> None:
    found = Spreads(None, None).of(Claimed("b > a", design=Design(20, seeds=2, clusters=(5,) * 4)))
    assert found.source == "assumed, for want of earlier runs: discordance 20%"
    assert found.seed_source == "assumed, for want of earlier runs with several seeds: SD over seeds 1.4 points"
    assert found.icc_source == (
        "assumed, for want of earlier runs on these groups: correlation of the difference inside a group 0.1 (0 to 0.3)"
    )
    assert (found.variance, found.seed_sd, found.icc, found.icc_range) == (0.2, 0.014, 0.1, (0.0, 0.3))
    assert (found.engine, found.interaction, found.fewest_groups, found.one_trained) == (0.0, 0.0, 0, False)
    stated = Spreads(None, None, icc=0.25).of(Claimed("b > a", design=Design(20, clusters=(5,) * 4)))
    assert (stated.icc, stated.icc_range) == (0.25, None)
    assert stated.icc_source == "stated: correlation of the difference inside a group 0.25"


@pytest.mark.parametrize(
    ("metric", "greedy", "noted"), [("accuracy", False, 1), ("accuracy", True, 0), ("maj@4", False, 0)]
)
def test_unknown_noise_of_samples_is_noted_where_samples_average(metric: str, greedy: bool, noted: int) -> None:
    found = Spreads(None, None).of(Claimed("b > a", design=Design(20, metric=metric, greedy=greedy)))
    said = (
        "how much of the variance is sampling noise is unknown: nsd run SPEC --repeat-eval 3 measures it, and so does "
        "an earlier run with avg_at_k"
    )
    assert found.notes == (said,) * noted and found.sampling == (0.0 if greedy else None)


def test_the_correlation_inside_a_group_grows_as_the_noise_of_samples_goes() -> None:
    known = Spread(0.25, 1, 0.1, "toy", 0.0, False, "toy", icc=0.2)
    assert known.icc_at(1) == pytest.approx(0.2) and known.icc_at(4) == pytest.approx(0.2 * 0.25 / 0.175)
    assert replace(known, icc=0.9).icc_at(4) == 1.0
    unknown = replace(known, sampling=None)
    assert unknown.icc_at(4) == 0.2
    # At best all that a group does not share is noise of samples: .05 + .2 / 4 remain.
    assert unknown.icc_at(4, at_best=True) == pytest.approx(0.05 / 0.1)
    assert unknown.least_variance_at(4) == pytest.approx(0.1)
    assert replace(unknown, variance=0.0).icc_at(4, at_best=True) == 0.2
    assert replace(known, icc=-0.2).least_variance_at(4) == pytest.approx(0.175)


@pytest.mark.parametrize(
    ("metric", "samples", "binary"),
    [
        ("accuracy", 1, True),
        ("accuracy", 2, False),
        ("avg@1", 1, True),
        ("maj@4", 4, True),
        ("discovery@8", 8, True),
        ("tokens", 1, False),
    ],
)
def test_a_question_is_right_or_wrong_by_one_sample_a_vote_or_a_search(metric: str, samples: int, binary: bool) -> None:
    spread = Spread(0.2, 1, None, "toy", 0.0, False, "toy")
    assert spread.binary(Design(20, samples=samples, metric=metric)) == binary
