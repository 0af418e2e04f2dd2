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
