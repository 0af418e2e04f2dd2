"""The `rewards` of a trainer's config: blocks that are filled in and checked, and the plugins made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError, WithJsonSchema

from nsd.plugins import registry
from nsd.plugins.api import NestedPlugin, Reward, Rollout, Verifier, old_reward
from nsd.plugins.errors import InputError, StageFailed


def _reward_block(block: Any) -> dict[str, Any]:
    """A reward's block with every default filled in. Checking a config runs nobody's file: such a block stays."""
    block = {"use": block} if isinstance(block, str) else block
    if not isinstance(block, dict) or not isinstance(block.get("use"), str):
        raise ValueError("a reward is a name or a block with `use: NAME`")
    if registry.is_path(block["use"]):
        return dict(block)
    name, reward_class = block["use"], registry.find("reward", block["use"])
    try:
        config = reward_class.Config.model_validate({key: value for key, value in block.items() if key != "use"})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'config'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"reward {name!r}: {faults}") from None
    return {"use": name, **config.model_dump(mode="json")}


RewardBlock = Annotated[
    dict[str, Any],
    NestedPlugin("reward"),
    BeforeValidator(_reward_block),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"use": {"type": "string"}}, "required": ["use"]},
            ]
        }
    ),
]

Named = list[tuple[str, Reward]]


def load_rewards(blocks: Sequence[Mapping[str, Any]], verifier: Verifier | None = None) -> Named:
    """The reward plugins of `trainer.rewards` with the names their curves carry, numbered where one occurs twice.

    To ask for rewards they need the training's `verifier`.

    Raises InputError for one that is written in the old form.
    """
    loaded: Named = []
    for block in blocks:
        found = registry.find("reward", block["use"])
        assert issubclass(found, Reward)
        if reason := old_reward(found):
            raise InputError(f"reward {block['use']!r}: {reason}")
        config = found.Config.model_validate({key: value for key, value in block.items() if key != "use"})
        name = found.name
        taken = sum(other == name or other.startswith(f"{name}_") for other, _ in loaded)
        loaded.append((name if not taken else f"{name}_{taken + 1}", found(config)))
    if verifier is not None:
        for _, reward in loaded:
            reward.verifier = verifier
    return loaded


def weight_of(reward: Reward) -> float:
    """What the reward's values are multiplied by before they are added up."""
    return float(getattr(reward.config, "weight", 1.0))


def values_of(name: str, reward: Reward, rollouts: Sequence[Rollout]) -> list[float]:
    """The reward of each rollout, unweighted. Raises StageFailed, naming it, where it fails or gives no number."""
    try:
        values = [float(value) for value in reward.rewards(rollouts)]
    except Exception as error:
        raise StageFailed(f"reward {name!r} failed: {type(error).__name__}: {error}") from error
    if len(values) != len(rollouts) or not all(map(math.isfinite, values)):
        raise StageFailed(f"reward {name!r} returned {len(values)} values for {len(rollouts)} rollouts, or no numbers")
    return values
