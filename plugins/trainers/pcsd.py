"""Privileged-context self-distillation: the teacher is the same model, having read what the student may not see.

    trainer: {use: pcsd, divergence: forward_kl, steps: 100, prompts_per_step: 16, num_generations: 4}

The student answers the plain question. The teacher reads the question, a line break and the privileged text, then the
student's own response; the student is drawn to what the teacher expects at each of its tokens, over the full vocabulary
or the student's likeliest entries, mean over tokens. No reward is looked at.

`privileged: solution` is the gold solution of a labeled question and the voted target of a pseudo-labeled one, never
hidden truth; `other_question` is another question's, the control that tells whether it is the information that helps.
`divergence` names the direction: forward_kl is KL(teacher || student), reverse_kl KL(student || teacher). A question
without privileged text has teacher and student equal, and no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from nsd.plugins.errors import InputError
from nsd.plugins.registry import plugin
from nsd.plugins.trainers._rollout_config import RolloutConfig
from nsd.plugins.trainers.on_policy import OnPolicy

if TYPE_CHECKING:
    from torch import Tensor

    from nsd.plugins.trainers._algorithm import Loop, Micro, Sampled

ALPHAS = {"forward_kl": 0.0, "jsd": 0.5, "reverse_kl": 1.0}


@plugin("trainer", "pcsd")
class Pcsd(OnPolicy):
    """Self-distillation from privileged text."""

    rewarded = False

    class Config(RolloutConfig):
        learning_rate: float = Field(default=1e-6, gt=0)
        num_generations: int = Field(default=4, ge=1, description="Rollouts of each question.")
        privileged: Literal["solution", "other_question"] = Field(
            default="solution", description="What the teacher reads: the question's solution, or another question's."
        )
        divergence: Literal["forward_kl", "reverse_kl", "jsd"] = Field(
            default="forward_kl", description="forward_kl is KL(teacher || student)."
        )
        topk: int | None = Field(default=None, ge=1, description="Entries compared; null compares all.")
        add_tail: bool = Field(default=True, description="With topk, all other entries count as one more.")
        entry_clip: float | None = Field(default=None, gt=0, description="No entry adds more than this.")
        is_clip: float | None = Field(default=None, gt=0, description="Bound of the importance ratio; null: no ratio.")
        teacher: Literal["current", "frozen", "ema"] = Field(
            default="current", description="The model as it is, as it was at the start, or a moving average."
        )
        teacher_update_rate: float = Field(default=0.05, ge=0, le=1, description="Of the moving average.")
        max_teacher_len: int | None = Field(default=None, ge=1, description="Tokens that the teacher reads at most.")
        truncation: Literal["right", "left", "error"] = Field(
            default="right", description="Which end of the privileged text goes."
        )

    config: Config

    def rollouts_of_a_question(self) -> int | None:
        """It learns from solutions, and a test question's may not be shown."""
        return None

    def begin(self, loop: Loop) -> None:
        """Make the teacher, and find each question's privileged text."""
        from nsd.plugins.trainers._teachers import Teachers
        from nsd.plugins.trainers.teacher_inputs import privileged_text

        self.teachers = Teachers(loop, self.config.teacher, self.config.teacher_update_rate)
        self.texts = privileged_text(loop.job.examples, self.config.privileged, loop.job.seeds.order)
        if all(text is None for text in self.texts):
            raise InputError(
                f"trainer.privileged: {self.config.privileged} has no text for any question, so teacher and student "
                "read the same and nothing would be learned: train on labeled questions with solutions, or on pseudo"
            )
        if lacking := sum(text is None for text in self.texts):
            loop.job.warn(
                f"{lacking} of {len(self.texts)} questions have no {self.config.privileged} for the teacher to read: "
                "nothing is learned from them",
                "trainer.privileged",
            )

    def columns(self, loop: Loop, sampled: Sampled) -> dict[str, Tensor]:
        """What the teacher reads."""
        from nsd.plugins.trainers._distilling import teacher_columns
        from nsd.plugins.trainers.teacher_inputs import pcsd_inputs

        config = self.config
        inputs = pcsd_inputs(
            [loop.job.examples[row].prompt for row in sampled.examples],
            [self.texts[row] for row in sampled.examples],
            loop.tokenizer,
            loop.readable(config.max_teacher_len, config.truncation),
            config.truncation,
            loop.job.prompt.chat_template_kwargs,
        )
        return teacher_columns(loop, sampled, inputs)

    def loss(self, loop: Loop, model: Any, micro: Micro) -> Tensor:
        """The divergence, mean over the step's tokens."""
        from nsd.plugins.trainers._distilling import distilled

        config = self.config
        ratio = config.is_clip is not None and "logp_old" in micro.columns
        return distilled(
            loop,
            model,
            micro,
            loop.forward(model, micro, ratio),
            self.teachers,
            alpha=ALPHAS[config.divergence],
            topk=config.topk,
            add_tail=config.add_tail,
            entry_clip=config.entry_clip,
            is_clip=config.is_clip,
        )

    def after_batch(self, loop: Loop) -> None:
        """Move the teacher, where it is an average."""
        self.teachers.move(loop)

    def notes(self) -> dict[str, Any]:
        """Which way the divergence goes, and what the teacher read."""
        return {"divergence": self.config.divergence, "privileged": self.config.privileged}

    def state(self) -> dict[str, Tensor]:
        """The teacher's weights."""
        return self.teachers.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.teachers.restore(state)
