"""Group-relative policy optimisation (arXiv 2402.03300) on TRL's GRPOTrainer, with reward plugins.

    trainer: {use: grpo, steps: 500, temperature: 0.3, rewards: [correct, {use: finished, bonus: 0.1}]}

One optimizer step takes `prompts_per_step` questions with `num_generations` rollouts each; with `steps_per_generation`
a larger batch is sampled at once and used over several steps, with `num_iterations` every batch is used again. The
defaults are the published noisy-student study's (dr_grpo, arXiv 2503.20783, beta 0.04), except the temperature.

`micro_batch_size` (in rollouts) is output-neutral up to rounding; loss types that normalise by the micro-batch are
refused with it. Several processes share the rollouts of a step; with `rollout: trl` they draw other ones than a
single process would.
Limits: questions whose (pseudo-)label is unknown get reward 0 from `correct`; prompts are not cut.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from nsd.plugins.api import KnownAs, Trainer, TrainJob, TrainResult
from nsd.plugins.registry import plugin
from nsd.plugins.trainers import _trl_fields
from nsd.plugins.trainers._options import comes_out_even, trl_fields_type, unfit
from nsd.plugins.trainers._rewards import load_rewards, weight_of
from nsd.plugins.trainers._rollout_config import (
    RewardedConfig,
    check_questions,
    draws_by,
    health_observer,
    rollout_schema,
)

if TYPE_CHECKING:
    from nsd.plugins.trainers.health import HealthWarning

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
    "use_vllm": "use trainer.rollout: vllm",
    "vllm_mode": "use trainer.rollout: vllm, or vllm://host:port",
    "vllm_server_base_url": "use trainer.rollout: vllm://host:port",
    "vllm_server_host": "use trainer.rollout: vllm://host:port",
    "vllm_server_port": "use trainer.rollout: vllm://host:port",
    "vllm_gpu_memory_utilization": "use trainer.rollout_memory",
    "chat_template_kwargs": "use prompt.chat_template_kwargs, which sampling and evaluation take too",
}
if TYPE_CHECKING:
    TrlFields = dict[str, Any]
else:
    TrlFields = trl_fields_type("GRPOConfig", _trl_fields.GRPO, _OWN)


@plugin("trainer", "grpo")
class Grpo(Trainer):
    """Policy gradient with the group's mean reward as baseline."""

    version = 2  # rollouts come from nsd's own decode loop
    imports = ("trl.trainer.grpo_trainer",)

    class Config(RewardedConfig):
        loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dr_grpo"
        beta: float = Field(default=0.04, ge=0, description="Weight of the KL to the start model.")
        epsilon: float = Field(default=0.2, gt=0)
        scale_rewards: Literal["group", "batch", "none"] = "group"
        rollout: Annotated[str, KnownAs(draws_by), rollout_schema("hf", "trl", "vllm")] = Field(
            default="hf",
            description="What draws the rollouts: nsd's own decode loop (hf), TRL's generation (trl), TRL's vLLM in "
            "the process of the training (vllm), or a vLLM server that TRL hands the weights to (vllm://host:port).",
        )
        trl: TrlFields = Field(default={}, description="Any further field of TRL's GRPOConfig.")

        drawn_by: ClassVar[tuple[str, ...]] = ("hf", "trl", "vllm")

        @model_validator(mode="after")
        def _normalised(self) -> Grpo.Config:
            if self.micro_batch_size is not None and (
                self.loss_type == "bnpo" or self.trl.get("top_entropy_quantile", 1.0) < 1.0
            ):
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
            if self.config.rollout == "hf":
                return (
                    "trainer.fsdp spreads the weights, and nsd's decode loop does not draw from spread weights: set "
                    "trainer.rollout: trl"
                )
            for name, reward in load_rewards(self.config.rewards):
                if reward.needs_logprobs or reward.needs_statistics:
                    return f"trainer.fsdp does not go with the reward {name!r}, which asks the model about each token"
        return unfit(self.config, processes, lora)

    def beside(self) -> str | None:
        """See Plugin.beside: TRL asks for a vLLM in the Python that trains, also to speak with a server."""
        if draws_by(self.config.rollout) != "vllm":
            return None
        from nsd.plugins.engines.vllm_versions import OF_TRL

        return f"a vLLM of {OF_TRL} in nsd's own environment (trainer grpo, rollout: {self.config.rollout})"

    def ready(self, device: str) -> None:
        """A vLLM that draws is in this Python, of a version that TRL goes with, and there is a GPU for it."""
        if draws_by(self.config.rollout) == "vllm":
            from nsd.plugins.trainers._vllm_trl import check

            check(self.config.rollout, device)

    def planned_steps(self, examples: int) -> int | None:
        """Optimizer steps: as configured, however many examples there are."""
        return self.config.steps

    def rollouts_of_a_question(self) -> int | None:
        """The group."""
        return self.config.num_generations

    def train(self, job: TrainJob) -> TrainResult:
        """Run or resume; see `Trainer.train`. StageFailed where there are fewer questions than one batch takes."""
        check_questions(self.config, job, "grpo")
        from nsd.plugins.trainers import _setup

        _setup.require()
        with _setup.left_as_found():
            return self._train(_setup.quiet_elsewhere(job))

    def _train(self, job: TrainJob) -> TrainResult:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer

        from nsd.plugins.trainers import _setup, _trl, _vllm_trl
        from nsd.plugins.trainers._grpo import TrlRollouts, fed, reward_function
        from nsd.plugins.trainers._loop import rollout_result
        from nsd.plugins.trainers._order import with_resumable_order
        from nsd.plugins.trainers._run import Run

        config = self.config
        rewards = load_rewards(config.rewards, job.verifier)
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
            reward_weights=[weight_of(reward) for _, reward in rewards],
            chat_template_kwargs=job.prompt.chat_template_kwargs,
            **_vllm_trl.fields(config),
        )
        args.model_init_kwargs = _setup.reference_options(job, args)
        model, tokenizer, _ = _setup.load_start(job, args)
        _vllm_trl.complete(args, config, job, model, tokenizer)
        _setup.warn_of_lost_updates(job, model, config.learning_rate)
        rollouts = TrlRollouts(job, rewards)
        trainer_class = fed(_trl.resumable(GRPOTrainer), rollouts, job, config)
        trainer_class = with_resumable_order(trainer_class, _setup.hf_seed(job.seeds.order))
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
        rollouts.bind(trainer)
        watch = _vllm_trl.watch(trainer, job)
        warnings: list[HealthWarning] = []
        state = Run(
            job,
            config,
            config.steps if job.budget.steps is None else job.budget.steps,
            boundary=config.boundary,
            draws=True,
            observe=health_observer(config, job, warnings),
        )
        _trl.run(trainer, state, tokenizer)
        adapter_only = _trl.save(trainer, tokenizer, job)
        found = rollout_result(trainer, state, adapter_only, config.num_generations, warnings)
        return found if watch is None else replace(found, notes={**found.notes, **watch.notes()})
