"""Managed jobs: machines that are taken away, arms side by side, and the saved tasks launched by SkyPilot alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from cluster.commands import Command, environment, local_run, nsd, project, results
from cluster.conftest import Cluster
from cluster.test_launch import HERE, gone, manifests
from e2e.command_line import TINY_SPEC

# One training of about a minute, with a checkpoint every few seconds.
LONG_SPEC = """\
name: long
question: Does a training outlive its machines?
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 32, unlabeled: 24, test: 24}}
trainer: {use: sft, epochs: 50, batch_size: 8, learning_rate: 5e-4, save_every: 10}
eval: {use: accuracy, temperature: 0.1, max_tokens: 48}
seeds: [7]
conditions:
  baseline: {train_on: [labeled]}
"""


@pytest.fixture
def store(slurm: Cluster, tmp_path: Path) -> str:
    """A new folder that outlives every job."""
    return f"file://{slurm.node.shared}/store-{time.time_ns()}"


def step_in(store: str) -> int:
    """The newest checkpoint that has been sent, 0 for none."""
    steps = [0]
    for state in Path(store.removeprefix("file://")).glob("partial/train-*/state.json"):
        names = json.loads(state.read_text())["files"]
        steps += [int(name.split("/")[1].split("-")[1]) for name in names if name.startswith("checkpoints/")]
    return max(steps)


def test_a_training_goes_on_after_each_of_two_preemptions(
    slurm: Cluster, ready: Path, store: str, tmp_path: Path
) -> None:
    caller = environment(slurm.client, NSD_PUSH_SECONDS="1")
    folder = project(tmp_path / "project", LONG_SPEC)
    flags = ("--managed", "--store", store, "--environment", str(ready))
    command = Command(folder, caller, "launch", "spec.yaml", *HERE, *flags)
    command.wait_for("job all: RUNNING")
    reached = [0]
    for _ in range(2):
        # A checkpoint later than all that the machines before had sent: this one has gone on from there.
        command.until(lambda: step_in(store) > reached[-1])
        slurm.preempt("nsd-long-")  # after which nothing of it is sent any more
        reached.append(step_in(store))
    printed = command.end()
    expected = local_run(tmp_path / "here", LONG_SPEC)
    workspace = folder / "nsd-workspace"
    assert results(workspace) == results(expected)
    (manifest,) = manifests(workspace, "train")
    assert 0 < reached[1] < reached[2] <= manifest["training"]["notes"]["resumed_from"], (reached, printed)
    assert "taken away and brought back" in printed, printed
    assert gone(slurm, "nsd-long-")


def test_arms_side_by_side_make_shared_stages_once(
    slurm: Cluster, ready: Path, tiny: Path, store: str, tmp_path: Path
) -> None:
    """A job for what several arms need, and two for the three arms."""
    folder = project(tmp_path / "project", TINY_SPEC)
    flags = ("--parallel", "2", "--store", store, "--environment", str(ready))
    printed = nsd(folder, environment(slurm.client), "launch", "spec.yaml", *HERE, *flags)
    workspace = folder / "nsd-workspace"
    assert results(workspace) == results(tiny)
    assert "3 managed jobs on" in printed and printed.count(": SUCCEEDED") == 3
    assert "student > baseline" in printed and gone(slurm, "nsd-tiny-")

    words = [json.loads(path.read_text()) for path in workspace.glob("outcomes/*.json")]
    assert len(words) == 3
    # Every stage was made by one job only: together the jobs ran as many as there are.
    assert sum(word["stages_run"] for word in words) == len(manifests(workspace)) == 10
    by_digest = {manifest["digest"]: manifest for manifest in manifests(workspace)}
    (teacher,) = [one for one in manifests(workspace, "train") if one["training"]["examples"] == {"labeled": 32}]
    users = [one for one in by_digest.values() if teacher["digest"] in one["inputs"].values()]
    assert len(users) > 1 and all(one["started_at"] >= teacher["ended_at"] for one in users)
