"""Anytime-valid p-values and levels: against hand-computed numbers, published formulas, and simulated looks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import ndtr, ndtri

from nsd.reports import stats
from nsd.reports.stats.anytime import (
    EFFECT_SCALE,
    AnyLook,
    anytime_one_sided_p,
    anytime_p,
    fixed_alpha,
    fixed_one_sided_alpha,
    information_ratio,
)

RATIOS = [1e-3, 0.1, 1.0, 10.0, 1e3, 1e6]
THREE = 0.0026997960632601866  # two-sided p of z = 3


def test_a_design_at_any_look_has_the_chances_of_one_look_at_its_level() -> None:
    once = stats.Means(stats.Parts(0.0004, 99))
    any_look, ratio = AnyLook(once), information_ratio(0.02)
    assert (any_look.error(0.0), any_look.largest, any_look.told(0.1)) == (once.error(0.0), once.largest, True)
    assert any_look.chance(0.1, 0.05) == once.chance(0.1, fixed_alpha(0.05, ratio)) < once.chance(0.1, 0.05)
    for both_sides in (True, False):
        level = fixed_one_sided_alpha(0.05, ratio)
        expected = once.margin_chance(0.06, level, both_sides)
        assert any_look.margin_chance(0.06, 0.05, both_sides) == expected < once.margin_chance(0.06, 0.05, both_sides)


def test_a_design_without_error_needs_no_other_level() -> None:
    once = stats.Means(stats.Parts(0.0, 99))
    assert AnyLook(once).chance(0.1, 0.05) == AnyLook(once).margin_chance(0.1, 0.05, True) == 1.0


def test_p_is_one_over_the_mixture_worked_out_by_hand() -> None:
    # z = 3, r = 3: M = (1 + 3)^-1/2 exp(9 * 3 / (2 * 4)) = exp(3.375) / 2 = 14.6122
    assert anytime_p(THREE, 3.0) == pytest.approx(1 / 14.61214, rel=1e-6)


def test_a_one_sided_p_is_one_over_the_half_mixture_worked_out_by_hand() -> None:
    # twice the above, times Phi(3 (3/4)^1/2) = Phi(2.598076) = 0.995313
    assert anytime_one_sided_p(THREE / 2, 3.0) == pytest.approx(1 / (2 * 14.61214 * 0.9953126), rel=1e-5)


def test_a_look_that_shows_nothing_has_p_1() -> None:
    assert anytime_p(1.0, 10.0) == 1.0 and anytime_one_sided_p(1.0, 10.0) == 1.0


def test_a_p_of_zero_is_a_small_number_and_no_error() -> None:
    assert 0 < anytime_p(0.0, 10.0) < 1e-200 and 0 < anytime_one_sided_p(0.0, 10.0) < 1e-200


def test_the_ratio_is_the_squared_effect_scale_over_the_variance() -> None:
    assert information_ratio(EFFECT_SCALE / 5) == pytest.approx(25.0)


@pytest.mark.parametrize("n", [50, 400, 10_000])
def test_the_level_is_that_of_the_asymptotic_confidence_sequence(n: int) -> None:
    """Waudby-Smith et al. 2024: sigma (2 (n rho^2 + 1) / (n^2 rho^2) log((n rho^2 + 1)^1/2 / alpha))^1/2."""
    sigma, alpha = 0.45, 0.05
    rho2 = (EFFECT_SCALE / sigma) ** 2
    half = sigma * math.sqrt(2 * (n * rho2 + 1) / (n**2 * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha))
    error = sigma / math.sqrt(n)
    mine = -float(ndtri(fixed_alpha(alpha, information_ratio(error)) / 2)) * error
    assert mine == pytest.approx(half, rel=1e-9)


@pytest.mark.parametrize("ratio", [0.5, 3.0, 100.0])
@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.001])
def test_the_level_is_where_p_is_alpha(ratio: float, alpha: float) -> None:
    assert anytime_p(fixed_alpha(alpha, ratio), ratio) == pytest.approx(alpha)
    assert anytime_one_sided_p(fixed_one_sided_alpha(alpha, ratio), ratio) == pytest.approx(alpha)


@pytest.mark.parametrize("ratio", [0.5, 3.0, 100.0])
def test_without_an_effect_both_mixtures_are_1_on_average(ratio: float) -> None:
    """p is 1 / M as long as M is above 1, and M is 1 on average over a standard normal z: a fair game."""

    def weighted(z: float) -> float:  # the two-sided M times the normal density
        return math.exp(-z * z / (2 * (1 + ratio))) / math.sqrt(2 * math.pi * (1 + ratio))

    def upper(z: float) -> float:  # the one-sided M over the two-sided one
        return 2 * float(ndtr(z * math.sqrt(ratio / (1 + ratio))))

    assert quad(weighted, -200, 200, points=[0])[0] == pytest.approx(1, abs=1e-6)
    assert quad(lambda z: weighted(z) * upper(z), -200, 200, points=[0])[0] == pytest.approx(1, abs=1e-6)
    mixture, tail = weighted(6.0) * math.exp(18) * math.sqrt(2 * math.pi), float(ndtr(-6.0))
    assert anytime_p(2 * tail, ratio) == pytest.approx(1 / mixture)
    assert anytime_one_sided_p(tail, ratio) == pytest.approx(1 / (mixture * upper(6.0)))


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.05 / 6])
def test_twenty_looks_are_safe_by_their_number_alone(alpha: float) -> None:
    assert max(20 * fixed_alpha(alpha, ratio) for ratio in np.geomspace(1e-3, 1e6, 200)) < alpha


@pytest.mark.parametrize("ratio", RATIOS)
def test_p_rises_with_the_p_of_the_look(ratio: float) -> None:
    looks = [0.0, 1e-12, 1e-4, 0.01, 0.2, 1.0]
    for valid in (anytime_p, anytime_one_sided_p):
        found = [valid(p, ratio) for p in looks]
        assert found == sorted(found) and found[-1] == 1.0


# --------------------------------------------------------------------------- ten looks at growing data, simulated

Floats = NDArray[np.float64]
Look = tuple[stats.Result, float]  # with its standard error


def questions_added(generator: np.random.Generator, rate: float) -> Iterator[Look]:
    """Ten looks at right-or-wrong answers to 20 to 1000 questions; a fifth of them differ at most."""
    apart = min(0.2, rate, 1 - rate) / 2
    kind = generator.choice(3, p=[apart, apart, 1 - 2 * apart], size=1000)
    for n in np.geomspace(20, 1000, 10).astype(int):
        a_only, b_only = int((kind[:n] == 0).sum()), int((kind[:n] == 1).sum())
        variance = (a_only + b_only) / n - ((b_only - a_only) / n) ** 2
        yield stats.mcnemar(a_only, b_only), max(math.sqrt(variance / n), 1 / n)


def samples_added(generator: np.random.Generator, rate: float) -> Iterator[Look]:
    """Ten looks at 40 questions of differing difficulty, of which each is asked 2 to 32 times."""
    logit = math.log(rate / (1 - rate))
    drawn = [
        generator.random((40, 32)) < 1 / (1 + np.exp(-(logit + generator.normal(0, 1.5, (40, 1))))) for _ in range(2)
    ]
    for k in (2, 3, 4, 6, 8, 12, 16, 20, 26, 32):
        a, b = (arm[:, :k].mean(axis=1) for arm in drawn)
        yield _of_values(b - a)


def seeds_added(generator: np.random.Generator, rate: float) -> Iterator[Look]:
    """Looks at 3 to 8 training seeds of each arm on 160 questions, which each recipe takes in its own way."""
    logit = math.log(rate / (1 - rate)) + generator.normal(0, 1.5, 160)
    arms = []
    for _ in range(2):
        own = logit + generator.normal(0, 0.4, 160) + generator.normal(0, 0.15, (8, 1))
        arms.append((generator.random((8, 160)) < 1 / (1 + np.exp(-own))).astype(float))
    for seeds in range(3, 9):
        found = stats.two_level(arms[0][:seeds], arms[1][:seeds])
        yield found, max(found.standard_error or 0.0, 1 / 160)


def groups_added(generator: np.random.Generator, rate: float) -> Iterator[Look]:
    """Looks at 8 to 60 groups of 2 to some 20 questions, which share how a recipe takes them."""
    sizes = generator.geometric(0.2, 60) + 1
    group = np.repeat(np.arange(60), sizes)
    logit = math.log(rate / (1 - rate)) + generator.normal(0, 1.5, len(group))
    right = [
        (generator.random(len(group)) < 1 / (1 + np.exp(-logit - generator.normal(0, 0.8, 60)[group]))).astype(float)
        for _ in range(2)
    ]
    for groups in np.geomspace(8, 60, 10).astype(int):
        kept = group < groups
        found = stats.cluster_t((right[1] - right[0])[kept], group[kept])
        yield found, max(found.standard_error or 0.0, 1 / int(kept.sum()))


def _of_values(differences: Floats) -> Look:
    error = max(float(differences.std(ddof=1)) / math.sqrt(len(differences)), 1 / len(differences))
    return stats.sign_flip(differences, seed=0), error


GROWTHS: list[tuple[Callable[[np.random.Generator, float], Iterator[Look]], int]] = [
    (questions_added, 500),
    (samples_added, 100),
    (seeds_added, 80),
    (groups_added, 200),
]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("growth", "times"), GROWTHS)
def test_looking_often_finds_nothing_where_there_is_nothing(
    growth: Callable[[np.random.Generator, float], Iterator[Look]], times: int, rate: float
) -> None:
    generator = np.random.default_rng(12)
    decided = naive = 0
    for _ in range(times):
        looks = [(1.0 if found.p is None else found.p, error) for found, error in growth(generator, rate)]
        decided += any(anytime_p(p, information_ratio(error)) < 0.05 for p, error in looks)
        naive += any(p < 0.05 for p, _ in looks)
    assert decided / times <= 0.05, "allowed over all looks together"
    assert naive / times > 0.06, "else the simulation could not tell"


def test_looking_often_does_not_find_an_arm_not_worse_that_is_worse_by_the_margin() -> None:
    generator, times = np.random.default_rng(3), 500
    decided = naive = 0
    for _ in range(times):
        kind = generator.choice(3, p=[0.12, 0.08, 0.8], size=1000)  # b is worse by .04
        found = []
        for n in np.geomspace(20, 1000, 10).astype(int):
            a_only, b_only = int((kind[:n] == 0).sum()), int((kind[:n] == 1).sum())
            p = float(ndtr(-stats.tango_score(a_only, b_only, n, -0.04)))
            variance = (a_only + b_only) / n - ((b_only - a_only) / n) ** 2
            found.append((p, information_ratio(max(math.sqrt(variance / n), 1 / n))))
        decided += any(anytime_one_sided_p(p, ratio) < 0.05 for p, ratio in found)
        naive += any(p < 0.05 for p, _ in found)
    assert decided / times <= 0.05 < 0.1 < naive / times


def test_all_intervals_of_ten_looks_hold_the_true_difference_together() -> None:
    generator, missed, times = np.random.default_rng(5), 0, 400
    for _ in range(times):
        kind = generator.choice(4, p=[0.4, 0.05, 0.15, 0.4], size=1000)
        for n in np.geomspace(20, 1000, 10).astype(int):
            both, a_only, b_only, neither = (int((kind[:n] == one).sum()) for one in range(4))
            variance = (a_only + b_only) / n - ((b_only - a_only) / n) ** 2
            ratio = information_ratio(max(math.sqrt(variance / n), 1 / n))
            found = stats.newcombe_paired(both, a_only, b_only, neither, 1 - fixed_alpha(0.05, ratio))
            assert found is not None
            if not found.low <= 0.1 <= found.high:
                missed += 1
                break
    assert missed / times <= 0.05
