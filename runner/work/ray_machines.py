"""Ray for one run: on this machine, on all machines of a launch, or a cluster that is there already.

    over = over_ray(plan.experiment.resources, decision)     # None where the spec does not say `over: ray`
    members = connection.open(over)                           # in the worker: from now on it can use Ray

With one machine the worker starts Ray itself, and Ray ends with it, whatever way it ends. With several each runs
`ray start` on its address in the launch's private network (runner/work/ray_nodes.py). NSD_RAY_ADDRESS names a cluster
that is there; nothing is started then. No dashboard is started and nothing is reported to Ray's makers.

Ray on one machine listens on the loopback and asks for a token that only this run knows. Limits: between machines it
asks for one only where RAY_AUTH_TOKEN says which; a cluster that somebody else keeps needs nsd and the workspace under
the same paths on every machine, and machines that are alike.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nsd.plugins.cores import usable_cores
from nsd.plugins.errors import StageFailed
from nsd.runner.spec.model import Resources
from nsd.runner.work.device import Decision

ADDRESS_VARIABLE = "NSD_RAY_ADDRESS"
# Ray takes 127.0.0.1 for a name of the machine's outer address, and no other address of the loopback.
LOOPBACK = "127.0.0.2"
STORE_BYTES = 512 * 2**20  # of Ray's objects; what does not fit lies on disk
WAIT_SECONDS = 300.0  # for Ray's head and for the machines that join it
AGAIN_SECONDS = 2.0
TRIAL_SECONDS = 60.0  # in which a cluster that is well lets a process in
TRIAL = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level=50); ray.shutdown()"
_TOKEN = secrets.token_hex(24)
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class Over:
    """What a spec's `over: ray` comes to: processes that draw on each machine, its GPUs (0: none), and machines."""

    each: int
    gpus: int
    machines: int = 1


@dataclass(frozen=True)
class Member:
    """A machine of the cluster that is alive: what Ray may use of it."""

    cpus: int
    gpus: int


def over_ray(resources: Resources, decision: Decision | None, machines: int = 1) -> Over | None:
    """How a run uses Ray; None where it does not."""
    if resources.over != "ray":
        return None
    if decision is None:  # nothing computes; scoring takes the processors
        return Over(1, 0, machines)
    return Over(decision.drawing, decision.drawing if decision.device == "cuda" else 0, machines)


class Connection:
    """A process as Ray's driver: it connects where it first needs to, and stays connected until it is closed."""

    def __init__(self) -> None:
        self._folder: str | None = None
        self._open = False

    def open(self, over: Over) -> list[Member]:
        """Connect, and say which machines are there. Raises StageFailed where Ray does not come up."""
        address = os.environ.get(ADDRESS_VARIABLE)
        if not self._open:
            self._begin(over, address)
            self._open = True
        members = _members()
        deadline = time.monotonic() + WAIT_SECONDS
        while len(members) < over.machines and time.monotonic() < deadline:
            time.sleep(AGAIN_SECONDS)
            members = _members()
        if not members:
            raise StageFailed(f"the Ray cluster at {address or 'this machine'} has no machine that is alive")
        if len(members) < over.machines:
            print(f"{len(members)} of {over.machines} machines have joined Ray; the others are not waited for")
        return members

    def close(self) -> None:
        """Disconnect, and end the Ray that was started here."""
        if self._open:
            import ray

            ray.shutdown()
            self._open = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _begin(self, over: Over, address: str | None) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        if address is None:  # Ray reads it once, when it is imported
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=_TOKEN)
        import ray

        common = {"log_to_driver": True, "logging_level": logging.WARNING}
        deadline = time.monotonic() + WAIT_SECONDS
        while address is not None and (refused := _refusal(address)) is not None:
            if time.monotonic() > deadline:
                raise StageFailed(f"Ray at {address} does not come up: {refused}")
            time.sleep(AGAIN_SECONDS)
        while True:
            try:
                # Short: a socket's path has at most 107 characters.
                self._folder = self._folder or tempfile.mkdtemp(prefix="nsd-ray-", dir="/tmp")
                with _handlers_kept(), _inside(Path(self._folder) / "empty"):
                    if address is not None:
                        ray.init(address=address, **common)
                        return
                    ray.init(
                        address="local",
                        num_cpus=max(over.each, usable_cores()),
                        num_gpus=over.gpus,
                        object_store_memory=STORE_BYTES,
                        include_dashboard=False,
                        _node_ip_address=LOOPBACK if sys.platform == "linux" else "127.0.0.1",
                        _temp_dir=self._folder,
                        **common,
                    )
                    return
            except Exception as error:
                ray.shutdown()
                if address is None or time.monotonic() > deadline:
                    where = "here" if address is None else f"at {address}"
                    raise StageFailed(f"Ray {where} does not come up: {type(error).__name__}: {error}") from error
                time.sleep(AGAIN_SECONDS)


def _refusal(address: str) -> str | None:
    """Why a cluster lets no process in, None where it does; asked by another process.

    Where a machine's Ray ends while somebody is let in, that process waits for ever, and no exception reaches it.
    """
    with tempfile.TemporaryDirectory(prefix="nsd-ray-", dir="/tmp") as empty:
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", TRIAL, address],
                cwd=empty,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=TRIAL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"a process that wanted in heard nothing for {TRIAL_SECONDS:g} s"
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it ended without a word")
    return None if done.returncode == 0 else last


def _members() -> list[Member]:
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Member(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in alive if one.get("CPU", 0) >= 1]


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray sets handlers of its own; ours have the stage save what it has."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _inside(empty: Path) -> Iterator[None]:
    """An empty current folder meanwhile: Ray puts the current one in front of all that its processes can import."""
    empty.mkdir(exist_ok=True)
    with contextlib.chdir(empty):
        yield
