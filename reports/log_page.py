"""The log of experiments as one HTML page that needs nothing else: no script, no network.

    text = render_log(rows)      # rows as runner.log makes them: plain strings, control characters escaped

Every text is untrusted and escaped by the template engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"


def render_log(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page. A row: date, experiment, kind, digest, smoke, states, question, result, claims, failures, remarks,
    cost, notes; `claims` are pairs (holds, line).
    """
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
    return environment.get_template("log.html").render(rows=rows, style=Markup(style))
