"""An algorithm on the on-policy loop: what it is given of a sampled batch, and what it says of it.

A sampled batch has R rows, P prompt columns and T completion columns: prompts are padded on the left, completions on
the right, so that column P is the first completion token of every row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nsd.plugins.api import Rollout, Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from nsd.plugins.trainers._rollouts import Drawn

Loop = Any  # the trainer that `loop_class` makes; transformers has no types


@dataclass
class Sampled:
    """A sampled batch on this process. `drawn`, `rollouts`, `rewards` and `prompts` are of all that was drawn, groups
    together.

    The tensors are of the rows that are trained on: `ids` and `attention` [R, P + T], `mask` [R, T] true for the tokens
    of completions. `trained` are their places among the rollouts. `logp_old` [R, T] are log-probabilities of the
    sampled tokens by the model that drew them, at the temperature of sampling; None where the first loss has the same.
    """

    step: int
    examples: list[int]
    drawn: list[Drawn]
    rollouts: list[Rollout]
    rewards: list[float]
    prompts: list[list[int]]
    trained: list[int]
    ids: Tensor
    attention: Tensor
    mask: Tensor
    logp_old: Tensor | None = None
    teacher_inputs: list[str | None] | None = None  # what a teacher read, of the trained rows, for the report

    def of_trained(self, values: Sequence[Any]) -> list[Any]:
        """Those of a list over all rollouts that belong to trained rows."""
        return [values[place] for place in self.trained]

    def grouped(self, per_question: int) -> Tensor:
        """Rewards as [G, K]."""
        import torch

        return torch.tensor(self.rewards, device=self.ids.device, dtype=torch.float32).view(-1, per_question)


@dataclass
class Micro:
    """Some rows of a sampled batch with their columns; `tokens` and `rows` count the whole step's, everywhere."""

    ids: Tensor
    attention: Tensor
    mask: Tensor
    columns: dict[str, Tensor]
    tokens: float  # with a true loss_mask
    all_tokens: float
    rows: float

    @property
    def loss_mask(self) -> Tensor:
        """[R, T], the tokens that count."""
        return self.columns.get("loss_mask", self.mask)

    def logp_old(self, logp: Tensor) -> Tensor:
        """Log-probabilities when sampled; those of now, without gradient, where nothing was learned since."""
        return self.columns.get("logp_old", logp).detach()


@dataclass
class Forward:
    """What a forward pass gives of the completion's tokens: `hidden` [R, T, H] that predict them, and where asked for
    `logp` and `entropy` [R, T] at the temperature of sampling, 0 outside the attention."""

    hidden: Tensor
    logp: Any = None
    entropy: Any = None


class Algorithm(Trainer):
    """What differs between the trainers on the loop. A subclass gives `columns` and `loss`, and what it keeps."""

    wants_logp_old: ClassVar[bool] = False  # True: `Sampled.logp_old` is always there
    rewarded: ClassVar[bool] = True  # False: no reward is looked at, and no curve of one is drawn
    imports = ("trl.trainer.utils", "transformers.trainer", "peft")
    config: Any

    def rows_per_step(self) -> int:
        """Rollouts of one optimizer step that are trained on."""
        raise NotImplementedError

    def begin(self, loop: Loop) -> None:
        """Called once, with the start model in `loop.model`, before anything is restored or drawn."""

    def draws_per_question(self) -> int:
        """Rollouts drawn of each question; those with sample numbers below `num_generations` are trained on."""
        return int(self.config.num_generations)

    def rewards_of(self, loop: Loop, sampled: Sampled) -> list[float] | None:
        """The reward of each rollout where `rewards` of the config do not say it."""
        return None

    def columns(self, loop: Loop, sampled: Sampled) -> dict[str, Tensor]:
        """What stands beside the trained rows: tensors [R, ...]. A bool `loss_mask` [R, T] says which tokens count."""
        raise NotImplementedError

    def loss(self, loop: Loop, model: Any, micro: Micro) -> Tensor:
        """What a micro batch adds to the loss of its step, a scalar."""
        raise NotImplementedError

    def counts(self, micro: Micro) -> bool:
        """Whether the loss of this micro batch's step is about any token; where it is not, no step is taken."""
        return micro.tokens > 0

    def after_batch(self, loop: Loop) -> None:
        """Called when a sampled batch has been learned from, after its last optimizer step."""

    def end(self) -> None:
        """Let go of what `begin` made: a plugin outlives its training."""
        for name in set(vars(self)) - {"config"}:
            delattr(self, name)

    def notes(self) -> dict[str, Any]:
        """What the report should say of it, beyond what every trainer says."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold beside weights and optimizer."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
