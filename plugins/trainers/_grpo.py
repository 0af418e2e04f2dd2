"""Feeds TRL's GRPOTrainer: rollouts by nsd's decode loop, rewards by plugins, rollouts kept for the report.

    rollouts = TrlRollouts(job, rewards)
    trainer_class = fed(GRPOTrainer, rollouts, job, config)
    ... reward_funcs=[reward_function(name, reward, rollouts) for name, reward in rewards]
    rollouts.bind(trainer)

TRL asks for token ids in the narrowest place, `_generate_single_turn`, and does the rest as it always does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from nsd.plugins.api import Reward, Rollout, TrainJob
from nsd.plugins.trainers._rewards import Named, values_of, weight_of
from nsd.plugins.trainers._rollouts import (
    Asked,
    Drawer,
    Drawn,
    example_question,
    judge,
    kept_rollout,
    measured,
    sampling_of,
    verdict_numbers,
)


class TrlRollouts:
    """The rollouts of a step, made of what TRL hands its reward functions."""

    def __init__(self, job: TrainJob, rewards: Named) -> None:
        self.job, self.rewards = job, rewards
        self.questions = [example_question(example) for example in job.examples]
        self.end_tokens: set[int] = set()
        self.trainer: Any = None
        self._last: tuple[Any, list[Rollout]] | None = None  # TRL hands each reward of a step the same lists
        self.values: dict[str, list[float]] = {}  # what the rewards of the step said

    def bind(self, trainer: Any) -> None:
        """Take the trainer that was built with these rollouts."""
        self.trainer = trainer
        self.end_tokens = set(trainer.eos_token_ids)

    def of(
        self, prompts: Sequence[Any], texts: Sequence[str], tokens: Sequence[Sequence[int]], rows: Sequence[int]
    ) -> list[Rollout]:
        """Rollouts in order. One is cut when its last token is none of the end tokens.

        None has failed: where a model's logits are no numbers, the drawing ends the stage. Raises StageFailed where
        the verifier fails.
        """
        if self._last is None or self._last[0] is not tokens:
            self.values = {}
            self._last = (tokens, self._made(prompts, texts, tokens, rows))
        return self._last[1]

    def _made(
        self, prompts: Sequence[Any], texts: Sequence[str], tokens: Sequence[Sequence[int]], rows: Sequence[int]
    ) -> list[Rollout]:
        samples = self.trainer.nsd_samples
        drawn = [
            Drawn(
                Asked(row, sample, self.questions[row].id, []),
                text,
                list(ids),
                bool(ids) and ids[-1] in self.end_tokens,
            )
            for row, sample, text, ids in zip(rows, samples, texts, tokens, strict=True)
        ]
        rollouts = judge(self.questions, drawn, self.job.verifier)
        self.job.judged(int(self.trainer.state.global_step), rollouts)
        rewards = [reward for _, reward in self.rewards]
        if not any(reward.needs_logprobs or reward.needs_statistics for reward in rewards):
            return rollouts
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        prompt_ids, *_ = self.trainer._tokenize_prompts(list(prompts))
        return measured(rollouts, prompt_ids, model, rewards)

    def keep(self, step: int) -> None:
        """Hand the step's rollouts, of all processes, to whoever keeps them."""
        from accelerate.utils import gather_object

        assert self._last is not None
        self._note_numbers(self._last[1])
        weights = {name: weight_of(reward) for name, reward in self.rewards}
        totals = [
            sum(weights[name] * value for name, value in zip(self.values, row, strict=True))
            for row in zip(*self.values.values(), strict=True)
        ]
        kept = [kept_rollout(step, rollout, total) for rollout, total in zip(self._last[1], totals, strict=True)]
        self.job.keep(gather_object(kept) if self.trainer.accelerator.num_processes > 1 else kept)

    def _note_numbers(self, rollouts: Sequence[Rollout]) -> None:
        """Add the further numbers of the verdicts to TRL's metrics: their means over the rollouts of all processes."""
        import torch

        accelerator = self.trainer.accelerator
        for name, total in verdict_numbers([one.score for one in rollouts]).items():
            sums = torch.tensor([total, float(len(rollouts))], dtype=torch.float64, device=accelerator.device)
            sums = accelerator.reduce(sums, "sum") if accelerator.num_processes > 1 else sums
            self.trainer._metrics["train"][name].append((sums[0] / sums[1]).item())


def reward_function(name: str, reward: Reward, rollouts: TrlRollouts) -> Callable[..., list[float]]:
    """A TRL reward function that asks a reward plugin.

    Raises StageFailed, naming the reward, where the plugin fails or returns what is no number.
    """

    def score(
        prompts: list[Any], completions: list[Any], completion_ids: list[list[int]], example: list[int], **_: Any
    ) -> list[float]:
        texts = [text if isinstance(text, str) else str(text[-1]["content"]) for text in completions]
        made = rollouts.of(prompts, texts, completion_ids, example)
        rollouts.values[name] = values_of(name, reward, made)
        return rollouts.values[name]

    score.__name__ = name
    return score


def fed(base: Any, rollouts: TrlRollouts, job: TrainJob, config: Any) -> Any:
    """A GRPO trainer that draws its rollouts as `config.rollout` says, counts their tokens and keeps them."""

    class Fed(base):  # type: ignore[misc]  # a class of TRL's, which has no types
        nsd_drawer: Drawer | None = None
        nsd_samples: list[int]
        nsd_seconds = 0.0  # that the last drawing took

        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Any:
            step = int(self.state.global_step)
            # The rows of all processes stand one after another, so a group may be cut between two of them.
            before = self.accelerator.process_index * len(inputs)
            self.nsd_samples = [(before + place) % self.num_generations for place in range(len(inputs))]
            self.nsd_rows = [one["example"] for one in inputs]
            made = super()._generate_and_score_completions(inputs)
            rollouts.keep(step)
            return made

        def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            if config.rollout != "hf":
                found, logprobs = super()._generate_single_turn(prompt_ids, *args, **kwargs)
            else:
                found, logprobs = self._decoded(prompt_ids), None
            self.nsd_seconds = time.monotonic() - began
            counted = sum(map(len, found))
            if self.accelerator.num_processes > 1:
                import torch

                counted = int(self.accelerator.reduce(torch.tensor(counted, device=self.args.device)).item())
            self.nsd_run.generated += counted
            return found, logprobs

        def _decoded(self, prompt_ids: list[list[int]]) -> list[list[int]]:
            if self.nsd_drawer is None:
                model = self.accelerator.unwrap_model(self.model)
                sampling = sampling_of(config, config.num_generations)
                self.nsd_drawer = Drawer(model, self.processing_class, job.prompt, sampling, job.seeds.rollout)
            asked = [
                Asked(row, sample, rollouts.questions[row].id, list(ids))
                for row, sample, ids in zip(self.nsd_rows, self.nsd_samples, prompt_ids, strict=True)
            ]
            with self.accelerator.autocast():
                return [one.tokens for one in self.nsd_drawer.draw(asked, int(self.state.global_step))]

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            if "loss" in logs:
                logs["generated_tokens"] = float(self.nsd_run.generated)
                logs["step_time/sampling"] = self.nsd_seconds
            super().log(logs, *args, **kwargs)

    Fed.__name__ = base.__name__
    return Fed
