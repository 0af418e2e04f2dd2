"""Rollouts of a training: drawn from the model that learns, and judged once.

    drawer = drawer_of(config, job, model, tokenizer, draws, device)           # nsd's own decode loop, or vLLM
    drawn = drawer.draw([Asked(row, sample, question_id, ids), ...], step)
    rollouts = judge(questions, drawn, verifier)

A rollout's random stream is `stream(stream(seed, step), question, sample)`: it depends on nothing that was drawn before
it, on no other question and on no number of processes. So trainers with one seed draw the same first rollouts, whatever
they make of them.

All rewards of a step share the rollouts, so each completion is judged once. Where a reward says that it needs
log-probabilities or statistics of the tokens, they come from one more forward pass of the model that wrote them, with
dropout off and before the temperature.
Limit: neither that pass nor the decode loop goes with FSDP, whose processes must make equally many passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from nsd.plugins.api import (
    KeptRollout,
    Prompt,
    Question,
    Reward,
    Rollout,
    Sampling,
    Score,
    StopReason,
    TokenStatistics,
    Verifier,
)
from nsd.plugins.confidence import entropy_and_certainty, token_confidence
from nsd.plugins.errors import StageFailed
from nsd.plugins.seeds import stream


@dataclass(frozen=True, slots=True)
class Asked:
    """A rollout that is wanted: row of the examples, number among the question's, and the prompt as token ids."""

    row: int
    sample: int
    question_id: str
    ids: list[int]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn for it. `tokens` hold the end token, where it `ended` by one. `logprob` is their mean."""

    asked: Asked
    text: str
    tokens: list[int]
    ended: bool
    logprob: float | None = None


def bare(model: Any) -> Any:
    """The transformers model inside what trains it: peft's own class takes any arguments, and says nothing of a cache.

    Adapters stay in its layers.
    """
    inner = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "peft_config") else inner


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model without dropout."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def sampling_of(config: Any, draws: int) -> Sampling:
    """How a training draws so many rollouts of each question."""
    return Sampling(draws, config.temperature, config.max_tokens, top_p=config.top_p, top_k=config.top_k)


class Drawer:
    """Draws from a model while it trains. `model` is the bare one: not wrapped for several processes, adapters in it.

    `seed` is the training's rollout seed; `sampling.n` is how many rollouts a question gets.
    """

    def __init__(self, model: Any, tokenizer: Any, prompt: Prompt, sampling: Sampling, seed: int) -> None:
        from nsd.plugins.engines.asking import with_turn_end
        from nsd.plugins.engines.hf_rows import facts

        loaded = facts(bare(model), tokenizer)
        self.loaded = with_turn_end(loaded, prompt.chat_template_kwargs) if prompt.chat else loaded
        self.sampling, self.seed = sampling, seed
        self.refused: list[int] = []  # rows that did not fit in memory at once

    def draw(self, asked: Sequence[Asked], step: int) -> list[Drawn]:
        """One completion for each, in order; `step` counts the optimizer steps done.

        Raises StageFailed for a prompt that leaves no room in the model's context, and where the model's logits are no
        numbers.
        """
        context = self.loaded.context
        for one in asked:
            if not one.ids or (context is not None and len(one.ids) >= context):
                raise StageFailed(
                    f"the prompt of question {one.question_id} has {len(one.ids)} tokens, and the model's context "
                    f"{context}: no room for a completion; leave the question out, or take a model with a longer one"
                )
        return self._drawn(asked, step)

    def _drawn(self, asked: Sequence[Asked], step: int) -> list[Drawn]:
        """The same for prompts that fit."""
        from nsd.plugins.engines.asking import AskedPrompt
        from nsd.plugins.engines.hf_rows import in_shards, texts_of
        from nsd.plugins.engines.hf_sizes import batch_shape

        loaded, model = self.loaded, self.loaded.model
        prompts = {one.question_id: AskedPrompt(one.question_id, one.ids) for one in asked}
        rows = [(prompts[one.question_id], one.sample) for one in asked]
        shape = batch_shape(model, self.sampling, max(len(one.ids) for one in asked), None)
        slots, seed = shape.prompts * shape.samples, stream(self.seed, step)
        with evaluating(model):
            ((_, found),) = in_shards(loaded, [rows], self.sampling, seed, slots, self.refused)
        if any(one.failed for one in found):
            raise StageFailed(
                f"the model's logits are no longer finite numbers before step {step + 1}: training has diverged; lower "
                "trainer.learning_rate"
            )
        texts = texts_of(loaded, found)
        return [
            Drawn(one, text, made.tokens, made.ended, None if made.confidence is None else made.confidence.logprob)
            for one, text, made in zip(asked, texts, found, strict=True)
        ]

    def end(self) -> None:
        """Let go of what it draws with."""

    def notes(self) -> dict[str, Any]:
        """What the training's result says of what drew, where that is not nsd's own decode loop."""
        return {}


def judge(questions: Sequence[Question], drawn: Sequence[Drawn], verifier: Verifier) -> list[Rollout]:
    """The drawn completions as rollouts, in order, each judged by its question's (pseudo-)label.

    Raises StageFailed where the verifier fails.
    """
    asked = [questions[one.asked.row] for one in drawn]
    scores = verdicts(verifier, [(one.text, question) for one, question in zip(drawn, asked, strict=True)])
    return [
        Rollout(
            question,
            one.asked.sample,
            one.text,
            tuple(one.tokens),
            StopReason.STOP if one.ended else StopReason.LENGTH,
            score,
        )
        for one, question, score in zip(drawn, asked, scores, strict=True)
    ]


def verdicts(verifier: Verifier, items: Sequence[tuple[str, Question]]) -> list[Score]:
    """One verdict for each completion, in order. Raises StageFailed where the verifier fails."""
    try:
        scores = verifier.score_many(items)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise StageFailed(f"the verifier {type(verifier).__name__} failed: {told}") from error
    if len(scores) != len(items):
        raise StageFailed(
            f"the verifier {type(verifier).__name__} gave {len(scores)} verdicts for {len(items)} rollouts"
        )
    return scores


def verdict_numbers(scores: Sequence[Score]) -> dict[str, float]:
    """The sum of each further number of some verdicts, which all have the same ones, in the order of their names."""
    names = sorted({name for score in scores for name in score.numbers})
    return {name: math.fsum(score.numbers.get(name, 0.0) for score in scores) for name in names}


def measured(
    rollouts: Sequence[Rollout], prompts: Sequence[Sequence[int]], model: Any, rewards: Sequence[Reward]
) -> list[Rollout]:
    """The same rollouts with what the rewards ask of their tokens, by `model`; unchanged where none asks."""
    logprobs = any(reward.needs_logprobs for reward in rewards)
    statistics = any(reward.needs_statistics for reward in rewards)
    if not (logprobs or statistics):
        return list(rollouts)
    return [
        replace(rollout, logprobs=found if logprobs else None, statistics=numbers if statistics else None)
        for rollout, (found, numbers) in zip(rollouts, _numbers(rollouts, prompts, model), strict=True)
    ]


def _numbers(
    rollouts: Sequence[Rollout], prompts: Sequence[Sequence[int]], model: Any
) -> Iterator[tuple[tuple[float, ...], TokenStatistics]]:
    with evaluating(model):
        for ids, rollout in zip(prompts, rollouts, strict=True):
            yield token_numbers(model, ids, rollout.tokens)


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


def example_question(example: Any) -> Any:
    """The question whose answer is the (pseudo-)label."""
    return replace(example.question, answer=example.answer)


def kept_rollout(
    step: int, rollout: Rollout, reward: float, masked: bool = False, teacher_input: str | None = None
) -> KeptRollout:
    """A rollout as it is kept for the report."""
    return KeptRollout(
        step,
        rollout.question.id,
        rollout.sample,
        rollout.text,
        len(rollout.tokens),
        rollout.stop_reason,
        rollout.score.answer,
        rollout.score.score,
        float(reward),
        masked,
        teacher_input,
    )
