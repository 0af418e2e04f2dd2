"""Watches the curves of a training on rollouts and says in plain words what is wrong and which field to change.

    watch = HealthWatch(HealthConfig(), Settings(beta=0.04, max_tokens=256, num_generations=8))
    for warning in watch.observe(step, metrics): print(warning.text, warning.field)

A pure object: the same metrics give the same warnings, so a resumed run replays the earlier points and goes on as
if it had not been interrupted. Each problem is said once per episode: again only after it was gone for a whole
window. The watch looks for the problems that cost the author of the noisy-student study days: groups without any
difference in reward, a KL that does not leave 0, completions that stop ending. It also looks for a reward that falls.

Limits: thresholds are rules of thumb over a sliding window, not tests; a run can be silent and still learn nothing
useful. The metric names are those of TRL 1.16.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import Field

from nsd.plugins.api import PluginConfig

CLIPPED = "completions/clipped_ratio"
TERMINATED = "completions/mean_terminated_length"
SUCCESS = "self_distillation/success_group_fraction"
REPROMPTED = "self_distillation/reprompt_sample_fraction"
DISTILLED = "self_distillation/distillation_loss"
WATCHED = ("reward_std", "frac_reward_zero_std", "kl", "entropy", CLIPPED, TERMINATED, SUCCESS, REPROMPTED, DISTILLED)
RUNAWAY_FLOOR = 0.3
FALL_P_VALUE = 5e-4


class HealthConfig(PluginConfig):
    """Thresholds of the watch. They never change what is trained, except that `stop` ends a broken run."""

    window: int = Field(default=20, ge=4, description="Logged points looked at together.")
    zero_std_fraction: float = Field(default=0.8, gt=0, le=1, description="Groups without any difference in reward.")
    kl_min: float = Field(default=1e-6, ge=0, description="A KL that stays below has not left the start.")
    kl_max: float = Field(default=2.0, gt=0, description="Nats per token; above, the model has left its reference.")
    clipped_ratio_max: float = Field(default=0.5, gt=0, le=1, description="Completions cut off at max_tokens.")
    clipped_ratio_rise: float = Field(default=0.25, gt=0, le=1, description="Rise over the start of the run.")
    min_length: float = Field(default=2.0, ge=0, description="Mean tokens of completions that end by themselves.")
    reward_drop: float = Field(default=0.5, gt=0, lt=1, description="Share of the mean reward at the start.")
    shrink: float = Field(default=0.25, gt=0, lt=1, description="Share of the length or entropy of the start.")
    stop: bool = Field(default=False, description="End the stage as failed when the run is broken.")


@dataclass(frozen=True)
class Settings:
    """The values of the run's fields that a text refers to. `beta` is None for a trainer that has none.

    `compared`: what is learned is how rewards differ within groups. `privileged`: there is a field of that name.
    """

    beta: float | None = 0.04
    max_tokens: int = 256
    num_generations: int = 8
    temperature: float = 1.0
    learning_rate: float = 1e-5
    compared: bool = True
    privileged: bool = False

    @property
    def held(self) -> str:
        """How to hold the model nearer to its start, as an advice."""
        lower = f"ower trainer.learning_rate (now {self.learning_rate:g})"
        return f"L{lower}" if self.beta is None else f"Raise trainer.beta (now {self.beta:g}) or l{lower}"

    @property
    def holds(self) -> str:
        """The field that holds the model near its start."""
        return "trainer.learning_rate" if self.beta is None else "trainer.beta"


@dataclass(frozen=True, slots=True)
class HealthWarning:
    """One problem: `field` is the spec field to change, `broken` that the run cannot recover by itself."""

    step: int
    kind: str
    text: str
    field: str
    broken: bool = False


class HealthWatch:
    """Sliding-window rules over logged metrics; see the module."""

    def __init__(self, config: HealthConfig, settings: Settings | None = None) -> None:
        self.config = config
        self.settings = settings or Settings()
        self._recent: dict[str, deque[float]] = {}
        self._first: dict[str, list[float]] = {}
        self._taken: dict[str, int] = {}
        self._clear_for: dict[str, int] = {}  # open episodes: points since the problem was last seen
        self._broken: set[str] = set()  # the open episodes that the run cannot recover from by itself
        self._short = max(3, config.window // 4)
        self._baseline = config.window // 2

    def observe(self, step: int, metrics: Mapping[str, float]) -> list[HealthWarning]:
        """Take in the metrics logged after `step`; returns the problems that begin here."""
        for name in WATCHED:
            if name in metrics and math.isfinite(metrics[name]):
                self._take(name, metrics[name])
        reward = metrics.get("rewards/correct/mean", metrics.get("reward"))
        if reward is not None and math.isfinite(reward):
            self._take("reward", reward)
        fresh = any(name in metrics for name in (*WATCHED, "reward"))
        found = [*self._not_finite(step, metrics), *(self._problems(step) if fresh else ())]
        # What is broken explains the rest, whose advice would mislead: until it is over, it alone is said.
        self._broken |= {problem.kind for problem in found if problem.broken}
        if self._broken:
            found = [problem for problem in found if problem.broken]
        present = {problem.kind for problem in found}
        for kind in list(self._clear_for):
            self._clear_for[kind] = 0 if kind in present else self._clear_for[kind] + 1
            if self._clear_for[kind] >= self.config.window:
                del self._clear_for[kind]
                self._broken.discard(kind)
        new = [problem for problem in found if problem.kind not in self._clear_for]
        self._clear_for.update({problem.kind: 0 for problem in new})
        return new

    def _take(self, name: str, value: float) -> None:
        self._recent.setdefault(name, deque(maxlen=self.config.window)).append(value)
        self._taken[name] = self._taken.get(name, 0) + 1
        first = self._first.setdefault(name, [])
        if len(first) < (self._baseline if name == "reward" else self._short):
            first.append(value)

    def _full(self, name: str) -> list[float] | None:
        """The whole window, None while it is not full."""
        values = self._recent.get(name, ())
        return list(values) if len(values) == self.config.window else None

    def _last(self, name: str) -> float | None:
        """Mean of the last quarter window, None before there is more than the start of the run."""
        values = list(self._recent.get(name, ()))
        return None if len(values) <= self._short else _mean(values[-self._short :])

    def _start(self, name: str) -> float:
        return _mean(self._first[name])

    # ----------------------------------------------------------------- the rules

    def _not_finite(self, step: int, metrics: Mapping[str, float]) -> Iterator[HealthWarning]:
        names = [name for name in ("loss", "grad_norm", "reward", "kl") if not math.isfinite(metrics.get(name, 0.0))]
        if names:
            yield HealthWarning(
                step,
                "not_finite",
                f"{' and '.join(names)} is no longer a finite number: training has diverged. Lower "
                f"trainer.learning_rate (now {self.settings.learning_rate:g})",
                "trainer.learning_rate",
                broken=True,
            )

    def _problems(self, step: int) -> Iterator[HealthWarning]:
        # A reward that was there and went explains why groups agree now, so it is the one to be said.
        signal = self._falling(step) or self._nothing_to_read(step) or self._no_signal(step)
        if signal is not None:
            yield signal
        yield from self._kl(step, silent=signal is not None)
        yield from self._lengths(step)
        yield from self._entropy(step)

    def _falling(self, step: int) -> HealthWarning | None:
        """The mean reward of this window is well below that of the run's start, by size and beyond noise.

        Noise is judged by ranks (Mann-Whitney, one-sided, p < 0.0005), because rewards of single steps are skewed.
        Looked at again every step, it speaks in 1 to 3 % of simulated runs of 500 steps of pure noise.
        """
        now, window = self.settings, self.config.window
        values, first = list(self._recent.get("reward", ())), self._first.get("reward", [])
        if self._taken.get("reward", 0) < self._baseline + window:
            return None
        before, after = _mean(first), _mean(values)
        if not after < self.config.reward_drop * before:
            return None
        from scipy.stats import mannwhitneyu

        if mannwhitneyu(first, values, alternative="greater", method="asymptotic").pvalue >= FALL_P_VALUE:
            return None
        return HealthWarning(
            step,
            "reward_falling",
            f"the mean reward fell from {before:.2g} in the first {len(first)} steps to {after:.2g} in the last "
            f"{window}: training makes the model worse. {now.held}",
            "trainer.learning_rate",
            broken=True,
        )

    def _nothing_to_read(self, step: int) -> HealthWarning | None:
        """A self-distillation whose teacher knows no more than its student."""
        window = self.config.window
        solved, read, loss = (self._full(name) for name in (SUCCESS, REPROMPTED, DISTILLED))
        if read and max(read) <= 0:
            if solved and max(solved) <= 0:
                return HealthWarning(
                    step,
                    "no_success",
                    f"no group of the last {window} steps had a rollout at trainer.success_reward_threshold, and no "
                    "verdict had feedback: the teacher had nothing to read and nothing is learned. Lower the "
                    "threshold, raise trainer.num_generations "
                    f"(now {self.settings.num_generations}), or let a verifier say what was wrong "
                    "(trainer.include_environment_feedback)",
                    "trainer.success_reward_threshold",
                )
            return HealthWarning(
                step,
                "all_masked",
                f"every rollout of the last {window} steps was masked: nothing fits into what the teacher may read, or "
                "the only success of a group was its own. Raise trainer.max_reprompt_len (where the model's context is "
                "the bound, lower trainer.max_tokens) or trainer.num_generations "
                f"(now {self.settings.num_generations})",
                "trainer.max_reprompt_len",
            )
        if self.settings.privileged and loss and max(map(abs, loss)) < 1e-9:
            return HealthWarning(
                step,
                "teacher_equals_student",
                f"teacher and student expected the same in the last {window} steps: nothing is learned. Give the "
                "teacher something to read: data with solutions, or another trainer.privileged",
                "trainer.privileged",
            )
        return None

    def _no_signal(self, step: int) -> HealthWarning | None:
        """Advantages are all 0: only the most telling of the reasons."""
        now, window = self.settings, self.config.window
        if not now.compared:
            return None
        rewards, spreads = self._full("reward"), self._full("reward_std")
        flat = spreads is not None and max(spreads) < 1e-6
        if rewards and flat and max(rewards) <= 0:
            return HealthWarning(
                step,
                "all_wrong",
                f"no completion of the last {window} steps was rewarded, so every advantage is 0 and nothing is "
                f"learned. Raise trainer.num_generations (now {now.num_generations}), take easier questions or a "
                "better start model; if completions are cut off, raise trainer.max_tokens",
                "trainer.num_generations",
            )
        if rewards and flat and min(rewards) >= 1:
            return HealthWarning(
                step,
                "all_right",
                f"every completion of the last {window} steps was right, so every advantage is 0 and nothing is "
                "learned any more. Take harder questions, or fewer trainer.steps",
                "data",
            )
        if flat:
            return HealthWarning(
                step,
                "no_reward_spread",
                f"all completions of the last {window} steps got the same reward (reward_std 0), so every advantage "
                f"is 0. Raise trainer.temperature (now {now.temperature:g}) or trainer.num_generations (now "
                f"{now.num_generations}), or use a reward that tells completions apart",
                "trainer.temperature",
            )
        zero = self._full("frac_reward_zero_std")
        if zero and _mean(zero) >= self.config.zero_std_fraction:
            return HealthWarning(
                step,
                "zero_advantage",
                f"in {_mean(zero):.0%} of the groups of the last {window} steps all completions got the same reward: "
                "they teach nothing. Raise trainer.temperature "
                f"(now {now.temperature:g}) or trainer.num_generations (now {now.num_generations}), or choose "
                "questions that are neither too easy nor too hard",
                "trainer.temperature",
            )
        return None

    def _kl(self, step: int, silent: bool) -> Iterator[HealthWarning]:
        values, now = self._full("kl"), self.settings
        if not values:
            return
        if max(values) < self.config.kl_min and not silent:
            yield HealthWarning(
                step,
                "kl_zero",
                f"the KL to the start model is still {max(values):.1g} after {self.config.window} steps: learning has "
                f"not begun. Raise trainer.learning_rate (now {now.learning_rate:g}); with bfloat16 weights small "
                "updates are rounded away: set model.train_dtype to float32",
                "trainer.learning_rate",
            )
        last = _mean(values[-self._short :])
        if last > self.config.kl_max:
            yield HealthWarning(
                step,
                "kl_high",
                f"the KL to the start model is {last:.2g} nats per token: the model has left what it was. {now.held}",
                now.holds,
                broken=True,
            )

    def _lengths(self, step: int) -> Iterator[HealthWarning]:
        now, clipped = self.settings, self._last(CLIPPED)
        if clipped is not None:
            start = self._start(CLIPPED)
            if start >= self.config.clipped_ratio_max and clipped >= self.config.clipped_ratio_max:
                yield HealthWarning(
                    step,
                    "cut_off",
                    f"{clipped:.0%} of the completions are cut off at trainer.max_tokens (now {now.max_tokens}), and "
                    "were from the start: raise it, or start from a model that ends its answers",
                    "trainer.max_tokens",
                )
            elif clipped >= self.config.clipped_ratio_max or (
                clipped >= max(RUNAWAY_FLOOR, start + self.config.clipped_ratio_rise)
            ):
                yield HealthWarning(
                    step,
                    "runaway",
                    f"{clipped:.0%} of the completions run into the token limit ({now.max_tokens}), {start:.0%} did at "
                    f"the start: the model is forgetting how to end. {now.held}",
                    "trainer.beta" if now.beta == 0 else "trainer.learning_rate",
                    broken=True,
                )
        length = self._last(TERMINATED)
        if length is None or (clipped is not None and clipped >= self.config.clipped_ratio_max):
            return
        start = self._start(TERMINATED)
        if length < self.config.min_length:
            yield HealthWarning(
                step,
                "empty",
                f"completions that end have only {length:.1f} tokens: the model gives empty answers. Check the reward "
                f"and the prompt. {now.held}",
                now.holds,
            )
        elif length < self.config.shrink * start:
            yield HealthWarning(
                step,
                "shrinking",
                f"completions shrank from {start:.0f} to {length:.0f} tokens: often a sign of answers without working, "
                f"or of a reward that can be had cheaply. {now.held}",
                now.holds,
            )
        elif length > 0.9 * now.max_tokens:
            yield HealthWarning(
                step,
                "near_limit",
                f"completions that end have {length:.0f} tokens, close to trainer.max_tokens (now {now.max_tokens}): "
                "good answers are being cut off; raise it",
                "trainer.max_tokens",
            )

    def _entropy(self, step: int) -> Iterator[HealthWarning]:
        last, now = self._last("entropy"), self.settings
        if last is None or self._full("entropy") is None:
            return
        start = self._start("entropy")
        if last < self.config.shrink * start and last < 0.05:
            yield HealthWarning(
                step,
                "entropy_collapse",
                f"the entropy fell from {start:.2g} to {last:.2g} nats per token: completions of a group are becoming "
                f"copies of each other. Raise trainer.temperature (now {now.temperature:g}). {now.held}",
                "trainer.temperature",
            )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
