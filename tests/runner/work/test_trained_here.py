"""A training in the test's own process: what the trainer is given, and what is kept while it goes on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import Example, Trainer, TrainJob
from nsd.plugins.errors import StageFailed
from nsd.plugins.seeds import stream
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.bucket import GROWING
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.context import Context
from nsd.runner.work.events import Event, Told
from nsd.runner.work.jobs import job_of, make_plugin, write_data
from nsd.runner.work.stages import run_stage
from stage_here import do

TRAINER = """\
from pathlib import Path

from nsd import Trainer, TrainResult
from nsd.plugins.api import Example, Trainer, TrainJob
from nsd.plugins.errors import StageFailed

HERE = Path(__file__).parent


class Mine(Trainer):
    needs_targets = True
    given = []

    def planned_steps(self, examples):
        return 2

    def train(self, job):
        self.given.append(job)
        job.report(1, 2, {"loss": 3.0})
        job.report(2, 2, {"loss": 2.0, "kl": 0.5})
        if (HERE / "fail").exists():
            raise StageFailed("it was told to fail")
        job.output_dir.mkdir(parents=True)
        (job.output_dir / "model.safetensors").write_text("weights")
        notes = {"validation": [{"step": 1, "value": 0.5}]} if (HERE / "measure").exists() else {}
        return TrainResult(steps=2, examples_seen=len(job.examples), tokens_seen=None, notes=notes)
"""
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: jsonl, train: train.jsonl, test: test.jsonl, fields: {question: q, answer: a, solution: s},
  split: {labeled: 6, test: 2}}
prompt: {template: "Q: {question}", chat: false}
trainer: ./mine.py:Mine
eval: {use: accuracy, max_tokens: 8}
seeds: [5]
conditions:
  taught: {train_on: [labeled]}
"""
WATCHED = "validation: {questions: 2, every: 3, keep: last, protocol: {use: avg_at_k, k: 2}}\n"


