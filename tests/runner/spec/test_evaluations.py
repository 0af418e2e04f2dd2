"""`evals`: how evaluations are merged, what they start from, and what a claim on one of them holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nsd.runner.spec.errors import SpecErrors
from nsd.runner.spec.load import load_spec
from nsd.runner.spec.model import Condition, Experiment

TOP = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 10, unlabeled: 10, test: 8}}
verifier: math
trainer: sft
"""
EVALS = """\
evals:
  main: {use: avg_at_k, k: 4}
  retention: {use: accuracy, data: {seed: 9, split: {test: 5}}, max_tokens: 32}
"""
CONDITIONS = """\
conditions:
  base: {train_on: []}
  student: {train_on: [labeled]}
"""


def load(folder: Path, text: str, name: str = "toy.yaml") -> Experiment:
    (folder / name).write_text(text)
    return load_spec(folder / name)


def measured(condition: Condition) -> dict[str, Any]:
    """What each evaluation of a condition asks of it."""
    found = {}
    for name, one in condition.measured():
        split: Any = getattr(one.data.config, "split", None)
        sampling = one.eval.make().sampling()
        found[str(name)] = (one.data.use, split.test, one.verifier.use, one.eval.use, sampling.n, sampling.max_tokens)
    return found


def test_every_condition_has_every_evaluation_in_order(tmp_path: Path) -> None:
    experiment = load(tmp_path, TOP + EVALS + CONDITIONS)
    assert experiment.evals == ("main", "retention")
    for condition in experiment.conditions.values():
        found = measured(condition)
        assert list(found) == ["main", "retention"]
        assert found["main"][:5] == ("wordmath", 8, "math", "avg_at_k", 4)
        assert found["retention"] == ("wordmath", 5, "math", "accuracy", 1, 32)


def test_all_but_the_first_name_the_evaluation(tmp_path: Path) -> None:
    student = load(tmp_path, TOP + EVALS + CONDITIONS).conditions["student"]
    assert [one.name for _, one in student.measured()] == ["student", "student@retention"]


def test_a_single_eval_has_no_name(tmp_path: Path) -> None:
    experiment = load(tmp_path, TOP + "eval: accuracy\n" + CONDITIONS)
    student = experiment.conditions["student"]
    assert experiment.evals == () and student.measured() == [(None, student)]


def test_another_dataset_brings_its_own_verifier_and_prompt(tmp_path: Path) -> None:
    other = "evals: {main: accuracy, code: {data: {use: code_puzzles, split: {labeled: 0, unlabeled: 0, test: 4}}}}\n"
    own = 'prompt: {template: "Q: {question} A:"}\n'
    (_, main), (_, code) = load(tmp_path, TOP + own + other + CONDITIONS).conditions["base"].measured()
    assert (main.verifier.use, code.verifier.use) == ("math", code.data.cls.default_verifier)
    assert code.prompt.template == code.data.cls.default_prompt.template != main.prompt.template


def test_a_condition_changes_one_field_of_one_evaluation(tmp_path: Path) -> None:
    more = "  cold: {train_on: [], evals: {main: {k: 8}}}\n"
    experiment = load(tmp_path, TOP + EVALS + CONDITIONS + more)
    base, cold = (measured(experiment.conditions[name]) for name in ("base", "cold"))
    assert cold["main"][4] == 8 and base["main"][4] == 4
    assert cold["retention"] == base["retention"]


def test_another_protocol_keeps_the_data_of_the_evaluation(tmp_path: Path) -> None:
    more = "  often: {train_on: [], evals: {retention: {use: avg_at_k, k: 2}}}\n"
    often = measured(load(tmp_path, TOP + EVALS + CONDITIONS + more).conditions["often"])
    assert often["retention"][:5] == ("wordmath", 5, "math", "avg_at_k", 2)
    assert often["retention"][5] != 32  # a field of the protocol that is gone


def test_a_condition_may_leave_one_out(tmp_path: Path) -> None:
    more = "  short: {train_on: [], evals: {retention: null}}\n"
    assert list(measured(load(tmp_path, TOP + EVALS + CONDITIONS + more).conditions["short"])) == ["main"]


def test_an_inherited_eval_gives_way_where_it_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(TOP + "eval: accuracy\n" + CONDITIONS)
    child = load(tmp_path, "extends: parent.yaml\nname: child\neval: null\n" + EVALS, "child.yaml")
    assert child.evals == ("main", "retention")
    with pytest.raises(SpecErrors, match="eval and evals both"):
        load(tmp_path, "extends: parent.yaml\nname: child\n" + EVALS, "child.yaml")


def test_a_sweep_reaches_into_an_evaluation(tmp_path: Path) -> None:
    sweep = "sweep: {conditions: base, grid: {evals.main.k: [2, 6]}}\n"
    experiment = load(tmp_path, TOP + EVALS + CONDITIONS + sweep)
    assert [measured(experiment.conditions[f"base-k{k}"])["main"][4] for k in (2, 6)] == [2, 6]


def test_the_control_votes_in_every_evaluation(tmp_path: Path) -> None:
    control = "controls: [{maj_at_k: {generated_tokens: 5000}}]\n"
    found = measured(load(tmp_path, TOP + EVALS + CONDITIONS + control).conditions["base_maj_at_k"])
    assert {name: (one[1], one[3]) for name, one in found.items()} == {
        "main": (8, "maj_at_k"),
        "retention": (5, "maj_at_k"),
    }


def test_a_claim_says_its_measurement_and_the_first_needs_no_name(tmp_path: Path) -> None:
    claims = """\
hypotheses:
  - student > base
  - {compare: [student, base], better: true, on: retention}
  - {compare: [student, base], not_worse_by: 0.02, on: main}
"""
    found = load(tmp_path, TOP + EVALS + CONDITIONS + claims).hypotheses
    assert found is not None
    assert [(one.text, one.better, one.worse, one.on) for one in found.claims] == [
        ("student > base", "student", "base", None),
        ("student > base on retention", "student@retention", "base@retention", "retention"),
        ("student not worse than base by 0.02", "student", "base", None),
    ]


def test_what_was_recorded_of_specs_with_one_evaluation_stays(tmp_path: Path) -> None:
    experiment = load(tmp_path, TOP + CONDITIONS + "hypotheses: [student > base]\n")
    assert "evals" not in experiment.resolved["conditions"]["base"]
    assert "on" not in experiment.resolved["hypotheses"]["claims"][0]


def test_the_record_says_of_an_evaluation_what_is_not_the_conditions_own(tmp_path: Path) -> None:
    said = load(tmp_path, TOP + EVALS + CONDITIONS).resolved["conditions"]["base"]["evals"]
    assert [(one["name"], sorted(one)) for one in said] == [
        ("main", ["name", "protocol"]),
        ("retention", ["data", "name", "protocol"]),
    ]
