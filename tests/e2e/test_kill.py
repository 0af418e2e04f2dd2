"""Stops and kill -9 in the middle of stages: the same command, again and again, ends with the same results."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from e2e.command_line import EVERY_KIND, finished_run, nsd, results, start
from nsd.runner.plan.build import build_plan
from nsd.runner.spec.load import load_spec
from support import PATIENCE, wait_until

CHECKPOINT = "checkpoints/checkpoint-*/nsd.json"  # written last: with it a checkpoint is whole

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def stop(folder: Path, kind: str, condition: str, files: str, how: signal.Signals = signal.SIGKILL) -> None:
    """Run tiny.yaml until a stage of this kind and condition has left such files, not yet its result, and stop it.

    What a death at each step of a commit leaves is tried one by one in tests/runner/store/test_crash_windows.py.
    """
    plan, arm = build_plan(load_spec(folder / "tiny.yaml")), f"{condition}/seed7"
    stages = [one for one in plan.stages.values() if one.kind == kind and one.used_by[0] == arm]
    partials = [folder / "nsd-workspace" / "partial" / f"{kind}-{stage.digest}" for stage in stages]
    process = start(folder, "run", "tiny.yaml")

    def begun() -> list[Path]:
        return [found for partial in partials for found in partial.glob(files)]

    wait_until(lambda: begun() or process.poll() is not None, pause=0.01)
    assert process.poll() is None, process.communicate()
    os.kill(process.pid, how)
    process.wait(PATIENCE)
    assert process.returncode == (75 if how == signal.SIGTERM else -how)
    assert begun(), "it came too late: the stage was over"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where EVERY_KIND came to its end after five kills and a stop, with what the last run said."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "tiny.yaml").write_text(EVERY_KIND)
    stop(folder, "sample", "base", "shards/*.parquet")
    stop(folder, "train", "baseline", CHECKPOINT, signal.SIGTERM)
    stop(folder, "train", "student", CHECKPOINT)
    stop(folder, "train", "rl", CHECKPOINT)
    stop(folder, "discover", "turns", "shards/*.parquet")
    stop(folder, "discover", "searches", CHECKPOINT)
    (folder / "last.json").write_text(nsd(folder, "run", "tiny.yaml", "--json"))
    return folder


def test_kills_leave_the_same_labels_scores_and_weights(
    stopped: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = finished_run(tmp_path_factory, EVERY_KIND)
    assert results(stopped / "nsd-workspace") == results(whole / "nsd-workspace")


def test_trainings_went_on_from_their_checkpoints(stopped: Path) -> None:
    manifests = [json.loads(path.read_text()) for path in stopped.glob("nsd-workspace/artifacts/train-*/manifest.json")]
    assert len(manifests) == 3 and all(one["training"]["notes"]["resumed_from"] > 0 for one in manifests)


def test_what_was_whole_before_a_stop_is_not_done_again(stopped: Path) -> None:
    """The last one was in the last arm, at the first or the second of its two questions."""
    last = json.loads((stopped / "last.json").read_text())
    assert last["stages_cached"] >= 16 and last["stages_run"] <= 3
