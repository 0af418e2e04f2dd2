"""The record of a look at a pair, and which pairs leave one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.looks import earlier_looks, look_entries, look_number
from nsd.reports.judge.subgroups import ByField
from nsd.runner.store.shapes import Look
from toy_results import Results


def by_level(**changed: Any) -> ByField:
    sides = {"evals_a": ("e1",), "evals_b": ("e2", "e3"), "trained_a": (), "trained_b": ("t",)}
    whole = {"a": "toy/a/seed1", "b": "toy/b", "metric": "accuracy", "field": "level", "n": 40, "difference": 0.25}
    rules = {"q": 9.0, "p": 0.01, "p_adjusted": 0.02, "tested": 2, "family": 2, "alpha": 0.05}
    return ByField(**{**sides, **whole, **rules, "groups": [], "about": "these weights", **changed})


def told(looks: Iterable[Look]) -> list[dict[str, Any]]:
    return [look.model_dump() for look in looks]


def record(**changed: Any) -> Look:
    pair = {"experiment": "toy", "a": "toy/a", "b": "toy/b", "metric": "accuracy", "n": 40}
    sides = {"evidence": {"a": ["e1"], "b": ["e2", "e3"]}, "train": {"a": [], "b": ["t"]}}
    return Look.model_validate({**pair, **sides, "p": 0.01, "verdict": "DIFFERS", "by": "level", **changed})


def test_a_pair_by_a_field_leaves_the_pair_its_evidence_and_what_its_interaction_showed() -> None:
    assert told(look_entries([by_level()])) == told([record()])


@pytest.mark.parametrize("adjusted", [0.05, None])
def test_an_interaction_that_is_not_shown_leaves_an_open_verdict(adjusted: float | None) -> None:
    assert told(look_entries([by_level(p_adjusted=adjusted)])) == told([record(verdict="UNRESOLVED")])


def test_a_pair_by_a_field_is_a_look_though_nothing_could_be_tested() -> None:
    assert told(look_entries([by_level(p=None, p_adjusted=None)])) == told([record(p=None, verdict="UNRESOLVED")])


@pytest.mark.parametrize(
    "changed",
    [{"a": "other/a"}, {"a": "toy"}, {"b": "toy"}, {"evals_a": ()}, {"evals_b": ()}],
)
def test_pairs_across_experiments_and_pairs_of_no_evaluation_leave_none(changed: dict[str, Any]) -> None:
    assert look_entries([by_level(**changed)]) == []


def test_a_comparison_leaves_its_p_and_its_verdict_and_no_field() -> None:
    results = Results()
    results.add("toy/a/seed1", [0.0] * 10)
    results.add("toy/b/seed1", [1.0] * 10)
    (one,) = compare_runs(results.connection, ["toy/a/seed1", "toy/b/seed1"])
    sides = {"evidence": {"a": ["eval-toy/a/seed1"], "b": ["eval-toy/b/seed1"]}}
    train = {"train": {"a": ["train-toy/a/seed1"], "b": ["train-toy/b/seed1"]}}
    (entry,) = look_entries([one])
    assert told([entry]) == told([record(**sides, **train, n=10, p=one.p, verdict="BETTER", by=None)])
    assert "by" not in entry.to_json() and one.p is not None


def test_looks_come_back_from_the_index_oldest_first() -> None:
    results = Results()
    for when, a in (("2026-01-02", "toy/a"), ("2026-01-01", "toy/z"), ("2026-01-03", "toy/c")):
        evidence = '{"evidence": {"a": ["e1"], "b": ["e2", "e3"]}, "train": {"a": [], "b": ["t"]}, "by": "level"}'
        results.connection.execute(
            "INSERT INTO looks(looked_at, experiment, a, b, metric, n, evidence) VALUES (?,?,?,'toy/b','tokens',40,?)",
            [when, a.partition("/")[0], a, evidence],
        )
    bare = {"experiment": None, "metric": "tokens", "p": None, "verdict": None}
    assert told(earlier_looks(results.connection, "toy")) == told(record(a=f"toy/{a}", **bare) for a in "zac")
    assert earlier_looks(results.connection, "other") == []


@pytest.mark.parametrize(
    ("earlier", "number"),
    [
        ({"evidence": {"a": ["e1"], "b": ["e2"]}}, 2),  # a seed of b was added
        ({}, 1),  # the very same data
        ({"evidence": {"a": ["e9"], "b": ["e2"]}, "n": 39}, 2),  # the same training asked less
        ({"evidence": {"a": ["e9"], "b": ["e2"]}, "n": 40}, 1),
        ({"evidence": {"a": ["e9"], "b": ["e2"]}, "n": None}, 2),
        ({"evidence": {"a": ["e9"], "b": ["e2"]}, "n": 39, "train": {"a": [], "b": ["u"]}}, 1),
        ({"evidence": {"a": ["e9"], "b": ["e2"]}, "n": 39, "train": None}, 1),
        ({"evidence": {"a": ["e1"], "b": ["e9"]}, "n": 40}, 1),
        ({"evidence": {"a": ["e1"], "b": ["e2"]}, "by": "topic"}, 1),
        ({"a": "toy/b", "b": "toy/a", "evidence": {"a": ["e2"], "b": ["e1"]}}, 2),  # the other way round
        ({"a": "toy/b", "b": "toy/a", "evidence": {"a": ["e1"], "b": ["e2"]}, "n": 40, "train": None}, 1),
    ],
)
def test_an_earlier_look_counts_where_its_data_are_a_part_of_these(earlier: dict[str, Any], number: int) -> None:
    assert look_number([record(**earlier)], by_level()) == number


def test_the_same_earlier_data_are_one_look_however_often_seen() -> None:
    part = record(evidence={"a": ["e1"], "b": ["e2"]})
    turned = record(a="toy/b", b="toy/a", evidence={"a": ["e2"], "b": ["e1"]})
    other = record(evidence={"a": ["e1"], "b": ["e3"]})
    assert look_number([part, part, turned, other], by_level()) == 3


def test_looks_that_do_not_count_hide_none_that_comes_after_them() -> None:
    none = ({"b": "toy/c"}, {"metric": "avg@4"}, {"by": "topic"}, {})
    part = record(evidence={"a": ["e1"], "b": ["e2"]})
    for one in none:
        assert look_number([record(**one), part], by_level()) == 2
