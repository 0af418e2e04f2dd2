"""An experiment's answer for people and machines: both families, their sizes, and every mark.

    render_answer(answer(connection, "quickstart"), "table", console)

Names come from specs and imported files: they are shown as text, never as markup.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nsd.plugins.layout import Cell, lay_out, paragraph, show_lines, width_of
from nsd.plugins.untrusted import visible, visible_json
from nsd.plugins.words import CORRECTIONS
from nsd.reports.judge.ranks import says_ranks
from nsd.reports.judge.readings import readings_of
from nsd.reports.text.render import (
    CSV_FIELDS,
    attrition_lines,
    chance_lines,
    check_format,
    comparison_table,
    csv_row,
    difference_cell,
    escaped,
    footnotes,
    levels_line,
    markdown_table,
    needs,
    needs_lines,
    pairs_lines,
    reasons,
    short_lines,
    show,
    show_chance,
    show_interval,
    verdict_cell,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from nsd.reports.judge.answer import Answer
    from nsd.reports.judge.hypotheses import ClaimVerdict


def render_answer(found: Answer, output: str, console: Console, wide: bool = False) -> None:
    """Print an answer in one of FORMATS. Machine formats go out as they are, whatever the console's width."""
    check_format(output)
    if output == "table":
        print_answer(found, console, wide=wide)
    else:
        console.file.write(visible({"json": answer_json, "md": answer_markdown, "csv": answer_csv}[output](found)))


