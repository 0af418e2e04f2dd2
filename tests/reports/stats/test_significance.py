"""Every test and every adjustment against R, scipy.stats, statsmodels or a paper."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nsd.reports import stats
from r_records import CLOSE, limits, one, r_records


@pytest.mark.parametrize(("given", "found"), r_records("mcnemar"))
def test_mcnemar_agrees_with_r(given: dict[str, Any], found: dict[str, Any]) -> None:
    given, found = one(given), one(found)
    assert stats.mcnemar(**given, method="exact").p == pytest.approx(found["exact"], **CLOSE)
    assert stats.mcnemar(**given).p == pytest.approx(found["midp"], **CLOSE)


@pytest.mark.parametrize(("given", "found"), r_records("paired_table"))
def test_paired_margin_tests_agree_with_r(given: dict[str, Any], found: dict[str, Any]) -> None:
    table, found = one(given), one(found)
    n, a_only, b_only = sum(table.values()), table["a_only"], table["b_only"]
    no_worse = stats.margin_test_paired(a_only, b_only, n, 0.05, both_sides=False)
    same = stats.margin_test_paired(a_only, b_only, n, 0.05, both_sides=True)
    assert no_worse.p == pytest.approx(found["noninferior"], **CLOSE)
    assert same.p == pytest.approx(max(found["noninferior"], found["upper_p"]), **CLOSE)


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


def test_seeds_that_all_have_one_mean_differ_by_nothing() -> None:
    note = "every seed of both arms has the same mean"
    found = stats.Result("Welch t on seed means", 0.0, 1.0, 0.0, note=note)
    assert stats.welch_t([0.3, 0.3], [0.3, 0.3, 0.3]) == found


@pytest.mark.parametrize(("given", "found"), r_records("tost_t"))
def test_margin_t_agrees_with_r(given: dict[str, Any], found: dict[str, Any]) -> None:
    differences, found = stats.paired_t(given["d"]), one(found)
    assert differences.estimate is not None and differences.standard_error is not None and differences.df is not None
    t = stats.Student(differences.estimate, differences.standard_error, differences.df)
    margin = given["margin"][0]
    assert stats.margin_p(t, margin, both_sides=False) == pytest.approx(found["noninferior"], **CLOSE)
    assert stats.margin_p(t, margin, both_sides=True) == pytest.approx(found["equivalence"], **CLOSE)
    assert limits(stats.interval_of(t, 0.9)) == pytest.approx(found["ci90"], **CLOSE)


def cr2_by_matrices(d: Any, groups: Any) -> tuple[float, float]:
    """Standard error and df of clubSandwich's CR2 for a mean, from the matrices of Pustejovsky and Tipton 2018."""
    n = len(d)
    residual_maker = np.eye(n) - np.ones((n, n)) / n
    rows, squared = [], 0.0
    for group in np.unique(groups):
        mine = groups == group
        values, vectors = np.linalg.eigh(residual_maker[np.ix_(mine, mine)])
        weights = vectors @ np.diag(1 / np.sqrt(values)) @ vectors.T @ np.ones(mine.sum()) / n
        squared += float(weights @ (residual_maker @ d)[mine]) ** 2
        rows.append(residual_maker[mine].T @ weights)
    gram = np.array(rows) @ np.array(rows).T  # under independent questions, as clubSandwich takes them
    return math.sqrt(squared), float(np.trace(gram) ** 2 / (gram**2).sum())


def test_cr2_agrees_with_its_matrices_and_its_df_with_independent_questions() -> None:
    from nsd.reports.stats.clusters import _cluster_df

    generator = np.random.default_rng(2)
    groups = np.repeat(np.arange(7), [3, 9, 1, 14, 5, 2, 20])
    differences = generator.normal(0.1, 0.5, len(groups))
    error, df = cr2_by_matrices(differences, groups)
    assert stats.cluster_t(differences, groups).standard_error == pytest.approx(error, **CLOSE)
    assert _cluster_df(np.bincount(groups).astype(float), 0.0) == pytest.approx(df, **CLOSE)


def test_df_of_correlated_groups_agree_with_their_matrices() -> None:
    from nsd.reports.stats.clusters import _cluster_df

    sizes = np.array([3, 9, 1, 14, 5])
    groups, n = np.repeat(np.arange(5), sizes), int(sizes.sum())
    working = 0.7 * np.eye(n) + 0.3 * (groups[:, None] == groups[None, :])
    residual_maker = np.eye(n) - np.ones((n, n)) / n
    rows = np.array([(residual_maker @ (groups == g)) / n / math.sqrt(1 - sizes[g] / n) for g in range(5)])
    gram = rows @ working @ rows.T
    assert _cluster_df(sizes.astype(float), 0.3) == pytest.approx(np.trace(gram) ** 2 / (gram**2).sum(), **CLOSE)


