"""Other ways through the main loop: two processes, trackers, real GSM8K, recorded completions, several rounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.command_line import GRPO_ARM, TINY_SPEC, nsd_json
from support import shared_data

pytestmark = pytest.mark.slow


def test_training_in_two_processes_under_accelerate(tmp_path: Path) -> None:
    spec = TINY_SPEC.replace("hypotheses:", GRPO_ARM + "hypotheses:") + "resources: {processes: 2}\n"
    (tmp_path / "two.yaml").write_text(spec)
    summary = nsd_json(tmp_path, "run", "two.yaml", "--json", "--only", "baseline", "--only", "rl")
    assert summary["failures"] == []
    for name in ("baseline", "rl"):
        stages = nsd_json(tmp_path, "show", f"tiny/{name}/seed7", "--json")["stages"]
        (train,) = [stage for stage in stages if stage["kind"] == "train"]
        assert train["processes"] == 2 and train["training"]["notes"]["processes"] == 2


def test_tensorboard_gets_the_curves(tmp_path: Path) -> None:
    (tmp_path / "tracked.yaml").write_text(TINY_SPEC + "track: [tensorboard]\n")
    nsd_json(tmp_path, "run", "tracked.yaml", "--json", "--only", "baseline")
    (train,) = (tmp_path / "nsd-workspace" / "artifacts").glob("train-*")
    assert list(train.rglob("events.out.tfevents*"))
    assert not list((train / "model").rglob("events.out.tfevents*"))


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
    rows = nsd_json(tmp_path, "runs", "--json")["runs"]
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


@pytest.mark.parametrize(("protocol", "mean"), [("avg_at_k", 0.91125), ("maj_at_k", 0.93), ("pass_at_k", 0.97)])
def test_recorded_completions_are_scored_without_a_model(tmp_path: Path, protocol: str, mean: float) -> None:
    file = shared_data("samples/qwen25math_math100x8/math_cot_100.jsonl")
    (tmp_path / "recorded.yaml").write_text(RECORDED.format(file=file) + f"eval: {{use: {protocol}, k: 8}}\n")
    nsd_json(tmp_path, "run", "recorded.yaml", "--json")
    (row,) = nsd_json(tmp_path, "runs", "--json")["runs"]
    assert row["n"] == 100 and row["mean"] == pytest.approx(mean)


def test_three_rounds_give_three_results(tmp_path: Path) -> None:
    spec = TINY_SPEC.replace("label_with: baseline}", "label_with: baseline, rounds: 3, init: teacher}")
    (tmp_path / "rounds.yaml").write_text(spec)
    nsd_json(tmp_path, "run", "rounds.yaml", "--json")
    names = {row["condition"] for row in nsd_json(tmp_path, "runs", "--json")["runs"]}
    assert names == {"base", "baseline", "student@round1", "student@round2", "student"}


def test_lora_arms_keep_adapters_and_evaluate(tmp_path: Path) -> None:
    spec = TINY_SPEC.replace(
        "  student: {train_on: [labeled, pseudo], label_with: baseline}",
        "  lora: {train_on: [labeled], model: {lora: {rank: 4, alpha: 8}}}\n"
        "  student: {train_on: [labeled, pseudo], label_with: lora, init: teacher, model: {lora: {rank: 4}}}",
    )
    (tmp_path / "lora.yaml").write_text(spec)
    assert nsd_json(tmp_path, "run", "lora.yaml", "--json", "--only", "student", "--only", "lora")["failures"] == []
    stages = nsd_json(tmp_path, "show", "tiny/student/seed7", "--json")["stages"]
    first, last = [stage for stage in stages if stage["kind"] == "train"]
    assert first["training"]["adapter_only"] and not last["training"]["adapter_only"]


@pytest.mark.parametrize("by", ["steps", "tokens"])
def test_matched_arms_get_the_same_compute(tmp_path: Path, by: str) -> None:
    spec = TINY_SPEC.replace("hypotheses:", "  oracle: {train_on: [labeled, unlabeled]}\nhypotheses:")
    (tmp_path / "matched.yaml").write_text(spec + f"match: {{by: {by}, to: oracle}}\n")
    nsd_json(tmp_path, "run", "matched.yaml", "--json", "--only", "baseline", "--only", "oracle")
    found = {}
    for name in ("baseline", "oracle"):
        stages = nsd_json(tmp_path, "show", f"tiny/{name}/seed7", "--json")["stages"]
        found[name] = next(stage["training"] for stage in stages if stage["kind"] == "train")
    assert found["oracle"]["steps"] == 14  # 56 examples, 2 epochs, batch 8
    if by == "steps":
        assert found["baseline"]["steps"] == 14
    else:
        assert found["baseline"]["tokens_seen"] == pytest.approx(found["oracle"]["tokens_seen"], rel=0.1)
