"""Attention of one new token a row: what torch's own gives, and gone after the step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nsd.plugins.api import ModelRef
from nsd.plugins.engines import hf_attention
from nsd.plugins.engines.hf_attention import one_token_attention, quick_steps, takes_quick_steps
from nsd.plugins.models import load_model, resolve


def test_attention_by_hand() -> None:
    """Two heads share one pair: scores log 3 and 0 give weights 3/4 and 1/4, scores 0 and 0 a half each."""
    key = torch.tensor([[[[1.0], [0.0]]]])
    value = torch.tensor([[[[4.0], [8.0]]]])
    query = torch.tensor([[[2 * torch.log(torch.tensor(3.0))], [0.0]]])
    assert one_token_attention(query, key, value, None, 0.5).flatten().tolist() == pytest.approx([5.0, 6.0])
    hidden = torch.tensor([[[[float("-inf"), 0.0]]]])
    assert one_token_attention(query, key, value, hidden, 0.5).flatten().tolist() == [8.0, 8.0]


@pytest.mark.parametrize(("heads", "pairs"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_torchs_own(heads: int, pairs: int, masked: bool) -> None:
    made = torch.Generator().manual_seed(0)
    query = torch.randn(3, heads, 8, generator=made)
    # Windows of larger buffers, as the slots have them.
    key, value = (torch.randn(3, pairs, 20, 8, generator=made)[:, :, 4:15] for _ in range(2))
    mask = None
    if masked:
        mask = torch.zeros(3, 1, 1, 11)
        mask[1, ..., :6] = float("-inf")
    own = torch.nn.functional.scaled_dot_product_attention(query[:, :, None], key, value, mask, enable_gqa=True)
    torch.testing.assert_close(one_token_attention(query, key, value, mask, 8**-0.5), own[:, :, 0])


def test_a_model_has_its_own_attention_after_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = load_model(ModelRef(resolve("builtin:wordmath-1m")), "cpu")
    asked = 0
    inner = hf_attention.one_token_attention

    def counted(*args: Any) -> Any:
        nonlocal asked
        asked += 1
        return inner(*args)

    monkeypatch.setattr(hf_attention, "one_token_attention", counted)
    with torch.inference_mode():
        own = model(torch.tensor([[5]])).logits
        with quick_steps(model):
            found = model(torch.tensor([[5]])).logits
        assert asked == model.config.num_hidden_layers
        model(torch.tensor([[5]]))
    assert asked == model.config.num_hidden_layers and model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(found, own)
    assert takes_quick_steps(model) and not takes_quick_steps(model.bfloat16())
