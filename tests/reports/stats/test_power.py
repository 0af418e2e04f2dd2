"""Power formulas against R and their stated figures."""

from __future__ import annotations

import pytest

import closed_forms
from nsd.reports import stats
from nsd.reports.stats.power import seeds_count
from r_records import CLOSE, RECORDS


def test_power_formulas_agree_with_r() -> None:
    (seeds,) = (record for record in RECORDS if record["name"] == "seeds")
    (mde,) = (record for record in RECORDS if record["name"] == "mde")
    assert stats.seeds_needed(0.02, 0.014) == seeds["found"]["unpaired"][0]
    assert stats.seeds_needed(0.02, 0.014, paired=True) == seeds["found"]["paired"][0]
    assert closed_forms.minimum_detectable_effect(0.2, 1319) == pytest.approx(mde["found"]["effect"][0], **CLOSE)
    needed = closed_forms.sample_size(0.03, 0.1, 0.15, 8, 0.12, 4)
    assert needed == mde["found"]["questions"][0]


@pytest.mark.parametrize(("n", "percent"), [(1319, 3.4), (500, 5.6), (164, 9.8)])
def test_detectable_effect_has_the_stated_figures(n: int, percent: float) -> None:
    effect = closed_forms.minimum_detectable_effect(0.2, n)
    assert effect is not None and round(100 * effect, 1) == percent


@pytest.mark.parametrize(("seeds", "p"), [(3, 0.10), (4, 0.029), (5, 0.008)])
def test_smallest_permutation_p_has_the_stated_figures(seeds: int, p: float) -> None:
    assert round(stats.smallest_permutation_p(seeds, seeds), 3) == p


def test_seeds_that_are_needed_are_two_at_least_and_no_more_than_the_limit() -> None:
    assert stats.seeds_needed(1.0, 0.01) == 2
    needed = stats.seeds_needed(0.02, 0.014)
    assert needed is not None and stats.seeds_needed(0.02, 0.014, limit=needed) == needed
    assert stats.seeds_needed(0.02, 0.014, limit=needed - 1) is None
    assert stats.seeds_needed(-0.02, 0.014) == needed


def test_the_smallest_p_of_paired_seeds_and_of_one_seed() -> None:
    assert (stats.smallest_permutation_p(5), stats.smallest_permutation_p(1, 1)) == (2 / 32, 1.0)
    assert stats.smallest_permutation_p(2, 4) == 2 / 15


@pytest.mark.parametrize(
    ("seeds", "arms", "times", "df"), [(None, 2, 1.959964, 0), (3, 2, 2.776445, 4), (3, 1, 4.302653, 2)]
)
def test_how_often_the_spread_of_seeds_counts(seeds: int | None, arms: int, times: float, df: int) -> None:
    assert seeds_count(seeds, arms, 0.05) == (pytest.approx(times, abs=1e-6), df)


def test_one_seed_is_never_enough_even_where_seeds_do_not_scatter() -> None:
    assert stats.seeds_needed(0.5, 0.0, limit=1) is None
    assert stats.seeds_needed(0.5, 0.0) == 2
