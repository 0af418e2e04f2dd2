"""The t that is robust to groups of questions, by hand: groups of one size, so that it is the t of their means."""

from __future__ import annotations

import pytest

from nsd.reports import stats

GROUPS = [1, 1, 2, 2, 3, 3]
NAME = "cluster-robust t (CR2)"
EQUAL = "the groups have equal means: no spread to test against"


def test_of_what_has_no_bounds_the_limits_are_those_of_the_means_of_groups() -> None:
    # Means 1, 2 and 3: mean 2, standard deviation 1, error 1 / sqrt(3), two degrees of freedom.
    found = stats.cluster_limits([0, 2, 2, 2, 4, 2], GROUPS, None)
    assert isinstance(found, stats.Student)
    assert (found.estimate, found.error, found.df) == pytest.approx((2.0, 3**-0.5, 2.0))
    assert found.name == NAME


def test_groups_of_equal_means_have_no_t_and_no_limits_without_bounds() -> None:
    values = [0, 2, 1, 1, -1, 3]
    expected = stats.Result(NAME, None, None, 1.0, note=EQUAL)
    assert stats.cluster_t(values, GROUPS) == stats.cluster_limits(values, GROUPS, None) == expected


def test_values_that_are_all_alike_have_no_limits_without_bounds() -> None:
    found = stats.cluster_limits([0.5] * 6, GROUPS, None)
    assert found == stats.cluster_t([0.5] * 6, GROUPS)
    assert isinstance(found, stats.Result)
    assert (found.p, found.estimate, found.note) == (
        None,
        0.5,
        "every difference is the same: no spread to test against",
    )
