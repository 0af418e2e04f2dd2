"""The stages of a search: one for each question (a protocol's `search`), and one that gathers their values.

Each question starts from the arm's weights and draws from streams of its own, so that its stage depends on no other
question: it is resumed by itself, and a question that is added later is searched alone. What decides a search is in its
key: the training of a search that trains, both verifiers, and the question with its truth, which the verdicts see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nsd.plugins.api import Question, Sampling, Search, Trainer, TrainSeeds
from nsd.plugins.seeds import stream
from nsd.runner.plan.jobs import ModelJob, ToDiscover
from nsd.runner.plan.keys import block_job, block_key, prompt_key, values_of, values_of_record
from nsd.runner.plan.questions import Questions
from nsd.runner.spec.model import Block, Condition, holds

QUESTION = "question"  # the roles of searches among a gathering's inputs begin with it


@dataclass(frozen=True)
class Searched:
    """How a condition's evaluation looks for solutions: the protocol's search, cut for a smoke run, and its parts."""

    condition: Condition
    search: Search
    sampling: Sampling
    model_key: dict[str, Any] | None
    model: ModelJob | None
    seed: int

    @property
    def trainer(self) -> Block[Trainer] | None:
        """What learns, None where nothing does."""
        return searching_trainer(self.condition)

    def drawn(self) -> dict[str, Any]:
        """What is on record of how the samples were drawn, as of any evaluation."""
        one = self.condition
        return {
            "engine": block_key(one.engine),
            "model": self.model_key,
            **prompt_key(one.prompt),
            "sampling": values_of_record(self.sampling),
            "seed": self.seed,
            "by": self.search.by,
        }

    def stage(self, question: str) -> tuple[dict[str, Any], ToDiscover]:
        """The key and the job of one question's search; `question` is its content hash."""
        one, trainer, learns = self.condition, self.trainer, self.search.by == "training"
        key: dict[str, Any] = {
            "by": self.search.by,
            "samples": self.search.samples,
            "model": self.model_key,
            **prompt_key(one.prompt, without=[] if learns else ["separator"]),
            "verifier": block_key(one.verifier),
            "question": question,
            "seed": self.seed,
        }
        told = self.search.by != "sampling" and one.train_verifier is not None
        if told:
            key["train_verifier"] = block_key(one.training_verifier)
        seeds = None
        if learns:
            assert trainer is not None
            seeds = TrainSeeds(*(stream(self.seed, name) % 2**31 for name in ("init", "order", "rollout")))
            key |= {"trainer": block_key(trainer), "seeds": vars(seeds)}
            if one.model.lora:
                key["lora"] = values_of(one.model.lora)
            if one.model.train_dtype not in (None, one.model.dtype):
                key["train_dtype"] = one.model.train_dtype
        else:
            key |= {"engine": block_key(one.engine), "sampling": values_of_record(self.sampling)}
            key |= {"batch": self.search.batch} if self.search.by == "sampling" else {}
            key |= {"feedback_tokens": self.search.feedback_tokens} if self.search.feedback_tokens else {}
        job = ToDiscover(
            questions=question,
            seed=self.seed,
            search=self.search,
            engine=None if learns else block_job(one.engine),
            trainer=block_job(trainer) if learns and trainer is not None else None,
            model=self.model,
            lora=one.model.lora if learns else None,
            train_dtype=one.model.train_dtype if learns else None,
            prompt=one.prompt,
            verifier=block_job(one.verifier),
            train_verifier=block_job(one.training_verifier) if told else None,
            sampling=self.sampling,
            seeds=seeds,
        )
        return key, job


def searching_trainer(condition: Condition) -> Block[Trainer] | None:
    """The block of the trainer inside a condition's protocol, None where there is none."""
    block = condition.eval.nested.get(("trainer",))
    return block if block is not None and holds(block, Trainer) else None


def searched_questions(condition: Condition, questions: Questions) -> Sequence[Question]:
    """The test questions that a condition's search is for. Raises InputError for an id there is not."""
    named: Sequence[str] | None = getattr(condition.eval.config, "questions", None)
    return questions.splits(condition).test if named is None else questions.named(condition, named)


def roles(digests: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The searches as a gathering's inputs have them."""
    for number, digest in enumerate(digests):
        yield f"{QUESTION}{number}", digest
