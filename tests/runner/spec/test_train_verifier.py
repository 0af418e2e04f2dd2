"""`train_verifier`: a block like every other, that only trainings have which judge completions."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsd.runner.plan.build import spec_digest
from nsd.runner.spec.load import load_spec
from nsd.runner.spec.model import Experiment

SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 10, unlabeled: 10, test: 10}}
labeler: {use: consensus, k: 2}
trainer: {use: grpo}
train_verifier: {use: math, cpu_seconds: 7}
conditions:
  base: {train_on: []}
  copied: {train_on: [labeled], trainer: sft}
  rl: {train_on: [labeled]}
"""
SAID = "train_verifier: {use: math, cpu_seconds: 7}\n"


def load(folder: Path, text: str, name: str = "toy.yaml", run_files: bool = True) -> Experiment:
    (folder / name).write_text(text)
    return load_spec(folder / name, run_files=run_files)


def used(experiment: Experiment, condition: str = "rl") -> tuple[str, object]:
    """The training's verifier and its cpu_seconds."""
    block = experiment.conditions[condition].training_verifier
    return block.use, getattr(block.config, "cpu_seconds", None)


def test_the_top_gives_it_to_trainings_that_judge_and_the_verifier_stays(tmp_path: Path) -> None:
    experiment = load(tmp_path, SPEC)
    assert used(experiment) == ("math", 7)
    assert experiment.conditions["rl"].verifier.use == "numeric"
    assert [experiment.conditions[name].train_verifier for name in ("base", "copied")] == [None, None]


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ("{cpu_seconds: 9}", ("math", 9)),
        ("{use: math, cpu_seconds: 9}", ("math", 9)),
        ("numeric", ("numeric", None)),
        ("null", ("numeric", None)),
    ],
)
def test_a_condition_overrides_a_field_or_all_of_it(tmp_path: Path, over: str, expected: tuple[str, object]) -> None:
    assert used(load(tmp_path, SPEC + f"  own: {{train_on: [labeled], train_verifier: {over}}}\n"), "own") == expected


def test_a_sweep_reaches_its_fields(tmp_path: Path) -> None:
    experiment = load(tmp_path, SPEC + "sweep: {conditions: rl, grid: {train_verifier.cpu_seconds: [3, 4]}}\n")
    assert [used(experiment, f"rl-cpu_seconds{n}") for n in (3, 4)] == [("math", 3), ("math", 4)]


def test_a_spec_inherits_it_and_changes_a_field(tmp_path: Path) -> None:
    load(tmp_path, SPEC, "base.yaml")
    assert used(load(tmp_path, "extends: base.yaml\nname: toy\n")) == ("math", 7)
    assert used(load(tmp_path, "extends: base.yaml\nname: toy\ntrain_verifier: {cpu_seconds: 8}\n")) == ("math", 8)


def test_without_one_records_and_digests_do_not_know_of_it(tmp_path: Path) -> None:
    experiment = load(tmp_path, SPEC.replace(SAID, ""))
    for condition in experiment.conditions.values():
        assert "train_verifier" not in condition.to_json() and "train_verifier" not in condition.to_digest()


def test_only_what_uses_it_has_it_on_record(tmp_path: Path) -> None:
    experiment = load(tmp_path, SPEC)
    recorded = {name: one.to_digest().get("train_verifier") for name, one in experiment.conditions.items()}
    assert recorded == {"base": None, "copied": None, "rl": {"use": "math", "cpu_seconds": 7}}


def test_a_specs_digest_is_the_same_whether_or_not_its_files_were_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from nsd import Trainer, Verifier\nclass Half(Verifier): pass\nclass Copies(Trainer):\n needs_targets = True\n"
    )
    text = SPEC.replace(SAID, "train_verifier: ./mine.py:Half\n").replace("trainer: sft", "trainer: ./mine.py:Copies")
    assert spec_digest(load(tmp_path, text)) == spec_digest(load(tmp_path, text, run_files=False))
