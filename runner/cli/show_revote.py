"""Prints what `nsd revote` found: a table for each set of stored samples, then the spec line that makes a row real.

print_revote(workspace, ["quickstart"], ks=[4], thresholds=[0.5], ties="first", resamples=0, as_json=False)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nsd.plugins.screen import console, print_json, table
from nsd.plugins.words import percent
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.revote import revote
from nsd.runner.work.revote_table import Revotes, Spread, VoteRow

OPEN = {"k": "K", "threshold": "T"}  # what rows of one rule differ in


def print_revote(
    workspace: Workspace,
    names: Sequence[str],
    ks: Sequence[int],
    thresholds: Sequence[float],
    ties: str,
    resamples: int,
    as_json: bool,
    weights: Sequence[str] = (),
    top: float = 1.0,
    stop_votes: Sequence[str] = (),
) -> None:
    """The tables, and the spec lines that would make a setting real."""
    found = revote(workspace, names, ks, thresholds, ties, resamples, weights, top, stop_votes)
    if as_json:
        tests = {id(row): _p_value(row) for one in found for row in one.rows}
        print_json(
            {
                "revotes": [
                    {**asdict(one), "rows": [{**asdict(row), "p_value": tests[id(row)]} for row in one.rows]}
                    for one in found
                ]
            }
        )
        return
    for one in found:
        _print_votes(one)


def _print_votes(votes: Revotes) -> None:
    screen = console()
    stored = f"{votes.stored} stored samples of each of {votes.questions} questions"
    if votes.stopped:
        stored = f"{votes.drawn} stored samples of {votes.questions} questions, at most {votes.stored} of each"
    screen.print(f"labels of {'; '.join(votes.labels_of)}: {votes.labeler} with verifier {votes.verifier}, {stored}")
    spread = next((row.spread for row in votes.rows if row.spread), None)
    right = ("K", "threshold", "with a label", "tied", "kept", "coverage", "right labels kept", "right of kept")
    more: tuple[str, ...] = (f"kept in {spread.resamples} choices", "right of kept in them") if spread else ()
    ruled = any(_rule(row) for row in votes.rows)
    counted = ruled or any(row.seen < (row.k or votes.stored) * votes.questions for row in votes.rows)
    more += ("samples",) if counted else ()
    more += ("right only here : only plain", "p") if ruled else ()
    dropping = any(row.ties != "first" for row in votes.rows)
    shown = table(
        *(("rule",) if ruled else ()), *right, *more, *(("ties",) if dropping else ()), "", right=(*right, *more)
    )
    for row in votes.rows:
        cells = [_rule(row) or "plain"] if ruled else []
        cells += [_number(row.k), _number(row.threshold), str(row.voted), str(row.tied), str(row.kept)]
        cells += [percent(row.coverage), str(row.right_kept) if row.known_kept else "-", percent(row.accuracy_kept)]
        if spread:
            cells += _spread_cells(row.spread)
        cells += [str(row.seen)] if counted else []
        cells += _against_cells(row) if ruled else []
        cells += [row.ties] if dropping else []
        shown.add_row(*cells, f"original of {'; '.join(row.original_of)}" if row.original_of else "")
    screen.print(shown)
    for note in [*votes.notes, *_advice(votes)]:
        screen.print(f"- {note}", soft_wrap=True)
    for line in spec_lines(votes):
        screen.print(line, soft_wrap=True)
    screen.print()


def _rule(row: VoteRow) -> str:
    if row.weights:
        return f"weights {row.weights}" + (f", top {row.top:g}" if row.top < 1 else "")
    return f"stop_vote {row.stop_vote}" if row.stop_vote else ""


def _p_value(row: VoteRow) -> float | None:
    """McNemar's mid-p of the questions on which a rule and the plain vote differ; None without any."""
    from nsd.reports import stats

    if row.against is None or row.against.only_this + row.against.only_plain == 0:
        return None
    return stats.mcnemar(row.against.only_this, row.against.only_plain).p


def _against_cells(row: VoteRow) -> list[str]:
    p_value = _p_value(row)
    if row.against is None:
        return ["", ""]
    return [f"{row.against.only_this} : {row.against.only_plain}", "-" if p_value is None else f"{p_value:.3g}"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _spread_cells(spread: Spread | None) -> list[str]:
    if spread is None:
        return ["-", "-"]
    kept = f"{spread.kept_mean:.0f}" + ("" if spread.kept_sd is None else f" ± {spread.kept_sd:.0f}")
    share = percent(spread.accuracy_kept_mean)
    return [kept, share + ("" if spread.accuracy_kept_sd is None else f" ± {100 * spread.accuracy_kept_sd:.1f}")]


def _advice(votes: Revotes) -> list[str]:
    notes = []
    if any(row.against is not None for row in votes.rows):
        notes.append(
            "p counts right labels that are kept: a rule that keeps more labels can win by that alone, with more wrong "
            "ones among them; right of kept tells"
        )
    if all(row.known_kept == 0 for row in votes.rows):
        notes.append("the truth of no kept label is known: the table shows what is kept, not what is right")
    elif len(votes.rows) > 1:
        notes.append(
            "right is against the hidden truth, which a real run would not have: a setting chosen by it is chosen "
            "with knowledge that self-training lacks"
        )
    return notes


def spec_lines(votes: Revotes) -> list[str]:
    """The labeler block that makes a setting real, one for each rule: of what was asked for, K and T left open."""
    asked = [row for row in votes.rows if row.asked]
    asked = [row for row in asked if not row.original_of] or asked
    possible = [row for row in asked if row.spec is not None]
    if not possible and any(row.weights for row in asked):
        return ["no field of a labeler weighs votes yet: the table says what weights would give"]
    if not possible:
        return [
            f"no field of labeler {votes.labeler!r} drops ties; a threshold above 0.5 does: no vote ties above a half"
        ]
    blocks: dict[str, list[dict[str, Any]]] = {}
    for row in possible:
        rest = {name: value for name, value in (row.spec or {}).items() if name not in OPEN}
        blocks.setdefault(json.dumps(rest), []).append(dict(row.spec or {}))
    several = {name for name in OPEN if any(len({one.get(name) for one in same}) > 1 for same in blocks.values())}
    letters = " and ".join(OPEN[name] for name in OPEN if name in several)
    lines = [f"in the spec, with {letters} of the row wanted:" if letters else "in the spec:"]
    for block, *_ in blocks.values():
        inner = ", ".join(f"{name}: {OPEN[name] if name in several else _yaml(value)}" for name, value in block.items())
        lines.append(f"  labeler: {{{inner}}}")
    original = {row.k for row in votes.rows if row.original_of}
    if votes.stopped:
        lines.append(
            "the votes stopped early: another threshold or rule draws what it asks for beyond the stored samples"
        )
    elif any(row.k not in original for row in possible):
        lines.append("another threshold uses the stored samples; another k samples again")
    return lines


def _yaml(value: Any) -> str:
    plain = (
        isinstance(value, str) and value.replace("_", "").isalnum() and value.lower() not in ("true", "false", "null")
    )
    return str(value) if plain else json.dumps(value)
