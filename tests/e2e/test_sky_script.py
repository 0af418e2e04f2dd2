"""The script that sky.yaml runs on a machine, run here: its deadline, its wait, its exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from e2e.command_line import TINY_SPEC
from support import PATIENCE, REPOSITORY, wait_until

pytestmark = pytest.mark.slow

TASK = yaml.safe_load((REPOSITORY / "sky.yaml").read_text())


def run_script(tmp_path: Path, spec: str, **envs: str) -> subprocess.Popen[str]:
    """Start the script in a project folder with a HOME of its own."""
    (tmp_path / "home").mkdir()
    (tmp_path / "spec.yaml").write_text(spec)
    values = {**TASK["envs"], **TASK["secrets"], "SPEC": "spec.yaml", "NSD_ENVIRONMENT": sys.prefix, **envs}
    return subprocess.Popen(
        ["bash", "-c", TASK["run"]],
        cwd=tmp_path,
        env={**os.environ, **values, "HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def started_by(process: subprocess.Popen[str], name: str) -> tuple[int, list[str]] | None:
    """Id and command line of the `name` that the script runs now, None where it runs none."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        with contextlib.suppress(OSError):  # it ended meanwhile
            words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
            if words[0] == name:
                return int(child), words
    return None


def test_at_its_deadline_a_run_saves_its_state_and_what_is_done_stays(tmp_path: Path) -> None:
    long = TINY_SPEC.replace("epochs: 2, batch_size: 8", "epochs: 4000, batch_size: 8")
    store = tmp_path / "store"
    deadline = str(int(time.time()) + 3600)
    process = run_script(tmp_path, long, NSD_STORE=f"file://{store}", NSD_DEADLINE=deadline, NSD_PUSH_SECONDS="0.5")

    def checkpoints() -> list[str]:
        states = [json.loads(path.read_text()) for path in store.glob("partial/train-*/state.json")]
        return [name for state in states for name in state["files"] if name.startswith("checkpoints/")]

    wait_until(lambda: checkpoints() or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    found = started_by(process, "timeout")
    assert found is not None
    number, words = found
    (limit,) = [int(word) for word in words if word.isdigit()]
    assert 0 < limit <= 3600 and "--signal=TERM" in words
    # `timeout` is told by its own alarm that the time is up; this is that alarm, without the hour before it.
    os.kill(number, signal.SIGALRM)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 124, out  # what `timeout` says when the time was up
    assert (tmp_path / "home" / "nsd-finished").read_text().strip() == "124"
    assert list(store.glob("manifests/score-*.json")), out  # the first arm was evaluated
    assert checkpoints() and len(list(store.glob("partial/train-*/state.json"))) == 1


def test_a_deadline_that_is_over_starts_nothing(tmp_path: Path) -> None:
    process = run_script(tmp_path, TINY_SPEC, NSD_DEADLINE="1000000000")
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and "the time this launch was given is over" in out
    assert not (tmp_path / "home" / "nsd-workspace").exists()


def test_without_a_store_it_waits_until_the_results_are_fetched(tmp_path: Path) -> None:
    base = TINY_SPEC.partition("  baseline:")[0]  # what there is to fetch is nothing to the wait
    process = run_script(tmp_path, base, NSD_KEEP_SECONDS="3600", NSD_JOB="job")
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "nsd: waiting for the results to be fetched":
            break
    wait_until(lambda: started_by(process, "sleep") or process.poll() is not None)
    assert process.poll() is None  # it does wait
    word = json.loads((tmp_path / "home" / "nsd-workspace" / "outcomes" / "job.json").read_text())
    assert word["exit_code"] == 0 and word["stages_run"] == 2
    (tmp_path / "home" / "nsd-fetched").touch()
    assert process.wait(PATIENCE) == 0


def test_a_failure_stays_a_failure_after_the_wait(tmp_path: Path) -> None:
    # One token is no answer: no vote, nothing to train on.
    broken = TINY_SPEC.replace("max_tokens: 48}\ntrainer", "max_tokens: 1}\ntrainer").replace(
        "[labeled, pseudo], label_with: baseline", "[pseudo], label_with: base"
    )
    broken = broken.replace("  baseline: {train_on: [labeled]}\n", "").partition("hypotheses:")[0]
    process = run_script(tmp_path, broken, NSD_KEEP_SECONDS="1", NSD_JOB="job")
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, out
    word = json.loads((tmp_path / "home" / "nsd-workspace" / "outcomes" / "job.json").read_text())
    assert "nothing to train on" in word["failures"][0]["reason"] and word["failures"][0]["log_end"]
