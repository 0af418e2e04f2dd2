"""`discovery`: whether a solution of each question is found within a number of samples, and after how many.

    eval: {use: discovery, samples: 64}                                                  # best of k
    eval: {use: discovery, samples: 64, by: multi_turn}                                  # feedback in the prompt
    eval: {use: discovery, samples: 64, by: training, trainer: {use: sdpo, ...}}         # feedback in the weights

One question at a time, each a stage of its own. Three ways with the same number of samples:

    sampling     independent samples, `batch` at a time
    multi_turn   the prompt is the question and the feedback on every attempt so far, without the attempts; above
                 `feedback_tokens` the oldest feedback is left out
    training     a trainer takes steps on this question alone, from the arm's weights, and is told of each rollout no
                 more than the verdict and its feedback: test-time self-distillation (SDPO, arXiv 2601.20802, its last
                 section). Each question starts from the same weights

It ends with the batch in which the verifier takes a sample for right. The number of the first right sample counts, in
the order of drawing, so that the size of a batch gives no advantage but of learning less often.

A question's value is the share of the budget that was left: (samples + 1 - n) / samples where the n-th sample is the
first right one, 0 where none is. Its mean is the share of questions solved within n samples, averaged over n from 1 to
`samples`: the area under the discovery curve. The weights that a question was solved with are not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from nsd.plugins.api import NestedPlugin, Protocol, Sampling, Scored, Search, Trainer, Verifier
from nsd.plugins.registry import find, plugin
from nsd.plugins.sampled import SampledConfig


@plugin("protocol", "discovery")
class Discovery(Protocol):
    """The share of the sample budget that finding a solution leaves."""

    class Config(SampledConfig):
        by: Literal["sampling", "multi_turn", "training"] = Field(
            default="sampling",
            description="Independent samples, feedback on the attempts before in the prompt, or a trainer's steps.",
        )
        samples: int = Field(default=64, ge=1, description="Samples of a question at most.")
        batch: int = Field(default=8, ge=1, description="Samples drawn at a time; a trainer and turns have their own.")
        temperature: float = Field(default=1.0, gt=0)
        feedback_tokens: int = Field(default=32000, ge=1, description="Tokens of a prompt of multi_turn at most.")
        questions: list[str] | None = Field(
            default=None, min_length=1, description="Ids of test questions; null takes all of them."
        )
        trainer: Annotated[dict[str, Any] | None, NestedPlugin("trainer")] = Field(
            default=None, description="What learns, with by: training."
        )

        @model_validator(mode="after")
        def _one_way(self) -> Discovery.Config:
            if self.by == "training" and self.trainer is None:
                raise ValueError("by: training needs a 'trainer', such as {use: sdpo, num_generations: 8}")
            if self.by != "training" and self.trainer is not None:
                raise ValueError(f"'trainer' has no effect with by: {self.by}: write by: training, or remove it")
            if self.by == "sampling" and self.samples % self.batch:
                raise ValueError(f"samples {self.samples} is no multiple of batch {self.batch}")
            if self.by == "sampling" and self.top_k == 1 and self.samples > 1:
                raise ValueError(f"at 'top_k' 1 all {self.samples} samples of a question are the same: leave it out")
            if self.by != "multi_turn" and self.feedback_tokens != type(self).model_fields["feedback_tokens"].default:
                raise ValueError(f"'feedback_tokens' has no effect with by: {self.by}: remove it")
            return self

    config: Config

    def metric(self) -> str:
        """Its name tells the budget: areas of different budgets are no comparison."""
        return f"discovery@{self.config.samples}"

    def sampling(self) -> Sampling:
        """The whole budget."""
        return self.config.sampling(self.config.samples)

    def trainer(self) -> Trainer | None:
        """What learns, None where nothing does."""
        if self.config.trainer is None:
            return None
        fields = {name: value for name, value in self.config.trainer.items() if name != "use"}
        cls = find("trainer", self.config.trainer["use"])
        made = cls(cls.Config.model_validate(fields))
        assert isinstance(made, Trainer)
        return made

    def search(self) -> Search:
        """As configured; a trainer draws its own number at a time."""
        config, trainer = self.config, self.trainer()
        batch = {"sampling": config.batch, "multi_turn": 1, "training": None}[config.by]
        if batch is None:
            batch = (trainer and trainer.rollouts_of_a_question()) or 1
        return Search(config.by, config.samples, batch, config.feedback_tokens if config.by == "multi_turn" else 0)

    def value(self, scored: Sequence[Scored], verifier: Verifier) -> float:
        """The share of the budget that was left; 0 where no sample is right."""
        first = first_right(scored[: self.config.samples])
        return 0.0 if first is None else (self.config.samples + 1 - first) / self.config.samples


def first_right(scored: Sequence[Scored]) -> int | None:
    """The number of the first right sample, from 1; None where there is none."""
    return next((number for number, one in enumerate(scored, 1) if one.score.correct), None)
