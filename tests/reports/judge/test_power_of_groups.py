"""Power of questions in groups: the comparison and the plan say the same, and more groups are not more questions."""

from __future__ import annotations

import numpy as np
import pytest

from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.power import Claimed, Design, power_of
from toy_designs import one
from toy_results import Results

GROUPS, EACH = 30, 8
N = GROUPS * EACH
OF = {f"q{i}": f"g{i // EACH}" for i in range(N)}


def tied(results: Results, seeds: int = 1) -> Claimed:
    """Two conditions whose difference goes together inside groups."""
    generator = np.random.default_rng(4)
    common = np.repeat(generator.random(GROUPS), EACH)
    for seed in range(seeds):
        for name, tie in (("a", 0.0), ("b", 0.3)):
            chance = np.clip(0.25 + 0.5 * common + np.repeat(tie * generator.normal(size=GROUPS), EACH), 0.02, 0.98)
            results.add(f"toy/{name}/seed{seed}", (generator.random(N) < chance).astype(float).tolist())
    design = Design(N, seeds=seeds, data_hash="data", clusters=(EACH,) * GROUPS)
    return Claimed("b > a", "better", "b", "a", design=design)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_comparison_finds_what_the_plan_of_the_same_groups_detects(seeds: int) -> None:
    results = Results()
    claim = tied(results, seeds)
    found = one(claim.design, claim, connection=results.connection, experiment="toy", groups=OF)
    (compared,) = compare_runs(results.connection, ["toy"], groups=OF, detect=0.05, correction="none")
    assert compared.detectable is not None
    assert found.alone.detectable == pytest.approx(compared.detectable, rel=1e-6)
    if seeds == 1:
        assert found.spread.icc > 0.05 and found.spread.icc_source.startswith("earlier runs of a and b")
        takes = one(claim.design, claim, connection=results.connection, experiment="toy", groups=OF, detect=0.05)
        assert takes.alone.groups is not None and compared.needed_n == takes.alone.groups * EACH


def test_more_questions_in_the_same_groups_have_a_floor_and_more_groups_have_none() -> None:
    design = Design(400, clusters=(10,) * 40)
    found = one(design, detect=0.03, icc=0.1, shop=True)
    assert found.alone.questions is None and found.alone.groups is not None and found.alone.groups > 40
    floor, none = found.alone.floors["questions"], found.alone.floors["groups"]
    # 2.80 standard errors of 40 groups that differ by .2 * .1, and what 39 degrees of freedom cost.
    assert floor == pytest.approx(2.80 * (0.02 / 40) ** 0.5, rel=0.06) and none is not None and none < 0.001
    (bought,) = found.purchases
    assert (bought.what, bought.groups, bought.questions) == ("groups", found.alone.groups, 10 * found.alone.groups)


def test_an_assumed_correlation_gives_both_ends() -> None:
    design = Design(400, clusters=(10,) * 40)
    found = one(design).alone
    ends = tuple(one(design, icc=icc).alone.detectable for icc in (0.0, 0.3))
    assert found.detectable_range == pytest.approx(ends) and found.detectable == one(design, icc=0.1).alone.detectable


def test_samples_do_not_take_away_what_a_group_shares() -> None:
    results = Results()
    claim = tied(results)
    spread = one(claim.design, claim, connection=results.connection, experiment="toy", groups=OF).spread
    shared = spread.icc * spread.variance
    assert spread.least_variance_at(10**6) == pytest.approx(shared, rel=1e-3)
    assert spread.icc_at(10**6, at_best=True) == pytest.approx(1.0, rel=1e-3)


def test_earlier_runs_on_other_questions_leave_the_correlation_to_be_assumed() -> None:
    results = Results()
    claim = tied(results)
    found = power_of([claim], connection=results.connection, experiment="toy", groups={"other": "g"}).claims[0]
    assert found.spread.icc_source.startswith("assumed") and found.spread.source.startswith("earlier runs of a and b")
