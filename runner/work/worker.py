"""The process that does the work of stages, so that the command line stays light and survives a crash.

    python -m nsd.runner.work.worker --serve EVENTS [GPU ...]   reads job paths from standard input, one a line
    python -m nsd.runner.work.worker --job JOB EVENTS           does one job; what `accelerate launch` starts
    python -m nsd.runner.work.worker --draw NUMBER DESCRIPTOR   draws shares of jobs (runner/work/team.py)

Events go as JSON lines to the FIFO or file EVENTS, or to the pipe DESCRIPTOR. One serving worker does all
single-process stages of a run, so torch is imported once; where several processes draw, a training has another one.
Completions it draws together with a process for each further GPU that it is given. A worker whose parent died ends at
once; SIGTERM sets a flag that stages look at after each shard or step, and the worker exits with 75.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from nsd.plugins.api import Engine
from nsd.plugins.errors import BudgetSpent, InputError, Interrupted, NsdError, ResumeRefused
from nsd.plugins.side_files import BrokenSideFile
from nsd.runner.plan.jobs import ToSample, ToTrain
from nsd.runner.store import provenance
from nsd.runner.store.shapes import Broken, Machine, Manifest
from nsd.runner.store.workspace import Workspace, now
from nsd.runner.work import ranks
from nsd.runner.work.before_training import before_training, collect_seldom
from nsd.runner.work.context import Context
from nsd.runner.work.drawing import drawers
from nsd.runner.work.events import Event, Told
from nsd.runner.work.jobs import PARENT_VARIABLE, Job
from nsd.runner.work.ray_machines import Connection
from nsd.runner.work.spending import Spending, spent_on
from nsd.runner.work.stages import run_stage
from nsd.runner.work.stopped import other_askers
from nsd.runner.work.team import ShareFailed, Team

INTERRUPTED = Interrupted.exit_code


class Worker:
    """Runs jobs and reports events; `rank` 0 leads where several processes share a job.

    `gpus` are those that draw completions beside its own. A worker with a `number` draws its share for another one.
    """

    def __init__(self, events: TextIO | None, gpus: Sequence[str] = (), number: int = 0) -> None:
        self.events = events
        self.stop = threading.Event()
        self.number = number
        self.rank = number or int(os.environ.get("RANK", "0"))
        self.team = Team(gpus)
        self.engines: dict[str, Engine] = {}
        self.ray = Connection()
        self._telling = threading.Lock()

    def emit(self, event: Event) -> None:
        """Send one event to the parent."""
        if self.events is not None and self.rank == self.number:
            with self._telling:  # the shares of others are counted by threads of their own
                self.events.write(json.dumps(event.to_json(), default=str) + "\n")
                self.events.flush()

    def ask_to_stop(self, *_: object) -> None:
        """Handle a signal: stop after this shard or step, here and in the processes that draw beside this one."""
        self.stop.set()
        self.team.stop()

    def run(self, job_path: Path, processes: int | None = None) -> int:
        """Do one job, or the share of one of `processes`. Returns 0, 1 (failed) or 75 (interrupted, resumable)."""
        try:
            job = Job.from_json(json.loads(job_path.read_text(encoding="utf-8")))
        except FileNotFoundError:  # whoever held the stage before finished it and removed the folder
            self.emit(Event(Told.GONE))
            return 0
        workspace = Workspace(Path(job.workspace))
        kind, digest = job.kind, job.digest
        if self.rank != 0:  # the leader holds the lock and writes; the others only compute
            return self._work(job, workspace, workspace.partial(kind, digest), processes or 1)
        waiting = Event(Told.WAITING, digest)
        with workspace.lock(kind, digest, on_wait=lambda: self.emit(waiting)) as partial:
            if workspace.is_whole(kind, digest) and (kind != "train" or workspace.has_weights(digest)):
                workspace.discard_partial(kind, digest)  # what a death just after the rename left, or the job alone
                self.emit(Event(Told.FINISHED, digest, by="another run"))
                return 0
            return self._work(job, workspace, partial, drawers(job.work, self.team.size))

    def _work(self, job: Job, workspace: Workspace, partial: Path, processes: int) -> int:
        kind, digest = job.kind, job.digest
        log = partial / ranks.log_name(self.rank)
        spending = Spending(partial, processes)
        context = Context(
            workspace=workspace,
            partial=partial,
            emit=self.emit,
            should_stop=self.stop.is_set,
            device=job.device,
            leader=self.rank == 0,
            number=self.number,
            processes=processes,
            team=self.team,
            over=job.over,
            ray=self.ray,
            computes_with=spending.computes_with,
            meter=spending.meter,
            keep_account=spending.write,
            engines=self.engines,
        )
        with redirected(log):
            # At once: a process that is killed, as by NCCL's watchdog, loses what it has not written.
            print(ranks.heading(kind, digest, job.used_by), flush=True)
            try:
                self._refuse_other_versions(job, partial, spending)
                spending.meter.elsewhere = spent_on([*job.askers, *other_askers(job, workspace)], workspace)
                self.emit(Event(Told.STARTED, digest))
                provenance.forget_peak()
                # One writes what it costs: the processes beside it share its time.
                with spending if self.rank == 0 else contextlib.nullcontext():
                    context.artifact.mkdir(parents=True, exist_ok=True)
                    before_training(job.work, context)
                    facts = run_stage(job, context)
                if self.rank == 0:
                    self._finish(job, workspace, context, facts, spending)
            except Interrupted as raised:
                reason = str(raised) if isinstance(raised, BudgetSpent) else None
                self.emit(Event(Told.INTERRUPTED, digest, reason=reason))
                return INTERRUPTED
            except NsdError as raised:
                error = Broken(raised.path, raised.reason) if isinstance(raised, BrokenSideFile) else raised
                if isinstance(error, Broken):
                    workspace.set_aside_owner(error)
                print(f"failed: {error}")
                if error.__cause__ is not None:
                    traceback.print_exc()
                log = error.log if isinstance(error, ShareFailed) else log
                return self._failed(digest, str(error), log, refused=isinstance(error, InputError))
            except Exception as error:
                traceback.print_exc()
                return self._failed(digest, f"{type(error).__name__}: {error}", log, refused=False)
            self.emit(Event(Told.FINISHED, digest, seconds=spending.seconds))
        return 0

    def _refuse_other_versions(self, job: Job, partial: Path, spending: Spending) -> None:
        """Raise ResumeRefused where the packages that shape results changed since the stage began."""
        versions = provenance.shaping(provenance.packages())
        old = spending.versions
        if spending.resumed:
            names = sorted({*old, *versions})
            differing = [f"{n}: {old.get(n)} -> {versions.get(n)}" for n in names if old.get(n) != versions.get(n)]
            if differing and (any((partial / "checkpoints").glob("*")) or any((partial / "shards").glob("*"))):
                raise ResumeRefused(
                    f"this {job.kind} stage was begun with other package versions ({'; '.join(differing)}); install "
                    f"those again to continue it, or start it anew after: nsd gc --partial {job.digest} (where the run "
                    "has a store, with the same --store: it would come back from there)"
                )
        spending.versions = versions

    def _failed(self, digest: str, reason: str, log: Path, refused: bool) -> int:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            ranks.leave_reason(log.parent, self.rank, reason)
        self.emit(Event(Told.FAILED, digest, reason=reason, log=str(log), refused=refused))
        return 1

    def _finish(
        self,
        job: Job,
        workspace: Workspace,
        context: Context,
        facts: dict[str, Any],
        spending: Spending,
    ) -> None:
        sys.stdout.flush()
        log = context.partial / "log.txt"
        (context.artifact / "log.txt").write_bytes(log.read_bytes())
        manifest = {
            "kind": job.kind,
            "digest": job.digest,
            "plugin": job.work.plugin.use,
            "key": job.key,
            "settings": job.settings,
            "inputs": job.inputs,
            "seed": job.work.seed,
            "used_by": list(job.used_by),
            "started_at": spending.started_at,
            "ended_at": now(),
            "seconds": spending.seconds,
            "gpu_seconds": spending.gpu_seconds,
            "packages": provenance.packages(),
            "machine": _machine(job),
            "processes": max(context.processes, spending.actors, int(os.environ.get("WORLD_SIZE", "1"))),
            "git_commit": job.git_commit,
            **spending.cost,
            **spending.served,
            "events": context.events,
            **facts,
        }
        checked = Manifest.from_json(manifest, context.artifact / "manifest.json")
        workspace.commit(checked.kind, checked.digest, checked)


def _machine(job: Job) -> Machine:
    """The machine that did a job; with a peak of GPU memory come the fields that it hung on."""
    found = provenance.machine(job.device)
    return found if found.gpu_peak_bytes is None else found.changed(neutral=_neutral(job))


def _neutral(job: Job) -> dict[str, Any]:
    """The fields of a trainer or engine that change no output, and so are in no key, but the memory that it takes."""
    if not isinstance(job.work, ToTrain | ToSample):
        return {}
    block = job.work.plugin
    keyed = job.settings.get(block.kind, {}).get("config", {})
    return {name: value for name, value in block.config.items() if name not in keyed}


@contextlib.contextmanager
def redirected(log: Path) -> Iterator[None]:
    """Send everything printed, by C libraries too, to the stage's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for descriptor in kept:
            os.close(descriptor)


