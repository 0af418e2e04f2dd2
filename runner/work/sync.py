"""Keeps a run and a bucket in step, so that a machine that goes away takes nothing with it.

    sync = Sync(bucket, workspace, plan)
    sync.fetch()                                     # brings what the bucket has of this plan
    sync.push_finished(stages)                       # sends what was finished here before and is not there
    sync.begin(stage); ...; sync.end(stage)          # sends what a stage has, every PUSH_SECONDS and at its end

The next machine continues from what a preempted one had sent: shards of completions, and the newest checkpoint of a
training. Limits: work since the last push is done again (with the same outcome, since every stage is seeded).
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path

from nsd.plugins.api import SideFile
from nsd.plugins.durable import write_atomically
from nsd.plugins.errors import NsdError
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.plan.relatives import siblings
from nsd.runner.store.bucket import BrokenThere, Bucket, patiently
from nsd.runner.store.shapes import Broken, ExperimentRecord, Word, read_object
from nsd.runner.store.workspace import Workspace

PUSH_SECONDS = float(os.environ.get("NSD_PUSH_SECONDS", "20"))
LOG_LINES = 30


class Sync:
    """The link between a run and its bucket."""

    def __init__(self, bucket: Bucket, workspace: Workspace, plan: Plan) -> None:
        self.bucket, self.workspace, self.plan = bucket, workspace, plan
        self.messages: list[str] = []
        self._replaced: set[str] = set()  # stages that the bucket has broken
        self._there: set[tuple[str, str]] = set()  # stages that it had when `fetch` looked
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ before and after

    def fetch(self) -> int:
        """Bring finished stages of the plan, weights only where an unfinished stage needs them. Returns how many."""
        # When the claims were first recorded is known there, should this machine be a new one.
        name = self.plan.name
        self.bucket.fetch_records(self.workspace, name, self._say)
        self._there = there = set(self.bucket.stages())
        unfinished = [
            stage
            for stage in self.plan.stages.values()
            if not self.workspace.is_whole(stage.kind, stage.digest) and (stage.kind, stage.digest) not in there
        ]
        for stage in unfinished:
            if stage.kind == "sample":
                self._fetch_relative(stage, there)
        needed = {digest for stage in unfinished for digest in stage.inputs.values()}
        return len(fetch_finished(self.bucket, self.workspace, self.plan, there, needed, self._broken_there))

    def _fetch_relative(self, stage: Stage, there: Collection[tuple[str, str]]) -> None:
        """Bring the stage with most samples of the same streams; what can be had of it is not drawn again."""
        digest = next((one for one in siblings(stage.key) if ("sample", one) in there), None)
        if digest is not None:
            try:
                self.bucket.fetch_stage(self.workspace, "sample", digest)
            except NsdError as error:
                self._say(f"all samples are drawn: {error}")

    def _broken_there(self, stage: Stage, error: NsdError) -> None:
        self._say(f"made here again: {error}")
        self._replaced.add(stage.digest)

    def push_data(self) -> None:
        """Send the questions with their side files, and the experiment's record."""
        there = self.bucket.sizes("data")
        side = {one.sha256 for questions in self.plan.data.values() for q in questions for one in q.side_files.values()}
        for path in map(self.workspace.side_file, sorted(side)):
            if path.exists() and path.stat().st_size != there.get(path.name):
                self.bucket.push_file(path, f"data/{path.name}")
        for path in map(self.workspace.data_file, self.plan.data):
            if path.exists() and path.name not in there:
                self.bucket.push_file(path, f"data/{path.name}")
        record = self.workspace.record(self.plan.name, self.plan.spec_digest)
        path = self.workspace.record_path(self.plan.name, self.plan.spec_digest)
        try:  # the first one written has the date that counts, and `fetch` brought it
            held = self.bucket.record(self.plan.name, self.plan.spec_digest)
        except BrokenThere:
            held = None
        if record is not None and (held is None or _names(held) < _names(record)):
            self.bucket.push_file(path, f"experiments/{self.plan.name}/{path.name}")

    def push_finished(self, stages: Iterable[Stage]) -> int:
        """Send stages that were finished here and were not there for `fetch`, with their models. Returns how many.

        What is there is left as it is, also a training that came there without its model.
        """
        lacking = [stage for stage in stages if (stage.kind, stage.digest) not in self._there]
        for stage in lacking:
            patiently(partial(self.bucket.push_stage, self.workspace, stage.kind, stage.digest), self._say)
        return len(lacking)

    def fetch_side_file(self, wanted: SideFile) -> bool:
        """Bring a side file; False where the bucket does not have it whole."""
        path = self.workspace.side_file(wanted.sha256)
        try:
            return self.bucket.fetch_file(f"data/{path.name}", path, wanted.size, wanted.sha256)
        except BrokenThere as error:
            self._say(str(error))
            return False

    # ------------------------------------------------------------------ a stage

    def begin(self, stage: Stage) -> bool:
        """Bring what another machine has made of this stage and begin sending. Returns whether anything came."""
        try:
            came = self.bucket.fetch_partial(self.workspace, stage.kind, stage.digest)
        except NsdError as error:  # half a state is no reason to fail: the stage begins anew
            self._say(f"begun anew: {error}")
            came = False
            with contextlib.suppress(NsdError):
                self.bucket.forget_partial(stage.kind, stage.digest)
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
            replace = stage.digest in self._replaced
            patiently(
                lambda: self.bucket.push_stage(self.workspace, stage.kind, stage.digest, replace=replace), self._say
            )
            self._replaced.discard(stage.digest)
        elif self.workspace.partial(stage.kind, stage.digest).is_dir():
            try:
                self.bucket.push_partial(self.workspace, stage.kind, stage.digest)
            except (NsdError, OSError) as error:  # it stays here; how the stage ended matters more
                self._say(f"not sent: {error}")

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
        """Messages for a person, each given once."""
        messages, self.messages = self.messages, []
        return messages


