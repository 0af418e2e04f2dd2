"""`unfiltered`: one sample of each question is its label and training target, whatever it says.

    labeler: {use: unfiltered, temperature: 1.0, max_tokens: 2048}

There is no vote and no filter: an answer that nobody can read is copied like any other, and only a completion that
failed, which has no text, is left out. It is the control of self-distillation: what does plain fine-tuning on the
model's own samples do, without any information beside them? With `label_on: labeled` the samples are of the very
questions that the other arms train on.

The confidence is 1 where an answer can be read and 0 elsewhere: a single sample tells no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from nsd.plugins.api import Completion, Labeler, PseudoLabel, Question, Sampling, Verifier
from nsd.plugins.registry import plugin
from nsd.plugins.sampled import SampledConfig


@plugin("labeler", "unfiltered")
class Unfiltered(Labeler):
    """A model's own samples as they come."""

    one_by_one = True

    class Config(SampledConfig):
        temperature: float = Field(default=1.0, ge=0)

    config: Config

    def sampling(self) -> Sampling:
        """One sample of each question."""
        return self.config.sampling(1)

    def label(
        self,
        questions: Sequence[Question],
        samples: Mapping[str, Sequence[Completion]],
        verifier: Verifier,
        seed: int,
    ) -> list[PseudoLabel]:
        """One label per question, in order, from its first sample; one without any gets no label."""
        return [self._own(question, samples.get(question.id, ()), verifier) for question in questions]

    def _own(self, question: Question, completions: Sequence[Completion], verifier: Verifier) -> PseudoLabel:
        sample = next(iter(completions), None)
        usable = sample is not None and not sample.failed
        text = sample.text if sample is not None and usable else None
        answer = None if text is None else verifier.extract(text)
        votes = int(answer is not None)
        return PseudoLabel(
            question_id=question.id,
            label=answer,
            target=text,
            confidence=float(votes),
            votes=votes,
            k=1,
            kept=usable,
            tally={} if answer is None else {answer: 1},
        )
