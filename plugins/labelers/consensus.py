"""`consensus`: samples K completions of each question and takes the answer most of them agree on.

    labeler: {use: consensus, k: 8, temperature: 0.7, max_tokens: 256, threshold: 0.75}

Votes are counted over the verifier's classes of normalised answers (18, 18. and 18.0 are one answer), ties go to
the answer seen first. The label is the winning class's most frequent answer. The confidence is the winner's votes
divided by K: samples without an answer stay in the denominator, and so do failed ones, which have no answer whatever
their text says. A label is kept for training if its confidence is at least `threshold`.

The training target is a whole completion that gave an answer of the winning class: the first (as in the noisy-student
study), the shortest in tokens (the first of equals), or a random one (drawn from the stage's seed and the
question's id).

Limit: the vote measures agreement, not truth; a model that is confidently wrong labels confidently wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from nsd.plugins.api import Completion, Labeler, PseudoLabel, Question, Sampling, Verifier
from nsd.plugins.registry import plugin
from nsd.plugins.sampled import SampledConfig
from nsd.plugins.seeds import stream
from nsd.plugins.verifiers.voting import majority


@plugin("labeler", "consensus")
class Consensus(Labeler):
    """Majority vote of K samples."""

    version = 2
    needs_votes = True
    needs_different_samples = True

    class Config(SampledConfig):
        k: int = Field(default=8, ge=1, description="Samples of each question.")
        temperature: float = Field(default=0.7, ge=0)
        threshold: float = Field(
            default=0.0, ge=0, le=1, description="Least share of the K samples that must agree for a label to be used."
        )
        target: Literal["first", "shortest", "random"] = Field(
            default="first", description="Which agreeing completion becomes the training target."
        )

    config: Config

    def sampling(self) -> Sampling:
        """K samples of each question."""
        return self.config.sampling(self.config.k)

    def label(
        self,
        questions: Sequence[Question],
        samples: Mapping[str, Sequence[Completion]],
        verifier: Verifier,
        seed: int,
    ) -> list[PseudoLabel]:
        """One label per question, in order; a question without any sample gets no label."""
        return [self._vote(question, samples.get(question.id, ()), verifier, seed) for question in questions]

    def _vote(
        self, question: Question, completions: Sequence[Completion], verifier: Verifier, seed: int
    ) -> PseudoLabel:
        k = self.config.k
        # Labelling may have drawn more than this vote's K: arms that differ in K can share samples.
        completions = completions[:k]
        answers = [None if completion.failed else verifier.extract(completion.text) for completion in completions]
        vote = majority(answers, verifier)
        confidence = vote.votes / k
        agreeing = [completions[index] for index in vote.agreeing]
        return PseudoLabel(
            question_id=question.id,
            label=vote.winner,
            target=self._target(agreeing, question, seed) if agreeing else None,
            confidence=confidence,
            votes=vote.votes,
            k=k,
            kept=vote.winner is not None and confidence >= self.config.threshold,
            tally=vote.tally,
        )

    def _target(self, agreeing: Sequence[Completion], question: Question, seed: int) -> str:
        if self.config.target == "shortest":
            return min(agreeing, key=lambda completion: completion.tokens).text
        if self.config.target == "random":
            return agreeing[stream(seed, "target", question.id) % len(agreeing)].text
        return agreeing[0].text
