"""A search for a solution of one question: samples until the verifier takes one for right, or the budget is spent.

What is drawn is kept in `shards/NUMBER.parquet`, a file for each batch with its verdicts; a killed search loses the
batch in flight, and one that trains goes back to its trainer's checkpoint and draws again what came after. A batch's
samples, their numbers and their order depend on the stage's seed alone, so that a continued search ends as an
uninterrupted one.

A search that trains gives its trainer the question without its truth, and a verifier that judges by the truth: verdict
and feedback are all that reaches the training. The weights are thrown away.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nsd.plugins.api import (
    Budget,
    Completion,
    Example,
    Protocol,
    Question,
    Request,
    Rollout,
    Score,
    Scored,
    Trainer,
    TrainJob,
    Verifier,
    without_truth,
)
from nsd.plugins.errors import Interrupted, ResumeRefused, StageFailed
from nsd.plugins.protocols.discovery import first_right
from nsd.runner.plan.jobs import ToDiscover, ToGather
from nsd.runner.store import tables
from nsd.runner.store.shapes import Broken
from nsd.runner.work.context import Context
from nsd.runner.work.drawing import engine_of, generation_facts, model_ref
from nsd.runner.work.failures import failures, without_failed_text
from nsd.runner.work.jobs import make_plugin
from nsd.runner.work.score import verdicts


def run_discover(work: ToDiscover, run_name: str, context: Context) -> dict[str, Any]:
    """Search; the samples with their verdicts in the artifact, and what came of it."""
    question = context.whole_questions(work.questions)[0]
    judges = Judges.of(work)
    drawn = Shards(context.partial / "shards", work.search.batch, chained=work.search.by != "sampling")
    if not drawn.ended(work.search.samples):
        context.progress(len(drawn.scored()), work.search.samples, "samples", resumed=len(drawn.scored()))
        if work.search.by == "training":
            _by_training(work, question, judges, drawn, run_name, context)
        else:
            _by_engine(work, question, judges, drawn, context)
    scored = drawn.scored()
    if (failed := failures([one.completion for one in scored])) is not None:
        if failed.most:
            raise StageFailed(failed.sentence())
        context.warn(f"{failed.sentence()}; a failed completion counts as wrong")
    tables.write_scored(context.artifact / "samples.parquet", scored)
    first = first_right(scored)
    return {
        "data_hash": work.questions,
        "generation": generation_facts([one.completion for one in scored]),
        "discovery": {"by": work.search.by, "solved": first is not None, "samples": first or len(scored)},
    }


def run_gather(work: ToGather, verifier_hash: str, context: Context) -> dict[str, Any]:
    """Put the searches of all questions together, one value for each."""
    questions = context.questions(work.questions)
    verifier, protocol = make_plugin(work.verifier, Verifier), make_plugin(work.protocol, Protocol)
    every, rows = list[Scored](), list[dict[str, Any]]()
    for question, digest in zip(questions, work.found, strict=True):
        scored = tables.read_scored(context.workspace.folder("discover", digest) / "samples.parquet")
        seen = [Scored(without_failed_text(one.completion), one.score) for one in scored]
        rows.append({"question_id": question.id, "value": protocol.value(seen, verifier)})
        every += scored
    tables.write_scored(context.artifact / "samples.parquet", every)
    tables.write(context.artifact / "values.parquet", tables.VALUES, rows)
    context.progress(len(rows), len(rows), "questions")
    return {
        "data_hash": work.questions,
        "eval": {
            "metric": protocol.metric(),
            "protocol": protocol.name,
            "data_hash": work.questions,
            "verifier_hash": verifier_hash,
            "questions": len(rows),
            "samples": work.sampling.n,
            "mean": sum(row["value"] for row in rows) / len(rows) if rows else None,
        },
        **_sandboxes(work, context),
    }


def _sandboxes(work: ToGather, context: Context) -> dict[str, Any]:
    """In what the searches ran programs: the kinds, and what held in all of them; nothing where none ran any."""
    said = [context.workspace.manifest("discover", digest).sandbox for digest in work.found]
    held = [one for one in said if one is not None]
    if not held:
        return {}
    common = set.intersection(*(set(one.guarantees) for one in held))
    kinds = ", ".join(dict.fromkeys(one.kind for one in held))
    return {"sandbox": {"kind": kinds, "guarantees": [name for name in held[0].guarantees if name in common]}}


# --------------------------------------------------------------------------- verdicts and what is kept


@dataclass(frozen=True)
class Judges:
    """`solves` says what is right, `tells` what an attempt is told; they are one where the spec names one."""

    solves: Verifier
    tells: Verifier

    @classmethod
    def of(cls, work: ToDiscover) -> Judges:
        """The verifiers of a search."""
        solves = make_plugin(work.verifier, Verifier)
        return cls(solves, solves if work.train_verifier is None else make_plugin(work.train_verifier, Verifier))

    def judged(
        self, completions: Sequence[Completion], question: Question, told: Sequence[Score] | None = None
    ) -> list[Scored]:
        """Verdicts on a batch, with the feedback that the attempts were told; `told` where that is known already."""
        items = [(one, question) for one in completions]
        if told is None:
            told = list(verdicts(self.tells, items))
        right = told if self.solves is self.tells else list(verdicts(self.solves, items))
        return [
            Scored(one, replace(score, feedback=said.feedback))
            for one, score, said in zip(completions, right, told, strict=True)
        ]


@dataclass
class Shards:
    """The batches of a search on disk, by number.

    One that is broken or holds a failed completion is owed again. Where each batch follows from those before
    (`chained`) it takes all that came after with it; independent ones stay.
    """

    folder: Path
    size: int
    chained: bool = True
    batches: dict[int, list[Scored]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in self._numbers():
            if self.chained and number > len(self.batches):
                self._path(number).unlink()
            elif (batch := self._whole(number)) is not None:
                self.batches[number] = batch

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.parquet"

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("*.parquet") if path.stem.isdecimal())

    def _whole(self, number: int) -> list[Scored] | None:
        path = self._path(number)
        try:
            batch = tables.read_scored(path)
        except Broken as broken:
            path.replace(path.with_name(f"{path.name}.broken"))
            print(f"{broken}; kept as {path.name}.broken, and drawn again")
            return None
        return None if any(one.completion.failed for one in batch) else batch  # another attempt may do better

    @property
    def owed(self) -> int:
        """The first batch that is not there."""
        return next(number for number in itertools.count() if number not in self.batches)

    def keep(self, number: int, scored: Sequence[Scored]) -> None:
        """Keep a batch, in the place of one that was drawn under this number before, and of those that followed it."""
        tables.write_scored(self._path(number), scored)
        self.batches[number] = list(scored)
        if self.chained:
            for later in [one for one in self._numbers() if one > number]:
                self._path(later).unlink()
                self.batches.pop(later, None)

    def scored(self) -> list[Scored]:
        """Everything drawn, in order: up to the first batch that is owed, or that holds a right sample."""
        found: list[Scored] = []
        for number in range(self.owed):
            found += self.batches[number]
            if first_right(self.batches[number]) is not None:
                break  # an independent one that was drawn again may end the search before others that are there
        return found

    def ended(self, samples: int) -> bool:
        """Whether a right sample was drawn, or all of them."""
        return self.owed * self.size >= samples or first_right(self.scored()) is not None


# --------------------------------------------------------------------------- by an engine


def _by_engine(work: ToDiscover, question: Question, judges: Judges, drawn: Shards, context: Context) -> None:
    """Independent samples, or turns with the feedback so far."""
    assert work.engine is not None
    engine = engine_of(work.engine, context)
    ref = None if work.model is None else model_ref(work.model, context.workspace, context.device)
    turns = Turns(work, context) if work.search.by == "multi_turn" else None
    plain, given = work.prompt.render(question), work.prompt.chat_template_kwargs
    while not drawn.ended(work.search.samples):
        first = len(drawn.scored())
        upto = replace(work.sampling, n=min(first + work.search.batch, work.search.samples))
        prompt = plain if turns is None else turns.prompt(plain, drawn.scored())
        done = frozenset((question.id, sample) for sample in range(first))
        asked = [Request(question.id, prompt, first, given)]
        completions = [one for batch in engine.generate(ref, asked, upto, work.seed, done) for one in batch]
        completions = sorted((one for one in completions if one.sample >= first), key=lambda one: one.sample)
        if [one.sample for one in completions] != list(range(first, upto.n)):
            raise StageFailed(f"the engine returned {len(completions)} of {upto.n - first} samples")
        drawn.keep(drawn.owed, judges.judged(completions, question))
        context.progress(len(drawn.scored()), work.search.samples, "samples")
        if context.should_stop() and not drawn.ended(work.search.samples):
            raise Interrupted("stopped after a batch")


class Turns:
    """The prompts of a search by turns."""

    def __init__(self, work: ToDiscover, context: Context) -> None:
        from nsd.plugins.models import context_length, load_tokenizer

        assert work.model is not None  # the spec guarantees it: tokens are counted
        ref = model_ref(work.model, context.workspace)
        self.tokenizer, self.given = load_tokenizer(ref), work.prompt.chat_template_kwargs
        length = context_length(ref)
        room = work.search.feedback_tokens
        self.room = room if length is None else max(1, min(room, length - work.sampling.max_tokens))

    def prompt(self, plain: Any, before: Sequence[Scored]) -> Any:
        """The next prompt, after these attempts."""
        from nsd.plugins.trainers.turns import next_turn

        return next_turn(plain, [one.score.feedback for one in before], self.tokenizer, self.room, self.given)[0]


# --------------------------------------------------------------------------- by training


class _Ended(Exception):
    """The search is over, which ends the training: a sample is right, or it was the last batch."""


class Telling(Verifier):
    """Judges a question of which the asker has no truth by the truth; all else is the verifier's own."""

    def __init__(self, inner: Verifier, question: Question) -> None:
        super().__init__(inner.config)
        self._inner, self._question = inner, question

    def extract(self, completion: str) -> str | None:
        """As the verifier."""
        return self._inner.extract(completion)

    def normalise(self, answer: str) -> str | None:
        """As the verifier."""
        return self._inner.normalise(answer)

    def same(self, a: str, b: str) -> bool:
        """As the verifier."""
        return self._inner.same(a, b)

    def group(self, answers: Sequence[str | None]) -> list[int | None]:
        """As the verifier."""
        return self._inner.group(answers)

    def score(self, completion: str, question: Question) -> Score:
        """By the truth."""
        return self._inner.score(completion, self._question)

    def score_many(self, items: Sequence[tuple[str, Question]]) -> list[Score]:
        """By the truth."""
        return self._inner.score_many([(completion, self._question) for completion, _ in items])


