"""Prompts that were prefilled and may be wanted again: votes that are asked as they go come back for more samples.

    pool = Pool(model, places=64, width=200)
    pool.put(["q1", "q2"], prefilled, keep={"q1", "q2"})
    pool.of(["q2"]), pool.places_of["q2"]

A fixed number of places, of one width; who was not wanted for longest gives its place away, and is prefilled anew where
it is wanted after all. This module imports torch and transformers: import it only inside functions that run a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import torch

from nsd.plugins.engines.hf_cache import RoomyLayer, make_cache
from nsd.plugins.engines.hf_slots import Prefilled


class Pool:
    """`places` prompts of `width` columns at most. Only a cache whose layers are all of full attention is kept."""

    def __init__(self, model: Any, places: int, width: int) -> None:
        self.places, self.width = places, width
        self.places_of: dict[str, int] = {}  # in order of last use
        self._model = model
        self._kept: Prefilled | None = None
        self._lengths = [0] * places  # of the prompts, in tokens

    def use(self, name: str) -> bool:
        """Whether a prompt is kept; it then counts as wanted now."""
        place = self.places_of.pop(name, None)
        if place is not None:
            self.places_of[name] = place
        return place is not None

    def of(self, names: Iterable[str]) -> Prefilled:
        """What is kept, by places, as wide as the longest of these prompts."""
        kept = self._kept
        assert kept is not None
        width = max(self._lengths[self.places_of[name]] for name in names)
        cache = make_cache(self._model.config)
        for layer, whole in zip(cache.layers, kept.cache.layers, strict=True):
            layer.keys, layer.values = whole.keys[:, :, -width:], whole.values[:, :, -width:]
        padded = [length < width for length in self._lengths]
        return Prefilled(kept.logits, cache, kept.mask[:, -width:], kept.positions, padded)

    def put(self, names: Sequence[str], found: Prefilled, keep: AbstractSet[str]) -> bool:
        """Keep prompts, in the places of any but those of `keep`; False where their cache cannot be kept."""
        if any(type(layer) is not RoomyLayer for layer in found.cache.layers) or found.width > self.width:
            return False
        kept = self._kept = self._kept or self._empty(found)
        taken = {*self.places_of.values()}
        free = [place for place in range(self.places) if place not in taken][: len(names)]
        others = (name for name in [*self.places_of] if name not in keep)
        free += [self.places_of.pop(next(others)) for _ in range(len(names) - len(free))]
        self.places_of |= dict(zip(names, free, strict=True))
        place, begin = torch.tensor(free, device=kept.mask.device), self.width - found.width
        for layer, other in zip(kept.cache.layers, found.cache.layers, strict=True):
            for buffer, given in ((layer.keys, other.keys), (layer.values, other.values)):
                buffer[place] = torch.nn.functional.pad(given, (0, 0, begin, 0))
        kept.mask[place] = torch.nn.functional.pad(found.mask, (begin, 0))
        kept.logits[place], kept.positions[place] = found.logits, found.positions
        for one, length in zip(free, (found.positions + 1).tolist(), strict=True):
            self._lengths[one] = length
        return True

    def _empty(self, like: Prefilled) -> Prefilled:
        cache = make_cache(self._model.config)
        for layer, other in zip(cache.layers, like.cache.layers, strict=True):
            shape = (self.places, other.keys.shape[1], self.width)
            layer.keys = other.keys.new_zeros(*shape, other.keys.shape[3])
            layer.values = other.values.new_zeros(*shape, other.values.shape[3])
        return Prefilled(
            like.logits.new_zeros(self.places, like.logits.shape[1]),
            cache,
            like.mask.new_zeros(self.places, self.width),
            like.positions.new_zeros(self.places),
            [False] * self.places,
        )
