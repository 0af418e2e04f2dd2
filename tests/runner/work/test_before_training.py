"""A worker before it trains: what it imports is left out by the garbage collector, and nothing else stays for that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from e2e import command_line
from support import PATIENCE

SPEC = """\
name: several
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 4, unlabeled: 2, test: 2}}
trainer: {use: sft, epochs: 1, batch_size: 4}
eval: {use: accuracy, max_tokens: 8}
seeds: [7]
conditions:
  base: {train_on: []}
  sft: {train_on: [labeled]}
  grpo:
    train_on: [labeled]
    trainer: &short {use: grpo, steps: 1, num_generations: 2, prompts_per_step: 2, max_tokens: 8}
  pcsd:
    train_on: [labeled]
    trainer: {<<: *short, use: pcsd}
"""
# In a process of its own: here torch and TRL have long been imported, and nothing would be left out.
SCRIPT = """\
import gc, sys, weakref
from pathlib import Path

import torch

from nsd.runner.plan.build import build_plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.jobs import write_data, write_job
from nsd.runner.work.worker import Worker

built, inner = weakref.WeakSet(), torch.nn.Module.__init__

def init(self, *given, **named):
    inner(self, *given, **named)
    built.add(self)

def models():
    gc.collect()
    from transformers import PreTrainedModel
    return [one for one in built if isinstance(one, PreTrainedModel)]

torch.nn.Module.__init__ = init
folder = Path(sys.argv[1])
plan, workspace = build_plan(load_spec(folder / "spec.yaml")), Workspace(folder / "workspace")
workspace.create()
write_data(plan, workspace)
worker, frozen = Worker(None), []
for arm in ("base", "sft", "grpo", "pcsd"):
    kind = "sample" if arm == "base" else "train"
    (stage,) = [one for one in plan.stages.values() if one.kind == kind and f"{arm}/seed7" in one.used_by]
    assert worker.run(write_job(plan, stage, workspace)) == 0, arm
    frozen.append(gc.get_freeze_count())
    print(arm, len(models()), flush=True)
assert frozen[0] == 0 and frozen[1] > 100_000, frozen
"""


@pytest.mark.slow
def test_no_model_outlives_its_stage_in_a_worker(tmp_path: Path) -> None:
    """A loaded model is kept for the next stage that draws; a trained one ends with its stage."""
    (tmp_path / "spec.yaml").write_text(SPEC)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path],
        env=command_line.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    said = [line.split() for line in done.stdout.splitlines()]
    left = {arm: int(count) for arm, count in said}
    assert left["base"] > 0 and [left[arm] for arm in ("sft", "grpo", "pcsd")] == [0, 0, 0]
