"""Discovery curves and the sign test on them: hand-computed cases, and what a made environment says of both.

The environment: question q is solved by each sample with a chance of its own, so the first right sample is geometric;
the truth is the mean over the chances of 1 - (1 - chance)^n.
"""

from __future__ import annotations

import numpy as np
import pytest

from nsd.reports import stats
from nsd.reports.stats.discovery import SIGN_TEST

BUDGET = 64
AT = (1, 4, 16, 64)


def test_the_curve_of_a_budget_is_the_share_solved() -> None:
    curve = stats.discovery_curve([1, 3, 8, 8], [True, True, True, False], at=[1, 2, 3, 8])
    assert [point.share for point in curve] == pytest.approx([0.25, 0.25, 0.5, 0.75])


def test_a_question_that_was_given_up_early_weighs_by_kaplan_meier() -> None:
    # At 2 one of 4 is solved (3/4 left); at 3 one is given up; at 5 one of the 2 left is solved: 3/4 * 1/2 are left.
    curve = stats.discovery_curve([2, 3, 5, 8], [True, False, True, False], at=[2, 4, 5])
    assert [point.share for point in curve] == pytest.approx([0.25, 0.25, 0.625])


def test_the_interval_is_the_log_log_one() -> None:
    # 2 of 4 solved by n: S = 1/2, Greenwood var(log S) = sum d / (r (r - d)) = 1/(4 * 3) + 1/(3 * 2) = 1/4, so that
    # log(-log S) has the error (1/2) / |log S|.
    interval = stats.discovery_curve([1, 2, 9, 9], [True, True, False, False], at=[2])[0].interval
    assert interval is not None
    error = 1.959963984540054 * 0.5 / -np.log(0.5)
    expected = [1 - 0.5 ** np.exp(sign * error) for sign in (-1, 1)]
    assert (interval.low, interval.high) == pytest.approx(expected)


@pytest.mark.parametrize("solved", [True, False])
def test_all_or_none_solved_has_no_interval(solved: bool) -> None:
    (point,) = stats.discovery_curve([2, 2, 2], [solved] * 3, at=[2])
    assert (point.share, point.interval) == (float(solved), None)


def test_no_question_has_no_curve() -> None:
    assert stats.discovery_curve([], [], at=[1]) == []


def geometric(chances: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(samples, solved) of one search of each question."""
    first = rng.geometric(chances)
    return np.minimum(first, BUDGET), first <= BUDGET


@pytest.mark.slow
@pytest.mark.parametrize("questions", [19, 60])
def test_the_intervals_cover_as_stated(questions: int) -> None:
    rng, covered, told = np.random.default_rng(7), np.zeros(len(AT)), np.zeros(len(AT))
    population = np.random.default_rng(1).beta(0.3, 3.0, 200_000).clip(1e-9)
    truth = [float((1 - (1 - population) ** n).mean()) for n in AT]
    for _ in range(2000):
        samples, solved = geometric(rng.choice(population, questions), rng)
        for place, point in enumerate(stats.discovery_curve(samples.tolist(), solved.tolist(), AT)):
            if point.interval is not None:
                told[place] += 1
                covered[place] += point.interval.low <= truth[place] <= point.interval.high
    # 2000 draws know a share of .95 to .010 (two standard errors); 6000 gave .942 to .978 at these sizes.
    assert (covered / told > 0.932).all(), covered / told
    assert (covered / told < 0.985).all(), covered / told


def test_the_sign_test_counts_who_was_first_and_leaves_ties_out() -> None:
    # 5 ahead, 1 behind, 2 ties: mid-p of 1 in 6 is 2 P(X <= 1) - P(X = 1) = (2 * 7 - 6) / 64.
    result = stats.sign_test([0.1, 0.5, 0.2, 0.3, 0.9, -0.4, 0.0, 0.0])
    assert result.p == pytest.approx(8 / 64)
    assert result.estimate == pytest.approx(0.2)
    assert "sign test" in result.name


def test_the_sign_test_of_ties_alone_decides_nothing() -> None:
    note = "no question on which the two differ"
    assert stats.sign_test([0.0, 0.0, 0.0]) == stats.Result(SIGN_TEST, 0.0, 1.0, 0.0, note=note)


def test_the_sign_test_of_no_question_says_so() -> None:
    note = "no question: nothing to compare"
    assert stats.sign_test([]) == stats.Result(SIGN_TEST, None, None, None, note=note)


def test_the_sign_test_looks_at_no_size() -> None:
    sizes = np.array([0.01, 0.02, 0.03, -0.9])
    assert stats.sign_test(sizes).p == stats.sign_test(np.sign(sizes)).p


def values(chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The protocol's value of one search of each question."""
    samples, solved = geometric(chances, rng)
    found: np.ndarray = np.where(solved, (BUDGET + 1 - samples) / BUDGET, 0.0)
    return found


def test_two_arms_that_are_alike_are_told_apart_as_often_as_stated() -> None:
    rng, population = np.random.default_rng(3), np.random.default_rng(1).beta(0.3, 3.0, 20_000).clip(1e-9)
    rejected = 0
    for _ in range(3000):
        chances = rng.choice(population, 19)
        p = stats.sign_test(values(chances, rng) - values(chances, rng)).p
        rejected += p is not None and p < 0.05
    assert rejected / 3000 < 0.06


def test_an_arm_that_solves_twice_as_fast_is_found() -> None:
    rng, population = np.random.default_rng(3), np.random.default_rng(1).beta(0.6, 3.0, 20_000).clip(1e-9)
    found = 0
    for _ in range(300):
        chances = rng.choice(population, 60)
        result = stats.sign_test(values(np.minimum(1.0, 4 * chances), rng) - values(chances, rng))
        found += result.p is not None and result.p < 0.05 and (result.estimate or 0) > 0
    assert found / 300 > 0.8


def test_no_question_at_all_has_no_sign_test() -> None:
    assert stats.sign_test([]) == stats.Result(
        "sign test on samples to the solution (mid-p)", None, None, None, note="no question: nothing to compare"
    )
