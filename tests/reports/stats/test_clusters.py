"""Means of questions in groups: which limits they have, and the bounded mean of groups by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nsd.reports import stats
from nsd.reports.stats.clusters import NAME, GroupedMean, cluster_fragile
from nsd.reports.stats.limits import Fragile

BOUNDS = (-1.0, 1.0)
GUARDED = f"{NAME}, bounded mean of groups where it is wider"


def groups_of(means: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Two questions a group, .25 above and below its mean."""
    values = np.repeat(means, 2) + np.tile([0.25, -0.25], len(means))
    return values, np.repeat(np.arange(len(means)), 2)


MANY, FEW = groups_of([0.5, -0.5] * 10), groups_of([0.5, -0.5] * 9 + [0.0])
EQUAL = groups_of([0.25] * 20)


@pytest.mark.parametrize(
    ("data", "lopsided", "fragile", "name"),
    [
        (MANY, False, Fragile(below=False, above=False), NAME),
        (MANY, True, Fragile(below=True, above=True), GUARDED),
        (FEW, False, Fragile(below=True, above=True), GUARDED),
        (EQUAL, False, Fragile(below=True, above=True), "bounded mean of groups"),
    ],
)
def test_which_limits_a_mean_of_groups_has(
    data: tuple[np.ndarray, np.ndarray], lopsided: bool, fragile: Fragile, name: str
) -> None:
    assert cluster_fragile(*data, BOUNDS, lopsided) == fragile
    limits = stats.cluster_limits(*data, BOUNDS, lopsided)
    assert not isinstance(limits, stats.Result) and limits.name == name


def test_groups_that_are_lopsided_have_t_where_nothing_bounds_them() -> None:
    limits, found = stats.cluster_limits(*MANY, None, True), stats.cluster_variance(*MANY)
    assert limits == stats.Student(0.0, found.variance**0.5, found.df, NAME)


def test_the_bounded_mean_of_groups_of_one_size_is_that_of_their_means() -> None:
    means = [0.1, 0.5, -0.3, 0.2, 0.7]
    ours, theirs = GroupedMean(*groups_of(means), *BOUNDS), stats.BoundedMean(means, *BOUNDS)
    for alpha in (0.025, 0.2):
        assert ours.upper(alpha) == pytest.approx(theirs.upper(alpha), abs=1e-6)
        assert ours.lower(alpha) == pytest.approx(theirs.lower(alpha), abs=1e-6)
    for mean in (-0.2, 0.24, 0.6):
        assert ours.p_less(mean) == pytest.approx(theirs.p_less(mean), abs=1e-8)
        assert ours.p_greater(mean) == pytest.approx(theirs.p_greater(mean), abs=1e-8)


def test_no_mean_lies_beyond_what_is_possible() -> None:
    ours = GroupedMean(*groups_of([0.1, 0.5, -0.3]), *BOUNDS)
    assert (ours.p_less(1.0), ours.p_less(1.5), ours.p_greater(-1.0), ours.p_greater(-1.5)) == (0.0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="between -1 and 1"):
        GroupedMean([0.5, 1.5], [0, 1], *BOUNDS)


def test_a_small_group_counts_by_its_size() -> None:
    # Over the largest size, 2, the sums of values less .25 are .75, -.25 and .125.
    ours = GroupedMean([1.0, 1.0, 0.0, 0.0, 0.5], [0, 0, 1, 1, 2], 0.0, 1.0)
    theirs = stats.BoundedMean([0.75, -0.25, 0.125], -0.25, 0.75)
    assert ours.p_less(0.25) == pytest.approx(theirs.p_less(0.0))
    assert ours.p_greater(0.25) == pytest.approx(theirs.p_greater(0.0))


def test_two_groups_are_too_few_and_the_mean_is_told() -> None:
    note = "2 group(s) of questions: at least 3 are needed"
    expected = stats.Result(NAME, None, None, 0.375, note=note)
    values, groups = [0.5, 0.25], [0, 1]
    assert stats.cluster_t(values, groups) == stats.cluster_limits(values, groups, BOUNDS) == expected
