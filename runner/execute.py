"""Runs the pending stages of a plan, one after another, and keeps the record of the experiment.

The executor itself loads no model: a worker process does the work (`runner.worker`), so a crash or an
out-of-memory kill of one stage is that stage's failure; arms that do not need it go on.

    outcome = execute(plan, workspace)      # outcome.exit_code: 0 done, 1 something failed, 75 interrupted

Everything finished is kept at every moment; the same call continues where the last one ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from plugins.errors import Interrupted
from runner import provenance, tables
from runner.artifacts import Workspace, now, write_atomically
from runner.plan import Plan, Stage
from runner.progress import Reporter, reporter
from runner.store import Store
from runner.worker import PARENT_VARIABLE

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

    @property
    def exit_code(self) -> int:
        """0 done, 1 the work failed, 75 interrupted and resumable."""
        if self.interrupted:
            return Interrupted.exit_code
        return 1 if self.failures else 0


def execute(plan: Plan, workspace: Workspace) -> Outcome:
    """Run what is pending. Results are indexed as they come."""
    workspace.create()
    store = Store(workspace)
    record = _Record(plan, workspace, store)
    record.save()
    pending = plan.pending(workspace)
    finished = [(s.kind, s.digest) for s in plan.stages.values() if s not in pending]
    if unindexed := store.missing(finished):
        store.index_stages(unindexed)
    outcome = Outcome(cached=len(finished))
    if pending:
        _write_data(plan, workspace)
        with reporter() as shown, _Workers(plan) as workers:
            _run_stages(plan, pending, workspace, store, record, shown, workers, outcome)
    record.conclude(outcome)
    return outcome


def _run_stages(
    plan: Plan,
    pending: list[Stage],
    workspace: Workspace,
    store: Store,
    record: _Record,
    shown: Reporter,
    workers: _Workers,
    outcome: Outcome,
) -> None:
    lost: set[str] = set()
    for number, stage in enumerate(pending, 1):
        if lost & set(stage.inputs.values()):
            lost.add(stage.digest)
            outcome.skipped.append(stage)
            continue
        shown.start(stage.title, stage.size, number, len(pending))
        job_path = _write_job(plan, stage, workspace)
        event = workers.do(stage, job_path, shown)
        if event["event"] == "finished":
            outcome.done += 1
            store.index_stages([(stage.kind, stage.digest)])
            record.save()
            shown.end("done" if "by" not in event else "done by another run")
        elif event["event"] == "interrupted":
            outcome.interrupted = True
            shown.end("interrupted; the same command continues here")
            return
        else:
            lost.add(stage.digest)
            outcome.failures.append(Failure(stage, event["reason"], event["log"]))
            shown.end(f"FAILED: {event['reason']}")
            shown.message(f"log: {event['log']}")


def _write_data(plan: Plan, workspace: Workspace) -> None:
    for content_hash, questions in plan.data.items():
        path = workspace.data / f"{content_hash}.parquet"
        if not path.exists():
            tables.write_questions(path, questions)


def _write_job(plan: Plan, stage: Stage, workspace: Workspace) -> Path:
    """Write what the worker reads. The path of an earlier attempt is reused with the same content."""
    job = {
        **stage.job,
        "kind": stage.kind,
        "digest": stage.digest,
        "key": stage.key,
        "inputs": stage.inputs,
        "used_by": stage.used_by,
        "experiment": plan.name,
        "workspace": str(workspace.root),
        "git_commit": provenance.git_state()["commit"],
    }
    path = workspace.partial(stage.kind, stage.digest) / "job.json"
    write_atomically(path, json.dumps(job, indent=1))
    return path


class _Record:
    """The experiment record on disk: written before the first result, updated as runs finish."""

    def __init__(self, plan: Plan, workspace: Workspace, store: Store) -> None:
        self.plan, self.workspace, self.store = plan, workspace, store
        self.path = workspace.record_path(plan.name, plan.spec_digest)
        experiment = plan.experiment
        hypotheses = experiment.hypotheses
        self.record: dict[str, Any] = {
            "experiment": plan.name,
            "spec_digest": plan.spec_digest,
            "question": experiment.question,
            "spec_path": experiment.path.name,
            "spec_yaml": experiment.text,
            "resolved": json.loads(json.dumps(experiment.resolved, default=str)),
            "hypotheses": hypotheses.to_json() if hypotheses else None,
            "recorded_at": now(),
            "git": provenance.git_state(),
            "packages": provenance.packages(),
            "runs": [],
        }
        if self.path.exists():
            held = json.loads(self.path.read_text(encoding="utf-8"))
            self.record["recorded_at"] = held["recorded_at"]
            self.record["runs"] = held["runs"]

    def save(self, failures: list[Failure] | None = None) -> None:
        """Bring every run's status up to date, on disk and in the index; touch nothing that did not change."""
        runs = {run["run"]: run for run in self.record["runs"]}
        failed = {user: failure.reason for failure in failures or [] for user in failure.stage.used_by}
        for planned in self.plan.runs:
            held = runs.get(planned.run, {})
            whole = self.workspace.is_whole("eval", planned.eval_digest)
            condition = planned.condition.split("@")[0]
            reason = failed.get(f"{condition}/seed{planned.seed}")
            status = "done" if whole else "failed" if reason else "pending"
            same = held.get("eval_digest") == planned.eval_digest
            runs[planned.run] = {
                "run": planned.run,
                "condition": planned.condition,
                "seed": planned.seed,
                "eval_digest": planned.eval_digest,
                "train_digest": planned.train_digest,
                "label_digest": planned.label_digest,
                "needs": self.plan.needs(planned.eval_digest),
                "status": status,
                "reason": None if whole else reason,
                "started_at": held.get("started_at") if same else now(),
                "ended_at": held.get("ended_at") if same and held.get("ended_at") else now() if whole else None,
            }
        self.record["runs"] = list(runs.values())
        text = json.dumps(self.record, indent=1)
        if not self.path.exists() or self.path.read_text(encoding="utf-8") != text:
            write_atomically(self.path, text)
        # Indexed even where the file is unchanged: the database may have been deleted since.
        self.store.index_record(self.record)

    def conclude(self, outcome: Outcome) -> None:
        """Note failures of this invocation."""
        self.save(outcome.failures)


