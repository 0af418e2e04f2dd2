"""What the tests of on-policy trainers share: a verifier with a spread on noise, what was drawn, passes in float64.

`Noise` judges by the length of a text, so that a random model succeeds in some rollouts. `batches(monkeypatch)` hears
what a training draws, with token ids, which no text of noise gives back. `Plain` is a model by transformers alone, in
float64 and without padding, against which a trainer's numbers are held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import KeptRollout, Question, Rollout, Score, TrainJob, Verifier
from nsd.plugins.trainers import _loop
from training_job import Events, job, train

SMALL: dict[str, Any] = {
    "learning_rate": 2e-3,
    "lr_scheduler": "constant",
    "steps": 1,
    "prompts_per_step": 2,
    "num_generations": 4,
    "max_tokens": 10,
    "temperature": 0.9,
    "max_grad_norm": 100.0,
}


class Noise(Verifier):
    """A text is right where its length is a multiple of 3, and has feedback where it is no multiple of 2 either.

    Its answer is its length modulo 4, none for 3; 0 and 2 are the same answer.
    """

    needs_answer = False

    def extract(self, completion: str) -> str | None:
        return None if len(completion) % 4 == 3 else str(len(completion) % 4)

    def same(self, a: str, b: str) -> bool:
        return int(a) % 2 == int(b) % 2

    def score(self, completion: str, question: Question) -> Score:
        right, said = len(completion) % 3 == 0, len(completion) % 2
        feedback = f"it has {len(completion)} characters" if said and not right else None
        return Score(float(right), right, self.extract(completion), feedback)


class Never(Noise):
    """Nothing is right, and there is nothing to say."""

    def score(self, completion: str, question: Question) -> Score:
        return Score(0.0, False, self.extract(completion))


def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[Rollout]]:
    """The rollouts of each batch that a training samples from now on, in a list that grows."""
    heard: list[list[Rollout]] = []
    inner = _loop.judge

    def judge(*given: Any) -> list[Rollout]:
        heard.append(inner(*given))
        return heard[-1]

    monkeypatch.setattr(_loop, "judge", judge)
    return heard


def training(
    kind: str, config: Mapping[str, Any], folder: Path, model: Any, **changes: Any
) -> tuple[Events, list[KeptRollout]]:
    """Run a trainer on `Noise`'s verdicts; what it reported, and which rollouts it kept."""
    events, kept = Events(), list[KeptRollout]()
    given: dict[str, Any] = {"verifier": Noise(), "keep": kept.extend} | changes
    made = made_job(folder, model, events, **given)
    train(kind, {**SMALL, **config}, made)
    return events, kept


def made_job(folder: Path, model: Any, events: Events, **changes: Any) -> TrainJob:
    """A job with `Noise`'s verdicts."""
    return job(folder, model, events, **({"verifier": Noise()} | changes))


class Plain:
    """A model in a folder as transformers alone has it, in float64."""

    def __init__(self, folder: Path, temperature: float = SMALL["temperature"]) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        self.tokenizer, self.temperature = AutoTokenizer.from_pretrained(folder), temperature

    def logits(self, prompt: str, tokens: Sequence[int]) -> Any:
        """[T, V], those that each of `tokens` was drawn by after `prompt`, over the temperature."""
        import torch

        before = self.tokenizer(prompt)["input_ids"]
        ids = torch.tensor([[*before, *tokens]])
        return self.model(input_ids=ids).logits[0, len(before) - 1 : -1] / self.temperature

    def logp(self, prompt: str, tokens: Sequence[int]) -> Any:
        """[T], of the tokens."""
        import torch

        return self.logits(prompt, tokens).log_softmax(-1).gather(-1, torch.tensor([list(tokens)]).T).squeeze(-1)

    def gradient_norm(self, loss: Any) -> float:
        """Over all weights."""
        self.model.zero_grad()
        loss.backward()
        squares = [p.grad.pow(2).sum().item() for p in self.model.parameters() if p.grad is not None]
        return float(sum(squares) ** 0.5)

    def moved(self, other: Plain, rate: float) -> Plain:
        """(1 - rate) of this one's weights and `rate` of the other's, by numpy."""
        import torch

        theirs = dict(other.model.named_parameters())
        for name, value in self.model.named_parameters():
            mixed = (1 - rate) * value.detach().numpy() + rate * theirs[name].detach().numpy()
            value.data = torch.from_numpy(mixed)
        return self


def prompt_of(rollout: Rollout) -> str:
    """What a student read: the job's template."""
    return f"Add: {rollout.question.text}"
