"""Files that a spec names: run only where somebody says so, and found from the spec's folder, at any depth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nsd.plugins.errors import InputError
from nsd.runner.cli.app import app
from nsd.runner.plan.build import build_plan, spec_digest
from nsd.runner.spec.errors import SpecErrors
from nsd.runner.spec.load import load_spec
from nsd.runner.spec.model import Block
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import execute
from nsd.runner.work.jobs import worker_environment
from support import STRANGER, STRANGERS
from thinned import thinned

# Leaves a mark when it is imported; a class of every kind.
CANARY = """\
import pathlib
pathlib.Path(__file__).with_name("RAN").touch()
from typing import Annotated, Any
from nsd import *
from nsd.plugins.api import Dataset, Pools, Question, Sampling, question_id


class Data(Dataset):
    default_verifier = "math"

    def pools(self):
        texts = {i: f"{i} + 1?" for i in range(9)}
        return Pools([Question(question_id(t), t, str(i + 1), f"#### {i + 1}") for i, t in texts.items()], None)


class Judge(Verifier):
    def extract(self, completion):
        return completion or None


class Voice(Engine):
    needs_model = False

    def generate(self, model, requests, sampling, seed, done=frozenset()):
        yield [Completion(r.question_id, n, "1", 1, StopReason.STOP) for r in requests for n in range(sampling.n)]


class Label(Labeler):
    needs_model = False

    def sampling(self):
        return None


class Teach(Trainer):
    class Config(PluginConfig):
        anything: list[int] = []

    def planned_steps(self, examples):
        return 1


class Measure(Protocol):
    def metric(self):
        return "accuracy"

    def sampling(self):
        return Sampling(n=1, temperature=0.0, max_tokens=4)


class Prize(Reward):
    pass
"""
TOP = "name: toy\nmodel: builtin:wordmath-1m\n"
DATA = "data: {use: wordmath, split: {labeled: 4, unlabeled: 4, test: 4}}\n"
LABELED = "conditions: {base: {train_on: []}, arm: {train_on: [labeled]}}\n"
SPLIT = "split: {labeled: 2, unlabeled: 2, test: 2}"
SFT = "trainer: sft\n"
PLACES = {
    "data": f"data: {{use: './canary.py:Data', {SPLIT}}}\n" + SFT + LABELED,
    "data, partial blocks over its defaults": f"data: {{use: './canary.py:Data', {SPLIT}}}\n"
    "verifier: {cpu_seconds: 3}\nprompt: {separator: plus}\n" + SFT + LABELED,
    "verifier": DATA + "verifier: {use: './canary.py:Judge'}\n" + SFT + LABELED,
    "engine": DATA + "engine: {use: './canary.py:Voice'}\nconditions: {base: {train_on: []}}\n",
    "labeler": DATA + SFT + "labeler: {use: './canary.py:Label'}\nconditions: {arm: {train_on: [pseudo]}}\n",
    "trainer": DATA + "trainer: {use: './canary.py:Teach', anything: [1]}\n" + LABELED,
    "eval": DATA + SFT + "eval: {use: './canary.py:Measure'}\n" + LABELED,
    "short form": DATA + SFT + "verifier: ./canary.py:Judge\n" + LABELED,
    "condition": DATA + SFT + "conditions: {arm: {train_on: [labeled], verifier: ./canary.py:Judge}}\n",
    "block that no condition uses": DATA + "trainer: ./canary.py:Teach\nconditions: {base: {train_on: []}}\n",
    "sweep": DATA
    + SFT
    + LABELED
    + "sweep: {conditions: arm, grid: {verifier: {a: './canary.py:Judge', b: numeric}}}\n",
    "sweep over use": DATA
    + SFT
    + "verifier: numeric\n"
    + LABELED
    + "sweep: {grid: {verifier.use: ['./canary.py:Judge']}}\n",
    "inner dataset": "data: {use: jsonl, train: rows.jsonl, split: {labeled: 2, unlabeled: 2, test: 2}, "
    "unlabeled_from: {use: './canary.py:Data'}}\n" + SFT + LABELED,
    "inner dataset of an inner dataset": "data: {use: jsonl, train: rows.jsonl, "
    "split: {labeled: 2, unlabeled: 2, test: 2}, unlabeled_from: {use: jsonl, train: rows.jsonl, "
    "unlabeled_from: {use: './canary.py:Data'}}}\n" + SFT + LABELED,
    "inner dataset in a condition": f"data: {{use: jsonl, train: rows.jsonl, {SPLIT}}}\n"
    "trainer: sft\nconditions: {arm: {train_on: [labeled], data: {unlabeled_from: {use: './canary.py:Data'}}}}\n",
    "reward": DATA + "trainer: {use: grpo, rewards: [{use: './canary.py:Prize', weight: 2}]}\n" + LABELED,
    "reward, short form": DATA + "trainer: {use: grpo, rewards: [correct, './canary.py:Prize']}\n" + LABELED,
    "reward in a condition": DATA + "trainer: grpo\nconditions:\n"
    "  arm: {train_on: [labeled], trainer: {rewards: ['./canary.py:Prize']}}\n",
    "absolute path": DATA + SFT + "verifier: {use: 'HERE/canary.py:Judge'}\n" + LABELED,
    "somewhere above": DATA + SFT + "verifier: {use: '../THIS/canary.py:Judge'}\n" + LABELED,
}


def place(folder: Path, text: str) -> Path:
    """A spec beside a canary and a few rows."""
    folder.mkdir(exist_ok=True)
    (folder / "canary.py").write_text(CANARY)
    rows = [{"question": f"{i} + 2?", "answer": str(i + 2), "solution": f"#### {i + 2}"} for i in range(9)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = folder / "spec.yaml"
    spec.write_text(TOP + text.replace("HERE", str(folder)).replace("THIS", folder.name))
    return spec


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that is not the spec's."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


# A spec that can be run, and what looks at it: once it has results these commands read them too.
EVERYWHERE = f"""\
data: {{use: './canary.py:Data', {SPLIT}}}
verifier: ./canary.py:Judge
engine: ./canary.py:Voice
labeler: ./canary.py:Label
trainer: {{use: grpo, rewards: [correct, './canary.py:Prize']}}
conditions:
  base: {{train_on: []}}
  other: {{train_on: [], eval: {{temperature: 0.5}}}}
