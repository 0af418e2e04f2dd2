"""Comparisons as a table for people, as JSON, CSV or Markdown.

    render(comparisons, "md", console)

Names come from specs and imported files: they are shown as text, never as markup.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.plugins.layout import Cell, lay_out, paragraph, show_lines, width_of
from nsd.plugins.untrusted import visible, visible_json
from nsd.plugins.words import CORRECTIONS
from nsd.reports.judge.comparison import show_level
from nsd.reports.judge.readings import not_supported, others_of, readings_of
from nsd.reports.judge.verdict import Verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from nsd.reports.judge.comparison import Comparison

OTHER_READING = "The other reading, a family of its own"
FORMATS = ("table", "json", "md", "csv")
COLUMNS = (
    "a",
    "b",
    "n",
    "mean a",
    "mean b",
    "b - a",
    "interval",
    "test",
    "p",
    "adjusted",
    "chance",
    "a/b only",
    "verdict",
    "needs",
)
CSV_FIELDS = (
    *("a", "b", "metric", "n", "mean_a", "mean_b", "difference", "ci_low", "ci_high", "test", "p", "p_adjusted"),
    *("a_only_correct", "b_only_correct", "verdict", "claim", "paired", "interval", "level", "correction", "family"),
    *(
        "unmatched_a",
        "unmatched_b",
        "chance",
        "detectable",
        "needed_n",
        "needed_seeds",
        "needed_paired",
        "forced",
        "note",
    ),
)


def render(comparisons: Sequence[Comparison], output: str, console: Console, wide: bool = False) -> None:
    """Print comparisons in one of FORMATS. Machine formats go out as they are, whatever the console's width.

    A table fits the console; with `wide` it has every column, however long its lines become.
    """
    check_format(output)
    if output == "table":
        _print_table(comparisons, console, wide)
    else:
        console.file.write(visible({"json": as_json, "md": as_markdown, "csv": as_csv}[output](comparisons)))


def check_format(output: str) -> None:
    """Raises InputError for what is none of FORMATS."""
    if output not in FORMATS:
        raise InputError(f"no format {output!r}: one of {', '.join(FORMATS)}")


def as_json(comparisons: Sequence[Comparison]) -> str:
    """`{"comparisons": [...]}`; numbers are never nan or infinite."""
    found = {"comparisons": [comparison.to_json() for comparison in comparisons]}
    return visible_json(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """One line a comparison; pairs of numbers as two columns, unknown values empty.

    A comparison's other reading is a line of its own, below all of them: `claim` is what a line speaks of.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, (*CSV_FIELDS, "other_reading"), lineterminator="\n")
    writer.writeheader()
    for other, lines in ((False, comparisons), (True, others_of(comparisons))):
        for comparison in lines:
            writer.writerow({**csv_row(comparison), "other_reading": other})
    return buffer.getvalue()


def csv_row(comparison: Comparison) -> dict[str, Any]:
    """The CSV_FIELDS of a comparison."""
    row: dict[str, Any] = vars(comparison).copy()
    row["ci_low"], row["ci_high"] = comparison.ci or (None, None)
    row["a_only_correct"], row["b_only_correct"] = comparison.discordant or (None, None)
    row["unmatched_a"], row["unmatched_b"] = comparison.unmatched
    row["chance"] = None if comparison.chance is None else comparison.chance.share
    row["note"] = "; ".join(filter(None, (comparison.note, *comparison.remarks)))
    return {field: row[field] for field in CSV_FIELDS}


def as_markdown(comparisons: Sequence[Comparison]) -> str:
    """A GitHub table to paste, the notes below it."""
    lines = comparison_table(comparisons)
    if comparisons:
        lines += ["", *family_lines(comparisons)]
        lines += [f"- {escaped(line)}" for line in footnotes(comparisons)]
        if others := others_of(comparisons):
            lines += ["", f"{OTHER_READING}: {readings_of(others)}", "", *comparison_table(others), ""]
            lines += [*family_lines(others)[:1], *(f"- {escaped(line)}" for line in footnotes(others))]
        lines += [f"- {escaped(what)}"] if (what := not_supported(comparisons)) else []
    return "\n".join(lines) + "\n"


def comparison_table(comparisons: Sequence[Comparison]) -> list[str]:
    """The lines of a Markdown table with one comparison a row."""
    rows = [[escaped(cell) if i < 2 else cell for i, cell in enumerate(_cells(one))] for one in comparisons]
    return markdown_table(COLUMNS, rows)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; cells are taken as they are."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


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
    from nsd.reports.judge.comparison import show_p

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
        show_chance(comparison),
        "-" if comparison.discordant is None else "{} / {}".format(*comparison.discordant),
        comparison.verdict,
        needs(comparison),
    ]


def show_chance(comparison: Comparison) -> str:
    """The chance that b beats a, "-" where there is none."""
    return "-" if comparison.chance is None else f"{comparison.chance.share:.3f}"


