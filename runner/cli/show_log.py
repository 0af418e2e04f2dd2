"""`nsd log`: the log on the screen, as JSON, or as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nsd.plugins.errors import InputError
from nsd.reports.judge.log import LogEntry, log_entries
from nsd.reports.text.log import lines_of
from nsd.runner.store.workspace import Workspace


def print_log(workspace: Workspace, pattern: str, limit: int | None, html: Path | None, as_json: bool) -> None:
    """The log on the screen, as JSON, or as one self-contained page."""
    from nsd.plugins.screen import console, print_json
    from nsd.reports.judge.looks import look_entries
    from nsd.runner.store.looks import record_looks

    entries = log_entries(workspace, pattern)[-(limit or 0) :]
    if as_json:
        print_json({"experiments": [entry.to_json() for entry in entries]})
    elif html is not None:
        write_page(entries, html)
        print(f"wrote {html}")
    else:
        screen = console()
        for entry in entries:
            for line in lines_of(entry):
                screen.print(line, soft_wrap=True)
    judged = [one.comparison for entry in entries for one in (*entry.verdicts, *entry.late)]
    record_looks(workspace, "log", look_entries([one for one in judged if one is not None]))


def write_page(entries: Sequence[LogEntry], path: Path) -> None:
    """Write the log as one HTML file that needs nothing else. Raises InputError where it cannot be written."""
    from nsd.reports.page.log import render_log

    text = render_log(entries)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