def test_groups_of_one_size_are_the_t_test_of_their_means() -> None:
    import statsmodels.api as sm
    from scipy.stats import ttest_1samp

    generator = np.random.default_rng(4)
    differences, groups = generator.normal(0.1, 0.5, 80), np.repeat(np.arange(8), 10)
    result, theirs = stats.cluster_t(differences, groups), ttest_1samp(differences.reshape(8, 10).mean(axis=1), 0)
    assert (result.statistic, result.p, result.df) == pytest.approx((theirs.statistic, theirs.pvalue, 7.0), **CLOSE)
    fit = sm.OLS(differences, np.ones(80)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    assert (result.standard_error, result.p) == pytest.approx((float(fit.bse[0]), float(fit.pvalues[0])), **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize(("given", "found"), r_records("adjust"))
def test_families_agree_with_r_and_statsmodels(given: dict[str, Any], found: dict[str, Any]) -> None:
    from statsmodels.stats.multitest import multipletests

    assert stats.holm(given["p"]) == pytest.approx(found["holm"], **CLOSE)
    assert stats.benjamini_hochberg(given["p"]) == pytest.approx(found["bh"], **CLOSE)
    assert stats.holm(given["p"]) == pytest.approx(list(multipletests(given["p"], method="holm")[1]), **CLOSE)
    assert stats.benjamini_hochberg(given["p"]) == pytest.approx(
        list(multipletests(given["p"], method="fdr_bh")[1]), **CLOSE
    )


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


def test_drawn_sign_flips_that_reach_the_sum_itself_count() -> None:
    # Ten of 1, of which seven are positive, and ten of the root of 2, of which six are: 4 + 2 root 2.
    differences = np.repeat([1.0, -1.0, math.sqrt(2), -math.sqrt(2)], [7, 3, 6, 4])
    sums, chances = np.arange(-10, 11, 2), np.array([math.comb(10, k) for k in range(11)]) / 2**10
    whole = np.abs(sums[:, None] + math.sqrt(2) * sums[None, :])
    reached = whole >= 4 + 2 * math.sqrt(2) - 1e-9
    expected = float((chances[:, None] * chances[None, :])[reached].sum())
    found = stats.sign_flip(differences, seed=1, resamples=40_000)
    assert found.p == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 40_000) / 1.5)
    assert expected - float((chances[:, None] * chances[None, :])[whole > 4 + 2 * math.sqrt(2) + 1e-9].sum()) > 0.03
    assert found.estimate == pytest.approx(differences.mean()) and found.name == "sign-flip permutation (40000 draws)"


def test_a_few_flips_are_counted_one_by_one() -> None:
    # Of the eight signs of 1, root 2 and pi two reach the sum of all.
    values = np.array([1.0, math.sqrt(2), math.pi])
    found, mean = stats.sign_flip(values, seed=0), float(values.mean())
    assert found == stats.Result("sign-flip permutation (exact)", mean, 0.25, mean)


def test_margin_tests_show_the_interval_of_their_level() -> None:
    paired = stats.margin_test_paired(3, 5, 100, 0.05, both_sides=False)
    assert paired.interval == stats.tango_interval(3, 5, 100, 0.9)
    assert stats.margin_test_paired(3, 5, 100, 0.05, False, alpha=0.025).interval == stats.tango_interval(3, 5, 100)
    same = stats.margin_test_paired(0, 0, 100, 0.05, both_sides=True)
    assert (same.p, same.estimate) == (pytest.approx(0.95**100), 0.0)
    assert same.interval is not None and same.interval.high == pytest.approx(1 - 0.05**0.01)
    assert same.name == "TOST equivalence (rule of three: no answer differs)"
    unpaired = stats.margin_test_unpaired(30, 100, 35, 100, 0.05, both_sides=False)
    assert unpaired.interval == stats.newcombe_unpaired(30, 100, 35, 100, 0.9)


def test_margin_tests_of_nothing_say_so() -> None:
    paired = stats.margin_test_paired(0, 0, 0, 0.05, both_sides=True)
    assert paired == stats.Result(
        "TOST equivalence (Tango score)", None, None, None, note="no shared question: nothing to test"
    )
    unpaired = stats.margin_test_unpaired(0, 0, 3, 5, 0.05, both_sides=False)
    assert unpaired == stats.Result(
        "non-inferiority (score, unpaired)", None, None, None, note="an arm without any question: nothing to test"
    )


