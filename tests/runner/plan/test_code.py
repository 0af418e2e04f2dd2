"""Plans with plugins that are not nsd's own: their code in digests, and engines that load no weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nsd.runner.cli.app import app
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.changes import made_before_code
from nsd.runner.plan.model import Plan
from nsd.runner.spec.errors import SpecErrors
from nsd.runner.spec.load import load_spec
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace, digest_of

MINE = """\
from nsd import Completion, Engine, PluginConfig, Reward, StopReason, Verifier
from nsd.runner.store.shapes import Manifest


class Voice(Engine):
    needs_model = False

    def generate(self, model, requests, sampling, seed, done=frozenset()):
        yield [Completion(r.question_id, n, "1", 1, StopReason.STOP) for r in requests for n in range(sampling.n)]


class Prize(Reward):
    class Config(PluginConfig):
        weight: float = 1.0
        bonus: float = 0.5

    def rewards(self, rollouts):
        return [0.0 for _ in rollouts]
"""
DATA = "data: {use: wordmath, split: {labeled: 4, unlabeled: 4, test: 4}}\n"
REWARDED = (
    "name: toy\nmodel: builtin:wordmath-1m\n" + DATA + "trainer: {use: grpo, rewards: [correct, './mine.py:Prize']}\n"
    "conditions: {base: {train_on: []}, arm: {train_on: [labeled]}}\n"
)


def plan_of(folder: Path, text: str, code: str = MINE) -> Plan:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(code)
    (folder / "spec.yaml").write_text(text)
    return build_plan(load_spec(folder / "spec.yaml", run_files=True))


def digests(plan: Plan) -> dict[str, str]:
    return {run.condition: run.eval_digest for run in plan.runs}


# --------------------------------------------------------------------------- code of a plugin inside a plugin


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("return [0.0", "return [1.0", {"arm"}),
        ("bonus: float = 0.5", "bonus: float = 0.25", {"arm"}),
        ("return [0.0", "# nothing\n        return [0.0", set()),
        ('"1", 1', '"2", 1', set()),  # the engine in the same file, which this spec does not use
    ],
)
def test_a_rewards_code_is_in_the_training_that_uses_it(tmp_path: Path, old: str, new: str, changed: set[str]) -> None:
    before, after = (digests(plan_of(tmp_path, REWARDED, code)) for code in (MINE, MINE.replace(old, new)))
    assert {name for name in before if before[name] != after[name]} == changed


def test_a_rewards_fields_are_in_the_digest_and_its_path_is_not(tmp_path: Path) -> None:
    text = REWARDED.replace("'./mine.py:Prize'", "{use: './mine.py:Prize', bonus: 0.75}")
    plan = plan_of(tmp_path, text)
    (train,) = [stage for stage in plan.stages.values() if stage.kind == "train"]
    trainer = train.key["trainer"]
    assert trainer["config"]["rewards"][1] == {"use": "Prize", "bonus": 0.75}
    full = train.settings["trainer"]["config"]["rewards"][1]
    assert full == {"use": "Prize", "weight": 1.0, "bonus": 0.75}
    assert set(trainer["inside"]) == {"rewards[1]"} and set(trainer["inside"]["rewards[1]"]["code"]) == {"tree"}
    assert "mine.py" not in json.dumps(train.key)
    assert train.job.trainer.config["rewards"][1]["use"] == f"{tmp_path / 'mine.py'}:Prize"


def test_a_path_in_a_digest_is_as_it_was_written(tmp_path: Path) -> None:
    code = MINE.replace(
        "    needs_model = False\n",
        "    needs_model = False\n\n    class Config(PluginConfig):\n        voice: Annotated[str, SpecPath()]\n",
    )
    code = code.replace(
        "from nsd import Completion", "from typing import Annotated\n\nfrom nsd import SpecPath, Completion"
    )
    (tmp_path / "deep.txt").write_text("")
    text = (
        "name: toy\nmodel: builtin:wordmath-1m\n"
        + DATA
        + "engine: {use: './mine.py:Voice', voice: ./deep.txt}\nconditions: {a: {train_on: []}}\n"
    )
    stage, _ = plan_of(tmp_path, text, code).stages.values()
    assert stage.key["engine"]["config"] == {"voice": "./deep.txt"}
    assert stage.job.engine.config == {"voice": str(tmp_path / "deep.txt")}


# --------------------------------------------------------------------------- workspaces made before


TREE = {"use": "./mine.py:Voice", "config": {}, "code": {"tree": "1"}}
NESTED = {"use": "./mine.py:Voice", "config": {}, "inside": {"x": TREE}}
BEFORE = {"use": "./mine.py:Voice", "config": {}, "version": 1}


@pytest.mark.parametrize(
    ("finished", "said"),
    [
        ([BEFORE], True),
        ([TREE], False),
        ([NESTED], False),
        ([TREE, BEFORE], True),  # one of today's beside it changes nothing
        ([{**BEFORE, "use": "another"}], False),
        ([], False),
    ],
)
def test_only_results_without_code_are_made_before(finished: list[dict[str, Any]], said: bool) -> None:
    owed = [("score", {"engine": {**TREE, "use": "Voice"}})]
    held = [Manifest(kind="score", digest="d", key={"engine": key}) for key in finished]
    sentence = made_before_code(owed, {"score": held})
    assert (sentence is not None) is said


def test_plan_says_once_why_stages_made_before_are_owed(tmp_path: Path) -> None:
    text = (
        "name: toy\n"
        + DATA
        + "engine: ./mine.py:Voice\nconditions: {a: {train_on: []}, b: {train_on: [], eval: {k: 2}}}\n"
    )
    text = text.replace("eval: {k: 2}", "eval: {use: avg_at_k, k: 2}")
    plan = plan_of(tmp_path, text)
    workspace = Workspace(tmp_path / "w")
    for stage in [stage for stage in plan.stages.values() if stage.kind == "sample"]:
        # As it was written when a file's content stood for its version.
        engine = {"use": "./mine.py:Voice", "version": 123456789, "config": {}}
        key = {**stage.key, "engine": engine}
        old = digest_of(key)
        (workspace.partial(stage.kind, old) / "artifact").mkdir(parents=True)
        workspace.commit(stage.kind, old, Manifest(kind=stage.kind, digest=old, key=key, inputs={}))
    words = ["plan", str(tmp_path / "spec.yaml"), "--run-files", "--json", "--workspace", str(workspace.root)]
    facts = json.loads(CliRunner().invoke(app, words).stdout)
    assert [stage["cached"] for stage in facts["stages"]] == [False] * 4
    (said,) = [note for note in facts["notes"] if "before the code of such plugins" in note]
    assert said.startswith("finished stages that use Voice were made")
    shutil.rmtree(workspace.artifacts)
    facts = json.loads(CliRunner().invoke(app, words).stdout)
    assert not any("before the code of such plugins" in note for note in facts["notes"])


# --------------------------------------------------------------------------- engines without weights

WEIGHTLESS = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 4, unlabeled: 4, test: 4}}
labeler: consensus
trainer: sft
engine: ENGINE
conditions:
  base: {train_on: []}
CONDITIONS"""
REPLAY = "{use: replay, path: said.jsonl}"
IGNORED = {
    "evaluation": "  arm: {train_on: [labeled]}\n",
    "evaluation, by an engine of its own": "  arm: {train_on: [labeled], engine: REPLAY}\n",
    "labels of a trained teacher": (
        "  arm: {train_on: [labeled]}\n  student: {train_on: [pseudo], label_with: arm, engine: hf}\n"
    ),
    "later rounds": "  arm: {train_on: [pseudo], label_with: base, rounds: 2}\n",
    "pseudo-labels": "  arm: {train_on: [labeled, pseudo], label_with: base}\n",
    "a point of a sweep": "  arm: {train_on: [labeled], engine: hf}\n"
    "sweep: {conditions: arm, grid: {engine: {x: REPLAY, y: hf}}}\n",
    "an engine in a file": "  arm: {train_on: [labeled], engine: './mine.py:Voice'}\n",
}
SEEN = {
    "an untrained arm": "",
    "two untrained arms": "  other: {train_on: [], eval: {use: avg_at_k, k: 2}}\n",
    "a trained arm with an engine of its own": "  arm: {train_on: [labeled], engine: hf}\n",
    "labels of an untrained teacher": "  arm: {train_on: [pseudo], label_with: base, engine: hf}\n",
    "and several rounds of them": "  arm: {train_on: [pseudo], label_with: base, engine: hf, rounds: 3}\n",
    "labels that ask no model": "  arm: {train_on: [pseudo], labeler: noisy_oracle, engine: hf}\n",
}


