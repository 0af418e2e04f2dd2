"""Every function of nsd.reports.stats against an independent source: R, scipy.stats, statsmodels or a paper."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsd.reports.stats import significance as stats

RECORDS = json.loads((Path(__file__).parent / "r_reference.json").read_text())["records"]
CLOSE = {"abs": 1e-6, "rel": 1e-6}


def r_records(name: str) -> list[Any]:
    found = [record for record in RECORDS if record["name"] == name]
    assert found
    return [pytest.param(record["given"], record["found"], id=f"{name}-{i}") for i, record in enumerate(found)]


def one(values: dict[str, list[float]]) -> dict[str, Any]:
    """R has only vectors; a vector of one is a number here."""
    return {name: value[0] if len(value) == 1 else value for name, value in values.items()}


def limits(interval: stats.Interval | None) -> list[float]:
    assert interval is not None
    return [interval.low, interval.high]


@pytest.mark.parametrize(("given", "found"), r_records("mcnemar"))
def test_mcnemar_agrees_with_r(given: dict[str, Any], found: dict[str, Any]) -> None:
    given, found = one(given), one(found)
    assert stats.mcnemar(**given, method="exact").p == pytest.approx(found["exact"], **CLOSE)
    assert stats.mcnemar(**given).p == pytest.approx(found["midp"], **CLOSE)


@pytest.mark.parametrize(("given", "found"), r_records("wilson"))
def test_wilson_agrees_with_r(given: dict[str, Any], found: dict[str, Any]) -> None:
    given = one(given)
    assert limits(stats.wilson(given["x"], given["n"])) == pytest.approx(found["i95"], **CLOSE)
    assert limits(stats.wilson(given["x"], given["n"], 0.9)) == pytest.approx(found["i90"], **CLOSE)


@pytest.mark.parametrize(("given", "found"), r_records("paired_table"))
def test_paired_intervals_and_margin_tests_agree_with_r(given: dict[str, Any], found: dict[str, Any]) -> None:
    table = one(given)
    n, a_only, b_only = sum(table.values()), table["a_only"], table["b_only"]
    assert limits(stats.newcombe_paired(**table)) == pytest.approx(found["newcombe95"], **CLOSE)
    assert limits(stats.newcombe_paired(**table, level=0.9)) == pytest.approx(found["newcombe90"], **CLOSE)
    assert limits(stats.tango_interval(a_only, b_only, n)) == pytest.approx(found["tango95"], **CLOSE)
    assert limits(stats.tango_interval(a_only, b_only, n, 0.9)) == pytest.approx(found["tango90"], **CLOSE)
    no_worse = stats.margin_test_paired(a_only, b_only, n, 0.05, both_sides=False)
    same = stats.margin_test_paired(a_only, b_only, n, 0.05, both_sides=True)
    assert no_worse.p == pytest.approx(one(found)["noninferior"], **CLOSE)
    assert same.p == pytest.approx(max(one(found)["noninferior"], one(found)["upper_p"]), **CLOSE)


@pytest.mark.parametrize(("given", "found"), r_records("two_proportion"))
def test_two_proportions_agree_with_r(given: dict[str, Any], found: dict[str, Any]) -> None:
    given, found = one(given), one(found)
    result = stats.two_proportion(**given)
    assert result.p == pytest.approx(found["p"], **CLOSE)
    assert result.statistic is not None and result.statistic**2 == pytest.approx(found["chi2"], **CLOSE)
    assert limits(result.interval) == pytest.approx(found["newcombe"], **CLOSE)
    no_worse = stats.margin_test_unpaired(**given, margin=0.05, both_sides=False)
    assert no_worse.statistic == pytest.approx(found["fm_low"], **CLOSE)


@pytest.mark.parametrize(("given", "found"), r_records("paired_t"))
def test_paired_t_and_sign_flip_agree_with_r(given: dict[str, Any], found: dict[str, Any]) -> None:
    differences, found = np.array(given["d"]), one(found)
    result = stats.paired_t(differences)
    assert (result.statistic, result.p, result.df) == pytest.approx((found["t"], found["p"], found["df"]), **CLOSE)
    assert limits(result.interval) == pytest.approx(found["ci"], **CLOSE)
    assert stats.sign_flip(differences, seed=0).p == pytest.approx(found["sign_flip"], **CLOSE)


@pytest.mark.parametrize(("given", "found"), r_records("welch"))
def test_welch_agrees_with_r(given: dict[str, Any], found: dict[str, Any]) -> None:
    result, found = stats.welch_t(given["a"], given["b"]), one(found)
    assert (result.statistic, result.p, result.df) == pytest.approx((found["t"], found["p"], found["df"]), **CLOSE)
    assert limits(result.interval) == pytest.approx(found["ci"], **CLOSE)


@pytest.mark.parametrize(("given", "found"), r_records("tost_t"))
def test_margin_t_agrees_with_r(given: dict[str, Any], found: dict[str, Any]) -> None:
    differences, found = stats.paired_t(given["d"]), one(found)
    arguments = (differences.estimate, differences.standard_error, differences.df, given["margin"][0])
    assert stats.margin_test_t(*arguments, both_sides=False).p == pytest.approx(found["noninferior"], **CLOSE)
    same = stats.margin_test_t(*arguments, both_sides=True)
    assert same.p == pytest.approx(found["equivalence"], **CLOSE)
    assert limits(same.interval) == pytest.approx(found["ci90"], **CLOSE)


@pytest.mark.parametrize(("given", "found"), r_records("cluster_t"))
def test_cluster_t_agrees_with_r_and_statsmodels(given: dict[str, Any], found: dict[str, Any]) -> None:
    import statsmodels.api as sm

    found, result = one(found), stats.cluster_t(given["d"], given["cluster"])
    assert (result.standard_error, result.p) == pytest.approx((found["se"], found["p"]), **CLOSE)
    assert limits(result.interval) == pytest.approx(found["ci"], **CLOSE)
    fit = sm.OLS(given["d"], np.ones(len(given["d"]))).fit(
        cov_type="cluster", cov_kwds={"groups": np.array(given["cluster"], dtype=int)}, use_t=True
    )
    assert (result.standard_error, result.p) == pytest.approx((float(fit.bse[0]), float(fit.pvalues[0])), **CLOSE)


@pytest.mark.parametrize(("given", "found"), r_records("adjust"))
def test_families_agree_with_r_and_statsmodels(given: dict[str, Any], found: dict[str, Any]) -> None:
    from statsmodels.stats.multitest import multipletests

    assert stats.holm(given["p"]) == pytest.approx(found["holm"], **CLOSE)
    assert stats.benjamini_hochberg(given["p"]) == pytest.approx(found["bh"], **CLOSE)
    assert stats.holm(given["p"]) == pytest.approx(list(multipletests(given["p"], method="holm")[1]), **CLOSE)
    assert stats.benjamini_hochberg(given["p"]) == pytest.approx(
        list(multipletests(given["p"], method="fdr_bh")[1]), **CLOSE
    )


def test_power_formulas_agree_with_r() -> None:
    (seeds,) = (record for record in RECORDS if record["name"] == "seeds")
    (mde,) = (record for record in RECORDS if record["name"] == "mde")
    assert stats.seeds_needed(0.02, 0.014) == seeds["found"]["unpaired"][0]
    assert stats.seeds_needed(0.02, 0.014, paired=True) == seeds["found"]["paired"][0]
    assert stats.minimum_detectable_effect(0.2, 1319) == pytest.approx(mde["found"]["effect"][0], **CLOSE)
    needed = stats.sample_size(0.03, 0.1, 0.15, 8, 0.12, 4)
    assert needed == mde["found"]["questions"][0]


@pytest.mark.parametrize(("n", "percent"), [(1319, 3.4), (500, 5.6), (164, 9.8)])
def test_detectable_effect_has_the_stated_figures(n: int, percent: float) -> None:
    effect = stats.minimum_detectable_effect(0.2, n)
    assert effect is not None and round(100 * effect, 1) == percent


@pytest.mark.parametrize(("seeds", "p"), [(3, 0.10), (4, 0.029), (5, 0.008)])
def test_smallest_permutation_p_has_the_stated_figures(seeds: int, p: float) -> None:
    assert round(stats.smallest_permutation_p(seeds, seeds), 3) == p


def test_worked_examples_of_papers() -> None:
    # Newcombe 1998 (paired), table with 20, 12, 2, 16: 0.0562 to 0.3292 for p_1 - p_2.
    assert limits(stats.newcombe_paired(20, 12, 2, 16)) == pytest.approx([-0.3292, -0.0562], abs=5e-5)
    # Newcombe 1998 (unpaired), 56/70 against 48/80: 0.0524 to 0.3339 for p_1 - p_2.
    assert limits(stats.newcombe_unpaired(48, 80, 56, 70)) == pytest.approx([0.0524, 0.3339], abs=5e-5)
    # Fagerland, Lydersen, Laake 2014, complete response before and after consolidation therapy.
    assert stats.mcnemar(6, 16).p == pytest.approx(0.034690, abs=5e-7)
    assert limits(stats.newcombe_paired(59, 6, 16, 80)) == pytest.approx([0.0046, 0.1186], abs=5e-5)
    assert limits(stats.tango_interval(6, 16, 161)) == pytest.approx([0.0054, 0.1240], abs=5e-5)


def test_farrington_manning_is_the_miettinen_nurminen_cubic() -> None:
    """The closed form of Miettinen and Nurminen 1985, whose coefficient L1 is (n_0 d - N - 2 x_0) d + x.

    statsmodels 0.15 writes x_0 d for n_0 d there, so its score test differs in the third digit; R's numerical
    maximum of the likelihood (r_reference.json) and this closed form agree.
    """
    for right_a, n_a, right_b, n_b in ((135, 500, 162, 500), (9, 10, 3, 10), (56, 70, 48, 80)):
        for d in (-0.05, 0.1):
            n, right = n_a + n_b, right_a + right_b
            quadratic = ((n_b + 2 * n_a) * d - n - right) / n
            linear = ((n_a * d - n - 2 * right_a) * d + right) / n
            constant = right_a * d * (1 - d) / n
            roots = np.roots([1.0, quadratic, linear, constant])
            p_a = next(r.real for r in roots if abs(r.imag) < 1e-9 and max(0, -d) < r.real < min(1, 1 - d))
            error = math.sqrt(p_a * (1 - p_a) / n_a + (p_a + d) * (1 - p_a - d) / n_b)
            result = stats.margin_test_unpaired(right_a, n_a, right_b, n_b, margin=abs(d), both_sides=False)
            expected = (right_b / n_b - right_a / n_a - d) / error
            if d < 0:
                assert result.statistic == pytest.approx(expected, **CLOSE)
            else:
                no_better = stats.margin_test_unpaired(right_b, n_b, right_a, n_a, margin=d, both_sides=False)
                assert no_better.statistic == pytest.approx(-expected, **CLOSE)


def test_exact_sign_flip_of_binary_answers_is_the_exact_mcnemar_test() -> None:
    differences = np.repeat([-1.0, 1.0, 0.0], [75, 89, 1155])
    assert stats.sign_flip(differences, seed=0).p == pytest.approx(stats.mcnemar(75, 89, "exact").p, **CLOSE)


def test_monte_carlo_sign_flip_agrees_with_enumeration_and_scipy() -> None:
    from scipy.stats import permutation_test

    differences = np.random.default_rng(3).normal(0.25, 0.6, size=40)
    ours = stats.sign_flip(differences, seed=1, resamples=200_000)
    scipys = permutation_test(
        (differences,), np.mean, permutation_type="samples", vectorized=True, n_resamples=100_000, rng=1
    )
    assert ours.p is not None and abs(ours.p - float(scipys.pvalue)) < 4 * math.sqrt(2 * 0.05 / 100_000)
    few = differences[:14]
    assert stats.sign_flip(few, seed=0).p == pytest.approx(
        float(
            permutation_test((few,), np.mean, permutation_type="samples", vectorized=True, n_resamples=np.inf).pvalue
        ),
        **CLOSE,
    )


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


def test_two_level_without_seed_effect_is_close_to_the_question_level_t() -> None:
    """Two seeds with the same values: all uncertainty is in the questions."""
    generator = np.random.default_rng(0)
    a, b = generator.random(300), generator.random(300)
    both = stats.two_level(np.stack([a, a]), np.stack([b, b]))
    questions = stats.paired_t(b - a)
    assert both.standard_error == pytest.approx(questions.standard_error, rel=1e-9)
    assert both.p == pytest.approx(questions.p, rel=1e-6)