def fetch_finished(
    bucket: Bucket,
    workspace: Workspace,
    plan: Plan,
    there: Collection[tuple[str, str]],
    weights: Collection[str],
    on_broken: Callable[[Stage, NsdError], None],
) -> list[Stage]:
    """Bring the stages of a plan that are `there` and not here, trainings in `weights` with their models.

    `on_broken` is told of a stage that the bucket has and that cannot be used; it is not brought.
    """
    found = []
    for stage in plan.stages.values():
        wanted = stage.kind == "train" and stage.digest in weights
        lacking = not workspace.is_whole(stage.kind, stage.digest)
        lacking |= wanted and not workspace.has_weights(stage.digest)
        if not lacking or (stage.kind, stage.digest) not in there:
            continue
        try:
            if bucket.fetch_stage(workspace, stage.kind, stage.digest, weights=wanted):
                found.append(stage)
        except BrokenThere as error:
            on_broken(stage, error)
    return found


def _names(record: ExperimentRecord) -> set[str]:
    return {run.run for run in record.runs}


def leave_word(workspace: Workspace, bucket: Bucket | None, job: str, word: Word) -> None:
    """Write down how a job of a launch ended, for who follows from afar: failures with the end of their logs."""
    failures = []
    for failure in word.failures:
        log = Path(failure.log)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        failures.append({**failure.to_json(), "log_end": lines[-LOG_LINES:]})
    path = workspace.outcome_path(job)
    write_atomically(path, json.dumps({**word.to_json(), "failures": failures}))
    if bucket is not None:
        bucket.push_file(path, f"outcomes/{job}.json")


def read_words(workspace: Workspace, jobs: Iterable[str]) -> list[Word]:
    """The last words of these jobs; a file that cannot be used is set aside."""
    found = []
    for path in map(workspace.outcome_path, jobs):
        try:
            if path.is_file():
                found.append(Word.from_json(read_object(path), path))
        except Broken as broken:
            workspace.set_aside(path, broken, "how that job ended is not known")
    return found
