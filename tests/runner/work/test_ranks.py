"""A training in two processes: what a person sees where one of them fails, and that a stop lets a checkpoint end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nsd.runner.plan.build import build_plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import execute
from nsd.runner.work.ranks import RankFailure, first_failure, forget_reasons, heading, leave_reason
from support import REPOSITORY, wait_until

TRAINER = '''
import json
import os
import signal
import time
from pathlib import Path

from nsd import Trainer, TrainResult
from nsd.plugins.errors import Interrupted

HERE = Path(__file__).parent
RANK = int(os.environ.get("RANK", "0"))


class Told(Trainer):
    """Does what a file says; the first process waits for the other as a collective would, and then complains."""

    def planned_steps(self, examples):
        return 1

    def train(self, job):
        what = (HERE / "told").read_text()
        if RANK == 1:
            if what == "raise":
                raise ValueError("the rows of this process are no rows")
            if what == "memory":
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        elif what in ("raise", "memory", "kill"):
            time.sleep(1)
            raise RuntimeError("Connection closed by peer")
        if what == "slow":
            (HERE / f"ready{RANK}").touch()
            while not job.should_stop():
                time.sleep(0.05)
            if RANK == 0:
                time.sleep(float((HERE / "seconds").read_text()))
                (HERE / "checkpoint").write_text("whole")
            else:
                while not (HERE / "checkpoint").exists():
                    time.sleep(0.05)
            raise Interrupted("saved")
        if RANK == 0:
            job.output_dir.mkdir(parents=True)
            (job.output_dir / "config.json").write_text("{}")
        return TrainResult(steps=1, examples_seen=1, tokens_seen=None, adapter_only=False, notes={})
'''
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, train: 30, test: 10, split: {labeled: 4, test: 2}}
trainer: ./mine.py:Told
conditions: {taught: {train_on: [labeled]}}
resources: {processes: 2}
"""


