"""The chance that one arm beats another by more than a margin, against simulation and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from nsd.reports.stats.chance import chance_by_counts, chance_by_t


@pytest.mark.parametrize("margin", [-0.05, 0.0, 0.02, 0.1])
@pytest.mark.parametrize(("won", "lost", "ties"), [(30, 18, 52), (0, 0, 20), (5, 0, 3), (3, 9, 400), (1, 0, 0)])
def test_counts_agree_with_draws_from_the_posterior(won: int, lost: int, ties: int, margin: float) -> None:
    shares = np.random.default_rng(1).dirichlet([won + 0.5, lost + 0.5, ties + 0.5], 400_000)
    drawn = float((shares[:, 0] - shares[:, 1] > margin).mean())
    assert chance_by_counts(won, lost, ties, margin) == pytest.approx(drawn, abs=0.004)


def test_without_ties_it_is_the_tail_of_a_beta_where_ties_are_as_good_as_impossible() -> None:
    # Of many questions none tied: s is near 1, and what is left is Beta(won + 1/2, lost + 1/2) above 1/2.
    from scipy.stats import beta

    assert chance_by_counts(620, 580, 0) == pytest.approx(beta(620.5, 580.5).sf(0.5), abs=1e-9)


def test_turned_round_it_is_what_is_left() -> None:
    assert chance_by_counts(12, 7, 30) + chance_by_counts(7, 12, 30) == pytest.approx(1.0, abs=1e-12)
    assert chance_by_counts(7, 7, 30) == pytest.approx(0.5, abs=1e-12)


def test_at_margin_zero_the_t_is_one_less_the_one_sided_p() -> None:
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(2).normal(0.1, 1.0, 40)
    spread = values.std(ddof=1) / np.sqrt(len(values))
    p = ttest_1samp(values, 0.0, alternative="greater").pvalue
    assert chance_by_t(float(values.mean()), float(spread), 39) == pytest.approx(1 - p, abs=1e-9)
    assert [chance_by_t(0.1, 0.0, 9, margin) for margin in (0.0, 0.1, 0.2)] == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(("counts", "margin"), [((1, 1, 1), 1.5), ((-1, 1, 1), 0.0)])
def test_what_cannot_be_is_refused(counts: tuple[int, int, int], margin: float) -> None:
    with pytest.raises(ValueError, match=r"margin|negative"):
        chance_by_counts(*counts, margin)
