"""`controls:` makes ordinary conditions."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsd.runner.spec.load import load_spec
from nsd.runner.spec.model import Condition, Experiment

SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, train: 60, test: 20, split: {labeled: 20, test: 5}}
trainer: {use: sft}
eval: EVAL
conditions:
  base: {train_on: []}
  taught: {train_on: [labeled]}
sweep: {grid: {seed_of_none: []}}
"""


def loaded(folder: Path, more: str, evaluation: str = "accuracy", name: str = "toy.yaml") -> Experiment:
    (folder / name).write_text(SPEC.replace("EVAL", evaluation).replace("sweep: {grid: {seed_of_none: []}}\n", more))
    return load_spec(folder / name)


def control(experiment: Experiment) -> Condition:
    return experiment.conditions["base_maj_at_k"]


def test_a_name_is_an_untrained_arm_that_generates_as_many_tokens_as_the_trainings(tmp_path: Path) -> None:
    found = loaded(tmp_path, "match: {by: generated_tokens, amount: 2e3}\ncontrols: [maj_at_k]\n")
    assert list(found.conditions) == ["base", "taught", "base_maj_at_k"]
    assert control(found).train_on == () and control(found).trainer is None
    assert control(found).eval.make().metric() == "maj@tokens:2000"
    sampling = control(found).eval.make().sampling()
    assert (sampling.n, sampling.temperature, sampling.top_p, sampling.max_tokens) == (1024, 0.7, 1.0, 256)


@pytest.mark.parametrize("use", ["accuracy", "maj_at_k, k: 4, top_p: 0.5"])
def test_it_takes_from_the_evaluation_what_shapes_an_answer_and_nothing_else(tmp_path: Path, use: str) -> None:
    evaluation = f"{{use: {use}, temperature: 0.2, max_tokens: 33, stop: [END]}}"
    found = loaded(tmp_path, "controls: [{maj_at_k: {generated_tokens: 50}}]\n", evaluation)
    sampling = control(found).eval.make().sampling()
    assert (sampling.max_tokens, sampling.stop) == (33, ("END",))
    assert (sampling.n, sampling.temperature, sampling.top_p) == (1024, 0.7, 1.0)


def test_its_fields_are_its_own(tmp_path: Path) -> None:
    fields = "{generated_tokens: 50, k: 9, temperature: 1.0, top_p: 0.9, top_k: 5, max_tokens: 7}"
    found = loaded(tmp_path, f"controls: [{{maj_at_k: {fields}}}]\nmatch: {{by: generated_tokens, amount: 8}}\n")
    sampling = control(found).eval.make().sampling()
    assert control(found).eval.make().generated_tokens() == 50
    assert sampling == type(sampling)(n=9, temperature=1.0, max_tokens=7, top_p=0.9, top_k=5)


def test_a_claim_names_it_and_a_sweep_leaves_it_alone(tmp_path: Path) -> None:
    more = "controls: [{maj_at_k: {generated_tokens: 50}}]\nhypotheses: [taught > base_maj_at_k]\n"
    sweep = "sweep: {conditions: taught, grid: {trainer.epochs: [1, 2]}}\n"
    found = loaded(tmp_path, more + sweep)
    assert found.hypotheses is not None
    assert [claim.worse for claim in found.hypotheses.claims] == ["base_maj_at_k"] * 2
    assert list(found.conditions) == ["base", "taught-epochs1", "taught-epochs2", "base_maj_at_k"]


def test_a_spec_that_extends_another_may_take_it_away(tmp_path: Path) -> None:
    loaded(tmp_path, "controls: [{maj_at_k: {generated_tokens: 50}}]\n")
    (tmp_path / "own.yaml").write_text("extends: toy.yaml\nname: own\ncontrols: null\n")
    assert "base_maj_at_k" not in load_spec(tmp_path / "own.yaml").conditions
