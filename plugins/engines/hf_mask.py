"""The attention mask of the decode loop: made once for a row, not at every token.

Given a mask of which tokens are padding, transformers asks at every step whether any is: the host waits for the
device. Its attention then makes numbers of truth values, in every layer. Here both happened before: whether a row is
padded is known from the prompts' lengths, and the numbers to add to attention scores are slices of one buffer, whose
rows begin at multiples of ALIGNED numbers, as CUDA's kernels want them.

Limits: for models of MODELS alone, with full attention in every layer. The others are given the plain mask, and wait.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

MODELS = frozenset({"llama", "mistral", "olmo2", "qwen2", "qwen3"})  # known to take a mask of four dimensions as it is
ALIGNED = 16  # numbers


@dataclass(frozen=True)
class Prebuilt:
    """A mask of numbers of `dtype`: 0 where a token counts, `hidden` where it does not.

    `always`: the model is to be given it where every token counts, too.
    """

    dtype: Any
    hidden: float
    always: bool

    @classmethod
    def of_model(cls, model: Any, accepts: AbstractSet[str]) -> Prebuilt | None:
        """What this model takes in every layer of full attention, None where that is not known."""
        import torch

        config = model.config.get_text_config()
        kind = getattr(config, "_attn_implementation", None)
        if config.model_type not in MODELS or kind not in ("sdpa", "eager") or "position_ids" not in accepts:
            return None  # without position_ids the model counts positions by the plain mask
        dtype = model.get_input_embeddings().weight.dtype
        # What each attention puts in the place of False.
        return cls(dtype, torch.finfo(dtype).min if kind == "eager" else float("-inf"), kind == "eager")

    def of(self, mask: Any) -> Any:
        """The same as a plain mask, which has 1 for tokens and 0 for padding."""
        return mask.new_zeros(mask.shape, dtype=self.dtype).masked_fill_(mask == 0, self.hidden)
