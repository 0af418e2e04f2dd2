"""What each kind of stage does, inside a worker process.

`run_stage(job, context)` does the work of one stage in `context.partial` and returns what its manifest
says beyond the common facts. Everything here resumes: completions are kept in shards, training in its
checkpoints. Heavy packages are loaded by the plugins, when they are used.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nsd.plugins.api import (
    Budget,
    Completion,
    Example,
    KeptRollout,
    Labeler,
    Protocol,
    PseudoLabel,
    Question,
    Sandboxed,
    Score,
    Scored,
    Trainer,
    TrainJob,
    Validation,
    Verifier,
    without_truth,
)
from nsd.plugins.errors import StageFailed
from nsd.runner.plan.jobs import ToDiscover, ToGather, ToLabel, ToSample, ToScore, ToTrain
from nsd.runner.store import tables
from nsd.runner.store.workspace import digest_of
from nsd.runner.work.blocks import block_size
from nsd.runner.work.context import Context
from nsd.runner.work.discovering import run_discover, run_gather
from nsd.runner.work.drawing import model_ref, run_sample, stored_completions, stream_stored
from nsd.runner.work.failures import without_failed_text
from nsd.runner.work.jobs import Job, make_plugin
from nsd.runner.work.score import Scoring

KEPT = ("question_id", "label", "target", "kept")  # columns of labels that training looks at


def run_stage(job: Job, context: Context) -> dict[str, Any]:
    """Do one stage. Raises Interrupted, StageFailed, InputError or whatever a plugin raises."""
    match job.work:
        case ToTrain() as work:
            return run_train(work, f"{job.experiment}/{job.used_by[0]}", context)
        case ToSample() as work:
            return run_sample(work, job.settings, context)
        case ToLabel() as work:
            return run_label(work, job.inputs.get("samples"), context)
        case ToScore() as work:
            return run_score(work, job.inputs["samples"], digest_of(job.key["verifier"]), context)
        case ToDiscover() as work:
            judges = [one for one in (work.verifier, work.train_verifier) if one is not None]
            facts = run_discover(work, f"{job.experiment}/{job.used_by[0]}", context)
            return {**facts, **sandbox_facts(*(make_plugin(one, Verifier) for one in judges))}
        case ToGather() as work:
            return run_gather(work, digest_of(job.key["verifier"]), context)


# --------------------------------------------------------------------------- labels


def run_label(work: ToLabel, drawn: str | None, context: Context) -> dict[str, Any]:
    """Pseudo-labels, each also held against the hidden truth where the dataset has it.

    `drawn` is the digest of the stage with the samples, None for a labeler that wants none.
    """
    questions = context.whole_questions(work.questions)
    labeler, verifier = make_plugin(work.labeler, Labeler), make_plugin(work.verifier, Verifier)
    completions = iter(()) if drawn is None else stream_stored(drawn, context)
    told = LabelFacts()

    def labelled() -> Iterator[tuple[PseudoLabel, bool | None]]:
        for some, samples in _with_samples(questions, completions, labeler):
            asked = some if labeler.sampling() is None else [without_truth(question) for question in some]
            for label, question in zip(labeler.label(asked, samples, verifier, work.seed), some, strict=True):
                right = label_is_right(label, question, verifier)
                told.add(label, right)
                yield label, right
            context.progress(told.questions, len(questions), "labels")

    tables.write_labels(context.artifact / "labels.parquet", labelled())
    return {"data_hash": work.questions, "labels": told.to_json(), **sandbox_facts(verifier)}


def _with_samples(
    questions: Sequence[Question], completions: Iterator[Completion], labeler: Labeler
) -> Iterator[tuple[Sequence[Question], dict[str, list[Completion]]]]:
    """Questions, as many as are labelled at once, with the samples of each, which come in the questions' order."""
    sampling = labeler.sampling()
    size = block_size(1 if sampling is None else sampling.n) if labeler.in_parts else max(1, len(questions))
    ahead = next(completions, None)
    for start in range(0, max(1, len(questions)), size):
        some = list(questions[start : start + size])
        last = start + size >= len(questions)
        samples: dict[str, list[Completion]] = {question.id: [] for question in some}
        while ahead is not None and (last or ahead.question_id in samples):
            samples.setdefault(ahead.question_id, []).append(without_failed_text(ahead))
            ahead = next(completions, None)
        if start and len(samples) > len(some):
            raise StageFailed("the samples are not in the order of the questions, so that they cannot be read in parts")
        yield some, samples


