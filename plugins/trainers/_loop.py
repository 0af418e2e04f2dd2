"""The one on-policy loop, on transformers' Trainer: rollouts, one verdict each, columns, loss.

`run(algorithm, job)` trains an on-policy plugin. In a sampled batch prompts are padded on the left, completions on
the right, so that column P is the first completion token of every row. R rows, P prompt and T completion columns.

Losses are sums over tokens or rows divided by the whole step's count, over all micro batches and processes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nsd.plugins.api import TrainJob, TrainResult
from nsd.plugins.chat import prompt_ids
from nsd.plugins.trainers import _setup, _trl
from nsd.plugins.trainers._algorithm import Algorithm, Forward, Micro, Sampled
from nsd.plugins.trainers._drawers import drawer_of
from nsd.plugins.trainers._forward import forward, padded, prepared
from nsd.plugins.trainers._order import with_resumable_order
from nsd.plugins.trainers._rewards import Named, load_rewards, values_of, weight_of
from nsd.plugins.trainers._rollouts import (
    Asked,
    Drawn,
    evaluating,
    example_question,
    judge,
    kept_rollout,
    measured,
    verdict_numbers,
)
from nsd.plugins.trainers._run import Observer, Run
from nsd.plugins.trainers.health import HealthWarning

STATE = "algorithm.safetensors"

# --------------------------------------------------------------------------- the loop


def loop_class() -> Any:
    """transformers' Trainer as the on-policy loop. Made when needed: transformers is heavy."""
    from transformers import Trainer as TransformersTrainer

    class OnPolicyLoop(TransformersTrainer):  # type: ignore[misc]  # transformers has no types
        def __init__(self, algorithm: Algorithm, job: TrainJob, rewards: Named, tokenizer: Any, **parts: Any) -> None:
            config = algorithm.config
            self.algorithm, self.job, self.config, self.tokenizer = algorithm, job, config, tokenizer
            self.rewards = rewards
            self.num_generations, self.num_iterations = config.num_generations, config.num_iterations
            self.shuffle_dataset = True
            self.questions = [example_question(example) for example in job.examples]
            self._prompt_ids: dict[int, list[int]] = {}
            self._step, self._buffer = 0, list[Micro]()
            self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
            self.nothing_counts = False
            self._extra: list[tuple[Any, float | None]] = []
            super().__init__(data_collator=list, **parts)
            self.model_accepts_loss_kwargs = False
            draws = algorithm.draws_per_question()
            self.drawer = drawer_of(config, job, self.model, tokenizer, draws, self.args.device)
            algorithm.begin(self)

        # ------------------------------------------------- data

        def get_train_dataloader(self) -> Any:
            return self._get_dataloader(
                dataset=self.train_dataset,
                description="Training",
                batch_size=self._train_batch_size * self.args.steps_per_generation,
                sampler_fn=self._get_train_sampler,
                is_training=True,
            )

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            if self._step % self.args.gradient_accumulation_steps == 0:
                for module, _ in self._extra:  # transformers clears the gradients of the model alone
                    module.zero_grad()
            loss = super().training_step(*args, **kwargs)
            self._step += 1
            return loss

        def _prepare_inputs(self, rows: Any) -> Any:
            every = self.args.steps_per_generation * self.num_iterations
            if self._step % every == 0 or not self._buffer:
                self._buffer = self._sampled([row["example"] for row in rows])
            return self._buffer[self._step % self.args.steps_per_generation]

        def prompt_ids(self, row: int) -> list[int]:
            if row not in self._prompt_ids:
                given = self.job.prompt.chat_template_kwargs
                self._prompt_ids[row] = prompt_ids(self.tokenizer, self.job.examples[row].prompt, given)
            return self._prompt_ids[row]

        def _sampled(self, rows: list[int]) -> list[Micro]:
            began = time.monotonic()
            step, draws = int(self.state.global_step), self.algorithm.draws_per_question()
            asked = [
                Asked(row, sample, self.questions[row].id, self.prompt_ids(row))
                for row in rows[:: self.num_generations]
                for sample in range(draws)
            ]
            with self.accelerator.autocast():
                drawn = self.drawer.draw(asked, step)
            self.note("step_time/sampling", time.monotonic() - began)
            model = self.accelerator.unwrap_model(self.model)
            prompts = [one.asked.ids for one in drawn]
            rewards = [reward for _, reward in self.rewards]
            judged = judge(self.questions, drawn, self.job.verifier)
            self.job.judged(step, judged)
            rollouts = measured(judged, prompts, model, rewards)
            trained = [place for place, one in enumerate(asked) if one.sample < self.num_generations]
            sampled = Sampled(
                step,
                [one.asked.row for one in drawn],
                drawn,
                rollouts,
                [0.0] * len(drawn),
                prompts,
                trained,
                *self._tensors([prompts[place] for place in trained], [drawn[place].tokens for place in trained]),
            )
            sampled.rewards = self._rewards(sampled)
            if self.algorithm.wants_logp_old or self.config.boundary > 1:
                sampled.logp_old = self.logprobs(model, sampled)
            self._count(drawn, sampled)
            columns = self.algorithm.columns(self, sampled)
            if sampled.logp_old is not None:
                columns["logp_old"] = sampled.logp_old
            self._keep(sampled, columns)
            return self._cut(sampled, columns)

        def _tensors(self, prompts: list[list[int]], completions: list[list[int]]) -> tuple[Any, Any, Any]:
            return padded(prompts, completions, self.drawer.loaded.pad_id, self.args.device)

        def _cut(self, sampled: Sampled, columns: dict[str, Any]) -> list[Micro]:
            """The micro batches, with the counts of the optimizer step each belongs to."""
            import torch

            size = self.args.per_device_train_batch_size
            per_step = self.args.gradient_accumulation_steps
            mask = columns.get("loss_mask", sampled.mask)
            counts = torch.stack([mask.sum(1), sampled.mask.sum(1), torch.ones_like(mask.sum(1))]).double()
            counts = self.total(counts.view(3, self.config.steps_per_generation, -1).sum(2)).tolist()
            found = []
            for number in range(len(sampled.ids) // size):
                rows = slice(number * size, (number + 1) * size)
                tokens, every, many = (one[number // per_step] for one in counts)
                part = {name: value[rows] for name, value in columns.items()}
                micro = Micro(sampled.ids[rows], sampled.attention[rows], sampled.mask[rows], part, tokens, every, many)
                found.append(micro)
            return found

        def _rewards(self, sampled: Sampled) -> list[float]:
            own = self.algorithm.rewards_of(self, sampled)
            if own is not None:
                return own
            total = [0.0] * len(sampled.rollouts)
            for name, reward in self.rewards:
                values = values_of(name, reward, sampled.rollouts)
                self.note(f"rewards/{name}/mean", sum(values), len(values))
                total = [have + weight_of(reward) * value for have, value in zip(total, values, strict=True)]
            return total

        # ------------------------------------------------- loss

        def compute_loss(self, model: Any, inputs: Micro, *args: Any, **kwargs: Any) -> Any:
            self.nothing_counts = not self.algorithm.counts(inputs)
            loss = self.algorithm.loss(self, model, inputs)
            # transformers divides by the accumulation steps, and processes average their gradients.
            return loss * self.args.gradient_accumulation_steps * self.accelerator.num_processes

        def forward(self, model: Any, micro: Micro, logp: bool = True) -> Forward:
            """What the model says of the completions of a micro batch."""
            with self.accelerator.autocast():
                return forward(model, micro.ids, micro.attention, micro.mask.shape[1], logp)

        def logprobs(self, model: Any, sampled: Sampled) -> Any:
            """[R, T] of the sampled tokens by a model in memory, a micro batch at a time, without gradient."""
            import torch

            size = self.args.per_device_train_batch_size
            with evaluating(model), torch.no_grad(), self.accelerator.autocast():
                parts = [
                    forward(model, ids, attention, sampled.mask.shape[1], True).logp
                    for ids, attention in zip(sampled.ids.split(size), sampled.attention.split(size), strict=True)
                ]
            return torch.cat(parts)

        def hidden(self, model: Any, ids: Any, attention: Any, mask: Any, size: int | None = None) -> list[Any]:
            """[size, T, H] of so many rows at a time: hidden states that predict the completions' tokens."""
            size = size or self.args.per_device_train_batch_size
            with self.accelerator.autocast():
                return [
                    forward(model, some, seen, mask.shape[1], False).hidden
                    for some, seen in zip(ids.split(size), attention.split(size), strict=True)
                ]

        def readable(self, limit: int | None, truncation: str) -> int | None:
            """Tokens that a teacher may read: `limit`, and beside a whole response no more than the context holds."""
            context = self.drawer.loaded.context
            if context is None or truncation == "error":
                return limit
            room: int = max(1, context - self.config.max_tokens)
            return room if limit is None else min(limit, room)

        # ------------------------------------------------- an algorithm's own weights

        def extra_parameters(self, module: Any, learning_rate: float | None) -> None:
            """Have the optimizer train a module of the algorithm's own, and keep it alike on all processes."""
            self._extra.append((module, learning_rate))

        def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
            made = self.optimizer is None
            optimizer = super().create_optimizer(*args, **kwargs)
            for module, rate in self._extra if made else ():
                given = {"params": list(module.parameters()), "weight_decay": 0.0}
                optimizer.add_param_group(given | {"lr": self.args.learning_rate if rate is None else rate})
            return optimizer

        def _clip_grad_norm(self, model: Any) -> Any:
            """Clip the model, and what stands beside it, each by a norm of its own."""
            import torch

            for module, _ in self._extra:
                if self.accelerator.num_processes > 1:  # what wraps the model knows nothing of them
                    for parameter in module.parameters():
                        parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
                torch.nn.utils.clip_grad_norm_(module.parameters(), self.args.max_grad_norm)
            return super()._clip_grad_norm(model)

        # ------------------------------------------------- metrics

        def total(self, values: Any) -> Any:
            """The sum over processes."""
            return self.accelerator.reduce(values, "sum") if self.accelerator.num_processes > 1 else values

        def note(self, name: str, total: float, count: float = 1.0) -> None:
            """Add to a metric: the mean of all that is noted until the next point of the curves."""
            sums = self._sums[name]
            sums[0] += float(total)
            sums[1] += float(count)

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            import torch

            names = sorted(self._sums)
            if names and "loss" in logs:
                sums = torch.tensor([self._sums[name] for name in names], device=self.args.device)
                for name, (total, count) in zip(names, self.total(sums).tolist(), strict=True):
                    logs[name] = total / count if count else 0.0
                logs["num_tokens"] = float(self.state.num_input_tokens_seen)
                logs["generated_tokens"] = float(self.nsd_run.generated)
                self._sums.clear()
            super().log(logs, *args, **kwargs)

        def _count(self, drawn: list[Drawn], sampled: Sampled) -> None:
            import torch

            lengths = [len(one.tokens) for one in drawn]
            generated, read = sum(lengths), sum(map(len, sampled.prompts))
            sums = self.total(torch.tensor([generated, read], device=self.args.device)).tolist()
            self.nsd_run.generated += int(sums[0])
            self.state.num_input_tokens_seen += int(sum(sums))
            ended = [length for length, one in zip(lengths, drawn, strict=True) if one.ended]
            self.note("completions/mean_length", sum(lengths), len(lengths))
            self.note("completions/clipped_ratio", len(lengths) - len(ended), len(lengths))
            self.note("completions/mean_terminated_length", sum(ended), len(ended))
            for name, total in verdict_numbers([one.score for one in sampled.rollouts]).items():
                self.note(name, total, len(sampled.rollouts))
            if not self.algorithm.rewarded:
                return
            rewards = sampled.grouped(self.algorithm.draws_per_question())
            self.note("reward", rewards.sum().item(), rewards.numel())
            spread = rewards.std(1)
            self.note("reward_std", spread.sum().item(), len(spread))
            self.note("frac_reward_zero_std", (spread < 1e-6).sum().item(), len(spread))

        def _keep(self, sampled: Sampled, columns: Mapping[str, Any]) -> None:
            from accelerate.utils import gather_object

            masks = columns.get("loss_mask", sampled.mask).any(1).tolist()
            inputs = sampled.teacher_inputs or [None] * len(masks)
            of_trained = dict(zip(sampled.trained, zip(masks, inputs, strict=True), strict=True))
            kept = []
            for place, (rollout, reward) in enumerate(zip(sampled.rollouts, sampled.rewards, strict=True)):
                counts, read = of_trained.get(place, (False, None))
                kept.append(kept_rollout(sampled.step, rollout, reward, not counts, read))
            self.job.keep(gather_object(kept) if self.accelerator.num_processes > 1 else kept)

        # ------------------------------------------------- checkpoints

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            super()._save_checkpoint(model, trial)
            if self.is_world_process_zero():
                from safetensors.torch import save_file

                state = {name: value.detach().contiguous().cpu() for name, value in self.algorithm.state().items()}
                folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
                # One process saves what all of them hold alike. safetensors wants no two names for one memory.
                save_file({name: value.clone() for name, value in state.items()}, folder / STATE)

        def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
            super()._load_optimizer_and_scheduler(checkpoint)
            if checkpoint is not None:
                from safetensors.torch import load_file

                self.algorithm.restore(load_file(Path(checkpoint) / STATE))
                self._step = self.state.global_step * self.args.gradient_accumulation_steps

    return OnPolicyLoop


# --------------------------------------------------------------------------- a training


def run(algorithm: Algorithm, job: TrainJob, observe: Observer, warnings: Sequence[HealthWarning]) -> TrainResult:
    """Train on the loop, or resume."""
    from transformers import TrainingArguments

    config = algorithm.config
    rewards = load_rewards(getattr(config, "rewards", None) or [], job.verifier)
    micro, accumulation = _setup.split_batch(
        algorithm.rows_per_step(), config.micro_batch_size, "trainer.prompts_per_step * trainer.num_generations"
    )
    args = _setup.arguments(
        TrainingArguments,
        job,
        config,
        {},
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        remove_unused_columns=False,
    )
    args.steps_per_generation = accumulation * config.steps_per_generation
    args.generation_batch_size = algorithm.rows_per_step() * config.steps_per_generation
    model, tokenizer, _ = _setup.load_start(job, args)
    _setup.warn_of_lost_updates(job, model, config.learning_rate)
    if (lora := _setup.peft_config(job.lora)) is not None:
        from accelerate.utils import set_seed
        from peft import get_peft_model

        set_seed(_setup.hf_seed(job.seeds.init))
        model = get_peft_model(model, lora)
    trainer = _setup.build(
        with_resumable_order(_trl.resumable(loop_class()), _setup.hf_seed(job.seeds.order)),
        algorithm=algorithm,
        job=job,
        rewards=rewards,
        tokenizer=tokenizer,
        model=prepared(model, config.temperature),
        args=args,
        train_dataset=[{"example": row} for row in range(len(job.examples))],
    )
    state = Run(
        job,
        config,
        config.steps if job.budget.steps is None else job.budget.steps,
        boundary=config.boundary,
        draws=True,
        observe=observe,
        after_batch=lambda: algorithm.after_batch(trainer),
        nothing_counts=lambda: trainer.nothing_counts,
    )
    try:
        _trl.run(trainer, state, tokenizer)
    finally:
        trainer.drawer.end()
    adapter_only = _trl.save(trainer, tokenizer, job)
    found = rollout_result(trainer, state, adapter_only, algorithm.draws_per_question(), warnings)
    return replace(found, notes={**found.notes, **trainer.drawer.notes(), **algorithm.notes()})


def rollout_result(
    trainer: Any, state: Run, adapter_only: bool, draws: int, warnings: Sequence[HealthWarning]
) -> TrainResult:
    """What a training on rollouts says at its end."""
    config: Any = state.config
    steps = int(trainer.state.global_step)
    prompts = -(-steps // config.boundary) * config.prompts_per_step * config.steps_per_generation
    return TrainResult(
        steps=steps,
        examples_seen=prompts,
        tokens_seen=_trl.tokens_seen(trainer),
        adapter_only=adapter_only,
        notes=_trl.notes(trainer, state)
        | {
            "rollouts": prompts * draws,
            "generated_tokens": state.generated,
            "health": [{"step": w.step, "kind": w.kind, "field": w.field} for w in warnings],
        },
    )
