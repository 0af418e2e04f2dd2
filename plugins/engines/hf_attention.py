"""Attention of one new token a row, on a CPU, in float32: two batched matrix products.

torch's own kernel for a CPU works on tiles of 32 queries and more; with one query most of a tile is empty. Measured
with the `hf` engine and the embedded model, one thread, in processor time: 0.91 to 0.98 of the time. A sum is taken
in another order, so logits differ in their last bits; none of 8,000 texts (282,824 tokens) did.

    with quick_steps(model):
        model(...)       # one token a row, with the mask of hf_mask.py or none

Limits: models of hf_mask.MODELS that run by transformers' `sdpa`; the others are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAME = "nsd_one_token"


def takes_quick_steps(model: Any) -> bool:
    """Whether a model that takes the mask of hf_mask.py can be run so."""
    import torch

    dtype = model.get_input_embeddings().weight.dtype
    kind = getattr(model.config.get_text_config(), "_attn_implementation", None)
    return bool(model.device.type == "cpu" and dtype == torch.float32 and kind == "sdpa")


@contextmanager
def quick_steps(model: Any) -> Iterator[None]:
    """Steps of one token by this attention; whatever runs afterwards has its own again."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if NAME not in ALL_ATTENTION_FUNCTIONS:
        ALL_ATTENTION_FUNCTIONS.register(NAME, _forward)
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _forward(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **kwargs: Any
) -> tuple[Any, None]:
    """Transformers' attention interface: query [R, heads, 1, size] -> [R, 1, heads, size], and no weights."""
    size = query.shape[-1]
    found = one_token_attention(query[:, :, 0], key, value, attention_mask, size**-0.5 if scaling is None else scaling)
    return found[:, None], None


def one_token_attention(query: Any, key: Any, value: Any, mask: Any, scaling: float) -> Any:
    """What every row's one token reads: query [R, heads, size], key and value [R, pairs, T, size] -> [R, heads, size].

    `mask` [R, 1, 1, T] is added to the scores; None adds nothing. Heads that share keys go through one product.
    """
    import torch

    (rows, heads, size), (pairs, tokens) = query.shape, key.shape[1:3]
    queries = (query * scaling).reshape(rows * pairs, heads // pairs, size)
    scores = torch.bmm(queries, key.flatten(0, 1).transpose(1, 2)).view(rows, pairs, heads // pairs, tokens)
    if mask is not None:
        scores += mask
    return torch.bmm(scores.softmax(-1).flatten(0, 1), value.flatten(0, 1)).view(rows, heads, size)
