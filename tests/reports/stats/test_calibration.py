"""How often each test cries wolf, and how often each interval holds: simulated, seeded, vectorised.

The rates are those that decide which test reports/stats/choose.py takes. Questions have a difficulty that both models
share, so that the answers to one question are correlated; "no effect" means equal true means.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from nsd.reports import stats

ALPHA = 0.05


@functools.cache
def midp(a_only: int, b_only: int) -> float:
    p = stats.mcnemar(a_only, b_only).p
    assert p is not None
    return p


@functools.cache
def exact(a_only: int, b_only: int) -> float:
    p = stats.mcnemar(a_only, b_only, "exact").p
    assert p is not None
    return p


def paired_tables(
    n: int, simulations: int, seed: int, shape: tuple[float, float] = (0.55, 0.85), effect: float = 0.0
) -> NDArray[np.int64]:
    """[simulations, 4] of both, a only, b only, neither, for question difficulties drawn from a Beta."""
    a, b = shape
    mean, square = a / (a + b), a * (a + 1) / ((a + b) * (a + b + 1))
    cells = [square, mean - square - effect / 2, mean - square + effect / 2, 1 - 2 * mean + square]
    return np.random.default_rng(seed).multinomial(n, cells, size=simulations)


def rate(p_values: list[float] | NDArray[np.float64]) -> float:
    return float((np.asarray(p_values) < ALPHA).mean())


def error_of(simulations: int, share: float = ALPHA) -> float:
    return math.sqrt(share * (1 - share) / simulations)


def test_paired_tests_keep_their_level_and_the_unpaired_one_wastes_it() -> None:
    simulations = 20_000
    tables = paired_tables(500, simulations, seed=1)
    midp_rate = rate([midp(a, b) for _, a, b, _ in tables.tolist()])
    exact_rate = rate([exact(a, b) for _, a, b, _ in tables.tolist()])
    both, a, b = tables[:, 0], tables[:, 1], tables[:, 2]
    share_a, share_b = (both + a) / 500, (both + b) / 500
    pooled = (share_a + share_b) / 2
    unpaired = np.abs(share_b - share_a) / np.sqrt(2 * pooled * (1 - pooled) / 500) > 1.959964
    assert abs(midp_rate - ALPHA) < 3 * error_of(simulations)
    assert 0.034 < exact_rate < 0.046
    assert abs(float(unpaired.mean()) - 0.012) < 4 * error_of(simulations, 0.012)
    assert float(unpaired.mean()) < exact_rate < midp_rate


def test_paired_tests_find_an_effect_that_the_unpaired_one_misses() -> None:
    simulations = 5_000
    tables = paired_tables(500, simulations, seed=2, effect=0.07)
    midp_power = rate([midp(a, b) for _, a, b, _ in tables.tolist()])
    exact_power = rate([exact(a, b) for _, a, b, _ in tables.tolist()])
    unpaired_power = rate(
        [float(stats.two_proportion(both + a, 500, both + b, 500).p or 0) for both, a, b, _ in tables.tolist()]
    )
    assert midp_power > exact_power > unpaired_power + 0.1


def sampled_differences(simulations: int, seed: int) -> NDArray[np.float64]:
    """[simulations, 100] differences of the means of 8 samples, each model with its own strength per question."""
    generator = np.random.default_rng(seed)
    common = generator.normal(0, 1.5, size=(simulations, 100))
    own = generator.normal(0, 0.7, size=(2, simulations, 100))
    right = generator.binomial(8, 1 / (1 + np.exp(-(common + own))))
    return np.stack([right[0], right[1]]).astype(np.float64)


@pytest.mark.slow
def test_pooling_k_samples_cries_wolf_and_question_means_do_not() -> None:
    simulations = 4_000
    right_a, right_b = sampled_differences(simulations, seed=3)
    generator = np.random.default_rng(4)
    # Sample s of one model is paired with sample s of the other: hypergeometric overlap given both totals.
    both = generator.hypergeometric(right_a.astype(int), 8 - right_a.astype(int), right_b.astype(int))
    a_only, b_only = (right_a - both).sum(axis=1), (right_b - both).sum(axis=1)
    pooled = rate([midp(int(a), int(b)) for a, b in zip(a_only, b_only, strict=True)])
    differences = (right_b - right_a) / 8
    t_rate = rate([float(stats.paired_t(row).p or 0) for row in differences])
    flip_rate = rate([float(stats.sign_flip(row, seed=0).p or 0) for row in differences])
    assert abs(pooled - 0.128) < 4 * error_of(simulations, 0.128)
    assert abs(t_rate - ALPHA) < 4 * error_of(simulations)
    assert abs(flip_rate - ALPHA) < 4 * error_of(simulations)


def seed_tables(sd: float, seeds: int, simulations: int, seed: int) -> NDArray[np.int64]:
    """[simulations, seeds, 3] of a only, b only, equal on 500 questions; each training shifts an arm's true mean."""
    generator = np.random.default_rng(seed)
    shift = generator.normal(0, sd * math.sqrt(2), size=(simulations, seeds))
    cells = np.stack([0.09 - shift / 2, 0.09 + shift / 2, np.full_like(shift, 0.82)], axis=-1)
    return generator.multinomial(500, np.clip(cells, 0.001, 1) / np.clip(cells, 0.001, 1).sum(-1, keepdims=True))


