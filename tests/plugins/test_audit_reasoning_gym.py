"""The audit on reasoning-gym's tasks: what is wrong with each of them is found before a model is paid for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nsd.plugins.config import SplitConfig
from nsd.plugins.datasets.split import split
from nsd.runner.cli.app import app

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

SPEC = """\
name: gym
model: builtin:wordmath-1m
data: {use: "PLUGIN:Tasks", task: TASK, size: 6, split: {labeled: 2, test: 4}}
verifier: {use: "PLUGIN:TaskVerifier"}
eval: {use: accuracy, max_tokens: 8}
conditions: {base: {train_on: []}}
"""


def audit(folder: Path, task: str, **changes: str) -> dict[str, dict[str, Any]]:
    """What each check said of a task, as JSON gives it."""
    text = SPEC.replace("PLUGIN", str(Path(__file__).parents[1] / "reasoning_gym_tasks.py")).replace("TASK", task)
    for old, new in changes.items():
        text = text.replace(old, new)
    (folder / "spec.yaml").write_text(text)
    done = CliRunner().invoke(app, ["validate", str(folder / "spec.yaml"), "--audit", "--run-files", "--json"])
    [found] = json.loads(done.stdout)["audits"]
    assert done.exit_code == (2 if found["failed"] else 0)
    return {check["name"]: check for check in found["checks"]}


def test_a_task_that_is_right_whatever_is_said_fails_as_garbage(tmp_path: Path) -> None:
    found = audit(tmp_path, "game_of_life_halting")
    assert all(found[name]["failed"] for name in ("garbage", "question repeated", "another answer", "near miss"))
    assert any(one["text"] == "banana" and one["said"].startswith("score 1,") for one in found["garbage"]["examples"])


@pytest.mark.slow
@pytest.mark.parametrize("task", ["spell_backward", "palindrome_generation", "sentence_reordering"])
def test_credit_for_a_senseless_text_is_a_fault(tmp_path: Path, task: str) -> None:
    assert audit(tmp_path, task)["garbage"]["failed"]


@pytest.mark.slow
def test_credit_for_a_number_next_to_the_answer_is_told(tmp_path: Path) -> None:
    found = audit(tmp_path, "chain_sum")
    assert not any(check["failed"] for check in found.values())
    assert found["partial credit"]["found"] > 0


@pytest.mark.slow
def test_a_verifier_that_raises_is_found(tmp_path: Path) -> None:
    found = audit(tmp_path, "prime_factorization")["raises"]
    assert found["failed"] and "ValueError" in found["examples"][0]["said"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"])
def test_a_task_without_gold_answers_is_found(tmp_path: Path, task: str) -> None:
    found = audit(tmp_path, task)
    assert found["gold"]["failed"] and found["gold answers"]["found"] == 6
    stated = audit(tmp_path, task, TaskVerifier="Unanswered")
    assert not stated["gold"]["failed"] and stated["gold answers"]["found"] == 6


@pytest.mark.slow
def test_an_answer_that_storing_makes_wrong_is_found(tmp_path: Path) -> None:
    found = audit(tmp_path, "rearc")
    assert found["gold"]["failed"] and "score 0.05" in found["gold"]["examples"][0]["said"]


@pytest.mark.slow
def test_answers_of_several_lines_are_told(tmp_path: Path) -> None:
    assert audit(tmp_path, "sudoku")["one line"]["found"] == 6


@pytest.mark.slow
def test_a_task_that_is_another_one_each_time_is_found() -> None:
    from nsd.runner.cli.audit import same_questions
    from reasoning_gym_tasks import Tasks

    def made(task: str) -> Any:
        return Tasks(Tasks.Config(task=task, size=40)).pools().train

    assert same_questions(made("codeio"), made("codeio")).failed
    assert not same_questions(made("gcd"), made("gcd")).failed


@pytest.mark.slow
def test_seeds_that_lie_next_to_each_other_draw_the_same_items() -> None:
    from reasoning_gym_tasks import Tasks

    pools = Tasks(Tasks.Config(task="chain_sum", size=6, test_seed=43)).pools()
    _, report = split(pools, SplitConfig(labeled=1))
    assert len(report.leaked) == 5 and any("also in the test rows" in note for note in report.notes())
