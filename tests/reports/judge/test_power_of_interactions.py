"""What a declared interaction finds, against the test itself on drawn answers."""

from __future__ import annotations

import numpy as np
import pytest

from nsd.reports.judge.power import Claimed, Design, power_of
from nsd.reports.stats.heterogeneity import heterogeneity

SIZES = (100, 150, 250)


def found(design: Design, detect: float = 0.02) -> float | None:
    claimed = Claimed("b against a differs by level", "interaction", design=design)
    return power_of([claimed], detect=detect).claims[0].alone.detectable


@pytest.mark.slow
def test_the_difference_named_is_found_in_four_of_five_cases() -> None:
    """Discordance .2 in each group; b is ahead in the smallest one by what is named, and level in the others."""
    effect = found(Design(sum(SIZES), groups=SIZES))
    assert effect is not None
    random, labels = np.random.default_rng(5), np.repeat(np.arange(3), SIZES)
    ahead = np.where(labels == 0, effect, 0.0)
    hits = 0
    for trial in range(300):
        moved = random.random(len(labels)) < 0.2
        signs = np.where(random.random(len(labels)) < 0.5 + ahead / 0.4, 1.0, -1.0)
        p = heterogeneity(np.where(moved, signs, 0.0), labels, seed=trial, permutations=199).p
        hits += p is not None and p < 0.05
    assert hits / 300 == pytest.approx(0.8, abs=0.08)


def test_it_takes_more_than_the_difference_itself() -> None:
    whole = power_of([Claimed("b > a", design=Design(500))]).claims[0].alone.detectable
    halves = found(Design(500, groups=(250, 250)))
    assert whole is not None and halves is not None and halves == pytest.approx(2 * whole, rel=0.05)


@pytest.mark.parametrize("groups", [(), (500,), (495, 5)])
def test_fewer_than_two_groups_of_ten_have_no_figure(groups: tuple[int, ...]) -> None:
    assert found(Design(500, groups=groups)) is None


def test_seeds_are_not_what_it_takes() -> None:
    claimed = Claimed("b against a differs by level", "interaction", design=Design(500, seeds=3, groups=(250, 250)))
    (one,) = power_of([claimed]).claims
    assert (one.about, one.alone.seeds, one.smallest_p) == ("checkpoint", None, None)
    assert one.alone.questions is not None and one.alone.questions > 500


def test_samples_take_away_what_is_noise_inside_the_groups() -> None:
    """All variance may be noise of samples: .2 / 4 of four of them finds half of what .2 of one does."""
    halves = (250, 250)
    assert found(Design(500, groups=halves), detect=0.06) == pytest.approx(2.80 * 2 * (0.2 / 500) ** 0.5, rel=0.01)
    claimed = Claimed("b against a differs by level", "interaction", design=Design(500, groups=halves))
    (one,) = power_of([claimed], detect=0.06).claims
    # (2.80 * 2)^2 * .2 / (500 * .06^2) = 3.49
    assert (one.alone.samples, one.alone.samples_at_least) == (None, 4)
