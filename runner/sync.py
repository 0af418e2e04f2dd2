"""Keeps a run and a bucket in step, so that a machine that goes away takes nothing with it.

    sync = Sync(bucket, workspace, plan)
    sync.fetch()                                     # brings what the bucket has of this plan
    sync.begin(stage); ...; sync.end(stage)          # sends what a stage has, every PUSH_SECONDS and at its end

What a preempted machine had sent, the next one continues from: shards of completions, and the newest checkpoint of
a training. Limits: what was made since the last push is made again (the same, since every stage is seeded).
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from plugins.errors import NsdError
from runner.artifacts import Workspace, write_atomically
from runner.bucket import Bucket, patiently
from runner.plan import Plan, Stage

PUSH_SECONDS = float(os.environ.get("NSD_PUSH_SECONDS", "20"))
LOG_LINES = 30


class Sync:
    """The link between a run and its bucket."""

    def __init__(self, bucket: Bucket, workspace: Workspace, plan: Plan) -> None:
        self.bucket, self.workspace, self.plan = bucket, workspace, plan
        self.messages: list[str] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ before and after

    def fetch(self) -> int:
        """Bring finished stages of the plan, weights only where an unfinished stage needs them. Returns how many."""
        # When the claims were first recorded is known there, should this machine be a new one.
        name = self.plan.name
        self.bucket.fetch_missing(f"experiments/{name}", self.workspace.experiments / name)
        there = set(self.bucket.stages())
        unfinished = [
            stage
            for stage in self.plan.stages.values()
            if not self.workspace.is_whole(stage.kind, stage.digest) and (stage.kind, stage.digest) not in there
        ]
        needed = {digest for stage in unfinished for digest in stage.inputs.values()}
        return len(fetch_finished(self.bucket, self.workspace, self.plan, there, needed))

    def push_data(self) -> None:
        """Send the questions and the experiment's record."""
        for content_hash in self.plan.data:
            path = self.workspace.data / f"{content_hash}.parquet"
            if path.exists() and not self.bucket.has(f"data/{path.name}"):
                self.bucket.push_file(path, f"data/{path.name}")
        record = self.workspace.record_path(self.plan.name, self.plan.spec_digest)
        name = f"experiments/{self.plan.name}/{record.name}"
        held = self.bucket.read_json(name)  # the first one written has the date that counts, and `fetch` brought it
        if held is None or {run["run"] for run in held["runs"]} < {run["run"] for run in _runs_of(record)}:
            self.bucket.push_file(record, name)

    # ------------------------------------------------------------------ a stage

    def begin(self, stage: Stage) -> bool:
        """Bring what another machine has made of this stage and begin sending. Returns whether anything came."""
        try:
            came = self.bucket.fetch_partial(self.workspace, stage.kind, stage.digest)
        except NsdError as error:  # half a state is no reason to fail: the stage begins anew
            self._say(f"begun anew: {error}")
            came = False
        self._stop.clear()
        self._thread = threading.Thread(target=self._keep_pushing, args=(stage,), daemon=True)
        self._thread.start()
        return came

    def end(self, stage: Stage) -> None:
        """Send the rest: the finished stage, or where it stopped."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self.workspace.is_whole(stage.kind, stage.digest):
            patiently(lambda: self.bucket.push_stage(self.workspace, stage.kind, stage.digest), self._say)
        elif self.workspace.partial(stage.kind, stage.digest).is_dir():
            self.bucket.push_partial(self.workspace, stage.kind, stage.digest)

    def _keep_pushing(self, stage: Stage) -> None:
        while not self._stop.wait(PUSH_SECONDS):
            try:
                self.bucket.push_partial(self.workspace, stage.kind, stage.digest)
            except (NsdError, OSError) as error:  # a file that vanished meanwhile, or a store that is away for a while
                self._say(f"not sent for now: {error}")

    def _say(self, text: str) -> None:
        if text not in self.messages:
            self.messages.append(text)

    def told(self) -> list[str]:
        """What there is to tell a person, each once."""
        messages, self.messages = self.messages, []
        return messages


def fetch_finished(
    bucket: Bucket, workspace: Workspace, plan: Plan, there: Collection[tuple[str, str]], weights: Collection[str]
) -> list[Stage]:
    """Bring the stages of a plan that are `there` and not here, trainings in `weights` with their models."""
    found = []
    for stage in plan.stages.values():
        wanted = stage.kind == "train" and stage.digest in weights
        lacking = not workspace.is_whole(stage.kind, stage.digest)
        lacking |= wanted and not workspace.has_weights(stage.digest)
        if (
            lacking
            and (stage.kind, stage.digest) in there
            and bucket.fetch_stage(workspace, stage.kind, stage.digest, weights=wanted)
        ):
            found.append(stage)
    return found


def _runs_of(record: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(record.read_text(encoding="utf-8"))["runs"]
    return found


def leave_word(workspace: Workspace, bucket: Bucket | None, job: str, facts: dict[str, Any]) -> None:
    """Write down how a job of a launch ended, for who follows from afar: failures with the end of their logs."""
    for failure in facts["failures"]:
        log = Path(failure["log"])
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        failure["log_end"] = lines[-LOG_LINES:]
    path = workspace.root / "outcomes" / f"{job}.json"
    write_atomically(path, json.dumps(facts))
    if bucket is not None:
        bucket.push_file(path, f"outcomes/{job}.json")


def read_word(folder: Path, jobs: Iterable[str]) -> list[dict[str, Any]]:
    """What these jobs left in an `outcomes` folder."""
    return [json.loads(path.read_text()) for job in jobs if (path := folder / f"{job}.json").is_file()]
