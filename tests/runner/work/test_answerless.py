"""Trainings on questions without answers, through executor and worker, to what is reported of them.

The truth of every unlabeled and test question holds the word HIDDEN.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nsd.plugins.words import AFTER_TEST_QUESTIONS, ON_TEST_QUESTIONS
from nsd.reports.judge.answer import answer
from nsd.reports.judge.compare import compare_runs
from nsd.reports.page.data import collect_comparison, collect_experiment
from nsd.reports.page.page import render_page
from nsd.reports.page.text import as_markdown
from nsd.reports.text.answer import render_answer
from nsd.reports.text.matrix import render_matrix
from nsd.reports.text.render import as_csv, render
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import execute
from support import made_once

SPIES = """\
import json, pathlib
from dataclasses import asdict
from nsd import Completion, Engine, StopReason, Trainer, TrainResult
from nsd.plugins.verifiers.numeric import Numeric


class Voice(Engine):
    def generate(self, model, requests, sampling, seed, done=frozenset()):
        yield [Completion(r.question_id, n, "#### 7", 1, StopReason.STOP) for r in requests for n in range(sampling.n)]


class Half(Numeric):
    pass


class Spy(Trainer):
    def planned_steps(self, examples):
        return 1

    def train(self, job):
        told = {"examples": [asdict(one) for one in job.examples], "verifier": type(job.verifier).__name__}
        with pathlib.Path(__file__).with_name("told.jsonl").open("a") as file:
            file.write(json.dumps({"run": job.run_name, **told}) + "\\n")
        job.output_dir.mkdir(parents=True)
        (job.output_dir / "model.safetensors").write_text(job.run_name)
        return TrainResult(steps=1, examples_seen=len(job.examples), tokens_seen=1)
"""
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: jsonl, train: train.jsonl, unlabeled: unlabeled.jsonl, test: test.jsonl,
  fields: {question: q, answer: a, solution: s, context: c, id: n}, shown: [id],
  split: {labeled: 2, unlabeled: 3, test: 4}}
prompt: {template: "Say {question} now"}
engine: ./spies.py:Voice
labeler: {use: consensus, k: 2, threshold: 0.0}
trainer: ./spies.py:Spy
train_verifier: ./spies.py:Half
conditions:
  base: {train_on: []}
  blind: {train_on: [labeled, questions]}
  ttt: {train_on: [test_questions]}
  student: {train_on: [pseudo], label_with: ttt}
  warm: {train_on: [pseudo], label_with: ttt, init: teacher, train_verifier: null}
hypotheses: [ttt > base]
"""


def _plan(folder: Path) -> Plan:
    return build_plan(load_spec(folder / "toy.yaml", run_files=True))


