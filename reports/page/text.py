"""A report without its page: Markdown to paste, CSV and JSON for machines. The same facts as the page's.

    print(as_markdown(collect_experiment(connection, workspace, "quickstart")))

Markdown holds claims, arms and pseudo-labels, and in a line how they were computed; CSV one line for each comparison
with its role (declared, late, exploratory); JSON everything but the samples and the points of the curves.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nsd.plugins.untrusted import visible, visible_json
from nsd.plugins.words import CORRECTIONS
from nsd.reports.judge.arms import ArmSummary
from nsd.reports.judge.comparison import Comparison, show_p
from nsd.reports.judge.hypotheses import ClaimVerdict
from nsd.reports.judge.subgroups import ByField
from nsd.reports.page.data import PageData
from nsd.reports.page.format import limits, mean, needed, points, share, share_limits
from nsd.reports.text.render import CSV_FIELDS, csv_row, escaped, needs
from nsd.reports.text.render import as_markdown as comparisons_as_markdown

PAIRS_IN_MARKDOWN = 30  # more are given against the reference only
LEAD_COLUMNS = ("role", "claim_text", "claim_verdict", "holds", "about", "mark")


def as_markdown(data: PageData) -> str:
    """Tables with the sentence before them."""
    parts = [f"**{_text(data.question or data.title)}** {_text(data.headline)}"]
    parts += [_text(remark) + "." for remark in data.remarks]
    if data.answer is None:
        if len(data.pairs) <= PAIRS_IN_MARKDOWN or data.reference is None:
            parts.append(comparisons_as_markdown(data.pairs).strip())
        else:
            parts.append(
                f"Differences from {_text(data.reference)} ({data.why_reference}); p adjusted over all "
                f"{len(data.pairs):,} pairs, which `--format csv` gives."
            )
            parts.append(_against(data))
    for verdicts, title in ((data.verdicts, ""), (data.late, "Claims written after their results (exploratory):")):
        if verdicts:
            parts += [title] if title else []
            parts.append(_claims(verdicts, data))
            noted = [(one.claim, note) for one in verdicts if (note := _note(one))]
            parts.append("\n".join(f"- {_text(claim)}: {note}" for claim, note in noted))
    for title, verdicts in data.other_readings:
        parts += [f"{_text(title[:1].upper() + title[1:])}:", _claims(verdicts, data)]
    if data.answer is not None and not (data.verdicts or data.late) and data.answer.exploratory:
        parts.append(comparisons_as_markdown(data.answer.exploratory).strip())
    parts.append(_arms(data, data.arms))
    for measurement, arms in data.beside.items():
        parts += [f"Arms on {_text(measurement)}:", _arms(data, arms)]
    parts += [_by_field(one, data) for one in data.by_field]
    parts += [f"{data.by_field_note}."] if data.by_field else []
    if data.labels:
        parts.append(_labels(data))
    parts.append(how_computed(data))
    return "\n\n".join(part for part in parts if part) + "\n"


def how_computed(data: PageData) -> str:
    """Tests, families, seeds and provenance in a line."""
    tests = [f"{one.test} with {one.interval} intervals" if one.interval else one.test for one in data.tests]
    families = [f"{one.size} {one.name} ({CORRECTIONS[one.correction]}, level {one.alpha:g})" for one in data.families]
    seeds = sorted({seed for arm in data.arms for seed in arm.seeds})
    origin = data.origin
    said = [
        f"tests: {', '.join(dict.fromkeys(tests)) or 'none'}",
        f"families: {'; '.join(families) or 'none'}",
        f"training seeds: {', '.join(map(str, seeds)) or 'none'}",
        f"resampling seed {data.resampling_seed}",
        f"data {', '.join(one[:12] for one in origin.data_hashes) or 'unknown'}",
        f"verifier {', '.join(one[:12] for one in origin.verifier_hashes) or 'unknown'}",
    ]
    said += [f"commit {', '.join(one[:12] for one in origin.commits)}"] if origin.commits else []
    said += [f"spec {data.spec_digest}"] if data.spec_digest else []
    said += [f"nsd {', '.join(origin.packages['nsd'])}"] if "nsd" in origin.packages else []
    return _text(
        f"How computed: {'. '.join(['; '.join(said)])}; failed answers score 0, truncated ones what their text scores."
    )


def _text(text: str) -> str:
    return escaped(visible(text))


def _table(columns: Sequence[str], right: int, rows: Sequence[Sequence[str]]) -> str:
    """A GitHub table; columns from `right` on are numbers where their rule says so."""
    rule = ["---" if place < right else "---:" for place in range(len(columns))]
    lines = [columns, rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _claims(verdicts: Sequence[ClaimVerdict], data: PageData) -> str:
    rows = []
    for one in verdicts:
        found = one.comparison
        head = [_text(one.claim), one.verdict]
        if (by := one.by) is not None:
            told = [points(by.difference, data.scale), "–", show_p(by.p), show_p(by.p_adjusted), f"{by.n:,}", by.test]
            rows.append([*head, *map(_text, told), _text(one.about)])
            continue
        if found is None:
            rows.append([*head, *["–"] * 6, _text(one.about)])
            continue
        ends = limits(found.ci, data.scale) + _level_mark(found, 1 - one.alpha)
        numbers = [
            points(found.difference, data.scale),
            ends,
            show_p(found.p),
            show_p(found.p_adjusted),
            f"{found.n:,}",
        ]
        rows.append([*head, *map(_text, numbers), _text(found.test), _text(one.about)])
    interval = f"{(1 - verdicts[0].alpha) * 100:g} % interval"
    columns = ("claim", "verdict", f"difference ({data.unit})", interval, "p", "adjusted p", "n", "test", "about")
    return _table(columns, 2, rows)


def _level_mark(one: Comparison, level: float) -> str:
    """The level of an interval where the correction left it another than the column's."""
    return "" if one.ci is None or abs(one.level - level) < 1e-9 else f" ({100 * one.level:.4g} %)"