def test_worked_example_of_a_paper() -> None:
    # Fagerland, Lydersen, Laake 2014, complete response before and after consolidation therapy.
    assert stats.mcnemar(6, 16).p == pytest.approx(0.034690, abs=5e-7)


def test_tests_of_nothing_have_a_name_and_a_reason() -> None:
    nothing = np.zeros(0)
    flipped = stats.Result("sign-flip permutation", None, None, None, note="no shared question: nothing to test")
    assert stats.sign_flip(nothing, seed=0) == flipped
    assert stats.paired_t(nothing) == stats.Result(
        "paired t", None, None, None, note="nothing in common: nothing to test"
    )
    counts = "two-proportion z, unpaired"
    for given in ((0, 0, 3, 5), (3, 5, 0, 0)):
        assert stats.two_proportion(*given) == stats.Result(
            counts, None, None, None, note="an arm without any question: nothing to test"
        )


def test_one_value_and_values_all_alike_have_no_test() -> None:
    alone = stats.Result("paired t", None, None, 0.5, note="one difference alone: no test and no interval")
    assert stats.paired_t([0.5]) == alone
    note = "every difference is the same: no spread to test against"
    assert stats.paired_t([0.5, 0.5]) == stats.Result("paired t", None, None, 0.5, note=note)
    assert stats.sign_flip([0.0, 0.0], seed=0) == stats.Result(
        "sign-flip permutation", 0.0, 1.0, 0.0, note="every difference is zero"
    )


@pytest.mark.parametrize(("right", "which"), [(5, "right"), (0, "wrong")])
def test_arms_that_are_all_right_or_all_wrong_do_not_differ(right: int, which: str) -> None:
    found = stats.two_proportion(right, 5, right, 5)
    interval = stats.newcombe_unpaired(right, 5, right, 5)
    note = f"every answer of both arms is {which}"
    assert found == stats.Result("two-proportion z, unpaired", 0.0, 1.0, 0.0, interval, note=note)


def test_a_t_test_tells_its_estimate_error_and_interval() -> None:
    # 1, 2, 3: mean 2, standard deviation 1, error 1 / root 3; t of 2 df at .975 is 4.302653.
    found, error = stats.paired_t([1.0, 2.0, 3.0]), 1 / math.sqrt(3)
    assert (found.name, found.estimate, found.df, found.standard_error) == ("paired t", 2.0, 2.0, pytest.approx(error))
    assert limits(found.interval) == pytest.approx([2 - 4.302653 * error, 2 + 4.302653 * error], abs=1e-6)
    assert found.interval is not None and (found.interval.name, found.interval.level) == ("t", 0.95)


def test_all_flips_one_way_are_two_of_all_patterns() -> None:
    assert stats.sign_flip([0.5, 1.0, 0.25, 0.5], seed=0).p == 2 / 16
    # Of 1, 1, 1 and -1 the sum is 2: patterns with one or no sign turned, either way, 10 of 16.
    assert stats.sign_flip([1.0, 1.0, 1.0, -1.0], seed=0).p == pytest.approx(10 / 16)


def test_families_by_hand() -> None:
    p_values = [0.04, 0.01, 0.03]
    assert stats.adjust(p_values, "holm") == pytest.approx([0.06, 0.03, 0.06])
    assert stats.adjust(p_values, "bonferroni") == pytest.approx([0.12, 0.03, 0.09])
    assert stats.adjust(p_values, "bh") == pytest.approx([0.04, 0.03, 0.04])
    assert stats.adjust(p_values, "none") == p_values
    assert stats.adjust([0.6, 0.9], "holm") == [1.0, 1.0]
    with pytest.raises(ValueError, match="correction 'sidak': one of holm, bonferroni, bh, none"):
        stats.adjust(p_values, "sidak")


def test_a_tiny_margin_of_arms_that_are_always_right_is_kept_by_as_much_as_so_many_answers_say() -> None:
    # The likeliest shares are 1 and 1 - margin, so that z is margin / sqrt(margin (1 - margin) / n).
    found = stats.margin_test_unpaired(200_000, 200_000, 200_000, 200_000, margin=1e-5, both_sides=False)
    assert found.statistic == pytest.approx((1e-5 * 200_000 / (1 - 1e-5)) ** 0.5, rel=1e-5)
    assert found.p == pytest.approx(0.078649, abs=1e-5)
