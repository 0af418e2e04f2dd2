"""From a validated spec to stages: what will run, in which order, under which digest.

A stage is one of

    train    a model from a start model and examples
    sample   completions of a model for the unlabeled or the test questions
    label    pseudo-labels from samples, or from the hidden truth
    discover a search for a solution of one test question, which may train
    score    verdicts on the samples of the test questions, and one value for each question

and its digest is the sha256 of its `key`: everything that can change its output and nothing else
(no paths, inference batch sizes, worker counts, and no value that equals its default). Inputs enter by their
own digests, so two conditions, or two specs, that share a stage run it once. Sampling is a stage of its own, for
it is the costly part: labelers that differ in threshold, ties or target alone share it, and another verifier,
metric or gold answer scores what is there.

`build_plan` reads the data (content hashes are part of the keys) and loads no model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nsd.plugins.api import Question, Sampling, Shown, Trainer, TrainSeeds
from nsd.plugins.datasets.split import data_hash
from nsd.plugins.errors import InputError
from nsd.plugins.large import Parts
from nsd.plugins.seeds import stream
from nsd.runner.plan.budget import budget, example_count
from nsd.runner.plan.claimed import check_claims, notes_on_groups, notes_on_looks
from nsd.runner.plan.discovery import Searched, roles, searched_questions
from nsd.runner.plan.jobs import (
    Asking,
    ModelJob,
    SourceJob,
    StageJob,
    ToGather,
    ToLabel,
    ToSample,
    ToScore,
    ToTrain,
    ValidationJob,
)
from nsd.runner.plan.keys import (
    SCHEME,
    Values,
    block_job,
    block_key,
    completed,
    prompt_key,
    shortened,
    values_of,
    values_of_record,
)
from nsd.runner.plan.model import Plan, PlannedRun, Stage, Truth
from nsd.runner.plan.notes import (
    notes_on_greedy,
    notes_on_leaks,
    notes_on_match,
    notes_on_repeats,
    notes_on_searches,
    notes_on_test_questions,
    notes_on_validation,
)
from nsd.runner.plan.questions import Questions
from nsd.runner.spec.digest import digest_config
from nsd.runner.spec.model import Condition, Experiment, beside_name
from nsd.runner.spec.sources import WITHOUT_ANSWERS, pool_of
from nsd.runner.store.workspace import digest_of

SMOKE_STEPS = 2
DRAWN = ("engine", "model", "prompt", "sampling", "seed", "generated_tokens")  # of a score stage's samples


def build_plan(
    experiment: Experiment,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    smoke: bool = False,
    pin: bool = False,
    repeats: int = 0,
) -> Plan:
    """Resolve data and digests. Raises InputError for impossible splits, unknown conditions or models.

    `repeats` adds that many further evaluations of every run (an A/A comparison), after everything else.

    `pin` asks the hub for the commit of a model that the local cache does not know: a run needs it, because digests
    hold the commit and would change once the model is downloaded.
    """
    if repeats < 0:
        raise InputError(f"{repeats} repeated evaluations: name one or more, or 0 for none")
    return _Builder(experiment, smoke, pin).build(only, tuple(seeds) or experiment.seeds, repeats)


def spec_digest(experiment: Experiment) -> str:
    """Digest of everything the spec says, hypotheses included; resources, trackers and defaults left out."""
    said = {
        "scheme": SCHEME,
        "name": experiment.name,
        "seeds": list(experiment.seeds),
        "conditions": {name: condition.to_digest() for name, condition in experiment.conditions.items()},
        "hypotheses": experiment.hypotheses.to_json() if experiment.hypotheses else None,
        "match": digest_config(experiment.match),
    }
    if experiment.validation is not None:
        said["validation"] = experiment.validation.to_digest()
    return digest_of(json.loads(json.dumps(said, default=str)))


@dataclass(frozen=True)
class _Trained:
    """A model in the plan: the spec's base where `digest` is None, else a train stage's output."""

    condition: Condition
    digest: str | None


class _Builder:
    def __init__(self, experiment: Experiment, smoke: bool, pin: bool) -> None:
        self.experiment = experiment
        self.smoke = smoke
        self.pin = pin
        self._revisions: dict[tuple[str, str | None], str | None] = {}
        self.stages: dict[str, Stage] = {}
        self.notes: list[str] = []
        self.questions = Questions(experiment, smoke, self.notes)
        self._final: dict[tuple[str, int], tuple[_Trained, str | None]] = {}
        self._evaluated: list[tuple[PlannedRun, Condition, _Trained]] = []

    def build(self, only: Sequence[str], seeds: tuple[int, ...], repeats: int = 0) -> Plan:
        conditions = self._chosen(only)
        name = self.experiment.name + ("-smoke" if self.smoke else "")
        runs: list[PlannedRun] = []
        # Conditions outermost would leave the second seed of the first arm to the very end of a long
        # run; seeds outermost gives one complete experiment first.
        for seed in seeds:
            for condition in conditions:
                self.questions.check_gold(condition)
                for label, measured in condition.measured():
                    self.questions.check_evaluation(label, condition, measured)
                self._model_of(condition, seed)
                runs.extend(self._runs_of(condition, seed, name))
        chosen = [condition.name for condition in conditions]
        check_claims(self.experiment, self.questions, chosen)
        self._repeat(repeats)
        plan = Plan(
            experiment=self.experiment,
            name=name,
            spec_digest=spec_digest(self.experiment),
            stages=self.stages,
            runs=runs,
            data=self.questions.data,
            notes=self.notes,
        )
        plan.notes.extend(
            [
                *notes_on_test_questions(plan),
                *notes_on_searches(plan),
                *notes_on_match(plan),
                *notes_on_leaks(plan, self.questions),
                *notes_on_looks(self.experiment, len(seeds), chosen),
                *notes_on_groups(self.experiment, self.questions, chosen),
                *notes_on_greedy([measured for one in conditions for _, measured in one.measured()]),
                *self._validation_notes(conditions),
            ]
        )
        return plan

    def _chosen(self, only: Sequence[str]) -> list[Condition]:
        unknown = [name for name in only if name not in self.experiment.conditions]
        if unknown:
            there_are = ", ".join(self.experiment.conditions)
            raise InputError(f"no condition {unknown[0]!r} in {self.experiment.path}: there are {there_are}")
        return [condition for name, condition in self.experiment.conditions.items() if not only or name in only]

    # ------------------------------------------------------------------ models

    def _model_of(self, condition: Condition, seed: int) -> tuple[_Trained, str | None]:
        """The condition's final model and the label stage of its last round; plans what they need."""
        if (condition.name, seed) not in self._final:
            if not condition.train_on:
                self._final[condition.name, seed] = (_Trained(condition, None), None)
            else:
                *_, last = self._rounds(condition, seed)
                self._final[condition.name, seed] = last
        return self._final[condition.name, seed]

    def _rounds(self, condition: Condition, seed: int) -> list[tuple[_Trained, str | None]]:
        teacher: _Trained | None = None
        if condition.label_with is not None:
            teacher, _ = self._model_of(self.experiment.conditions[condition.label_with], seed)
        rounds: list[tuple[_Trained, str | None]] = []
        for number in range(1, condition.rounds + 1):
            label = self._label(condition, teacher, seed, number) if "pseudo" in condition.train_on else None
            student = _Trained(condition, self._train(condition, teacher, label, seed, number))
            rounds.append((student, label))
            teacher = student
        return rounds

    def _runs_of(self, condition: Condition, seed: int, name: str) -> list[PlannedRun]:
        runs = []
        rounds = self._rounds(condition, seed) if condition.rounds > 1 else []
        numbered = [(f"{condition.name}@round{n}", model, label) for n, (model, label) in enumerate(rounds[:-1], 1)]
        final, label = self._model_of(condition, seed)
        for run_condition, model, run_label in [*numbered, (condition.name, final, label)]:
            for number, (measurement, measured) in enumerate(condition.measured()):
                named = run_condition if measurement is None or not number else beside_name(run_condition, measurement)
                run = PlannedRun(
                    run=f"{name}/{named}/seed{seed}",
                    condition=named,
                    seed=seed,
                    eval_digest=self._eval(measured, named, model, seed),
                    train_digest=model.digest,
                    label_digest=run_label,
                    measurement=measurement,
                    beside=number > 0,
                )
                runs.append(run)
                self._evaluated.append((run, measured, model))
        return runs

    def _repeat(self, times: int) -> None:
        """Plan further evaluations of every run, last of all: the answer itself does not wait for them."""
        for number in range(1, times + 1):
            for run, condition, model in self._evaluated:
                run.repeats.append(self._eval(condition, run.condition, model, run.seed, repeat=number))
        if times:
            self.notes.extend(notes_on_repeats([condition for _, condition, _ in self._evaluated]))

    def _base_identity(self, condition: Condition) -> dict[str, Any]:
        from nsd.plugins.models import identity

        return identity(condition.weights, self._revision(condition), condition.model.dtype)

    def _revision(self, condition: Condition) -> str | None:
        from nsd.plugins import models

        model = condition.model
        if not self.pin:
            return model.revision
        wanted = (condition.weights, model.revision)
        if wanted not in self._revisions:
            self._revisions[wanted] = models.pin(*wanted) or model.revision
        return self._revisions[wanted]

    def _model_key(self, model: _Trained) -> dict[str, Any]:
        if model.digest:
            return {"train": model.digest}
        base = self._base_identity(model.condition)
        default = type(model.condition.model).model_fields["dtype"].default
        told = {name: value for name, value in base.items() if (name, value) != ("dtype", default)}
        return {"base": Values(told, base)}

    def _model_job(self, model: _Trained) -> ModelJob:
        from nsd.plugins.models import resolve

        return ModelJob(
            path=resolve(model.condition.weights),
            revision=self._revision(model.condition),
            dtype=model.condition.model.dtype,
            train=model.digest,
        )

    # ------------------------------------------------------------------ stages

    def _add(self, stage: Stage, condition: str, seed: int) -> str:
        known = self.stages.setdefault(stage.digest, stage)
        user = f"{condition}/seed{seed}"
        if user not in known.used_by:
            known.used_by.append(user)
        return stage.digest

    def _stage(
        self,
        kind: str,
        key: dict[str, Any],
        inputs: dict[str, str | None],
        job: StageJob,
        size: str,
        drawn: dict[str, Any] | None = None,
    ) -> Stage:
        given = {role: digest for role, digest in inputs.items() if digest is not None}
        its_key = {"scheme": SCHEME, "kind": kind, **shortened(key)}
        settings = {"kind": kind, **(drawn or {}), **completed(key)}
        return Stage(kind, digest_of(its_key), its_key, given, job, size, settings=settings)

    def _sample(
        self,
        condition: Condition,
        model: _Trained,
        questions: Sequence[Question],
        sampling: Sampling,
        seed: int,
        what: str = "questions",
        within: int | None = None,
        asking: Condition | None = None,
    ) -> Stage:
        """Completions of a model for some questions, as this condition's engine and prompt draw them.

        Of the questions ids and texts alone are in its key: a hidden or corrected answer draws nothing anew. `asking`
        is the condition whose labeler is asked between rounds how many more it wants.
        """
        needs_model = condition.engine.cls.needs_model
        if model.digest is not None and not needs_model:
            raise InputError(
                f"condition {condition.name!r}: the engine {condition.engine.use!r} loads no weights, so it would "
                "ignore the training"
            )
        key = {
            "engine": block_key(condition.engine),
            "model": self._model_key(model) if needs_model else None,
            **prompt_key(condition.prompt, without=["separator"]),
            "sampling": values_of_record(sampling),
            "questions": self.questions.digests(questions).texts,
            "seed": seed,
        }
        if within is not None:
            key["generated_tokens"] = within
        if asking is not None:
            key["rounds"] = {"labeler": _voting_key(asking), "verifier": block_key(asking.training_verifier)}
        job = ToSample(
            engine=block_job(condition.engine),
            model=self._model_job(model) if needs_model else None,
            prompt=condition.prompt,
            sampling=sampling,
            uses_every_gpu=condition.engine.make().uses_every_gpu,
            served=condition.engine.cls.served,
            questions=self.questions.keep(questions),
            seed=seed,
            generated_tokens=within,
            asking=None if asking is None else _asking(asking),
            least_rows=condition.engine.cls.least_rows,
        )
        at_most = "" if asking is None else "up to "
        size = f"{len(questions)} {what} x {at_most}{_times(sampling, within)}"
        return self._stage("sample", key, {"model": model.digest if needs_model else None}, job, size)

    def _label(self, condition: Condition, teacher: _Trained | None, seed: int, round_number: int) -> str:
        assert condition.labeler is not None  # the spec guarantees it where pseudo is trained on
        asked = self._questions(condition, "pseudo")
        labeler = condition.labeler.make()
        sampling = labeler.sampling()
        samples: str | None = None
        label_seed = stream(seed, "label", round_number)
        if sampling is not None:
            if teacher is None:
                raise InputError(
                    f"condition {condition.name!r}: this labeler samples a model; say which with label_with"
                )
            # Prompt, engine and model are the labelling condition's own; round 1 relabels with the teacher.
            source = teacher.condition if round_number == 1 else condition
            asking = condition if labeler.in_rounds else None
            its_seed = stream(seed, "rollout", round_number)
            stage = self._sample(source, teacher, asked, sampling, its_seed, asking=asking)
            samples = self._add(stage, condition.name, seed)
        labeler_key = _voting_key(condition) if samples else block_key(condition.labeler)
        stage = self._stage(
            "label",
            {
                "labeler": labeler_key,
                "verifier": block_key(condition.training_verifier),
                "samples": samples,
                "questions": self.questions.keep(asked),
                "seed": label_seed,
            },
            {"samples": samples},
            ToLabel(
                labeler=block_job(condition.labeler),
                verifier=block_job(condition.training_verifier),
                questions=self.questions.keep(asked),
                seed=label_seed,
            ),
            f"{len(asked)} questions",
        )
        return self._add(stage, condition.name, seed)

    def _train(
        self, condition: Condition, teacher: _Trained | None, label: str | None, seed: int, round_number: int
    ) -> str:
        assert condition.trainer is not None
        splits = self.questions.splits(condition)
        start = _Trained(condition, None)
        if condition.init == "teacher":
            if teacher is None:
                raise InputError(
                    f"condition {condition.name!r}: init: teacher needs a teacher; name one with label_with"
                )
            start = teacher
        sources = [self._source(condition, source, label) for source in condition.train_on]
        trainer = condition.trainer.make()
        assert isinstance(trainer, Trainer)
        seeds = {name: stream(seed, name, round_number) % 2**31 for name in ("init", "order", "rollout")}
        budget_key, budget_job = budget(self.experiment, condition, self.questions.splits, self.questions.keep)
        lora = condition.model.lora
        key: dict[str, Any] = {
            "trainer": block_key(condition.trainer),
            "start": self._model_key(start),
            **prompt_key(condition.prompt),
            "train_on": [_source_key(source) for source in sources],
            "seeds": seeds,
        }
        if lora:
            key["lora"] = values_of(lora)
        if condition.model.train_dtype not in (None, start.condition.model.dtype):
            key["train_dtype"] = condition.model.train_dtype
        if not trainer.needs_targets:
            key["verifier"] = block_key(condition.training_verifier)
        if budget_key:
            key["match"] = budget_key
        validation_key, validation = self._validation(condition, seed)
        if validation is not None:
            key["validation"] = validation_key
        if self.smoke:
            key["smoke_steps"] = SMOKE_STEPS
        job = ToTrain(
            trainer=block_job(condition.trainer),
            verifier=block_job(condition.training_verifier),
            model=self._model_job(start),
            lora=lora,
            train_dtype=condition.model.train_dtype,
            prompt=condition.prompt,
            train_on=tuple(sources),
            seeds=TrainSeeds(**seeds),
            seed=seed,
            budget=budget_job,
            processes=self.experiment.resources.processes or 1,
            track=tuple(self.experiment.track),
            max_steps_cap=SMOKE_STEPS if self.smoke else None,
            validation=validation,
        )
        count = example_count(condition, splits)
        at_most = "up to " if "pseudo" in condition.train_on else ""
        # Of a budget in tokens or seconds only the run can tell the steps.
        steps = budget_job.steps or (None if str(budget_job) else trainer.planned_steps(count))
        if self.smoke and steps:
            steps = min(steps, SMOKE_STEPS)
        size = f"{at_most}{count} examples" + (
            f", {steps} steps" if steps else f", {budget_job}" * bool(str(budget_job))
        )
        stage = self._stage("train", key, {"start": start.digest, "labels": label}, job, size)
        stage.truth = self._truth(condition)
        return self._add(stage, condition.name, seed)

    def _validation(self, condition: Condition, seed: int) -> tuple[dict[str, Any], ValidationJob | None]:
        """What a training is watched by, as its key and its worker have it; nothing where the spec says nothing."""
        wanted = self.experiment.validation
        if wanted is None:
            return {}, None
        questions = self.questions.keep(self.questions.validation(condition))
        protocol = condition.eval if wanted.protocol is None else wanted.protocol
        its_seed = stream(seed, "validation")
        key = {
            "questions": questions,
            "every": wanted.every,
            "keep": wanted.keep,
            "protocol": block_key(protocol),
            "verifier": block_key(condition.verifier),
            "seed": its_seed,
        }
        judges = block_job(protocol), block_job(condition.verifier)
        return key, ValidationJob(questions, wanted.every, wanted.keep, *judges, its_seed)

    def _truth(self, condition: Condition) -> Truth | None:
        """The hidden answers of what a condition trains on, None where there are none or nobody can vote on them."""
        verifier = condition.training_verifier
        if not verifier.cls.votes:
            return None
        sources = [source for source in condition.train_on if source in (*WITHOUT_ANSWERS, "pseudo")]
        known = Parts(*(self.questions.answered(self._questions(condition, source)) for source in sources))
        if not known:
            return None
        known_by = digest_of([data_hash(known), shortened(block_key(verifier))])
        return Truth(known, block_job(verifier), known_by)

    def _validation_notes(self, conditions: Sequence[Condition]) -> list[str]:
        if self.experiment.validation is None:
            return []
        trained = [condition for condition in conditions if condition.train_on]
        questions = self.questions
        sizes = {one.name: (len(questions.watched.of(one)), len(questions.whole(one).labeled)) for one in trained}
        return notes_on_validation(self.experiment, sizes)

    def _questions(self, condition: Condition, source: str) -> Sequence[Question]:
        """The questions of a source of `train_on`, with all that is known of them."""
        found: Sequence[Question] = getattr(self.questions.splits(condition), pool_of(source, condition.label_on))
        return found

    def _source(self, condition: Condition, source: str, label: str | None) -> SourceJob:
        questions = self._questions(condition, source)
        if source == "pseudo":
            return SourceJob(source, self.questions.keep(questions), label, self.questions.shown(condition))
        if source in WITHOUT_ANSWERS:
            questions = self.questions.without_answers(condition, questions)
        return SourceJob(source, self.questions.keep(questions))

    def _eval(
        self, condition: Condition, run_condition: str, model: _Trained, seed: int, repeat: int | None = None
    ) -> str:
        protocol = condition.eval.make()
        if protocol.search() is not None:
            return self._search(condition, run_condition, model, seed, repeat)
        test = self.questions.evaluated(condition)
        what = "validation questions" if protocol.on_validation else "test questions"
        sampling, within = protocol.sampling(), protocol.generated_tokens()
        eval_seed = stream(seed, "eval") if repeat is None else stream(seed, "eval", repeat)
        drawing = self._sample(condition, model, test, sampling, eval_seed, what, within)
        drawing.repeat = repeat
        samples = self._add(drawing, run_condition, seed)
        stage = self._stage(
            "score",
            {
                "protocol": block_key(condition.eval),
                "verifier": block_key(condition.verifier),
                "samples": samples,
                "questions": self.questions.keep(test),
            },
            {"samples": samples},
            ToScore(
                protocol=block_job(condition.eval),
                verifier=block_job(condition.verifier),
                questions=self.questions.keep(test),
                sampling=sampling,
                seed=eval_seed,
            ),
            f"{len(test)} questions x {_times(sampling, within)}",
            drawn={name: drawing.settings[name] for name in DRAWN if name in drawing.settings},
        )
        stage.repeat = repeat
        return self._add(stage, run_condition, seed)

    def _search(self, condition: Condition, run_condition: str, model: _Trained, seed: int, repeat: int | None) -> str:
        """A stage for each question, and one that gathers their values."""
        protocol = condition.eval.make()
        search = protocol.search()
        assert search is not None
        if self.smoke:  # fewer samples, each drawn as always
            search = replace(search, samples=min(search.samples, SMOKE_STEPS * search.batch))
        needs_model = condition.engine.cls.needs_model
        questions = searched_questions(condition, self.questions)
        searched = Searched(
            condition,
            search,
            replace(protocol.sampling(), n=search.samples),
            self._model_key(model) if needs_model else None,
            self._model_job(model) if needs_model else None,
            stream(seed, "eval") if repeat is None else stream(seed, "eval", repeat),
        )
        found = []
        for question in questions:
            key, job = searched.stage(self.questions.keep(self.questions.alone(question)))
            size = f"question {question.id}, up to {search.samples} samples by {search.by}"
            stage = self._stage("discover", key, {"model": model.digest if needs_model else None}, job, size)
            stage.repeat = repeat
            found.append(self._add(stage, run_condition, seed))
        together = self.questions.keep(questions)
        blocks = {"protocol": condition.eval, "verifier": condition.verifier}
        key = {name: block_key(block) for name, block in blocks.items()} | {"found": found, "questions": together}
        jobs = {name: block_job(block) for name, block in blocks.items()}
        gather = ToGather(together, searched.seed, **jobs, sampling=searched.sampling, found=tuple(found))
        size = f"{len(questions)} questions x up to {search.samples} samples"
        stage = self._stage("score", key, dict(roles(found)), gather, size, drawn=completed(searched.drawn()))
        stage.repeat = repeat
        return self._add(stage, run_condition, seed)


def _voting_key(condition: Condition) -> dict[str, Any]:
    """The part of a key that says how a condition's labeler votes, whichever samples it votes on."""
    assert condition.labeler is not None
    key = block_key(condition.labeler)
    return {**key, "config": key["config"].without([f for f in condition.labeler.cls.sampling_fields if f != "k"])}


def _asking(condition: Condition) -> Asking:
    assert condition.labeler is not None
    return Asking(block_job(condition.labeler), block_job(condition.training_verifier))


def _times(sampling: Sampling, within: int | None) -> str:
    return str(sampling.n) if within is None else f"as many as {within:,} tokens hold"


def _source_key(source: SourceJob) -> dict[str, Any]:
    """What of a source enters the key: pseudo-labels by their stage, which has their questions in its own key."""
    if source.source != "pseudo":
        return {"source": source.source, "data": source.data}
    shown = {} if source.shown == Shown() else {"shown": source.shown.to_json()}
    return {"source": source.source, "labels": source.labels, **shown}
