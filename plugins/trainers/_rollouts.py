"""What TRL's generation made of a step's prompts, as rollouts with their verdicts: what reward plugins are asked about.

    rollouts = Rollouts(questions, verifier, rewards)
    functions = [reward_function(name, reward, rollouts) for name, reward in rewards]     # for GRPOTrainer
    rollouts.trainer = trainer                                                            # once there is one

All rewards of a step share the same rollouts, so each completion is judged once. Where a reward says that it needs
log-probabilities or statistics of the tokens, they come from one more forward pass of the model that wrote them, with
dropout off and before the temperature; TRL keeps neither.
Limit: that pass does not go with FSDP, whose processes must make equally many; such a spec is refused.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from nsd.plugins.api import Question, Reward, Rollout, Score, StopReason, TokenStatistics, Verifier
from nsd.plugins.confidence import entropy_and_certainty, token_confidence
from nsd.plugins.errors import StageFailed


class Rollouts:
    """Makes the rollouts of a step. `questions[i].answer` is the (pseudo-)label of dataset row i."""

    def __init__(
        self, questions: Sequence[Question], verifier: Verifier, rewards: Sequence[Reward], end_tokens: set[int]
    ) -> None:
        self.questions, self.verifier, self.end_tokens = questions, verifier, end_tokens
        self.logprobs = any(reward.needs_logprobs for reward in rewards)
        self.statistics = any(reward.needs_statistics for reward in rewards)
        self.trainer: Any = None
        self._last: tuple[Any, list[Rollout]] | None = None  # TRL hands each reward of a step the same lists

    def of(
        self, prompts: Sequence[Any], texts: Sequence[str], tokens: Sequence[Sequence[int]], rows: Sequence[int]
    ) -> list[Rollout]:
        """Rollouts in order. One is cut when its last token is none of the end tokens.

        None has failed: where a model's logits are no numbers, TRL's generation ends the stage. Raises StageFailed
        where the verifier fails.
        """
        if self._last is None or self._last[0] is not tokens:
            self._last = (tokens, self._made(prompts, texts, tokens, rows))
        return self._last[1]

    def _made(
        self, prompts: Sequence[Any], texts: Sequence[str], tokens: Sequence[Sequence[int]], rows: Sequence[int]
    ) -> list[Rollout]:
        questions = [self.questions[row] for row in rows]
        drawn: Counter[int] = Counter()
        made: list[Rollout] = []
        for row, question, text, ids, score in zip(
            rows, questions, texts, tokens, self._scores(texts, questions), strict=True
        ):
            ended = bool(ids) and ids[-1] in self.end_tokens
            reason = StopReason.STOP if ended else StopReason.LENGTH
            made.append(Rollout(question, drawn[row], text, tuple(ids), reason, score))
            drawn[row] += 1
        if self.logprobs or self.statistics:
            made = [
                replace(
                    rollout,
                    logprobs=logprobs if self.logprobs else None,
                    statistics=statistics if self.statistics else None,
                )
                for rollout, (logprobs, statistics) in zip(made, self._measured(prompts, made), strict=True)
            ]
        return made

    def _scores(self, texts: Sequence[str], questions: Sequence[Question]) -> list[Score]:
        items = list(zip(texts, questions, strict=True))
        try:
            scores = self.verifier.score_many(items)
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise StageFailed(f"the verifier {type(self.verifier).__name__} failed: {told}") from error
        if len(scores) != len(items):
            raise StageFailed(
                f"the verifier {type(self.verifier).__name__} gave {len(scores)} verdicts for {len(items)} rollouts"
            )
        return scores

    def _measured(
        self, prompts: Sequence[Any], rollouts: Sequence[Rollout]
    ) -> Iterator[tuple[tuple[float, ...], TokenStatistics]]:
        trainer = self.trainer
        prompt_ids, *_ = trainer._tokenize_prompts(list(prompts))
        model = trainer.accelerator.unwrap_model(trainer.model)
        was_training = model.training
        model.eval()
        try:
            for ids, rollout in zip(prompt_ids, rollouts, strict=True):
                yield token_numbers(model, ids, rollout.tokens)
        finally:
            model.train(was_training)


def token_numbers(
    model: Any, prompt: Sequence[int], tokens: Sequence[int]
) -> tuple[tuple[float, ...], TokenStatistics]:
    """Log-probability and statistics of each of `tokens` after `prompt`, by one forward pass without padding."""
    import torch

    if not tokens:
        return (), TokenStatistics((), (), ())
    with torch.no_grad():
        ids = torch.tensor([[*prompt, *tokens]], device=model.device)
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        logprobs, confidence = token_confidence(logits, ids[0, len(prompt) :])
        entropy, certainty = entropy_and_certainty(logits)
    found = [tuple(one.tolist()) for one in (logprobs, entropy, confidence, certainty)]
    return found[0], TokenStatistics(*found[1:])


def reward_function(name: str, reward: Reward, rollouts: Rollouts) -> Callable[..., list[float]]:
    """A TRL reward function that asks a reward plugin.

    Raises StageFailed, naming the reward, where the plugin fails or returns what is no number.
    """

    def score(
        prompts: list[Any], completions: list[Any], completion_ids: list[list[int]], example: list[int], **_: Any
    ) -> list[float]:
        texts = [text if isinstance(text, str) else str(text[-1]["content"]) for text in completions]
        made = rollouts.of(prompts, texts, completion_ids, example)
        try:
            values = [float(value) for value in reward.rewards(made)]
        except Exception as error:
            raise StageFailed(f"reward {name!r} failed: {type(error).__name__}: {error}") from error
        if len(values) != len(made) or not all(map(math.isfinite, values)):
            raise StageFailed(f"reward {name!r} returned {len(values)} values for {len(made)} rollouts, or no numbers")
        return values

    score.__name__ = name
    return score
