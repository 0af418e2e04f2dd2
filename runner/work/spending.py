"""The cost of a stage under way, kept in its `begun.json` so that no way to die loses it.

    with Spending(partial) as spending: ...                 # a second's worth is the most that a kill -9 takes
    spending.seconds, spending.gpu_seconds, spending.cost   # of this attempt and of all before it

Every attempt adds to the file: those that failed, were stopped or killed, and those of other machines, which send their
file through the store. GPU seconds are those of every GPU that an attempt had; dollars come from the price of its
machine, and where a served model is asked also from what `meter` counts: a kill leaves the requests in flight as
perhaps paid. Limits: the last seconds of a machine that
vanishes, not yet sent to the store, are unknown elsewhere.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from nsd.plugins.metering import Meter, Usage
from nsd.runner.store import provenance
from nsd.runner.store.shapes import Broken, read_object
from nsd.runner.store.workspace import Workspace, now
from nsd.runner.work.jobs import Asker

FILE = "begun.json"
WRITE_SECONDS = 1.0


class Spending:
    """The clock of one attempt; it writes from entering to leaving. `started_at` is the first attempt's.

    `processes` share its work on this machine, each with as many GPUs as this one sees.
    """

    def __init__(self, partial: Path, processes: int = 1) -> None:
        self.path = partial / FILE
        self._processes = processes
        self.actors = self._actors_gpus = 0
        held = _read(self.path)
        self.resumed = held is not None
        self.held = held or {}
        self.started_at: str = self.held.get("started_at") or now()
        self.versions: dict[str, str] = self.held.get("versions") or {}
        self._before = {name: float(self.held.get(name) or 0.0) for name in ("spent_seconds", "gpu_seconds", "usd")}
        self._priced = "usd" in self.held
        self.meter = Meter(Usage.from_json(self.held.get("served") or {}))
        self._clock: float | None = None
        self._ended: float | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep_writing, daemon=True)

    def __enter__(self) -> Spending:
        self._clock = time.monotonic()
        self.write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = time.monotonic()
        self._stop.set()
        self._thread.join()
        self.write()

    def computes_with(self, actors: int, gpus: int) -> None:
        """Count the GPUs of processes that Ray keeps, on whichever machines, for the whole of this attempt."""
        self.actors, self._actors_gpus = actors, gpus

    @property
    def _here(self) -> float:
        """Seconds of this attempt."""
        if self._clock is None:
            return 0.0
        return (self._ended or time.monotonic()) - self._clock

    @property
    def seconds(self) -> float:
        """Seconds of all attempts."""
        return self._before["spent_seconds"] + self._here

    @property
    def gpu_seconds(self) -> float:
        """GPU seconds of all attempts; each counts the GPUs that it had."""
        gpus = provenance.gpu_count() * self._processes * provenance.machines()
        return self._before["gpu_seconds"] + self._here * max(gpus, self._actors_gpus)

    @property
    def cost(self) -> dict[str, Any]:
        """The manifest's `cost`: a price per hour that gives the dollars of all attempts; {} where none had a price.

        Where a served model was paid, also the dollars of machine and model together, which count for the whole.
        """
        price, served = provenance.usd_per_hour(), self.meter.total.usd
        facts: dict[str, float | None] = {}
        if price is not None or self._priced:
            facts["usd_per_hour"] = price if self.seconds == 0 else self._usd * 3600 / self.seconds
        if served is not None:
            facts["usd"] = self._usd + served
        return {"cost": facts} if facts else {}

    @property
    def served(self) -> dict[str, Any]:
        """The manifest's `served`: what a served model was asked in all attempts; {} where none was."""
        total = self.meter.total
        return {"served": {**total.to_json(), "reproducible": False}} if total.requests else {}

    @property
    def _usd(self) -> float:
        return self._before["usd"] + self._here / 3600 * (provenance.usd_per_hour() or 0.0)

    def write(self) -> None:
        """Bring the file up to date. A reader sees the old or the new, and a full disk is no reason to fail."""
        facts: dict[str, Any] = {
            "started_at": self.started_at,
            "spent_seconds": self.seconds,
            "gpu_seconds": self.gpu_seconds,
            "versions": self.versions,
        }
        if self._priced or provenance.usd_per_hour() is not None:
            facts["usd"] = self._usd
        if (asked := self.meter.perhaps).requests:
            facts["served"] = asked.to_json()
        temporary = self.path.with_name(f".{FILE}.{os.getpid()}.tmp")
        with self._lock:
            try:
                temporary.write_text(json.dumps(facts), encoding="utf-8")
                temporary.replace(self.path)
            except OSError as error:
                print(f"what this stage has cost so far cannot be written: {error}")

    def _keep_writing(self) -> None:
        while not self._stop.wait(WRITE_SECONDS):
            self.write()


def _read(path: Path) -> dict[str, Any] | None:
    """What the attempts before left, None where there was none or their file is broken."""
    try:
        found = read_object(path)
        for name in ("spent_seconds", "gpu_seconds", "usd"):
            if float(found.get(name) or 0.0) < 0:
                return None
        Usage.from_json(found.get("served") or {})
        if found.get("started_at"):
            datetime.fromisoformat(found["started_at"])
        versions = found.get("versions") or {}
        if not isinstance(versions, dict) or not all(isinstance(one, str) for one in versions.values()):
            return None
    except (Broken, ValueError, TypeError, AttributeError, OverflowError):
        return None
    return found


def versions_of(partial: Path) -> dict[str, str]:
    """The packages that shape results, as the stage in this folder was begun with them; {} where nobody knows."""
    return dict((_read(partial / FILE) or {}).get("versions") or {})


def spent_on(stages: Sequence[Asker], workspace: Workspace) -> float:
    """Dollars that these stages have spent on served models, finished or not; unknown ones at their most."""
    return sum(_usage(workspace, one).usd_at_most for one in stages)


def _usage(workspace: Workspace, stage: Asker) -> Usage:
    if workspace.is_whole(stage.kind, stage.digest):
        served = workspace.manifest(stage.kind, stage.digest).served
        return Usage() if served is None else served.usage
    return Usage.from_json((_read(workspace.partial(stage.kind, stage.digest) / FILE) or {}).get("served") or {})
