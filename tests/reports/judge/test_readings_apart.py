"""What a comparison may not claim: a recipe from questions alone, anything from few groups, a search against itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nsd.plugins.errors import InputError
from nsd.reports import stats
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.hypotheses import verdict_on, weigh_claim
from nsd.reports.judge.ranks import rank_bands
from nsd.reports.judge.runs import condition_arms
from nsd.reports.judge.values import load_values
from nsd.reports.text.render import as_json
from nsd.runner.store.shapes import Claim
from toy_results import Results


@pytest.fixture
def seeded() -> Results:
    """Two arms of three seeds on 60 questions, in groups of ten."""
    results, generator = Results(), np.random.default_rng(5)
    for arm, rate in (("a", 0.4), ("b", 0.55)):
        for seed in (1, 2, 3):
            results.add(f"s/{arm}/seed{seed}", (generator.random(60) < rate).astype(float).tolist())
    return results


GROUPS = {f"q{i}": f"g{i // 10}" for i in range(60)}


PAIRS = {f"q{i}": f"g{i // 2}" for i in range(60)}


def test_with_groups_the_recipe_is_judged_by_seeds_and_groups(seeded: Results) -> None:
    (found,) = compare_runs(seeded.connection, ["s/a", "s/b"], groups=PAIRS)
    assert found.claim == "recipe" and found.test == "two-level t (groups of questions x seeds, CR2)"
    (weights,) = compare_runs(seeded.connection, ["s/a", "s/b"], groups=PAIRS, claim="checkpoint")
    assert weights.claim == "checkpoint" and "cluster" in weights.test
    with pytest.raises(InputError, match="these very questions"):
        compare_runs(seeded.connection, ["s/a", "s/b"], groups=PAIRS, test="seeds")


def test_few_groups_decide_nothing_and_say_so(seeded: Results) -> None:
    (found,) = compare_runs(seeded.connection, ["s/a", "s/b"], groups=GROUPS)
    assert found.verdict == "UNRESOLVED" and found.detectable is None
    assert "6 groups of questions: too few" in found.note


def test_an_arms_own_interval_knows_groups() -> None:
    results = Results()
    for name in ("a", "b"):
        results.add(name, [1.0] * 30 + [0.0] * 30)
    whole = {f"q{i}": f"g{i // 2}" for i in range(60)}  # each group is all right or all wrong: 30 answers, not 60
    (plain,) = compare_runs(results.connection, ["a", "b"])
    (grouped,) = compare_runs(results.connection, ["a", "b"], groups=whole)
    assert plain.ci_a is not None and grouped.ci_a is not None
    halves = stats.exact_binomial(15, 30, 0.95)
    assert halves is not None and grouped.ci_a[0] <= halves.low + 1e-6 < plain.ci_a[0]


@pytest.mark.parametrize("about", ["recipe", "checkpoint"])
def test_a_margin_claim_with_groups_says_which_margin_it_could_have_shown(about: str) -> None:
    results, generator = Results(), np.random.default_rng(7)
    for arm in ("a", "b"):
        for seed in (1, 2, 3):
            results.add(f"s/{arm}/seed{seed}", (generator.random(300) < 0.5).astype(float).tolist())
    arms = condition_arms(results.connection, "s")
    values = load_values(results.connection, list(arms.values()), {f"q{i}": f"g{i // 3}" for i in range(300)})
    claim = Claim(text="b not worse", kind="not_worse_by", better="b", worse="a", margin=0.01)
    tested = weigh_claim(claim, arms, values, 0.05, about)
    found = verdict_on(tested, tested.p, values, 0.05, "none", 1, 0.05)
    assert found.verdict == "UNRESOLVED" and found.comparison is not None
    assert found.comparison.detectable is not None and found.comparison.detectable > 0.02
    assert found.comparison.needed_n is not None or about == "recipe"


@pytest.mark.parametrize(
    ("claim", "test", "way_out"), [("recipe", "t", "--claim checkpoint"), ("checkpoint", "seeds", "--claim recipe")]
)
def test_a_test_of_the_other_reading_is_refused(seeded: Results, claim: str, test: str, way_out: str) -> None:
    with pytest.raises(InputError, match=way_out):
        compare_runs(seeded.connection, ["s/a", "s/b"], claim=claim, test=test)


def test_seeds_are_paired_with_themselves_alone(seeded: Results) -> None:
    generator = np.random.default_rng(6)
    for seed in (2, 3, 4):
        seeded.add(f"s/c/seed{seed}", (generator.random(60) < 0.5).astype(float).tolist())
    (found,) = compare_runs(seeded.connection, ["s/a", "s/b"], test="seeds-paired")
    assert found.p is not None
    with pytest.raises(InputError, match="the same training seeds in both arms"):
        compare_runs(seeded.connection, ["s/a", "s/c"], test="seeds-paired")


def test_a_search_that_wins_more_questions_is_not_worse() -> None:
    results = Results()
    results.add("a", [0.5] * 30 + [0.9] * 10, metric="discovery@20")
    results.add("b", [0.55] * 30 + [0.0] * 10, metric="discovery@20")
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.verdict == "UNRESOLVED" and "no verdict" in found.note and found.difference is not None


def test_the_chance_knows_groups_and_nothing_of_what_is_no_merit(seeded: Results) -> None:
    (plain,) = compare_runs(seeded.connection, ["s/a/seed1", "s/b/seed1"])
    (grouped,) = compare_runs(seeded.connection, ["s/a/seed1", "s/b/seed1"], groups=GROUPS)
    assert plain.chance is not None and grouped.chance is not None and grouped.chance.share < plain.chance.share
    assert "flat" in grouped.chance.prior
    names = ["s/a/seed1", "s/a/seed2", "s/b/seed1"]
    told = compare_runs(seeded.connection, names, metric="truncated")
    assert rank_bands(told) == [] and all(one.chance is None for one in told)


def test_a_strict_level_at_any_look_stays_within_what_can_be() -> None:
    results = Results()
    results.add("a", [1.0, 0.0, 0.0])
    results.add("b", [0.0, 1.0, 1.0])
    groups = {f"q{i}": f"g{i}" for i in range(3)}
    (found,) = compare_runs(results.connection, ["a", "b"], groups=groups, looks="any")
    assert found.ci is None or (found.ci[0] >= -1.0 and found.ci[1] <= 1.0)
    assert "inf" not in found.note
    json.loads(as_json([found]))


def test_planned_looks_divide_the_level_of_ranks(seeded: Results) -> None:
    # Of three pairs the first p must be below .05 / 3; with three looks below .05 / 9.
    results = Results()
    for name, right in (("a", 10), ("b", 21), ("c", 32)):
        results.add(name, [1.0] * right + [0.0] * (60 - right))
    found = compare_runs(results.connection, ["a", "b", "c"])
    assert [band.says for band in rank_bands(found)] == ["1", "2", "3"]
    assert [band.says for band in rank_bands(found, looks=2000)] == ["1-2", "1-3", "2-3"]
