"""What a stage may use of the world while it works: folders, engines, how to report, whether to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsd.plugins.api import Device, Engine, Question
from nsd.plugins.metering import Meter
from nsd.runner.store.stored import side_files_of, stored_questions
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.events import Event, Told
from nsd.runner.work.ray_machines import Connection, Over
from nsd.runner.work.team import Team


@dataclass
class Context:
    """What a stage may use of the world: its folders, how to report, whether to stop."""

    workspace: Workspace
    partial: Path
    emit: Callable[[Event], None]
    should_stop: Callable[[], bool]
    device: Device | None = None
    leader: bool = True  # false in every process but the first of a multi-process stage
    number: int = 0  # among the `processes` that draw a stage's completions
    processes: int = 1
    team: Team = field(default_factory=Team)
    over: Over | None = None  # how the run uses Ray, None where it does not
    ray: Connection = field(default_factory=Connection)
    computes_with: Callable[[int, int], None] = lambda processes, gpus: None  # told of processes that others started
    meter: Meter = field(default_factory=Meter)  # counts what a served model is asked
    keep_account: Callable[[], None] = lambda: None  # writes down what the stage has cost so far
    engines: dict[str, Engine] = field(default_factory=dict)  # kept between stages: a loaded model is costly
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def artifact(self) -> Path:
        """The folder that becomes the finished stage."""
        return self.partial / "artifact"

    def questions(self, content_hash: str) -> Sequence[Question]:
        """Questions of a split by their content hash."""
        return stored_questions(self.workspace.data_file(content_hash))

    def whole_questions(self, content_hash: str) -> Sequence[Question]:
        """The same for a plugin that may read their side files, all of which are looked at first.

        Raises BrokenSideFile: inside a verifier, which must not raise on any text, it could pass for a wrong answer.
        """
        for side in side_files_of(self.workspace.data_file(content_hash)):
            side.check()
        return self.questions(content_hash)

    def progress(self, done: int, total: int | None, unit: str, **more: Any) -> None:
        """Tell the person how far the stage is."""
        self.emit(Event(Told.PROGRESS, done=done, total=total, unit=unit, **more))

    def warn(self, text: str, spec_field: str = "", step: int | None = None) -> None:
        """Tell the person what is wrong, and keep it in the manifest."""
        self.events.append({"step": step, "text": text, "field": spec_field})
        self.emit(Event(Told.WARNING, text=text, field=spec_field, step=step))
