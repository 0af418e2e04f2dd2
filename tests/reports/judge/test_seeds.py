"""Which runs of two arms are held against each other, and how that is told."""

from __future__ import annotations

import pytest

from nsd.reports.judge.runs import condition_arms
from nsd.reports.judge.seeds import Chosen, choose_seeds
from toy_results import Results


def chosen(
    a: tuple[int, ...],
    b: tuple[int, ...],
    about: str | None = None,
    untrained: str = "",
    metric: str = "accuracy",
) -> Chosen:
    """Arms with runs of these seeds, a different answer in each."""
    results = Results()
    for name, seeds in (("a", a), ("b", b)):
        for seed in seeds:
            values = [float(i == seed) for i in range(6)]
            results.add(f"s/{name}/seed{seed}", values, trained=name not in untrained, metric=metric, temperature=1.0)
    arms = condition_arms(results.connection, "s")
    return choose_seeds(arms["a"], arms["b"], about)


def runs(found: Chosen) -> tuple[list[int | None], list[int | None]]:
    return [run.seed for run in found.a.runs], [run.seed for run in found.b.runs]


@pytest.mark.parametrize(
    ("a", "b", "untrained", "counts"),
    [
        ((1, 2), (1, 2), "", "2 training seeds"),
        ((1, 2), (1, 2, 3), "", "2 and 3 training seeds"),
        ((1, 2, 3), (1, 2), "a", "2 training seeds; a is not trained"),
        ((1, 2, 3), (1,), "b", "3 training seeds; b is not trained"),
    ],
)
def test_seeds_of_what_is_trained_tell_of_a_recipe(
    a: tuple[int, ...], b: tuple[int, ...], untrained: str, counts: str
) -> None:
    found = chosen(a, b, untrained=untrained)
    assert (found.subject, found.note, found.reading) == (f"this recipe ({counts})", "", None)
    assert runs(found) == (list(a), list(b))


def test_a_recipe_that_is_asked_for_is_spoken_of_with_a_single_seed_too() -> None:
    found = chosen((1,), (1,), "recipe")
    assert (found.subject, found.reading) == ("this recipe (1 training seeds)", "recipe")


@pytest.mark.parametrize(
    ("a", "b", "untrained", "many"),
    [
        ((1, 2), (1, 2), "", "2"),
        ((1, 2), (1,), "", "2 and 1"),
        ((1,), (1, 2, 3), "", "1 and 3"),
        ((1,), (1, 2, 3), "a", "3"),
        ((1, 2, 3), (1,), "b", "3"),
    ],
)
def test_checkpoints_that_are_asked_for_are_all_there_are(
    a: tuple[int, ...], b: tuple[int, ...], untrained: str, many: str
) -> None:
    found = chosen(a, b, "checkpoint", untrained)
    assert found.subject == f"these checkpoints ({many} seeds, their mean per question)"
    assert (found.note, found.reading, runs(found)) == ("", "checkpoint", (list(a), list(b)))


@pytest.mark.parametrize(
    ("a", "b", "picked", "subject", "note"),
    [
        ((1,), (1,), ([1], [1]), "this checkpoint (seed 1)", ""),
        ((1,), (2,), ([1], [2]), "these checkpoints (seeds 1 and 2)", ""),
        ((3,), (1, 2, 3), ([3], [3]), "this checkpoint (seed 3)", "a"),
        ((1, 2, 3), (2,), ([2], [2]), "this checkpoint (seed 2)", "b"),
        ((3,), (1, 2), ([3], [1]), "these checkpoints (seeds 3 and 1)", "a"),
    ],
)
def test_a_single_seed_meets_its_own_or_else_the_first(
    a: tuple[int, ...], b: tuple[int, ...], picked: tuple[list[int], list[int]], subject: str, note: str
) -> None:
    found = chosen(a, b)
    said = f"{note} has one seed only, so the other seeds are left out" if note else ""
    assert (runs(found), found.subject, found.note, found.reading) == (picked, subject, said, None)


def test_a_checkpoint_against_what_is_not_trained_is_named_by_its_own_seed() -> None:
    found = chosen((1, 2), (2,), untrained="a")
    assert (found.subject, runs(found)) == ("this checkpoint (seed 2)", ([2], [2]))
    assert found.note == ""


@pytest.mark.parametrize(("b", "which"), [(1, "seed 1"), (2, "seeds 1 and 2")])
def test_single_searches_are_called_that(b: int, which: str) -> None:
    assert chosen((1,), (b,), metric="discovery@8").subject == f"one search of each question by each ({which})"


@pytest.mark.parametrize("about", [None, "recipe", "checkpoint"])
def test_models_that_nothing_trained_are_compared_by_as_many_draws_as_both_have(about: str | None) -> None:
    found = chosen((1, 2, 3), (4, 5), about, "ab")
    assert found.subject == "these models as they are (nothing was trained)"
    assert found.note == "a was sampled more often: only 2 of its evaluations count"
    assert (runs(found), found.reading) == (([1, 2], [4, 5]), None)
    assert chosen((1, 2), (3, 4), about, "ab").note == ""
    assert chosen((1,), (3, 4), about, "ab").note == "b was sampled more often: only 1 of its evaluations count"