def chance_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """What the chance is of, and on which prior it rests, each once."""
    lines = []
    for one in comparisons:
        if one.chance is not None:
            more = f" by more than {one.chance.margin:g}" if one.chance.margin else ""
            lines.append(f"chance: that b beats a{more}, given the data; {one.chance.prior}")
    return list(dict.fromkeys(lines))


def needs(comparison: Comparison) -> str:
    """What an unresolved comparison still needs, in a few letters, and what it could have found."""
    from nsd.reports.judge.comparison import amount

    if comparison.verdict.resolved:
        return ""
    parts = []
    if comparison.needed_seeds is not None:
        parts.append(f"{comparison.needed_seeds} seeds")
    if comparison.needed_n is not None:
        parts.append(f"n {comparison.needed_n}")
    if comparison.needed_paired is not None:
        parts.append(f"paired {comparison.needed_paired}")
    if comparison.detectable is not None:
        found = "margin" if comparison.finds_margin else "finds"
        parts.append(f"{found} {amount(comparison.detectable, comparison.metric).split()[0]}")
    return ", ".join(parts)


def _print_table(comparisons: Sequence[Comparison], console: Console, wide: bool) -> None:
    arms: dict[tuple[str, int], list[str]] = {}
    for comparison in comparisons:
        for name, mean, limits, n in (
            (comparison.a, comparison.mean_a, comparison.ci_a, comparison.n_a),
            (comparison.b, comparison.mean_b, comparison.ci_b, comparison.n_b),
        ):
            arms.setdefault((name, n), [name, show(mean), show_interval(limits), str(n)])
    width = width_of(console, wide)
    show_lines(console, [*paragraph(outcome(comparisons), width, 0), ""])
    show_lines(console, [*pairs_lines(comparisons, width, wide=wide), ""])
    said = family_lines(comparisons) if wide else short_lines(comparisons)
    for line in [*said, *(f"- {line}" for line in footnotes(comparisons))]:
        show_lines(console, paragraph(line, width))
    if others := others_of(comparisons):
        title = f"{OTHER_READING}: {readings_of(others)}"
        show_lines(console, ["", *paragraph(title, width, 0), "", *pairs_lines(others, width, wide=wide), ""])
        for line in [*short_lines(others)[:2], *(f"- {line}" for line in footnotes(others))]:
            show_lines(console, paragraph(line, width))
    if what := not_supported(comparisons):
        show_lines(console, paragraph(what, width))
    rows = [[Cell(cell) for cell in row] for row in arms.values()]
    show_lines(console, ["", *lay_out(("run", "mean", "interval", "n"), rows, width, right=("mean", "interval", "n"))])


def outcome(comparisons: Sequence[Comparison]) -> str:
    """The outcome in a sentence."""
    if len(comparisons) == 1:
        return comparisons[0].sentence()
    apart = sum(one.verdict.apart for one in comparisons)
    same = sum(one.verdict is Verdict.EQUIVALENT for one in comparisons)
    equal = f", {same} {'is' if same == 1 else 'are'} equivalent" if same else ""
    rest = len(comparisons) - apart - same
    return (
        f"Of {len(comparisons)} pairs {apart} {'differs' if apart == 1 else 'differ'}{equal}, "
        f"{rest} {'is' if rest == 1 else 'are'} not told apart."
    )


def pairs_lines(
    comparisons: Sequence[Comparison], width: int | None, prefix: str = "", wide: bool = False
) -> list[Text]:
    """Comparisons, one a row, for the screen; `prefix` is left off the runs' names. With `wide` every column."""
    from nsd.reports.judge.comparison import show_p

    if wide:
        numeric = ("n", "mean a", "mean b", "b - a", "p", "adjusted", "chance")
        rows = []
        for one in comparisons:
            cells = [Cell(cell.removeprefix(prefix) if i < 2 else cell) for i, cell in enumerate(_cells(one))]
            rows.append([*cells[:-2], Cell(one.verdict, one.verdict.style), cells[-1]])
        return lay_out(COLUMNS, rows, None, right=numeric)
    rows = [
        [
            Cell(f"{one.b.removeprefix(prefix)} against {one.a.removeprefix(prefix)}"),
            verdict_cell(one.verdict, one.verdict.style),
            difference_cell(one),
            Cell(show_p(one.p_adjusted)),
        ]
        for one in comparisons
    ]
    return lay_out(("pair", "verdict", "difference [interval]", "adjusted p"), rows, width, right=("adjusted p",))


def verdict_cell(verdict: Verdict, style: str, marked: bool = False) -> Cell:
    """A verdict with its mark; a star where a note says that it is exploratory."""
    return Cell(f"{verdict.mark} {verdict}{' *' if marked else ''}", style)


def difference_cell(one: Comparison) -> Cell:
    """The difference and its interval, whose level `levels_line` tells."""
    if one.difference is None:
        return Cell("-")
    return Cell(f"{show(one.difference, signed=True)} {show_interval(one.ci, signed=True)}")


