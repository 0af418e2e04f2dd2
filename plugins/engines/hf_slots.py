"""The memory of the decode loop: a fixed number of slots for rows, on one time line.

A slot holds a row's keys, values and mask. All are laid along the same columns: whatever is written in one step stands
in one column, `now`, for every slot. So a step writes slices, as it would for rows that begin together, and a row that
joins later has its prompt copied to the columns just before `now`, behind a mask that hides what stood there. The
columns in use are a window, `first` to `now`; where it meets the end of the buffers, it moves to their beginning.

    memory = memory_for(model, accepts, prefilled, slots, longest, static=False)
    memory.admit(prefilled, sources, slots)     # rows begin in free slots
    memory.mask()                               # what the model is given in this step

A static memory shows the model all of its columns in every step, behind the mask, and never grows: shapes are the same
from step to step, which torch.compile wants.

This module imports torch and transformers: import it only inside functions that run a model. Limits: only a cache whose
layers are all of full attention is refilled. Sliding windows, convolutions and linear attention keep transformers' own
layers, and a batch of theirs ends before the next begins.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from nsd.plugins.engines.hf_cache import RoomyLayer, select_rows
from nsd.plugins.engines.hf_mask import ALIGNED, MODELS, Prebuilt
from nsd.plugins.engines.hf_sizes import ROOM
from nsd.plugins.errors import InputError

STATIC_ALIGNED = 128  # columns of a static memory come in multiples of it


@dataclass(frozen=True)
class Prefilled:
    """P prompts after their forward pass, right-aligned in L columns.

    `logits` [P, V] of the next token; `mask` [P, L], 1 for tokens and 0 for padding; `positions` [P] of the last
    tokens; `padded` says of each prompt whether it has padding.
    """

    logits: Any
    cache: Any
    mask: Any
    positions: Any
    padded: list[bool]

    @property
    def width(self) -> int:
        """Columns of the longest prompt."""
        return int(self.mask.shape[1])


@dataclass
class Window:
    """The columns in use: from `first` to `now`, the one that is written in this step."""

    first: int
    now: int


@dataclass(frozen=True)
class Shift:
    """Columns `first` to `now` of a buffer go to its beginning, and it then has so many `columns`."""

    first: int
    now: int
    columns: int

    def of(self, buffer: Any, dim: int) -> Any:
        """The buffer after it, the same or another; what is behind the window has no meaning."""
        kept = buffer.narrow(dim, self.first, self.now - self.first)
        if buffer.shape[dim] == self.columns:
            kept = kept.clone()
        else:
            shape = list(buffer.shape)
            shape[dim] = self.columns
            buffer = buffer.new_zeros(shape)
        buffer.narrow(dim, 0, self.now - self.first).copy_(kept)
        return buffer


class SlotLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types here
    """One layer's keys and values in buffers [slots, heads, columns, size]; the model sees the window of them."""

    def __init__(self, prompts: Any, slots: int, columns: int, window: Window) -> None:
        """`prompts` is the same layer after a prefill: it has the shapes and types."""
        super().__init__()
        self.lazy_initialization(prompts.keys, prompts.values)
        self.window = window
        # Zeros, not whatever is there: a masked column takes part in sums with weight 0, and 0 x NaN is NaN.
        self.key_buffer, self.value_buffer = (
            one.new_zeros(slots, one.shape[1], columns, one.shape[3]) for one in (prompts.keys, prompts.values)
        )

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Write this step's keys and values [slots, heads, 1, size]; returns the window's."""
        first, now = self.window.first, self.window.now
        self.key_buffer[:, :, now : now + 1] = key_states
        self.value_buffer[:, :, now : now + 1] = value_states
        return self.key_buffer[:, :, first : now + 1], self.value_buffer[:, :, first : now + 1]

    def get_seq_length(self) -> int:
        """Columns of the window before this step's."""
        return self.window.now - self.window.first


class StaticSlotLayer(SlotLayer):
    """The same with all columns shown; `place` [1] is the column written, as the device knows it."""

    place: Any

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Write this step's keys and values [slots, heads, 1, size]; returns all columns."""
        self.key_buffer.index_copy_(2, self.place, key_states)
        self.value_buffer.index_copy_(2, self.place, value_states)
        return self.key_buffer, self.value_buffer