def label_is_right(label: PseudoLabel, question: Question, verifier: Verifier) -> bool | None:
    """Whether a label equals the hidden truth; None where it is not known or unreadable. No label is not right."""
    gold = None if question.answer is None else verifier.normalise(question.answer)
    if gold is None:
        return None
    return label.label is not None and verifier.same(label.label, gold)


class LabelFacts:
    """Coverage, accuracy and the histogram of confidence; for votes that may stop early how many samples they saw."""

    def __init__(self) -> None:
        self.questions = 0
        self._voted, self._kept = _Share(), _Share()
        self._histogram: Counter[str] = Counter()
        self._in_rounds = False
        self._stopped = self._seen = self._at_most = 0

    def add(self, label: PseudoLabel, correct: bool | None) -> None:
        """One more label, and whether it equals the hidden truth."""
        self.questions += 1
        if label.label is not None:
            self._voted.add(correct)
        if label.kept:
            self._kept.add(correct)
        self._histogram[f"{label.confidence:.3f}"] += 1
        self._in_rounds |= label.drawn is not None
        self._stopped += label.drawn is not None and label.drawn < label.k
        self._seen += label.k if label.drawn is None else label.drawn
        self._at_most += label.k

    def to_json(self) -> dict[str, Any]:
        """What the manifest says of them."""
        facts: dict[str, Any] = {
            "questions": self.questions,
            "voted": self._voted.of,
            "kept": self._kept.of,
            "accuracy_voted": self._voted.share,
            "accuracy_kept": self._kept.share,
        }
        if self._in_rounds:  # a confidence is a range then, and has no histogram
            seen = {"stopped_early": self._stopped, "samples_seen": self._seen, "samples_at_most": self._at_most}
            return {**facts, **seen}
        return {**facts, "confidence_histogram": dict(sorted(self._histogram.items()))}


class _Share:
    """How many of some are right, where that is known."""

    def __init__(self) -> None:
        self.of = self._known = self._right = 0

    def add(self, right: bool | None) -> None:
        self.of += 1
        self._known += right is not None
        self._right += bool(right)

    @property
    def share(self) -> float | None:
        return self._right / self._known if self._known else None


def sandbox_facts(*verifiers: Verifier) -> dict[str, Any]:
    """What a manifest says of the sandboxes in which programs were judged; nothing where none was run."""
    held = [one for verifier in verifiers if (one := verifier.sandboxed()) is not None]
    if not held:
        return {}
    common = set.intersection(*(set(one.guarantees) for one in held))
    kinds = dict.fromkeys(one.kind for one in held)
    weakest = Sandboxed(", ".join(kinds), tuple(name for name in held[0].guarantees if name in common))
    return {"sandbox": weakest.to_json()}


# --------------------------------------------------------------------------- evaluation


def run_score(work: ToScore, drawn: str, verifier_hash: str, context: Context) -> dict[str, Any]:
    """Score what the stage `drawn` drew and reduce it to one value per question. Loads no model."""
    completions = stored_completions(drawn, context)
    questions = context.whole_questions(work.questions)
    verifier, protocol = make_plugin(work.verifier, Verifier), make_plugin(work.protocol, Protocol)
    by_id = {question.id: question for question in questions}

    def progress(done: int, resumed: int) -> None:
        context.progress(done, len(completions), "completions scored", resumed=resumed)

    folder, stops = context.partial / "scores", context.should_stop
    scoring = Scoring(work.verifier, folder, progress, stops, over=context.over, ray=context.ray)
    scored = scoring.of(completions, by_id)
    tables.write_scored(context.artifact / "samples.parquet", scored)
    groups: dict[str, list[Scored]] = {}
    for item in scored:
        seen = Scored(without_failed_text(item.completion), item.score)
        groups.setdefault(seen.completion.question_id, []).append(seen)
    values = {key: protocol.value(group, verifier) for key, group in groups.items()}
    rows = ({"question_id": key, "value": value} for key, value in values.items())
    # Within a number of tokens the sampling found how many samples of a question there are.
    found = max(map(len, groups.values()), default=0)
    rounds = work.sampling.n if protocol.generated_tokens() is None else found
    tables.write(context.artifact / "values.parquet", tables.VALUES, rows)
    return {
        "data_hash": work.questions,
        "eval": {
            "metric": protocol.metric(),
            "protocol": protocol.name,
            "data_hash": work.questions,
            "verifier_hash": verifier_hash,
            "questions": len(values),
            "samples": rounds,
            "mean": sum(values.values()) / len(values) if values else None,
            **({"numbers": numbers} if (numbers := mean_numbers([one.score for one in scored])) else {}),
        },
        **sandbox_facts(verifier),
    }