def test_ignoring_training_seeds_cries_wolf_the_more_the_seeds_differ() -> None:
    simulations = 6_000
    rates = []
    for sd in (0.008, 0.014, 0.029):
        tables = seed_tables(sd, 1, simulations, seed=5)[:, 0]
        rates.append(rate([midp(a, b) for a, b, _ in tables.tolist()]))
    assert 0.07 < rates[0] < 0.12 and 0.16 < rates[1] < 0.24 and 0.40 < rates[2] < 0.50


def test_pooling_more_seeds_does_not_help() -> None:
    tables = seed_tables(0.014, 5, 4_000, seed=6).sum(axis=1)
    assert rate([midp(a, b) for a, b, _ in tables.tolist()]) > 0.15


@pytest.mark.parametrize(("seeds", "scatter", "least", "most"), [((3, 3), 0.1, 0.0, 0.065), ((2, 8), 0.4, 0.09, 1.0)])
def test_unequal_scatter_breaks_welch_where_the_seeds_are_unequal(
    seeds: tuple[int, int], scatter: float, least: float, most: float
) -> None:
    generator, simulations = np.random.default_rng(8), 4_000
    arms = [generator.normal(0, sd, (simulations, count)) for sd, count in zip((1.0, scatter), seeds, strict=True)]
    found = rate([float(stats.welch_t(a, b).p or 0) for a, b in zip(*arms, strict=True)])
    assert least < found < most + 3 * error_of(simulations)


@pytest.mark.slow
def test_tests_on_seed_means_keep_their_level() -> None:
    simulations = 6_000
    generator = np.random.default_rng(7)
    for seeds in (3, 5):
        means = generator.normal(0.3, 0.014, size=(2, simulations, seeds))
        welch = rate([float(stats.welch_t(a, b).p or 0) for a, b in zip(*means, strict=True)])
        paired = rate([float(stats.paired_t(b - a).p or 0) for a, b in zip(*means, strict=True)])
        assert 0.03 < welch < ALPHA + 4 * error_of(simulations)
        assert abs(paired - ALPHA) < 4 * error_of(simulations)


@pytest.mark.slow
def test_two_level_t_keeps_its_level_when_seeds_and_questions_both_vary() -> None:
    simulations, generator = 3_000, np.random.default_rng(8)
    p_values = []
    for _ in range(simulations):
        question = generator.beta(2, 3, size=80)
        trained = generator.normal(0, 0.05, size=(2, 4, 1)) + generator.normal(0, 0.1, size=(2, 1, 80))
        right = generator.random((2, 4, 80)) < question + trained
        p_values.append(float(stats.two_level(right[0], right[1]).p or 0))
    assert 0.005 < rate(p_values) < ALPHA + 4 * error_of(simulations)


