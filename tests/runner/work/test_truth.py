"""Validation and kept rollouts through executor and worker, and what the rollouts are worth by the hidden truth.

The true solution of every unlabeled and test question holds the word HIDDEN.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import KeptRollout, Question, StopReason
from nsd.plugins.verifiers.numeric import Numeric
from nsd.plugins.words import BUDGET_OF_SECONDS
from nsd.reports.judge.answer import answer
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import execute
from nsd.runner.work.jobs import job_of
from nsd.runner.work.stages import KeptRollouts
from nsd.runner.work.truth import against_truth


def rollout(question: str, sample: int, answer: str | None, step: int = 0, **more: Any) -> KeptRollout:
    text = "I do not know" if answer is None else f"#### {answer}"
    usual = {"tokens": 3, "stop_reason": StopReason.STOP, "score": 0.0, "reward": 0.5}
    return KeptRollout(step=step, question_id=question, sample=sample, text=text, answer=answer, **{**usual, **more})


TRUTH = {name: Question(id=name, text=f"{name}?", answer=gold) for name, gold in (("a", "7"), ("b", "2"), ("c", "5"))}


def test_the_shares_of_a_step_are_those_counted_by_hand() -> None:
    said = {"a": ["7", "7", "3", None], "b": ["9", "9", "2", "9"], "c": [None, None, None, None]}
    drawn = [rollout(name, n, one) for name, answers in said.items() for n, one in enumerate(answers)]
    assert against_truth(drawn, TRUTH, Numeric(Numeric.Config())) == {
        # a: 7 wins and is right; b: 9 wins and is wrong; c: nobody answers.
        "label_accuracy": 1 / 3,
        # a: agreeing and right for all four; b: for none, 3 agree and are wrong, one is right and does not agree;
        # c: nobody agrees and nobody is right.
        "reward_accuracy": 8 / 12,
        "majority_ratio": (2 + 3 + 0) / 12,
        "ground_truth_ratio": (2 + 1 + 0) / 12,
    }


def test_answers_that_the_verifier_holds_equal_vote_together() -> None:
    drawn = [rollout("b", n, one) for n, one in enumerate(["2", "2.0", "9"])]
    found = against_truth(
        [KeptRollout(**{**_fields(one), "answer": Numeric(Numeric.Config()).extract(one.text)}) for one in drawn],
        TRUTH,
        Numeric(Numeric.Config()),
    )
    assert found["label_accuracy"] == 1.0 and found["majority_ratio"] == 2 / 3


def _fields(one: KeptRollout) -> dict[str, Any]:
    return {name: getattr(one, name) for name in KeptRollout.__dataclass_fields__}


def test_questions_whose_truth_is_not_hidden_count_for_nothing() -> None:
    verifier = Numeric(Numeric.Config())
    others = [rollout("labeled", n, "1") for n in range(3)]
    assert against_truth([*others, rollout("a", 0, "7")], TRUTH, verifier)["majority_ratio"] == 1.0
    assert against_truth(others, TRUTH, verifier) == {}


# --------------------------------------------------------------------------- what is kept


def test_a_step_that_is_kept_again_replaces_the_first_and_steps_come_in_order(tmp_path: Path) -> None:
    kept = KeptRollouts(tmp_path / "rollouts")
    steps = [[rollout("a", 0, "1", step=11)], [rollout("a", n, "2", step=2) for n in range(2)]]
    for step in steps:
        kept.keep(step)
    again = [rollout("b", 0, None, step=11, masked=True, teacher_input="read this", stop_reason=StopReason.LENGTH)]
    KeptRollouts(tmp_path / "rollouts").keep(again)
    kept.merge(tmp_path / "all.parquet", 12)
    assert list(tables.read_rollouts(tmp_path / "all.parquet")) == [steps[1], again]


def test_what_a_killed_run_drew_beyond_the_end_is_left_out(tmp_path: Path) -> None:
    kept = KeptRollouts(tmp_path / "rollouts")
    for step in (0, 1, 2):
        kept.keep([rollout("a", 0, "1", step=step)])
    kept.merge(tmp_path / "all.parquet", steps=2)
    assert [[one.step for one in step] for step in tables.read_rollouts(tmp_path / "all.parquet")] == [[0], [1]]


def test_only_the_leader_keeps_and_where_nothing_is_kept_there_is_no_file(tmp_path: Path) -> None:
    other = KeptRollouts(tmp_path / "rollouts", write=False)
    other.keep([rollout("a", 0, "1")])
    other.merge(tmp_path / "all.parquet", 12)
    assert not (tmp_path / "all.parquet").exists() and not (tmp_path / "rollouts").exists()


# --------------------------------------------------------------------------- through executor and worker

SPIES = """\
import json, pathlib
from dataclasses import asdict
from nsd import Completion, Engine, StopReason, Trainer, TrainResult
from nsd.plugins.api import KeptRollout


