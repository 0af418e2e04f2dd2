"""Several machines as one Ray cluster, for as long as a run goes on.

    with leading(over, head, here): ...       # on the first machine
    with member(over, head, here): ...        # on each of the others: it joins, and joins again where it was cut off

`head` is HOST:PORT of the first machine, `here` this machine's address; both lie in the launch's private network. Ray
asks for a token where RAY_AUTH_TOKEN and RAY_AUTH_MODE say so, as Ray's own documents describe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

from nsd.plugins.cores import usable_cores
from nsd.runner.work.jobs import worker_environment
from nsd.runner.work.ray_machines import ADDRESS_VARIABLE, AGAIN_SECONDS, QUIET, STORE_BYTES, Over

END_SECONDS = 30.0
LOOK_SECONDS = 1.0
LOST_SECONDS = 20.0  # in which Ray itself notices that one of its processes ended


@contextlib.contextmanager
def leading(over: Over | None, head: str, here: str) -> Iterator[None]:
    """Ray's head on the first of several machines; nothing where the run does not use Ray, or finds a cluster."""
    if over is None or over.machines == 1 or ADDRESS_VARIABLE in os.environ:
        yield
        return
    port = head.rpartition(":")[2]
    with _kept_running(_start(over, here, "--head", f"--port={port}", "--include-dashboard=false")):
        os.environ[ADDRESS_VARIABLE] = head
        try:
            yield
        finally:
            del os.environ[ADDRESS_VARIABLE]


@contextlib.contextmanager
def member(over: Over | None, head: str, here: str) -> Iterator[None]:
    """One of the other machines as part of the cluster, from when the head is there."""
    if over is None or ADDRESS_VARIABLE in os.environ:
        yield
        return
    with _kept_running(_start(over, here, f"--address={head}")):
        yield


def _start(over: Over, here: str, *words: str) -> list[str]:
    has = [f"--num-cpus={max(over.each, usable_cores())}", f"--num-gpus={over.gpus}"]
    where = [f"--node-ip-address={here}", f"--object-store-memory={STORE_BYTES}"]
    return [sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block", *words, *where, *has]


@contextlib.contextmanager
def _kept_running(command: Sequence[str]) -> Iterator[None]:
    """A command that is started again where it ends: a head that is not there yet, or was away, is tried again.

    So is one that has lost a process of its own and does not say so: `ray start --block` may stand still over that.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_keep, args=(command, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(2 * END_SECONDS)


def _keep(command: Sequence[str], ended: threading.Event) -> None:
    while not ended.is_set():
        with tempfile.TemporaryDirectory(prefix="nsd-ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
            more = [f"--temp-dir={folder}"] if "--head" in command else []
            process = subprocess.Popen(
                [*command, *more],
                env={**worker_environment(), **QUIET},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            lost_since = None
            while process.poll() is None and not ended.wait(LOOK_SECONDS):
                lost_since = (lost_since or time.monotonic()) if _lost_one(process.pid) else None
                if lost_since is not None and time.monotonic() - lost_since > LOST_SECONDS:
                    break
            _end(process, patient=ended.is_set())
        ended.wait(AGAIN_SECONDS)


def _lost_one(pid: int) -> bool:
    """Whether a child of this process has ended and was not noticed."""
    import psutil

    try:
        return any(child.status() == psutil.STATUS_ZOMBIE for child in psutil.Process(pid).children())
    except psutil.Error:  # it, or one of them, is gone
        return False


def _end(process: subprocess.Popen[bytes], patient: bool) -> None:
    """End a command with all that it started, which is of its session."""
    if patient:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
