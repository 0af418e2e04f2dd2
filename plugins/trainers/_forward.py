"""Forward passes of the on-policy loop: log-probabilities and hidden states of completions, never all logits."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from nsd.plugins.trainers._algorithm import Forward
from nsd.plugins.trainers._rollouts import bare

if TYPE_CHECKING:
    from torch import Tensor


def prepared(model: Any, temperature: float) -> Any:
    """Let a model give log-probabilities and hidden states of tokens without holding the logits of all; returns it."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    inner = bare(model)
    add_fused_lm_head(inner, temperature=temperature, outputs=("log_probs", "entropy"))
    fused = inner.forward

    def forward(*args: Any, hidden_only: bool = False, **kwargs: Any) -> Any:
        if hidden_only:
            # Through the whole model's call, so that what wraps it for several processes takes part. That looks which
            # weights the output comes from, and waits for no gradient of the others: the head, which the loss applies
            # by itself, is in the output as a view, for a weight as such comes from nowhere.
            # Elsewhere it is left out: under mixed precision what is given out is copied to float32.
            used = []
            if torch.is_grad_enabled() and torch.distributed.is_available() and torch.distributed.is_initialized():
                head = inner.get_output_embeddings()
                used = [value.view_as(value) for value in (head.weight, head.bias) if value is not None]
            return inner.base_model(*args, use_cache=False, **kwargs).last_hidden_state, *used
        return fused(*args, **kwargs)

    inner.forward = forward
    return model


def forward(model: Any, ids: Tensor, attention: Tensor, tokens: int, logp: bool) -> Forward:
    """One pass over rows whose last `tokens` columns are completions."""
    inner = bare(model)
    inputs = {"input_ids": ids, "attention_mask": attention}
    if "position_ids" in inspect.signature(type(inner).forward).parameters:  # as the decode loop counts them
        inputs["position_ids"] = (attention.cumsum(1) - 1).clamp(min=0)
    if not logp:
        hidden, *_ = model(**inputs, hidden_only=True)
        return Forward(hidden[:, -tokens - 1 : -1])
    labels = ids.masked_fill(attention == 0, -100)
    labels[:, :-tokens] = -100
    caught: list[Any] = []
    hook = inner.base_model.register_forward_hook(lambda *seen: caught.append(seen[2].last_hidden_state))
    try:
        output = model(**inputs, labels=labels, fused_lm_head=True)
    finally:
        hook.remove()
    return Forward(caught[0][:, -tokens - 1 : -1], output.log_probs[:, -tokens:], output.entropy[:, -tokens:])


def padded(prompts: list[list[int]], completions: list[list[int]], pad: int, device: Any) -> tuple[Any, Any, Any]:
    """Prompts padded on the left, completions on the right: ids and attention [R, P + T], completion mask [R, T]."""
    import torch

    before, after = max(map(len, prompts)), max(1, max(map(len, completions)))
    ids, attention, mask = [], [], []
    for prompt, completion in zip(prompts, completions, strict=True):
        left, right = before - len(prompt), after - len(completion)
        ids.append([pad] * left + prompt + completion + [pad] * right)
        attention.append([0] * left + [1] * (len(prompt) + len(completion)) + [0] * right)
        mask.append([True] * len(completion) + [False] * right)
    return tuple(torch.tensor(one, device=device) for one in (ids, attention, mask))
