"""Many runs at a glance: differences of all pairs as a matrix, runs ordered by their means.

    render_matrix(comparisons, "table", console)

A cell is the row's mean less the column's, in points (or the metric's own unit); `*` marks a difference that the
adjusted p shows, `=` equivalence within the margin asked for. From `WIDE` runs on the screen shows signs instead of
numbers: + and - for differences shown, a dot where none is; csv and md have the numbers always. `rank` is the band of
ranks that a run may have (judge/ranks.py), where every pair of three runs or more is there.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsd.plugins.layout import Cell, lay_out, show_lines
from nsd.plugins.untrusted import visible, visible_json
from nsd.reports.judge.comparison import Comparison
from nsd.reports.judge.metrics import UNITS
from nsd.reports.judge.ranks import RankBand, rank_bands, says_ranks
from nsd.reports.judge.verdict import Verdict
from nsd.reports.text.render import escaped, family_lines, markdown_table, plain_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WIDE = 12
UNLIMITED = 100_000  # columns, for asking how wide a table would like to be


@dataclass(frozen=True)
class Matrix:
    """`runs` from the highest mean down, `means` beside them; `cells` [i][j] is run i against run j."""

    runs: list[str]
    means: list[float | None]
    cells: list[list[tuple[float, Verdict] | None]]  # difference, verdict of i against j
    bands: list[RankBand]  # of the runs in their order, [] where a pair is missing


def matrix_of(comparisons: Sequence[Comparison]) -> Matrix:
    """Arrange comparisons; a pair without a result is None."""
    means: dict[str, float | None] = {}
    held: dict[tuple[str, str], tuple[float, Verdict]] = {}
    for one in comparisons:
        for name, mean in ((one.a, one.mean_a), (one.b, one.mean_b)):
            # A mean is over the questions shared with the other run of a pair: the first full one is kept.
            means[name] = mean if means.get(name) is None else means[name]
        if one.difference is not None:
            held[one.b, one.a] = (one.difference, one.verdict)
            held[one.a, one.b] = (-one.difference, one.verdict.turned)
    runs = sorted(means, key=lambda name: (means[name] is None, -(means[name] or 0.0), name))
    cells = [[held.get((a, b)) for b in runs] for a in runs]
    return Matrix(runs, [means[name] for name in runs], cells, rank_bands(comparisons))


def render_matrix(comparisons: Sequence[Comparison], output: str, console: Console) -> None:
    """Print the matrix as table, md, csv or json."""
    made = matrix_of(comparisons)
    scale = 1.0 if comparisons and comparisons[0].metric in UNITS else 100.0
    unit = UNITS.get(comparisons[0].metric, "points") if comparisons else "points"
    if output == "json":
        pairs = [[None if c is None else {"difference": c[0], "verdict": c[1]} for c in row] for row in made.cells]
        facts = {"runs": made.runs, "means": made.means, "cells": pairs, "family": family_lines(comparisons)}
        facts["ranks"] = [[band.best, band.worst] for band in made.bands]
        console.file.write(visible_json(json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False)) + "\n")
        return
    numbers = [[_number(cell, scale) for cell in row] for row in made.cells]
    means = ["-" if mean is None else f"{mean * scale:.1f}" for mean in made.means]
    ranks = [band.says for band in made.bands] or ["-"] * len(made.runs)
    if output == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["run", "rank", "mean", *made.runs])
        for name, rank, mean, row in zip(made.runs, ranks, means, numbers, strict=True):
            writer.writerow([name, rank, mean, *row])
        console.file.write(visible(buffer.getvalue()))
        return
    legend = f"row less column in {unit}; * shown by the adjusted p, = equivalent within the margin"
    places = [says_ranks(made.bands, comparisons[0].alpha)] if made.bands else []
    if output == "md":
        body = [
            [escaped(name), rank, mean, *row]
            for name, rank, mean, row in zip(made.runs, ranks, means, numbers, strict=True)
        ]
        lines = markdown_table(["run", "rank", "mean", *map(escaped, made.runs)], body)
        said = [legend, *map(escaped, places), *family_lines(comparisons)]
        console.file.write(visible("\n".join([*lines, "", *said]) + "\n"))
        return
    from rich.measure import Measurement
    from rich.text import Text

    wide = len(made.runs) > WIDE
    keys = [str(number) for number in range(1, len(made.runs) + 1)]
    head = {"#": "right", "run": "left", "rank": "right", "mean": "right"}
    table = plain_table({**head, **dict.fromkeys(keys, "right")})
    if wide:
        table.padding = (0, 0, 0, 0)
        for column in table.columns[4:]:
            column.header = str(column.header)[-1]  # a digit is enough to count along
    for key, name, rank, mean, row, cells in zip(keys, made.runs, ranks, means, numbers, made.cells, strict=True):
        shown = [_sign(cell) for cell in cells] if wide else row
        table.add_row(*map(Text, [f"{key} ", f"{name} ", f"{rank} ", f"{mean} ", *shown]))
    fits = Measurement.get(console, console.options.update(max_width=UNLIMITED), table).maximum <= console.width
    if fits:
        console.print(table)
    else:
        shown_cells = [[_sign(cell) for cell in row] for row in made.cells] if wide else numbers
        heads = list(zip(made.runs, keys, ranks, means, strict=True))
        show_lines(console, _in_blocks(heads, shown_cells, console.width))
    signs = "row against column: + higher, - lower, . no difference shown, = equivalent within the margin"
    console.print(Text(signs if wide else legend))
    for line in (*places, *family_lines(comparisons)):
        console.print(Text(line))


def _number(cell: tuple[float, Verdict] | None, scale: float) -> str:
    if cell is None:
        return ""
    said = f"{cell[0] * scale:+.1f}"
    mark = "*" if cell[1].apart else "=" if cell[1] is Verdict.EQUIVALENT else ""
    return ("0.0" if said in ("+0.0", "-0.0") else said) + mark


def _sign(cell: tuple[float, Verdict] | None) -> str:
    if cell is None:
        return " "
    difference, verdict = cell
    if verdict.apart:
        return "+" if difference > 0 else "-"
    return "=" if verdict is Verdict.EQUIVALENT else "."


def _in_blocks(rows: Sequence[tuple[str, str, str, str]], cells: Sequence[Sequence[str]], width: int) -> list[Text]:
    """The lines of a matrix too wide for one table: as many columns at a time as fit, each with the runs again."""
    keys = [key for _, key, _, _ in rows]
    from rich.text import Text

    lines: list[Text] = []
    start = 0
    while start < len(keys):
        for stop in range(len(keys), start, -1):
            columns = ["run", "#", "rank", "mean", *keys[start:stop]]
            body = [[*map(Cell, row), *map(Cell, line[start:stop])] for row, line in zip(rows, cells, strict=True)]
            if stop == start + 1 or lay_out(columns, body, None)[1].cell_len <= width:
                break
        lines += [*lay_out(columns, body, width, columns[1:]), Text("")]
        start = stop
    return lines
