"""RL via self-distillation (SDPO, arXiv 2601.20802): the model learns from itself, having read what went well or wrong.

    trainer: {use: sdpo, steps: 200, prompts_per_step: 32, num_generations: 8, alpha: 0.5, distillation_topk: 100}

Each question gets a group of rollouts. For each of them a teacher reads the question again, with the first other
rollout of the group that succeeded, or, where there is none, with the feedback of the rollout's own verdict; then it
judges the very same response, token by token. The student is drawn to what the teacher expects there. A rollout with
nothing to read is masked. The loss is the divergence of losses.py, times the clipped importance ratio, over the
unmasked tokens of the whole step.

Options have the names and defaults of the published README (facts and differences: docs/self_distillation.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from nsd.plugins.registry import plugin
from nsd.plugins.trainers._rollout_config import RewardedConfig
from nsd.plugins.trainers.on_policy import OnPolicy
from nsd.plugins.trainers.teacher_inputs import Reprompting, Templates

if TYPE_CHECKING:
    from torch import Tensor

    from nsd.plugins.trainers._algorithm import Loop, Micro, Sampled


@plugin("trainer", "sdpo")
class Sdpo(OnPolicy):
    """Self-distillation from successful rollouts and feedback."""

    class Config(RewardedConfig):
        full_logit_distillation: bool = Field(
            default=True, description="Compare distributions; false compares the sampled token alone, with alpha 1."
        )
        alpha: float = Field(
            default=0.5, ge=0, le=1, description="0 is KL(teacher || student), 1 KL(student || teacher), 0.5 JSD."
        )
        distillation_topk: int | None = Field(
            default=100, ge=1, description="Entries compared, the student's likeliest; null compares all."
        )
        distillation_add_tail: bool = Field(default=True, description="All other entries count as one more.")
        entry_clip: float | None = Field(default=None, gt=0, description="No entry adds more than this.")
        is_clip: float | None = Field(default=2.0, gt=0, description="Bound of the importance ratio; null: no ratio.")
        teacher_regularization: Literal["ema", "trust-region", "none"] = Field(
            default="ema",
            description="The teacher: a moving average, the start lerped towards now, or the model itself.",
        )
        teacher_update_rate: float = Field(default=0.05, ge=0, le=1)
        success_reward_threshold: float = 1.0
        dont_reprompt_on_self_success: bool = Field(
            default=True, description="A rollout is never its own demonstration."
        )
        remove_thinking_from_demonstration: bool = True
        include_environment_feedback: bool = True
        environment_feedback_only_without_solution: bool = True
        max_reprompt_len: int = Field(
            default=10240, ge=1, description="Tokens that the teacher reads at most, within the model's context."
        )
        reprompt_truncation: Literal["right", "left", "error"] = Field(
            default="right", description="Which end of what is inserted goes; never the question."
        )
        templates: Templates = Templates()
        distillation_weight: float = Field(
            default=1.0, ge=0, le=1, description="Of the distillation; the rest goes to GRPO's policy loss."
        )
        epsilon: float = Field(default=0.2, gt=0, description="Clip of the policy loss, downwards.")
        epsilon_high: float = Field(default=0.28, gt=0, description="Clip of the policy loss, upwards.")

        @model_validator(mode="after")
        def _sampled(self) -> Sdpo.Config:
            if not self.full_logit_distillation and self.alpha != 1:
                raise ValueError(
                    f"full_logit_distillation: false compares the sampled token alone, which estimates "
                    f"KL(student || teacher): set alpha to 1 (now {self.alpha:g})"
                )
            if not self.full_logit_distillation and self.teacher_regularization == "trust-region":
                raise ValueError("teacher_regularization: trust-region lerps logits: it needs full_logit_distillation")
            unread = ("distillation_topk", "distillation_add_tail", "entry_clip")
            fields = type(self).model_fields
            if not self.full_logit_distillation and (
                given := [name for name in unread if getattr(self, name) != fields[name].default]
            ):
                raise ValueError(
                    f"full_logit_distillation: false compares the sampled token alone, so {', '.join(given)} would "
                    "have no effect: leave it out"
                )
            return self

        @property
        def compared(self) -> bool:
            """Whether how rewards differ within groups is a part of what is learned."""
            return self.distillation_weight < 1

        @property
        def reprompting(self) -> Reprompting:
            """The fields that say what the teacher reads."""
            return Reprompting(
                success_reward_threshold=self.success_reward_threshold,
                dont_reprompt_on_self_success=self.dont_reprompt_on_self_success,
                remove_thinking_from_demonstration=self.remove_thinking_from_demonstration,
                include_environment_feedback=self.include_environment_feedback,
                environment_feedback_only_without_solution=self.environment_feedback_only_without_solution,
                max_reprompt_len=self.max_reprompt_len,
                reprompt_truncation=self.reprompt_truncation,
                templates=self.templates,
            )

    config: Config

    def begin(self, loop: Loop) -> None:
        """Make the teacher."""
        from nsd.plugins.trainers._teachers import Kind, Teachers

        kinds: dict[str, Kind] = {"ema": "ema", "trust-region": "trust_region", "none": "current"}
        self.teachers = Teachers(loop, kinds[self.config.teacher_regularization], self.config.teacher_update_rate)

    def columns(self, loop: Loop, sampled: Sampled) -> dict[str, Tensor]:
        """What the teacher reads, which tokens count, and the advantages of the policy loss where it has a weight."""
        from nsd.plugins.trainers._distilling import teacher_columns
        from nsd.plugins.trainers.advantages import centred_on_group
        from nsd.plugins.trainers.teacher_inputs import sdpo_inputs

        config, size = self.config, self.config.num_generations
        inputs = sdpo_inputs(
            sampled.rollouts,
            sampled.rewards,
            [place // size for place in range(len(sampled.rollouts))],
            [loop.job.examples[row].prompt for row in sampled.examples],
            loop.tokenizer,
            replace(
                config.reprompting,
                max_reprompt_len=loop.readable(config.max_reprompt_len, config.reprompt_truncation),
            ),
            loop.job.prompt.chat_template_kwargs,
        )
        rewards = sampled.grouped(size)
        solved = (rewards >= config.success_reward_threshold).any(1)
        loop.note("self_distillation/success_group_fraction", solved.sum().item(), len(solved))
        for name, of in (("solution", "has_solution"), ("feedback", "has_feedback"), ("cut", "cut")):
            loop.note(f"self_distillation/{name}_fraction", sum(getattr(one, of) for one in inputs), len(inputs))
        columns = teacher_columns(loop, sampled, inputs)
        if config.distillation_weight < 1:
            columns["advantages"] = centred_on_group(rewards).reshape(-1, 1)
        return columns

    def loss(self, loop: Loop, model: Any, micro: Micro) -> Tensor:
        """Distillation over the unmasked tokens, and the policy loss over all of them."""
        from nsd.plugins.trainers._distilling import distilled
        from nsd.plugins.trainers.advantages import clipped_policy_loss
        from nsd.plugins.trainers.losses import masked_token_mean

        config, weight = self.config, self.config.distillation_weight
        ratio = config.is_clip is not None and "logp_old" in micro.columns
        seen = loop.forward(model, micro, ratio or weight < 1 or not config.full_logit_distillation)
        loss = distilled(
            loop,
            model,
            micro,
            seen,
            self.teachers,
            alpha=config.alpha,
            topk=config.distillation_topk,
            add_tail=config.distillation_add_tail,
            entry_clip=config.entry_clip,
            is_clip=config.is_clip,
            sampled=not config.full_logit_distillation,
        )
        if weight == 1:
            return loss
        values = clipped_policy_loss(
            seen.logp, micro.logp_old(seen.logp), micro.columns["advantages"], config.epsilon, config.epsilon_high
        )
        policy = masked_token_mean(values, micro.mask, micro.all_tokens)
        loop.note("policy_loss", policy.item() * micro.all_tokens, micro.mask.sum().item())
        return weight * loss + (1 - weight) * policy

    def counts(self, micro: Micro) -> bool:
        """The policy loss counts where every token of the distillation is masked."""
        return self.config.distillation_weight < 1 or micro.tokens > 0

    def after_batch(self, loop: Loop) -> None:
        """Move the teacher, once for all steps that the batch fed."""
        self.teachers.move(loop)

    def notes(self) -> dict[str, Any]:
        """Which way the divergence goes."""
        names = {0.0: "forward_kl", 0.5: "jsd", 1.0: "reverse_kl"}
        return {"divergence": names.get(self.config.alpha, f"mixture {self.config.alpha:g}")}

    def state(self) -> dict[str, Tensor]:
        """The teacher's weights."""
        return self.teachers.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.teachers.restore(state)
