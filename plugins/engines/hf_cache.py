"""A key-value cache that grows with room to spare and whose rows can be picked out.

Transformers' DynamicCache copies all keys and values at every token; half of a small model's decoding time went
into that. Here a layer owns a buffer with room for the next tokens and hands out views of the part in use.

This module imports torch and transformers: import it only inside functions that run a model. Only layers of full
attention are replaced; sliding windows, convolutions and linear attention keep transformers' own.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from nsd.plugins.engines.hf_sizes import ROOM
from nsd.plugins.errors import InputError


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types here
    """DynamicLayer whose `keys` and `values` [R, heads, tokens, dim] are views of larger buffers."""

    keys: torch.Tensor
    values: torch.Tensor

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Append the new tokens' keys and values; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._rebuild(key_states[:, :, :0], value_states[:, :, :0], key_states.shape[-2])
        used = self.keys.shape[-2]
        tokens = used + key_states.shape[-2]
        if tokens > self.key_buffer.shape[-2]:
            self._rebuild(self.keys, self.values, key_states.shape[-2])
        self.key_buffer[:, :, used:tokens] = key_states
        self.value_buffer[:, :, used:tokens] = value_states
        self.keys, self.values = self.key_buffer[:, :, :tokens], self.value_buffer[:, :, :tokens]
        return self.keys, self.values

    def batch_select_indices(self, indices: Any) -> None:
        """Make row i the former row indices[i], with fresh room."""
        if self.is_initialized:
            self._rebuild(self.keys.index_select(0, indices), self.values.index_select(0, indices), 0)

    def _rebuild(self, keys: Any, values: Any, coming: int) -> None:
        self.key_buffer, self.value_buffer = _roomy(keys, coming), _roomy(values, coming)
        tokens = keys.shape[-2]
        self.keys, self.values = self.key_buffer[:, :, :tokens], self.value_buffer[:, :, :tokens]


def _roomy(used: Any, coming: int) -> Any:
    """A buffer that begins with `used` and has room for `coming` tokens and ROOM more."""
    rows, heads, tokens, size = used.shape
    buffer = used.new_empty(rows, heads, tokens + coming + ROOM, size)
    buffer[:, :, :tokens] = used
    return buffer


def make_cache(config: Any) -> Any:
    """An empty cache for a model of this config."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def select_rows(cache: Any, indices: torch.Tensor) -> None:
    """Make row i of the cache the former row indices[i]; repeats and drops rows."""
    for layer in cache.layers:
        if hasattr(layer, "batch_select_indices"):
            layer.batch_select_indices(indices)
        elif hasattr(layer, "reorder_cache"):  # linear-attention layers have only this name for it
            layer.reorder_cache(indices)
        else:
            raise InputError(f"engine hf cannot drop finished rows from a cache layer {type(layer).__name__}")