hypotheses: [other > base]
"""
LOOKING = [
    *(["validate", "SPEC"], ["validate", "SPEC", "--json"], ["validate", "SPEC", "--gold"]),
    *(["plan", "SPEC"], ["plan", "SPEC", "--json", "--smoke"], ["power", "SPEC"]),
    *(["compare", "SPEC"], ["compare", "SPEC", "--baseline", "base"], ["compare", "toy"]),
    *(["report", "SPEC"], ["report", "SPEC", "--format", "json"], ["report", "SPEC", "--html", "page.html"]),
    *(["labels", "SPEC"], ["revote", "SPEC"], ["runs"], ["show", "toy/base/seed42"], ["samples", "toy/base/seed42"]),
    *(["log"], ["logs", "toy/base/seed42"], ["schema"], ["plugins"], ["gc"], ["db", "rebuild"]),
]
NEEDS_THE_FILE = ("plan", "power")


@pytest.mark.slow
def test_no_command_that_only_looks_runs_a_named_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = place(tmp_path, EVERYWHERE)
    monkeypatch.chdir(tmp_path)
    assert execute(build_plan(load_spec(spec, run_files=True)), Workspace(tmp_path / "nsd-workspace")).exit_code == 0
    (tmp_path / "RAN").unlink()
    for words in LOOKING:
        done = CliRunner().invoke(app, ["spec.yaml" if word == "SPEC" else word for word in words])
        assert not (tmp_path / "RAN").exists(), words
        told = str(done.exception)
        if words[0] in NEEDS_THE_FILE or "--gold" in words:
            assert "a spec's files are run only where --run-files says so" in told + done.output, words
        elif words[0] in ("labels", "revote"):
            assert "pseudo-labels" in told or "label" in told, words  # no arm of this spec has any
        else:
            assert done.exit_code == 0, (words, told, done.output)


@pytest.mark.parametrize("where", thinned(PLACES))
def test_the_spec_is_valid_and_cannot_be_planned_without_its_file(
    where: str, tmp_path: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = place(tmp_path / "theirs", PLACES[where])
    assert CliRunner().invoke(app, ["validate", str(spec)]).exit_code == 0
    if where == "block that no condition uses":
        build_plan(load_spec(spec))
    else:
        refused = r"canary.py:\w+' is in a file, and .* only where --run-files says so"
        with pytest.raises(InputError, match=refused) as told:
            build_plan(load_spec(spec))
        assert told.value.exit_code == 2
    assert not (spec.parent / "RAN").exists()


@pytest.mark.parametrize("where", thinned(PLACES))
def test_with_run_files_it_is_found_from_the_specs_folder(where: str, tmp_path: Path, elsewhere: Path) -> None:
    spec = place(tmp_path / "theirs", PLACES[where])
    done = CliRunner().invoke(app, ["validate", str(spec), "--run-files"])
    assert done.exit_code == 0, done.output
    assert (spec.parent / "RAN").exists()
    plan = build_plan(load_spec(spec, run_files=True))
    assert plan.stages and str(tmp_path) not in json.dumps([stage.key for stage in plan.stages.values()])


@pytest.mark.parametrize("where", PLACES)
def test_a_spec_has_the_same_digest_whether_or_not_its_files_were_run(where: str, tmp_path: Path) -> None:
    """Else `nsd compare SPEC` would not find what `nsd run SPEC` put on record."""
    spec = place(tmp_path, PLACES[where])
    assert spec_digest(load_spec(spec)) == spec_digest(load_spec(spec, run_files=True))


@pytest.mark.slow
@pytest.mark.parametrize("where", thinned(PLACES))
def test_moving_the_folder_changes_no_digest(where: str, tmp_path: Path) -> None:
    text = PLACES[where]
    if where == "absolute path":
        pytest.skip("the spec itself names the folder")
    plans = [build_plan(load_spec(place(tmp_path / name, text), run_files=True)) for name in ("one", "two")]
    assert set(plans[0].stages) == set(plans[1].stages)
    if where != "somewhere above":  # here the text of the spec names the folder
        assert plans[0].spec_digest == plans[1].spec_digest


def test_schema_and_plugins_run_nothing_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(tmp_path, PLACES["verifier"])
    monkeypatch.chdir(tmp_path)
    for words in (["schema"], ["plugins"]):
        assert CliRunner().invoke(app, words).exit_code == 0
    assert not (tmp_path / "RAN").exists()


# --------------------------------------------------------------------------- which folder


def test_what_an_extended_spec_names_counts_from_its_own_folder(tmp_path: Path, elsewhere: Path) -> None:
    base = place(
        tmp_path / "base",
        "data: {use: jsonl, train: rows.jsonl, split: {labeled: 2, unlabeled: 2, test: 2}}\n"
        "verifier: ./canary.py:Judge\nconditions: {base: {train_on: []}}\n",
    )
    (tmp_path / "child.yaml").write_text("extends: base/spec.yaml\nname: child\ndata: {unlabeled: more.jsonl}\n")
    (tmp_path / "more.jsonl").write_text("".join(json.dumps({"question": f"more {i}?"}) + "\n" for i in range(2)))
    experiment = load_spec(tmp_path / "child.yaml", run_files=True)
    condition = experiment.conditions["base"]
    assert condition.data.config.train == str(base.parent / "rows.jsonl")  # type: ignore[attr-defined]
    assert condition.data.config.unlabeled == str(tmp_path / "more.jsonl")  # type: ignore[attr-defined]
    assert condition.verifier.place == f"{base.parent / 'canary.py'}:Judge"
    written = experiment.resolved["conditions"]["base"]["data"]
    assert (written["train"], written["unlabeled"]) == ("rows.jsonl", "more.jsonl")
    assert build_plan(experiment).stages


def test_the_same_words_in_two_folders_are_two_blocks(tmp_path: Path) -> None:
    rows = "{use: jsonl, train: rows.jsonl, split: {labeled: 2, unlabeled: 2, test: 2}}"
    for folder in (tmp_path / "base", tmp_path):
        place(folder, f"data: {rows}\nconditions: {{old: {{train_on: []}}}}\n")
    (tmp_path / "child.yaml").write_text(
        f"extends: base/spec.yaml\nname: child\nconditions: {{new: {{train_on: [], data: {rows}}}}}\n"
    )
    found = load_spec(tmp_path / "child.yaml").conditions
    places = {name: condition.data.config.train for name, condition in found.items()}  # type: ignore[attr-defined]
    # `use` and the split are merged key by key, so the path is the one that the child wrote.
    assert places == {"old": str(tmp_path / "base" / "rows.jsonl"), "new": str(tmp_path / "rows.jsonl")}


def test_a_short_model_name_is_a_folder_only_beside_the_spec(tmp_path: Path, elsewhere: Path) -> None:
    for folder in (tmp_path, elsewhere):
        (folder / "org" / "m").mkdir(parents=True)
    (tmp_path / "org" / "m" / "config.json").write_text("{}")
    (elsewhere / "org" / "m" / "config.json").write_text("{}")
    text = "name: toy\nmodel: MODEL\n" + DATA + "conditions: {base: {train_on: []}}\n"
    for name, weights in (
        ("org/m", str(tmp_path / "org" / "m")),
        ("./org/m", str(tmp_path / "org" / "m")),
        ("org/other", "org/other"),
    ):
        (tmp_path / "spec.yaml").write_text(text.replace("MODEL", name))
        condition = load_spec(tmp_path / "spec.yaml").conditions["base"]
        assert (condition.weights, condition.model.path) == (weights, name)


MISSING = {
    "rows": ("data: {use: jsonl, train: gone.jsonl, split: {test: 2}}\n", "gone.jsonl"),
    "rows of an inner block": (
        "data: {use: wordmath, split: {test: 2}}\n".replace(
            "wordmath", "jsonl, train: rows.jsonl, unlabeled_from: {use: jsonl, train: data/gone.jsonl}"
        ),
        "data/gone.jsonl",
    ),
    "a folder of rows": ("data: {use: gsm8k, path: ./gone, split: {test: 2}}\n", "gone"),
    "a recording": (DATA + "engine: {use: replay, path: gone.jsonl}\n", "gone.jsonl"),
    "a model": (DATA + "model: ./gone\n", "gone"),
    "a plugin": (DATA + "verifier: ./gone.py:Judge\n", "gone.py"),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_not_there_is_named_with_its_place(what: str, tmp_path: Path, elsewhere: Path) -> None:
    text, name = MISSING[what]
    spec = place(tmp_path / "theirs", "")
    own = "" if "model:" in text else "model: builtin:wordmath-1m\n"
    spec.write_text(f"name: toy\n{own}{text}conditions: {{base: {{train_on: []}}}}\n")
    with pytest.raises((InputError, SpecErrors)) as told:
        build_plan(load_spec(spec, run_files=True))
    assert str(spec.parent / name) in str(told.value)


@pytest.mark.parametrize("text", ["a\\0b", "x" * 300, "~nobody-of-this-name/x", "./" + "y" * 5000])
@pytest.mark.parametrize(
    "block",
    [
        "data: {use: jsonl, train: PATH, split: {test: 2}}\n",
        "data: {use: gsm8k, path: PATH, split: {test: 2}}\n",
        DATA + "verifier: {use: PATH.py:Judge}\n",
        DATA + "engine: {use: replay, path: PATH}\n",
        DATA + "model: PATH\n",
    ],
)
def test_text_that_no_path_can_be_is_an_error_with_its_place(block: str, text: str, tmp_path: Path) -> None:
    own = "" if "model:" in block else "model: builtin:wordmath-1m\n"
    quoted = block.replace("PATH.py:Judge", f'"{text}.py:Judge"').replace("PATH", f'"{text}"')
    (tmp_path / "spec.yaml").write_text(f"name: toy\n{own}{quoted}conditions: {{base: {{train_on: []}}}}\n")
    try:
        build_plan(load_spec(tmp_path / "spec.yaml", run_files=True))
    except InputError:
        return
    assert "gsm8k" in block or "model:" in block  # there it may name something on the hub


def test_an_error_in_an_inner_block_points_into_it(tmp_path: Path) -> None:
    text = "trainer: {use: grpo, rewards: [{use: './canary.py:Prize', weigth: 2}]}\n"
    spec = place(tmp_path, DATA + text + LABELED)
    with pytest.raises(SpecErrors) as told:
        load_spec(spec, run_files=True)
    (error,) = told.value.errors
    assert error.message == "unknown key 'weigth' in trainer.rewards[0] (./canary.py:Prize)"
    assert error.suggestion == "did you mean 'weight'?"
    assert error.column == 1 + text.index("weigth")


# --------------------------------------------------------------------------- workers

HELPED = """\
from nsd import Completion, Engine, StopReason, Verifier
from helper import SAID
from lib.deep import judged


