"""Plans that train on questions without answers, or with a verifier of the training's own: keys, data, notes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.datasets.split import data_hash
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.jobs import SourceJob
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.spec.load import load_spec

SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: jsonl, train: train.jsonl, test: test.jsonl, fields: {question: q, answer: a, solution: s, context: c,
  id: n}, shown: [id], split: {labeled: 3, unlabeled: 4, test: 5}}
labeler: {use: consensus, k: 2, max_tokens: 8}
trainer: {use: grpo, steps: 2, rewards: [finished]}
seeds: [1]
conditions:
  base: {train_on: []}
  blind: {train_on: [questions]}
  ttt: {train_on: [test_questions]}
"""
DOWN = """\
  student: {train_on: [pseudo], label_with: ttt}
  warm: {train_on: [pseudo], label_with: student, init: teacher, rounds: 2}
  apart: {train_on: [pseudo], label_with: blind}
"""


def plan_of(folder: Path, text: str = SPEC, answers: int = 0, asked: str = "?", **options: Any) -> Plan:
    """A plan over rows whose answers, solutions and contexts hold `answers`, and whose texts hold `asked`."""
    for name, count in (("train", 7), ("test", 5)):
        rows = [
            {"q": f"{name} {n}{asked}", "a": f"{answers}", "s": f"so {answers}", "c": f"it is {answers}"} | {"n": n}
            for n in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "toy.yaml").write_text(text)
    return build_plan(load_spec(folder / "toy.yaml", run_files=True), **options)


def stage_of(plan: Plan, condition: str, kind: str = "train") -> Stage:
    (found,) = [one for one in plan.stages.values() if one.kind == kind and one.used_by[0] == f"{condition}/seed1"]
    return found


def digests(plan: Plan) -> dict[str, str]:
    return {f"{stage.kind} {stage.used_by[0]}": digest for digest, stage in plan.stages.items()}


def test_a_corrected_answer_trains_nothing_anew_and_is_scored(tmp_path: Path) -> None:
    before, after = digests(plan_of(tmp_path)), digests(plan_of(tmp_path, answers=1))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"score base/seed1", "score blind/seed1", "score ttt/seed1"}


def test_another_question_trains_anew(tmp_path: Path) -> None:
    before, after = digests(plan_of(tmp_path)), digests(plan_of(tmp_path, asked="!"))
    assert all(before[f"train {one}/seed1"] != after[f"train {one}/seed1"] for one in ("blind", "ttt"))


def test_a_training_depends_on_what_the_dataset_shows(tmp_path: Path) -> None:
    shown, hidden = (digests(plan_of(tmp_path, text)) for text in (SPEC, SPEC.replace("shown: [id], ", "")))
    assert shown["train ttt/seed1"] != hidden["train ttt/seed1"]


@pytest.mark.parametrize(
    ("arm", "source", "pool"), [("blind", "questions", "unlabeled"), ("ttt", "test_questions", "test")]
)
def test_the_key_names_the_source_and_the_data_as_the_trainer_sees_it(
    tmp_path: Path, arm: str, source: str, pool: str
) -> None:
    plan = plan_of(tmp_path)
    stage = stage_of(plan, arm)
    (found,) = stage.key["train_on"]
    assert stage.job.train_on == (SourceJob(**found),) and found["source"] == source
    seen = plan.data[found["data"]]
    assert found["data"] == data_hash(seen)
    assert len(seen) == {"unlabeled": 4, "test": 5}[pool] and stage.size == f"{len(seen)} examples, 2 steps"
    assert all(set(one.meta) == {"id"} for one in seen)
    assert all(one.answer is one.solution is one.context is None for one in seen)


def test_the_data_of_such_a_training_holds_no_truth_and_that_of_the_score_does(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, answers=777)
    blind = plan.data[stage_of(plan, "ttt").job.train_on[0].data]
    known = plan.data[stage_of(plan, "ttt", "score").job.questions]
    assert "777" not in repr(blind) and [one.id for one in blind] == [one.id for one in known]
    assert all(one.answer == "777" for one in known)


def test_a_smoke_run_trains_on_the_few_questions_that_it_asks(tmp_path: Path) -> None:
    many = "  many: {train_on: [test_questions], data: {use: wordmath, test: 30, split: {labeled: 1, test: 30}}}\n"
    plan = plan_of(tmp_path, SPEC + many, smoke=True)
    assert len(plan.data[stage_of(plan, "many").job.train_on[0].data]) == 16


# --------------------------------------------------------------------------- notes


def test_a_plan_says_who_is_trained_on_the_test_questions_and_who_builds_on_such_a_model(tmp_path: Path) -> None:
    said = "trained on the test questions without answers"
    after = f"started from, or labelled by, a model that was {said}"
    assert [note for note in plan_of(tmp_path, SPEC + DOWN).notes if said in note] == [
        f"ttt: {said}",
        f"student: {after}",
        f"warm: {after}",
    ]


def test_a_plan_of_other_arms_says_nothing(tmp_path: Path) -> None:
    assert not any("test questions" in note for note in plan_of(tmp_path, SPEC + DOWN, only=["blind", "apart"]).notes)


# --------------------------------------------------------------------------- train_verifier

HALF = """\
from nsd.plugins.verifiers.numeric import Numeric


class Half(Numeric):
    SHARE = 1
"""
JUDGED = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, train: 30, test: 10, split: {labeled: 8, unlabeled: 8, test: 5}}
labeler: {use: consensus, k: 2, max_tokens: 8}
trainer: {use: grpo, steps: 2}
train_verifier: ./half.py:Half
seeds: [1]
conditions:
  base: {train_on: []}
  voted: {train_on: [pseudo], label_with: base}
"""


def test_rewards_and_votes_get_a_verifier_of_their_own_and_scores_the_other(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(HALF)
    plan = plan_of(tmp_path, JUDGED)
    used = {kind: stage_of(plan, "voted", kind).key["verifier"]["use"] for kind in ("train", "label", "score")}
    assert used["score"] == "numeric" and used["label"] == used["train"] != "numeric"
    job = stage_of(plan, "voted").job.verifier
    assert job.use == f"{tmp_path}/half.py:Half" and job.code


def test_the_code_of_such_a_verifier_is_part_of_votes_and_training_alone(tmp_path: Path) -> None:
    found = []
    for folder, share in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "half.py").write_text(HALF.replace("SHARE = 1", f"SHARE = {share}"))
        found.append(digests(plan_of(tmp_path / folder, JUDGED)))
    changed = {name for name in found[0] if found[0][name] != found[1][name]}
    assert changed == {"label voted/seed1", "train voted/seed1", "sample voted/seed1", "score voted/seed1"}


def test_a_plan_names_gold_that_the_trainings_verifier_cannot_read(tmp_path: Path) -> None:
    deaf = (
        "from nsd import Verifier\n\n\nclass Deaf(Verifier):\n    def extract(self, completion):\n        return None\n"
    )
    (tmp_path / "half.py").write_text(deaf)
    text = JUDGED.replace("Half", "Deaf") + "  rl: {train_on: [labeled, unlabeled]}\n"
    notes = [note for note in plan_of(tmp_path, text).notes if "cannot read" in note]
    assert [note.split(" have ")[0] for note in notes] == ["8 of 8 labeled questions", "8 of 8 unlabeled questions"]
    assert all("nothing scores as correct on them" in note for note in notes)
