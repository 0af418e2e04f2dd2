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

from reports.render import (
    CSV_FIELDS,
    attrition_lines,
    check_format,
    comparison_table,
    csv_row,
    escaped,
    footnotes,
    markdown_table,
    needs,
    needs_lines,
    plain_table,
    reasons,
    show,
    show_interval,
)
from reports.words import CORRECTIONS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from reports.answer import Answer
    from reports.hypotheses import Verdict


def render_answer(found: Answer, output: str, console: Console) -> None:
    """Print an answer in one of FORMATS. Machine formats go out as they are, whatever the console's width."""
    check_format(output)
    if output == "table":
        print_answer(found, console)
    else:
        console.file.write({"json": answer_json, "md": answer_markdown, "csv": answer_csv}[output](found))


def answer_json(found: Answer) -> str:
    """The answer's fields, and under `comparisons` every comparison behind it."""
    facts = {**found.to_json(), "comparisons": [one.to_json() for one in found.comparisons()]}
    return json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def answer_csv(found: Answer) -> str:
    """A line a comparison, with its family (declared, late, exploratory), claim, verdict on the claim and mark."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ("in_family", "claim_text", "mark", *CSV_FIELDS), lineterminator="\n")
    writer.writeheader()
    for kind, verdicts in (("declared", found.verdicts), ("late", found.late)):
        for one in verdicts:
            row = {} if one.comparison is None else csv_row(one.comparison)
            writer.writerow(
                {**row, "verdict": one.verdict, "in_family": kind, "claim_text": one.claim, "mark": one.mark}
            )
    for comparison in found.exploratory:
        writer.writerow({**csv_row(comparison), "in_family": "exploratory", "claim_text": "", "mark": ""})
    return buffer.getvalue()


def answer_markdown(found: Answer) -> str:
    """Tables to paste: declared claims, late ones, other pairs."""
    lines = [f"**{escaped(found.experiment)}**: {escaped(found.question or '')}".rstrip(": "), "", found.headline(), ""]
    columns = ("claim", "verdict", "needs", "b - a", "interval", "p", "adjusted", "n", "discordant", "test", "about")
    for title, verdicts in (("Declared claims", found.verdicts), ("Late claims, exploratory", found.late)):
        if verdicts:
            rows = [[escaped(cell) for cell in verdict_cells(one)] for one in verdicts]
            lines += [f"{title} ({family_of(found, verdicts[0])})", "", *markdown_table(columns, rows), ""]
            lines += [f"- {escaped(f'{one.claim}: {note}')}" for one in verdicts for note in said_of(one)]
    if found.exploratory:
        lines += ["", f"Other pairs, exploratory ({exploratory_line(found)})", ""]
        lines += comparison_table(found.exploratory)
        lines += ["", *(f"- {escaped(line)}" for line in footnotes(found.exploratory))]
    lines += [f"- {line}" for line in (*reasons(found.comparisons()), *attrition_lines(found.comparisons()))]
    lines += [f"- {escaped(note)}" for note in found.notes]
    return "\n".join(lines).rstrip() + "\n"


def print_answer(found: Answer, console: Console, pairs: bool = True) -> None:
    """Tables on the screen; without `pairs` only the claims."""
    from rich.text import Text

    from reports.render import pairs_table

    for verdicts, title in ((found.verdicts, "declared hypotheses"), (found.late, "late claims, EXPLORATORY")):
        if verdicts:
            console.print(verdicts_table(verdicts))
            console.print(Text(f"{title}: {family_of(found, verdicts[0])}; {DISCORDANT}"))
            for one in verdicts:
                for note in said_of(one):
                    console.print(Text(f"- {one.claim}: {note}"))
            console.print()
    if pairs and found.exploratory:
        console.print(pairs_table(found.exploratory, prefix=f"{found.experiment}/"))
        console.print(Text(f"exploratory: {exploratory_line(found)}"))
        for line in footnotes(found.exploratory):
            console.print(Text(f"- {line}"))
        console.print()
    comparisons = found.comparisons() if pairs else found.judged()
    for line in (*reasons(comparisons), *needs_lines(comparisons), *attrition_lines(comparisons)):
        console.print(Text(line))
    for note in found.notes:
        console.print(Text(f"note: {note}"))
    console.print(Text(found.runs_line()))
    console.print(Text(found.headline()))
    if not pairs and found.exploratory:
        size = len(found.exploratory)
        console.print(Text(f"{size} other pair{'' if size == 1 else 's'} of conditions: nsd compare tests them"))


DISCORDANT = "discordant: questions that only the second, only the first condition of a claim has right"


def family_of(found: Answer, verdict: Verdict) -> str:
    """How the p-values of this verdict's family were corrected, over how many tests."""
    how = CORRECTIONS.get(verdict.correction, verdict.correction)
    family = f"family of {verdict.family}" if verdict.mark else found.family_line()
    return f"a {family}; p adjusted by {how}, level {verdict.alpha:g}"


def exploratory_line(found: Answer) -> str:
    """The same for the exploratory family."""
    late = f" ({len(found.late)} late claim{'' if len(found.late) == 1 else 's'} among them)" if found.late else ""
    return f"a family of {found.exploratory_family}{late}; p adjusted by Benjamini-Hochberg, level {found.alpha:g}"


def said_of(verdict: Verdict) -> list[str]:
    """What stands below the table for a verdict: mark, note, and what an unresolved one still needs."""
    needs = verdict.comparison.still_needed() if verdict.comparison and verdict.verdict == "UNRESOLVED" else ""
    return [text for text in (verdict.mark, verdict.note, needs) if text]


def verdict_cells(verdict: Verdict) -> list[str]:
    """claim, verdict, needs, difference, interval, p, adjusted p, n, discordant, test, about."""
    from reports.comparison import show_p

    one = verdict.comparison
    word = verdict.verdict + (" *" if verdict.mark else "")
    if one is None:
        return [verdict.claim, word, "", *["-"] * 7, verdict.about]
    pair = "-" if one.discordant is None else "{} / {}".format(*one.discordant)
    level = "" if one.ci is None or abs(one.level - (1 - one.alpha)) < 1e-9 else f" ({one.level:.0%})"
    cells = [show(one.difference, True), show_interval(one.ci, True) + level, show_p(one.p), show_p(one.p_adjusted)]
    return [verdict.claim, word, needs(one), *cells, str(one.n), pair, one.test, verdict.about]


def verdicts_table(verdicts: Sequence[Verdict]) -> Table:
    """Claims with verdicts, for the screen."""
    from rich.text import Text

    table = plain_table(
        {"claim": "left", "verdict": "left", "needs": "left", "difference": "right", "interval": "left", "p": "right"}
        | {"adjusted": "right", "n": "right", "discordant": "left", "test": "left", "about": "left"}
    )
    for verdict in verdicts:
        claim, word, *rest = verdict_cells(verdict)
        mark = Text(word)
        if verdict.holds is not None:
            mark.stylize("green" if verdict.holds else "red")
        table.add_row(Text(claim), mark, *map(Text, rest))
    return table


def answer_facts(found: Answer) -> dict[str, Any]:
    """What a summary in JSON holds of an answer."""
    return {
        "headline": found.headline(),
        "spec_digest": found.spec_digest,
        "runs": found.runs,
        "seeds": found.seeds,
        "verdicts": [one.to_json() for one in found.verdicts],
        "late_verdicts": [one.to_json() for one in found.late],
        "dropped": found.dropped,
        "primary_family": found.primary_family,
        "exploratory_family": found.exploratory_family,
        "notes": found.notes,
    }
