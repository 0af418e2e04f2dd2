"""The config fields of every trainer that learns from its own rollouts, and what all of them check and watch.

Apart from the loop's plugin (on_policy.py), so that reading a spec loads no algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from nsd.plugins.api import OutputNeutral, TrainJob
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.trainers._options import TrlTrainerConfig
from nsd.plugins.trainers._rewards import RewardBlock
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