def levels_line(comparisons: Sequence[Comparison]) -> str:
    """At which level the intervals are, and why; "" where there is none."""
    levels = sorted({one.level for one in comparisons if one.ci is not None})
    if not levels:
        return ""
    span = " to ".join(dict.fromkeys(map(show_level, (levels[0], levels[-1]))))
    first = comparisons[0]
    how = "unadjusted, each on its own"
    if first.intervals == "bonferroni":
        how = "at the Bonferroni level, all of them at once"
    elif first.intervals == "corrected" and first.correction != "none":
        how = f"at the level that {CORRECTIONS[first.correction]} leaves each"
    return f"intervals {how}: {span}"


def plain_table(columns: Mapping[str, str]) -> Table:
    """An empty table; the columns' sides are "left" or "right"."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False)
    for name, side in columns.items():
        table.add_column(name, justify="right" if side == "right" else "left", overflow="fold")
    return table


def family_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """How p was adjusted and over how many tests, and why which test was taken."""
    if not comparisons:
        return []
    first = comparisons[0]
    size = f"{first.family} comparison{'' if first.family == 1 else 's'}"
    adjusted = (
        f"p of {size} not adjusted for their number"
        if first.correction == "none"
        else f"p adjusted by {CORRECTIONS[first.correction]} over {size}"
    )
    metrics = ", ".join(dict.fromkeys(one.metric for one in comparisons))
    levels = levels_line(comparisons) or "no interval"
    lines = [f"{metrics}, of {readings_of(comparisons)}; {adjusted}; level {first.alpha:g}; {levels}"]
    lines += [*reasons(comparisons), *chance_lines(comparisons), *needs_lines(comparisons)]
    return [*lines, *attrition_lines(comparisons), *remark_lines(comparisons)]


def short_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """The same in as few lines as tell it: how p was adjusted, which tests, and what is missing."""
    if not comparisons:
        return []
    tests = ", ".join(dict.fromkeys(one.test for one in comparisons if one.difference is not None)) or "no test"
    return [
        *family_lines(comparisons)[:1],
        f"tests: {tests}",
        *attrition_lines(comparisons),
        *remark_lines(comparisons),
    ]


def needs_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """What the column `needs` means."""
    from nsd.reports.judge.metrics import UNITS
    from nsd.reports.judge.spread import ASSUMED_DISCORDANCE

    if not any(needs(one) for one in comparisons):
        return []
    unit = UNITS.get(comparisons[0].metric, "points")
    stated = dict.fromkeys(one.needed_for for one in comparisons if not one.finds_margin and one.needed_n is not None)
    said = [f"n: the questions with which {one} shows in 4 of 5 cases" for one in stated]
    if any(one.finds_margin for one in comparisons):
        said.append("for a claim with a margin: what shows a true difference of zero to lie within it")
    if any(one.needed_paired is not None for one in comparisons):
        said.append(f"paired: on the same questions in both, at {ASSUMED_DISCORDANCE:.0%} discordance")
    said.insert(0, f"needs: finds is the true difference, in {unit}, that the data at hand show in 4 of 5 cases")
    return ["; ".join([*said, "all at the level that the correction leaves"])]


def remark_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """What must be known of how runs were trained, once for each run."""
    return list(dict.fromkeys(remark for one in comparisons for remark in one.remarks))


def reasons(comparisons: Sequence[Comparison]) -> list[str]:
    """Each test used, with why it was chosen."""
    return list(dict.fromkeys(f"{one.test}: {one.because}" for one in comparisons if one.difference is not None))


def attrition_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """How far missing, truncated or failed answers could move any difference; [] where nothing is missing."""
    moved = [
        max(abs(bound - one.difference) for bound in one.bounds)
        for one in comparisons
        if one.bounds is not None and one.difference is not None
    ]
    if not moved:
        return []
    decided = sum(one.depends_on_missing for one in comparisons)
    so = f"{decided} of {len(comparisons)} verdicts depend on them" if decided else "no verdict depends on them"
    left_out = any(any(one.unmatched) for one in comparisons)
    rule = "failed answers score 0, truncated ones what their text scores"
    rule += ", questions that one run lacks are left out" if left_out else ""
    line = f"{rule}; this could have moved a difference by up to {max(moved) * 100:.1f} points: {so}"
    return [line, *_incomplete_lines(comparisons)]


def _incomplete_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """Runs that lack questions which others have, and how many at most; [] where all have the same."""
    lacking: dict[str, int] = {}
    for one in comparisons:
        for name, missing in ((one.a, one.unmatched[1]), (one.b, one.unmatched[0])):
            if missing:
                lacking[name] = max(missing, lacking.get(name, 0))
    named = [f"{name} lacks {count} questions that another run has" for name, count in sorted(lacking.items())]
    more = [f"and {len(named) - 5} more runs lack some"] if len(named) > 5 else []
    return ["; ".join([*named[:5], *more])] if named else []


def escaped(text: str) -> str:
    """Text without the characters that Markdown takes for tables, code, links, emphasis or HTML."""
    flat = " ".join(text.split())
    for character in "\\|`*<[":
        flat = flat.replace(character, "\\" + character)
    return flat
