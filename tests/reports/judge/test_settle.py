"""One level for verdict and interval: what each correction leaves, and what disagreement comes to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsd.plugins.errors import InputError
from nsd.reports import stats
from nsd.reports.judge.answer import answer
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.comparison import Comparison
from nsd.reports.judge.settle import levels_left, settle, settle_margin
from thinned import thinned
from toy_answers import BEFORE, claim, record
from toy_results import Results, table_runs, verdicts


def test_holm_leaves_the_smallest_p_the_least_and_what_is_open_the_level_of_the_first_open_one() -> None:
    p_values: list[float | None] = [0.04, 0.001, None, 0.02]
    adjusted = stats.adjust([1.0 if p is None else p for p in p_values], "holm")
    # .001 < .05 / 4; .02 > .05 / 3: all others are open at .05 / 3
    assert levels_left(p_values, adjusted, "holm", 0.05) == pytest.approx([0.05 / 3, 0.05 / 4, 0.05 / 3, 0.05 / 3])


def test_benjamini_hochberg_leaves_the_share_that_it_rejected() -> None:
    p_values: list[float | None] = [0.03, 0.001, 0.9, 0.02]
    adjusted = stats.adjust(p_values, "bh")  # .001, .02, .03 are below .05 k / 4
    assert levels_left(p_values, adjusted, "bh", 0.05) == pytest.approx([0.0375, 0.0375, 0.05, 0.0375])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(1e-6, 1) | st.none(), max_size=9), st.sampled_from(["holm", "bonferroni", "bh", "none"]))
def test_a_p_is_below_its_level_exactly_where_its_adjusted_p_is_below_alpha(
    p_values: list[float | None], correction: str
) -> None:
    adjusted = stats.adjust([1.0 if p is None else p for p in p_values], correction)
    for p, q, left in zip(p_values, adjusted, levels_left(p_values, adjusted, correction, 0.05), strict=True):
        assert q is not None
        if p is not None and abs(p - left) > 1e-9:
            assert (p < left) == (q < 0.05)


def test_where_test_and_interval_disagree_nothing_is_decided() -> None:
    beside, across = stats.Interval(0.001, 0.2, 0.95, "t"), stats.Interval(-0.001, 0.2, 0.95, "t")
    assert settle(0.1, 0.04, 0.05, beside) == ("BETTER", beside, "")
    assert settle(-0.1, 0.04, 0.05, stats.Interval(-0.2, -0.001, 0.95, "t"))[0] == "WORSE"
    verdict, interval, note = settle(0.1, 0.04, 0.05, across)
    assert (verdict, interval) == ("UNRESOLVED", across) and "nothing is decided" in note
    verdict, interval, note = settle(0.1, 0.06, 0.05, beside)
    assert verdict == "UNRESOLVED" and interval is not None and "extended to 0" in note
    assert (interval.low, interval.high) == (0.0, 0.2)


def test_a_margin_stands_for_zero() -> None:
    inside, beyond = stats.Interval(-0.01, 0.01, 0.9, "t"), stats.Interval(-0.09, -0.03, 0.9, "t")
    assert settle_margin("not_worse_by", 0.02, 0.01, 0.05, inside)[0] == "NOT WORSE"
    assert settle_margin("equivalent_within", 0.02, 0.01, 0.05, inside)[0] == "EQUIVALENT"
    for given_, touching in ((inside, -0.02), (beyond, -0.02)):
        verdict, interval, note = settle_margin("not_worse_by", 0.02, 0.2, 0.05, given_)
        assert verdict == "UNRESOLVED" and interval is not None and "extended to the margin" in note
        assert touching in (interval.low, interval.high)


def test_without_an_interval_the_test_alone_decides_on_a_margin() -> None:
    assert settle_margin("not_worse_by", 0.02, 0.04, 0.05, None) == ("NOT WORSE", None, "")
    assert settle_margin("equivalent_within", 0.02, 0.04, 0.05, None) == ("EQUIVALENT", None, "")
    assert settle_margin("equivalent_within", 0.02, 0.05, 0.05, None) == ("UNRESOLVED", None, "")


def test_an_interval_that_alone_would_show_equivalence_is_extended_to_the_margin_that_is_nearer() -> None:
    said = "the interval alone would decide; the test does not: extended to the margin"
    high, low = stats.Interval(-0.01, 0.018, 0.9, "t"), stats.Interval(-0.018, 0.01, 0.9, "t")
    expected = stats.Interval(-0.01, 0.02, 0.9, "t")
    assert settle_margin("equivalent_within", 0.02, 0.2, 0.05, high) == ("UNRESOLVED", expected, said)
    expected = stats.Interval(-0.02, 0.01, 0.9, "t")
    assert settle_margin("equivalent_within", 0.02, 0.2, 0.05, low) == ("UNRESOLVED", expected, said)


def holds_together(one: Comparison) -> bool:
    assert one.ci is not None
    return (one.verdict != "UNRESOLVED") == (one.ci[0] > 0 or one.ci[1] < 0)


@pytest.mark.slow
@pytest.mark.parametrize("correction", thinned(["holm", "bh", "bonferroni", "none"]))
def test_no_open_verdict_leaves_zero_out_and_no_shown_one_holds_it(correction: str) -> None:
    """Many simulated arms near the edge: one answer a question, several samples, unequal numbers, few questions."""
    generator, seen = np.random.default_rng(5), {"BETTER": 0, "WORSE": 0, "UNRESOLVED": 0}
    for trial in range(8):
        results, n = Results(), (12, 25, 60, 150)[trial % 4]
        names = []
        for arm, (k, shift) in enumerate([(1, 0.0), (1, 0.1), (8, 0.1), (8, 0.15), (2, 0.2), (8, 0.0)]):
            chances = np.clip(np.random.default_rng(trial).beta(1, 1.5, n) + shift, 0, 1)
            names.append(f"arm{arm}")
            values = (generator.binomial(k, chances) / k).tolist()
            results.add(names[-1], values, samples=k)
        for one in compare_runs(results.connection, names, correction=correction, claim="checkpoint"):
            assert holds_together(one), one
            seen[one.verdict] += 1
    assert min(seen["BETTER"], seen["UNRESOLVED"]) > 10


@pytest.mark.slow
def test_recipes_and_groups_hold_together_as_well() -> None:
    generator = np.random.default_rng(6)
    for trial in range(6):
        results, n = Results(), (15, 40, 120)[trial % 3]
        for arm in range(4):
            for seed in (1, 2, 3):
                chances = np.clip(np.random.default_rng(trial).beta(1, 1.5, n) + 0.09 * arm, 0, 1)
                results.add(f"s/a{arm}/seed{seed}", (generator.random(n) < chances).astype(float).tolist())
        groups = {f"q{i}": f"g{i % 9}" for i in range(n)}
        found = compare_runs(results.connection, ["s"], correction="holm")
        found += compare_runs(results.connection, [f"s/a{arm}/seed1" for arm in range(4)], groups=groups)
        assert all(holds_together(one) for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["not_worse_by", "equivalent_within"])
def test_an_open_margin_claim_has_an_interval_that_touches_the_margin(kind: str) -> None:
    generator, seen = np.random.default_rng(7), set()
    for trial in range(25):
        results = Results()
        for arm, shift in (("a", 0.0), ("b", -0.05), ("c", 0.04)):
            for seed in (1, 2) if trial % 2 else (1,):
                chances = np.clip(np.random.default_rng(trial).beta(1, 1.5, 300) + shift, 0, 1)
                results.add(f"s/{arm}/seed{seed}", (generator.random(300) < chances).astype(float).tolist())
        claims = [{"text": f"{b} as a", "kind": kind, "better": b, "worse": "a", "margin": 0.08} for b in ("b", "c")]
        for one in verdicts(results, {"alpha": 0.05, "correction": "holm", "claims": claims}):
            assert one.comparison is not None and one.comparison.ci is not None
            low, high = one.comparison.ci
            seen.add(one.verdict)
            below, above = low <= -0.08 <= high, low <= 0.08 <= high
            if one.verdict == "UNRESOLVED":
                assert below or (kind == "equivalent_within" and above)
            elif one.holds:
                assert low > -0.08 and (kind == "not_worse_by" or high < 0.08)
            else:
                assert high < -0.08 or low > 0.08
    assert {"UNRESOLVED"} < seen


def three(results: Results) -> None:
    table_runs(results, "a", "b", 200, 40, 64, 196)
    results.add("c", [1.0] * 262 + [0.0] * 238)


def test_other_intervals_are_shown_on_request_and_named_and_leave_the_verdicts() -> None:
    results = Results()
    three(results)
    found: dict[str, list[Comparison]] = {
        kind: compare_runs(results.connection, ["a", "b", "c"], correction="holm", intervals=kind)
        for kind in ("holm", "bonferroni", "unadjusted")
    }
    assert len({tuple(one.verdict for one in mine) for mine in found.values()}) == 1
    assert {one.level for one in found["bonferroni"]} == {1 - 0.05 / 3}
    assert {one.level for one in found["unadjusted"]} == {0.95}
    first = found["unadjusted"][0]
    assert first.ci is not None and first.intervals == "unadjusted"
    expected = stats.newcombe_paired(200, 40, 64, 196)
    assert expected is not None and first.ci == (expected.low, expected.high)
    assert "decided by the 97.5% interval" in first.note
    with pytest.raises(InputError, match="holm, bonferroni or unadjusted"):
        compare_runs(results.connection, ["a", "b"], intervals="sidak")


def test_the_same_evaluation_twice_is_called_that() -> None:
    results = Results()
    results.add("s/a/seed1", [1.0, 0.0] * 300)
    results.connection.execute(
        "INSERT INTO runs SELECT * REPLACE ('s/b/seed1' AS run, 'b' AS condition) FROM runs WHERE run = 's/a/seed1'"
    )
    (found,) = compare_runs(results.connection, ["s/a/seed1", "s/b/seed1"], margin=0.02)
    assert (found.verdict, found.p, found.ci) == ("UNRESOLVED", None, None)
    assert found.test == "the same evaluation twice" and "one evaluation" in found.note


@pytest.mark.parametrize(("n", "verdict"), [(100, "UNRESOLVED"), (200, "EQUIVALENT")])
@pytest.mark.parametrize("samples", [1, 4])
def test_equal_results_are_equivalent_only_where_their_number_allows_it(n: int, verdict: str, samples: int) -> None:
    """No answer differs: a true difference of 2 points would hide with chance .98^n, which is .13 and .018."""
    results = Results()
    for run in ("a", "b"):
        results.add(run, [1.0, 0.0, 1 / samples, 1.0] * (n // 4), samples=samples)
    found: Any = compare_runs(results.connection, ["a", "b"], margin=0.02)[0]
    assert found.verdict == verdict
    assert f"p = {0.98**n:.3f}" in found.note


def test_equal_answers_have_one_interval_whether_or_not_a_margin_decides() -> None:
    """40 questions: limits of level 1 - 2 a lie 1 - a^(1/40) away, at .025 8.8 points, at .05 7.2."""
    results = Results()
    table_runs(results, "a", "b", 20, 0, 0, 20)
    (alone,) = compare_runs(results.connection, ["a", "b"])
    (within,) = compare_runs(results.connection, ["a", "b"], margin=0.05)
    assert alone.ci is not None and within.ci is not None and alone.interval == within.interval == "rule of three"
    assert alone.ci == within.ci == pytest.approx((0.025 ** (1 / 40) - 1, 1 - 0.025 ** (1 / 40)))
    assert "90% interval -7.2 to +7.2" in within.note
    (decided,) = compare_runs(results.connection, ["a", "b"], margin=0.08)
    assert decided.verdict == "EQUIVALENT"
    assert decided.ci == pytest.approx((0.05 ** (1 / 40) - 1, 1 - 0.05 ** (1 / 40))) and decided.level == 0.9


@pytest.mark.parametrize("looks", [None, 4])
def test_bonferroni_intervals_are_at_the_level_of_a_planned_look(looks: int | None) -> None:
    results = Results()
    table_runs(results, "s/a/seed1", "s/b/seed1", 100, 10, 20, 70)
    record(results, BEFORE, [claim("b", "a"), claim("a", "b", "not_worse_by", 0.2)], looks=looks)
    (first, second) = answer(results.connection, "s", intervals="bonferroni").verdicts
    assert first.comparison is not None and second.comparison is not None
    level = 0.05 / 2 / (looks or 1)
    assert first.comparison.level == pytest.approx(1 - level)
    assert second.comparison.level == pytest.approx(1 - 2 * level)


def test_an_open_test_leaves_an_interval_around_zero_as_it_is() -> None:
    across = stats.Interval(-0.1, 0.2, 0.95, "t")
    for p in (None, 0.05, 0.9):
        assert settle(0.1, p, 0.05, across) == ("UNRESOLVED", across, "")


def test_an_interval_below_zero_that_the_test_does_not_follow_is_extended_up_to_it() -> None:
    said = "the interval alone would leave 0 out; the test does not: extended to 0"
    below = stats.Interval(-0.2, -0.01, 0.95, "t")
    assert settle(-0.1, 0.05, 0.05, below) == ("UNRESOLVED", stats.Interval(-0.2, 0.0, 0.95, "t"), said)


def test_without_an_interval_the_test_alone_decides_on_a_difference() -> None:
    assert [settle(difference, 0.04, 0.05, None) for difference in (0.1, -0.1, 0.0, None)] == [
        (verdict, None, "") for verdict in ("BETTER", "WORSE", "UNRESOLVED", "UNRESOLVED")
    ]
    assert settle(0.1, 0.05, 0.05, None) == settle(0.1, None, 0.05, None) == ("UNRESOLVED", None, "")


def test_a_test_within_the_margin_beside_an_interval_that_is_not_decides_nothing() -> None:
    said = "the test is within the margin and the interval is not: nothing is decided"
    low, high = stats.Interval(-0.03, 0.01, 0.9, "t"), stats.Interval(-0.01, 0.03, 0.9, "t")
    assert settle_margin("not_worse_by", 0.02, 0.01, 0.05, low) == ("UNRESOLVED", low, said)
    assert settle_margin("not_worse_by", 0.02, 0.01, 0.05, high) == ("NOT WORSE", high, "")
    for beyond in (low, high):
        assert settle_margin("equivalent_within", 0.02, 0.01, 0.05, beyond) == ("UNRESOLVED", beyond, said)


def test_an_open_margin_leaves_an_interval_around_it_as_it_is_and_pulls_one_beyond_back_to_it() -> None:
    said = "the interval alone would decide; the test does not: extended to the margin"
    around = stats.Interval(-0.03, 0.01, 0.9, "t")
    for kind in ("not_worse_by", "equivalent_within"):
        assert settle_margin(kind, 0.02, 0.2, 0.05, around) == ("UNRESOLVED", around, "")
        assert settle_margin(kind, 0.02, None, 0.05, around) == ("UNRESOLVED", around, "")
    above = stats.Interval(0.03, 0.05, 0.9, "t")
    expected = ("UNRESOLVED", stats.Interval(0.02, 0.05, 0.9, "t"), said)
    assert settle_margin("equivalent_within", 0.02, 0.2, 0.05, above) == expected
    expected = ("UNRESOLVED", stats.Interval(-0.02, 0.05, 0.9, "t"), said)
    assert settle_margin("not_worse_by", 0.02, 0.2, 0.05, above) == expected


def test_without_a_correction_each_p_is_judged_at_alpha_and_bonferroni_shares_it() -> None:
    assert levels_left([0.01, None], [0.01, None], "none", 0.05) == [0.05, 0.05]
    assert levels_left([0.01, None], [0.02, None], "bonferroni", 0.05) == [0.025, 0.025]
    # One rejected of three: alpha / 3 for it, two thirds of alpha for the others; a p of None comes last.
    assert levels_left([None, 0.01, 0.2], [None, 0.03, 0.3], "bh", 0.06) == pytest.approx([0.04, 0.02, 0.04])
    assert levels_left([None, 0.01, 0.2], [None, 0.03, 0.3], "holm", 0.06) == pytest.approx([0.03, 0.02, 0.03])