def mean_numbers(scores: Sequence[Score]) -> dict[str, float]:
    """The mean of each further number that verdicts carry, over the verdicts; one that lacks it counts as 0."""
    names = sorted({name for score in scores for name in score.numbers})
    return {name: sum(score.numbers.get(name, 0.0) for score in scores) / len(scores) for name in names}


# --------------------------------------------------------------------------- training


def examples_of(work: ToTrain, context: Context) -> list[Example]:
    """Training examples of every source, in the order the condition names them: of pseudo-labels those that are kept.

    Questions without answers are data of their own, in which no truth lies.
    """
    prompt = work.prompt
    examples: list[Example] = []
    for source in work.train_on:
        questions = context.whole_questions(source.data)
        if source.labels is None:
            examples += [Example(q, prompt.render(q), q.answer, q.solution, source.source) for q in questions]
            continue
        path = context.workspace.folder("label", source.labels) / "labels.parquet"
        kept = [row for rows in tables.batches(path, KEPT) for row in rows if row["kept"]]
        wanted = {row["question_id"] for row in kept}
        by_id = {question.id: question for question in questions if question.id in wanted}
        for row in kept:
            question = by_id[row["question_id"]]
            # The true answer stays hidden: a trainer sees the guessed one, and what tells nothing of the true.
            blind = replace(without_truth(question, source.shown), answer=row["label"], solution=row["target"])
            examples.append(Example(blind, prompt.render(question), row["label"], row["target"], "pseudo"))
    return examples


def run_train(work: ToTrain, run_name: str, context: Context) -> dict[str, Any]:
    """Train or resume, leave the model in artifact/model and the curves beside it. Trackers know it by `run_name`."""
    trainer, verifier = make_plugin(work.trainer, Trainer), make_plugin(work.verifier, Verifier)
    examples = examples_of(work, context)
    if not examples:
        raise StageFailed(
            "nothing to train on: no pseudo-label was kept (lower labeler.threshold, or look at "
            "the label stage's confidence histogram)"
        )
    if trainer.needs_targets and (lacking := sum(example.target is None for example in examples)):
        raise StageFailed(
            f"{lacking} of {len(examples)} examples have no solution text to imitate: trainer {trainer.name!r} "
            "needs one; map data.fields.solution, or use a trainer that learns from answers (grpo)"
        )
    curves = Curves(context.partial / "curves.jsonl", write=context.leader)

    def report(step: int, total: int | None, metrics: Mapping[str, float]) -> None:
        if context.leader:
            curves.add(step, metrics)
            context.progress(step, total, "steps", metrics=dict(metrics))

    kept = KeptRollouts(context.partial / "rollouts", write=context.leader)
    result = trainer.train(
        TrainJob(
            model=replace(model_ref(work.model, context.workspace, context.device), train_dtype=work.train_dtype),
            lora=work.lora,
            examples=examples,
            prompt=work.prompt,
            verifier=verifier,
            seeds=work.seeds,
            budget=budget_of(work, context),
            output_dir=context.artifact / "model",
            checkpoint_dir=context.partial / "checkpoints",
            report=report,
            warn=context.warn,
            should_stop=context.should_stop,
            trackers=work.track,
            device=context.device,
            run_name=run_name,
            max_steps_cap=work.max_steps_cap,
            validation=validation_of(work, context),
            keep=kept.keep,
        )
    )
    if context.leader:
        tables.write(context.artifact / "curves.parquet", tables.CURVES, curves.rows(result.steps))
        kept.merge(context.artifact / "rollouts.parquet", result.steps)
    validated = {}
    if work.validation is not None:
        validated = {"validated": "validation" in result.notes}
        if not validated["validated"]:
            context.warn(f"the trainer {trainer.name!r} measured nothing while it trained", "validation")
    sources = [example.source for example in examples]
    return {
        "training": {
            **asdict(result),
            "notes": dict(result.notes),
            **validated,
            "examples": {source: sources.count(source) for source in sorted(set(sources))},
        },
        **sandbox_facts(verifier, *([make_plugin(work.validation.verifier, Verifier)] if work.validation else [])),
    }


