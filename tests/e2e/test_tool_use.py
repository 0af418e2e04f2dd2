"""Tool use with feedback, from rows in a folder to the page, with the real command: a teacher reads what was wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from e2e.command_line import asked, asked_json, nsd

pytestmark = pytest.mark.slow

SPEC = """\
name: tools
question: Does the feedback on wrong calls reach the teacher?
model: builtin:wordmath-1m
data: {use: tooluse, path: rows, split: {labeled: 8}}
resources: {device: cpu}
eval: {use: avg_at_k, k: 2, temperature: 0.6, max_tokens: 16}
trainer: &sdpo {use: sdpo, steps: 2, prompts_per_step: 2, num_generations: 2, max_tokens: 16, learning_rate: 1e-4}
seeds: [1]
conditions:
  base: {train_on: []}
  sdpo: {train_on: [labeled]}
  sdpo_blind: {train_on: [labeled], trainer: {include_environment_feedback: false}}
  grpo: {train_on: [labeled], trainer: {<<: *sdpo, use: grpo}}
hypotheses: {claims: [sdpo > sdpo_blind, sdpo > grpo]}
"""
TOOLS = (
    "Tools: add(a, b) and tell(text).\nAnswer with lines of the form\nAction: NAME\nAction Input: OBJECT\n\nRequest: "
)


def row(number: int) -> str:
    call = {"Action": "add", "Action_Input": json.dumps({"a": number, "b": 2})}
    return json.dumps({"prompt": f"{TOOLS}add {number} and 2.", "answer": [call]})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where SPEC has run."""
    folder = tmp_path_factory.mktemp("tools")
    (folder / "rows").mkdir()
    (folder / "rows" / "train.json").write_text("\n".join(row(number) for number in range(8)))
    (folder / "rows" / "test.json").write_text("\n".join(row(number) for number in range(8, 12)))
    (folder / "tools.yaml").write_text(SPEC)
    nsd(folder, "run", "tools.yaml")
    return folder


def rollouts(folder: Path, arm: str) -> list[dict[str, object]]:
    """What an arm drew while it trained."""
    (digest,) = (
        stage["digest"]
        for stage in asked_json(folder, "plan", "tools.yaml", "--json")["stages"]
        if stage["kind"] == "train" and stage["used_by"][0].startswith(f"{arm}/")
    )
    artifact = folder / "nsd-workspace" / "artifacts" / f"train-{digest}"
    found: list[dict[str, object]] = parquet.read_table(artifact / "rollouts.parquet").to_pylist()
    return found


def test_the_teacher_reads_the_request_and_what_was_wrong_with_the_calls(finished: Path) -> None:
    rows = rollouts(finished, "sdpo")
    assert len(rows) == 2 * 2 * 2 and not any(row["masked"] for row in rows)
    for one in rows:
        read = str(one["teacher_input"])
        assert read.startswith(TOOLS)
        assert "unsuccessful earlier attempt:\n\nThere is no line with `Action:`." in read
        assert "Correctly solve the original question." in read


def test_without_feedback_nothing_is_left_to_read(finished: Path) -> None:
    rows = rollouts(finished, "sdpo_blind")
    assert rows and all(row["masked"] and row["teacher_input"] is None for row in rows)


def test_the_page_compares_the_arms(finished: Path) -> None:
    asked(finished, "report", "tools.yaml", "--html", "tools.html")
    page = (finished / "tools.html").read_text()
    assert "sdpo_blind" in page and "avg@2" in page
