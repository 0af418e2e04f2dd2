"""kill -9 at random moments: the same command, again and again, ends with the same results."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from e2e.command_line import GRPO_ARM, TINY_SPEC, nsd, results, start

# Small shards and frequent checkpoints, so that kills fall between many of them. What a death at each step of a commit
# leaves is tried one by one in tests/runner/store/test_crash_windows.py.
SPEC = TINY_SPEC.replace("hypotheses:", GRPO_ARM + "hypotheses:").replace(
    "seeds: [7]", "seeds: [7]\nengine: {use: hf, batch_size: 4}"
)
# Searches of four-step problems, most of which take many samples; checkpoints at every step.
SEARCHES = """\
name: tiny
model: builtin:wordmath-1m
data: {use: wordmath, steps: [0, 0, 0, 1], test: 400, split: {test: 4}}
verifier: steps
resources: {device: cpu}
eval: {use: discovery, samples: 24, max_tokens: 48}
conditions:
  best_of_k: {train_on: []}
  multi_turn: {train_on: [], eval: {by: multi_turn}}
  sdpo:
    train_on: []
    eval:
      by: training
      trainer: {use: sdpo, num_generations: 8, max_tokens: 48, learning_rate: 3e-5, save_every: 1}
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("spec", "wanted"), [(SPEC, 4), (SEARCHES, 2)], ids=["trainings", "searches"])
def test_kills_leave_the_same_labels_scores_and_weights(spec: str, wanted: int, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        (folder / "tiny.yaml").write_text(spec)
    started = time.monotonic()
    nsd(whole, "run", "tiny.yaml")
    alone = time.monotonic() - started

    expected = results(whole / "nsd-workspace")
    chance = random.Random(20)
    kills = 0
    # An attempt must be able to live longer than loading takes, and not so long that the run ends too soon; one that
    # ends all the same is held against the whole run, and the killing starts over.
    while kills < wanted:
        process = start(killed, "run", "tiny.yaml")
        lives_until = time.monotonic() + chance.uniform(0.0, 0.3 * alone)
        while process.poll() is None and time.monotonic() < lives_until:
            time.sleep(0.02)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        else:
            assert process.returncode == 0, process.communicate()
            assert results(killed / "nsd-workspace") == expected
            shutil.rmtree(killed / "nsd-workspace")
    nsd(killed, "run", "tiny.yaml")
    assert results(killed / "nsd-workspace") == expected
