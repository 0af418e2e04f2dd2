"""The log as lines of text."""

from __future__ import annotations

from nsd.plugins.untrusted import one_line
from nsd.reports.judge.log import LogEntry
from nsd.runner.store.shapes import Note


def lines_of(entry: LogEntry) -> list[str]:
    """An entry as lines of text: one with date, name, state and cost, the rest indented."""
    states = ", ".join(f"{count} {state}" for state, count in entry.counts.items())
    head = [day(entry.date), entry.experiment, (entry.spec_digest or "")[:8], "SMOKE" if entry.smoke else "", states]
    lines = ["  ".join(one_line(part) for part in [*head, describe_cost(entry)] if part)]
    details = [" ".join(entry.question.split()) if entry.question else "", entry.result()]
    details += [one.line() for one in (*entry.verdicts, *entry.late)]
    details += [f"FAILED: {run}: {reason}" for run, reason in entry.failures.items()]
    details += entry.remarks
    details += [note_line(note, entry) for note in entry.notes]
    return lines + [f"    {one_line(line)}" for line in details if line]


def describe_cost(entry: LogEntry) -> str:
    """Time, GPU hours, tokens and dollars, and how much of it no earlier entry had; "" where nothing is known."""
    if entry.cost is None or entry.spent is None or not entry.cost.stages:
        return ""
    if entry.spent.stages == entry.cost.stages:
        return entry.cost.describe()
    new = entry.spent.describe() if entry.spent.stages else "nothing"
    return f"{entry.cost.describe()} ({new} of it new here)"


def note_line(note: Note, entry: LogEntry) -> str:
    """A note with its day, and its run where it is not about the whole experiment."""
    about = "" if note.run == entry.experiment else f" on {note.run}"
    return f"note {day(note.written_at)}{about}: {note.text}"


def day(stamp: str) -> str:
    """An ISO time to the minute, as `nsd runs` shows it (UTC)."""
    return stamp[:16].replace("T", " ")
