"""Matched budgets: whose they are, what worker and key are told, and which cannot be known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.datasets.split import data_hash
from nsd.plugins.errors import InputError
from nsd.runner.plan.budget import budget, example_count
from nsd.runner.plan.jobs import BudgetJob
from nsd.runner.plan.questions import Questions
from nsd.runner.spec.load import load_spec
from nsd.runner.spec.model import Experiment, Match
from toy_plan import SPEC

GRPO = "{use: grpo, steps: 3, prompts_per_step: 2, num_generations: 4, max_tokens: 16}"


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    text = SPEC.replace("resources:", f"  rl: {{train_on: [labeled], trainer: {GRPO}}}\nresources:")
    for name, count in (("train", 20), ("test", 5)):
        rows = [{"q": f"{name} {i}?", "a": str(i), "s": f"it is #### {i}"} for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        text = text.replace(name.upper(), str(tmp_path / f"{name}.jsonl"))
    (tmp_path / "toy.yaml").write_text(text.replace("MODEL", str(tmp_path / "model")))
    return load_spec(tmp_path / "toy.yaml")


def given(experiment: Experiment, arm: str = "filtered", **match: Any) -> tuple[dict[str, Any], BudgetJob]:
    matched = replace(experiment, match=Match(**match))
    return budget(matched, matched.conditions[arm], Questions(matched, smoke=False, notes=[]).splits, data_hash)


def test_epochs_give_nobody_a_budget(experiment: Experiment) -> None:
    assert given(experiment, by="epochs", to="baseline") == ({}, BudgetJob())
    assert BudgetJob() == BudgetJob(steps=None, tokens_of=None, tokens=None, generated_tokens=None, seconds=None)


@pytest.mark.parametrize(
    ("by", "amount", "job", "said"),
    [
        ("steps", 7, BudgetJob(steps=7), "7 steps"),
        ("tokens", 2000, BudgetJob(tokens=2000), "2,000 tokens"),
        ("generated_tokens", 3000, BudgetJob(generated_tokens=3000), "3,000 generated tokens"),
        ("seconds", 2.5, BudgetJob(seconds=2.5), "2.5 s"),
    ],
)
def test_an_amount_is_the_budget_and_says_its_unit(
    experiment: Experiment, by: str, amount: float, job: BudgetJob, said: str
) -> None:
    assert given(experiment, by=by, amount=amount) == ({by: amount}, job)
    assert str(job) == said and str(BudgetJob()) == ""


def test_examples_are_counted_with_a_pseudo_label_for_every_question(experiment: Experiment) -> None:
    questions = Questions(experiment, smoke=False, notes=[])
    counts = {name: example_count(one, questions.splits(one)) for name, one in experiment.conditions.items()}
    assert counts == {"base": 0, "baseline": 6, "student": 12, "filtered": 12, "oracle": 12, "rl": 6}


@pytest.mark.parametrize(("arm", "match", "steps"), [("filtered", {}, 12), ("filtered", {"to": "baseline"}, 6)])
def test_steps_are_those_of_the_named_or_the_largest_arm(
    experiment: Experiment, arm: str, match: dict[str, str], steps: int
) -> None:
    assert given(experiment, arm, by="steps", **match) == ({"steps": steps}, BudgetJob(steps=steps))


@pytest.mark.parametrize("to", [None, "baseline"])
def test_an_arm_with_another_trainer_than_the_named_one_is_matched_among_its_own(
    experiment: Experiment, to: str | None
) -> None:
    assert given(experiment, "rl", by="steps", to=to) == ({"steps": 3}, BudgetJob(steps=3))


@pytest.mark.parametrize(("to", "sizes"), [(None, [6, 6]), ("baseline", [6])])
def test_tokens_are_those_of_the_largest_arm_whose_texts_are_known(
    experiment: Experiment, to: str | None, sizes: list[int]
) -> None:
    key, job = given(experiment, by="tokens", to=to)
    splits = Questions(experiment, smoke=False, notes=[]).splits(experiment.conditions["oracle"])
    hashes = [data_hash(part) for part in (splits.labeled, splits.unlabeled)][: len(sizes)]
    assert job.tokens_of is not None and job.tokens_of.data == tuple(hashes)
    assert (key["tokens"]["data"], key["tokens"]["trainer"]["use"], job.tokens_of.trainer.use) == (hashes, "sft", "sft")


def test_tokens_of_an_arm_with_pseudo_labels_are_not_known(experiment: Experiment) -> None:
    with pytest.raises(InputError) as raised:
        given(experiment, by="tokens", to="student")
    assert str(raised.value).partition("match: ")[2] == (
        "tokens needs an arm whose training texts are known before the run; 'student' trains on pseudo-labels. Name "
        "another: match: {by: tokens, to: CONDITION}"
    )


@pytest.mark.parametrize("amount", [None, 2000])
def test_a_trainer_without_texts_has_no_tokens_to_match(experiment: Experiment, amount: int | None) -> None:
    with pytest.raises(InputError, match="counts the tokens of training texts, which the trainer 'grpo' does not have"):
        given(experiment, "rl", by="tokens", amount=amount)


def test_steps_that_a_trainer_cannot_tell_are_no_budget(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = experiment.conditions["oracle"].trainer
    assert trainer is not None
    monkeypatch.setattr(trainer.cls, "planned_steps", lambda self, examples: None)
    with pytest.raises(InputError, match="needs to know the steps of 'oracle' before the run, and its trainer"):
        given(experiment, by="steps", to="oracle")