def _run(folder: Path) -> None:
    (folder / "spies.py").write_text(SPIES)
    (folder / "toy.yaml").write_text(SPEC)
    for name, count, mark in (("train", 2, ""), ("unlabeled", 3, "HIDDEN"), ("test", 4, "HIDDEN")):
        rows = [
            {"q": f"{name} {n}", "a": f"{mark} {n}", "s": f"{mark} so {n}", "c": f"{mark} it is {n}", "n": n}
            for n in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = execute(_plan(folder), Workspace(folder / "workspace"))
    assert outcome.exit_code == 0, [failure.reason for failure in outcome.failures]


class Ran:
    """The finished workspace, its plan, and what each training was told."""

    def __init__(self, folder: Path) -> None:
        self.plan = _plan(folder)
        self.workspace = Workspace(folder / "workspace")
        lines = (folder / "told.jsonl").read_text().splitlines()
        self.told: dict[str, dict[str, Any]] = {json.loads(one)["run"]: json.loads(one) for one in lines}

    def examples(self, condition: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.told[f"toy/{condition}/seed42"]["examples"]
        return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(made_once(tmp_path_factory, "answerless", _run))


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["blind", "ttt", "student"])
def test_no_hidden_truth_reaches_a_trainer_in_any_field(ran: Ran, condition: str) -> None:
    assert "HIDDEN" not in json.dumps(ran.examples(condition))


@pytest.mark.parametrize(
    ("condition", "source", "texts"),
    [("blind", "questions", ("unlabeled", 3)), ("ttt", "test_questions", ("test", 4))],
)
def test_an_example_has_its_question_and_prompt_and_no_answer(
    ran: Ran, condition: str, source: str, texts: tuple[str, int]
) -> None:
    found = [one for one in ran.examples(condition) if one["source"] == source]
    name, count = texts
    assert sorted(one["question"]["text"] for one in found) == [f"{name} {n}" for n in range(count)]
    for one in found:
        assert one["prompt"] == f"Say {one['question']['text']} now"
        assert one["answer"] is one["target"] is one["question"]["answer"] is one["question"]["solution"] is None
        assert one["question"]["context"] is None and set(one["question"]["meta"]) == {"id"}


def test_labeled_examples_beside_them_keep_their_answers(ran: Ran) -> None:
    labeled = [one for one in ran.examples("blind") if one["source"] == "labeled"]
    assert len(labeled) == 2 and all(one["answer"] is not None and one["target"] is not None for one in labeled)


def test_no_hidden_truth_lies_in_the_data_of_such_a_training(ran: Ran) -> None:
    for stage in ran.plan.stages.values():
        for source in stage.job.train_on if stage.kind == "train" else []:
            if source.source in ("questions", "test_questions"):
                assert "HIDDEN" not in repr(tables.read_questions(ran.workspace.data_file(source.data)))


def test_a_training_is_given_its_own_verifier_and_where_there_is_none_the_other(ran: Ran) -> None:
    used = {run.split("/")[1]: told["verifier"] for run, told in ran.told.items()}
    assert used == {"blind": "Half", "ttt": "Half", "student": "Half", "warm": "Numeric"}


# --------------------------------------------------------------------------- what is said of it

REMARKS = [f"ttt: {ON_TEST_QUESTIONS}", f"student: {AFTER_TEST_QUESTIONS}", f"warm: {AFTER_TEST_QUESTIONS}"]


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


def test_an_answer_says_once_of_each_arm_what_it_was_trained_on(ran: Ran) -> None:
    console = Console(file=io.StringIO(), width=80)
    with Store(ran.workspace).read() as connection:
        found = answer(connection, "toy")
    render_answer(found, "table", console)
    assert [note for note in found.notes if ON_TEST_QUESTIONS in note] == REMARKS
    assert [printed(console).count(remark) for remark in REMARKS] == [1, 1, 1]


def test_a_comparison_of_runs_says_it_of_the_runs_named(ran: Ran) -> None:
    with Store(ran.workspace).read() as connection:
        found = compare_runs(connection, ["toy/base/seed42", "toy/blind/seed42", "toy/ttt/seed42"])
    remark = f"toy/ttt/seed42: {ON_TEST_QUESTIONS}"
    assert [one.remarks for one in found] == [(), (remark,), (remark,)]
    for show in (render, render_matrix):
        console = Console(file=io.StringIO(), width=80)
        show(found, "table", console)
        assert printed(console).count(ON_TEST_QUESTIONS) == 1
    assert as_csv(found).count(remark) == 2


@pytest.mark.slow
def test_a_report_says_it_on_the_page_and_as_text(ran: Ran) -> None:
    with Store(ran.workspace).read() as connection:
        data = collect_experiment(connection, ran.workspace, "toy")
        two = collect_comparison(connection, ran.workspace, ["toy/base/seed42", "toy/student/seed42"])
    assert [remark for remark in data.remarks if ON_TEST_QUESTIONS in remark] == REMARKS
    for remark in REMARKS:
        assert remark in render_page(data) and remark in as_markdown(data)
    assert f"toy/student/seed42: {AFTER_TEST_QUESTIONS}" in render_page(two)


def test_an_index_made_again_from_the_manifests_knows_it_too(ran: Ran, tmp_path: Path) -> None:
    workspace = Workspace(shutil.copytree(ran.workspace.root, tmp_path / "copy"))
    Store(workspace).rebuild()
    with Store(workspace).read() as connection:
        assert [note for note in answer(connection, "toy").notes if ON_TEST_QUESTIONS in note] == REMARKS
