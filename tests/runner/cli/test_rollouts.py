"""`nsd rollouts`: what a training drew, a page at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nsd.plugins.api import KeptRollout, Question, StopReason
from nsd.plugins.errors import InputError
from nsd.runner.cli.app import app
from nsd.runner.store import tables
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from toy_workspace import finish, record

RUN = "toy/arm/seed1"


def rollout(step: int, question: str, text: str, **more: Any) -> KeptRollout:
    return KeptRollout(step, question, 0, text, 3, StopReason.STOP, "4", 1.0, 1.0, **more)


ROLLOUTS = [
    rollout(0, "a", "two and two are 4", teacher_input="Correct solution: 4"),
    rollout(0, "b", "\x1b[31mred", masked=True),
    rollout(1, "a", "it is 4"),
]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A run whose training kept three rollouts of two steps."""
    workspace = Workspace(tmp_path)
    finish(workspace, "e", [1.0])
    times = {"started_at": "2026-01-01T00:00:00+00:00", "ended_at": "2026-01-01T00:01:00+00:00"}
    for digest, kept in (("t", ROLLOUTS), ("other", [])):
        with workspace.lock("train", digest) as partial:
            (partial / "artifact").mkdir()
            if kept:
                steps = [partial / f"{step}.parquet" for step in (0, 1)]
                for step, path in enumerate(steps):
                    tables.write_rollouts(path, [one for one in kept if one.step == step])
                tables.join(partial / "artifact" / "rollouts.parquet", steps)
            key = {"train_on": [{"source": "labeled", "data": "d"}]}
            told = {"kind": "train", "digest": digest, "plugin": "sdpo" if kept else "sft", "key": key, **times}
            workspace.commit("train", digest, Manifest(**told))
    workspace.data_file("d").parent.mkdir(parents=True, exist_ok=True)
    tables.write_questions(workspace.data_file("d"), [Question("a", "What is two and two?"), Question("b", "Red?")])
    run = {"eval_digest": "e", "label_digest": None, "needs": [], "repeats": [], "reason": None, "status": "done"}
    run |= {"seed": 1, **times}
    arms = [
        {**run, "run": f"toy/{name}/seed1", "condition": name, "train_digest": digest}
        for name, digest in (("arm", "t"), ("copied", "other"), ("base", None))
    ]
    record(workspace, "toy", {}, runs=arms)
    return workspace


def told(workspace: Workspace, *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["rollouts", RUN, "--json", "-w", str(workspace.root), *arguments])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], [0, 1, 2]),
        (["--step", "1"], [2]),
        (["--question", "a"], [0, 2]),
        (["--masked"], [1]),
        (["--unmasked"], [0, 2]),
        (["--search", "CORRECT"], [0]),
        (["--size", "2", "--page", "2"], [2]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_those_that_are_asked_for(workspace: Workspace, arguments: list[str], shown: list[int]) -> None:
    texts = [one["text"] for one in told(workspace, *arguments)["rollouts"]]
    assert texts == [ROLLOUTS[number].text for number in shown]


def test_each_comes_with_its_question(workspace: Workspace) -> None:
    assert [one["question"] for one in told(workspace)["rollouts"]][:2] == ["What is two and two?", "Red?"]


def test_on_the_screen_nothing_drives_the_terminal_and_the_teachers_text_is_asked_for(workspace: Workspace) -> None:
    plain, asked = (
        CliRunner().invoke(app, ["rollouts", RUN, "-w", str(workspace.root), *more]).output
        for more in ([], ["--teacher"])
    )
    assert "\x1b[31m" not in plain and "red" in plain
    assert "Correct solution: 4" not in plain and "Correct solution: 4" in asked
    assert "reward 1, score 1, answer 4, 3 tokens, masked" in plain and "page 1 of 1, 3 rollouts" in plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toy/copied/seed1"], "toy/copied/seed1 kept no rollouts: its trainer is sft"),
        (["toy/base/seed1"], "toy/base/seed1 has no finished training"),
        ([RUN, "--page", "2"], "there is no page 2: 3 rollouts make 1 pages of 8"),
    ],
    ids=["no rollouts", "no training", "no page"],
)
def test_where_there_are_none_it_says_why(workspace: Workspace, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["rollouts", *arguments, "-w", str(workspace.root)])
    assert isinstance(done.exception, InputError) and str(done.exception) == message
