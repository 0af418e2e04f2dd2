"""The log of experiments as one HTML page that needs nothing else: no script, no network.

    text = render_log(log_entries(workspace, "*"))

Every text is untrusted: control characters are written out, and the template engine escapes the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nsd.plugins.untrusted import one_line
from nsd.reports.judge.log import LogEntry
from nsd.reports.text.log import day, describe_cost, note_line

TEMPLATES = Path(__file__).parent / "templates"


def render_log(entries: Sequence[LogEntry]) -> str:
    """The page of these entries, in their order."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return environment.get_template("log.html").render(rows=[_row(entry) for entry in entries], style=Markup(style))


def _row(entry: LogEntry) -> dict[str, Any]:
    return {
        "date": day(entry.date),
        "experiment": one_line(entry.experiment),
        "kind": entry.kind,
        "digest": (entry.spec_digest or "")[:8],
        "smoke": entry.smoke,
        "states": entry.counts,
        "question": one_line(" ".join((entry.question or "").split())),
        "result": one_line(entry.result()),
        "claims": [(one.holds, one_line(one.line())) for one in (*entry.verdicts, *entry.late)],
        "failures": [one_line(f"{run}: {reason}") for run, reason in entry.failures.items()],
        "remarks": [one_line(remark) for remark in entry.remarks],
        "cost": describe_cost(entry),
        "notes": [one_line(note_line(note, entry)) for note in entry.notes],
    }
