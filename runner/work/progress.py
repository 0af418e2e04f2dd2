"""Showing long work: a live table on a terminal, plain lines elsewhere.

`reporter(console)` picks one. Both get the same calls; the plain one prints a line when a stage starts,
at most one every ten seconds while it runs, and one at its end.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from nsd.plugins.screen import console
from nsd.plugins.untrusted import one_line
from nsd.plugins.words import duration
from nsd.runner.work.events import Event

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_INTERVAL_SECONDS = 10.0
SHOWN_METRICS = ("loss", "reward", "kl")


class Reporter(Protocol):
    """What the executor tells while it runs."""

    def start(self, title: str, size: str, number: int, of: int) -> None: ...
    def update(self, event: Event) -> None: ...
    def message(self, text: str) -> None: ...
    def end(self, outcome: str) -> None: ...


def describe(event: Event) -> str:
    """The rate or the metrics of a progress event."""
    if event.metrics is not None:
        return "  ".join(f"{name} {event.metrics[name]:.3g}" for name in SHOWN_METRICS if name in event.metrics)
    return f"{event.tokens_per_second} tokens/s" if event.tokens_per_second else ""


class PlainReporter:
    """Lines on standard error, for logs and pipes."""

    def __init__(self) -> None:
        self.title = ""
        self.started = self.last = 0.0
        self.resumed: int | None = None

    def _print(self, text: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(one_line(text), file=sys.stderr, flush=True)

    def start(self, title: str, size: str, number: int, of: int) -> None:
        self.title, self.started, self.last = title, time.monotonic(), time.monotonic()
        self.resumed = None
        self._print(f"[{number}/{of}] {title}: {size}")

    def update(self, event: Event) -> None:
        if self.resumed is None:  # what an earlier attempt had done is no part of this one's rate
            self.resumed = (event.done or 0) - 1 if event.resumed is None else event.resumed
        clock = time.monotonic()
        if clock - self.last < PLAIN_INTERVAL_SECONDS or not event.total:
            return
        self.last = clock
        done, total = event.done or 0, event.total
        rate = (done - self.resumed) / (clock - self.started)
        eta = f", {duration((total - done) / rate)} left" if rate > 0 else ""
        self._print(f"    {done}/{total} {event.unit}, {rate:.1f}/s{eta}  {describe(event)}".rstrip())

    def message(self, text: str) -> None:
        self._print(f"    {text}")

    def end(self, outcome: str) -> None:
        self._print(f"    {outcome} after {duration(time.monotonic() - self.started)}")


class LiveReporter:
    """One moving line for the stage at work, on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task: TaskID | None = None
        self.title = ""
        self.started = 0.0

    def start(self, title: str, size: str, number: int, of: int) -> None:
        self.title, self.started = f"[{number}/{of}] {title}", time.monotonic()
        self.task = self.progress.add_task(one_line(self.title), total=None, detail=one_line(size))

    def update(self, event: Event) -> None:
        assert self.task is not None
        detail = one_line(describe(event) or event.unit or "")
        self.progress.update(self.task, completed=event.done, total=event.total, detail=detail)

    def message(self, text: str) -> None:
        self.progress.console.print(f"    {text}", markup=False, highlight=False)

    def end(self, outcome: str) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None
        spent = duration(time.monotonic() - self.started)
        self.progress.console.print(f"{self.title}: {outcome}, {spent}", markup=False, highlight=False)


@contextlib.contextmanager
def reporter() -> Any:
    """The reporter that fits standard error."""
    if not sys.stderr.isatty():
        yield PlainReporter()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        yield LiveReporter(progress)
