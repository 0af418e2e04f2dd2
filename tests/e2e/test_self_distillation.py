"""Trainers on rollouts from a spec to the page, with the real command: watched, matched, kept and told."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from e2e.command_line import asked, asked_json, nsd

pytestmark = pytest.mark.slow

SPEC = """\
name: self
question: Does it learn from its own answers?
model: builtin:wordmath-1m
data: {use: wordmath, train: 300, test: 60, split: {labeled: 60, unlabeled: 30, test: 20}}
verifier: steps
resources: {device: cpu}
eval: {use: accuracy, temperature: 0.1, max_tokens: 40}
validation: {questions: 6, every: 1}
match: {by: generated_tokens, amount: 1500}
controls: [maj_at_k]
trainer: &rollouts {use: grpo, steps: 3, prompts_per_step: 4, num_generations: 4, max_tokens: 40, learning_rate: 3e-5}
seeds: [1]
conditions:
  base: {train_on: []}
  grpo: {train_on: [labeled]}
  sdpo: {train_on: [labeled], trainer: {<<: *rollouts, use: sdpo, learning_rate: 1e-3}}
  ttrl: {train_on: [questions], trainer: {<<: *rollouts, use: ttrl, n_votes: 4}}
hypotheses: {claims: [sdpo > grpo, ttrl > base_maj_at_k]}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where SPEC has run."""
    folder = tmp_path_factory.mktemp("self")
    (folder / "self.yaml").write_text(SPEC)
    nsd(folder, "run", "self.yaml")
    return folder


def trainings(folder: Path) -> dict[str, Path]:
    """The artifact of each arm's training."""
    found = asked_json(folder, "plan", "self.yaml", "--json")
    return {
        stage["used_by"][0].split("/")[0]: folder / "nsd-workspace" / "artifacts" / f"train-{stage['digest']}"
        for stage in found["stages"]
        if stage["kind"] == "train"
    }


def test_the_first_rollouts_of_all_arms_on_the_same_questions_are_the_same(finished: Path) -> None:
    folders = trainings(finished)
    first = {
        name: [
            (row["question_id"], row["sample"], row["text"])
            for row in parquet.read_table(folders[name] / "rollouts.parquet").to_pylist()
            if row["step"] == 0
        ]
        for name in ("grpo", "sdpo")
    }
    assert first["grpo"] == first["sdpo"] and len(first["grpo"]) == 16


def test_what_the_teacher_read_and_who_was_masked_is_kept(finished: Path) -> None:
    rows = parquet.read_table(trainings(finished)["sdpo"] / "rollouts.parquet").to_pylist()
    assert all(row["masked"] == (row["teacher_input"] is None) for row in rows)
    read = [row["teacher_input"] for row in rows if not row["masked"]]
    assert read and all(text.endswith("Correctly solve the original question.") for text in read)


def test_every_arm_has_drawn_as_many_tokens_up_to_one_batch(finished: Path) -> None:
    for folder in trainings(finished).values():
        points = parquet.read_table(folder / "curves.parquet").to_pylist()
        drawn = max(point["value"] for point in points if point["metric"] == "generated_tokens")
        assert 1500 <= drawn < 1500 + 16 * 40


def test_the_page_says_which_weights_were_kept_and_what_became_of_each_training(finished: Path) -> None:
    asked(finished, "report", "self.yaml", "--html", "self.html")
    page = (finished / "self.html").read_text()
    assert "Which weights were kept" in page and "Validation: accuracy" in page
    assert "Majorities that are right" in page and "jsd" in page
    assert "base_maj_at_k" in page
