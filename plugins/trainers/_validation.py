"""Watches a training by questions that it does not train on, and keeps the best weights.

    watch = Watch(trainer, tokenizer, job, job.validation)
    watch.resume(step)                  # of the checkpoint that the run goes on from, None: it begins
    if watch.due(step, ended): job.report(step, total, watch.measure(step))
    watch.tidy()                        # whenever a checkpoint was written
    watch.deliver(last_step)            # at the end

A measurement is an evaluation of the model in memory: the `hf` engine draws, with dropout off and the random streams of
the validation's own seed, and leaves the global random state alone, so that a watched training takes the steps that it
would take unwatched. Several processes share the questions.

What was measured lies in `checkpoint_dir/validation.json`. The best weights lie in `best-STEP` beside it, whole or not
there. The best of every checkpoint that a run may go on from stays until that checkpoint goes, so that a kill right
after a better measurement loses nothing. A run that goes on from an earlier step measures again what came after.
Limit: not with FSDP.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nsd.plugins.api import Completion, Request, Scored, TrainJob, Validation
from nsd.plugins.api import Score as Verdict
from nsd.plugins.durable import flush, write_atomically
from nsd.plugins.errors import ResumeRefused
from nsd.plugins.trainers import _checkpoints, _saving
from nsd.plugins.trainers._rollouts import bare, evaluating, example_question, verdicts

HISTORY = "validation.json"
BEST = "best-"
MARKER = "nsd.json"


@dataclass(frozen=True)
class Point:
    """A measurement: the mean over the questions after `step` optimizer steps, and the tokens that it drew."""

    step: int
    value: float
    tokens: int


def best_of(points: list[Point]) -> Point | None:
    """The best measurement, the first of equals."""
    return max(points, key=lambda point: point.value, default=None)


class Watch:
    """Measures, remembers, and keeps the best weights where the validation says so."""

    def __init__(self, trainer: Any, tokenizer: Any, job: TrainJob, validation: Validation) -> None:
        self.trainer, self.tokenizer, self.job, self.validation = trainer, tokenizer, job, validation
        self.folder = job.checkpoint_dir
        self.questions = [example_question(one) for one in validation.examples]
        self.points: list[Point] = []

    # ----------------------------------------------------------------- before and between

    def resume(self, step: int | None) -> None:
        """Take up what was measured until `step`, and forget the rest; None forgets all.

        Raises ResumeRefused where what was measured, or the weights that are to be kept, are gone.
        """
        path = self.folder / HISTORY
        if step is not None:
            try:
                found = [Point(**one) for one in json.loads(path.read_text(encoding="utf-8"))]
            except (OSError, ValueError, TypeError) as error:
                raise self._gone(step, HISTORY) from error
            self.points = [point for point in found if point.step <= step]
            best = best_of(self.points)
            if self._keeps and (best is None or not (self._place(best) / MARKER).is_file()):
                raise self._gone(step, HISTORY if best is None else self._place(best).name)
        self.trainer.accelerator.wait_for_everyone()  # before the first process changes what the others read
        if self.trainer.is_world_process_zero():
            self._write()
            self.tidy()

    def _gone(self, step: int, name: str) -> ResumeRefused:
        return ResumeRefused(
            f"{self.folder} holds a checkpoint of step {step}, but not the {name} of its validation: remove the folder "
            "to train anew"
        )

    def due(self, step: int, ended: bool = False) -> bool:
        """Whether to measure after this many steps, which may be where the run ended."""
        return (ended or step % self.validation.every == 0) and all(point.step != step for point in self.points)

    def tidy(self) -> None:
        """Delete the best weights that no checkpoint can come back to. For the first process."""
        steps = [marker.step for _, marker in _checkpoints.whole(self.folder)]
        reached = [self.points, *([point for point in self.points if point.step <= step] for step in steps)]
        needed = {self._place(best) for points in reached if self._keeps and (best := best_of(points)) is not None}
        for path in self.folder.glob(f"{BEST}*"):
            if path not in needed:
                shutil.rmtree(path, ignore_errors=True)

    # ----------------------------------------------------------------- a measurement

    def measure(self, step: int) -> dict[str, float]:
        """Measure the model as it is, and keep its weights where they are the best so far; the point of the curve.

        Every process must call it. Raises StageFailed where the verifier fails.
        """
        found = sorted(self._gathered(self._share()))
        value = math.fsum(value for _, value, _ in found) / len(found)
        point = Point(step, value, sum(tokens for *_, tokens in found))
        best = best_of(self.points)
        if self._keeps and (best is None or value > best.value):
            self._save(point)
        self.points.append(point)
        if self.trainer.is_world_process_zero():
            self._write()
            self.tidy()
        self.trainer.accelerator.wait_for_everyone()
        return {f"validation/{self.validation.protocol.metric()}": value}

    def _share(self) -> list[tuple[int, float, int]]:
        """Number, value and drawn tokens of each question of this process's share."""
        accelerator, validation = self.trainer.accelerator, self.validation
        places = range(accelerator.process_index, len(self.questions), accelerator.num_processes)
        drawn = self._drawn([self._request(place) for place in places])
        judged = self._judged([one for place in places for one in drawn[self.questions[place].id]])
        found = []
        for place in places:
            completions = drawn[self.questions[place].id]
            scored = [Scored(one, judged[one.question_id, one.sample]) for one in completions]
            value = validation.protocol.value(scored, validation.verifier)
            found.append((place, float(value), sum(one.tokens for one in completions)))
        return found

    def _request(self, place: int) -> Request:
        example = self.validation.examples[place]
        given = self.job.prompt.chat_template_kwargs
        return Request(self.questions[place].id, example.prompt, chat_template_kwargs=given)

    def _drawn(self, requests: list[Request]) -> Mapping[str, list[Completion]]:
        """The completions of each question, in order of sample number."""
        from nsd.plugins.engines.hf import OnHeldModel

        trainer, sampling = self.trainer, self.validation.protocol.sampling()
        model = trainer.accelerator.unwrap_model(trainer.model)
        engine = OnHeldModel(bare(model), self.tokenizer)
        with evaluating(model), trainer.accelerator.autocast():
            batches = engine.generate(self.job.model, requests, sampling, self.validation.seed)
            completions = [one for batch in batches for one in batch]
        found: dict[str, list[Completion]] = {request.question_id: [] for request in requests}
        for one in sorted(completions, key=lambda one: one.sample):
            found[one.question_id].append(one)
        return found

    def _judged(self, completions: list[Completion]) -> Mapping[tuple[str, int], Verdict]:
        questions = {question.id: question for question in self.questions}
        whole = [one for one in completions if not one.failed]
        scores = verdicts(self.validation.verifier, [(one.text, questions[one.question_id]) for one in whole])
        found = dict.fromkeys(((one.question_id, one.sample) for one in completions), Verdict(0.0, False, None))
        return found | {(one.question_id, one.sample): score for one, score in zip(whole, scores, strict=True)}

    def _gathered(self, share: list[tuple[int, float, int]]) -> list[tuple[int, float, int]]:
        if self.trainer.accelerator.num_processes == 1:
            return share
        from accelerate.utils import gather_object

        return list(gather_object(share))

    # ----------------------------------------------------------------- what is kept

    @property
    def _keeps(self) -> bool:
        return self.validation.keep == "best"

    def _place(self, point: Point) -> Path:
        return self.folder / f"{BEST}{point.step}"

    def _write(self) -> None:
        write_atomically(self.folder / HISTORY, json.dumps([asdict(point) for point in self.points]))

    def _save(self, point: Point) -> None:
        """Write the weights as they are, under a name that says so once they are whole."""
        place = self._place(point)
        temporary = place.with_name(f"{place.name}.tmp")
        first = self.trainer.is_world_process_zero()
        if first:
            shutil.rmtree(temporary, ignore_errors=True)
        _saving.write(self.trainer, self.tokenizer, self.job, temporary, merge=False)
        if first:
            for file in temporary.rglob("*"):
                if file.is_file():
                    flush(file)
            write_atomically(temporary / MARKER, json.dumps({"step": point.step, "value": point.value}))
            shutil.rmtree(place, ignore_errors=True)
            temporary.rename(place)
            flush(self.folder)

    def kept(self, last: int) -> Point:
        """The measurement whose weights the training leaves; `last` is the step at which it ended."""
        best = best_of(self.points) if self._keeps else None
        return self.points[-1] if best is None or best.step == last else best

    def deliver(self, last: int) -> bool:
        """Put the weights that are to be kept in their place; False where they are the last ones, which nobody wrote.

        They stay where they were too: a run that is killed now ends once more.
        """
        kept = self.kept(last)
        if kept.step == last:
            return False
        if self.job.lora is not None and not _saving.adapter_only(self.job):
            _saving.load_adapter(self.trainer, self._place(kept))
            return False  # the weights in memory are the kept ones now
        if self.trainer.is_world_process_zero():
            _copy(self._place(kept), self.job.output_dir)
        self.trainer.accelerator.wait_for_everyone()
        return True

    def notes(self, last: int) -> dict[str, Any]:
        """What the result says of it."""
        kept, best = self.kept(last), best_of(self.points)
        assert best is not None
        return {
            "metric": self.validation.protocol.metric(),
            "questions": len(self.validation.examples),
            "kept": self.validation.keep,
            "kept_step": kept.step,
            "best_step": best.step,
            "best": best.value,
            "last": self.points[-1].value,
            "tokens": sum(point.tokens for point in self.points),
        }


def _copy(source: Path, target: Path) -> None:
    """Copy a folder's weights; where the file system can, as another name of the same file."""
    for path in source.rglob("*"):
        if path.is_dir() or path == source / MARKER:
            continue
        there = target / path.relative_to(source)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.unlink(missing_ok=True)
        try:
            os.link(path, there)
        except OSError:
            shutil.copy2(path, there)
