"""`nsd samples`: page through what models wrote, a question at a time.

Completions come from the artifacts' Parquet files (the index holds scores, not texts). Model output is
untrusted: the console shows control characters as escapes (`nsd.plugins.screen`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nsd.plugins.api import Question
from nsd.plugins.errors import InputError
from nsd.plugins.screen import console, print_json
from nsd.reports.judge.rows import find_run
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace


@dataclass
class Shown:
    """A question with the scored completions of each run, by run name."""

    question: Question
    rows: dict[str, list[dict[str, Any]]]

    def verdicts(self) -> list[tuple[bool, ...]]:
        """Right or wrong, sample by sample, for each run."""
        return [tuple(bool(row["correct"]) for row in rows) for rows in self.rows.values()]


def collect_samples(
    workspace: Workspace, names: list[str], wrong: bool, right: bool, disagree: bool, search: str | None
) -> list[Shown]:
    """Questions with their completions, filtered. Raises InputError for runs without texts."""
    if len(names) > 2:
        raise InputError("samples looks at one run, or at two to see where they differ")
    by_question: dict[str, Shown] = {}
    for name in names:
        row = find_run(workspace, name)
        digest = row["eval_digest"]
        kind = None if digest is None else workspace.evaluation(digest)
        if kind is None:
            raise InputError(f"{name} has no completions: its status is {row['status']}")
        folder, manifest = workspace.folder(kind, digest), workspace.manifest(kind, digest)
        held = tables.held_questions(workspace, manifest.data_hash) if manifest.data_hash else []
        questions = {q.id: q for q in held}
        for sample in tables.read(folder / "samples.parquet"):
            if "question_id" not in sample:
                raise InputError(f"{folder / 'samples.parquet'} holds no completions of questions")
            key = sample["question_id"]
            shown = by_question.setdefault(key, Shown(questions.get(key, Question(id=key, text=key)), {}))
            shown.rows.setdefault(name, []).append(sample)

    def wanted(shown: Shown) -> bool:
        verdicts = shown.verdicts()
        flat = [verdict for run in verdicts for verdict in run]
        if disagree:
            between = (
                len(set(verdicts)) > 1 if len(names) == 2 else len({r["answer"] for r in shown.rows[names[0]]}) > 1
            )
            if not between or len(shown.rows) < len(names):
                return False
        if wrong and all(flat):
            return False
        if right and not any(flat):
            return False
        texts = [shown.question.text, *(row["text"] or "" for rows in shown.rows.values() for row in rows)]
        return search is None or any(search.lower() in text.lower() for text in texts)

    return [shown for shown in by_question.values() if wanted(shown)]


def print_samples(
    workspace: Workspace,
    names: list[str],
    wrong: bool,
    right: bool,
    disagree: bool,
    search: str | None,
    page: int,
    size: int,
    as_json: bool,
) -> None:
    """One page of questions and completions."""
    found = collect_samples(workspace, names, wrong, right, disagree, search)
    pages = max(1, -(-len(found) // size))
    if page > pages:
        raise InputError(f"there is no page {page}: {len(found)} questions make {pages} pages of {size}")
    chosen = found[(page - 1) * size : page * size]
    if as_json:
        questions = [
            {"id": s.question.id, "question": s.question.text, "gold": s.question.answer, "samples": s.rows}
            for s in chosen
        ]
        print_json({"page": page, "pages": pages, "total": len(found), "questions": questions})
        return
    screen = console()
    for shown in chosen:
        screen.rule(shown.question.id, align="left")
        screen.print(shown.question.text, soft_wrap=True)
        screen.print(f"gold: {shown.question.answer!s}")
        for name, rows in shown.rows.items():
            for row in rows:
                if (wrong and row["correct"]) or (right and not row["correct"]):
                    continue
                verdict = "RIGHT" if row["correct"] else "WRONG"
                ended = "" if row["stop_reason"] in ("stop", None) else f", ended by {row['stop_reason']}"
                screen.print(
                    f"\n[{name} sample {row['sample']}: {verdict}, answer {row['answer']}{ended}]", style="bold"
                )
                screen.print(row["error"] or row["text"] or "", soft_wrap=True)
        screen.print()
    screen.print(f"page {page} of {pages}, {len(found)} questions")
