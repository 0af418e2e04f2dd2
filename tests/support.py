"""Helpers shared by tests: where the real data lies, and waiting for a state instead of for a time."""

from __future__ import annotations

import fcntl
import inspect
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# Seconds to wait for what comes at once on a quiet machine: only something that hangs takes as long on a busy one.
PATIENCE = 600.0
# Where the tests that a GPU may run too compute: NSD_TEST_DEVICE=cuda pytest tests/plugins/test_vllm.py ...
DEVICE = os.environ.get("NSD_TEST_DEVICE", "cpu")
State = TypeVar("State")
# Names that a worker imports: whichever of them it takes from the current folder leaves a mark.
STRANGERS = (
    "runner",
    "plugins",
    "reports",
    "nsd",
    "pydantic",
    "pyarrow",
    "numpy",
    "statistics",
    "helper",
    "accelerate",
)
STRANGER = "import pathlib\npathlib.Path(__file__).with_name('STRANGER_RAN').touch()\nraise ImportError('a stranger')\n"


def wait_until(condition: Callable[[], State], deadline: float = PATIENCE, pause: float = 0.05) -> State:
    """Ask until the condition is true, and return what it gave.

    Fails `deadline` seconds after the call, naming the condition and what it gave last; it is asked once more then,
    however late. A condition that can no longer come true should fail by itself, with an assertion of its own.
    """
    over_at = time.monotonic() + deadline
    while True:
        over = time.monotonic() >= over_at
        if state := condition():
            return state
        if over:
            pytest.fail(f"after {deadline:g} s still {state!r}: {_source_of(condition)}")
        time.sleep(pause)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` has filled, once, whichever modules and workers of pytest-xdist ask for it. Don't change it.

    `make` is called again where it failed or its worker died.
    """
    shared = factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    folder, whole = shared / name, shared / f"{name}.whole"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder


def _source_of(condition: Callable[[], object]) -> str:
    try:
        return " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):
        return repr(condition)


def runs(process: int) -> bool:
    """Whether a process is there and has not ended, waited for or not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def shared_data(relative: str) -> Path:
    """Path of a real data file beside the checkout; skips the test, saying so, where it is absent."""
    path = REPOSITORY.parent / "shared" / "data" / relative
    if not path.exists():
        pytest.skip(f"real data absent: ../shared/data/{relative}")
    return path
