"""Input without information gets a defined answer: no nan, no warning, no zero-width interval without a word."""

from __future__ import annotations

import math
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import closed_forms
from nsd.reports import stats

pytestmark = pytest.mark.filterwarnings("error")


def assert_defined(result: stats.Result | stats.Interval | None) -> None:
    def numbers(value: Any) -> list[float]:
        if isinstance(value, tuple):
            return [number for part in value for number in numbers(part)]
        return [value] if isinstance(value, (int, float)) else []

    if result is None:
        return
    assert not any(math.isnan(number) for number in numbers(astuple(result)))
    if isinstance(result, stats.Interval):
        assert result.low <= result.high
    else:
        assert result.p is None or 0 <= result.p <= 1
        assert result.interval is not None or result.note or result.name.startswith(("McNemar", "sign-flip"))


COUNT = st.integers(0, 40)


@settings(max_examples=300, deadline=None)
@given(COUNT, COUNT, COUNT, COUNT)
def test_paired_tables_of_any_shape(both: int, a_only: int, b_only: int, neither: int) -> None:
    n = both + a_only + b_only + neither
    for method in ("mid-p", "exact"):
        assert_defined(stats.mcnemar(a_only, b_only, method))
    interval = stats.newcombe_paired(both, a_only, b_only, neither)
    assert_defined(interval)
    tango = stats.tango_interval(a_only, b_only, n)
    assert_defined(tango)
    for both_sides in (False, True):
        assert_defined(stats.margin_test_paired(a_only, b_only, n, 0.05, both_sides))
    if n:
        assert interval is not None and tango is not None
        for found in (interval, tango):
            assert -1 <= found.low <= (b_only - a_only) / n <= found.high <= 1
    else:
        assert interval is None and tango is None


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(0, 30), st.integers(0, 30))
def test_counts_of_any_shape(data: st.DataObject, n_a: int, n_b: int) -> None:
    right_a, right_b = data.draw(st.integers(0, n_a)), data.draw(st.integers(0, n_b))
    result = stats.two_proportion(right_a, n_a, right_b, n_b)
    assert_defined(result)
    assert (result.p is None) == (n_a == 0 or n_b == 0)
    for both_sides in (False, True):
        assert_defined(stats.margin_test_unpaired(right_a, n_a, right_b, n_b, 0.05, both_sides))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.125, 1 / 3, 1.0]), max_size=20))
def test_differences_of_any_shape(differences: list[float]) -> None:
    array = np.array(differences)
    assert_defined(stats.paired_t(array))
    assert_defined(stats.sign_flip(array, seed=0, resamples=200))
    limits = stats.mean_limits(array, (-1.0, 1.0))
    assert_defined(None if limits is None else stats.interval_of(limits, 0.95, (-1.0, 1.0)))
    assert_defined(stats.cluster_t(array, np.arange(len(array)) // 3))
    half = len(array) // 2
    assert_defined(stats.welch_t(array[:half], array[half:]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.2, 0.2, 1.0]), max_size=12), st.booleans())
def test_swapping_the_arms_only_turns_the_sign(values: list[float], shift: bool) -> None:
    differences = np.array(values) - (0.5 if shift else 0.0)
    there, back = stats.paired_t(differences), stats.paired_t(-differences)
    assert there.p == pytest.approx(back.p)
    assert stats.sign_flip(differences, seed=0).p == pytest.approx(stats.sign_flip(-differences, seed=0).p)


def test_identical_arrays_have_p_one_and_no_interval() -> None:
    result = stats.paired_t(np.zeros(50))
    assert (result.p, result.interval, result.note) == (1.0, None, "every difference is zero")
    assert stats.mcnemar(0, 0).p == 1.0
    assert stats.two_level(np.ones((3, 10)), np.ones((3, 10))).p == 1.0


def test_without_spread_no_p_is_invented() -> None:
    level = np.full((3, 10), 0.3)
    for result in (
        stats.paired_t(np.full(6, 0.25)),
        stats.welch_t([0.3, 0.3, 0.3], [0.4, 0.4, 0.4]),
        stats.cluster_t(np.array([0.0, 0.5, 0.0, 0.5]), np.array([1, 1, 2, 2])),
        stats.cluster_t(np.full(6, 0.25), np.arange(6) // 2),
        stats.two_level(level, level + 0.1, bounds=None),
        stats.two_level(level[:1], level + 0.1, trained=(False, True), bounds=None),
    ):
        assert result.p is None and result.interval is None and result.note, result
        assert result.estimate == pytest.approx(0.25) or result.estimate == pytest.approx(0.1)


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_and_one_value_have_no_interval(n: int) -> None:
    values = np.full(n, 0.5)
    assert stats.paired_t(values).p is None
    assert stats.paired_t(values).interval is None
    assert stats.mean_limits(values, (-1.0, 1.0)) is None
    assert stats.two_level(np.ones((2, n)), np.zeros((2, n))).p is None


def test_one_group_of_questions_gives_no_p_and_no_warning() -> None:
    one, values = np.zeros(5, dtype=int), np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    assert stats.cluster_variance(values, one).groups == 1
    for found in (stats.cluster_t(values, one), stats.two_level([values, values], [1 - values, values], clusters=one)):
        assert found.p is None and found.interval is None and "at least 3" in found.note


def test_one_seed_gives_no_p_and_says_why() -> None:
    result = stats.welch_t([0.3], [0.4, 0.5, 0.6])
    assert result.p is None and result.estimate == pytest.approx(0.2) and "two seeds" in result.note


def test_power_of_nothing_is_undefined_and_not_infinite() -> None:
    assert closed_forms.minimum_detectable_effect(0.2, 0) is None
    assert closed_forms.sample_size(0.0, 0.2) is None
    assert stats.seeds_needed(0.0, 0.01) is None
    assert stats.seeds_needed(1e-9, 0.5) is None
    assert stats.seeds_needed(0.1, 0.0) == 2


def test_families_pass_over_what_could_not_be_tested() -> None:
    assert stats.adjust([0.01, None, 0.03], "holm") == [0.02, None, 0.03]
    assert stats.adjust([], "holm") == []
    assert stats.adjust([None], "bh") == [None]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_adjusted_p_keep_their_order_and_never_fall(p_values: list[float]) -> None:
    for method in ("holm", "bonferroni", "bh"):
        adjusted = [p for p in stats.adjust(p_values, method) if p is not None]
        assert all(raw - 1e-12 <= one <= 1 for raw, one in zip(p_values, adjusted, strict=True))
        in_order = [one for _, one in sorted(zip(p_values, adjusted, strict=True))]
        assert in_order == sorted(in_order)


def test_missing_answers_bound_the_difference() -> None:
    # Ten shared questions with a net gain of 1; a alone has two more (one right), b alone one more (wrong).
    assert stats.missing_bounds(1.0, 10, [1, 0], [0]) == pytest.approx(((1 - 1 - 1) / 13, (1 + 1 + 0) / 13))
    assert stats.missing_bounds(0.0, 0, [], []) is None


def test_importing_stats_loads_neither_scipy_stats_nor_statsmodels() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from nsd.reports import stats;"
        "stats.mcnemar(3, 9); stats.newcombe_paired(9, 3, 9, 4);"
        "stats.two_proportion(3, 9, 4, 9); stats.paired_t([.1, .2, .4]); stats.sign_flip([.5, 1, -.5], seed=0);"
        "print([name for name in ('scipy.stats', 'statsmodels', 'pandas') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
