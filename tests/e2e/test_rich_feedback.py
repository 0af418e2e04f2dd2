"""Learning from failing tests, from the spec to the page, with the real command, sandbox and tiny code model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from e2e.command_line import asked_json, nsd

pytestmark = pytest.mark.slow

SPEC = """\
name: rich
question: Do failing tests reach the teacher?
model: builtin:codepuzzles-1m
data: {use: code_puzzles, train: 60, test: 20, plain: 0.3, split: {labeled: 40, test: 8}}
verifier: {use: code, tests: all}
train_verifier: {use: code, tests: train}
resources: {device: cpu}
eval: {use: accuracy, temperature: 0.1, max_tokens: 80}
trainer: &sdpo {use: sdpo, steps: 2, prompts_per_step: 4, num_generations: 2, max_tokens: 80, learning_rate: 1e-4}
seeds: [1]
conditions:
  sdpo: {train_on: [labeled]}
  sdpo_blind: {train_on: [labeled], trainer: {include_environment_feedback: false}}
  on_test: {train_on: [test_questions]}
hypotheses: {claims: [sdpo > sdpo_blind]}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where SPEC has run."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "rich.yaml").write_text(SPEC)
    nsd(folder, "run", "rich.yaml")
    return folder


def rollouts(folder: Path, arm: str) -> list[dict[str, Any]]:
    """What an arm drew while it trained."""
    (digest,) = (
        stage["digest"]
        for stage in asked_json(folder, "plan", "rich.yaml", "--json")["stages"]
        if stage["kind"] == "train" and stage["used_by"][0].startswith(f"{arm}/")
    )
    artifact = folder / "nsd-workspace" / "artifacts" / f"train-{digest}"
    found: list[dict[str, Any]] = parquet.read_table(artifact / "rollouts.parquet").to_pylist()
    return found


def test_a_failed_program_is_told_its_failing_tests_where_nobody_of_the_group_succeeded(finished: Path) -> None:
    read = [str(row["teacher_input"]) for row in rollouts(finished, "sdpo") if not row["masked"]]
    told = [text for text in read if "unsuccessful earlier attempt:\n\nTest " in text]
    assert told and all("Expected output:\n" in text or "ended with an error" in text for text in told)


def test_without_feedback_only_a_success_of_the_group_is_read(finished: Path) -> None:
    rows = rollouts(finished, "sdpo_blind")
    assert all("Correct solution:" in str(row["teacher_input"]) for row in rows if not row["masked"])
    assert sum(row["masked"] for row in rows) > sum(row["masked"] for row in rollouts(finished, "sdpo"))


def test_tests_judge_rollouts_on_the_test_questions_whose_answers_are_hidden(finished: Path) -> None:
    rows = rollouts(finished, "on_test")
    assert any(row["score"] == 1.0 for row in rows)
    assert all(row["score"] in (0.0, 1.0) for row in rows)
