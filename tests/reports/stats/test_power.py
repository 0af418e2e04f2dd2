"""Power formulas against R and their stated figures."""

from __future__ import annotations

import pytest

import closed_forms
from nsd.reports import stats
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


def test_seeds_without_end_count_by_the_normal_and_three_in_two_arms_by_four_degrees_of_freedom() -> None:
    assert stats.seeds_count(None, 2, 0.05) == (pytest.approx(1.959964), 0)
    assert stats.seeds_count(3, 2, 0.05) == (pytest.approx(2.776445), 4)
    assert stats.seeds_count(4, 1, 0.10) == (pytest.approx(2.353363), 3)


def test_one_seed_is_never_enough_even_where_seeds_do_not_scatter() -> None:
    assert stats.seeds_needed(0.5, 0.0, limit=1) is None
    assert stats.seeds_needed(0.5, 0.0) == 2
