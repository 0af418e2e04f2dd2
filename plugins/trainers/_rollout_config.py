"""The config fields of every trainer that learns from its own rollouts, and what all of them check and watch.

Apart from the loop's plugin (on_policy.py), so that reading a spec loads no algorithm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from nsd.plugins.api import KnownAs, OutputNeutral, TrainJob
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.trainers._options import TrlTrainerConfig
from nsd.plugins.trainers._rewards import RewardBlock
from nsd.plugins.trainers.health import HealthConfig, HealthWarning, HealthWatch, Settings
from nsd.plugins.words import hint

if TYPE_CHECKING:
    from nsd.plugins.trainers._run import Observer


_SERVER = re.compile(r"vllm://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):(\d{1,5})")


def draws_by(rollout: str) -> str:
    """What a digest holds of `rollout`: where a vLLM serves shapes no text."""
    return "vllm" if rollout.startswith("vllm://") else rollout


def rollout_schema(*named: str) -> WithJsonSchema:
    """What an editor is told of `rollout`."""
    return WithJsonSchema({"anyOf": [{"enum": list(named)}, {"type": "string", "pattern": "^vllm://.+:[0-9]+$"}]})


def check_rollout(given: str, known: Sequence[str]) -> str:
    """A value of `rollout`. Raises ValueError for what is none."""
    server = _SERVER.fullmatch(given)
    if given in known or (server is not None and 0 < int(server[2]) < 65536):
        return given
    raise ValueError(f"{given!r} is none of {', '.join(known)} and vllm://HOST:PORT{hint(given, list(known))}")


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
    rollout: Annotated[str, KnownAs(draws_by), rollout_schema("hf", "vllm")] = Field(
        default="hf",
        description="What draws the rollouts: nsd's own decode loop (hf), a vLLM beside the training (vllm), or a vLLM "
        "that serves (vllm://host:port).",
    )
    rollout_memory: Annotated[float, OutputNeutral()] = Field(
        default=0.3, gt=0, lt=1, description="Share of a GPU's memory that `rollout: vllm` takes."
    )
    health: Annotated[HealthConfig, OutputNeutral()] = HealthConfig()

    drawn_by: ClassVar[tuple[str, ...]] = ("hf", "vllm")  # values of `rollout` beside a server's address

    @field_validator("rollout")
    @classmethod
    def _known(cls, given: str) -> str:
        return check_rollout(given, cls.drawn_by)

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


# What a training says that vLLM draws for: in its manifest, in `nsd show` and on the page.
NOT_EXACT = (
    "rollouts not resume-exact: vLLM draws them, and a training that was interrupted goes on with other texts of the "
    "same distribution"
)


def check_vllm(rollout: str) -> None:
    """Raise InputError where no vLLM is to be had that draws for a training on nsd's own loop."""
    if rollout == "vllm":
        from nsd.plugins.engines.vllm_versions import check_there

        check_there("trainer.rollout: vllm")
    elif rollout.startswith("vllm://"):
        from nsd.plugins.trainers._vllm_server import reached

        reached(rollout)


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
