"""The power that is promised of questions in groups is what the cluster test has."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nsd.reports import stats
from nsd.reports.stats.chances_of_groups import _Drawn

Floats = NDArray[np.float64]
Index = NDArray[np.int64]
NEAR = 0.05
TEN = (10.0,) * 40


def differences(generator: np.random.Generator, index: Index, share: float, effect: float, icc: float) -> Floats:
    """Of -1, 0 and 1 [n]: Dirichlet draws give each group chances of its own, so that its questions correlate."""
    chances = np.array([(share + effect) / 2, (share - effect) / 2, 1 - share]).clip(1e-12)
    groups = int(index.max()) + 1
    of_group = np.tile(chances, (groups, 1)) if icc == 0 else generator.dirichlet(chances * (1 / icc - 1), size=groups)
    drawn, ends = generator.random(len(index)), of_group.cumsum(axis=1)[index]
    return np.asarray((drawn < ends[:, 0]) * 1.0 - ((drawn >= ends[:, 0]) & (drawn < ends[:, 1])))


def shown(limits: stats.Limits | stats.Result) -> bool:
    """What a verdict asks: the 95 % interval lies above zero."""
    return not isinstance(limits, stats.Result) and limits.p_greater(0.0) < 0.025


# --------------------------------------------------------------------------- by hand


def test_the_variance_of_a_mean_of_groups_by_hand() -> None:
    # Groups of 1, 2 and 3, icc .5: (1 + (2 + 2 * .5) + (3 + 6 * .5)) / 36 = 10 / 36.
    sizes = stats.GroupSizes((1.0, 2.0, 3.0))
    assert sizes.spread(0.5) == pytest.approx(10 / 36)
    # Of 2, 4 and 6: (2 + 2 * .5) + (4 + 12 * .5) + (6 + 30 * .5) = 34.
    assert sizes.of_questions(12).spread(0.5) == pytest.approx(34 / 144)
    # Two of ten: (1 + .05 - .05 * 10) / 20; at -.12 1 + .12 - 1.2 is below 0, and no variance is.
    assert stats.GroupSizes((10.0, 10.0)).spread(-0.05) == pytest.approx(0.0275)
    assert stats.GroupSizes((10.0, 10.0)).spread(-0.12) == 0.0


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("icc", [-0.12, -0.5])
def test_groups_more_alike_than_by_chance_have_a_chance_however_large_they_get(icc: float, bounded: bool) -> None:
    # Of -.12 groups of ten may be, and no larger ones: 1 + .12 - .12 * 10 = -.08.
    for size in (4.0, 10.0, 1000.0):
        model = stats.GroupedMeans(stats.GroupSizes((size,) * 40), 0.2, icc, bounded=bounded)
        assert model.error(0.0) >= 0.0
        assert 0.0 <= model.chance(0.01, 0.05) <= model.chance(0.2, 0.05) <= 1.0
        assert 0.0 <= model.margin_chance(0.05, 0.05, True) <= 1.0


def test_many_groups_of_one_question_are_the_noncentral_t() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    model = stats.GroupedMeans(stats.GroupSizes((1.0,) * 400), 0.2, 0.0, bounded=False)
    error = (0.2 / 400) ** 0.5
    expected = scipy_stats.nct.sf(scipy_stats.t.ppf(0.975, 399), 399, 3.0)
    assert model.chance(3 * error, 0.05) == pytest.approx(expected, abs=2e-3)


def test_what_no_test_sees_widens_the_estimate_and_not_its_critical_value() -> None:
    error = (0.2 / 400) ** 0.5
    model = stats.GroupedMeans(stats.GroupSizes((1.0,) * 400), 0.2, 0.0, bounded=False, extra=3 * error**2)
    assert model.error(0.0) == pytest.approx(error)
    # The estimate's standard error is twice as large: P(3 + 2 z > 1.966).
    assert model.chance(3 * error, 0.05) == pytest.approx(0.6974, abs=2e-3)


def test_the_bounded_mean_of_groups_reaches_as_far_as_drawn_exponentials_say() -> None:
    sizes = np.array([1.0] * 10 + [2.0] * 10 + [10.0, 20.0])
    residuals = np.array([0.5, -0.5] * 5 + [1.0, -1.0] * 5 + [4.0, -4.0])
    drawn = _Drawn(sizes, residuals[None, :], np.ones(1), np.ones(1, dtype=np.bool_))
    reach = float(drawn.bounded(np.array([True]), 1.0, 0.05, 0.5, 0.0)[0])
    generator = np.random.default_rng(0)
    sums = generator.exponential(size=(200_000, len(sizes))) @ (sizes * reach + residuals)
    assert (sums < generator.exponential(10.0, size=200_000)).mean() == pytest.approx(0.05, abs=0.002)


def test_more_questions_in_the_same_groups_leave_what_the_groups_differ_by() -> None:
    sizes = stats.GroupSizes(TEN)
    endless = stats.GroupedMeans(sizes.of_questions(1e9), 0.2, 0.1)
    groups_alone = stats.GroupedMeans(stats.GroupSizes((1.0,) * 40), 0.2 * 0.1, 0.0)
    assert endless.error(0.0) == pytest.approx(groups_alone.error(0.0)) == pytest.approx((0.02 / 40) ** 0.5)
    found = [stats.detectable(stats.GroupedMeans(one, 0.2, 0.1), 0.05, 0.8) for one in (sizes, sizes.of_groups(160))]
    assert found[0] is not None and found[1] is not None and found[1] < 0.52 * found[0] < endless.error(0.0) * 2.2


def test_the_correlation_that_is_read_off_is_the_one_that_cr2_expects() -> None:
    sizes = stats.GroupSizes((2.0, 5.0, 9.0, 30.0))
    assert stats.icc_of(sizes, 0.3, 0.3 * sizes.seen(0.25).expected) == pytest.approx(0.25)


def test_two_groups_find_nothing_and_three_may() -> None:
    two, three = (stats.GroupedMeans(stats.GroupSizes((200.0,) * groups), 0.01, 0.0) for groups in (2, 3))
    assert two.chance(0.9, 0.05) == 0.0 < three.chance(0.9, 0.05)
    assert two.margin_chance(0.9, 0.05, True) == 0.0


def test_two_groups_and_groups_of_which_one_holds_nearly_all_have_no_figure() -> None:
    assert stats.detectable(stats.GroupedMeans(stats.GroupSizes((200.0, 200.0)), 0.2, 0.1), 0.05, 0.8) is None
    lopsided = stats.GroupedMeans(stats.GroupSizes((3000.0, *(10.0,) * 39)), 0.2, 0.1)
    assert stats.detectable(lopsided, 0.05, 0.8) is None and not lopsided.told(0.1)


def test_rare_answers_that_go_together_have_no_figure() -> None:
    """Found is .52 where .8 would be promised (40 groups, all of the 5 % one way, icc .3)."""
    assert stats.detectable(stats.GroupedMeans(stats.GroupSizes(TEN), 0.05, 0.3, counted=True), 0.05, 0.8) is None


# --------------------------------------------------------------------------- against the tests, simulated


@pytest.mark.parametrize(
    ("groups", "share", "icc"), [(8, 0.5, 0.1), (15, 0.2, 0.3), (25, 0.5, 0.1), (40, 0.2, 0.0), (40, 0.5, 0.5)]
)
def test_the_cluster_test_finds_what_is_promised(groups: int, share: float, icc: float) -> None:
    model = stats.GroupedMeans(stats.GroupSizes((10.0,) * groups), share, icc, counted=True)
    effect = stats.detectable(model, 0.05, 0.8)
    assert effect is not None
    generator, index = np.random.default_rng(groups), np.repeat(np.arange(groups), 10)
    found = [
        shown(stats.cluster_limits(differences(generator, index, max(share, effect), effect, icc), index, (-1.0, 1.0)))
        for _ in range(800)
    ]
    assert float(np.mean(found)) == pytest.approx(0.8, abs=NEAR)
