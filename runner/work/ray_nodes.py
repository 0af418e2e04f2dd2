"""Several machines as one Ray cluster, for as long as a run goes on.

    with leading(over, head, here): ...       # on the first machine
    with member(over, head, here): ...        # on each of the others: it joins, and joins again where it was cut off

`head` is HOST:PORT of the first machine, `here` this machine's address; both lie in the launch's private network. Ray
asks for a token where RAY_AUTH_TOKEN and RAY_AUTH_MODE say so, as Ray's own documents describe.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence

from nsd.plugins.cores import usable_cores
from nsd.runner.work.jobs import worker_environment
from nsd.runner.work.ray_machines import ADDRESS_VARIABLE, AGAIN_SECONDS, QUIET, STORE_BYTES, Over

END_SECONDS = 30.0


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
    """A command that is started again where it ends: a head that is not there yet, or was away, is tried again."""
    ended = threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def keep() -> None:
        while not ended.is_set():
            with tempfile.TemporaryDirectory(prefix="nsd-ray-", dir="/tmp") as folder:
                more = [f"--temp-dir={folder}"] if "--head" in command else []
                environment = {**worker_environment(), **QUIET}
                process = subprocess.Popen(
                    [*command, *more],
                    env=environment,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
                running[:] = [process]
                if ended.is_set():
                    process.terminate()
                process.wait()
            ended.wait(AGAIN_SECONDS)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        for process in running:
            process.terminate()
        thread.join(END_SECONDS)