def answer_json(found: Answer) -> str:
    """The answer's fields, and under `comparisons` every comparison behind it."""
    facts = {**found.to_json(), "comparisons": [one.to_json() for one in found.comparisons()]}
    return visible_json(json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def answer_csv(found: Answer) -> str:
    """A line a comparison, with its family (declared, late, exploratory), claim, verdict on the claim and mark.

    The claims in their other reading are the families `declared, other reading` and `late, other reading`: `claim` is
    what a line speaks of.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ("in_family", "claim_text", "mark", *CSV_FIELDS), lineterminator="\n")
    writer.writeheader()
    for kind, verdicts in (
        ("declared", found.verdicts),
        ("late", found.late),
        ("declared, other reading", found.other),
        ("late, other reading", found.late_other),
    ):
        for one in verdicts:
            row = csv_row(one.comparison) if one.comparison is not None else _csv_of(one)
            writer.writerow(
                {**row, "verdict": one.verdict, "in_family": kind, "claim_text": one.claim, "mark": one.mark}
            )
    for comparison in found.exploratory:
        writer.writerow({**csv_row(comparison), "in_family": "exploratory", "claim_text": "", "mark": ""})
    return buffer.getvalue()


def _csv_of(verdict: ClaimVerdict) -> dict[str, Any]:
    """The row of a claim that has no comparison: an interaction, or what has no result."""
    one = verdict.by
    if one is None:
        return {"family": verdict.family}
    known = {name: getattr(one, name) for name in ("a", "b", "metric", "n", "difference", "p", "p_adjusted", "test")}
    return {**known, "correction": verdict.correction, "family": verdict.family, "note": verdict.note}


def answer_markdown(found: Answer) -> str:
    """Tables to paste: declared claims, late ones, other pairs."""
    lines = [f"**{escaped(found.experiment)}**: {escaped(found.question or '')}".rstrip(": "), ""]
    lines += [found.headline(), "", found.runs_line(), ""]
    facts = ("b - a", "interval", "p", "adjusted", "chance", "n", "discordant", "test", "about")
    columns = ("claim", "verdict", "needs", *facts)
    for title, verdicts in (("Declared claims", found.verdicts), ("Late claims, exploratory", found.late)):
        if verdicts:
            rows = [[escaped(cell) for cell in verdict_cells(one)] for one in verdicts]
            lines += [f"{title} ({family_of(found, verdicts[0])})", "", *markdown_table(columns, rows), ""]
            lines += [f"- {escaped(f'{one.claim}: {note}')}" for one in verdicts for note in said_of(one)]
    for title, verdicts in others_of(found):
        rows = [[escaped(cell) for cell in verdict_cells(one)] for one in verdicts]
        lines += ["", f"{title[:1].upper()}{title[1:]}", "", *markdown_table(columns, rows), ""]
    lines += [f"- {escaped(found.not_supported)}"] if found.not_supported else []
    if found.exploratory:
        lines += ["", f"Other pairs, exploratory ({exploratory_line(found)})", ""]
        for number, mine in enumerate(found.by_measurement()):
            lines += [""] if number else []
            lines += comparison_table(mine)
        lines += ["", *(f"- {escaped(line)}" for line in footnotes(found.exploratory))]
    if bands := found.ranks():
        lines.append(f"- {escaped(says_ranks(bands, found.alpha))}")
    told = found.comparisons()
    lines += [f"- {line}" for line in (*reasons(told), *chance_lines(told), *attrition_lines(told))]
    lines += [f"- {escaped(note)}" for note in found.notes]
    return "\n".join(lines).rstrip() + "\n"


def print_answer(found: Answer, console: Console, pairs: bool = True, wide: bool = False) -> None:
    """The answer on the screen, the sentence first; without `pairs` only the claims. With `wide` every column."""
    width = width_of(console, wide)
    show_lines(console, [*paragraph(found.headline(), width, 0), *paragraph(found.runs_line(), width, 0), ""])
    for verdicts, title in ((found.verdicts, "declared claims"), (found.late, "late claims, EXPLORATORY")):
        if not verdicts:
            continue
        gap = [""] if verdicts is found.late and found.verdicts else []
        show_lines(console, [*gap, *verdicts_lines(verdicts, width, wide), ""])
        said = [f"{title}: {family_of(found, verdicts[0])}"] + ([DISCORDANT] if wide else about_lines(verdicts))
        said += [f"- {one.claim}: {note}" for one in verdicts for note in (said_of if wide else short_notes)(one)]
        _say(console, said, width)
    for title, verdicts in others_of(found):
        show_lines(console, ["", *paragraph(title, width, 0), "", *verdicts_lines(verdicts, width, wide), ""])
        _say(console, [f"- {one.claim}: {note}" for one in verdicts for note in short_notes(one)], width)
    if found.not_supported:
        _say(console, [found.not_supported], width)
    if pairs and found.exploratory:
        gap = [""] if found.verdicts or found.late else []
        for mine in found.by_measurement():
            show_lines(console, [*gap, *pairs_lines(mine, width, f"{found.experiment}/", wide)])
            gap = [""]
        show_lines(console, [""])
        _say(console, [f"exploratory: {exploratory_line(found)}"], width)
        _say(console, [f"- {line}" for line in footnotes(found.exploratory)], width)
        if bands := found.ranks():
            _say(console, [f"ranks: {says_ranks(bands, found.alpha)}"], width)
    comparisons = found.comparisons() if pairs else found.judged()
    said = (
        [*reasons(comparisons), *chance_lines(comparisons), *needs_lines(comparisons), *attrition_lines(comparisons)]
        if wide
        else []
    )
    said = said or short_lines(comparisons)[1:]
    said += [f"note: {note}" for note in found.notes]
    if not pairs and found.exploratory:
        size = len(found.exploratory)
        said.append(f"{size} other pair{'' if size == 1 else 's'} of conditions: nsd compare tests them")
    _say(console, said, width)


def others_of(found: Answer) -> list[tuple[str, list[ClaimVerdict]]]:
    """The claims in their other reading, under a title each: declared ones and late ones."""
    titled = [("the other reading", found.other), ("late claims in the other reading, EXPLORATORY", found.late_other)]
    return [
        (f"{title}, a family of its own: {readings_of([one.comparison for one in verdicts])}", verdicts)
        for title, verdicts in titled
        if verdicts
    ]


def _say(console: Console, lines: Sequence[str], width: int | None) -> None:
    for line in lines:
        show_lines(console, paragraph(line, width))


DISCORDANT = "discordant: questions that only the second, only the first condition of a claim has right"


def family_of(found: Answer, verdict: ClaimVerdict) -> str:
    """How the p-values of this verdict's family were corrected, over how many tests."""
    how = CORRECTIONS.get(verdict.correction, verdict.correction)
    family = f"family of {verdict.family}" if verdict.mark else found.family_line()
    mine = found.verdicts if verdict in found.verdicts else found.late
    levels = levels_line([one.comparison for one in mine if one.comparison is not None])
    return "; ".join(filter(None, (f"a {family}; p adjusted by {how}, level {verdict.alpha:g}", levels)))


def exploratory_line(found: Answer) -> str:
    """The same for the exploratory family."""
    late = f" ({len(found.late)} late claim{'' if len(found.late) == 1 else 's'} among them)" if found.late else ""
    said = f"a family of {found.exploratory_family}{late}; p adjusted by Benjamini-Hochberg, level {found.alpha:g}"
    return "; ".join(filter(None, (found.exploratory_about, said, levels_line(found.exploratory))))


def said_of(verdict: ClaimVerdict) -> list[str]:
    """The lines below the table for a verdict: mark, note, and what an unresolved one still needs."""
    needs = verdict.comparison.still_needed() if verdict.comparison and not verdict.verdict.resolved else ""
    return [text for text in (verdict.mark, verdict.note, needs) if text]


def verdict_cells(verdict: ClaimVerdict) -> list[str]:
    """claim, verdict, needs, difference, interval, p, adjusted p, chance, n, discordant, test, about."""
    from nsd.reports.judge.comparison import show_level, show_p

    one = verdict.comparison
    word = verdict.verdict + (" *" if verdict.mark else "")
    if (found := verdict.by) is not None:
        numbers = [show(found.difference, True), "-", show_p(found.p), show_p(found.p_adjusted), "-", str(found.n), "-"]
        return [verdict.claim, word, "", *numbers, found.test, verdict.about]
    if one is None:
        return [verdict.claim, word, "", *["-"] * 8, verdict.about]
    pair = "-" if one.discordant is None else "{} / {}".format(*one.discordant)
    level = "" if one.ci is None else f" ({show_level(one.level)})"
    cells = [show(one.difference, True), show_interval(one.ci, True) + level, show_p(one.p), show_p(one.p_adjusted)]
    return [verdict.claim, word, needs(one), *cells, show_chance(one), str(one.n), pair, one.test, verdict.about]


def verdicts_lines(verdicts: Sequence[ClaimVerdict], width: int | None, wide: bool = False) -> list[Text]:
    """Claims with verdicts, for the screen; with `wide` every column."""
    from nsd.reports.judge.comparison import show_p

    rows = []
    for one in verdicts:
        found, style = one.comparison, {True: "green", False: "red", None: ""}[one.holds]
        if wide:
            cells = verdict_cells(one)
            rows.append([Cell(cells[0]), Cell(cells[1], style), *map(Cell, cells[2:])])
            continue
        numbers = [Cell("-"), Cell("-")] if found is None else [difference_cell(found), Cell(show_p(found.p_adjusted))]
        if one.by is not None:
            numbers = [Cell(f"{show(one.by.difference, signed=True)} in all"), Cell(show_p(one.by.p_adjusted))]
        rows.append([Cell(one.claim), verdict_cell(one.verdict, style, bool(one.mark)), *numbers])
    if wide:
        facts = ("needs", "difference", "interval", "p", "adjusted", "chance", "n", "discordant", "test", "about")
        return lay_out(("claim", "verdict", *facts), rows, None, right=("difference", "p", "adjusted", "chance", "n"))
    columns = ("claim", "verdict", "difference [interval]", "adjusted p")
    return lay_out(columns, rows, width, right=("adjusted p",))


def short_notes(verdict: ClaimVerdict) -> list[str]:
    """The lines below the narrow table for a verdict: mark, what it still needs, and what could change it."""
    one = verdict.comparison
    needed = one.needed_in_short() if one is not None and not verdict.verdict.resolved else ""
    return [text for text in (verdict.mark, needed, verdict.note) if text]


def about_lines(verdicts: Sequence[ClaimVerdict]) -> list[str]:
    """What the claims speak of, each once, with the claims where not all speak of the same."""
    about: dict[str, list[str]] = {}
    for one in verdicts:
        if one.comparison is not None or one.by is not None:
            about.setdefault(one.about, []).append(one.claim)
    return [
        f"about {subject}" if len(about) == 1 else f"about {subject}: {', '.join(claims)}"
        for subject, claims in about.items()
    ]


def answer_facts(found: Answer) -> dict[str, Any]:
    """The part of an answer that a summary in JSON holds."""
    return {
        "headline": found.headline(),
        "spec_digest": found.spec_digest,
        "runs": found.runs,
        "seeds": found.seeds,
        "verdicts": [one.to_json() for one in found.verdicts],
        "late_verdicts": [one.to_json() for one in found.late],
        "other_reading": [one.to_json() for one in found.other],
        "late_other_reading": [one.to_json() for one in found.late_other],
        "not_supported": found.not_supported,
        "dropped": found.dropped,
        "primary_family": found.primary_family,
        "exploratory_family": found.exploratory_family,
        "notes": found.notes,
    }
