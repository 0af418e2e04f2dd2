"""What is said of a pair by a field, and which pairs are looked at."""

from __future__ import annotations

from typing import Any

import pytest

from nsd.plugins.errors import InputError
from nsd.reports.judge.subgroups import ByField, Group, by_field_notes, pairs_of_experiment, pairs_of_names
from nsd.runner.store.shapes import Claim, Hypotheses
from toy_results import Results


def by_level(**changed: Any) -> ByField:
    groups = [Group(name, 20, 0.5, 1.0, 0.5, (0.2, 0.7), "McNemar") for name in ("easy", "hard")]
    whole = {"a": "toy/a", "b": "toy/b", "metric": "accuracy", "field": "level", "n": 40, "difference": 0.25}
    rules = {"q": 9.0, "p": 0.012, "p_adjusted": 0.024, "tested": 2, "family": 1, "alpha": 0.05}
    return ByField(**{**whole, **rules, "groups": groups, "about": "these weights", **changed})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "the difference differs by level (interaction over 2 groups: p = 0.012)"),
        ({"family": 2}, "the difference differs by level (interaction over 2 groups: p = 0.012, adjusted p = 0.024)"),
        (
            {"p_adjusted": 0.05},
            "the difference is not shown to differ by level (interaction over 2 groups: p = 0.012)",
        ),
        (
            {"groups": [], "tested": 3},
            "the difference differs by level (interaction over 3 groups, those of 10 questions or more: p = 0.012)",
        ),
        ({"p": None}, "fewer than two groups of 10 questions, so no interaction with level is tested"),
    ],
)
def test_an_interaction_in_words(changed: dict[str, Any], said: str) -> None:
    assert by_level(**changed).sentence() == f"toy/b against toy/a: {said}"


def test_its_test_is_named_by_the_field() -> None:
    assert by_level().test == "interaction by level (Welch F and permutation)"


def test_as_data_it_has_its_groups_as_data() -> None:
    found = by_level().to_json()
    assert found["groups"][1] == {
        **{"name": "hard", "n": 20, "mean_a": 0.5, "mean_b": 1.0, "difference": 0.5},
        **{"ci": (0.2, 0.7), "test": "McNemar"},
    }
    assert {name: value for name, value in found.items() if name != "groups"} == {
        name: getattr(by_level(), name) for name in ByField.__dataclass_fields__ if name != "groups"
    }


def test_what_no_claim_names_is_called_exploratory_with_the_level_of_its_intervals() -> None:
    assert by_field_notes([by_level(alpha=0.1)]) == [
        "EXPLORATORY: groups of questions that no claim names; 90% intervals, each for itself. An effect in one group "
        "and none in another is no difference between them: the interaction asks that"
    ]


# --------------------------------------------------------------------------- the pairs


@pytest.fixture
def results() -> Results:
    results = Results()
    for name in "abc":
        results.add(f"toy/{name}/seed1", [1.0, 0.0])
    return results


def hypotheses(*pairs: str) -> Hypotheses:
    return Hypotheses(claims=[Claim(text=pair, kind="better", better=pair[0], worse=pair[1]) for pair in pairs])


def named(results: Results, claimed: Hypotheses | None, **options: Any) -> list[str]:
    found = pairs_of_experiment(results.connection, "toy", None, claimed, **options)
    return [f"{a.name} {b.name}" for a, b in found]


def test_where_nothing_is_claimed_every_pair_is_meant(results: Results) -> None:
    every = ["toy/a toy/b", "toy/a toy/c", "toy/b toy/c"]
    assert named(results, None) == named(results, Hypotheses(claims=[])) == every


def test_a_pair_of_several_claims_is_meant_once_and_one_without_results_is_left_out(results: Results) -> None:
    assert named(results, hypotheses("ca", "ba", "ca", "da", "ad")) == ["toy/a toy/c", "toy/a toy/b"]


def test_pairs_that_are_no_comparison_are_left_out(results: Results) -> None:
    results.add("toy/d/seed1", [1.0, 0.0], data="other")
    assert named(results, hypotheses("da", "ba")) == ["toy/a toy/b"]


def test_without_any_pair_it_says_so(results: Results) -> None:
    with pytest.raises(InputError) as error:
        named(results, hypotheses("xa"))
    assert str(error.value) == "no two conditions of 'toy' that can be compared have results yet"


def test_the_pairs_of_names_are_every_two_in_order(results: Results) -> None:
    found = pairs_of_names(results.connection, ["toy/c", "toy/a", "toy/b"])
    assert [(a.name, b.name) for a, b in found] == [("toy/c", "toy/a"), ("toy/c", "toy/b"), ("toy/a", "toy/b")]


def test_another_metric_is_that_of_both(results: Results) -> None:
    pairs = pairs_of_names(results.connection, ["toy/a", "toy/b"], "tokens")
    assert {run.metric for pair in pairs for arm in pair for run in arm.runs} == {"tokens"}
    found = pairs_of_experiment(results.connection, "toy", None, None, "tokens")
    assert {run.metric for pair in found for arm in pair for run in arm.runs} == {"tokens"}
