"""Group-relative policy optimisation (arXiv 2402.03300) on TRL's GRPOTrainer, with reward plugins.

    trainer: {use: grpo, steps: 500, temperature: 0.3, rewards: [correct, {use: finished, bonus: 0.1}]}

One optimizer step takes `prompts_per_step` questions with `num_generations` rollouts each; with `steps_per_generation`
a larger batch is sampled at once and used over several steps, with `num_iterations` every batch is used again. The
defaults are the published noisy-student study's (dr_grpo, arXiv 2503.20783, beta 0.04), except the temperature.

`micro_batch_size` (in rollouts) is output-neutral up to rounding; loss types that normalise by the micro-batch are
refused with it. Several processes share the rollouts of a step and draw other ones than a single process would.
Limits: questions whose (pseudo-)label is unknown get reward 0 from `correct`; prompts are not cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator

from nsd.plugins import registry
from nsd.plugins.api import NestedPlugin, OutputNeutral, Reward, Trainer, TrainJob, TrainResult, old_reward
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.registry import plugin
from nsd.plugins.trainers import _trl_fields
from nsd.plugins.trainers._options import TrlTrainerConfig, comes_out_even, trl_fields_type, unfit
from nsd.plugins.trainers.health import HealthConfig, HealthWarning, HealthWatch, Settings

_OWN = {
    "num_train_epochs": "use trainer.steps",
    "max_steps": "use trainer.steps",
    "gradient_accumulation_steps": "use trainer.prompts_per_step and trainer.micro_batch_size",
    "num_generations": "use trainer.num_generations",
    "max_completion_length": "use trainer.max_tokens",
    "temperature": "use trainer.temperature",
    "top_p": "use trainer.top_p",
    "top_k": "use trainer.top_k",
    "loss_type": "use trainer.loss_type",
    "beta": "use trainer.beta",
    "num_iterations": "use trainer.num_iterations",
    "epsilon": "use trainer.epsilon",
    "scale_rewards": "use trainer.scale_rewards",
    "steps_per_generation": "use trainer.steps_per_generation",
    "generation_batch_size": "use trainer.steps_per_generation",
    "reward_weights": "use the weight of each block in trainer.rewards",
    "chat_template_kwargs": "use prompt.chat_template_kwargs, which sampling and evaluation take too",
}
if TYPE_CHECKING:
    from nsd.plugins.trainers import _trl

    TrlFields = dict[str, Any]
else:
    TrlFields = trl_fields_type("GRPOConfig", _trl_fields.GRPO, _OWN)


def _reward_block(block: Any) -> dict[str, Any]:
    """A reward's block with every default filled in. Checking a config runs nobody's file: such a block stays."""
    block = {"use": block} if isinstance(block, str) else block
    if not isinstance(block, dict) or not isinstance(block.get("use"), str):
        raise ValueError("a reward is a name or a block with `use: NAME`")
    if registry.is_path(block["use"]):
        return dict(block)
    name, reward_class = block["use"], registry.find("reward", block["use"])
    try:
        config = reward_class.Config.model_validate({key: value for key, value in block.items() if key != "use"})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'config'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"reward {name!r}: {faults}") from None
    return {"use": name, **config.model_dump(mode="json")}


RewardBlock = Annotated[
    dict[str, Any],
    NestedPlugin("reward"),
    BeforeValidator(_reward_block),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"use": {"type": "string"}}, "required": ["use"]},
            ]
        }
    ),
]


@plugin("trainer", "grpo")
class Grpo(Trainer):
    """Policy gradient with the group's mean reward as baseline."""

    class Config(TrlTrainerConfig):
        learning_rate: float = Field(default=1e-5, gt=0)
        steps: int = Field(default=500, ge=1, description="Optimizer steps.")
        prompts_per_step: int = Field(default=1, ge=1)
        num_generations: int = Field(default=8, ge=2, description="Rollouts of each question: the group.")
        temperature: float = Field(default=1.0, gt=0)
        top_p: float = Field(default=1.0, gt=0, le=1)
        top_k: int = Field(default=0, ge=0, description="0 leaves all tokens in.")
        max_tokens: int = Field(default=256, ge=1)
        loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dr_grpo"
        beta: float = Field(default=0.04, ge=0, description="Weight of the KL to the start model.")
        num_iterations: int = Field(default=1, ge=1)
        steps_per_generation: int = Field(default=1, ge=1, description="Optimizer steps that one sampled batch feeds.")
        epsilon: float = Field(default=0.2, gt=0)
        scale_rewards: Literal["group", "batch", "none"] = "group"
        rewards: list[RewardBlock] = Field(default=["correct"], min_length=1, validate_default=True)
        health: Annotated[HealthConfig, OutputNeutral()] = HealthConfig()
        trl: TrlFields = Field(default={}, description="Any further field of TRL's GRPOConfig.")

        @property
        def boundary(self) -> int:
            """Optimizer steps from one sampling to the next; only there a resumed run is exact."""
            return self.steps_per_generation * self.num_iterations

        @model_validator(mode="after")
        def _grain(self) -> Grpo.Config:
            if self.save_every is not None and self.save_every % self.boundary:
                raise ValueError(
                    f"save_every {self.save_every} is no multiple of steps_per_generation * num_iterations "
                    f"({self.boundary}): a run resumed in the middle of a sampled batch would differ"
                )
            if self.micro_batch_size is not None:
                rows = self.prompts_per_step * self.num_generations
                if rows % min(self.micro_batch_size, rows):
                    raise ValueError(
                        f"micro_batch_size {self.micro_batch_size} does not divide prompts_per_step * num_generations "
                        f"({rows})"
                    )
                if self.loss_type == "bnpo" or self.trl.get("top_entropy_quantile", 1.0) < 1.0:
                    raise ValueError("bnpo and top_entropy_quantile depend on the micro-batch: leave it out")
            return self

    config: Config
    extra = "train"

    def digest_extra(self) -> dict[str, Any]:
        """The versions of the rewards: another version of one gives another model."""
        return {"rewards": {name: reward.version for name, reward in load_rewards(self.config.rewards)}}

    def rows_per_step(self) -> int:
        """Rollouts of one optimizer step."""
        return self.config.prompts_per_step * self.config.num_generations

    def shares(self, processes: int) -> bool:
        """Whether rows and micro batches come out even, and groups stay whole where a reward compares within them."""
        config = self.config
        if not comes_out_even(self.rows_per_step(), config.micro_batch_size, processes):
            return False
        rows = self.rows_per_step() // processes * config.steps_per_generation  # what a process has at once
        whole_groups = rows % config.num_generations == 0
        return whole_groups or not any(reward.needs_group for _, reward in load_rewards(config.rewards))

    def unfit(self, processes: int | None, lora: bool) -> str | None:
        """FSDP needs several processes, and takes no adapter and no reward that asks the model again."""
        if self.config.fsdp:
            for name, reward in load_rewards(self.config.rewards):
                if reward.needs_logprobs or reward.needs_statistics:
                    return f"trainer.fsdp does not go with the reward {name!r}, which asks the model about each token"
        return unfit(self.config, processes, lora)

    def planned_steps(self, examples: int) -> int | None:
        """Optimizer steps: as configured, however many examples there are."""
        return self.config.steps

    def train(self, job: TrainJob) -> TrainResult:
        """Run or resume; see `Trainer.train`. StageFailed where there are fewer questions than one batch takes."""
        config = self.config
        prompts = config.prompts_per_step * config.steps_per_generation
        if len(job.examples) < prompts:
            raise StageFailed(
                f"{len(job.examples)} questions are fewer than the {prompts} of one sampled batch "
                "(trainer.prompts_per_step * trainer.steps_per_generation)"
                + ("" if job.examples else ": every pseudo-label was filtered out, or the split is 0")
            )
        if job.budget.tokens is not None:
            raise InputError("match: tokens does not go with grpo, whose tokens nobody knows beforehand: match steps")
        from nsd.plugins.trainers import _setup

        _setup.require()
        with _setup.left_as_found():
            return self._train(_setup.quiet_elsewhere(job))

    def _train(self, job: TrainJob) -> TrainResult:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer

        from nsd.plugins.trainers import _setup, _trl
        from nsd.plugins.trainers._rollouts import Rollouts, reward_function

        config = self.config
        prompts = config.prompts_per_step * config.steps_per_generation
        rewards = load_rewards(config.rewards)
        for _, reward in rewards:
            reward.verifier = job.verifier
        micro, accumulation = _setup.split_batch(
            self.rows_per_step(), config.micro_batch_size, "trainer.prompts_per_step * trainer.num_generations"
        )
        args = _setup.arguments(
            GRPOConfig,
            job,
            config,
            config.trl,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=accumulation,
            steps_per_generation=accumulation * config.steps_per_generation,
            num_generations=config.num_generations,
            max_completion_length=config.max_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            loss_type=config.loss_type,
            beta=config.beta,
            num_iterations=config.num_iterations,
            epsilon=config.epsilon,
            scale_rewards=config.scale_rewards,
            reward_weights=[float(getattr(reward.config, "weight", 1.0)) for _, reward in rewards],
            chat_template_kwargs=job.prompt.chat_template_kwargs,
        )
        args.model_init_kwargs = _setup.reference_options(job, args)
        model, tokenizer, _ = _setup.load_start(job, args)
        _setup.warn_of_lost_updates(job, model, config.learning_rate)
        questions = [replace(example.question, answer=example.answer) for example in job.examples]
        end_tokens: set[int] = set()
        rollouts = Rollouts(questions, job.verifier, [reward for _, reward in rewards], end_tokens)
        trainer_class = _with_resumable_order(_trl.resumable(GRPOTrainer), _setup.hf_seed(job.seeds.order))
        with _setup.quiet_datasets():
            trainer = _setup.build(
                trainer_class,
                model=model,
                args=args,
                reward_funcs=[reward_function(name, reward, rollouts) for name, reward in rewards],
                train_dataset=Dataset.from_list(
                    [{"prompt": example.prompt, "example": index} for index, example in enumerate(job.examples)]
                ),
                processing_class=tokenizer,
                peft_config=_setup.peft_config(job.lora),
            )
        end_tokens.update(trainer.eos_token_ids)
        rollouts.trainer = trainer
        warnings: list[HealthWarning] = []
        state = _trl.Run(
            job,
            config,
            config.steps if job.budget.steps is None else job.budget.steps,
            boundary=config.boundary,
            observe=self._observer(job, warnings),
        )
        _trl.run(trainer, state)
        adapter_only = _trl.save(trainer, tokenizer, job)
        steps = int(trainer.state.global_step)
        batches = math.ceil(steps / config.boundary)
        return TrainResult(
            steps=steps,
            examples_seen=batches * prompts,
            tokens_seen=_trl.tokens_seen(trainer),
            adapter_only=adapter_only,
            notes=_trl.notes(trainer, state)
            | {
                "rollouts": batches * prompts * config.num_generations,
                "health": [{"step": w.step, "kind": w.kind, "field": w.field} for w in warnings],
            },
        )

    def _observer(self, job: TrainJob, warnings: list[HealthWarning]) -> _trl.Observer:
        config = self.config
        watch = HealthWatch(
            config.health,
            Settings(
                beta=config.beta,
                max_tokens=config.max_tokens,
                num_generations=config.num_generations,
                temperature=config.temperature,
                learning_rate=config.learning_rate,
            ),
        )

        def observe(step: int, metrics: Mapping[str, float], replayed: bool) -> str | None:
            reason = None
            for warning in watch.observe(step, metrics):
                warnings.append(warning)
                # Replayed points were warned of before the interruption.
                if not replayed:
                    job.warn(warning.text, warning.field, step)
                if warning.broken and config.health.stop:
                    reason = f"stopped by trainer.health.stop at step {step}: {warning.text}"
            return reason

        return observe


