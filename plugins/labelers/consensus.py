"""`consensus`: samples K completions of each question and takes the answer most of them agree on.

    labeler: {use: consensus, k: 8, temperature: 0.7, max_tokens: 256, threshold: 0.75}

Votes are counted over the verifier's classes of normalised answers (18, 18. and 18.0 are one answer), ties go to
the answer seen first. The label is the winning class's most frequent answer. The confidence is the winner's votes
divided by K: samples without an answer stay in the denominator, and so do failed ones, which have no answer whatever
their text says. A label is kept for training if its confidence is at least `threshold`.

The training target is a whole completion that gave an answer of the winning class: the first (as in the noisy-student
study), the shortest in tokens (the first of equals), or a random one (drawn from the stage's seed and the
question's id).

`stop_vote` ends a question's vote before its K samples are drawn (labelers/stopping.py, docs/votes.md):

- `exact`: where no continuation changes whether it is kept, its label or its first agreeing completion. Kept questions,
  labels and targets are those of the full vote; needs `target: first`. A rejected question keeps the label that led
  when it stopped, which the full vote may not give.
- `adaptive`: also where the winner is the more likely of the two leading answers with the chance `stop_confidence`.
- `esc`: also where a window of `stop_window` samples is unanimous.

After the last two the confidence is votes / drawn, so labels and what is kept may differ from the full vote's; after
`exact` it is votes / K, the least share that can have agreed. (`stop` are the texts at which a completion ends.)

Limit: the vote measures agreement, not truth; a model that is confidently wrong labels confidently wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from nsd.plugins.api import Completion, Labeler, PseudoLabel, Question, Sampling, Verifier
from nsd.plugins.labelers import stopping
from nsd.plugins.registry import plugin
from nsd.plugins.sampled import SampledConfig
from nsd.plugins.seeds import stream
from nsd.plugins.verifiers.voting import majority


@plugin("labeler", "consensus")
class Consensus(Labeler):
    """Majority vote of K samples."""

    version = 2
    needs_votes = True
    one_by_one = True
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
        stop_vote: Literal["exact", "adaptive", "esc"] | None = Field(
            default=None,
            description="Draw no more samples of a question once its vote is decided (exact) or nearly so (adaptive, "
            "esc); null draws all K.",
        )
        stop_confidence: float = Field(
            default=0.95, gt=0.5, lt=1, description="adaptive: chance that the leading answer is the more likely one."
        )
        stop_window: int = Field(default=4, ge=2, description="esc: samples in a row that must give one answer.")

        @field_validator("stop", mode="before")
        @classmethod
        def _not_the_vote(cls, given: Any) -> Any:
            for rule in ("exact", "adaptive", "esc"):
                if given in (rule, [rule]):
                    raise ValueError(f"stop lists texts that end a completion; the vote's end is stop_vote: {rule}")
            return given

        @model_validator(mode="after")
        def _decidable(self) -> Self:
            if self.stop_vote == "exact" and self.target != "first":
                raise ValueError(
                    f"target: {self.target} chooses among all K samples, so stop_vote: exact cannot end before them; "
                    "take target: first, or leave stop_vote out"
                )
            return self

    config: Config

    def sampling(self) -> Sampling:
        """K samples of each question."""
        return self.config.sampling(self.config.k)

    @property
    def in_rounds(self) -> bool:
        """Whether the vote may stop early."""
        return self.config.stop_vote is not None

    def more(self, question: Question, completions: Sequence[Completion], verifier: Verifier) -> int:
        """Further samples before which the vote cannot stop; 0 where it does."""
        return self._more(_answers(completions[: self.config.k], verifier), verifier)

    def asked(self, question: Question, completions: Sequence[Completion], verifier: Verifier) -> int:
        """See Labeler.asked; each text is read once."""
        answers, wanted = _answers(completions[: self.config.k], verifier), 0
        while wanted <= len(answers) and (more := self._more(answers[:wanted], verifier)) > 0:
            wanted += more
        return wanted

    def _more(self, answers: stopping.Answers, verifier: Verifier) -> int:
        config = self.config
        ballot = stopping.Ballot.of(config.k, config.threshold)
        match config.stop_vote:
            case None:
                return max(0, config.k - len(answers))
            case "exact":
                return stopping.exact(answers, ballot, verifier)
            case "adaptive":
                return stopping.adaptive(answers, ballot, verifier, config.stop_confidence)
            case "esc":
                return stopping.windows(answers, ballot, verifier, config.stop_window)

    def expected_share(self, histogram: Mapping[int, int] | None = None, of: int = 0) -> float:
        """See Labeler.expected_share; without a histogram that of the noisy-student study is taken."""
        if self.config.stop_vote is None:
            return 1.0
        if not histogram:
            histogram, of = stopping.PUBLISHED_HISTOGRAM, stopping.PUBLISHED_K
        by_text = Verifier()
        return stopping.expected_share(lambda answers: self._more(answers, by_text), self.config.k, histogram, of)

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
        drawn = None
        if self.in_rounds:
            completions = completions[: self.asked(question, completions, verifier)]
            drawn = len(completions)
        vote = majority(_answers(completions, verifier), verifier)
        confidence = vote.votes / (drawn or k if self.config.stop_vote in ("adaptive", "esc") else k)
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
            drawn=drawn,
        )

    def _target(self, agreeing: Sequence[Completion], question: Question, seed: int) -> str:
        if self.config.target == "shortest":
            return min(agreeing, key=lambda completion: completion.tokens).text
        if self.config.target == "random":
            return agreeing[stream(seed, "target", question.id) % len(agreeing)].text
        return agreeing[0].text


def _answers(completions: Sequence[Completion], verifier: Verifier) -> list[str | None]:
    return [None if completion.failed else verifier.extract(completion.text) for completion in completions]
