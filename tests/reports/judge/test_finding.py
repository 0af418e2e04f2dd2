"""Designs behind two arms at hand: their spread, its range, and what more questions or seeds make of them."""

from __future__ import annotations

import numpy as np
import pytest

import closed_forms
from nsd.reports import stats
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.finding import Found, design_of, told_apart, typical_variance, variance_of
from nsd.reports.judge.pairs import Evidence, gather
from nsd.reports.judge.runs import resolve
from nsd.reports.judge.values import load_values
from toy_results import Results, table_runs

SEEDS = {"a": (0.30, 0.36, 0.33), "b": (0.34, 0.35, 0.39)}


@pytest.fixture
def results() -> Results:
    return Results()


def evidence(results: Results, *names: str, test: str | None = None) -> Evidence:
    arms, _ = resolve(results.connection, names)
    return gather(*arms, load_values(results.connection, arms), test=test)


def seeded(results: Results) -> None:
    for name, means in SEEDS.items():
        for seed, mean in enumerate(means, 1):
            results.add(f"s/{name}/seed{seed}", [1.0] * round(100 * mean) + [0.0] * (100 - round(100 * mean)))


def designed(found: Evidence) -> Found:
    design = design_of(found)
    assert design is not None
    return design


def test_paired_seed_means_find_what_their_t_finds(results: Results) -> None:
    seeded(results)
    a, b = (np.array(SEEDS[name]) for name in "ab")
    (found,) = compare_runs(results.connection, ["s"], test="seeds-paired")
    expected = closed_forms.t_detectable(((b - a).var(ddof=1) / 3) ** 0.5, 2)
    assert found.detectable == pytest.approx(expected, rel=1e-3)


def test_unpaired_seed_means_have_a_part_of_each_arm(results: Results) -> None:
    seeded(results)
    variance = sum(np.array(SEEDS[name]).var(ddof=1) for name in "ab")
    part = stats.Part(pytest.approx(variance / 3 / 2), 2)  # type: ignore[arg-type]
    found = designed(evidence(results, "s/a", "s/b", test="seeds")).at()
    assert found == stats.Means(stats.Parts(0.0, 0.0, (part, part), one_df=True))


@pytest.mark.parametrize(("test", "df"), [("seeds-paired", 2), ("seeds", 4)])
def test_the_range_of_the_spread_of_seeds_is_that_of_its_degrees_of_freedom(
    results: Results, test: str, df: int
) -> None:
    seeded(results)
    found = designed(evidence(results, "s/a", "s/b", test=test))
    assert (found.questions, found.seeds, found.scales) == (100, 3, stats.variance_factors(df))
    assert found.at(seeds=1) is None and found.at(seeds=2) is not None


def test_two_levels_have_the_range_of_both_arms_seeds(results: Results) -> None:
    seeded(results)
    found = designed(evidence(results, "s/a", "s/b"))
    assert (found.questions, found.seeds, found.scales) == (100, 3, stats.variance_factors(4))
    assert found.at(questions=19) is None and found.at(questions=20) is not None and found.at(seeds=1) is None


def test_two_levels_have_the_parts_of_questions_seeds_and_what_both_leave(results: Results) -> None:
    seeded(results)
    found = evidence(results, "s/a", "s/b")
    assert found.seed_values is not None and found.differences is not None
    left = [stats.residual_of_seeds(block, None) for block in found.seed_values]
    moved = [float(block.mean(axis=1).var(ddof=1)) for block in found.seed_values]
    own = max(0.0, float(found.differences.var(ddof=1)) / 100 - sum(left) / 3)
    over = tuple(
        stats.Part(pytest.approx((2 * max(0.0, whole - one) + one) / 3), 2)  # type: ignore[arg-type]
        for whole, one in zip(moved, left, strict=True)
    )
    noise = pytest.approx(sum(left) / 3)
    parts = stats.Parts(pytest.approx(own + sum(left) / 3), 99.0, over, noise)  # type: ignore[arg-type]
    assert designed(found).at(scale=2.0) == stats.Means(parts, units=100)


def test_a_table_has_the_share_that_differs_with_its_exact_range(results: Results) -> None:
    table_runs(results, "a", "b", 40, 8, 12, 40)
    found = designed(evidence(results, "a", "b"))
    exact = stats.exact_binomial(20, 100, 0.95)
    assert exact is not None and found.scales == pytest.approx((exact.low / 0.2, exact.high / 0.2))
    assert found.at() == stats.PairedShares(100, 0.2, False)
    assert found.at(questions=7, scale=2.0) == stats.PairedShares(7, 0.4, False)
    assert found.at(scale=9.0) == stats.PairedShares(100, 1.0, False)
    strict = designed(evidence(results, "a", "b", test="mcnemar-exact"))
    assert strict.at() == stats.PairedShares(100, 0.2, True)


def test_counts_keep_their_ratio_at_any_number_of_questions(results: Results) -> None:
    results.add_counts("a", 30, 100)
    results.add_counts("b", 70, 150)
    found = designed(evidence(results, "a", "b"))
    assert (found.questions, found.seeds, found.scales) == (100, 1, None)
    assert found.at(questions=11) == stats.UnpairedShares(11, 16, 0.4)


@pytest.mark.parametrize("right", [0, 1])
def test_counts_that_are_all_right_or_all_wrong_have_no_design(results: Results, right: int) -> None:
    results.add_counts("a", 30 * right, 30)
    results.add_counts("b", 40 * right, 40)
    assert design_of(evidence(results, "a", "b")) is None


def test_the_range_of_a_variance_has_the_degrees_of_freedom_of_its_kurtosis(results: Results) -> None:
    """Of 40 differences half are .5 and half 0: deviations .25 each, m4 = 1/256, s^2 = .0625 * 40 / 39."""
    results.add("a", [0.5, 0.5] * 20, samples=2, metric="avg@2")
    results.add("b", [1.0, 0.5] * 20, samples=2, metric="avg@2")
    found = variance_of(evidence(results, "a", "b"))
    low, high = stats.variance_factors(160)  # so even that no more is believed than four a question
    assert found is not None and found[0] == pytest.approx(0.0625 * 40 / 39)
    assert found[1] == pytest.approx((found[0] * low, found[0] * high))


def test_the_range_of_a_skewed_variance_is_wider(results: Results) -> None:
    """Ten of 40 differences are 1: s^2 = .1875 * 40 / 39, m4 = .25 * .75^4 + .75 * .25^4."""
    results.add("a", [0.0] * 40, samples=2, metric="avg@2")
    results.add("b", [1.0, 0.0, 0.0, 0.0] * 10, samples=2, metric="avg@2")
    variance, m4 = 0.1875 * 40 / 39, 0.25 * 0.75**4 + 0.75 * 0.25**4
    low, high = stats.variance_factors(2 * variance**2 * 40 / (m4 - variance**2))
    found = variance_of(evidence(results, "a", "b", test="permutation"))
    assert found is not None and found[1] == pytest.approx((variance * low, variance * high))


def test_a_typical_variance_is_the_share_told_apart_or_that_of_the_differences(results: Results) -> None:
    table_runs(results, "a", "b", 40, 8, 12, 40)
    results.add("c", [0.5] * 10, samples=2, metric="avg@2")
    results.add("d", [1.0, 0.5] * 5, samples=2, metric="avg@2")
    of_table, of_means = evidence(results, "a", "b"), evidence(results, "c", "d")
    assert (told_apart(of_table), typical_variance(of_table)) == (20, 0.2)
    assert told_apart(of_means) is None and typical_variance(of_means) == pytest.approx(0.0625 * 10 / 9)