# --------------------------------------------------------------------------- rewards


def load_rewards(blocks: Sequence[Mapping[str, Any]]) -> list[tuple[str, Reward]]:
    """The reward plugins of `trainer.rewards` with the names their curves carry, numbered where one occurs twice.

    Raises InputError for one that is written in the old form.
    """
    loaded: list[tuple[str, Reward]] = []
    for block in blocks:
        found = registry.find("reward", block["use"])
        assert issubclass(found, Reward)
        if reason := old_reward(found):
            raise InputError(f"reward {block['use']!r}: {reason}")
        config = found.Config.model_validate({key: value for key, value in block.items() if key != "use"})
        name = found.name
        taken = sum(other == name or other.startswith(f"{name}_") for other, _ in loaded)
        loaded.append((name if not taken else f"{name}_{taken + 1}", found(config)))
    return loaded


# --------------------------------------------------------------------------- order


def _with_resumable_order(base: Any, seed: int) -> Any:
    """A GRPO trainer whose order of questions comes from its own seed and is the same after a resume.

    TRL's sampler draws each epoch's permutation from one generator, which starts again at the first permutation
    when a run is resumed in a later epoch. Here the permutations of the epochs before are drawn and thrown away.
    """
    from trl.trainer.utils import RepeatSampler

    class EpochSampler(RepeatSampler):  # type: ignore[misc]  # TRL has no types
        finished_epochs = 0

        def __iter__(self) -> Any:
            import torch

            if self.shuffle:
                self.generator.manual_seed(seed)
                for _ in range(self.finished_epochs):
                    torch.randperm(self.num_samples, generator=self.generator)
            self.finished_epochs += 1
            return super().__iter__()

    class Ordered(base):  # type: ignore[misc]  # a class of TRL's, which has no types
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            self._order = EpochSampler(
                data_source=self.train_dataset if dataset is None else dataset,
                mini_repeat_count=self.num_generations,
                batch_size=self.args.generation_batch_size // self.num_generations,
                repeat_count=self.num_iterations * self.args.steps_per_generation,
                shuffle=self.shuffle_dataset,
                seed=seed,
            )
            return self._order

        def _init_training_state(self, *args: Any, **kwargs: Any) -> Any:
            epochs_trained, steps = super()._init_training_state(*args, **kwargs)
            self._order.finished_epochs = epochs_trained
            return epochs_trained, steps

    Ordered.__name__ = base.__name__
    return Ordered
