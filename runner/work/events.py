"""What a worker tells the run that started it, as JSON lines: how far a stage is, what is wrong, how it ended.

worker.emit(Event(Told.PROGRESS, done=3, total=8, unit="steps"))
Event.from_json({"event": "gone"}).ends          # True: nothing more will come of this job
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self


class Told(StrEnum):
    """Kinds of events."""

    STARTED = "started"
    WAITING = "waiting"  # another run is at this stage
    PROGRESS = "progress"
    WARNING = "warning"
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    GONE = "gone"  # the job was done, or dropped, by another run


@dataclass(frozen=True)
class Event:
    """One event; what its kind does not have is None.

    Progress has `done`, `total` and `unit`, and may have how much an earlier attempt had done (`resumed`), a rate, or
    metrics; a warning `text`, `step` and the `field` of the spec that it is about; a failure its `reason` and `log`.
    `by` says who else finished a stage.
    """

    event: Told
    digest: str | None = None
    done: int | None = None
    total: int | None = None
    unit: str | None = None
    resumed: int | None = None
    tokens_per_second: float | None = None
    metrics: dict[str, float] | None = None
    text: str | None = None
    step: int | None = None
    field: str | None = None
    seconds: float | None = None
    by: str | None = None
    reason: str | None = None
    log: str | None = None
    refused: bool | None = None

    @property
    def ends(self) -> bool:
        """Whether nothing more will come of its job."""
        return self.event in (Told.FINISHED, Told.FAILED, Told.INTERRUPTED, Told.GONE)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Raises ValueError for what is no event; fields of another version are passed over."""
        if not isinstance(found, dict):
            raise ValueError("an event is an object")
        known = {one.name for one in fields(cls)}
        given = {name: value for name, value in found.items() if name in known}
        given["event"] = Told(str(found.get("event")))
        return cls(**given)

    def to_json(self) -> dict[str, Any]:
        """The fields that it has."""
        return {name: value for name, value in asdict(self).items() if value is not None}