def weightless(folder: Path, conditions: str, engine: str = REPLAY) -> Path:
    (folder / "mine.py").write_text(MINE)
    (folder / "said.jsonl").write_text("")
    text = WEIGHTLESS.replace("CONDITIONS", conditions).replace("ENGINE", engine).replace("REPLAY", REPLAY)
    (folder / "spec.yaml").write_text(text)
    return folder / "spec.yaml"


@pytest.mark.parametrize("how", IGNORED)
def test_an_engine_that_would_ignore_the_training_is_an_error(how: str, tmp_path: Path) -> None:
    spec = weightless(tmp_path, IGNORED[how], "hf" if "of its own" in how or "in a file" in how else REPLAY)
    with pytest.raises(SpecErrors) as told:
        load_spec(spec, run_files=True)
    (error,) = told.value.errors
    assert error.message.startswith("the condition 'arm") and "loads no weights" in error.message
    assert error.suggestion is not None and "engine: hf" in error.suggestion
    line = spec.read_text().splitlines()[error.line - 1]
    assert line[error.column - 1 :].startswith(("engine", "x: "))


@pytest.mark.parametrize("how", SEEN)
def test_an_engine_that_ignores_nothing_is_none(how: str, tmp_path: Path) -> None:
    plan = build_plan(load_spec(weightless(tmp_path, SEEN[how])))
    for run in plan.runs:
        drawn = plan.stages[run.eval_digest].settings
        assert (drawn["model"] is None) == (run.train_digest is None)
