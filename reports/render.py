"""Comparisons as a table for people, as JSON, CSV or Markdown.

    render(comparisons, "md", console)

Names come from specs and imported files: they are shown as text, never as markup.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from plugins.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from reports.compare import Comparison

FORMATS = ("table", "json", "md", "csv")
COLUMNS = ("a", "b", "n", "mean a", "mean b", "b - a", "interval", "test", "p", "adjusted", "a/b only", "verdict")
CSV_FIELDS = (
    *("a", "b", "metric", "n", "mean_a", "mean_b", "difference", "ci_low", "ci_high", "test", "p", "p_adjusted"),
    *("a_only_correct", "b_only_correct", "verdict", "claim", "paired", "interval", "level", "correction", "family"),
    *("unmatched_a", "unmatched_b", "detectable", "needed_n", "needed_seeds", "forced", "note"),
)


def render(comparisons: Sequence[Comparison], output: str, console: Console) -> None:
    """Print comparisons in one of FORMATS. Machine formats go out as they are, whatever the console's width."""
    if output == "table":
        _print_table(comparisons, console)
    elif output in FORMATS:
        text = {"json": as_json, "md": as_markdown, "csv": as_csv}[output](comparisons)
        console.file.write(text)
    else:
        raise InputError(f"no format {output!r}: one of {', '.join(FORMATS)}")


def as_json(comparisons: Sequence[Comparison]) -> str:
    """`{"comparisons": [...]}`; numbers are never nan or infinite."""
    found = {"comparisons": [comparison.to_json() for comparison in comparisons]}
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """One line a comparison; pairs of numbers as two columns, unknown values empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_FIELDS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for comparison in comparisons:
        row: dict[str, Any] = vars(comparison).copy()
        row["ci_low"], row["ci_high"] = comparison.ci or (None, None)
        row["a_only_correct"], row["b_only_correct"] = comparison.discordant or (None, None)
        row["unmatched_a"], row["unmatched_b"] = comparison.unmatched
        writer.writerow(row)
    return buffer.getvalue()


def as_markdown(comparisons: Sequence[Comparison]) -> str:
    """A GitHub table to paste, the notes below it."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for comparison in comparisons:
        a, b, *numbers = _cells(comparison)
        lines.append("| " + " | ".join([_escaped(a), _escaped(b), *numbers]) + " |")
    if comparisons:
        lines += ["", *_family(comparisons)]
        lines += [f"- {_escaped(line)}" for line in footnotes(comparisons)]
    return "\n".join(lines) + "\n"


def footnotes(comparisons: Sequence[Comparison]) -> list[str]:
    """Notes, each once, with the pairs they belong to where not to all."""
    pairs: dict[str, list[str]] = {}
    for comparison in comparisons:
        if comparison.note:
            pairs.setdefault(comparison.note, []).append(f"{comparison.b} against {comparison.a}")
    lines = []
    for note, where in pairs.items():
        places = "" if len(where) == len(comparisons) > 1 else ", ".join(where[:3])
        more = f" and {len(where) - 3} more" if places and len(where) > 3 else ""
        lines.append(f"{places}{more}: {note}" if places else note)
    return lines


def show(value: float | None, signed: bool = False) -> str:
    """A share with four digits, "-" where there is none."""
    return "-" if value is None else f"{value:+.4f}" if signed else f"{value:.4f}"


def show_interval(limits: tuple[float, float] | None, signed: bool = False) -> str:
    """Limits in brackets, "-" where there are none."""
    return "-" if limits is None else f"[{show(limits[0], signed)}, {show(limits[1], signed)}]"


def _cells(comparison: Comparison) -> list[str]:
    from reports.compare import show_p

    n_a, n_b = comparison.n_a, comparison.n_b
    return [
        comparison.a,
        comparison.b,
        str(comparison.n) if n_a == n_b else f"{n_a}, {n_b}",
        show(comparison.mean_a),
        show(comparison.mean_b),
        show(comparison.difference, signed=True),
        show_interval(comparison.ci, signed=True),
        comparison.test,
        show_p(comparison.p),
        show_p(comparison.p_adjusted),
        "-" if comparison.discordant is None else "{} / {}".format(*comparison.discordant),
        comparison.verdict,
    ]


def _print_table(comparisons: Sequence[Comparison], console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    arms = Table(box=SIMPLE_HEAD, show_edge=False)
    for column in ("run", "mean", "interval", "n"):
        arms.add_column(column, justify="left" if column == "run" else "right")
    seen: dict[tuple[str, int], list[str]] = {}
    for comparison in comparisons:
        for name, mean, limits, n in (
            (comparison.a, comparison.mean_a, comparison.ci_a, comparison.n_a),
            (comparison.b, comparison.mean_b, comparison.ci_b, comparison.n_b),
        ):
            seen.setdefault((name, n), [name, show(mean), show_interval(limits), str(n)])
    for row in seen.values():
        arms.add_row(*map(Text, row))
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    for column in COLUMNS:
        numeric = column in ("n", "mean a", "mean b", "b - a", "p", "adjusted")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for comparison in comparisons:
        cells = [Text(cell) for cell in _cells(comparison)]
        cells[-1].stylize({"BETTER": "green", "WORSE": "red"}.get(comparison.verdict, ""))
        table.add_row(*cells)
    console.print(arms)
    console.print()
    console.print(table)
    console.print()
    if len(comparisons) == 1:
        console.print(Text(comparisons[0].sentence()))
    for line in _family(comparisons):
        console.print(Text(line))
    for line in footnotes(comparisons):
        console.print(Text(f"- {line}"))


def _family(comparisons: Sequence[Comparison]) -> list[str]:
    """How p was adjusted and over how many tests, and why which test was taken."""
    if not comparisons:
        return []
    first = comparisons[0]
    how = {"holm": "Holm", "bonferroni": "Bonferroni", "bh": "Benjamini-Hochberg"}.get(first.correction)
    size = f"{first.family} comparison{'' if first.family == 1 else 's'}"
    adjusted = f"p adjusted by {how} over {size}" if how else f"p of {size} not adjusted for their number"
    lines = [f"{first.metric}; {1 - first.alpha:.0%} intervals; {adjusted}; level {first.alpha:g}"]
    return lines + list(dict.fromkeys(f"{one.test}: {one.because}" for one in comparisons))


def _escaped(text: str) -> str:
    """Text without the characters that Markdown takes for tables, code, links, emphasis or HTML."""
    flat = " ".join(text.split())
    for character in "\\|`*<[":
        flat = flat.replace(character, "\\" + character)
    return flat
