"""What a spec says of validation and of budgets that are amounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsd.runner.plan.build import spec_digest
from nsd.runner.spec.load import load_spec
from nsd.runner.spec.model import Experiment

SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, train: 60, test: 20, split: {labeled: 20, test: 5}}
trainer: {use: sft}
conditions:
  base: {train_on: []}
  taught: {train_on: [labeled]}
"""


def loaded(folder: Path, text: str, name: str = "toy.yaml") -> Experiment:
    (folder / name).write_text(text)
    return load_spec(folder / name)


def test_the_best_weights_are_kept_and_the_evaluation_measures_unless_the_spec_says_otherwise(tmp_path: Path) -> None:
    found = loaded(tmp_path, SPEC + "validation: {questions: 5, every: 2}\n").validation
    assert found is not None
    assert (found.questions, found.every, found.keep, found.protocol) == (5, 2, "best", None)
    assert found.place.endswith("toy.yaml:8")


def test_a_spec_without_it_says_nothing_of_it(tmp_path: Path) -> None:
    bare, null = loaded(tmp_path, SPEC), loaded(tmp_path, SPEC + "validation: null\n")
    assert bare.validation is None and null.validation is None
    assert "validation" not in bare.resolved and spec_digest(bare) == spec_digest(null)


def test_a_spec_takes_the_parents_validation_field_by_field_and_another_protocol_whole(tmp_path: Path) -> None:
    loaded(tmp_path, SPEC + "validation: {questions: 5, every: 2, protocol: {use: avg_at_k, k: 3, max_tokens: 9}}\n")
    own = "extends: toy.yaml\nname: own\nvalidation: {every: 4, protocol: {use: accuracy, top_k: 3}}\n"
    found = loaded(tmp_path, own, "own.yaml")
    assert found.resolved["validation"]["questions"] == 5 and found.resolved["validation"]["every"] == 4
    assert found.validation is not None and found.validation.to_digest()["protocol"] == {"use": "accuracy", "top_k": 3}
    none = loaded(tmp_path, "extends: toy.yaml\nname: none\nvalidation: null\n", "none.yaml")
    assert none.validation is None


@pytest.mark.parametrize(("written", "amount"), [("2e5", 200000), ("200000", 200000), ("200000.0", 200000)])
def test_an_amount_is_the_same_however_it_is_written(tmp_path: Path, written: str, amount: int) -> None:
    found = loaded(tmp_path, SPEC + f"match: {{by: generated_tokens, amount: {written}}}\n")
    assert found.match.amount == amount and isinstance(found.match.amount, int)
    assert found.resolved["match"] == {"by": "generated_tokens", "to": None, "amount": 200000}


def test_a_budget_of_another_arm_is_on_record_as_it_always_was(tmp_path: Path) -> None:
    found = loaded(tmp_path, SPEC + "match: {by: steps, to: taught}\n")
    assert found.resolved["match"] == {"by": "steps", "to": "taught"}
