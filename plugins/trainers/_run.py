"""How long a training runs, by steps or by what it may spend, and what has happened in it. Imports nothing heavy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nsd.plugins.api import TrainJob
from nsd.plugins.trainers._checkpoints import Cadence, Marker
from nsd.plugins.trainers._options import TrlTrainerConfig

if TYPE_CHECKING:
    from nsd.plugins.trainers._validation import Watch

Observer = Callable[[int, Mapping[str, float], bool], str | None]


@dataclass
class Run:
    """A training run's length and grain, and what happened in it.

    `schedule_steps` is what the learning rate is scheduled over, `stop_at` where the run ends (earlier under
    --smoke). Checkpoints fall on multiples of `boundary` optimizer steps. `observe(step, metrics, replayed)` sees
    every logged point on the first process, after a resume also the earlier ones, and may return a reason to fail.

    A budget of seconds, or of generated tokens where the trainer `draws` rollouts, ends the run at the first multiple
    of `boundary` at which it is spent, after however many steps. The schedule then follows the share that is spent: the
    learning rate is what it would be after as large a share of `schedule_steps`.
    """

    job: TrainJob
    config: TrlTrainerConfig
    schedule_steps: int
    boundary: int = 1
    observe: Observer | None = None
    after_batch: Callable[[], None] | None = None  # called at each multiple of `boundary`
    nothing_counts: Callable[[], bool] | None = None  # whether the step's loss is about nothing
    draws: bool = False
    generated: int = 0  # tokens of rollouts drawn so far, by all processes
    learned: float = 0.0  # those of them that steps have learned from: of a sampled batch, an equal part by each
    seconds: float = 0.0  # spent in steps
    watch: Watch | None = None
    resumed_from: int | None = None
    interrupted: bool = False
    stepping: bool = False  # the optimizer is at work
    fail_reason: str | None = None
    cadence: Cadence = field(init=False)
    _sampled: int = 0  # tokens of rollouts drawn before the batch that is learned from
    _clock: float = 0.0

    def __post_init__(self) -> None:
        self.cadence = Cadence(self.config.save_every)

    @property
    def amount(self) -> float | None:
        """The budget that ends the run after however many steps, None where the number of steps is known."""
        budget = self.job.budget
        return budget.generated_tokens if self.draws and budget.generated_tokens is not None else budget.seconds

    @property
    def stop_at(self) -> int | None:
        """The step at which the run ends, None where nobody knows."""
        steps = [self.job.max_steps_cap, None if self.amount is not None else self.schedule_steps]
        return min((one for one in steps if one is not None), default=None)

    @property
    def total(self) -> int | None:
        """How many steps a person may be told of."""
        return None if self.amount is not None else self.stop_at

    @property
    def spent(self) -> bool:
        """Whether the budget is spent that ends the run after however many steps."""
        return self.amount is not None and (self.generated if self._in_tokens else self.seconds) >= self.amount

    @property
    def _in_tokens(self) -> bool:
        return self.draws and self.job.budget.generated_tokens is not None

    def scheduled(self) -> float:
        """How far along the schedule the run is, in steps, where such a budget ends it."""
        assert self.amount is not None
        done = self.learned if self._in_tokens else self.seconds
        return min(1.0, done / self.amount) * self.schedule_steps

    def restore(self, marker: Marker) -> None:
        """Go on from a checkpoint."""
        self.resumed_from = marker.step
        self.generated = self._sampled = marker.generated
        self.learned, self.seconds = float(marker.generated), marker.seconds

    def begin_step(self) -> None:
        """Start the clock."""
        self._clock = time.monotonic()

    def lap(self) -> None:
        """Add what has passed since the last look at the clock."""
        now = time.monotonic()
        self.seconds += now - self._clock
        self._clock = now

    def learn(self, step: int) -> None:
        """Note that the optimizer has taken its `step`-th step."""
        place = (step - 1) % self.boundary + 1
        self.learned = self._sampled + (self.generated - self._sampled) * place / self.boundary
        if place == self.boundary:
            self._sampled = self.generated
