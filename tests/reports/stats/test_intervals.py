"""Every interval against R, scipy.stats or a paper."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import betainc

from nsd.reports import stats
from nsd.reports.stats.bounded import _share_below, exact_binomial
from nsd.reports.stats.intervals import Interval
from nsd.reports.stats.limits import Fragile, OverSeeds, SeedsToo, fragile
from r_records import CLOSE, limits, one, r_records


@pytest.mark.parametrize(("given", "found"), r_records("wilson"))
def test_wilson_agrees_with_r(given: dict[str, Any], found: dict[str, Any]) -> None:
    given = one(given)
    assert limits(stats.wilson(given["x"], given["n"])) == pytest.approx(found["i95"], **CLOSE)
    assert limits(stats.wilson(given["x"], given["n"], 0.9)) == pytest.approx(found["i90"], **CLOSE)


@pytest.mark.parametrize(("given", "found"), r_records("paired_table"))
def test_paired_intervals_agree_with_r(given: dict[str, Any], found: dict[str, Any]) -> None:
    table = one(given)
    n, a_only, b_only = sum(table.values()), table["a_only"], table["b_only"]
    assert limits(stats.newcombe_paired(**table)) == pytest.approx(found["newcombe95"], **CLOSE)
    assert limits(stats.newcombe_paired(**table, level=0.9)) == pytest.approx(found["newcombe90"], **CLOSE)
    assert limits(stats.tango_interval(a_only, b_only, n)) == pytest.approx(found["tango95"], **CLOSE)
    assert limits(stats.tango_interval(a_only, b_only, n, 0.9)) == pytest.approx(found["tango90"], **CLOSE)


def test_worked_examples_of_papers() -> None:
    # Newcombe 1998 (paired), table with 20, 12, 2, 16: 0.0562 to 0.3292 for p_1 - p_2.
    assert limits(stats.newcombe_paired(20, 12, 2, 16)) == pytest.approx([-0.3292, -0.0562], abs=5e-5)
    # Newcombe 1998 (unpaired), 56/70 against 48/80: 0.0524 to 0.3339 for p_1 - p_2.
    assert limits(stats.newcombe_unpaired(48, 80, 56, 70)) == pytest.approx([0.0524, 0.3339], abs=5e-5)
    # Fagerland, Lydersen, Laake 2014, complete response before and after consolidation therapy.
    assert limits(stats.newcombe_paired(59, 6, 16, 80)) == pytest.approx([0.0046, 0.1186], abs=5e-5)
    assert limits(stats.tango_interval(6, 16, 161)) == pytest.approx([0.0054, 0.1240], abs=5e-5)


@pytest.mark.parametrize(("right", "n"), [(0, 12), (3, 10), (12, 12), (27, 500)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.995])
def test_exact_binomial_agrees_with_scipy_and_is_the_bounded_mean_of_right_or_wrong(
    right: int, n: int, level: float
) -> None:
    from scipy.stats import binomtest

    theirs = binomtest(right, n).proportion_ci(level, method="exact")
    assert limits(stats.exact_binomial(right, n, level)) == pytest.approx([theirs.low, theirs.high], **CLOSE)
    bounded = stats.BoundedMean([1.0] * right + [0.0] * (n - right), 0.0, 1.0)
    assert limits(stats.interval_of(bounded, level)) == pytest.approx([theirs.low, theirs.high], **CLOSE)


def test_the_bounded_mean_is_the_quantile_of_its_definition() -> None:
    """Limits by drawing the weights on the simplex, as Gaffke defines them."""
    generator = np.random.default_rng(0)
    values = np.array([0.1, 0.1, 0.35, 0.5, 0.8, 0.85, 1.0])
    weights = generator.dirichlet(np.ones(8), size=400_000)
    found = stats.interval_of(stats.BoundedMean(values, 0.0, 1.0), 0.95)
    assert found.low == pytest.approx(np.quantile(weights @ np.append(values, 0.0), 0.025), abs=2e-3)
    assert found.high == pytest.approx(np.quantile(weights @ np.append(values, 1.0), 0.975), abs=2e-3)


def test_equal_values_leave_a_rule_of_three() -> None:
    for n in (5, 100, 3000):
        reach = stats.BoundedMean(np.zeros(n), -1.0, 1.0).upper(0.05)
        assert reach == pytest.approx(1 - 0.05 ** (1 / n), rel=1e-4)  # 3 / n, nearly
        assert stats.BoundedMean(np.zeros(n), -1.0, 1.0).p_less(0.02) == pytest.approx(0.98**n, abs=1e-6)


@pytest.mark.parametrize("n", [12, 400])
def test_limits_and_p_of_a_mean_are_one_thing(n: int) -> None:
    """The p at a limit is its alpha: for t, the bounded mean, the wider of both, and two sources of variance."""
    generator = np.random.default_rng(n)
    skewed = np.where(generator.random(n) < 0.03, 0.9, -0.05)
    arms = generator.random((2, 3, n))
    found = [
        stats.mean_limits(generator.normal(0, 0.1, n), (-1.0, 1.0)),
        stats.mean_limits(skewed, (-1.0, 1.0)),
        stats.two_level_limits(arms[0], arms[1]),
    ]
    for one_of in found:
        assert one_of is not None and not isinstance(one_of, stats.Result)
        for alpha in (0.05, 0.003):
            assert one_of.p_less(one_of.upper(alpha)) == pytest.approx(alpha, rel=1e-4)
            assert one_of.p_greater(one_of.lower(alpha)) == pytest.approx(alpha, rel=1e-4)


def test_many_distinct_values_are_rounded_outwards() -> None:
    values = np.random.default_rng(3).random(2000)
    found = stats.interval_of(stats.BoundedMean(values, 0.0, 1.0), 0.95)
    half = 1.96 * values.std(ddof=1) / np.sqrt(2000)
    assert values.mean() - half - 0.004 < found.low < values.mean() - half
    assert values.mean() + half < found.high < values.mean() + half + 0.004


@pytest.mark.parametrize(
    ("values", "low", "high"), [([], 0.0, 1.0), ([-0.1, 0.5], 0.0, 1.0), ([0.5, 1.1], 0.0, 1.0), ([-1.1], -1.0, 1.0)]
)
def test_a_bounded_mean_of_nothing_or_of_values_outside_its_bounds_is_refused(
    values: list[float], low: float, high: float
) -> None:
    with pytest.raises(ValueError, match=f"a bounded mean needs values between {low:g} and {high:g}"):
        stats.BoundedMean(values, low, high)


def test_many_distinct_differences_are_rounded_outwards_on_both_sides_of_zero() -> None:
    values = 2 * np.random.default_rng(3).random(2000) - 1
    found = stats.interval_of(stats.BoundedMean(values, -1.0, 1.0), 0.95)
    half = 1.96 * values.std(ddof=1) / np.sqrt(2000)
    assert values.mean() - half - 0.008 < found.low < values.mean() - half
    assert values.mean() + half < found.high < values.mean() + half + 0.008


@pytest.mark.parametrize(("right_a", "n_a", "right_b", "n_b"), [(0, 0, 3, 5), (3, 5, 0, 0), (0, 0, 0, 0)])
def test_an_arm_without_a_question_has_no_interval(right_a: int, n_a: int, right_b: int, n_b: int) -> None:
    assert stats.newcombe_unpaired(right_a, n_a, right_b, n_b) is None


HALVES = [0.5, -0.5] * 10


@pytest.mark.parametrize(
    ("values", "lopsided", "name"),
    [
        (HALVES, False, "t"),
        (HALVES, True, "bounded mean"),
        (HALVES[:19], False, "bounded mean"),
        ([0.5] * 20, False, "bounded mean"),
        ([0.1, -0.1] * 20, False, "t, bounded mean where it is wider"),
    ],
)
def test_which_limits_a_mean_has(values: list[float], lopsided: bool, name: str) -> None:
    found = stats.mean_limits(values, (-1.0, 1.0), lopsided) if lopsided else stats.mean_limits(values, (-1.0, 1.0))
    assert found is not None and found.name == name


def test_t_is_trusted_from_a_sum_of_squares_of_four_on() -> None:
    # 16 halves squared are 4 where the largest difference counts 1, and 1 where it counts 4.
    assert fragile([0.5, -0.5] * 8, (-1.0, 1.0)) == Fragile(below=False, above=False)
    assert fragile([0.5, -0.5] * 7, (-1.0, 1.0)) == Fragile(below=True, above=True)
    assert fragile([0.5, -0.5] * 8, (-2.0, 2.0)) == Fragile(below=True, above=True)
    assert fragile([0.5, -0.5] * 8, (-1.0, 1.0), seen=3.9) == Fragile(below=True, above=True)


def test_t_is_not_trusted_on_the_side_of_a_long_tail() -> None:
    tail = [1.0] * 6 + [-0.25] * 24  # sum of squares 7.5, of cubes 5.625: skewness over the root of n is .27
    assert fragile(tail, (-1.0, 1.0)) == Fragile(below=False, above=True)
    assert fragile([-one for one in tail], (-1.0, 1.0)) == Fragile(below=True, above=False)


@pytest.mark.parametrize(("wrong", "right", "at"), [(3, 5, 0.3), (3, 5, 0.7), (200, 400, 0.66), (1, 1, 0.5)])
def test_the_share_below_of_two_values_is_the_beta_distribution(wrong: int, right: int, at: float) -> None:
    found = _share_below(np.array([0.0, 1.0]), np.array([float(wrong), float(right)]), at)
    assert found == pytest.approx(betainc(right, wrong, at), abs=1e-9)


def test_an_exact_interval_of_none_and_of_one() -> None:
    assert exact_binomial(0, 0, 0.95) is None
    assert exact_binomial(1, 1, 0.95) == Interval(pytest.approx(0.025), 1.0, 0.95, "exact binomial")
    assert exact_binomial(0, 1, 0.95) == Interval(0.0, pytest.approx(0.975), 0.95, "exact binomial")


def test_limits_with_seeds_that_do_not_scatter_are_those_of_the_questions() -> None:
    questions = stats.BoundedMean(HALVES, -1.0, 1.0)
    still = SeedsToo(questions, 0.0, OverSeeds((stats.Part(0.0, 3),), 0.0), "both")
    moving = SeedsToo(questions, 0.0, OverSeeds((stats.Part(0.01, 3),), 0.0), "both")
    for mean in (-0.3, 0.2):
        assert still.p_less(mean) == questions.p_less(mean) and still.p_greater(mean) == questions.p_greater(mean)
    # A p of a half and more is that of the questions; a smaller one becomes larger.
    assert moving.p_greater(0.2) == questions.p_greater(0.2) > 0.5
    assert questions.p_less(0.2) < moving.p_less(0.2) < 0.5
    assert moving.p_less(moving.upper(0.05)) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize(
    ("a_only", "b_only", "n", "difference", "z"),
    [
        (0, 0, 10, 0.0, 0.0),
        (0, 5, 5, 1.0, 0.0),
        (0, 3, 5, 1.0, -math.inf),
        (0, 3, 5, -1.0, math.inf),
    ],
)
def test_tangos_score_of_a_difference_without_variance_is_nothing_or_without_end(
    a_only: int, b_only: int, n: int, difference: float, z: float
) -> None:
    assert stats.tango_score(a_only, b_only, n, difference) == z
