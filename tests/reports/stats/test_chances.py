"""The power that is promised is what the tests have: each model against its test, and against sums by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from nsd.reports import stats
from nsd.reports.stats.chances import (
    Groups,
    Means,
    Part,
    Parts,
    _bounded_reach,
    detectable,
    least,
    seeds_squares,
    smallest_margin,
    spanning,
    variance_factors,
    variances,
)
from nsd.reports.stats.chances_of_shares import PairedShares, UnpairedShares
from thinned import thinned

POWER = 0.8
NEAR = 0.05  # what is promised and what is found may differ by this


def share_found(found: list[bool] | NDArray[np.bool_]) -> float:
    return float(np.mean(found))


def better(result: stats.Result, interval: stats.Interval | None) -> bool:
    """What a verdict asks: a p below the level, and an interval above zero."""
    return result.p is not None and result.p < 0.05 and interval is not None and interval.low > 0


# --------------------------------------------------------------------------- by hand


def test_five_questions_one_way_is_all_that_five_questions_can_show() -> None:
    # mid-p of 5 against 0: 2/32 - 1/32 = .031; of 4 against 0: 1/16 > .05. So it takes all five: effect^5.
    assert PairedShares(5, 0.2).chance(0.9, 0.05) == pytest.approx(0.9**5)
    assert detectable(PairedShares(5, 0.2), 0.05, 0.8) == pytest.approx(0.8**0.2, abs=1e-4)
    assert detectable(PairedShares(4, 0.2), 0.05, 0.8) is None


def test_the_exact_test_needs_one_more() -> None:
    # Exact p of 5 against 0 is .0625, of 6 against 0 .03125.
    assert PairedShares(5, 0.2, exact=True).chance(1.0, 0.05) == 0.0
    assert PairedShares(6, 0.2, exact=True).chance(1.0, 0.05) == pytest.approx(1.0)


def test_a_sum_over_discordant_questions_by_hand() -> None:
    # n = 6, every question discordant, b wins each with chance .9: 6 of 6 (mid-p 1/64), or 5 of 6 (mid-p 14/64 - 6/64).
    assert PairedShares(6, 1.0).chance(0.8, 0.05) == pytest.approx(0.9**6)
    assert PairedShares(6, 1.0).chance(0.8, 0.14) == pytest.approx(0.9**6 + 6 * 0.1 * 0.9**5)


def test_one_source_is_the_noncentral_t() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    for df in (2, 5, 19, 99):
        found = Means(Parts(questions=0.01**2, questions_df=df)).chance(0.03, 0.05)
        expected = scipy_stats.nct.sf(scipy_stats.t.ppf(0.975, df), df, 3.0)
        assert found == pytest.approx(expected, abs=1e-3)


def test_the_chi_square_interval_of_a_variance_agrees_with_scipy() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    low, high = variance_factors(9)
    assert (low, high) == pytest.approx((9 / scipy_stats.chi2.ppf(0.975, 9), 9 / scipy_stats.chi2.ppf(0.025, 9)))


@pytest.mark.parametrize("wanted", [1, 2, 17, 1000])
@pytest.mark.parametrize("guess", [1, 40, 5000])
def test_the_least_number_is_found_from_any_guess(wanted: int, guess: int) -> None:
    assert least(lambda n: n >= wanted, guess=guess) == wanted


def test_the_search_ends_once_it_is_near_enough() -> None:
    asked: list[float] = []

    class Counted(PairedShares):
        def chance(self, effect: float, alpha: float) -> float:
            asked.append(effect)
            return super().chance(effect, alpha)

    assert detectable(Counted(5, 0.2), 0.05, 0.8) == pytest.approx(0.8**0.2, rel=1e-5)
    assert len(asked) < 30


def test_the_error_of_counts_is_that_of_the_pooled_share() -> None:
    # .2 * .8 * (1/100 + 1/25) = .008
    assert UnpairedShares(100, 25, 0.2).error(0.1) == pytest.approx(0.008**0.5)


def test_a_margin_of_counts_by_hand() -> None:
    # The error is sqrt(.24 * (1/20 + 1/30)) = sqrt(.02), so that z = .3 / .1414 - 1.6449 = .4765.
    assert UnpairedShares(20, 30, 0.4).margin_chance(0.3, 0.05, False) == pytest.approx(0.683129, abs=1e-6)
    assert UnpairedShares(20, 30, 0.4).margin_chance(0.3, 0.05, True) == pytest.approx(0.366258, abs=1e-6)
    assert UnpairedShares(20, 30, 0.4).margin_chance(0.1, 0.05, True) == 0.0


def test_of_thousands_of_counts_the_normal_gives_the_chance() -> None:
    # Around .3 by their sizes: .3 - .04 * 25/65 and .3 + .04 * 40/65.
    low, high = 0.2846153846, 0.3246153846
    error = (low * (1 - low) / 4000 + high * (1 - high) / 2500) ** 0.5
    z = (0.04 - 1.959963985 * (0.3 * 0.7 * (1 / 4000 + 1 / 2500)) ** 0.5) / error
    expected = NormalDist().cdf(z)
    assert UnpairedShares(4000, 2500, 0.3).chance(0.04, 0.05) == pytest.approx(expected, abs=1e-8)
    # With one question fewer than that, every table counts, and says much the same.
    assert UnpairedShares(2001, 2001, 0.3).chance(0.04, 0.05) == pytest.approx(
        UnpairedShares(2000, 2001, 0.3).chance(0.04, 0.05), abs=2e-3
    )


def test_means_without_any_variance_always_tell() -> None:
    assert Means(Parts(questions=0.0, questions_df=9)).chance(0.1, 0.05) == 1.0
    assert Means(Parts(questions=0.0, questions_df=9)).margin_chance(0.1, 0.05, True) == 1.0


def test_no_number_of_groups_shows_that_they_are_alike() -> None:
    assert Groups((1000, 1000), 0.01).margin_chance(1.0, 0.05, True) == 0.0


@pytest.mark.parametrize("pooled", [0.0, 1.0])
@pytest.mark.parametrize("both_sides", [True, False])
def test_counts_that_are_all_alike_promise_no_margin(pooled: float, both_sides: bool) -> None:
    assert UnpairedShares(20, 30, pooled).margin_chance(0.1, 0.05, both_sides) == 0.0


def test_the_search_ends_at_every_small_number_from_every_guess() -> None:
    asked: list[int] = []

    def enough(n: int) -> bool:
        asked.append(n)
        assert len(asked) < 50
        return n >= wanted

    for wanted in range(1, 20):
        for guess in range(1, 40):
            asked.clear()
            assert least(enough, guess=guess) == wanted


def test_the_largest_difference_and_the_error_of_each_design() -> None:
    assert (PairedShares(50, 0.2).largest, UnpairedShares(20, 30, 0.5).largest) == (1.0, 1.0)
    assert Groups((10, 40), 0.2).largest == 2.0
    assert UnpairedShares(20, 30, 0.5).error(0.0) == pytest.approx((0.25 * (1 / 20 + 1 / 30)) ** 0.5)
    assert PairedShares(50, 0.2).error(0.1) == pytest.approx(((0.2 - 0.01) / 50) ** 0.5)
    assert PairedShares(50, 0.2).error(1.0) == 1 / 50
    assert Groups((10, 40), 0.2).error(0.0) == pytest.approx((0.2 * (1 / 10 + 1 / 40)) ** 0.5)
    assert Means(Parts(0.0004, 99), limit=0.5).largest == 0.5
    assert Means(Parts(0.0004, 99), limit=2.0, coarse=0.01).largest == pytest.approx(60 * 0.02 + 0.01)
    for model in (PairedShares(50, 0.2), UnpairedShares(20, 30, 0.5), Groups((10, 40), 0.2), Means(Parts(0.04, 99))):
        assert model.told(0.1)
    assert Groups((10, 40), 0.2).margin_chance(0.5, 0.05, True) == 0.0


def test_no_more_than_all_questions_can_differ() -> None:
    for both_sides in (True, False):
        found = [PairedShares(400, share).margin_chance(0.1, 0.05, both_sides) for share in (1.0, 1.3)]
        assert found[0] == found[1]
        found = [PairedShares(400_000, share).margin_chance(0.1, 0.05, both_sides) for share in (1.0, 1.3)]
        assert found[0] == found[1]
    assert PairedShares(400, 1.3).chance(0.1, 0.05) == PairedShares(400, 1.0).chance(0.1, 0.05)


def test_what_seeds_may_add_to_a_critical_value() -> None:
    one, other = Part(0.02, 3), Part(0.01, 4)
    t3, t4, z = 3.182446, 2.776445, 1.959964  # quantiles .975 of 3 and 4 df, and of the normal
    alone, both = seeds_squares((one,), 0.025, 0.0), seeds_squares((one, other), 0.025, 0.0)
    assert (len(alone), len(both)) == (200, 24 * 24)
    assert alone == pytest.approx(t3**2 * 0.02 * variances(3, 200), rel=1e-6)
    assert both == pytest.approx(
        np.add.outer(t3**2 * 0.02 * variances(3, 24), t4**2 * 0.01 * variances(4, 24)).ravel(), rel=1e-6
    )
    less = seeds_squares((one,), 0.025, 0.01)
    assert less == pytest.approx(np.maximum(0.0, alone - z**2 * 0.01), abs=1e-8) and less.min() == 0.0


def test_seeds_of_both_arms_with_one_df_are_welchs() -> None:
    # Where both estimates are equal, so are their parts, and the df are those of both together.
    found = seeds_squares((Part(0.02, 3), Part(0.02, 3)), 0.025, 0.0, one_df=True).reshape(24, 24)
    t6 = 2.446912
    assert np.diag(found) == pytest.approx(t6**2 * 2 * 0.02 * variances(3, 24), rel=1e-6)
    assert seeds_squares((Part(0.02, 3),), 0.025, 0.0, one_df=True) == pytest.approx(
        seeds_squares((Part(0.02, 3),), 0.025, 0.0)
    )


def test_what_is_never_enough_has_no_number() -> None:
    assert least(lambda n: False, most=50) is None


# --------------------------------------------------------------------------- against the tests, simulated


@cache
def midp_finds(a_only: int, b_only: int) -> bool:
    p = stats.mcnemar(a_only, b_only).p
    return p is not None and p < 0.05 and b_only > a_only


@pytest.mark.parametrize("n", [6, 10, 20, 50, 100, 1000])
@pytest.mark.parametrize("discordance", [0.05, 0.2, 0.5])
def test_mcnemar_finds_what_is_promised(n: int, discordance: float) -> None:
    effect = detectable(PairedShares(n, discordance), 0.05, POWER)
    assert effect is not None
    share = max(discordance, effect)
    cells = [(share - effect) / 2, (share + effect) / 2, (1 - share) / 2, (1 - share) / 2]
    tables = np.random.default_rng(n).multinomial(n, np.clip(cells, 0, 1), size=4000)
    found = [
        midp_finds(a, b) and stats.newcombe_paired(both, a, b, none).low > 0  # type: ignore[union-attr]
        for a, b, both, none in tables.tolist()
    ]
    assert share_found(found) == pytest.approx(POWER, abs=NEAR)


def test_searches_find_what_is_promised() -> None:
    n, told_apart = 40, 0.6
    effect = detectable(PairedShares(n, told_apart), 0.05, POWER)
    assert effect is not None
    cells = [(told_apart - effect) / 2, 1 - told_apart, (told_apart + effect) / 2]
    signs = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], p=cells, size=(2000, n))
    found = [result.p is not None and result.p < 0.05 for result in map(stats.sign_test, signs)]
    assert share_found(found) == pytest.approx(POWER, abs=NEAR)


@pytest.mark.parametrize(("n", "discordance"), [(50, 0.1), (100, 0.3), (1000, 0.2)])
@pytest.mark.parametrize("both_sides", [False, True])
def test_a_margin_is_shown_as_often_as_promised(n: int, discordance: float, both_sides: bool) -> None:
    margin = smallest_margin(PairedShares(n, discordance), 0.05, POWER, both_sides)
    assert margin is not None

    @cache
    def shown(a_only: int, b_only: int) -> bool:
        p = stats.margin_test_paired(a_only, b_only, n, margin, both_sides).p
        return p is not None and p < 0.05

    tables = np.random.default_rng(n).multinomial(n, [discordance / 2, discordance / 2, 1 - discordance], size=1500)
    assert share_found([shown(int(a), int(b)) for a, b, _ in tables]) == pytest.approx(POWER, abs=NEAR)


@pytest.mark.parametrize("pooled", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("n_a", "n_b"), [(10, 20), (60, 60), (500, 1300)])
def test_two_proportions_find_what_is_promised(n_a: int, n_b: int, pooled: float) -> None:
    effect = detectable(UnpairedShares(n_a, n_b, pooled), 0.05, POWER)
    assert effect is not None
    low = min(max(pooled - effect * n_b / (n_a + n_b), 0.0), 1 - effect)
    generator = np.random.default_rng(1)
    right_a, right_b = generator.binomial(n_a, low, 3000), generator.binomial(n_b, low + effect, 3000)

    @cache
    def found(a: int, b: int) -> bool:
        result = stats.two_proportion(a, n_a, b, n_b)
        return better(result, result.interval)

    assert share_found([found(int(a), int(b)) for a, b in zip(right_a, right_b, strict=True)]) == pytest.approx(
        POWER, abs=NEAR
    )


def avg_at(k: int, n: int, shift: float, trials: int, seed: int) -> NDArray[np.float64]:
    """[trials, n] differences of avg@k: questions of many difficulties, each arm with a strength of its own."""
    generator = np.random.default_rng(seed)
    common = generator.normal(0, 1.5, size=(trials, n))
    right = [
        generator.binomial(k, 1 / (1 + np.exp(-(common + generator.normal(0, 0.7, size=(trials, n)) + one))))
        for one in (-shift / 2, shift / 2)
    ]
    return (right[1] - right[0]) / k


def finds_mean(differences: NDArray[np.float64], test: Callable[[NDArray[np.float64]], stats.Result]) -> bool:
    limits = stats.mean_limits(differences, (-1.0, 1.0))
    return limits is not None and better(test(differences), stats.interval_of(limits, 0.95))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "shift"), [(50, 0.85), (100, 0.6)])
def test_avg_at_4_finds_what_is_promised(n: int, shift: float) -> None:
    """At the true mean and variance of these questions the promise, whatever it is, must come true."""
    many = avg_at(4, 200_000, shift, 1, 0)[0]
    parts, trials = Parts(float(many.var()) / n, n - 1), avg_at(4, n, shift, 1000, n)
    by_flips = share_found([finds_mean(row, lambda d: stats.sign_flip(d, seed=0)) for row in trials])
    by_t = share_found([finds_mean(row, stats.paired_t) for row in trials])
    models = (stats.sign_flip_means(float(many.var()), n, 4), Means(parts))
    flips, t = (model.chance(float(many.mean()), 0.05) for model in models)
    assert 0.5 < flips < t < 0.95
    assert (by_flips, by_t) == pytest.approx((flips, t), abs=NEAR)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "shift"), [(20, 1.8), (30, 1.0)])
def test_avg_at_4_of_few_questions_finds_what_is_promised(n: int, shift: float) -> None:
    """So little varies that the bounded mean asks for more than the sign-flip test and t do."""
    many = avg_at(4, 200_000, shift, 1, 0)[0]
    trials = avg_at(4, n, shift, 800, n)
    found = share_found([finds_mean(row, lambda d: stats.sign_flip(d, seed=0)) for row in trials])
    promised = stats.sign_flip_means(float(many.var()), n, 4).chance(float(many.mean()), 0.05)
    assert 0.1 < promised < 0.95 and found == pytest.approx(promised, abs=NEAR)


def clustered(groups: int, size: int, shift: float, trials: int, seed: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    own = generator.normal(0, 0.2, size=(trials, groups, 1)) + generator.normal(0, 0.3, size=(trials, groups, size))
    return (own + shift).reshape(trials, groups * size)


@pytest.mark.parametrize("groups", [5, 10, 30])
def test_groups_find_what_is_promised(groups: int) -> None:
    model = Means(Parts((0.2**2 + 0.3**2 / 6) / groups, groups - 1))
    effect = detectable(model, 0.05, POWER)
    assert effect is not None
    labels = np.repeat(np.arange(groups), 6)
    found = []
    for row in clustered(groups, 6, effect, 1000, groups):
        result = stats.cluster_t(row, labels)
        found.append(better(result, result.interval))
    assert share_found(found) == pytest.approx(POWER, abs=NEAR)


def recipes(effect: float, seeds: int, n: int, trials: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """[2, trials, seeds, n] values of two arms: seed SD .02, question x recipe SD .2, seed x question noise SD .3."""
    question = generator.normal(0.0, 0.2, size=(2, trials, 1, n)) / np.sqrt(2)
    seed = generator.normal(0.0, 0.02, size=(2, trials, seeds, 1))
    noise = generator.normal(0.0, 0.3, size=(2, trials, seeds, n))
    return question + seed + noise + np.array([0.0, effect]).reshape(2, 1, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "n"), thinned([(3, 50), (2, 200), (3, 500), (5, 100), (8, 500)]))
def test_two_levels_find_what_is_promised(seeds: int, n: int) -> None:
    residual = 2 * 0.3**2 / seeds / n
    parts = Parts(0.2**2 / n + residual, n - 1, (Part(0.02**2 / seeds + residual / 2, seeds - 1),) * 2, residual)
    effect = detectable(Means(parts), 0.05, POWER)
    assert effect is not None
    a, b = recipes(effect, seeds, n, 1000, np.random.default_rng(seeds * n))
    found = []
    for one, other in zip(a, b, strict=True):
        result = stats.two_level(one, other, bounds=None)
        found.append(better(result, result.interval))
    assert share_found(found) == pytest.approx(POWER, abs=NEAR)


def test_the_range_of_what_is_needed_holds_what_is_said_to_be_needed() -> None:
    assert spanning((231, 535), 224) == (224, 535)
    assert spanning((100, None), 224) == (100, None)
    assert spanning((None, 90), 100) == (100, 100) and spanning((3, 9), None) == (3, None)


@pytest.mark.parametrize("n", [30, 200])
def test_the_reach_of_a_bounded_mean_is_told_by_its_spread(n: int) -> None:
    """The limit that touches 0 lies as far from the mean as the power of little spread takes it to."""
    values = np.resize([-0.1, 0.0, 0.1, 0.2, -0.2], n)
    varied = float(((values - values.mean()) ** 2).sum())
    for tail in (0.05, 0.005):
        (reach,) = _bounded_reach(np.array([varied]), n, tail)
        limit = stats.BoundedMean(values - values.mean() + reach, -1.0, 1.0).lower(tail)
        assert limit == pytest.approx(0.0, abs=0.04 * reach)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "n"), [(3, 60), (8, 100), (2, 50)])
def test_two_levels_find_what_is_promised_where_so_little_varies_that_the_mean_is_bounded(seeds: int, n: int) -> None:
    residual = 2 * 0.1**2 / seeds / n
    parts = Parts(0.08**2 / n + residual, n - 1, (Part(0.01**2 / seeds + residual / 2, seeds - 1),) * 2, residual)
    model, by_t = Means(parts, units=n), Means(parts)
    effect, margin = detectable(model, 0.05, POWER), smallest_margin(model, 0.05, POWER, False)
    assert effect is not None and margin is not None and effect > (detectable(by_t, 0.05, POWER) or 1)
    generator, shown = np.random.default_rng(seeds * n), [0, 0]
    for _ in range(200):
        for which, (true, alpha, edge) in enumerate(((effect, 0.025, 0.0), (0.0, 0.05, -margin))):
            arms = [
                0.5
                + shift
                + generator.normal(0, 0.08 / np.sqrt(2), n)
                + generator.normal(0, 0.01, (seeds, 1))
                + generator.normal(0, 0.1, (seeds, n))
                for shift in (0.0, true)
            ]
            limits = stats.two_level_limits(*(np.clip(arm, 0, 1) for arm in arms))
            assert not isinstance(limits, stats.Result)
            shown[which] += limits.lower(alpha) > edge
    for count in shown:
        assert count / 200 == pytest.approx(POWER, abs=0.05 + 2 * np.sqrt(0.16 / 200))


def test_seed_means_find_what_is_promised() -> None:
    effect = detectable(Means(Parts(0.0, 0.0, (Part(0.01**2 / 3, 2),) * 2, one_df=True)), 0.05, POWER)
    assert effect is not None
    a, b = np.random.default_rng(5).normal(0, 0.01, size=(2, 2000, 3))
    found = []
    for one, other in zip(a, b + effect, strict=True):
        result = stats.welch_t(one, other)
        found.append(better(result, result.interval))
    assert share_found(found) == pytest.approx(POWER, abs=NEAR)


def test_skewed_means_take_more_questions_before_t_stands_alone() -> None:
    # One in a hundred: skewness .98 / sqrt(.0099) = 9.849, (9.849 / .2)^2 = 2425.3; kurtosis 98.0, times 5.
    assert stats.fewest_for_t([0.0] * 99 + [1.0]) == 2426
    assert stats.fewest_for_t([0.5, -0.5] * 50) == stats.FEW_QUESTIONS


def test_the_error_of_a_mean_leaves_out_what_no_test_sees() -> None:
    parts = stats.Parts(0.03, 99, seeds=(stats.Part(0.02, 3), stats.Part(0.01, 4)), residual=0.02, extra=0.05)
    assert parts.variance == pytest.approx(0.03 + 0.03 - 0.02 + 0.05)
    assert stats.Means(parts).error(0.0) == pytest.approx(0.2)
    # The residual takes off no more than leaves the larger of both sources.
    assert stats.Parts(0.03, 99, seeds=(stats.Part(0.02, 3),), residual=0.04).variance == pytest.approx(0.03)
    assert stats.Parts(0.01, 99, seeds=(stats.Part(0.02, 3),), residual=0.04).variance == pytest.approx(0.02)
