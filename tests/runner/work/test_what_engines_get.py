"""What the spec says of sampling, prompt and seed, as the engine is given it by the real stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import Sampling, TrainSeeds
from nsd.plugins.seeds import stream
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.context import Context
from nsd.runner.work.jobs import job_of, write_data
from nsd.runner.work.stages import run_stage

SPY = """\
import json, pathlib
from dataclasses import asdict
from nsd import Completion, Engine, StopReason


class Spy(Engine):
    needs_model = False

    def generate(self, model, requests, sampling, seed, done=frozenset()):
        told = {"model": model, "prompts": [r.prompt for r in requests], "sampling": asdict(sampling), "seed": seed}
        told["given"] = [r.chat_template_kwargs for r in requests]
        pathlib.Path(__file__).with_name("told.json").write_text(json.dumps(told))
        yield [Completion(r.question_id, n, "#### 1", 1, StopReason.STOP) for r in requests for n in range(sampling.n)]
"""
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, train: 20, test: 10, split: {labeled: 2, unlabeled: 3, test: 2}}
prompt:
  {template: "Say {question} now", chat: true, system: Be brief., chat_template_kwargs: {enable_thinking: false}}
labeler: {use: consensus, k: 5, temperature: 0.9, top_p: 0.8, top_k: 30, max_tokens: 33, stop: ["\\n\\n", Q]}
trainer: sft
eval: {use: avg_at_k, k: 3, temperature: 0.4, top_p: 0.7, top_k: 20, max_tokens: 44, stop: [END]}
seeds: [7]
conditions:
  base: {train_on: [], engine: ./spy.py:Spy}
  student: {train_on: [pseudo], label_with: base}
"""
EVAL = Sampling(n=3, temperature=0.4, max_tokens=44, top_p=0.7, top_k=20, stop=("END",))
LABEL = Sampling(n=5, temperature=0.9, max_tokens=33, top_p=0.8, top_k=30, stop=("\n\n", "Q"))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "spy.py").write_text(SPY)
    (tmp_path / "spec.yaml").write_text(SPEC)
    return build_plan(load_spec(tmp_path / "spec.yaml", run_files=True), repeats=1)


def told(plan: Plan, folder: Path, digest: str) -> dict[str, Any]:
    """Do one stage here and return what its engine was given."""
    workspace = Workspace(folder / "w")
    workspace.create()
    write_data(plan, workspace)
    stage = plan.stages[digest]
    context = Context(workspace, folder / "w" / "partial" / digest, lambda event: None, lambda: False)
    context.artifact.mkdir(parents=True)
    run_stage(job_of(plan, stage, workspace), context)
    found: dict[str, Any] = json.loads((folder / "spy.py").with_name("told.json").read_text())
    found["sampling"] = Sampling(**found["sampling"])
    return found


def test_an_evaluation_draws_as_the_eval_block_says(plan: Plan, tmp_path: Path) -> None:
    run = plan.runs[0]
    drawn = plan.stages[run.eval_digest].inputs["samples"]
    given = told(plan, tmp_path, drawn)
    assert given["sampling"] == EVAL
    assert given["seed"] == stream(7, "eval") and given["model"] is None
    test = plan.data[plan.stages[drawn].job.questions]
    assert len(test) == 2
    assert given["prompts"] == [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Say {question.text} now"}]
        for question in test
    ]


def test_labelling_and_evaluation_give_the_template_the_same_values(plan: Plan, tmp_path: Path) -> None:
    samples = [stage.digest for stage in plan.stages.values() if stage.kind == "sample" and not stage.inputs]
    assert len(samples) == 3  # to label, to evaluate, and once again
    for digest in samples:
        given = told(plan, tmp_path, digest)["given"]
        assert given and all(one == {"enable_thinking": False} for one in given)


def test_a_repeated_evaluation_has_another_seed_and_the_rest_alike(plan: Plan, tmp_path: Path) -> None:
    given = told(plan, tmp_path, plan.stages[plan.runs[0].repeats[0]].inputs["samples"])
    assert given["seed"] == stream(7, "eval", 1) and given["sampling"] == EVAL


def test_samples_for_labels_are_drawn_as_the_labeler_says(plan: Plan, tmp_path: Path) -> None:
    (label,) = [stage for stage in plan.stages.values() if stage.kind == "label"]
    given = told(plan, tmp_path, label.inputs["samples"])
    assert given["sampling"] == LABEL and given["seed"] == stream(7, "rollout", 1)
    assert len(given["prompts"]) == 3


def test_each_stage_has_streams_of_its_own(plan: Plan) -> None:
    (train,) = [stage for stage in plan.stages.values() if stage.kind == "train"]
    (label,) = [stage for stage in plan.stages.values() if stage.kind == "label"]
    # As numbers: a stream that changes draws other samples under every seed that people have used.
    assert train.job.seeds == TrainSeeds(init=2029184417, order=444589408, rollout=1859387506)
    assert label.job.seed == stream(7, "label", 1) == 4408122000713977140
    assert plan.stages[plan.runs[0].eval_digest].job.seed == 8150038065810427584