class _Workers:
    """The serving worker of a run, started when first needed, and its events."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.process: subprocess.Popen[str] | None = None
        self.asked_to_stop = 0
        self._reader: IO[str] | None = None

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
            signal.signal(number, handler)
        if self.process is not None:
            assert self.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        os.close(self._descriptor)
        self._folder.cleanup()

    def _on_signal(self, *_: object) -> None:
        self.asked_to_stop += 1

    def do(self, stage: Stage, job_path: Path, shown: Reporter) -> dict[str, Any]:
        """Have a worker do the job; returns the event that ended it."""
        if self.asked_to_stop:
            return {"event": "interrupted"}
        processes = stage.job.get("processes", 1)
        if processes > 1:
            process = self._start(
                [
                    *(sys.executable, "-m", "accelerate.commands.launch", *launch_flags(processes)),
                    *("-m", "runner.worker", "--job", str(job_path), str(self.events_path)),
                ]
            )
        else:
            if self.process is None or self.process.poll() is not None:
                self.process = self._start(
                    [sys.executable, "-m", "runner.worker", "--serve", str(self.events_path)], serve=True
                )
            process = self.process
            assert process.stdin is not None
            process.stdin.write(f"{job_path}\n")
            process.stdin.flush()
        log = job_path.with_name("log.txt")
        final = self._follow(process, shown)
        if final is None:
            if self.asked_to_stop:
                return {"event": "interrupted"}
            return {"event": "failed", "reason": _death(process), "log": str(log)}
        if processes > 1:
            process.wait()
        return final

    def _start(self, command: list[str], serve: bool = False) -> subprocess.Popen[str]:
        environment = {**os.environ, PARENT_VARIABLE: str(os.getpid()), "TOKENIZERS_PARALLELISM": "false"}
        if not _has_gpu():
            environment["ACCELERATE_USE_CPU"] = "true"
        log = (Path(self._folder.name) / "worker.log").open("ab")
        with log:
            # A session of its own: Ctrl-C reaches this process alone, which then asks the worker to stop.
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE if serve else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                env=environment,
                start_new_session=True,
            )

    def _follow(self, process: subprocess.Popen[str], shown: Reporter) -> dict[str, Any] | None:
        told, told_at = 0, 0.0
        while True:
            if self.asked_to_stop > told:
                told, told_at = self.asked_to_stop, time.monotonic()
                process.kill() if told > 1 else process.terminate()
                if told == 1:
                    shown.message("stopping: saving what there is (again to stop at once)")
            if told and time.monotonic() - told_at > STOP_GRACE_SECONDS:
                process.kill()
            alive = process.poll() is None
            for event in self._events(0.2 if alive else 0.0):
                if event["event"] in ("finished", "failed", "interrupted"):
                    return event
                if event["event"] == "progress":
                    shown.update(event)
                elif event["event"] == "warning":
                    shown.message(f"warning: {event['text']}" + (f" [{event['field']}]" if event["field"] else ""))
                elif event["event"] == "waiting":
                    shown.message("another run is at this stage; waiting for it")
            if not alive:
                return None

    def _events(self, timeout: float) -> Iterator[dict[str, Any]]:
        ready, _, _ = select.select([self._descriptor], [], [], timeout)
        while ready:
            with contextlib.suppress(BlockingIOError):
                self._buffer += os.read(self._descriptor, 1 << 16)
            ready, _, _ = select.select([self._descriptor], [], [], 0)
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):  # a killed worker's torn line
                yield json.loads(line)


def launch_flags(processes: int) -> list[str]:
    """Flags of `accelerate launch` for this many processes on this machine.

    `--multi_gpu` is what makes it start that many, on CPU too: there ACCELERATE_USE_CPU moves them off the GPU path.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    flags = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--main_process_port", port]
    return [*flags, "--mixed_precision", "no", "--dynamo_backend", "no"]


def _has_gpu() -> bool:
    # Asking torch would load it; the driver's device files tell as well.
    return Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists()


def _death(process: subprocess.Popen[str]) -> str:
    code = process.returncode
    if code == -signal.SIGKILL:
        return "the worker was killed (SIGKILL): most often the machine ran out of memory"
    if code is not None and code < 0:
        return f"the worker died of {signal.Signals(-code).name}"
    return f"the worker ended with exit code {code} before it could say why"
