"""Several machines for one run: each of them runs `nsd run SPEC`, and trainings are shared.

The first machine (the leader) executes the plan as ever. The others only take part in trainings: for each one they
fetch its inputs from the store, start their share of the processes, and wait until the leader has put the result into
the store. Everything else (sampling, votes, evaluation) is the leader's work, but where the spec says `over: ray`: then
they are part of a Ray cluster meanwhile (runner/work/ray_nodes.py), and fetch the models that its actors draw from.

The environment says who is who, as SkyPilot sets it: SKYPILOT_NODE_RANK, SKYPILOT_NUM_NODES, SKYPILOT_NODE_IPS.
Limits: a store that all can reach is needed. When the leader fails, the others wait until they are ended from outside
(SkyPilot does that).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from nsd.plugins.errors import InputError, Interrupted, StageFailed
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.store.bucket import BrokenThere, patiently
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.device import Decision, Settle
from nsd.runner.work.jobs import worker_environment, write_data, write_job, write_side_files
from nsd.runner.work.ray_machines import over_ray
from nsd.runner.work.ray_nodes import member
from nsd.runner.work.sync import Sync

POLL_SECONDS = 2.0
FIRST_PORT, PORTS = 20_000, 12_000  # below 32768, where Linux takes the ports of outgoing connections from


@dataclass(frozen=True)
class Nodes:
    """This machine among its fellows; `rank` 0 leads."""

    rank: int
    addresses: tuple[str, ...]

    @classmethod
    def here(cls) -> Nodes | None:
        """None on a machine of its own. Raises InputError for an environment that contradicts itself."""
        count = int(os.environ.get("SKYPILOT_NUM_NODES") or 1)
        if count <= 1:
            return None
        addresses = tuple(os.environ.get("SKYPILOT_NODE_IPS", "").split())
        rank = int(os.environ.get("SKYPILOT_NODE_RANK") or 0)
        if len(addresses) != count or not 0 <= rank < count:
            raise InputError(
                f"SKYPILOT_NUM_NODES is {count}, SKYPILOT_NODE_RANK {rank}, and SKYPILOT_NODE_IPS has "
                f"{len(addresses)} addresses: they must agree"
            )
        return cls(rank, addresses)


def ray_address(plan: Plan, nodes: Nodes) -> str:
    """Where Ray's head listens on the leader: machines must know the port before they can talk."""
    return f"{nodes.addresses[0]}:{FIRST_PORT + int(plan.spec_digest[:8], 16) % PORTS}"


def training_command(stage: Stage, job: Path, events: Path | str, nodes: Nodes | None = None) -> list[str]:
    """The command that starts a stage's processes on this machine.

    Only with `--multi_gpu` does accelerate start that many, on CPU too; ACCELERATE_USE_CPU then keeps them off the GPU.
    Machines must know one port before they can talk: it follows from the stage's digest.
    """
    processes = stage.processes
    if nodes is None:
        where = ["--num_processes", str(processes), "--num_machines", "1", "--main_process_port", "0"]  # 0: a free one
    else:
        machines = len(nodes.addresses)
        where = ["--num_processes", str(processes * machines), "--num_machines", str(machines)]
        where += ["--machine_rank", str(nodes.rank), "--main_process_ip", nodes.addresses[0]]
        where += ["--main_process_port", str(FIRST_PORT + int(stage.digest[:8], 16) % PORTS)]
        where += ["--rdzv_backend", "static"]
    flags = ["--multi_gpu", *where, "--mixed_precision", "no", "--dynamo_backend", "no"]
    worker = ["-m", "nsd.runner.work.worker", "--job", str(job), str(events)]
    return [sys.executable, "-P", "-m", "accelerate.commands.launch", *flags, *worker]


def take_part(
    plan: Plan,
    workspace: Workspace,
    sync: Sync,
    nodes: Nodes,
    only: Collection[str] | None = None,
    settle: Settle | None = None,
) -> int:
    """Do the part of every machine but the leader. Returns the exit code."""
    workspace.create()
    sync.fetch()
    wanted = set(plan.stages) if only is None else plan.with_causes(only)
    pending = [stage for stage in plan.pending(workspace) if stage.digest in wanted]
    decision = settle(pending) if settle is not None else None
    over = over_ray(plan.experiment.resources, decision, len(nodes.addresses))
    with member(over, ray_address(plan, nodes), nodes.addresses[nodes.rank]):
        return _take_part(plan, workspace, sync, nodes, pending, decision, over is not None)


def _take_part(
    plan: Plan,
    workspace: Workspace,
    sync: Sync,
    nodes: Nodes,
    pending: Sequence[Stage],
    decision: Decision | None,
    draws: bool,
) -> int:
    device = None if decision is None else decision.told
    write_data(plan, workspace)
    write_side_files(plan, [stage for stage in pending if stage.kind == "train"], workspace, sync.fetch_side_file)
    for stage in pending:
        if stage.kind == "train" and not _is_there(sync, stage):
            for cause in stage.inputs.values():
                _wait_for(sync, plan.stages[cause])
                sync.bucket.fetch_stage(workspace, plan.stages[cause].kind, cause, weights=True)
            sync.bucket.fetch_partial(workspace, stage.kind, stage.digest)
            _compute(stage, write_job(plan, stage, workspace, device), nodes, decision)
        elif stage.kind == "sample" and draws and not _is_there(sync, stage):
            for cause in stage.inputs.values():
                _wait_for(sync, plan.stages[cause])
                sync.bucket.fetch_stage(workspace, plan.stages[cause].kind, cause, weights=True)
        _wait_for(sync, stage)
    return 0


def _is_there(sync: Sync, stage: Stage) -> bool:
    try:
        return sync.bucket.manifest(stage.kind, stage.digest) is not None
    except BrokenThere:  # the leader makes it again
        return False


def _wait_for(sync: Sync, stage: Stage) -> None:
    while not patiently(lambda: _is_there(sync, stage), print):
        time.sleep(POLL_SECONDS)


def _compute(stage: Stage, job: Path, nodes: Nodes, decision: Decision | None) -> None:
    """This machine's share of a training. Raises StageFailed or Interrupted."""
    gpus = None if decision is None else decision.ids[: stage.processes]
    command = training_command(stage, job, os.devnull, nodes)
    process = subprocess.Popen(command, env=worker_environment(gpus=gpus))
    handlers = {
        number: signal.signal(number, lambda *_: process.terminate()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        code = process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if code == Interrupted.exit_code:
        raise Interrupted("stopped; the leader has saved what there is")
    if code != 0:
        raise StageFailed(f"this machine's share of {stage.title} ended with exit code {code}")
