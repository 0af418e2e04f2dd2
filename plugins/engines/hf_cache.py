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

from plugins.errors import InputError

ROOM = 64  # tokens; larger saves copies and costs memory, and every drop of rows makes new room anyway


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """DynamicLayer whose `keys` and `values` [R, heads, tokens, dim] are views of larger buffers."""

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Append the new tokens' keys and values; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            self.room = 0
        new = key_states.shape[-2]
        if self.room < new:
            self.keys, self.values = (_with_room(one, one.shape[0], new + ROOM) for one in (self.keys, self.values))
            self.room = new + ROOM
        self.keys, self.values = _extended(self.keys, key_states), _extended(self.values, value_states)
        self.room -= new
        return self.keys, self.values

    def batch_select_indices(self, indices: Any) -> None:
        """Make row i the former row indices[i], with fresh room."""
        if self.is_initialized:
            self.keys, self.values = (_with_room(one, indices, ROOM) for one in (self.keys, self.values))
            self.room = ROOM


def _with_room(used: Any, rows: Any, room: int) -> Any:
    """A copy of `used` (of its rows `rows`, where that is an index) at the head of a buffer with `room` more tokens."""
    picked = used if isinstance(rows, int) else used.index_select(0, rows)
    count, heads, tokens, size = picked.shape
    buffer = used.new_empty(count, heads, tokens + room, size)
    buffer[:, :, :tokens] = picked
    return buffer[:, :, :tokens]


def _extended(used: Any, new: Any) -> Any:
    """The view one stretch longer, with `new` written into it."""
    count, heads, tokens, size = used.shape
    longer = used.as_strided((count, heads, tokens + new.shape[-2], size), used.stride(), used.storage_offset())
    longer[:, :, tokens:] = new
    return longer


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