class Voice(Engine):
    def generate(self, model, requests, sampling, seed, done=frozenset()):
        yield [Completion(r.question_id, n, "#### 7", 1, StopReason.STOP) for r in requests for n in range(sampling.n)]


class Spy(Trainer):
    def planned_steps(self, examples):
        return 1

    def train(self, job):
        watched = job.validation
        told = {"run": job.run_name, "examples": [asdict(one) for one in job.examples], "budget": asdict(job.budget)}
        told["watched"] = None if watched is None else {
            "examples": [asdict(one) for one in watched.examples], "every": watched.every, "keep": watched.keep,
            "protocol": watched.protocol.metric(), "verifier": watched.verifier.name, "seed": watched.seed}
        with pathlib.Path(__file__).with_name("told.jsonl").open("a") as file:
            file.write(json.dumps(told) + "\\n")
        for step in (0, 1):
            job.keep([KeptRollout(step, one.question.id, n, f"#### {n}", 2, StopReason.STOP, str(n), 0.0, 1.0)
                      for one in job.examples for n in (0, 1, 1)])
        job.output_dir.mkdir(parents=True)
        (job.output_dir / "model.safetensors").write_text(job.run_name)
        notes = {"validation": {"kept": "best", "kept_step": 1}} if "measured" in job.run_name else {}
        return TrainResult(steps=2, examples_seen=len(job.examples), tokens_seen=1, notes=notes)
"""
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: jsonl, train: train.jsonl, unlabeled: unlabeled.jsonl, test: test.jsonl,
  fields: {question: q, answer: a, solution: s}, split: {labeled: 4, unlabeled: 3, test: 4}}
prompt: {template: "Say {question} now"}
engine: ./spies.py:Voice
labeler: {use: consensus, k: 2, threshold: 0.0}
trainer: ./spies.py:Spy
eval: {use: avg_at_k, k: 2}
validation: {questions: 1, every: 3, keep: last}
match: {by: seconds, amount: 2.5}
conditions:
  base: {train_on: []}
  blind: {train_on: [questions]}
  measured: {train_on: [labeled]}
  student: {train_on: [pseudo], label_with: base}
"""


class Ran:
    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, Workspace(folder / "workspace")
        (folder / "spies.py").write_text(SPIES)
        (folder / "toy.yaml").write_text(SPEC)
        self.write(str)
        self.plan = self.run()
        lines = (folder / "told.jsonl").read_text().splitlines()
        self.told: dict[str, dict[str, Any]] = {json.loads(one)["run"].split("/")[1]: json.loads(one) for one in lines}

    def write(self, gold: Any) -> None:
        for name, count in (("train", 4), ("unlabeled", 3), ("test", 4)):
            golds = [str(n) if name == "train" else gold(n) for n in range(count)]
            mark = "" if name == "train" else "HIDDEN "
            rows = [{"q": f"{name} {n}", "a": one, "s": f"{mark}so {one}"} for n, one in enumerate(golds)]
            (self.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(self) -> Plan:
        plan = build_plan(load_spec(self.folder / "toy.yaml", run_files=True))
        outcome = execute(plan, self.workspace)
        assert outcome.exit_code == 0, [failure.reason for failure in outcome.failures]
        return plan

    def train_digest(self, condition: str) -> str:
        return next(str(run.train_digest) for run in self.plan.runs if run.condition == condition)

    def curves(self, condition: str) -> dict[tuple[int, str], float]:
        with Store(self.workspace).read() as connection:
            sql = "SELECT step, metric, value FROM curves WHERE train_digest = ?"
            rows = connection.execute(sql, [self.train_digest(condition)]).fetchall()
        return {(step, metric): value for step, metric, value in rows}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("truth"))


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["blind", "student", "measured"])
def test_a_trainer_is_given_what_watches_it_and_none_of_it_among_its_examples(ran: Ran, condition: str) -> None:
    told = ran.told[condition]
    watched = told["watched"]
    job = ran.plan.stages[ran.train_digest(condition)].job
    facts = {name: watched[name] for name in ("every", "keep", "protocol", "verifier", "seed")}
    assert facts == {
        "every": 3,
        "keep": "last",
        "protocol": "avg@2",
        "verifier": "numeric",
        "seed": job.validation.seed,
    }
    (one,) = watched["examples"]
    assert one["prompt"] == f"Say {one['question']['text']} now" and one["answer"] is not None
    assert one["question"]["id"] not in {example["question"]["id"] for example in told["examples"]}
    assert told["budget"]["seconds"] == 2.5 and told["budget"]["generated_tokens"] is None


