"""Differences by a field of the questions, for people and machines.

    render_by_field(found, "table", console)

One table for each pair, with the interaction beneath; what it is worth is said once, last.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nsd.plugins.errors import InputError
from nsd.plugins.layout import Cell, lay_out, paragraph, show_lines, width_of
from nsd.plugins.untrusted import visible_json
from nsd.reports.judge.subgroups import ByField, by_field_notes
from nsd.reports.text.render import show, show_interval

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

FORMATS = ("table", "json")


def render_by_field(found: Sequence[ByField], output: str, console: Console, wide: bool = False) -> None:
    """Print in one of FORMATS. Raises InputError for another one."""
    if output not in FORMATS:
        raise InputError(f"no format {output!r} by a field: one of {', '.join(FORMATS)}")
    if output == "json":
        facts = {"note": "; ".join(by_field_notes(found)), "by_field": [one.to_json() for one in found]}
        console.file.write(visible_json(json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False)) + "\n")
        return
    width = width_of(console, wide)
    for one in found:
        title = (
            f"b = {one.b} against a = {one.a}: {one.metric} on {one.n} questions, b - a {show(one.difference, True)}"
        )
        show_lines(console, [*paragraph(title, width, 0), "", *_lines(one, width, wide), ""])
        show_lines(console, [*paragraph(one.sentence(), width), *paragraph(_about(one), width), ""])
    for note in by_field_notes(found):
        show_lines(console, paragraph(note, width))


def _about(one: ByField) -> str:
    """What the differences speak of, and the interaction, which is tested on questions alone."""
    tested = "; whether the groups differ is tested on questions alone and about these weights"
    return f"about {one.about}{tested if one.p is not None and 'recipe' in one.about else ''}"


def _lines(one: ByField, width: int | None, wide: bool) -> list[Text]:
    columns = [one.field, "n", "a", "b", "b - a", "interval", *(["test"] if wide else [])]
    rows = []
    for group in one.groups:
        means = (show(group.mean_a), show(group.mean_b), show(group.difference, True))
        cells = [group.name, str(group.n), *means, show_interval(group.ci, True), *([group.test] if wide else [])]
        rows.append([Cell(cell) for cell in cells])
    return lay_out(columns, rows, width, right=("n", "a", "b", "b - a"))