def _against(data: PageData) -> str:
    """Every other run less the reference."""
    rows = []
    for one in data.against_reference():
        ends = None if one.low is None or one.high is None else (one.low, one.high)
        found = one.comparison
        numbers = [
            points(one.difference, data.scale),
            limits(ends, data.scale) + _level_mark(found, data.level),
            show_p(found.p),
            show_p(found.p_adjusted),
            f"{found.n:,}",
        ]
        rows.append([_text(one.name), one.verdict, *map(_text, numbers), _text(found.test), needs(found) or "–"])
    columns = (
        "run",
        "verdict",
        f"difference ({data.unit})",
        f"{data.level * 100:g} % interval",
        "p",
        "adjusted p",
        "n",
        "test",
        "needed",
    )
    return _table(columns, 2, rows)


def _note(one: ClaimVerdict) -> str:
    found = one.comparison
    more = needed(found) if not one.verdict.resolved and found is not None else ""
    return "; ".join(_text(part) for part in (one.mark, more, one.note) if part)


def _arms(data: PageData, arms: Sequence[ArmSummary]) -> str:
    rows = [
        [
            _text(data.short(arm.condition)),
            _text(arm.metric or "–"),
            mean(arm.mean, data.scale),
            share_limits(arm.ci, data.scale),
            f"{arm.n:,}",
            ", ".join(map(str, arm.seeds)) or "–",
            share(arm.truncated),
            share(arm.failed) if arm.finished else _text(arm.status),
        ]
        for arm in arms
    ]
    return _table(("arm", "metric", "mean", "95 % interval", "n", "seeds", "truncated", "failed"), 2, rows)


def _by_field(one: ByField, data: PageData) -> str:
    rows = [
        [
            _text(group.name),
            f"{group.n:,}",
            mean(group.mean_a, data.scale),
            mean(group.mean_b, data.scale),
            points(group.difference, data.scale),
            limits(group.ci, data.scale),
            group.test,
        ]
        for group in one.groups
    ]
    table = _table((_text(one.field), "n", "a", "b", f"difference ({data.unit})", "interval", "test"), 1, rows)
    return f"{table}\n\n{_text(one.sentence())}; about {one.about}."


def _labels(data: PageData) -> str:
    rows = [
        [
            _text(data.label_name(label)),
            *(f"{count:,}" for count in (label.questions, label.voted, label.kept)),
            *(share(value) for value in (label.coverage, label.accuracy_voted, label.accuracy_kept)),
        ]
        for label in data.labels
    ]
    columns = ("pseudo-labels of", "questions", "voted", "kept", "coverage", "right of voted", "right of kept")
    return _table(columns, 1, rows)


# --------------------------------------------------------------------------- for machines


def as_csv(data: PageData) -> str:
    """One line for each comparison. Declared claims come first; a claim without data has no numbers."""
    lines: list[tuple[dict[str, Any], Comparison | None]] = []
    for role, verdicts in (("declared", data.verdicts), ("late", data.late)):
        for one in verdicts:
            holds = {True: "yes", False: "no", None: "undecided"}[one.holds]
            head = (role, one.claim, one.verdict, holds, one.about, one.mark)
            lines.append((dict(zip(LEAD_COLUMNS, head, strict=True)), one.comparison))
    rest = data.answer.exploratory if data.answer else data.pairs
    lines += [({"role": "exploratory"}, one) for one in rest]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*LEAD_COLUMNS, *CSV_FIELDS], lineterminator="\n")
    writer.writeheader()
    for known, comparison in lines:
        writer.writerow(known if comparison is None else {**known, **csv_row(comparison)})
    return buffer.getvalue()


def as_json(data: PageData) -> str:
    """Everything but samples and points of curves, under stable names; numbers are never nan or infinite."""
    curves = [{key: value for key, value in asdict(one).items() if key != "points"} for one in data.curves]
    found = {
        "title": data.title,
        "question": data.question,
        "headline": data.headline,
        "answer": data.answer.to_json() if data.answer else None,
        "comparisons": [] if data.answer else [one.to_json() for one in data.pairs],
        "reference": data.reference,
        "arms": [asdict(arm) for arms in (data.arms, *data.beside.values()) for arm in arms],
        "curves": curves,
        **({"searches": [asdict(one) for one in data.searches.arms]} if data.searches.arms else {}),
        "warnings": [asdict(one) for one in data.warnings],
        **({"by_field": [one.to_json() for one in data.by_field]} if data.by_field else {}),
        "labels": [asdict(label) for label in data.labels],
        "agreements": [asdict(one) for one in data.agreements],
        "noise": [one.to_json() for one in data.noise],
        "cost": data.cost.to_json(),
        "stages": [asdict(stage) for stage in data.stages],
        "families": [asdict(one) for one in data.families],
        "tests": [asdict(one) for one in data.tests],
        "origin": asdict(data.origin),
        "looks": [asdict(one) for one in data.looks],
        "notes": [asdict(one) for one in data.journal],
        "remarks": data.remarks,
        "resampling_seed": data.resampling_seed,
        "spec_digest": data.spec_digest,
        "spec_yaml": data.spec_yaml,
    }
    return visible_json(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"
