"""Other ways through the main loop: two processes, trackers, real GSM8K, recorded completions, adapters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.command_line import GRPO_ARM, TINY_SPEC, asked_json, environment, nsd_json
from support import PATIENCE, STRANGER, STRANGERS, shared_data

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder full of strangers in which an arm trained in two processes."""
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("together")
    for name in (*STRANGERS, "torch", "trl", "json"):
        (folder / f"{name}.py").write_text(STRANGER)
    spec = TINY_SPEC.replace("hypotheses:", GRPO_ARM + "hypotheses:") + "resources: {processes: 2}\n"
    (folder / "two.yaml").write_text(spec)
    # -P, as the installed command does without: Python alone would take nsd itself from the current folder.
    command = [sys.executable, "-P", "-m", "nsd.runner.cli", "run", "two.yaml", "--only", "rl"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=2 * PATIENCE)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


def test_training_in_two_processes_under_accelerate(together: Path, tmp_path: Path) -> None:
    workspace = str(together / "nsd-workspace")
    stages = asked_json(tmp_path, "show", "tiny/rl/seed7", "--json", "--workspace", workspace)["stages"]
    (train,) = [stage for stage in stages if stage["kind"] == "train"]
    assert train["processes"] == 2 and train["training"]["notes"]["processes"] == 2


def test_processes_that_train_together_take_nothing_of_the_current_folder(together: Path) -> None:
    assert not (together / "STRANGER_RAN").exists()


def test_gsm8k_end_to_end_with_the_real_files(tmp_path: Path) -> None:
    folder = shared_data("gsm8k")
    spec = f"""\
name: gsm8k-way
model: builtin:wordmath-1m
data: {{use: gsm8k, path: {folder}, split: {{labeled: 100, unlabeled: 100, test: 50}}}}
labeler: {{use: consensus, k: 4, max_tokens: 32}}
trainer: {{use: sft, epochs: 1, batch_size: 4, learning_rate: 2e-5, loss: full}}
eval: {{use: accuracy, temperature: 0.1, max_tokens: 32}}
conditions:
  base: {{train_on: []}}
  noisy_student: {{train_on: [labeled, pseudo], label_with: base}}
  grpo: {{train_on: [labeled], trainer: {{use: grpo, steps: 3, max_tokens: 32}}}}
"""
    (tmp_path / "gsm8k.yaml").write_text(spec)
    assert nsd_json(tmp_path, "run", "gsm8k.yaml", "--json", "--smoke")["failures"] == []
    rows = asked_json(tmp_path, "runs", "--json")["runs"]
    assert {row["run"].split("/")[0] for row in rows} == {"gsm8k-way-smoke"}
    assert all(row["status"] == "done" and row["n"] == 16 for row in rows)


RECORDED = """\
name: recorded
data:
  use: jsonl
  train: {file}
  test: {file}
  fields: {{question: question, answer: answer}}
verifier: math
engine: {{use: replay, path: {file}, fields: {{question: question, completion: response}}}}
conditions:
  base: {{train_on: []}}
"""


@pytest.mark.parametrize(("protocol", "mean"), [("avg_at_k", 0.92125), ("maj_at_k", 0.94), ("pass_at_k", 0.98)])
def test_recorded_completions_are_scored_without_a_model(tmp_path: Path, protocol: str, mean: float) -> None:
    file = shared_data("samples/qwen25math_math100x8/math_cot_100.jsonl")
    (tmp_path / "recorded.yaml").write_text(RECORDED.format(file=file) + f"eval: {{use: {protocol}, k: 8}}\n")
    nsd_json(tmp_path, "run", "recorded.yaml", "--json")
    (row,) = asked_json(tmp_path, "runs", "--json")["runs"]
    assert row["n"] == 100 and row["mean"] == pytest.approx(mean)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where, matched by the tokens of `oracle`, an arm of adapters ran, then one that began with its weights.

    Tensorboard tracked all of them.
    """
    folder = tmp_path_factory.mktemp("adapted")
    spec = TINY_SPEC.replace(
        "  student: {train_on: [labeled, pseudo], label_with: baseline}",
        "  oracle: {train_on: [labeled, unlabeled]}\n"
        "  lora: {train_on: [labeled], model: {lora: {rank: 4, alpha: 8}}}\n"
        "  student: {train_on: [labeled, pseudo], label_with: lora, init: teacher, model: {lora: {rank: 4}}}",
    )
    (folder / "lora.yaml").write_text(spec + "track: [tensorboard]\nmatch: {by: tokens, to: oracle}\n")
    only = [word for arm in ("student", "lora", "oracle") for word in ("--only", arm)]
    assert nsd_json(folder, "run", "lora.yaml", "--json", *only)["failures"] == []
    return folder


def trainings(folder: Path, arm: str) -> list[dict[str, Any]]:
    """What the stages that an arm comes from say of their trainings, first to last."""
    stages = asked_json(folder, "show", f"tiny/{arm}/seed7", "--json")["stages"]
    return [stage["training"] for stage in stages if stage["kind"] == "train"]


def test_tensorboard_gets_the_curves(adapted: Path) -> None:
    trains = list((adapted / "nsd-workspace" / "artifacts").glob("train-*"))
    assert len(trains) == 3
    for train in trains:
        assert list(train.rglob("events.out.tfevents*"))
        assert not list((train / "model").rglob("events.out.tfevents*"))


def test_lora_arms_keep_adapters_and_evaluate(adapted: Path) -> None:
    first, last = trainings(adapted, "student")
    assert first["adapter_only"] and not last["adapter_only"]


def test_arms_matched_by_tokens_see_as_many(adapted: Path) -> None:
    (oracle,), (lora,) = trainings(adapted, "oracle"), trainings(adapted, "lora")
    assert oracle["steps"] == 14  # 56 examples, 2 epochs, batch 8
    assert lora["tokens_seen"] == pytest.approx(oracle["tokens_seen"], rel=0.1)
