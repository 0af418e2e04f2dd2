"""Stops and kill -9 in the middle of stages: the same command, again and again, ends with the same results."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from e2e.command_line import SMALL_SHARDS, finished_run, nsd, nsd_json, results, start
from support import PATIENCE, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

# Searches of four-step problems, most of which take many samples; checkpoints at every step.
SEARCHES = """\
name: tiny
model: builtin:wordmath-1m
data: {use: wordmath, steps: [0, 0, 0, 1], test: 400, split: {test: 2}}
verifier: steps
resources: {device: cpu}
eval: {use: discovery, samples: 24, max_tokens: 48}
conditions:
  multi_turn: {train_on: [], eval: {by: multi_turn}}
  sdpo:
    train_on: []
    eval:
      by: training
      trainer: {use: sdpo, num_generations: 8, max_tokens: 48, learning_rate: 3e-5, save_every: 1}
"""


def stop(folder: Path, kind: str, condition: str, files: str, how: signal.Signals = signal.SIGKILL) -> None:
    """Run tiny.yaml until a stage of this kind and condition has left such files, not yet its result, and stop it.

    What a death at each step of a commit leaves is tried one by one in tests/runner/store/test_crash_windows.py.
    """
    stages = nsd_json(folder, "plan", "tiny.yaml", "--json")["stages"]
    names = [f"{one['kind']}-{one['digest']}" for one in stages if (one["kind"], one["condition"]) == (kind, condition)]
    workspace = folder / "nsd-workspace"
    process = start(folder, "run", "tiny.yaml")

    def begun() -> list[str]:
        return [name for name in names if any((workspace / "partial" / name).glob(files))]

    wait_until(lambda: begun() or process.poll() is not None, pause=0.01)
    assert process.poll() is None, process.communicate()
    os.kill(process.pid, how)
    process.wait(PATIENCE)
    assert process.returncode == (75 if how == signal.SIGTERM else -how)
    assert begun(), "it came too late: the stage was over"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where SMALL_SHARDS came to its end after three kills and a stop, with what the last run said."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "tiny.yaml").write_text(SMALL_SHARDS)
    stop(folder, "sample", "base", "shards/*.parquet")
    stop(folder, "train", "baseline", "checkpoints/checkpoint-*", signal.SIGTERM)
    stop(folder, "train", "student", "checkpoints/checkpoint-*")
    stop(folder, "train", "rl", "checkpoints/checkpoint-*")
    (folder / "last.json").write_text(nsd(folder, "run", "tiny.yaml", "--json"))
    return folder


def test_kills_leave_the_same_labels_scores_and_weights(
    stopped: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = finished_run(tmp_path_factory, SMALL_SHARDS)
    assert results(stopped / "nsd-workspace") == results(whole / "nsd-workspace")


def test_trainings_went_on_from_their_checkpoints(stopped: Path) -> None:
    manifests = [json.loads(path.read_text()) for path in stopped.glob("nsd-workspace/artifacts/train-*/manifest.json")]
    assert len(manifests) == 3 and all(one["training"]["notes"]["resumed_from"] > 0 for one in manifests)


def test_what_was_whole_before_a_stop_is_not_done_again(stopped: Path) -> None:
    last = json.loads((stopped / "last.json").read_text())
    assert last["stages_cached"] == 10 and last["stages_run"] == 3  # the arm whose training was killed last


def test_kills_leave_the_same_searches(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        (folder / "tiny.yaml").write_text(SEARCHES)
    nsd(whole, "run", "tiny.yaml")
    stop(killed, "discover", "multi_turn", "shards/*.parquet")
    stop(killed, "discover", "sdpo", "checkpoints/checkpoint-*")
    nsd(killed, "run", "tiny.yaml")
    assert results(killed / "nsd-workspace") == results(whole / "nsd-workspace")
