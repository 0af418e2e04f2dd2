"""Every interval against R, scipy.stats or a paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nsd.reports import stats
from r_records import CLOSE, limits, one, r_records


@pytest.mark.parametrize(("given", "found"), r_records("wilson"))
def test_wilson_agrees_with_r(given: dict[str, Any], found: dict[str, Any]) -> None:
    given = one(given)
    assert limits(stats.wilson(given["x"], given["n"])) == pytest.approx(found["i95"], **CLOSE)
    assert limits(stats.wilson(given["x"], given["n"], 0.9)) == pytest.approx(found["i90"], **CLOSE)


@pytest.mark.parametrize(("given", "found"), r_records("paired_table"))
def test_paired_intervals_agree_with_r(given: dict[str, Any], found: dict[str, Any]) -> None:
    table = one(given)
    n, a_only, b_only = sum(table.values()), table["a_only"], table["b_only"]
    assert limits(stats.newcombe_paired(**table)) == pytest.approx(found["newcombe95"], **CLOSE)
    assert limits(stats.newcombe_paired(**table, level=0.9)) == pytest.approx(found["newcombe90"], **CLOSE)
    assert limits(stats.tango_interval(a_only, b_only, n)) == pytest.approx(found["tango95"], **CLOSE)
    assert limits(stats.tango_interval(a_only, b_only, n, 0.9)) == pytest.approx(found["tango90"], **CLOSE)


def test_worked_examples_of_papers() -> None:
    # Newcombe 1998 (paired), table with 20, 12, 2, 16: 0.0562 to 0.3292 for p_1 - p_2.
    assert limits(stats.newcombe_paired(20, 12, 2, 16)) == pytest.approx([-0.3292, -0.0562], abs=5e-5)
    # Newcombe 1998 (unpaired), 56/70 against 48/80: 0.0524 to 0.3339 for p_1 - p_2.
    assert limits(stats.newcombe_unpaired(48, 80, 56, 70)) == pytest.approx([0.0524, 0.3339], abs=5e-5)
    # Fagerland, Lydersen, Laake 2014, complete response before and after consolidation therapy.
    assert limits(stats.newcombe_paired(59, 6, 16, 80)) == pytest.approx([0.0046, 0.1186], abs=5e-5)
    assert limits(stats.tango_interval(6, 16, 161)) == pytest.approx([0.0054, 0.1240], abs=5e-5)


def test_bca_agrees_with_scipy_up_to_resampling() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(5).exponential(size=60)
    ours = stats.bca_bootstrap(values, seed=0, resamples=100_000)
    scipys = bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    assert ours is not None and ours.name == "bootstrap BCa"
    assert limits(ours) == pytest.approx([scipys.low, scipys.high], abs=0.01)
    percentile = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert limits(stats.cluster_bootstrap(values, seed=0, resamples=100_000)) == pytest.approx(
        [percentile.low, percentile.high], abs=0.01
    )