def test_holm_keeps_ten_arms_against_one_baseline_below_the_level() -> None:
    simulations, generator = 2_000, np.random.default_rng(9)
    raw_any, holm_any = [], []
    for _ in range(simulations):
        difficulty = generator.beta(0.55, 0.85, size=500)
        right = generator.random((11, 500)) < difficulty
        a_only, b_only = (right[0] & ~right[1:]).sum(axis=1), (~right[0] & right[1:]).sum(axis=1)
        p_values = [midp(int(a), int(b)) for a, b in zip(a_only, b_only, strict=True)]
        raw_any.append(min(p_values) < ALPHA)
        holm_any.append(min(stats.holm(p_values)) < ALPHA)
    assert 0.24 < np.mean(raw_any) < 0.35
    assert 0.010 < np.mean(holm_any) < 0.040


@pytest.mark.slow
def test_cluster_robust_t_keeps_its_level_where_the_plain_t_does_not() -> None:
    simulations, generator = 3_000, np.random.default_rng(10)
    clusters = np.repeat(np.arange(40), 10)
    differences = generator.normal(0, 0.2, size=(simulations, 40, 1)) + generator.normal(0, 0.4, (simulations, 40, 10))
    rows = differences.reshape(simulations, 400)
    robust = rate([float(stats.cluster_t(row, clusters).p or 0) for row in rows])
    plain = rate([float(stats.paired_t(row).p or 0) for row in rows])
    assert abs(robust - ALPHA) < 4 * error_of(simulations)
    assert plain > 0.15


def test_non_inferiority_at_the_margin_keeps_its_level() -> None:
    simulations = 10_000
    for n in (60, 500):
        tables = paired_tables(n, simulations, seed=11, effect=-0.05)
        found = functools.cache(lambda a, b, n=n: stats.margin_test_paired(a, b, n, 0.05, both_sides=False).p)
        assert abs(rate([found(a, b) for _, a, b, _ in tables.tolist()]) - ALPHA) < 0.012


def covered(tables: NDArray[np.int64], truth: float, wald: bool) -> float:
    hits = []
    for both, a, b, neither in tables.tolist():
        n = both + a + b + neither
        if wald:
            d = (b - a) / n
            half = 1.959964 * math.sqrt(max(a + b - (b - a) ** 2 / n, 0)) / n
            hits.append(d - half <= truth <= d + half)
        else:
            interval = stats.newcombe_paired(both, a, b, neither)
            assert interval is not None
            hits.append(interval.low <= truth <= interval.high)
    return float(np.mean(hits))


def test_newcombe_paired_covers_small_samples_where_wald_does_not() -> None:
    tables = paired_tables(30, 8_000, seed=12, shape=(0.15, 0.45), effect=0.05)
    assert 0.97 < covered(tables, 0.05, wald=False) < 0.99
    assert 0.905 < covered(tables, 0.05, wald=True) < 0.93


@pytest.mark.slow
def test_recipe_against_an_untrained_model_keeps_its_level() -> None:
    """Seeds in the trained arm only; base greedy, or sampled as often as a trained model is."""
    simulations, generator = 600, np.random.default_rng(14)
    for seeds, questions, spread, greedy in ((3, 60, 0.05, True), (5, 200, 0.02, True), (4, 60, 0.03, False)):
        p_values = []
        for _ in range(simulations):
            difficulty = generator.beta(2, 3, size=questions)
            base = difficulty if not greedy else np.clip(difficulty + generator.normal(0, 0.1, questions), 0, 1)
            shift = generator.normal(0, spread, (seeds, 1)) + generator.normal(0, 0.1, (1, questions))
            tuned = generator.random((seeds, questions)) < np.clip(difficulty + shift, 0, 1)
            fixed = generator.random((1, questions)) < base
            p_values.append(float(stats.two_level(fixed, tuned, trained=(False, True)).p or 0))
        assert 0.02 < rate(p_values) < 0.065, (seeds, questions, rate(p_values))


