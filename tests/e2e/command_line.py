"""Runs the real `nsd` command in a folder of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nsd.runner.cli.app import app
from support import PATIENCE, made_once

TINY_SPEC = """\
name: tiny
question: Does the machinery hold together?
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 32, unlabeled: 24, test: 24}}
labeler: {use: consensus, k: 4, temperature: 0.7, max_tokens: 48}
trainer: {use: sft, epochs: 2, batch_size: 8, learning_rate: 5e-4, save_every: 2}
eval: {use: accuracy, temperature: 0.1, max_tokens: 48}
seeds: [7]
conditions:
  base: {train_on: []}
  baseline: {train_on: [labeled]}
  student: {train_on: [labeled, pseudo], label_with: baseline}
hypotheses:
  claims: [student > baseline]
"""
GRPO_ARM = """\
  rl:
    train_on: [labeled]
    trainer: {use: grpo, steps: 6, prompts_per_step: 2, num_generations: 4, learning_rate: 1e-4, max_tokens: 24,
      save_every: 2}
"""
# Searches of two questions that the model does not solve.
SEARCH_ARMS = """\
  turns:
    train_on: []
    eval: &search
      {use: discovery, questions: [9e361db81fd1a392, 0387dd81eb7572e2], samples: 24, max_tokens: 48, by: multi_turn}
  searches:
    train_on: []
    eval:
      <<: *search
      by: training
      trainer: {use: sdpo, num_generations: 8, max_tokens: 48, learning_rate: 3e-5, save_every: 1}
"""
# Every kind of stage, with small shards and frequent checkpoints, so that many of both are there while one is at work.
EVERY_KIND = TINY_SPEC.replace("hypotheses:", GRPO_ARM + SEARCH_ARMS + "hypotheses:").replace(
    "seeds: [7]", "seeds: [7]\nengine: {use: hf, batch_size: 4}\nverifier: steps"
)


def environment() -> dict[str, str]:
    """The environment of a command: one thread, offline."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NSD_DEBUG": "1"}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `nsd ...` in `folder`, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nsd.runner.cli", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def nsd(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run `nsd ...` in `folder`, check its exit code and return standard output."""
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
    assert "Traceback" not in err + out
    return out


def nsd_json(folder: Path, *arguments: str, code: int = 0) -> Any:
    """Run `nsd ...` and read its JSON."""
    return json.loads(nsd(folder, *arguments, code=code))


def asked(folder: Path, *arguments: str) -> str:
    """What `nsd ...` prints in `folder`, asked in this process: a new one takes a second to start."""
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def asked_json(folder: Path, *arguments: str) -> Any:
    """Ask `nsd ...` and read its JSON."""
    return json.loads(asked(folder, *arguments))


def finished_run(factory: pytest.TempPathFactory, spec: str = TINY_SPEC) -> Path:
    """A folder in which tiny.yaml, this spec, ran to its end; `printed.txt` has what it said. Copy it to change it."""

    def make(folder: Path) -> None:
        (folder / "tiny.yaml").write_text(spec)
        (folder / "printed.txt").write_text(nsd(folder, "run", "tiny.yaml"))

    return made_once(factory, f"run-{hashlib.sha256(spec.encode()).hexdigest()[:12]}", make)


def results(workspace: Path) -> dict[str, str]:
    """Hash of every output that may not depend on kills or resumes: weights, labels, scores, completions.

    Not how sure the model was: rows that stand beside others are summed in another order, in the last digits.
    """
    import pyarrow.parquet

    found = {}
    for path in sorted((workspace / "artifacts").rglob("*")):
        name = f"{path.parent.name if path.parent.name != 'model' else path.parent.parent.name}/{path.name}"
        if path.suffix == ".safetensors":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.suffix == ".parquet" and path.name != "curves.parquet":
            table = pyarrow.parquet.read_table(path)
            rows = table.drop_columns([column for column in table.column_names if column.startswith("confidence_")])
            found[name] = hashlib.sha256(repr(rows.to_pylist()).encode()).hexdigest()
    return found