def budget_of(work: ToTrain, context: Context) -> Budget:
    """The matched compute of a train stage; tokens are counted with the start model's tokenizer."""
    reference = work.budget.tokens_of
    if reference is None:
        matched = work.budget
        return Budget(matched.steps, matched.tokens, matched.generated_tokens, matched.seconds)
    from nsd.plugins.chat import training_ids, turn_end
    from nsd.plugins.models import load_tokenizer

    tokenizer = load_tokenizer(model_ref(work.model, context.workspace))
    prompt = work.prompt
    given = prompt.chat_template_kwargs
    end = turn_end(tokenizer, given) if prompt.chat else None
    config = make_plugin(reference.trainer, Trainer).config
    tokens = 0
    for content_hash in reference.data:
        for question in context.questions(content_hash):
            rendered, target = prompt.render(question), question.solution or ""
            if isinstance(rendered, str):
                tokens += len(tokenizer(rendered + prompt.separator + target)["input_ids"]) + 1  # and the end token
            else:
                tokens += len(training_ids(tokenizer, rendered, target, end, given)[0])
    return Budget(tokens=round(tokens * float(getattr(config, "epochs", 1))))


def validation_of(work: ToTrain, context: Context) -> Validation | None:
    """What the training is watched by, None where the spec wants nothing; its questions are in no example."""
    wanted = work.validation
    if wanted is None:
        return None
    questions = context.whole_questions(wanted.questions)
    return Validation(
        examples=[Example(q, work.prompt.render(q), q.answer, q.solution, "labeled") for q in questions],
        every=wanted.every,
        keep=wanted.keep,
        protocol=make_plugin(wanted.protocol, Protocol),
        verifier=make_plugin(wanted.verifier, Verifier),
        seed=wanted.seed,
    )


class KeptRollouts:
    """Rollouts of a training, a file for each step: a killed run keeps them, and a step kept again replaces the first.

    Steps that a resumed training takes again are kept again, so that no file is of a step that is not its own.
    """

    def __init__(self, folder: Path, write: bool = True) -> None:
        self.folder, self._write = folder, write

    def keep(self, rollouts: Sequence[KeptRollout]) -> None:
        """Keep the rollouts of one sampled batch, all of one step."""
        if self._write and rollouts:
            tables.write_rollouts(self.folder / f"{rollouts[0].step:09d}.parquet", rollouts)

    def merge(self, path: Path, steps: int) -> None:
        """Put those of the training's steps into one file, by step; none where nothing was kept.

        A killed run under a budget of seconds may have gone further than the one that was resumed.
        """
        if parts := sorted(one for one in self.folder.glob("*.parquet") if int(one.stem) < steps):
            tables.join(path, parts)


class Curves:
    """Training metrics, appended as they come so that a killed run keeps them.

    A torn last line is a point still owed; a step reported again after a resume replaces the first.
    """

    def __init__(self, path: Path, write: bool = True) -> None:
        self.path = path
        self.points: dict[tuple[int, str], float] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    record = json.loads(line)
                    self._keep(int(record["step"]), record["metrics"])
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    continue
        self._write = write

    def _keep(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.points[step, name] = float(value)

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep a step's metrics."""
        self._keep(step, metrics)
        if self._write:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "metrics": dict(metrics)}) + "\n")

    def rows(self, steps: int | None = None) -> list[dict[str, Any]]:
        """Every point of so many steps, by step then metric."""
        return [
            {"step": step, "metric": name, "value": value}
            for (step, name), value in sorted(self.points.items())
            if steps is None or step <= steps
        ]
