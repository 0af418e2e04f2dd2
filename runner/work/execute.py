"""Runs the pending stages of a plan, one after another, and keeps the record of the experiment.

The executor itself loads no model: a worker process does the work (`nsd.runner.work.worker`), so a crash or an
out-of-memory kill of one stage is that stage's failure; arms that do not need it go on.

    outcome = execute(plan, workspace)      # outcome.exit_code: 0 done, 1 something failed, 75 interrupted

Everything finished is kept at every moment; the same call continues where the last one ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nsd.plugins.api import Device
from nsd.plugins.errors import Interrupted
from nsd.runner.plan.jobs import ToSample
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work import ranks
from nsd.runner.work.cores import threads_of_share
from nsd.runner.work.device import Decision, Settle
from nsd.runner.work.events import Event, Told
from nsd.runner.work.imports.storing import refuse_imported_name
from nsd.runner.work.jobs import worker_environment, write_data, write_job, write_side_files
from nsd.runner.work.nodes import Nodes, ray_address, training_command
from nsd.runner.work.progress import Reporter, reporter
from nsd.runner.work.ray_machines import Over, over_ray
from nsd.runner.work.ray_nodes import leading
from nsd.runner.work.record import Record
from nsd.runner.work.sync import Sync
from nsd.runner.work.truth import hold_against_truth, lacks_truth

RETIRE_SECONDS = 30.0  # an idle worker ends at once
STOP_GRACE_SECONDS = 300.0  # a large model's checkpoint takes its time; a second Ctrl-C ends the wait


@dataclass
class Failure:
    """A stage that could not be finished."""

    stage: Stage
    reason: str
    log: str


@dataclass
class Outcome:
    """What a run came to."""

    done: int = 0
    cached: int = 0
    failures: list[Failure] = field(default_factory=list)
    skipped: list[Stage] = field(default_factory=list)
    interrupted: bool = False
    stopped_by: str | None = None  # what interrupted it, where that was a spending limit

    @property
    def exit_code(self) -> int:
        """0 done, 1 the work failed, 75 interrupted and resumable."""
        if self.interrupted:
            return Interrupted.exit_code
        return 1 if self.failures else 0


def execute(
    plan: Plan,
    workspace: Workspace,
    sync: Sync | None = None,
    only: Collection[str] | None = None,
    ends_process: bool = False,
    settle: Settle | None = None,
) -> Outcome:
    """Run what is pending. Results are indexed as they come.

    `sync` keeps a bucket in step; `only` limits the work to these stages and those they need. `ends_process` says that
    the process ends after an interrupted call: SIGTERM, which Slurm sends twice, is ignored from then on. `settle`
    says on which device the stages that are owed compute, or raises; None leaves it to torch.
    """
    workspace.create()
    if sync is not None:
        sync.fetch()
    refuse_imported_name(workspace, plan.name)
    store = Store(workspace)
    record = Record(plan, workspace, store)
    record.save()
    pending = plan.pending(workspace)
    here = [stage for stage in plan.stages.values() if stage not in pending]
    finished = [(stage.kind, stage.digest) for stage in here]
    if only is not None:
        wanted = plan.with_causes(only)
        pending = [stage for stage in pending if stage.digest in wanted]
    decision = settle(pending) if settle is not None else None
    corrected = [stage for stage in plan.stages.values() if lacks_truth(stage, workspace)]
    for stage in corrected:
        if (said := hold_against_truth(stage, workspace)) is not None:
            print(said, file=sys.stderr)
    if unindexed := [*store.missing(finished), *((one.kind, one.digest) for one in corrected)]:
        store.index_stages(unindexed)
    outcome = Outcome(cached=len(finished))
    write_data(plan, workspace)
    if pending:
        write_side_files(plan, pending, workspace, *([] if sync is None else [sync.fetch_side_file]))
    if sync is not None:
        sync.push_data()
        if sent := sync.push_finished(here):
            print(f"sent to the store: {sent} stages that were finished here before", file=sys.stderr)
    if pending:
        nodes = Nodes.here()
        over = over_ray(plan.experiment.resources, decision, 1 if nodes is None else len(nodes.addresses))
        with reporter() as shown, _leading(over, plan, nodes), _Workers(ends_process, decision, nodes, over) as workers:
            _run_stages(plan, pending, workspace, store, record, shown, workers, outcome, sync)
    record.save({user: failure.reason for failure in outcome.failures for user in failure.stage.used_by})
    return outcome


def _run_stages(
    plan: Plan,
    pending: list[Stage],
    workspace: Workspace,
    store: Store,
    record: Record,
    shown: Reporter,
    workers: _Workers,
    outcome: Outcome,
    sync: Sync | None,
) -> None:
    lost: set[str] = set()
    waiting, put_off, number = deque(pending), set[str](), 0
    while waiting:
        stage = waiting.popleft()
        if _elsewhere(stage, workspace, put_off) or {one.digest for one in waiting} & set(stage.inputs.values()):
            put_off.add(stage.digest)
            waiting.append(stage)  # what it waits for stands before it
            continue
        number += 1
        if lost & set(stage.inputs.values()):
            lost.add(stage.digest)
            outcome.skipped.append(stage)
            continue
        shown.start(stage.title, stage.size, number, len(pending))
        if sync is not None and sync.begin(stage):
            shown.message("continuing from what the store has of this stage")
        job_path = write_job(plan, stage, workspace, workers.device, workers.over)
        event = workers.do(stage, job_path, shown)
        while event.event is Told.GONE:  # a run beside this one finished the stage, or dropped it, just then
            event = workers.do(stage, write_job(plan, stage, workspace, workers.device, workers.over), shown)
        if event.event is Told.FINISHED and (said := hold_against_truth(stage, workspace)) is not None:
            shown.message(said)
        if sync is not None:
            sync.end(stage)
            for message in sync.told():
                shown.message(message)
        if event.event is Told.FINISHED:
            outcome.done += 1
            store.index_stages([(stage.kind, stage.digest)])
            record.save()
            shown.end("done" if event.by is None else f"done by {event.by}")
        elif event.event is Told.INTERRUPTED:
            outcome.interrupted, outcome.stopped_by = True, event.reason
            shown.end(f"stopped: {event.reason}" if event.reason else "interrupted; the same command continues here")
            return
        else:
            lost.add(stage.digest)
            outcome.failures.append(Failure(stage, str(event.reason), str(event.log)))
            shown.end(f"FAILED: {event.reason}")
            shown.message(f"log: {event.log}")


def _leading(over: Over | None, plan: Plan, nodes: Nodes | None) -> contextlib.AbstractContextManager[None]:
    if nodes is None:
        return contextlib.nullcontext()
    return leading(over, ray_address(plan, nodes), nodes.addresses[nodes.rank])


def _elsewhere(stage: Stage, workspace: Workspace, put_off: Collection[str]) -> bool:
    """Whether a search is for later, because a run beside this one is at it: so several runs share the questions.

    A second time it is waited for.
    """
    return stage.kind == "discover" and stage.digest not in put_off and workspace.is_held(stage.kind, stage.digest)


class _Workers:
    """The serving worker of a run, started when first needed, and its events."""

    def __init__(
        self, ends_process: bool, decision: Decision | None, nodes: Nodes | None = None, over: Over | None = None
    ) -> None:
        self.ends_process, self.decision = ends_process, decision
        self.nodes, self.over = nodes, over
        self.process: subprocess.Popen[str] | None = None
        # GPUs that the serving worker sees, and those of the processes that draw beside it.
        self._serves: tuple[int, tuple[str, ...]] = (1, () if decision is None or over is not None else decision.beside)
        self.asked_to_stop = 0

    @property
    def device(self) -> Device | None:
        """What the stages are told of it."""
        return None if self.decision is None else self.decision.told

    def __enter__(self) -> _Workers:
        self._folder = tempfile.TemporaryDirectory(prefix="nsd-")
        self.events_path = Path(self._folder.name) / "events"
        os.mkfifo(self.events_path)
        # Opened for reading and writing so that it neither blocks nor ends when a worker goes away.
        self._descriptor = os.open(self.events_path, os.O_RDWR | os.O_NONBLOCK)
        self._buffer = b""
        self._handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            ending = self.ends_process and self.asked_to_stop and number == signal.SIGTERM
            signal.signal(number, signal.SIG_IGN if ending else handler)
        self._retire()
        os.close(self._descriptor)
        self._folder.cleanup()

    def _retire(self) -> None:
        """End the serving worker, if there is one, and wait until it is gone with all it holds."""
        if self.process is None:
            return
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=RETIRE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _on_signal(self, number: int, _: object) -> None:
        # Only a person asks twice (Ctrl-C) to be done at once; Slurm sends SIGTERM twice to say it once.
        if number == signal.SIGINT or not self.asked_to_stop:
            self.asked_to_stop += 1

    def do(self, stage: Stage, job_path: Path, shown: Reporter) -> Event:
        """Have a worker do the job; returns the event that ended it."""
        if self.asked_to_stop:
            return Event(Told.INTERRUPTED)
        processes = stage.processes
        together = processes > 1 or (self.nodes is not None and stage.kind == "train")
        if together:
            self._retire()  # its model holds the memory that the training wants
            ranks.forget_reasons(job_path.parent)
            command = training_command(stage, job_path, self.events_path, self.nodes)
            process = self._start(command, processes)
        else:
            wanted = sees, beside = self._wanted(stage)
            if self._serves != wanted:
                self._retire()
            if self.process is None or self.process.poll() is not None:
                command = [sys.executable, "-P", "-m", "nsd.runner.work.worker", "--serve", str(self.events_path)]
                self.process = self._start([*command, *beside], sees, serve=True, beside=len(beside))
                self._serves = wanted
            process = self.process
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it died just now: following it says how
                process.stdin.write(f"{job_path}\n")
                process.stdin.flush()
        log = job_path.with_name("log.txt")
        final = self._follow(process, shown, together)
        if together:
            process.wait()
            with contextlib.suppress(FileNotFoundError):  # of a finished stage the folder is gone, and nobody asks
                shutil.copyfile(self._launcher_log, job_path.with_name(ranks.LAUNCHER_LOG))
        if final is None and self.asked_to_stop:
            return Event(Told.INTERRUPTED)
        failed = final is None or final.event is Told.FAILED
        first = ranks.first_failure(job_path.parent, processes) if together and failed else None
        if first is not None:
            processes *= len(self.nodes.addresses) if self.nodes else 1
            return Event(Told.FAILED, stage.digest, reason=first.sentence(processes), log=str(first.log))
        if final is None:
            return Event(Told.FAILED, reason=ranks.death(process.returncode), log=str(log))
        return final

    @property
    def _launcher_log(self) -> Path:
        return Path(self._folder.name) / "worker.log"

    def _wanted(self, stage: Stage) -> tuple[int, tuple[str, ...]]:
        """What a stage wants of the serving worker: how many GPUs it sees, and the GPUs of those who draw beside it.

        An engine that spreads over all GPUs by itself sees all. Who shares the drawing shares the cores too, and a
        process keeps the threads that it began with: a training, which has every core, gets another.
        """
        if stage.kind in ("label", "score"):
            return self._serves  # it computes nothing, and what is loaded stays
        if self.decision is None or not isinstance(stage.job, ToSample):
            return 1, ()
        every = stage.job.uses_every_gpu or self.over is not None  # Ray gives each of its actors one of all
        return (self.decision.drawing, ()) if every else (1, self.decision.beside)

    def _gpus(self, processes: int) -> Sequence[str] | None:
        return None if self.decision is None else self.decision.ids[:processes]

    def _start(
        self, command: list[str], processes: int = 1, serve: bool = False, beside: int = 0
    ) -> subprocess.Popen[str]:
        # Those beside it inherit its threads.
        threads = threads_of_share(os.environ, 1 + beside) if beside else {}
        with self._launcher_log.open("ab" if serve else "wb") as log:
            # A session of its own: Ctrl-C reaches this process alone, which then asks the worker to stop.
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE if serve else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                env={**worker_environment(serve and not beside, self._gpus(processes)), **threads},
                start_new_session=True,
            )

    def _follow(self, process: subprocess.Popen[str], shown: Reporter, together: bool) -> Event | None:
        told, told_at = 0, 0.0
        while True:
            if self.asked_to_stop > told:
                told, told_at = self.asked_to_stop, time.monotonic()
                if told > 1:
                    process.kill()
                else:
                    ranks.ask_to_stop(process) if together else process.terminate()
                if told == 1:
                    shown.message("stopping: saving what there is (again to stop at once)")
            if told and time.monotonic() - told_at > STOP_GRACE_SECONDS:
                process.kill()
            alive = process.poll() is None
            for event in self._events(0.2 if alive else 0.0):
                if event.ends:
                    return event
                if event.event is Told.PROGRESS:
                    shown.update(event)
                elif event.event is Told.WARNING:
                    step = "" if event.step is None else f"step {event.step}: "
                    field = f" [{event.field}]" if event.field else ""
                    shown.message(f"warning: {step}{event.text}{field}")
                elif event.event is Told.WAITING:
                    shown.message("another run is at this stage; waiting for it")
            if not alive:
                return None

    def _events(self, timeout: float) -> Iterator[Event]:
        ready, _, _ = select.select([self._descriptor], [], [], timeout)
        while ready:
            with contextlib.suppress(BlockingIOError):
                self._buffer += os.read(self._descriptor, 1 << 16)
            ready, _, _ = select.select([self._descriptor], [], [], 0)
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            try:
                event = Event.from_json(json.loads(line))
            except ValueError:  # a killed worker's torn line
                continue
            yield event
