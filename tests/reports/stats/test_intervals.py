"""Every interval against R, scipy.stats or a paper."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nsd.reports import stats
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
