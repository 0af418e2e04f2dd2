"""The on-policy loop as a plugin: what the trainers on it share (their configs' fields: _rollout_config.py).

A step takes `prompts_per_step` questions with `num_generations` rollouts each. Each rollout is drawn by nsd's own
decode loop or by vLLM (`rollout`), judged once, and then an algorithm says two things of it: what stands beside its
tokens (an advantage, a teacher's input: `columns`), and the loss (`loss`). The loop (_loop.py) does the rest: sampling,
rewards, micro batches, checkpoints, metrics, several processes.

Several processes draw the same rollouts as one, each the groups of its share, and losses have the denominators of the
whole step: the result is that of one process up to rounding, where a sampled batch feeds one step.
Limits: no FSDP; prompts are not cut.
"""

from __future__ import annotations

from typing import Any

from nsd.plugins.api import TrainJob, TrainResult
from nsd.plugins.trainers._algorithm import Algorithm
from nsd.plugins.trainers._options import comes_out_even, unfit
from nsd.plugins.trainers._rewards import load_rewards
from nsd.plugins.trainers._rollout_config import RewardedConfig, check_questions, check_vllm, health_observer
from nsd.plugins.trainers.health import HealthWarning


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

    def beside(self) -> str | None:
        """See Plugin.beside; a server is somebody else's."""
        return "vllm" if self.config.rollout == "vllm" else None

    def ready(self, device: str) -> None:
        """A vLLM that draws is there, and of a version that is known."""
        check_vllm(self.config.rollout)

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