@pytest.mark.slow
def test_copies_of_untrained_arms_cried_wolf_and_do_not() -> None:
    """60 questions, no effect, "4 seeds" of greedy evaluations: the seed test took them for evidence."""
    from toy_results import Results, verdicts

    claim = {"text": "b > a", "kind": "better", "better": "b", "worse": "a", "margin": None}
    p_values, tables = [], paired_tables(60, 12, seed=15)
    for both, a_only, b_only, neither in tables.tolist():
        results = Results()
        for seed in (1, 2, 3, 4):
            a = [1.0] * (both + a_only) + [0.0] * (b_only + neither)
            b = [1.0] * both + [0.0] * a_only + [1.0] * b_only + [0.0] * neither
            results.add(f"s/a/seed{seed}", a, trained=False, temperature=0.0)
            results.add(f"s/b/seed{seed}", b, trained=False, temperature=0.0)
        (found,) = verdicts(results, {"alpha": 0.05, "correction": "none", "claims": [claim]})
        assert found.comparison is not None and found.comparison.p == midp(a_only, b_only)
        p_values.append(found.comparison.p)
    assert rate(p_values) <= 1 / 12  # the seed test decided wherever the means differed at all


# --------------------------------------------------------------------------- what was found to mislead, and is mended


def logits(generator: np.random.Generator, rate: float, spread: float) -> float:
    """The logit at which answers of this spread are right at this rate."""
    draws, low, high = generator.normal(size=40_000) * spread, -12.0, 12.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(1 / (1 + np.exp(-middle - draws))) < rate else (low, middle)
    return (low + high) / 2


