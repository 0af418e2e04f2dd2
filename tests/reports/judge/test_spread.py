"""What earlier runs say of the spread, and where they say nothing."""

from __future__ import annotations

import pytest
from scipy.stats import chi2

from nsd.reports.judge.designs import Asked
from nsd.reports.judge.power import Claimed, Design
from nsd.reports.judge.spread import Spread, Spreads
from toy_designs import alternating, one
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