def watch_parent() -> None:
    """End this process soon after the process named in NSD_PARENT_PID is gone."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None:
        return

    def watch() -> None:
        while True:
            try:
                os.kill(int(parent), 0)
            except ProcessLookupError:
                os._exit(1)
            time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()


def leave_group() -> None:
    """Take this process out of the group that trained together.

    Left to the end of the interpreter, gloo's threads now and then abort a process that has done all its work
    ("terminate called without an active exception", pytorch issue 190489), and the launcher then stops the others.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        # The launcher kills the others soon after the first one ends, and one may still be writing a checkpoint.
        with contextlib.suppress(RuntimeError):
            distributed.barrier()
        distributed.destroy_process_group()


def main(arguments: list[str]) -> int:
    """Entry point; see the module's docstring."""
    collect_seldom()
    mode, *rest = arguments
    watch_parent()
    if mode == "--draw":
        number, descriptor = map(int, rest)
        os.set_inheritable(descriptor, False)  # the pipe ends with this process, whatever it starts
        with os.fdopen(descriptor, "w", encoding="utf-8") as events:
            return serve(Worker(events, number=number))
    if mode == "--job":
        with Path(rest[1]).open("w", encoding="utf-8") as events:
            worker = Worker(events)
            heed_signals(worker)
            status = worker.run(Path(rest[0]))
            if status in (0, INTERRUPTED):  # after a failure the others may still wait for this one in a collective
                leave_group()
            return status
    with Path(rest[0]).open("w", encoding="utf-8") as events:
        return serve(Worker(events, gpus=rest[1:]))


def serve(worker: Worker) -> int:
    """Do the jobs that standard input names: PATH, or PROCESSES PATH for who draws shares. Returns the exit code."""
    heed_signals(worker)
    try:
        for line in sys.stdin:
            if worker.number:
                processes, _, path = line.strip().partition(" ")
                status = INTERRUPTED if worker.stop.is_set() else worker.run(Path(path), int(processes))
            else:
                status = worker.run(Path(line.strip()))
            if status == INTERRUPTED or worker.stop.is_set():
                return INTERRUPTED
    finally:
        worker.team.retire()
        worker.ray.close()
    return 0


def heed_signals(worker: Worker) -> None:
    """Have SIGTERM and SIGINT stop a worker after its shard or step."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, worker.ask_to_stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