@pytest.mark.parametrize("condition", ["blind", "student"])
def test_no_hidden_truth_is_in_what_the_training_process_is_given(ran: Ran, condition: str) -> None:
    assert "HIDDEN" not in json.dumps(ran.told[condition])
    assert {one["answer"] for one in ran.told[condition]["examples"]} == {None if condition == "blind" else "7"}
    stage = ran.plan.stages[ran.train_digest(condition)]
    assert stage.truth is not None and "HIDDEN" in repr(list(stage.truth.questions))
    assert "HIDDEN" not in json.dumps(job_of(ran.plan, stage, ran.workspace).to_json())


def test_a_manifest_says_whether_validation_was_measured(ran: Ran) -> None:
    found = {name: ran.workspace.manifest("train", ran.train_digest(name)) for name in ("blind", "measured")}
    training = {name: one.to_json()["training"] for name, one in found.items()}
    assert training["measured"]["validated"] is True and training["measured"]["notes"]["validation"]["kept_step"] == 1
    assert training["blind"]["validated"] is False
    assert [one.text for one in found["blind"].events] == ["the trainer 'Spy' measured nothing while it trained"]


def test_rollouts_lie_with_the_stage_and_its_manifest_knows_them(ran: Ran) -> None:
    folder = ran.workspace.folder("train", ran.train_digest("blind"))
    steps = list(tables.read_rollouts(folder / "rollouts.parquet"))
    assert [(len(step), step[0].step) for step in steps] == [(9, 0), (9, 1)]
    assert "rollouts.parquet" in ran.workspace.manifest("train", folder.name.removeprefix("train-")).files


def test_a_budget_of_seconds_is_said_where_the_answer_is_given(ran: Ran) -> None:
    with Store(ran.workspace).read() as connection:
        notes = answer(connection, "toy").notes
    assert [note for note in notes if BUDGET_OF_SECONDS in note] == [
        f"{name}: {BUDGET_OF_SECONDS}" for name in ("blind", "measured", "student")
    ]


@pytest.mark.slow
def test_rollouts_are_held_against_the_truth_and_again_against_a_corrected_one_without_training(
    tmp_path: Path,
) -> None:
    mine = Ran(tmp_path)
    # Three times 0, 1 and 1 are answered: 1 wins everywhere. The truth of the three questions is 0, 1 and 2.
    # Agreeing is being right for none of the first, for all of the second, for the one 0 of the third.
    shares = {"label_accuracy": 1 / 3, "reward_accuracy": (0 + 3 + 1) / 9, "majority_ratio": 6 / 9}
    expected = {**shares, "ground_truth_ratio": (1 + 2 + 0) / 9}
    for condition in ("blind", "student"):
        found = mine.curves(condition)
        assert found == {(step, name): pytest.approx(value) for step in (0, 1) for name, value in expected.items()}
    assert mine.curves("measured") == {}
    blind = mine.train_digest("blind")
    trained = len((tmp_path / "told.jsonl").read_text().splitlines())
    mine.write(lambda number: "1")
    mine.plan = mine.run()
    assert mine.train_digest("blind") == blind
    assert mine.curves("blind")[0, "label_accuracy"] == 1.0 and mine.curves("blind")[1, "reward_accuracy"] == 1.0
    again = (tmp_path / "told.jsonl").read_text().splitlines()[trained:]
    assert "blind" not in [json.loads(one)["run"].split("/")[1] for one in again]
    files = sorted(path.name for path in mine.workspace.folder("train", blind).glob("truth-*"))
    assert len(files) == 1 and files[0] in mine.workspace.manifest("train", blind).files
    before = mine.curves("blind")
    Store(mine.workspace).rebuild()
    assert mine.curves("blind") == before
