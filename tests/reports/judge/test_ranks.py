"""Bands of ranks: what is shown of each pair, counted; and how often a band misses the true rank."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.comparison import Comparison
from nsd.reports.judge.ranks import first_place, not_told_apart, rank_bands, says_ranks
from nsd.reports.stats import mcnemar
from toy_results import Results


def pairs(p: dict[str, float], means: dict[str, float]) -> list[Comparison]:
    """Every pair of arms with a p by its two letters, made from a real comparison."""
    results = Results()
    for name in ("x", "y"):
        results.add(name, [1.0, 0.0] * 10)
    (one,) = compare_runs(results.connection, ["x", "y"])
    one = replace(one, ci=None)  # of other answers
    return [
        replace(
            one, a=ab[0], b=ab[1], mean_a=means[ab[0]], mean_b=means[ab[1]], difference=means[ab[1]] - means[ab[0]], p=p
        )
        for ab, p in p.items()
    ]


PAIRS = list(itertools.combinations("abcdef", 2))
MEANS = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.2}
# Holm over six pairs: .001 * 6, .002 * 5 and .003 * 4 are shown, .02 * 3 is not.
SHOWN = {"ab": 0.5, "ac": 0.02, "ad": 0.001, "bc": 0.6, "bd": 0.002, "cd": 0.003}


def test_a_band_counts_the_arms_that_are_shown_to_be_better_and_worse() -> None:
    bands = rank_bands(pairs(SHOWN, MEANS))
    assert [(band.name, band.best, band.worst, band.says) for band in bands] == [
        ("a", 1, 3, "1-3"),
        ("b", 1, 3, "1-3"),
        ("c", 1, 3, "1-3"),
        ("d", 4, 4, "4"),
    ]
    assert first_place(bands) == ["a", "b", "c"]
    assert says_ranks(bands, 0.05).startswith("a, b, c share the first place; ranks hold at once with 95%")


def test_neighbours_that_are_not_told_apart_stand_under_one_bar() -> None:
    assert not_told_apart(rank_bands(pairs(SHOWN, MEANS))) == [["a", "b", "c"]]
    # a and c are told apart now (.002 * 3 after the first three): two bars that share b.
    apart = rank_bands(pairs({**SHOWN, "ac": 0.002}, MEANS))
    assert not_told_apart(apart) == [["a", "b"], ["b", "c"]]
    assert [band.says for band in apart] == ["1-2", "1-3", "2-3", "4"]


def test_a_pair_that_could_not_be_tested_tells_nobody_apart() -> None:
    found = pairs(SHOWN, MEANS)
    found[2] = replace(found[2], p=None)
    assert [band.says for band in rank_bands(found)] == ["1-4", "1-3", "1-3", "3-4"]


@pytest.mark.parametrize("left_out", range(3))
def test_without_every_pair_there_is_no_rank(left_out: int) -> None:
    found = pairs({"ab": 0.001, "ac": 0.001, "bc": 0.001}, MEANS)
    assert rank_bands(found) and not rank_bands(found[:left_out] + found[left_out + 1 :])
    assert not rank_bands(pairs({"ab": 0.001}, MEANS))


def test_all_bands_hold_the_true_ranks_at_once_as_often_as_promised() -> None:
    # Six arms of which four are equally good: the true ranks of those are 1 to 4, and any of them is right.
    rates, rng, missed, rounds = [0.6, 0.6, 0.6, 0.6, 0.45, 0.3], np.random.default_rng(4), 0, 300
    true = dict(zip("abcdef", [(1, 4)] * 4 + [(5, 5), (6, 6)], strict=True))
    (some,) = pairs({"ab": 1.0}, dict.fromkeys("ab", 0.5))
    for _ in range(rounds):
        ease = rng.normal(0, 0.15, 150)
        right = {name: rng.random(150) < np.clip(rate + ease, 0, 1) for name, rate in zip(true, rates, strict=True)}
        both = [(a, b, int((right[a] & ~right[b]).sum()), int((right[b] & ~right[a]).sum())) for a, b in PAIRS]
        tested = [
            replace(some, a=a, b=b, difference=(b_only - a_only) / 150, p=mcnemar(a_only, b_only).p)
            for a, b, a_only, b_only in both
        ]
        bands = rank_bands(tested)
        missed += any(band.best > true[band.name][0] or band.worst < true[band.name][1] for band in bands)
    assert missed / rounds <= 0.05 + 2 * (0.05 * 0.95 / rounds) ** 0.5


def test_a_leader_holds_the_first_place_alone() -> None:
    bands = rank_bands(pairs({"ab": 0.001, "ac": 0.001, "bc": 0.5}, MEANS))
    assert says_ranks(bands, 0.1) == (
        f"{bands[0].name} holds the first place alone; ranks hold at once with 90% (Holm over all 3 pairs)"
    )


@pytest.mark.parametrize(("changed", "worst"), [({"ci": (-0.1, 0.0)}, "1-3"), ({"ci": (0.0, 0.1)}, "1-3")])
def test_a_pair_whose_interval_holds_zero_is_not_told_apart(changed: dict[str, Any], worst: str) -> None:
    found = pairs({"ab": 0.001, "ac": 0.001, "bc": 0.001}, MEANS)
    assert [band.says for band in rank_bands(found)] == ["1", "2", "3"]
    assert [band.says for band in rank_bands([replace(one, **changed) for one in found])] == [worst] * 3


def test_each_planned_look_costs_its_share() -> None:
    found = pairs({"ab": 0.01, "ac": 0.01, "bc": 0.01}, MEANS)
    # Holm multiplies each by three: .03 is shown at .05, .06 is not.
    assert [band.says for band in rank_bands(found)] == ["1", "2", "3"]
    assert [band.says for band in rank_bands(found, looks=2)] == ["1-3"] * 3


def test_a_metric_that_is_neither_better_nor_worse_has_no_ranks() -> None:
    found = pairs({"ab": 0.001, "ac": 0.001, "bc": 0.001}, MEANS)
    assert rank_bands([replace(found[0], metric="tokens"), *found[1:]]) == []


def test_arms_without_a_mean_come_last_and_equal_ones_by_name() -> None:
    found = pairs({"ba": 0.5, "ca": 0.5, "bc": 0.5}, dict.fromkeys("abc", 0.5))
    assert [band.name for band in rank_bands(found)] == ["a", "b", "c"]
    unknown = [replace(one, mean_b=None) if one.b == "a" else one for one in found]
    assert [(band.name, band.mean) for band in rank_bands(unknown)] == [("b", 0.5), ("c", 0.5), ("a", None)]
