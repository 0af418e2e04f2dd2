"""The test of an effect that differs from group to group: its level, its power, and what is known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nsd.reports.stats.heterogeneity import heterogeneity, welch_f

RUNS = 600
ALLOWED = 0.05 + 2.6 * (0.05 * 0.95 / RUNS) ** 0.5  # one-sided, at .005


def outcomes(rng: np.random.Generator, sizes: list[int], discordant: list[float], effects: list[float]) -> np.ndarray:
    """Differences of right-or-wrong answers: +1, -1 or 0."""
    parts = []
    for size, share, effect in zip(sizes, discordant, effects, strict=True):
        chances = [(share + effect) / 2, (share - effect) / 2, 1 - share]
        parts.append(rng.choice([1.0, -1.0, 0.0], size=size, p=chances))
    return np.concatenate(parts)


def rejected(sizes: list[int], discordant: list[float], effects: list[float], seed: int = 3) -> float:
    rng, labels, count = np.random.default_rng(seed), np.repeat(np.arange(len(sizes)), sizes), 0
    for number in range(RUNS):
        p = heterogeneity(outcomes(rng, sizes, discordant, effects), labels, number, permutations=199).p
        count += p is not None and p <= 0.05
    return count / RUNS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "discordant", "effect"),
    [
        ([10, 10], [0.3, 0.3], 0.0),
        ([10, 40], [0.6, 0.1], 0.0),
        ([10, 40], [0.1, 0.6], 0.1),
        ([40, 10], [0.6, 0.2], 0.1),
        ([20, 20, 20], [0.1, 0.3, 0.6], 0.1),
        ([10] * 6, [0.2, 0.2, 0.2, 0.6, 0.6, 0.6], 0.0),
        ([100, 400], [0.5, 0.1], 0.1),
        ([400, 10], [0.1, 0.9], 0.0),
        ([400, 10], [0.9, 0.1], 0.1),
        ([400, 10], [0.1, 0.1], 0.05),
        ([200, 200, 200], [0.05, 0.2, 0.6], 0.05),
    ],
)
def test_one_effect_is_rarely_taken_for_several(sizes: list[int], discordant: list[float], effect: float) -> None:
    assert rejected(sizes, discordant, [effect] * len(sizes)) <= ALLOWED


@pytest.mark.slow
def test_an_effect_in_one_group_alone_is_found() -> None:
    assert rejected([200, 200], [0.3, 0.3], [0.2, 0.0]) > 0.8


def test_of_two_groups_it_is_welchs_t() -> None:
    """Of two groups F is the square of Welch's t, with its degrees of freedom."""
    from scipy import stats

    a, b = np.array([0.0, 1.0, 2.0, 1.0]), np.array([2.0, 3.0, 1.0, 4.0, 5.0])
    labels = np.array([0] * len(a) + [1] * len(b))
    expected = stats.ttest_ind(a, b, equal_var=False).pvalue
    assert welch_f(np.concatenate([a, b]), labels) == pytest.approx(expected, abs=1e-12)


def test_the_unit_of_the_values_changes_nothing_where_a_group_has_no_spread() -> None:
    values, labels = np.array([0.0, 1.0] * 6 + [0.5] * 12 + [0.0, 2.0] * 6), np.repeat([0, 1, 2], 12)
    expected = welch_f(values, labels)
    assert 0.01 < expected < 0.5
    for unit in (1e-6, 1e6):
        assert welch_f(values * unit, labels) == pytest.approx(expected, rel=1e-6)


def test_the_data_count_as_one_of_the_permutations() -> None:
    """No shuffle of 99 keeps all of one group above all of the other: p is 1 of 100, and Welch's far below."""
    values, labels = np.r_[np.linspace(0.0, 0.1, 20), np.linspace(0.9, 1.0, 20)], np.repeat([0, 1], 20)
    assert heterogeneity(values, labels, permutations=99).p == pytest.approx(0.01)
    assert welch_f(values, labels) < 1e-6


def test_q_of_two_groups_by_hand() -> None:
    # Five of ten are 1, and eight of ten: sums of squares 2.5 and 1.6, pooled 4.1 / 18 = .2278.
    # The means' variances are (2.5 + .2278) / 100 and (1.6 + .2278) / 100: Q = .3^2 / .045556.
    values = np.array([0.0, 1.0] * 5 + [0.0, 1.0, 1.0, 1.0, 1.0] * 2)
    found = heterogeneity(values, np.repeat([0, 1], 10), permutations=99)
    assert found.q == pytest.approx(0.09 / 0.0455556, rel=1e-6) and found.groups == 2


def test_small_groups_are_left_out() -> None:
    labels = np.array([0] * 12 + [1] * 9)
    found = heterogeneity(np.r_[np.ones(12), -np.ones(9)], labels)
    assert (found.groups, found.p, found.q) == (1, None, None)


def test_equal_differences_are_no_heterogeneity() -> None:
    assert heterogeneity(np.zeros(40), np.arange(40) % 2).p == 1.0


def test_the_order_of_questions_and_names_of_groups_change_nothing_observed() -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=60), np.arange(60) % 3
    order = rng.permutation(60)
    first, second = heterogeneity(values, labels), heterogeneity(values[order], 7 - labels[order])
    assert first.q == pytest.approx(second.q)
    assert first.p == pytest.approx(second.p, abs=0.03)  # other permutations


def test_the_same_seed_gives_the_same_p() -> None:
    values, labels = np.random.default_rng(0).normal(size=60), np.arange(60) % 3
    assert heterogeneity(values, labels, seed=4) == heterogeneity(values, labels, seed=4)