def plan_of(folder: Path, text: str = SPEC) -> Plan:
    (folder / "mine.py").write_text(TRAINER)
    for name in ("train", "test"):
        rows = [json.dumps({"q": f"{name} {n}?", "a": str(n), "s": f"so #### {n}"}) for n in range(8)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    (folder / "toy.yaml").write_text(text)
    return build_plan(load_spec(folder / "toy.yaml", run_files=True))


def training(plan: Plan) -> Stage:
    (stage,) = [one for one in plan.stages.values() if one.kind == "train"]
    return stage


def attempt(plan: Plan, workspace: Workspace, **world: Any) -> tuple[dict[str, Any], list[Event], Context]:
    """What the stage says of itself, what it told, and the world it had."""
    workspace.create()
    write_data(plan, workspace)
    told: list[Event] = []
    stage = training(plan)
    with workspace.lock(stage.kind, stage.digest) as partial:
        context = Context(workspace, partial, told.append, lambda: False, **world)
        return dict(run_stage(job_of(plan, stage, workspace), context)), told, context


def given_to(plan: Plan) -> TrainJob:
    """What the trainer was given at last."""
    block = training(plan).job.trainer  # type: ignore[union-attr]
    found: TrainJob = make_plugin(block, Trainer).given[-1]  # type: ignore[attr-defined]
    return found


def test_a_trainer_is_given_what_it_is_watched_by(tmp_path: Path) -> None:
    plan, workspace = plan_of(tmp_path, SPEC + WATCHED), Workspace(tmp_path / "w")
    attempt(plan, workspace)
    found = given_to(plan).validation
    assert found is not None
    asked = plan.data[training(plan).job.validation.questions]  # type: ignore[union-attr]
    assert found.examples == [Example(q, f"Q: {q.text}", q.answer, f"so #### {q.answer}", "labeled") for q in asked]
    assert len(found.examples) == 2 and len(given_to(plan).examples) == 4
    assert (found.every, found.keep, found.seed) == (3, "last", stream(5, "validation"))
    assert (found.protocol.metric(), found.verifier.name) == ("avg@2", "numeric")


def test_a_trainer_is_watched_by_nothing_where_the_spec_says_nothing(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    facts, told, _ = attempt(plan, Workspace(tmp_path / "w"))
    assert given_to(plan).validation is None and "validated" not in facts["training"]
    assert not [event for event in told if event.event == Told.WARNING]


@pytest.mark.parametrize("measured", [True, False])
def test_a_trainer_that_measures_nothing_while_it_is_watched_is_a_warning(tmp_path: Path, measured: bool) -> None:
    plan = plan_of(tmp_path, SPEC + WATCHED)
    if measured:
        (tmp_path / "measure").touch()
    facts, told, _ = attempt(plan, Workspace(tmp_path / "w"))
    warnings = [(event.text, event.field) for event in told if event.event == Told.WARNING]
    name = make_plugin(training(plan).job.trainer, Trainer).name  # type: ignore[union-attr]
    said = [(f"the trainer {name!r} measured nothing while it trained", "validation")]
    assert facts["training"]["validated"] is measured and warnings == ([] if measured else said)


def test_a_trainer_is_given_its_places_and_who_it_is(tmp_path: Path) -> None:
    plan, workspace = plan_of(tmp_path), Workspace(tmp_path / "w")
    attempt(plan, workspace)
    given, partial = given_to(plan), workspace.partial("train", training(plan).digest)
    assert (given.output_dir, given.checkpoint_dir) == (partial / "artifact" / "model", partial / "checkpoints")
    assert (given.run_name, given.lora, given.trackers, given.max_steps_cap) == ("toy/taught/seed5", None, (), None)
    assert asdict(given.budget) == {"steps": None, "tokens": None, "generated_tokens": None, "seconds": None}
    assert [(one.prompt, one.target, one.source) for one in given.examples] == [
        (f"Q: {one.question.text}", f"so #### {one.answer}", "labeled") for one in given.examples
    ]
    assert len(given.examples) == 6


def test_a_training_says_what_it_came_to_and_how_far_it_was(tmp_path: Path) -> None:
    facts, told, context = attempt(plan_of(tmp_path), Workspace(tmp_path / "w"))
    assert facts["training"]["steps"] == 2 and facts["training"]["examples"] == {"labeled": 6}
    assert [(one.done, one.total, one.unit, one.metrics) for one in told] == [
        (1, 2, "steps", {"loss": 3.0}),
        (2, 2, "steps", {"loss": 2.0, "kl": 0.5}),
    ]
    assert tables.read(context.artifact / "curves.parquet") == [
        {"step": 1, "metric": "loss", "value": 3.0},
        {"step": 2, "metric": "kl", "value": 0.5},
        {"step": 2, "metric": "loss", "value": 2.0},
    ]


def test_of_several_processes_that_train_only_the_first_writes_and_tells(tmp_path: Path) -> None:
    _, told, context = attempt(plan_of(tmp_path), Workspace(tmp_path / "w"), leader=False)
    assert told == [] and [path.name for path in context.artifact.iterdir()] == ["model"]
    assert not (context.partial / "curves.jsonl").exists()


def test_the_curves_of_a_training_that_fails_lie_where_a_store_looks_for_them(tmp_path: Path) -> None:
    plan, workspace = plan_of(tmp_path), Workspace(tmp_path / "w")
    (tmp_path / "fail").touch()
    with pytest.raises(StageFailed, match="told to fail"):
        do(plan, training(plan), workspace)
    partial = workspace.partial("train", training(plan).digest)
    (name,) = {path.name for path in partial.iterdir() if path.suffix == ".jsonl"}
    assert name in GROWING
    assert [json.loads(line)["step"] for line in (partial / name).read_text().splitlines()] == [1, 2]


def test_a_trainer_that_imitates_is_given_no_question_without_a_solution(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SPEC.replace(", solution: s", ""))
    with pytest.raises(StageFailed, match="6 of 6 examples have no solution text to imitate: trainer"):
        attempt(plan, Workspace(tmp_path / "w"))
