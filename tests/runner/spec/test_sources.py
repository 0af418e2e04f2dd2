"""Training on questions without answers: which trainers and rewards may, and what they need not have.

The errors are in the corpus of broken specs (`questions_*`, `test_questions_*`); here is what is right.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from nsd.runner.spec.errors import SpecErrors
from nsd.runner.spec.load import load_spec
from nsd.runner.spec.model import Condition

PLUGINS = """\
from typing import Annotated, Any
from nsd import PluginConfig, Trainer, Verifier
from nsd.plugins.api import NestedPlugin
from nsd.plugins.rewards.correct import Correct


class Public(Verifier):
    needs_answer = False


class Harder(Correct):
    pass


class Softer(Correct):
    needs_answer = False


class Voting(Trainer):
    pass


class Odd(Trainer):
    class Config(PluginConfig):
        reward: Annotated[dict[str, Any], NestedPlugin("reward")] = {"use": "no_such_reward"}


class OneReward(Trainer):
    class Config(PluginConfig):
        reward: Annotated[dict[str, Any], NestedPlugin("reward")] = {"use": "correct"}
"""
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 10, unlabeled: 10, test: 10}}
conditions: {arm: {train_on: [SOURCE], MORE}}
"""


def load(folder: Path, more: str, source: str = "questions", run_files: bool = True) -> Condition:
    (folder / "mine.py").write_text(PLUGINS)
    (folder / "toy.yaml").write_text(SPEC.replace("SOURCE", source).replace("MORE", more))
    return load_spec(folder / "toy.yaml", run_files=run_files).conditions["arm"]


@pytest.mark.parametrize("source", ["questions", "test_questions", "labeled, questions", "questions, test_questions"])
def test_they_need_neither_labeler_nor_teacher(tmp_path: Path, source: str) -> None:
    arm = load(tmp_path, "trainer: {use: grpo, rewards: [finished]}", source)
    assert arm.train_on == tuple(source.split(", ")) and arm.labeler is None and arm.label_with is None


@pytest.mark.parametrize(
    "more",
    [
        "trainer: {use: grpo, rewards: [correct, one_answer]}",
        'trainer: {use: grpo, rewards: ["./mine.py:Softer"]}',
        "trainer: grpo, verifier: './mine.py:Public'",
        "trainer: grpo, verifier: math, train_verifier: './mine.py:Public'",
        "trainer: './mine.py:Voting'",
        "trainer: {use: './mine.py:OneReward', reward: {use: finished}}",
    ],
)
def test_one_reward_or_verifier_that_needs_no_answer_is_enough(tmp_path: Path, more: str) -> None:
    load(tmp_path, more)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ('trainer: {use: grpo, rewards: ["./mine.py:Harder"]}', "compares with one: ./mine.py:Harder"),
        ("trainer: grpo, verifier: './mine.py:Public', train_verifier: math", "compares with one: correct"),
        ("trainer: './mine.py:OneReward'", "compares with one: correct"),
    ],
)
def test_a_statement_holds_for_subclasses_and_for_defaults(tmp_path: Path, more: str, named: str) -> None:
    with pytest.raises(SpecErrors, match=named):
        load(tmp_path, more)


def test_what_a_file_says_is_not_known_before_it_is_run(tmp_path: Path) -> None:
    load(tmp_path, 'trainer: {use: grpo, rewards: ["./mine.py:Harder"]}', run_files=False)


def test_what_follows_from_another_error_is_not_said(tmp_path: Path) -> None:
    with pytest.raises(SpecErrors) as caught:
        load(tmp_path, "trainer: grpo, train_verifier: nummeric")
    assert [error.message for error in caught.value.errors] == ["there is no verifier 'nummeric'"]


def test_a_default_that_cannot_be_found_is_no_error_of_the_spec(tmp_path: Path) -> None:
    load(tmp_path, "trainer: './mine.py:Odd'")


def test_a_part_of_the_split_that_is_empty_is_no_source(tmp_path: Path) -> None:
    more = "trainer: {use: grpo, rewards: [finished]}, data: {split: {unlabeled: 0}}"
    with pytest.raises(SpecErrors, match=r"trains on questions, but data\.split\.unlabeled is 0"):
        load(tmp_path, more)
    load(tmp_path, more, source="test_questions")
