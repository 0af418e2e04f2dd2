"""`nsd rollouts`: page through what a training drew, with rewards and what a teacher read.

Only trainings on rollouts keep any, in the train stage's `rollouts.parquet`. Model output is untrusted: the console
shows control characters as escapes (`nsd.plugins.screen`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from nsd.plugins.api import KeptRollout
from nsd.plugins.errors import InputError
from nsd.plugins.screen import console, print_json
from nsd.reports.judge.rows import find_run
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace


@dataclass(frozen=True)
class Wanted:
    """Which rollouts to show; what is left as it is leaves all in."""

    step: int | None = None
    question: str | None = None
    masked: bool | None = None
    search: str | None = None

    def holds(self, one: KeptRollout) -> bool:
        """Whether a rollout is one of them."""
        return (
            (self.step is None or one.step == self.step)
            and (self.question is None or one.question_id == self.question)
            and (self.masked is None or one.masked is self.masked)
            and (self.search is None or self.search.lower() in f"{one.text}\n{one.teacher_input or ''}".lower())
        )


def print_rollouts(
    workspace: Workspace, name: str, wanted: Wanted, teacher: bool, page: int, size: int, as_json: bool
) -> None:
    """One page of a run's rollouts, in the order they were drawn. Raises InputError where none were kept."""
    digest = _training_of(workspace, name)
    found = [one for step in tables.read_rollouts(_kept(workspace, digest, name)) for one in step if wanted.holds(one)]
    pages = max(1, -(-len(found) // size))
    if page > pages:
        raise InputError(f"there is no page {page}: {len(found)} rollouts make {pages} pages of {size}")
    chosen = found[(page - 1) * size : page * size]
    asked = _questions(workspace, digest)
    if as_json:
        rows = [{**asdict(one), "question": asked.get(one.question_id)} for one in chosen]
        print_json({"page": page, "pages": pages, "total": len(found), "rollouts": rows})
        return
    screen = console()
    for one in chosen:
        screen.rule(f"step {one.step}, question {one.question_id}, sample {one.sample}", align="left")
        screen.print(asked.get(one.question_id) or "", soft_wrap=True)
        ended = "" if one.stop_reason == "stop" else f", ended by {one.stop_reason}"
        masked = ", masked" if one.masked else ""
        told = f"reward {one.reward:g}, score {one.score:g}, answer {one.answer}, {one.tokens} tokens{ended}{masked}"
        screen.print(f"\n[{told}]", style="bold")
        screen.print(one.text, soft_wrap=True)
        if teacher and one.teacher_input is not None:
            screen.print("\n[the teacher read]", style="bold")
            screen.print(one.teacher_input, soft_wrap=True)
        screen.print()
    screen.print(f"page {page} of {pages}, {len(found)} rollouts")


def _training_of(workspace: Workspace, name: str) -> str:
    digest = find_run(workspace, name)["train_digest"]
    if digest is None or not workspace.is_whole("train", digest):
        raise InputError(f"{name} has no finished training")
    return str(digest)


def _kept(workspace: Workspace, digest: str, name: str) -> Path:
    path = workspace.folder("train", digest) / "rollouts.parquet"
    if not path.is_file():
        raise InputError(f"{name} kept no rollouts: its trainer is {workspace.manifest('train', digest).plugin}")
    return path


def _questions(workspace: Workspace, digest: str) -> dict[str, str]:
    """Texts of the questions that a training was given, by id, as far as the workspace holds them."""
    texts: dict[str, str] = {}
    for source in workspace.manifest("train", digest).key.to_json().get("train_on", ()):
        data, labels = source.get("data"), source.get("labels")
        if labels is not None and workspace.is_whole("label", labels):
            data = workspace.manifest("label", labels).key.to_json().get("questions")
        texts |= {one.id: one.text for one in tables.held_questions(workspace, data)} if data else {}
    return texts