def means_of_samples(
    simulations: int, n: int, k: tuple[int, int], rate: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[simulations, n] of two arms without a true difference; questions differ by 1.5 logits, an arm on one by .5."""
    generator = np.random.default_rng(seed)
    common = logits(generator, rate, 1.58) + generator.normal(0, 1.5, (simulations, n))
    chances = [1 / (1 + np.exp(-common - generator.normal(0, 0.5, (simulations, n)))) for _ in range(2)]
    a, b = (generator.binomial(count, chance) / count for count, chance in zip(k, chances, strict=True))
    return a, b


@pytest.mark.parametrize(("n", "before"), [(10, 0.20), (20, 0.18), (30, 0.08)])
def test_unequal_numbers_of_samples_broke_the_sign_flip_and_do_not_break_the_bounded_mean(
    n: int, before: float
) -> None:
    simulations = 300
    a, b = means_of_samples(simulations, n, (1, 24), 0.08, seed=20)
    flipped = rate([float(stats.sign_flip(row, seed=0).p or 0) for row in b - a])
    limits = [stats.mean_limits(row, (-1.0, 1.0), lopsided=True) for row in b - a]
    mended = rate([stats.two_sided_p(one) for one in limits if one is not None])
    assert flipped > before - 4 * error_of(simulations, before)
    assert mended < ALPHA + 2 * error_of(simulations)


@pytest.mark.parametrize(("n", "k", "share"), [(5, 4, 0.1), (10, 4, 0.5), (15, 16, 0.3), (20, 4, 0.02), (60, 8, 0.9)])
def test_intervals_of_a_difference_of_sampled_means_cover(n: int, k: int, share: float) -> None:
    simulations = 300
    a, b = means_of_samples(simulations, n, (k, k), share, seed=21)
    limits = [stats.mean_limits(row, (-1.0, 1.0)) for row in b - a]
    assert rate([stats.two_sided_p(one) for one in limits if one is not None]) < 0.06 + 2.6 * error_of(
        simulations, 0.06
    )


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.98])
@pytest.mark.parametrize(("n", "k"), [(5, 1), (10, 4), (15, 16), (100, 8)])
def test_an_arms_own_interval_covers_inside_zero_and_one(n: int, k: int, share: float) -> None:
    from nsd.reports.judge.arms import arm_interval

    simulations, held = 200, 0
    a, _ = means_of_samples(simulations, n, (k, k), share, seed=22)
    for number, row in enumerate(a):
        bounded = stats.BoundedMean(row, 0.0, 1.0)  # the limits themselves take ten times as long
        inside = min(bounded.p_less(share), bounded.p_greater(share)) >= 0.025
        held += inside
        if number < 3:
            found = arm_interval(row[None, :], 0.95, "accuracy")
            assert found is not None and 0 <= found.low <= found.high <= 1
            assert (found.low <= share <= found.high) == inside
    assert held / simulations > 0.94 - 2.6 * error_of(simulations, 0.06)


@pytest.mark.parametrize(
    ("seeds", "n", "k", "spread"),
    [
        pytest.param(3, 30, 8, 0.7, marks=pytest.mark.slow),
        pytest.param(5, 30, 32, 0.7, marks=pytest.mark.slow),
        (5, 200, 8, 0.7),
    ],
)
def test_a_recipe_is_not_found_in_questions_that_happen_to_suit_it(seeds: int, n: int, k: int, spread: float) -> None:
    """Each recipe has a strength of its own on each question: Welch on seed means takes these questions for all."""
    simulations, generator = 400, np.random.default_rng(23)
    welch, both = [], []
    for _ in range(simulations):
        common = generator.normal(0, 1.5, n)
        arms = common + generator.normal(0, spread, (2, 1, n)) + generator.normal(0, 0.1, (2, seeds, 1))
        a, b = generator.binomial(k, 1 / (1 + np.exp(-arms))) / k
        welch.append(float(stats.welch_t(a.mean(axis=1), b.mean(axis=1)).p or 0))
        both.append(float(stats.two_level(a, b).p or 0))
    assert rate(welch) > 0.09 and rate(both) < ALPHA + 0.015 + 2 * error_of(simulations)


@pytest.mark.parametrize("groups", [3, 5, 10, 30])
def test_groups_of_unequal_size_cried_wolf_and_do_not(groups: int) -> None:
    """Sizes are log-normal; before is the CR1 error with groups - 1 degrees of freedom."""
    simulations, generator = 800, np.random.default_rng(24)
    before, after = [], []
    for _ in range(simulations):
        sizes = np.maximum(1, np.round(10 * np.exp(generator.normal(size=groups)))).astype(int)
        index = np.repeat(np.arange(groups), sizes)
        d = 0.55 * generator.normal(size=groups)[index] + 0.84 * generator.normal(size=len(index))
        sums = np.bincount(index, d - d.mean())
        error = math.sqrt(groups / (groups - 1) * float((sums**2).sum())) / len(d)
        before.append(2 * stats.Student(abs(d.mean()), error, groups - 1).p_greater(0.0))
        after.append(float(stats.cluster_t(d, index).p or 0))
    assert rate(before) > 0.07 and rate(after) < ALPHA + 2 * error_of(simulations)


def test_the_same_answers_to_few_questions_are_no_proof_of_equivalence() -> None:
    """A true loss of 2 points that shows on no question of 133: Tango's score alone called that equivalent."""
    lost = float(np.mean((np.random.default_rng(25).random((4_000, 133)) < 0.02).sum(axis=1) == 0))
    assert lost > 0.055  # how often a loss at the margin leaves all answers equal
    p = stats.margin_test_paired(0, 0, 133, 0.02, both_sides=True).p
    assert p == pytest.approx(0.98**133) and p > ALPHA
    assert float(stats.margin_test_paired(0, 0, 150, 0.02, both_sides=True).p or 1) < ALPHA