def toy(folder: Path, what: str) -> Path:
    (folder / "mine.py").write_text(TRAINER)
    (folder / "told").write_text(what)
    (folder / "toy.yaml").write_text(SPEC)
    return folder / "toy.yaml"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("raise", "process 2 of 2: ValueError: the rows of this process are no rows"),
        ("memory", "process 2 of 2: RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        (
            "kill",
            "process 2 of 2: the worker was killed (SIGKILL): most often the machine ran out of memory",
        ),
    ],
)
def test_the_process_that_failed_first_is_named_with_its_reason_and_log(what: str, reason: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    plan = build_plan(load_spec(toy(tmp_path, what), run_files=True))
    (failure,) = execute(plan, workspace).failures
    assert failure.reason == reason
    log = Path(failure.log)
    assert log.name == "log-rank1.txt" and log.is_file()
    assert "rank" in (log.parent / "launcher.log").read_text(), "what the launcher said is kept"


REWARD = '''
import os
import time

from nsd import Reward


class Asking(Reward):
    """Of the second process it asks a server that never answers."""

    def rewards(self, rollouts):
        if os.environ.get("RANK") == "1":
            self.wait_for_the_server()
        return [0.0 for _ in rollouts]

    def wait_for_the_server(self):
        time.sleep(3600)
'''
HANGING = SPEC.replace(
    "./mine.py:Told",
    "{use: grpo, steps: 1, num_generations: 2, max_tokens: 4, rewards: [./asking.py:Asking], ddp_timeout: 30}",
)


@pytest.mark.slow
def test_a_process_that_hangs_is_named_with_its_log_which_ends_with_where_it_stood(tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text(REWARD)
    (tmp_path / "toy.yaml").write_text(HANGING)
    plan = build_plan(load_spec(tmp_path / "toy.yaml", run_files=True))
    (failure,) = execute(plan, Workspace(tmp_path / "w")).failures
    assert failure.reason == (
        "process 2 of 2 did not come: others waited for it for 30 s (trainer.ddp_timeout); its log ends with where it "
        "stood"
    )
    log = Path(failure.log)
    assert log.name == "log-rank1.txt"
    assert "in wait_for_the_server" in log.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_stop_waits_for_a_checkpoint_that_takes_longer_than_the_launchers_patience(tmp_path: Path) -> None:
    """The launcher's own patience is 30 seconds; the checkpoint here takes 35."""
    spec = toy(tmp_path, "slow")
    (tmp_path / "seconds").write_text("35")
    words = ["run", str(spec), "-w", str(tmp_path / "w")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "nsd.runner.cli", *words]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: all((tmp_path / f"ready{rank}").exists() for rank in (0, 1)) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 75, said
    assert (tmp_path / "checkpoint").read_text() == "whole"


ROOT = """\
Root Cause (first observed failure):
[0]:
  time      : 2026-11-26_01:00:00
  host      : node
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 4242)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 4242
"""


def test_of_two_reasons_the_first_in_time_counts_where_the_launcher_says_nothing(tmp_path: Path) -> None:
    leave_reason(tmp_path, 1, "the cause")
    time.sleep(0.01)
    leave_reason(tmp_path, 0, "what came of it")
    assert first_failure(tmp_path, 2) == RankFailure(1, "the cause", tmp_path / "log-rank1.txt")


def test_a_killed_process_counts_before_what_others_say_of_it(tmp_path: Path) -> None:
    leave_reason(tmp_path, 0, "Connection closed by peer")
    (tmp_path / "launcher.log").write_text(ROOT)
    reason = "the worker was killed (SIGKILL): most often the machine ran out of memory"
    assert first_failure(tmp_path, 2) == RankFailure(1, reason, tmp_path / "log-rank1.txt")


def test_the_reason_of_the_process_that_the_launcher_names_counts(tmp_path: Path) -> None:
    leave_reason(tmp_path, 0, "Connection closed by peer")
    leave_reason(tmp_path, 1, "the cause")
    (tmp_path / "launcher.log").write_text(ROOT.replace("-9", "1"))
    found = first_failure(tmp_path, 2)
    assert found is not None and (found.rank, found.reason) == (1, "the cause")


GLOO = "RuntimeError: [unbound_buffer.cc:129] Timed out waiting 1800000ms for send operation to complete"
NCCL = (
    "[rank0]:[E101 ProcessGroupNCCL.cpp:629] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9, "
    "OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=1800000) ran for 1800029 milliseconds before timing out.\n"
)


def test_the_leader_too_is_named_where_the_others_waited_for_it(tmp_path: Path) -> None:
    leave_reason(tmp_path, 1, GLOO)
    found = first_failure(tmp_path, 2)
    assert found is not None and found.log.name == "log.txt"
    assert found.sentence(2).startswith("process 1 of 2 did not come: others waited for it for 1800 s")


def test_of_several_that_waited_the_one_that_says_nothing_did_not_come(tmp_path: Path) -> None:
    for rank in (0, 1, 3):
        leave_reason(tmp_path, rank, GLOO if rank == 0 else "Timed out waiting for clients")
    found = first_failure(tmp_path, 4)
    assert found is not None and (found.rank, found.hung) == (2, True)


def test_a_process_that_came_too_late_is_the_one_that_was_waited_for(tmp_path: Path) -> None:
    leave_reason(tmp_path, 0, GLOO)
    leave_reason(tmp_path, 1, "Connection closed by peer")
    found = first_failure(tmp_path, 2)
    assert found is not None and (found.rank, found.hung) == (1, True)


def test_what_nccl_prints_before_it_ends_a_process_counts_as_waiting(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(NCCL)
    (tmp_path / "log-rank1.txt").write_text("--- begun")
    (tmp_path / "launcher.log").write_text(ROOT.replace("rank      : 1", "rank      : 0").replace("-9", "-6"))
    found = first_failure(tmp_path, 2)
    assert found is not None and (found.rank, found.hung) == (1, True)


def test_a_wait_of_an_earlier_attempt_hides_no_process_that_hangs(tmp_path: Path) -> None:
    begun = heading("train", "e1", ["taught/seed7"])
    dashes = "--- Logging error ---"
    (tmp_path / "log-rank1.txt").write_text("\n".join([begun, GLOO, begun, dashes, "step 2", ""]))
    leave_reason(tmp_path, 0, GLOO)
    found = first_failure(tmp_path, 2)
    assert found is not None and (found.rank, found.hung) == (1, True)


def test_lines_of_dashes_begin_no_attempt(tmp_path: Path) -> None:
    """All waited, as one of them says in its log alone: the one that did not come is on another machine."""
    begun = heading("train", "e1", ["taught/seed7"])
    (tmp_path / "log-rank1.txt").write_text("\n".join([begun, GLOO, "--- Logging error ---", ""]))
    leave_reason(tmp_path, 0, GLOO)
    assert first_failure(tmp_path, 2) == RankFailure(0, GLOO, tmp_path / "log.txt")


def test_a_killed_process_did_not_wait_because_an_earlier_attempt_did(tmp_path: Path) -> None:
    begun = heading("train", "e1", ["taught/seed7"])
    (tmp_path / "log-rank1.txt").write_text("\n".join([begun, NCCL, begun, "step 2", ""]))
    (tmp_path / "launcher.log").write_text(ROOT)
    found = first_failure(tmp_path, 2)
    assert found is not None and (found.rank, found.hung) == (1, False)


def test_where_all_waited_the_first_reason_stays(tmp_path: Path) -> None:
    """The one that did not come is on another machine."""
    leave_reason(tmp_path, 0, GLOO)
    leave_reason(tmp_path, 1, GLOO)
    assert first_failure(tmp_path, 2) == RankFailure(0, GLOO, tmp_path / "log.txt")


def test_the_leader_is_not_named_as_a_process(tmp_path: Path) -> None:
    leave_reason(tmp_path, 0, "no examples")
    found = first_failure(tmp_path, 2)
    assert found is not None and found.sentence(2) == "no examples" and found.log.name == "log.txt"


def test_torn_reasons_and_those_of_an_earlier_attempt_are_no_reasons(tmp_path: Path) -> None:
    (tmp_path / "failed-rank1.json").write_text(json.dumps({"reason": "x"})[:5])
    assert first_failure(tmp_path, 2) is None
    leave_reason(tmp_path, 1, "earlier")
    forget_reasons(tmp_path)
    assert first_failure(tmp_path, 2) is None
