"""Questions and completions for a report's browser of samples, within a budget that is always stated.

    samples = collect_samples(connection, workspace, {"baseline": ["quickstart/baseline/seed42"], ...})
    samples.to_json()          # texts of a question once, then every arm's completions

Where everything does not fit, whole questions are taken until the budget is spent: first those on which the arms
disagree most, then by id, so that the choice never depends on what the completions say otherwise. The first
`PER_QUESTION` samples of a question are shown. A longer text is cut, with a mark that says so.

Limits: completions come from the artifacts' Parquet files; runs imported with a verdict only have no text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

    from nsd.runner.store.workspace import Workspace

BUDGET = 3_000_000  # bytes of JSON, so that a page of eight arms and a thousand questions stays well below 5 MB
TEXT_LIMIT = 6_000  # characters of one text
PER_QUESTION = 4  # samples of an arm on one question


@dataclass
class ShownQuestion:
    """A question with the samples of each arm, by the arm's number: [right, stop reason's number, answer, text]."""

    id: str
    text: str | None
    gold: str | None
    samples: dict[int, list[list[Any]]] = field(default_factory=dict)

    def disagreement(self) -> int:
        """How many arms stand on the smaller side (first samples)."""
        right = sum(bool(rows[0][0]) for rows in self.samples.values())
        return min(right, len(self.samples) - right)


@dataclass(frozen=True)
class Samples:
    """`shown` of `questions` questions; `cut` texts were shortened; `most_samples` a question and arm have.

    `seeds` gives, for each arm, the run whose samples are shown.
    """

    arms: list[str]
    runs: list[str]
    stops: list[str]
    shown: list[ShownQuestion]
    questions: int
    completions: int
    shown_completions: int
    most_samples: int
    cut: int
    has_text: bool
    has_gold: bool

    def to_json(self, name: Callable[[str], str] = str) -> dict[str, Any]:
        """What the page's script reads; `name` says how an arm is called there."""
        return {
            "arms": [name(arm) for arm in self.arms],
            "stops": self.stops,
            "questions": [
                [one.id, one.text, one.gold, {str(arm): rows for arm, rows in one.samples.items()}]
                for one in self.shown
            ],
        }


def collect_samples(
    connection: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    arms: Mapping[str, Sequence[str]],
    budget: int = BUDGET,
) -> Samples:
    """Samples of the first finished run (seed) of each arm. Arms without any are left out."""
    from nsd.runner.store import tables

    wanted = [run for runs in arms.values() for run in runs]
    places = {
        run: (digest, data, folder)
        for run, digest, data, folder in connection.execute(
            "SELECT r.run, r.eval_digest, i.data_hash, s.folder "
            "FROM current_runs r JOIN eval_info i USING (eval_digest) JOIN stages s "
            "ON s.digest = r.eval_digest WHERE r.run IN (SELECT unnest(?::TEXT[]))",
            [wanted],
        ).fetchall()
    }
    questions: dict[str, ShownQuestion] = {}
    texts: dict[str, dict[str, tuple[str, str | None]]] = {}
    names: list[str] = []
    shown_runs: list[str] = []
    stops: dict[str, int] = {}
    completions = most = cut = 0
    for arm, runs in arms.items():
        run = next((run for run in runs if run in places and _path(workspace, places[run][2]).is_file()), None)
        if run is None:
            continue
        _, data, folder = places[run]
        if data is not None and data not in texts:
            texts[data] = {q.id: (q.text, q.answer) for q in tables.held_questions(workspace, data)}
        number = len(names)
        names.append(arm)
        shown_runs.append(run)
        known = texts.get(data, {}) if data is not None else {}
        for row in tables.read(_path(workspace, folder)):
            completions += 1
            key = str(row["question_id"])
            if key not in questions:
                text, gold = known.get(key, (None, None))
                questions[key] = ShownQuestion(key, None if text is None else shorten(text), gold)
            rows = questions[key].samples.setdefault(number, [])
            most = max(most, int(row["sample"] or 0) + 1)
            if len(rows) >= PER_QUESTION:
                continue
            text = row["error"] or row["text"]
            answer = row["answer"]
            cut += text is not None and len(text) > TEXT_LIMIT
            stop = stops.setdefault(str(row["stop_reason"] or ""), len(stops))
            # A recorded answer without a completion has the answer for its text: that is sent once.
            sent = [] if text is None or text == answer else [shorten(text)]
            rows.append([int(bool(row["correct"])), stop, None if answer is None else shorten(answer), *sent])
    order = sorted(questions.values(), key=lambda one: (-one.disagreement(), _place(one.id)))
    shown = _within(order, budget)
    return Samples(
        arms=names,
        runs=shown_runs,
        stops=list(stops),
        shown=shown,
        questions=len(questions),
        completions=completions,
        shown_completions=sum(len(rows) for one in shown for rows in one.samples.values()),
        most_samples=most,
        cut=cut,
        has_text=any(one.text is not None for one in shown),
        has_gold=any(one.gold is not None for one in shown),
    )


def shorten(text: str, limit: int = TEXT_LIMIT) -> str:
    """The text, or its beginning and end with a line between them that says how much is left out."""
    if len(text) <= limit:
        return text
    head, tail = limit * 3 // 4, limit // 4
    return f"{text[:head]}\n[... {len(text) - head - tail:,} of {len(text):,} characters left out ...]\n{text[-tail:]}"


def _path(workspace: Workspace, folder: str) -> Path:
    return workspace.artifacts / folder / "samples.parquet"


def _place(question: str) -> str:
    """An order that is the same everywhere and has nothing to do with the file's."""
    return hashlib.sha256(question.encode("utf-8", "replace")).hexdigest()


def _within(questions: Sequence[ShownQuestion], budget: int) -> list[ShownQuestion]:
    found, spent = [], 0
    for one in questions:
        packed = [one.id, one.text, one.gold, {str(arm): rows for arm, rows in one.samples.items()}]
        spent += len(json.dumps(packed, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")) + 1
        if spent > budget:
            break
        found.append(one)
    return found
