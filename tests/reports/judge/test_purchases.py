"""What to buy: prices from the stages on record, and the purchase that reaches a difference for the least."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from nsd.reports.judge.designs import Asked
from nsd.reports.judge.power import Claimed, Design, power_of
from nsd.reports.judge.purchases import Prices, Purchase, cost_of, prices_of, purchases
from nsd.reports.judge.spread import Spread
from toy_costs import run, stage
from toy_results import Results


def asked(
    design: Design, wanted: float = 0.02, seed_sd: float = 0.01, interaction: float = 0.04, engine: float = 0.0
) -> Asked:
    """Questions .06 of their own, `interaction` of a seed, .1 of one sample, both arms together."""
    spread = Spread(0.1 + interaction + 0.06, 1, 0.1, "toy", seed_sd, False, "toy", (), interaction, engine)
    about = "recipe" if design.seeds > 1 else "checkpoint"
    return Asked(Claimed("b > a", design=design), spread, about, wanted, 0.05, 0.8)


def test_a_training_and_a_completion_cost_what_they_did() -> None:
    results = Results()
    stage(results, "teacher", "train", 100, cost={"usd": 8.0})
    for seed in (1, 2):
        stage(results, f"train-{seed}", "train", 10, inputs={"model": "teacher"}, cost={"usd": 2.0})
        drawn = {"tokens": 5, "completions": 50}
        inputs = {"model": f"train-{seed}"}
        stage(results, f"eval-{seed}", "sample", 2, inputs=inputs, generation=drawn, cost={"usd": 0.5})
        run(results, f"study/arm/seed{seed}", f"train-{seed}", None, f"eval-{seed}")
    # Two trainings, 2 dollars each and half of the teacher's 8; a hundred completions for one dollar.
    assert prices_of(results.connection, "study") == Prices(6.0, 0.01, "$")
    stage(results, "eval-3", "sample", 2 * 3600, inputs={}, generation={"completions": 900})
    run(results, "study/base/seed1", None, None, "eval-3")
    found = prices_of(results.connection, "study")  # one stage without a price: everything in hours
    assert found is not None and found.unit == "h"
    assert found.training == pytest.approx(120 / 3600 / 2) and found.completion == pytest.approx(7204 / 3600 / 1000)


def test_nothing_on_record_has_no_price() -> None:
    assert prices_of(Results().connection, "study") is None


def test_a_design_costs_its_trainings_and_the_completions_of_both_arms() -> None:
    one_trained = asked(Design(100, seeds=3, trained=(True, False)))
    # Three trainings, and three and one evaluations of 100 questions by 2 samples.
    assert cost_of(one_trained, Prices(6.0, 0.01, "$"), 100, 2, 3) == pytest.approx(3 * 6.0 + 4 * 200 * 0.01)


@pytest.mark.parametrize(("training", "completion"), [(1000.0, 1e-6), (0.01, 1.0)])
def test_what_is_dear_is_not_bought(training: float, completion: float) -> None:
    here = asked(Design(2000, seeds=4), wanted=0.03)
    found = purchases(here, Prices(training, completion, "$"))
    assert (found[0].seeds == 4) == (training > completion)
    assert found[0].extra is not None and found[0].extra > 0
    assert [one.extra for one in found] == sorted(one.extra or 0.0 for one in found)
    for one in found:  # each of them is enough
        model = here.model(one.questions, one.samples, one.seeds)
        assert here.chance(model) >= 0.8


def test_no_other_count_of_the_same_is_cheaper() -> None:
    here = asked(Design(2000, seeds=4), wanted=0.028)
    for one in purchases(here, None):
        less = {one.what: getattr(one, one.what) - 1}
        assert here.chance(here.model(**less)) < 0.8


def test_more_of_one_thing_may_never_do_and_a_mix_does() -> None:
    here = asked(Design(300, seeds=2), wanted=0.02, seed_sd=0.014)
    assert all(here.least(what) is None for what in here.purchases)
    (mix,) = purchases(here, Prices(1.0, 0.001, "$"))
    assert mix.what == "a mix" and mix.seeds > 2 and mix.questions > 300
    assert here.chance(here.model(mix.questions, mix.samples, mix.seeds)) >= 0.8


def test_more_samples_make_do_with_the_questions_that_can_be_had() -> None:
    # 7.8489 / .0004 of .2, half of it the samples': 3925 questions of one sample, 2944 of two, 2453 of four; and a
    # little for the steps in which a mean moves.
    here = asked(Design(1000, metric="avg@1"))
    (mix,) = purchases(here, Prices(1000.0, 0.001, "$"), most_questions=2600)
    assert (mix.samples, mix.seeds) == (4, 1) and mix.questions == pytest.approx(2453, rel=0.02)


def test_an_exhausted_test_set_sells_no_questions() -> None:
    here = asked(Design(1319))
    bought = {one.what for one in purchases(here, None)}
    assert "questions" in bought
    assert "questions" not in {one.what for one in purchases(here, None, most_questions=1400)}


def test_a_design_that_is_enough_buys_nothing() -> None:
    assert purchases(asked(Design(50_000)), Prices(1.0, 1.0, "h")) == [Purchase("nothing", 50_000, 1, 1, 0.0)]


def test_two_seeds_are_the_fewest_that_tell_of_a_recipe() -> None:
    here = asked(Design(2000, seeds=3), wanted=0.3, seed_sd=0.001)
    assert here.chance(here.model(seeds=1)) == 0.0 and here.least("seeds") == 2
    in_groups = asked(Design(400, seeds=3, clusters=(10,) * 40))
    assert in_groups.model(seeds=1) is None and in_groups.model(seeds=2) is not None


def test_the_engine_is_a_floor_under_any_number_of_questions() -> None:
    here = asked(Design(1000), engine=0.01**2)
    # 1.96 and .84 standard errors of an error that no test sees: sqrt(2) * .01 * .8416 beyond a reach of nothing.
    floor = here.smallest(here.endless("questions"))
    assert floor == pytest.approx(0.8416 * 0.0141421, rel=0.02)


def test_power_says_what_to_buy_where_it_is_asked() -> None:
    found = power_of([], design=Design(1000), shop=True).overall
    assert [one.what for one in found.purchases] == ["questions"]
    assert power_of([], design=Design(1000)).overall.purchases == []


@pytest.mark.parametrize(
    ("unit", "amount", "shown"),
    [("$", 1234.5, "$1,234.50"), ("h", 1234.56, "1,234.6 h"), ("h", 0.1, "0.1 h"), ("h", 0.09, "5.4 min")],
)
def test_an_amount_is_shown_in_dollars_hours_or_minutes(unit: str, amount: float, shown: str) -> None:
    assert Prices(1.0, 1.0, unit).show(amount) == shown


def test_without_prices_no_purchase_has_one() -> None:
    assert {one.extra for one in purchases(asked(Design(2000, seeds=4), wanted=0.028), None)} == {None}
    assert purchases(asked(Design(50_000)), None) == [Purchase("nothing", 50_000, 1, 1, None)]


def in_groups(**design: Any) -> Asked:
    """40 groups of ten questions, whose differences correlate inside a group by .1."""
    spread = Spread(0.2, 1, 0.1, "toy", 0.01, False, "toy", (), 0.04, icc=0.1)
    design = {"questions": 400, "clusters": (10,) * 40, **design}
    return Asked(Claimed("b > a", design=Design(**design)), spread, "checkpoint", 0.05, 0.05, 0.8)


def test_groups_are_bought_with_the_questions_they_have() -> None:
    here = in_groups()
    (bought,) = purchases(here, Prices(1.0, 0.001, "$"))
    assert bought.groups is not None and bought.groups == here.least("groups")
    questions = bought.groups * 10
    extra = pytest.approx(2 * (questions - 400) * 0.001)
    assert bought == Purchase("groups", questions, 1, 1, extra, bought.groups)
    assert purchases(here, None) == [replace(bought, extra=None)]
    # Groups of 10.25 questions: a part of a question is a whole one.
    uneven = in_groups(questions=410)
    (bought,) = purchases(uneven, None)
    assert bought.groups is not None and bought.questions == math.ceil(bought.groups * 10.25)


def test_no_more_groups_are_bought_than_there_are_questions_for() -> None:
    here = in_groups()
    needed = here.least("groups")
    assert needed is not None
    (bought,) = purchases(here, None, most_questions=needed * 10)
    assert bought.groups == needed
    assert purchases(here, None, most_questions=needed * 10 - 1) == []


def test_a_design_in_groups_that_is_enough_keeps_its_groups() -> None:
    enough = in_groups(questions=40_000, clusters=(10,) * 4000)
    assert purchases(enough, None) == [Purchase("nothing", 40_000, 1, 1, None, 4000)]


def test_purchases_come_by_their_price_a_cheaper_mix_before_them() -> None:
    here = asked(Design(400, seeds=3, metric="avg@1"), wanted=0.05)
    found = purchases(here, Prices(1.0, 0.001, "$"))
    assert [one.what for one in found] == ["a mix", "seeds", "questions"]
    mix, seeds, questions = found
    assert (mix.seeds, mix.samples, seeds.questions, questions.seeds) == (4, 1, 400, 3)
    # Of two trained arms: what the trainings and all completions cost, less those of three seeds.
    assert seeds.extra == pytest.approx(2 * (seeds.seeds - 3) * (1.0 + 400 * 0.001))
    assert questions.extra == pytest.approx(2 * 3 * (questions.questions - 400) * 0.001)
    assert mix.extra == pytest.approx(2 * 4 * (1.0 + mix.questions * 0.001) - 2 * 3 * 1.4)


def test_an_experiment_that_trains_nothing_has_the_price_of_its_completions_alone() -> None:
    results = Results()
    stage(results, "eval-1", "eval", 2, inputs={}, generation={"completions": 50}, cost={"usd": 0.5})
    run(results, "study/base/seed1", None, None, "eval-1")
    assert prices_of(results.connection, "study") == Prices(0.0, 0.01, "$")
    stage(results, "eval-2", "eval", 2, inputs={}, cost={"usd": 0.5})
    run(results, "bare/base/seed1", None, None, "eval-2")
    assert prices_of(results.connection, "bare") is None
