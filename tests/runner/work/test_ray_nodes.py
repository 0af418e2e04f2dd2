"""What keeps Ray's processes up on several machines, and finds out whether a cluster lets anybody in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nsd.runner.work import ray_machines, ray_nodes
from support import runs, wait_until

# It writes down its number and stands still over a child that has ended, or waits for one that has not.
COMMAND = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[2]])
with open(sys.argv[1], "a") as file:
    print(os.getpid(), child.pid, file=file)
time.sleep(3600)
"""
ENDS, STAYS = "pass", "import time; time.sleep(3600)"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("LOOK_SECONDS", 0.05), ("LOST_SECONDS", 0.2), ("AGAIN_SECONDS", 0.05)):
        monkeypatch.setattr(ray_nodes, name, seconds)


def begun(path: Path) -> list[list[int]]:
    """The numbers of each process that was started, and of its child."""
    return [[int(number) for number in line.split()] for line in path.read_text().splitlines()] if path.exists() else []


def test_one_that_stands_still_over_a_lost_process_is_started_again(tmp_path: Path) -> None:
    path = tmp_path / "begun"
    with ray_nodes._kept_running([sys.executable, "-c", COMMAND, str(path), ENDS]):
        wait_until(lambda: len(begun(path)) > 1 and not runs(begun(path)[0][0]))


def test_one_that_lost_nothing_stays_and_ends_with_all_it_started(tmp_path: Path) -> None:
    path = tmp_path / "begun"
    with ray_nodes._kept_running([sys.executable, "-c", COMMAND, str(path), STAYS]):
        wait_until(lambda: begun(path))
        wait_until(lambda: runs(begun(path)[0][1]))
    assert len(begun(path)) == 1
    wait_until(lambda: not any(map(runs, begun(path)[0])))  # what was killed takes a moment to end


@pytest.mark.parametrize(
    ("code", "said"),
    [("", None), ("raise SystemExit('no such token')", "no such token"), (STAYS, "heard nothing for 1 s")],
)
def test_who_is_not_let_in_says_why_and_waits_for_no_answer(
    monkeypatch: pytest.MonkeyPatch, code: str, said: str | None
) -> None:
    monkeypatch.setattr(ray_machines, "TRIAL", code)
    monkeypatch.setattr(ray_machines, "TRIAL_SECONDS", 60.0 if code != STAYS else 1.0)
    found = ray_machines._refusal("127.0.0.1:1")
    assert found is None if said is None else said in str(found)
