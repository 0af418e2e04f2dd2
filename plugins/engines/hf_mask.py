"""The attention mask of the decode loop: made once for a batch, not at every token.

    masks = Masks(model, accepts, cache, mask, padded, longest)
    masks.of(tokens)        # what the model is given where the cache has so many tokens
    masks.select(keep)      # rows left the batch

Given a mask of which tokens are padding, transformers asks at every step whether any is: the host waits for the
device. Its attention then makes numbers of truth values, in every layer. Here both happened before: whether a row is
padded is known from the prompts' lengths, and the numbers to add to attention scores are slices of one buffer, whose
rows begin at multiples of ALIGNED numbers, as CUDA's kernels want them.

Limits: for models of MODELS alone, with full attention in every layer. The others are given the plain mask, and wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from nsd.plugins.engines.hf_cache import RoomyLayer

MODELS = frozenset({"llama", "mistral", "olmo2", "qwen2", "qwen3"})  # known to take a mask of four dimensions as it is
ALIGNED = 16  # numbers


class Masks:
    """Masks of a batch's rows as it is decoded. `padded` rows have a prompt shorter than the longest."""

    def __init__(
        self, model: Any, accepts: AbstractSet[str], cache: Any, mask: Any, padded: Sequence[bool], longest: int
    ) -> None:
        """`mask` [R, L] has 1 for tokens of the prompts and 0 for padding; `longest` tokens are to come."""
        self._padded = list(padded)
        config = model.config.get_text_config()
        kind = getattr(config, "_attn_implementation", None)
        self._prebuilt = (
            config.model_type in MODELS
            and kind in ("sdpa", "eager")
            and "position_ids" in accepts  # else the model counts positions by the plain mask
            and all(type(layer) is RoomyLayer for layer in cache.layers)
        )
        self._always = kind == "eager"
        rows, width = mask.shape
        if not self._prebuilt:
            self._mask = mask.new_ones(rows, width + longest)
            self._mask[:, :width] = mask
            return
        import torch

        dtype = model.get_input_embeddings().weight.dtype
        # What each attention puts in the place of False.
        nothing = torch.finfo(dtype).min if kind == "eager" else float("-inf")
        self._mask = mask.new_zeros(rows, -(-(width + longest) // ALIGNED) * ALIGNED, dtype=dtype)
        self._mask[:, :width].masked_fill_(mask == 0, nothing)

    def of(self, tokens: int) -> Any:
        """What to give the model whose keys are of so many tokens; None where every one counts."""
        if not self._prebuilt:
            return self._mask[:, :tokens]
        return self._mask[:, None, None, :tokens] if self._always or any(self._padded) else None

    def select(self, keep: Any) -> None:
        """Make row i the former row keep[i]. Waits for the device."""
        self._mask = self._mask[keep]
        self._padded = [self._padded[row] for row in keep.tolist()]