class Voice(Engine):
    needs_model = False

    def generate(self, model, requests, sampling, seed, done=frozenset()):
        yield [Completion(r.question_id, n, SAID, 1, StopReason.STOP) for r in requests for n in range(sampling.n)]


class Judge(Verifier):
    def extract(self, completion):
        return judged(completion)
"""


def run_helped(tmp_path: Path, python: list[str]) -> tuple[Path, list[float]]:
    """Run a spec whose engine and verifier are in a file with helpers, from a folder full of strangers."""
    theirs, current = tmp_path / "theirs", tmp_path / "current"
    (theirs / "lib").mkdir(parents=True)
    current.mkdir()
    (theirs / "mine.py").write_text(HELPED)
    (theirs / "helper.py").write_text("SAID = 'it is 7'\n")
    (theirs / "lib" / "deep.py").write_text("from .words import last\n\ndef judged(text):\n    return last(text)\n")
    (theirs / "lib" / "words.py").write_text("def last(text):\n    return text.split()[-1] if text.split() else None\n")
    (theirs / "rows.jsonl").write_text('{"question": "3 + 4?", "answer": "7"}\n{"question": "1 + 1?", "answer": "2"}\n')
    (theirs / "spec.yaml").write_text(
        "name: toy\ndata: {use: jsonl, train: rows.jsonl, test: rows.jsonl}\nengine: ./mine.py:Voice\n"
        "verifier: ./mine.py:Judge\nconditions: {base: {train_on: []}}\n"
    )
    for name in STRANGERS:
        (current / f"{name}.py").write_text(STRANGER)
    for words in (["run", "../theirs/spec.yaml"], ["runs", "--json"]):
        command = [*python, "-m", "nsd.runner.cli", *words]
        done = subprocess.run(command, cwd=current, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr + done.stdout
    return current, [run["mean"] for run in json.loads(done.stdout)["runs"]]


@pytest.mark.slow
def test_workers_find_the_file_and_its_helpers_and_nothing_of_the_current_folder(tmp_path: Path) -> None:
    current, means = run_helped(tmp_path, [sys.executable, "-P"])
    assert means == [0.5]
    assert not (current / "STRANGER_RAN").exists()


def test_what_a_worker_starts_takes_nothing_of_the_current_folder_either(tmp_path: Path) -> None:
    """Accelerate starts its processes by itself, without -P: the environment says it to them too."""
    (tmp_path / "nsd.py").write_text(STRANGER)
    start = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', 'import nsd']).returncode)"
    command = [sys.executable, "-c", start]
    assert subprocess.run(command, cwd=tmp_path, env=worker_environment(), timeout=60).returncode == 0
    assert not (tmp_path / "STRANGER_RAN").exists()


@pytest.mark.slow
def test_a_file_that_changes_after_planning_is_not_run_under_the_old_digest(tmp_path: Path) -> None:
    spec = place(
        tmp_path,
        f"data: {{use: './canary.py:Data', {SPLIT}}}\nengine: ./canary.py:Voice\n"
        "conditions: {base: {train_on: []}}\n",
    )
    plan = build_plan(load_spec(spec, run_files=True))
    (tmp_path / "canary.py").write_text(CANARY.replace('"1", 1', '"2", 1'))
    outcome = execute(plan, Workspace(tmp_path / "w"))
    assert [failure.reason for failure in outcome.failures] == [
        f"the engine {tmp_path / 'canary.py'}:Voice has changed since this run began; run the spec again"
    ]


@pytest.mark.slow
def test_a_file_that_breaks_after_planning_fails_the_stage_with_its_reason(tmp_path: Path) -> None:
    spec = place(
        tmp_path,
        f"data: {{use: './canary.py:Data', {SPLIT}}}\nengine: ./canary.py:Voice\n"
        "conditions: {base: {train_on: []}}\n",
    )
    plan = build_plan(load_spec(spec, run_files=True))
    (tmp_path / "canary.py").write_text("class Voice(:\n")
    (failure,) = execute(plan, Workspace(tmp_path / "w")).failures
    assert failure.reason == (
        f"the engine {tmp_path / 'canary.py'}:Voice has changed since this run began; run the spec again"
    )


def test_a_block_inside_is_made_from_its_file(tmp_path: Path) -> None:
    spec = place(tmp_path, PLACES["inner dataset of an inner dataset"])
    data = load_spec(spec, run_files=True).conditions["arm"].data
    assert isinstance(data, Block)
    pools = data.make().pools()  # type: ignore[attr-defined]
    assert pools.unlabeled is not None
    assert [question.text for question in pools.unlabeled[:2]] == [
        "0 + 2?",
        "1 + 2?",
    ]  # the inner block's own train rows
