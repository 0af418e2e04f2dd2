"""From rewards to what a policy gradient is weighted with, and the clipped losses: pure functions over tensors.

Shapes: G questions, K rollouts of each, B rows, T tokens of a row. Nothing here has a gradient but the losses, which
have one in `logp` or `values`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


# --------------------------------------------------------------------------- one number for a rollout


def leave_one_out(rewards: Tensor) -> Tensor:
    """Each reward [G, K] less the mean of the question's others (RLOO, arXiv 2402.14740); K is at least 2."""
    count = rewards.shape[1]
    return rewards - (rewards.sum(1, keepdim=True) - rewards) / (count - 1)


def centred_on_group(rewards: Tensor, scale: bool = False) -> Tensor:
    """Each reward [G, K] less its question's mean; with `scale` over the standard deviation (GRPO, arXiv 2402.03300).

    The deviation is the sample's (K - 1 below), plus 1e-4. Without `scale` it is Dr. GRPO's (arXiv 2503.20783).
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + 1e-4) if scale else centred


# --------------------------------------------------------------------------- one number for a token


def token_rewards(outcome: Tensor, logp: Tensor, logp_reference: Tensor, mask: Tensor, beta: float) -> Tensor:
    """What each token earns: -beta (logp - logp_reference), and on a row's last token the rollout's reward too.

    Args:
        outcome: [B].
        logp, logp_reference: [B, T], of the sampled tokens.
        mask: [B, T], true for the tokens of the rollout; each row has at least one.

    Returns:
        [B, T], 0 outside the mask.
    """
    import torch

    kept = mask.bool()
    found = torch.where(kept, -beta * (logp - logp_reference), logp.new_zeros(())).detach()
    last = kept.shape[1] - 1 - kept.flip(1).int().argmax(1)
    found[torch.arange(len(found), device=found.device), last] += outcome.to(found.dtype)
    return found


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of each token by GAE (arXiv 1506.02438, equation 16).

    A_t = delta_t + gamma lam A_(t+1) with delta_t = r_t + gamma V_(t+1) - V_t; a row ends at its last token, cut at the
    token limit or not, and nothing is worth anything after it. Returns are A + V.

    Args:
        rewards, values: [B, T].
        mask: [B, T], true for the tokens of the rollout, which stand together.

    Returns:
        advantages [B, T] and returns [B, T], 0 outside the mask.
    """
    import torch

    kept = mask.to(rewards.dtype)
    rewards, values = rewards * kept, values.detach() * kept
    found = torch.zeros_like(rewards)
    later = next_value = rewards.new_zeros(len(rewards))
    for step in range(rewards.shape[1] - 1, -1, -1):
        here = kept[:, step]
        delta = rewards[:, step] + gamma * next_value - values[:, step]
        later = here * (delta + gamma * lam * later)
        next_value = values[:, step]
        found[:, step] = later
    return found, (found + values) * kept


def whitened(values: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor] = lambda sums: sums) -> Tensor:
    """`values` [B, T] with mean 0 and variance 1 over the true `mask` [B, T]; 0 outside it and for a lone token.

    `total` adds up sums over the processes that share a batch.
    """
    import torch

    kept = mask.bool()
    chosen = values[kept].double()
    count, sum_ = total(torch.stack([chosen.new_tensor(chosen.numel()), chosen.sum()]))
    if count < 2:
        return torch.zeros_like(values)
    mean = sum_ / count
    variance = total(((chosen - mean) ** 2).sum()) / (count - 1)
    scaled = ((values - mean) / (variance + 1e-8).sqrt()).to(values.dtype)
    return torch.where(kept, scaled, values.new_zeros(()))


# --------------------------------------------------------------------------- losses of each token


def clipped_policy_loss(logp: Tensor, logp_old: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """PPO's clipped surrogate, negated (arXiv 1707.06347, equation 7), of each token [B, T].

    -min(ratio A, clip(ratio, 1 - low, 1 + high) A) with ratio = exp(logp - logp_old). `advantages` is [B, T] or [B, 1].
    """
    import torch

    ratio = (logp - logp_old.detach()).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def clipped_value_loss(values: Tensor, values_old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Of each token [B, T] half the larger squared error: of the value, and of it held within `clip` of the old one.

    As PPO is commonly implemented (arXiv 2005.12729, section 3).
    """
    import torch

    old = values_old.detach()
    held = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (held - returns) ** 2)


def reference_kl(logp: Tensor, logp_reference: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) by the sampled token, [B, T]: exp(d) - d - 1 with d = log reference - log p.

    At least 0, and without bias (GRPO, arXiv 2402.03300, equation 4).
    """
    d = logp_reference.detach() - logp
    return d.exp() - d - 1