class SlotMemory:
    """Slots that a row leaves and another takes."""

    refills = True
    shrinks = True
    layer: ClassVar[type[SlotLayer]] = SlotLayer

    def __init__(self, model: Any, prebuilt: Prebuilt | None, prefilled: Prefilled, slots: int, longest: int) -> None:
        self.prompt_columns, self.prebuilt = prefilled.width, prebuilt
        self._longest = longest
        self.columns = self._columns()
        self.window = Window(0, prefilled.width)
        self.cache = DynamicCache(config=model.config)
        self.cache.layers = [self.layer(one, slots, self.columns, self.window) for one in prefilled.cache.layers]
        self._seen = self._unwritten()
        self._mask = prefilled.mask.new_full(
            (slots, self.columns), self._seen, dtype=prefilled.mask.dtype if prebuilt is None else prebuilt.dtype
        )
        self._begins = [self.window.now] * slots  # the first column that a slot's row may see
        self._padded = [False] * slots  # it does not see all from there on

    def _columns(self) -> int:
        """To begin with."""
        return -(-(self.prompt_columns + min(self._longest, ROOM) + ROOM) // ALIGNED) * ALIGNED

    def _unwritten(self) -> float:
        """What the mask says of columns that are not written yet."""
        return 1 if self.prebuilt is None else 0

    def takes(self, prefilled: Prefilled) -> bool:
        """Whether these prompts have room before the column that is written now."""
        return prefilled.width <= self.prompt_columns

    def admit(self, prefilled: Prefilled, sources: Sequence[int], slots: Sequence[int], broken: Sequence[int]) -> None:
        """Put prompts `sources` of a prefill into `slots`. What the slots `broken` hold may be no numbers."""
        now, device = self.window.now, self._mask.device
        begin = now - prefilled.width
        place, source = (torch.tensor(one, device=device) for one in (slots, sources))
        for layer, prompts in zip(self.cache.layers, prefilled.cache.layers, strict=True):
            for buffer, found in ((layer.key_buffer, prompts.keys), (layer.value_buffer, prompts.values)):
                if broken:
                    buffer[torch.tensor(broken, device=device)] = 0
                buffer[place, :, begin:now] = found[source]
        seen = torch.nn.functional.pad(prefilled.mask[source], (begin, 0))
        self._mask[place, :now] = seen if self.prebuilt is None else self.prebuilt.of(seen)
        for slot, prompt in zip(slots, sources, strict=True):
            self._begins[slot], self._padded[slot] = begin, prefilled.padded[prompt]

    def narrow(self, slots: Sequence[int]) -> None:
        """Begin the window where the first of the rows in `slots` does."""
        self.window.first = min((self._begins[slot] for slot in slots), default=self.window.now) // ALIGNED * ALIGNED

    def mask(self) -> Any:
        """What to give the model in this step; None where every row sees the whole window."""
        window = self.window
        if self.prebuilt is None:
            return self._mask[:, window.first : window.now + 1]
        if not self.prebuilt.always and max(self._begins) <= window.first and not any(self._padded):
            return None
        return self._mask[:, None, None, window.first : window.now + 1]

    @property
    def full(self) -> bool:
        """Whether the next step has no column."""
        return self.window.now + 1 >= self.columns

    def make_room(self) -> Shift:
        """Move the window to the beginning of the buffers, or make them longer where that gives little room."""
        window = self.window
        move = min(window.first, window.now - self.prompt_columns) // ALIGNED * ALIGNED
        if move < ROOM // 2:
            most = self.prompt_columns + self._longest + ROOM
            longer = max(self.columns + ROOM, min(self.columns * 5 // 4, most))
            self.columns = -(-longer // ALIGNED) * ALIGNED
        shift = Shift(move, window.now, self.columns)
        for layer in self.cache.layers:
            layer.key_buffer, layer.value_buffer = shift.of(layer.key_buffer, 2), shift.of(layer.value_buffer, 2)
        self._mask = shift.of(self._mask, 1)
        self._mask[:, window.now - move :] = self._seen
        window.first, window.now = window.first - move, window.now - move
        self._begins = [max(0, begin - move) for begin in self._begins]
        return shift

    def select(self, place: Any, keep: Sequence[int]) -> None:
        """Make slot i the former slot keep[i]; `place` is the same on the device."""
        for layer in self.cache.layers:
            layer.key_buffer, layer.value_buffer = layer.key_buffer[place], layer.value_buffer[place]
        self._mask = self._mask[place]
        self._begins, self._padded = [self._begins[one] for one in keep], [self._padded[one] for one in keep]
        self.narrow(range(len(keep)))


class StaticMemory(SlotMemory):
    """The same in shapes that never change. It has columns for the longest row, and lets no slot go."""

    shrinks = False
    layer = StaticSlotLayer

    def __init__(self, model: Any, prebuilt: Prebuilt, prefilled: Prefilled, slots: int, longest: int) -> None:
        super().__init__(model, prebuilt, prefilled, slots, longest)
        self._place = torch.zeros(1, dtype=torch.int64, device=model.device)
        for layer in self.cache.layers:
            layer.place = self._place

    def _columns(self) -> int:
        # With twice ROOM a move of the window always gives room. Calls of about the same lengths have the same shapes.
        return -(-(self.prompt_columns + self._longest + 2 * ROOM) // STATIC_ALIGNED) * STATIC_ALIGNED

    def _unwritten(self) -> float:
        assert self.prebuilt is not None
        return self.prebuilt.hidden

    def mask(self) -> Any:
        """What to give the model in this step, whose column is seen from now on."""
        self._mask[:, self.window.now] = 0
        self._place.fill_(self.window.now)
        return self._mask[:, None, None]


class WholeMemory:
    """Rows that begin together: for a cache with layers of other kinds."""

    refills = False
    shrinks = True
    prebuilt = None

    def __init__(self, prefilled: Prefilled, longest: int) -> None:
        self.columns = prefilled.width + longest + ROOM  # some steps pass before it is seen that all have ended
        self.window = Window(0, prefilled.width)
        self.cache = copy.deepcopy(prefilled.cache)  # rows beyond the slots wait for a batch of their own
        self._begun = False

    def takes(self, prefilled: Prefilled) -> bool:
        """Only at the beginning."""
        return not self._begun

    def admit(self, prefilled: Prefilled, sources: Sequence[int], slots: Sequence[int], broken: Sequence[int]) -> None:
        """Spread the prompts over all slots."""
        self._begun = True
        source = torch.tensor(list(sources), device=prefilled.mask.device)
        select_rows(self.cache, source)
        self._mask = torch.nn.functional.pad(prefilled.mask[source], (0, self.columns - prefilled.width), value=1)

    def narrow(self, slots: Sequence[int]) -> None:
        """Every column stays."""

    def mask(self) -> Any:
        """What to give the model in this step."""
        return self._mask[:, : self.window.now + 1]

    @property
    def full(self) -> bool:
        """Never: there is a column for the longest row's last token."""
        return False

    def make_room(self) -> Shift:
        """Nothing moves."""
        return Shift(0, self.window.now, self.columns)

    def select(self, place: Any, keep: Sequence[int]) -> None:
        """Make slot i the former slot keep[i]; `place` is the same on the device."""
        select_rows(self.cache, place)
        self._mask = self._mask[place]


Memory = SlotMemory | WholeMemory


def memory_for(
    model: Any, accepts: AbstractSet[str], prefilled: Prefilled, slots: int, longest: int, static: bool = False
) -> Memory:
    """Room for so many rows of at most `longest` new tokens, after prompts like these.

    Raises InputError where it is to be static and the model's cannot.
    """
    if any(type(layer) is not RoomyLayer for layer in prefilled.cache.layers):
        if static:
            raise _not_static(model)
        return WholeMemory(prefilled, longest)
    prebuilt = Prebuilt.of_model(model, accepts)
    if not static:
        return SlotMemory(model, prebuilt, prefilled, slots, longest)
    if prebuilt is None:
        raise _not_static(model)
    return StaticMemory(model, prebuilt, prefilled, slots, longest)


def _not_static(model: Any) -> InputError:
    kinds = ", ".join(sorted(MODELS))
    return InputError(
        f"engine hf: static_cache and compile take models of {kinds} with full attention in every layer and attention "
        f"sdpa or eager, and this one is {type(model).__name__}; leave both fields out"
    )
