"""`nsd log`: the log on the screen, as JSON, or as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nsd.reports.judge.log import LogEntry, newest_entries
from nsd.reports.judge.log_results import keep_results
from nsd.reports.text.log import lines_of
from nsd.runner.cli.report import write_file
from nsd.runner.store.workspace import Workspace

ON_SCREEN = 20  # entries, unless another number is asked for: those that changed since the last time are judged


def print_log(workspace: Workspace, pattern: str, limit: int | None, html: Path | None, as_json: bool) -> None:
    """The log on the screen, as JSON, or as one self-contained page."""
    from nsd.plugins.screen import console, print_json
    from nsd.runner.store.looks import record_looks

    on_screen = not as_json and html is None
    log = newest_entries(workspace, pattern, limit or (ON_SCREEN if on_screen else None))
    entries = log.entries
    # Before anything is printed: a pipe that closes early, as of `head`, leaves no look unrecorded.
    if log.comparisons:
        from nsd.reports.judge.looks import look_entries

        record_looks(workspace, "log", look_entries(log.comparisons))
    keep_results(workspace, log.judged, log.causes)
    if as_json:
        print_json({"experiments": [entry.to_json() for entry in entries]})
    elif html is not None:
        write_page(entries, html)
        print(f"wrote {html}")
    else:
        screen = console()
        if log.older:
            more = log.older + len(entries)
            screen.print(f"{log.older} older, which nsd log --limit {more} would show too", soft_wrap=True)
        for entry in entries:
            for line in lines_of(entry):
                screen.print(line, soft_wrap=True)


def write_page(entries: Sequence[LogEntry], path: Path) -> None:
    """Write the log as one HTML file that needs nothing else. Raises InputError where it cannot be written."""
    from nsd.reports.page.log import render_log

    write_file(path, render_log(entries).encode())