def _by_training(
    work: ToDiscover, question: Question, judges: Judges, drawn: Shards, run_name: str, context: Context
) -> None:
    """Rollouts of a trainer that learns from each batch, until one is right."""
    assert work.trainer is not None and work.model is not None and work.seeds is not None
    trainer = make_plugin(work.trainer, Trainer)
    each = getattr(trainer.config, "num_iterations", 1)  # optimizer steps that learn from one batch

    def judged(step: int, rollouts: Sequence[Rollout]) -> None:
        number, first = step // each, step // each * work.search.batch
        if number > drawn.owed:
            raise ResumeRefused(
                f"{context.partial} holds a checkpoint of batch {number}, but not the samples before it: remove the "
                "folder to search anew"
            )
        completions = [
            Completion(question.id, first + place, one.text, len(one.tokens), one.stop_reason)
            for place, one in enumerate(sorted(rollouts, key=lambda one: one.sample))
        ]
        told = [one.score for one in sorted(rollouts, key=lambda one: one.sample)]
        drawn.keep(number, judges.judged(completions, question, told))
        context.progress(len(drawn.scored()), work.search.samples, "samples")
        if drawn.ended(work.search.samples):
            raise _Ended

    def report(step: int, total: int | None, metrics: Mapping[str, float]) -> None:
        pass

    def warn(text: str, spec_field: str = "", step: int | None = None) -> None:
        if step is None:  # the health of so few steps on one question that nobody solves is no news
            context.warn(text, spec_field)

    output = context.partial / "left"
    blind = without_truth(question)
    job = TrainJob(
        model=replace(model_ref(work.model, context.workspace, context.device), train_dtype=work.train_dtype),
        lora=work.lora,
        examples=[Example(blind, work.prompt.render(question), None, None, "test_questions")],
        prompt=work.prompt,
        verifier=Telling(judges.tells, question),
        seeds=work.seeds,
        budget=Budget(steps=work.search.samples // work.search.batch * each),
        output_dir=output,
        checkpoint_dir=context.partial / "checkpoints",
        report=report,
        warn=warn,
        should_stop=context.should_stop,
        device=context.device,
        run_name=run_name,
        judged=judged,
    )
    try:
        trainer.train(job)
    except _Ended:
        return
    finally:
        shutil.rmtree(output, ignore_errors=True)
    raise StageFailed(
        f"the trainer {trainer.name!r} ended after {len(drawn.scored())} of {work.search.samples} samples"
    )
