"""A plan as a model, part by part, from a spread of round numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nsd.reports import stats
from nsd.reports.judge.designs import Asked
from nsd.reports.judge.finding import Found
from nsd.reports.judge.spread import Claimed, Design, Spread
from nsd.reports.stats.anytime import AnyLook

# Of one sample a question's difference varies by .2: .06 its own, .04 a seed's, .1 noise of samples.
KNOWN = Spread(0.2, 1, 0.1, "toy", 0.01, False, "toy", (), 0.04, 0.0002, seed_range=(0.005, 0.02))
UNKNOWN = replace(KNOWN, sampling=None, interaction=0.0, variance_range=(0.1, 0.5))


def asked(design: Design, spread: Spread = KNOWN, about: str = "recipe", kind: str = "better", **more: Any) -> Asked:
    return Asked(Claimed("b > a", kind, design=design), spread, about, 0.02, 0.05, 0.8, **more)


def near(*numbers: float) -> Any:
    return pytest.approx(numbers) if len(numbers) > 1 else pytest.approx(numbers[0])


def test_right_or_wrong_answers_of_checkpoints_are_paired_shares() -> None:
    plain = asked(Design(100), replace(KNOWN, engine=0.0), "checkpoint")
    assert plain.model() == stats.PairedShares(100, 0.2)
    assert plain.model(questions=7, scale=2.0) == stats.PairedShares(7, 0.4)
    assert plain.model(scale=9.0) == stats.PairedShares(100, 1.0)


@pytest.mark.parametrize(("samples", "variance"), [(1, 0.2), (4, 0.125)])
def test_means_of_checkpoints_have_the_noise_of_the_engine_of_both(samples: int, variance: float) -> None:
    found = asked(Design(100), about="checkpoint").model(samples=samples, scale=2.0)
    assert found == stats.sign_flip_means(2 * variance, 100, samples, extra=0.0004)


def test_checkpoints_have_no_figure_under_so_many_questions_as_their_skew_asks_for() -> None:
    plan = asked(Design(100), replace(KNOWN, fewest=60), "checkpoint")
    assert plan.model(questions=59) is None and plan.model(questions=60) is not None
    assert asked(Design(19), about="checkpoint").model() is None
    assert asked(Design(20), about="checkpoint").model() is not None


@pytest.mark.parametrize(("one_trained", "arms"), [(False, 2), (True, 1)])
def test_a_recipe_has_the_parts_of_its_seeds_and_of_its_questions(one_trained: bool, arms: int) -> None:
    found = asked(Design(100, seeds=4), replace(KNOWN, one_trained=one_trained)).model(samples=2, scale=2.0)
    assert isinstance(found, stats.Means)
    trained = 0.04 + 0.1 / 2 * arms / 2  # of the questions' variance what seeds divide
    residual = trained / 4 / 100
    part = stats.Part(near((0.0001 * 2 + 0.0002) / 4 + residual / arms), 3)
    own = 0.06 + 0.04 + 0.1 / 2 - trained
    assert found == stats.Means(stats.Parts(near(own / 100 + residual), 99, (part,) * arms, near(residual)), units=100)


def test_of_an_unknown_split_all_is_the_questions_own_or_at_best_the_seeds() -> None:
    plan = asked(Design(100, seeds=2), UNKNOWN)
    worst, best = plan.model(), plan.model(at_best=True)
    part = stats.Part(near((0.0001 + 0.0002) / 2), 1)
    assert worst == stats.Means(stats.Parts(near(0.002), 99, (part,) * 2, 0.0), units=100)
    part = stats.Part(near((0.0001 + 0.0002) / 2 + 0.0005), 1)
    assert best == stats.Means(stats.Parts(near(0.001), 99, (part,) * 2, near(0.001)), units=100)


def test_a_recipe_has_two_seeds_and_twenty_questions_at_least() -> None:
    plan = asked(Design(100, seeds=4))
    found = [plan.model(seeds=1), plan.model(seeds=2), plan.model(questions=19), plan.model(questions=20)]
    assert [one is None for one in found] == [True, False, True, False]


def test_tokens_have_no_bounded_mean_beside_their_t() -> None:
    found = asked(Design(100, seeds=4, metric="tokens")).model()
    assert isinstance(found, stats.Means) and found.units == 0


def test_groups_of_questions_have_the_spread_of_their_sizes() -> None:
    plan = asked(Design(100, clusters=(10,) * 10), replace(KNOWN, icc=0.1, fewest_groups=7), "checkpoint")
    tens = stats.GroupSizes((10.0,) * 10)
    assert plan.model() == stats.GroupedMeans(tens, 0.2, near(0.1), True, extra=near(0.0004), fewest=7)
    assert plan.model(scale=9.0) == stats.GroupedMeans(tens, 1.0, near(0.1), True, extra=near(0.0004), fewest=7)
    twice = stats.GroupSizes((20.0,) * 10)
    assert plan.model(questions=200) == stats.GroupedMeans(twice, 0.2, near(0.1), True, extra=near(0.0004), fewest=7)
    # .1 * .2 of the variance is shared, of .125 with four samples.
    four = stats.GroupedMeans(tens, near(0.25), near(0.16), False, extra=near(0.0004), fewest=7)
    assert plan.model(samples=4, scale=2.0) == four
    assert plan.model(groups=2) is None and plan.model(groups=3) is not None


@pytest.mark.parametrize(("one_trained", "arms"), [(False, 2), (True, 1)])
def test_recipes_on_groups_of_questions_have_seeds_beside_them(one_trained: bool, arms: int) -> None:
    spread = replace(KNOWN, icc=0.1, one_trained=one_trained, fewest_groups=7)
    plan = asked(Design(100, seeds=4, clusters=(10,) * 10), spread)
    tens = stats.GroupSizes((10.0,) * 10)
    trained = 0.04 + 0.1 * arms / 2
    residual = trained / 4 * tens.spread(0.1)
    over = (stats.Part(near((0.0001 * 2 + 0.0002) / 4 + residual / arms), 3),) * arms
    expected = stats.GroupedMeans(
        tens, near(0.2 - trained + trained / 4), near(0.1), False, True, over, near(residual), fewest=7
    )
    assert plan.model(scale=2.0) == expected
    assert plan.model(seeds=1) is None and plan.model(seeds=2) is not None


def test_a_look_at_any_time_takes_three_seeds_of_a_recipe() -> None:
    plan = asked(Design(100, seeds=3), any_look=True)
    once = asked(Design(100, seeds=3)).model()
    assert once is not None and plan.model() == AnyLook(once) and plan.model(seeds=2) is None
    assert asked(Design(100), about="checkpoint", any_look=True).model() is not None
    assert asked(Design(100, groups=(50, 50)), kind="interaction", any_look=True).model() is None


def test_an_interaction_has_the_groups_of_ten_and_more_questions() -> None:
    plan = asked(Design(100, groups=(60, 31, 9)), about="checkpoint", kind="interaction")
    assert plan.model(scale=2.0) == stats.Groups((60, 31), near(0.4))
    assert plan.model(questions=200, samples=4) == stats.Groups((120, 62, 18), near(0.125))
    assert plan.model(questions=33) == stats.Groups((20, 10), near(0.2)) and plan.model(questions=30) is None
    unknown = replace(plan, spread=UNKNOWN)
    assert unknown.model(samples=4) == stats.Groups((60, 31), near(0.2))
    assert unknown.model(samples=4, at_best=True) == stats.Groups((60, 31), near(0.05))


def test_the_range_is_that_of_the_seeds_for_a_recipe_and_of_the_questions_else() -> None:
    plan = asked(Design(100, seeds=3), UNKNOWN)
    assert plan.scales == near(0.25, 4.0)
    assert replace(plan, about="checkpoint").scales == near(0.5, 2.5)
    assert replace(plan, spread=replace(UNKNOWN, seed_range=None)).scales is None
    assert replace(plan, spread=replace(UNKNOWN, seed_sd=0.0)).scales is None
    assert (
        asked(Design(100), about="checkpoint").scales is None
        and asked(Design(100), about="checkpoint").varied() is None
    )


def test_an_assumed_correlation_is_varied_where_groups_are_counted() -> None:
    spread = replace(UNKNOWN, icc=0.1, icc_range=(0.0, 0.3))
    plan = asked(Design(100, clusters=(10,) * 10), spread, "checkpoint")
    varied = plan.varied()
    assert varied is not None
    assert [(one.spread.icc, one.spread.icc_range, scale) for one, scale in varied] == [
        (0.0, None, 1.0),
        (0.3, None, 1.0),
    ]
    alone = asked(Design(100), spread, "checkpoint")
    assert alone.varied() == ((alone, near(0.5)), (alone, near(2.5)))


@pytest.mark.parametrize(
    ("design", "spread", "about", "kind", "found"),
    [
        (Design(9), KNOWN, "checkpoint", "better", ("questions", "samples")),
        (Design(9, seeds=2), KNOWN, "recipe", "better", ("questions", "samples", "seeds")),
        (Design(9, clusters=(3, 3, 3)), KNOWN, "checkpoint", "better", ("groups", "questions", "samples")),
        (Design(9), UNKNOWN, "checkpoint", "better", ("questions",)),
        (Design(9, greedy=True), KNOWN, "checkpoint", "better", ("questions",)),
        (Design(9, metric="maj@4"), KNOWN, "checkpoint", "better", ("questions",)),
        (Design(9, seeds=2), UNKNOWN, "recipe", "interaction", ("questions",)),
    ],
)
def test_what_can_be_bought(design: Design, spread: Spread, about: str, kind: str, found: tuple[str, ...]) -> None:
    assert asked(design, spread, about, kind).purchases == found


def test_a_design_without_end_leaves_what_the_others_leave() -> None:
    plan = asked(Design(100, seeds=4, clusters=(10,) * 10), replace(KNOWN, icc=0.1))
    assert plan.endless("groups") == plan.model(groups=10**8)
    assert plan.endless("questions") == plan.model(questions=10**9)
    assert plan.endless("samples") == plan.model(samples=10**6)
    assert plan.endless("seeds") == plan.model(seeds=10**5)


def test_where_no_figure_can_be_given_nothing_is_found() -> None:
    plan = asked(Design(100), about="checkpoint")
    assert plan.chance(None) == 0.0 and plan.smallest(None) is None
    model = plan.model()
    strict = replace(plan, level=0.01, power=0.9)
    assert model is not None and strict.chance(model) == model.chance(0.02, 0.01)
    assert strict.smallest(model) == stats.detectable(model, 0.01, 0.9)


@pytest.mark.parametrize(("kind", "both"), [("not_worse_by", False), ("equivalent_within", True)])
def test_a_margin_is_asked_at_no_difference(kind: str, both: bool) -> None:
    plan = asked(Design(2000), about="checkpoint")
    plan = replace(plan, claim=replace(plan.claim, kind=kind, margin=0.02))
    model = plan.model()
    assert model is not None and plan.chance(model) == model.margin_chance(0.02, 0.05, both)
    assert plan.smallest(model) == stats.smallest_margin(model, 0.05, 0.8, both)


def test_recipes_on_record_are_the_model_at_the_samples_that_were_drawn() -> None:
    found = Found(lambda q, s, scale: stats.PairedShares(1000 * q + s, scale / 10), 100, 4, (0.5, 3.0))
    spread = replace(KNOWN, recipe=found)
    plan = asked(Design(100, seeds=4), spread)
    assert plan.scales == (0.5, 3.0)
    assert plan.model(questions=30, seeds=3, scale=2.0) == stats.PairedShares(30_003, 0.2)
    assert isinstance(plan.model(samples=2), stats.Means) and isinstance(plan.model(at_best=True), stats.Means)
    grouped = asked(Design(100, seeds=4, clusters=(10,) * 10), spread)
    assert grouped.model(groups=5, seeds=3, scale=2.0) == stats.PairedShares(50_003, 0.2)
    assert isinstance(grouped.model(questions=200), stats.GroupedMeans)


def test_no_more_is_named_than_can_be_had() -> None:
    plan = asked(Design(1000), replace(KNOWN, engine=0.0), "checkpoint")
    enough = plan.least("questions")
    assert enough is not None and plan.least("questions", most=enough) == enough
    assert plan.least("questions", most=enough - 1) is None


@pytest.mark.parametrize("what", ["questions", "samples"])
def test_ends_are_what_it_takes_at_both_ends_of_the_spread(what: str) -> None:
    plan = asked(Design(3000), replace(KNOWN, engine=0.0, variance_range=(0.16, 0.22)), "checkpoint")
    low, high = plan.least(what, scale=0.8), plan.least(what, scale=1.1)
    assert plan.ends(what) == (low, high) and low is not None and high is not None and low < high
