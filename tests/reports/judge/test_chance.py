"""The chance beside a verdict: of what the comparison speaks of, with its prior, and none where none is known."""

from __future__ import annotations

import numpy as np
import pytest

from nsd.reports import stats
from nsd.reports.judge.compare import compare_runs
from nsd.reports.stats.chance import PRIOR_OF_COUNTS, PRIOR_OF_T, chance_by_counts, chance_by_t
from toy_results import Results


@pytest.fixture
def results() -> Results:
    """low .4 and high .6 of the same 50 questions, nested: 10 that only high has right."""
    results = Results()
    results.add("low", [1.0] * 20 + [0.0] * 30)
    results.add("high", [1.0] * 30 + [0.0] * 20)
    return results


@pytest.mark.parametrize("margin", [None, 0.1])
def test_right_or_wrong_answers_are_counted(results: Results, margin: float | None) -> None:
    (found,) = compare_runs(results.connection, ["low", "high"], margin=margin)
    assert found.chance is not None and found.chance.prior == PRIOR_OF_COUNTS
    assert found.chance.share == chance_by_counts(10, 0, 40, margin or 0.0) and found.chance.margin == (margin or 0.0)
    assert found.to_json()["chance"] == {
        "share": found.chance.share,
        "margin": margin or 0.0,
        "prior": PRIOR_OF_COUNTS,
    }


def test_means_of_samples_rest_on_their_spread() -> None:
    results, generator = Results(), np.random.default_rng(3)
    a, b = (generator.binomial(4, rate, 60) / 4 for rate in (0.4, 0.5))
    results.add("a", a.tolist(), metric="avg@4")
    results.add("b", b.tolist(), metric="avg@4")
    (found,) = compare_runs(results.connection, ["a", "b"])
    d = b - a
    by_hand = chance_by_t(float(d.mean()), float(d.std(ddof=1) / np.sqrt(60)), 59)
    assert found.chance is not None and found.chance.prior == PRIOR_OF_T
    assert found.chance.share == pytest.approx(by_hand, abs=1e-12)


def test_a_recipe_beats_another_by_more_than_the_margin_with_the_chance_of_its_t() -> None:
    results = Results()
    for seed, (base, tuned) in enumerate([(20, 26), (22, 31), (19, 28)], 1):
        results.add(f"s/base/seed{seed}", [1.0] * base + [0.0] * (40 - base))
        results.add(f"s/tuned/seed{seed}", [1.0] * tuned + [0.0] * (40 - tuned))
    (found,) = compare_runs(results.connection, ["s/base", "s/tuned"], margin=0.1, test="seeds")
    t = stats.welch_t(np.array([20, 22, 19]) / 40, np.array([26, 31, 28]) / 40)
    assert t.estimate is not None and t.standard_error is not None and t.df is not None
    assert found.chance is not None and (found.chance.margin, found.chance.prior) == (0.1, PRIOR_OF_T)
    assert found.chance.share == pytest.approx(chance_by_t(t.estimate, t.standard_error, t.df, 0.1))


def test_without_a_spread_there_is_none() -> None:
    results = Results()
    for name in ("a", "b"):
        results.add(name, [0.25] * 30, metric="avg@4")
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.chance is None and found.to_json()["chance"] is None
