"""What a design finds where verdicts hold at any look: every table of answers, judged and weighed by its chance."""

from __future__ import annotations

import math

import pytest
from scipy.special import gammaln

from nsd.reports import stats
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.power import Claimed, Design, power_of
from nsd.reports.stats.anytime import AnyLook, anytime_one_sided_p, anytime_p, information_ratio
from toy_answers import BEFORE, claim, record
from toy_results import Results, table_runs

N, DISCORDANCE = 100, 0.2


def share_found(effect: float, margin: float | None = None) -> float:
    """The chance of a verdict at alpha .05 over all tables of N questions."""
    right, found = {-1: (DISCORDANCE - effect) / 2, 1: (DISCORDANCE + effect) / 2}, 0.0
    for a in range(N // 2):
        for b in range(N // 2):
            rest = N - a - b
            chance = gammaln(N + 1) - gammaln(a + 1) - gammaln(b + 1) - gammaln(rest + 1)
            chance += a * math.log(right[-1]) + b * math.log(right[1]) + rest * math.log(1 - DISCORDANCE)
            if chance < -20:
                continue
            error = math.sqrt(((a + b) / N - ((b - a) / N) ** 2) / N)
            ratio = information_ratio(max(error, 1 / N))
            if margin is None:
                p = stats.mcnemar(a, b).p
                decided = b > a and p is not None and anytime_p(p, ratio) < 0.05
            else:
                p = stats.margin_test_paired(a, b, N, margin, both_sides=False).p
                decided = p is not None and anytime_one_sided_p(p, ratio) < 0.05
            found += math.exp(chance) * decided
    return found


@pytest.mark.slow
def test_the_difference_found_is_found_in_four_of_five_cases() -> None:
    (one,) = power_of([Claimed("b > a", design=Design(N))], any_look=True).claims
    assert one.alone.detectable is not None
    assert share_found(one.alone.detectable) == pytest.approx(0.8, abs=0.05)


@pytest.mark.slow
def test_the_margin_shown_is_shown_in_four_of_five_cases() -> None:
    """One-sided effects have a mixture of their own: the two-sided level would promise too large a margin."""
    (one,) = power_of([Claimed("b", "not_worse_by", margin=0.1, design=Design(N))], any_look=True).claims
    assert one.alone.detectable is not None
    assert share_found(0.0, one.alone.detectable) == pytest.approx(0.8, abs=0.05)


def test_any_look_has_its_price_in_every_figure() -> None:
    once, ever = (power_of([Claimed("b > a", design=Design(1319))], any_look=any_look) for any_look in (False, True))
    assert ever.any_look and not once.any_look
    first, second = (found.claims[0].alone for found in (once, ever))
    assert first.detectable is not None and second.detectable is not None
    assert 1.3 < second.detectable / first.detectable < 1.7
    assert first.questions is not None and second.questions is not None and second.questions > 1.7 * first.questions


def test_two_seeds_have_no_figure_for_a_recipe_at_any_look() -> None:
    def found(seeds: int) -> float | None:
        claimed = Claimed("b > a", design=Design(1000, seeds=seeds))
        return power_of([claimed], any_look=True).claims[0].alone.detectable

    assert found(2) is None and found(3) is not None


def test_a_comparison_and_the_power_of_its_design_name_one_margin() -> None:
    """100 questions, 20 of them discordant, 10 each way, as the design says."""
    results = Results()
    table_runs(results, "s/a/seed1", "s/b/seed1", 40, 10, 10, 40)
    record(results, BEFORE, [claim("b", "a", "not_worse_by", 0.02)], looks="any")
    from nsd.reports.judge.answer import answer

    (verdict,) = answer(results.connection, "s").verdicts
    expected = stats.smallest_margin(AnyLook(stats.PairedShares(N, DISCORDANCE)), 0.05, 0.8, both_sides=False)
    assert verdict.comparison is not None and verdict.comparison.detectable == pytest.approx(expected)
    (pair,) = compare_runs(results.connection, ["s/a", "s/b"], looks="any")
    expected = stats.detectable(AnyLook(stats.PairedShares(N, DISCORDANCE)), 0.05, 0.8)
    assert pair.detectable == pytest.approx(expected)
