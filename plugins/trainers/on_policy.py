"""What the trainers share that learn from their own rollouts: the fields of their configs, and the loop as a plugin.

A step takes `prompts_per_step` questions with `num_generations` rollouts each. Each rollout is drawn by nsd's own
decode loop, judged once, and then an algorithm says two things of it: what stands beside its tokens (an advantage, a
teacher's input: `columns`), and the loss (`loss`). The loop (_loop.py) does the rest: sampling, rewards, micro batches,
checkpoints, metrics, several processes.

Several processes draw the same rollouts as one, each the groups of its share, and losses have the denominators of the
whole step: the result is that of one process up to rounding, where a sampled batch feeds one step.
Limits: no FSDP; prompts are not cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from nsd.plugins.api import OutputNeutral, TrainJob, TrainResult
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.trainers._algorithm import Algorithm
from nsd.plugins.trainers._options import TrlTrainerConfig, comes_out_even, unfit
from nsd.plugins.trainers._rewards import RewardBlock, load_rewards
from nsd.plugins.trainers.health import HealthConfig, HealthWarning, HealthWatch, Settings

if TYPE_CHECKING:
    from nsd.plugins.trainers._run import Observer


class RolloutConfig(TrlTrainerConfig):
    """Fields of every trainer that learns from its own rollouts."""

    learning_rate: float = Field(default=1e-5, gt=0)
    steps: int = Field(default=500, ge=1, description="Optimizer steps.")
    prompts_per_step: int = Field(default=1, ge=1)
    num_generations: int = Field(default=8, ge=2, description="Rollouts of each question: the group.")
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, description="0 leaves all tokens in.")
    max_tokens: int = Field(default=256, ge=1)
    num_iterations: int = Field(default=1, ge=1, description="How often a sampled batch is learned from.")
    steps_per_generation: int = Field(default=1, ge=1, description="Optimizer steps that one sampled batch feeds.")
    health: Annotated[HealthConfig, OutputNeutral()] = HealthConfig()

    @property
    def boundary(self) -> int:
        """Optimizer steps from one sampling to the next; only there a resumed run is exact."""
        return self.steps_per_generation * self.num_iterations

    @model_validator(mode="after")
    def _grain(self) -> RolloutConfig:
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
        return self


class RewardedConfig(RolloutConfig):
    """The same for those whose rollouts earn rewards."""

    rewards: list[RewardBlock] = Field(default=["correct"], min_length=1, validate_default=True)


class OnPolicy(Algorithm):
    """A trainer on the shared loop."""

    extra = "train"
    Config: Any = RewardedConfig

    # ----------------------------------------------------------------- what the plan asks

    def digest_extra(self) -> dict[str, Any]:
        """The versions of the rewards: another version of one gives another model."""
        blocks = getattr(self.config, "rewards", None)
        return {} if blocks is None else {"rewards": {name: one.version for name, one in load_rewards(blocks)}}

    def rows_per_step(self) -> int:
        """Rollouts of one optimizer step."""
        return int(self.config.prompts_per_step * self.config.num_generations)

    def shares(self, processes: int) -> bool:
        """Whether rows and micro batches come out even, and every process has whole groups."""
        rows = self.rows_per_step() // processes
        return comes_out_even(self.rows_per_step(), self.config.micro_batch_size, processes) and (
            rows % int(self.config.num_generations) == 0
        )

    def unfit(self, processes: int | None, lora: bool) -> str | None:
        """FSDP is not to be had: its processes would have to decode in step."""
        if self.config.fsdp:
            return (
                f"trainer.fsdp does not go with {self.name}, whose processes draw rollouts on their own: leave it out"
            )
        return unfit(self.config, processes, lora)

    def planned_steps(self, examples: int) -> int | None:
        """Optimizer steps: as configured, however many examples there are."""
        return int(self.config.steps)

    def rollouts_of_a_question(self) -> int | None:
        """Those that it draws, trained on or not."""
        return self.draws_per_question()

    def train(self, job: TrainJob) -> TrainResult:
        """Run or resume; see `Trainer.train`. StageFailed where there are fewer questions than one batch takes."""
        check_questions(self.config, job, self.name)
        from nsd.plugins.trainers import _setup

        _setup.require()
        with _setup.left_as_found():
            from nsd.plugins.trainers import _loop

            job, warnings = _setup.quiet_elsewhere(job), list[HealthWarning]()
            try:
                return _loop.run(self, job, health_observer(self.config, job, warnings), warnings)
            finally:
                self.end()


def check_questions(config: RolloutConfig, job: TrainJob, name: str) -> None:
    """Raise StageFailed where the questions do not fill a sampled batch, InputError for a budget in training texts."""
    prompts = config.prompts_per_step * config.steps_per_generation
    if len(job.examples) < prompts:
        raise StageFailed(
            f"{len(job.examples)} questions are fewer than the {prompts} of one sampled batch "
            "(trainer.prompts_per_step * trainer.steps_per_generation)"
            + ("" if job.examples else ": every pseudo-label was filtered out, or the split is 0")
        )
    if job.budget.tokens is not None:
        raise InputError(
            f"match: tokens does not go with {name}, whose tokens nobody knows beforehand: match steps or "
            "generated_tokens"
        )


def health_observer(config: Any, job: TrainJob, warnings: list[HealthWarning]) -> Observer:
    """Says to the person what the curves show, and ends a broken run where `health.stop` says so."""
    watch = HealthWatch(
        config.health,
        Settings(
            beta=getattr(config, "beta", None),
            max_tokens=config.max_tokens,
            num_generations=config.num_generations,
            temperature=config.temperature,
            learning_rate=config.learning_rate,
            compared=getattr(config, "compared", True),
            privileged=hasattr(config, "privileged"),
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
