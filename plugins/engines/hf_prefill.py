"""Prompts before the decode loop: rows wait in a queue, and prompts are prefilled in groups, each once.

    queue = Queue(model, wanted, pad_id, shared=40)
    group = queue.take(64)       # the prompts of the next 64 rows, and these rows; None where none is left

All samples of a prompt share its prefill. What all prompts begin with (a system prompt, examples) is run once, and its
keys and values are copied.

Limits: one forward pass holds a group of prompts (no chunked prefill). A common beginning is used for models whose
positions are given to them (hf_mask.py), since the padding of shorter prompts stands behind it.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsd.plugins.engines.hf_slots import Prefilled
from nsd.plugins.errors import InputError

if TYPE_CHECKING:
    from nsd.plugins.engines.hf_pool import Pool

WORTH_SHARING = 16  # tokens of a common beginning; fewer cost more in copies than their forward pass


@dataclass(frozen=True)
class Wanted:
    """A row to be written: its number, its prompt as token ids and what names that, its seed and its token limit."""

    number: int
    name: str
    prompt: Sequence[int]
    seed: int
    limit: int


@dataclass
class Group:
    """Prompts that were prefilled, and the rows that wait for a slot, each with its prompt's place among them."""

    prefilled: Prefilled
    waiting: deque[tuple[Wanted, int]]


class Queue:
    """Rows in their order, and the prompts of those that come next. `shared` tokens begin every prompt.

    With a `pool` rows may be wanted after an end of `wanted`, whose iterator then gives further ones; the prompts of
    rows before are kept in it.
    """

    def __init__(
        self, model: Any, wanted: Iterable[Wanted], pad_id: int, shared: int = 0, pool: Pool | None = None
    ) -> None:
        from nsd.plugins.engines.hf_mask import Prebuilt

        # Models differ in what their forward takes: some count positions themselves, some cannot leave logits out.
        self.accepts = inspect.signature(type(model).forward).parameters.keys()
        if "past_key_values" not in self.accepts:
            raise _unfit(model)
        self._model, self._pad_id = model, pad_id
        self._wanted = iter(wanted)
        self._next = next(self._wanted, None)
        self._pool, self.grows = pool, pool is not None
        shares = shared >= WORTH_SHARING and Prebuilt.of_model(model, self.accepts) is not None
        self._shared = shared if shares else 0
        self._beginning: Any = None  # the cache after it

    def take(self, rows: int) -> Group | None:
        """The next rows, about so many: samples of a prompt that follow each other stay together."""
        prompts: dict[str, tuple[int, Sequence[int]]] = {}
        waiting: deque[tuple[Wanted, int]] = deque()
        most = rows if self._pool is None else min(rows, self._pool.places)
        if self.grows and self._next is None:
            self._next = next(self._wanted, None)
        while (one := self._next) is not None and (
            (len(waiting) < rows and len(prompts) < most) or one.name in prompts
        ):
            place, _ = prompts.setdefault(one.name, (len(prompts), one.prompt))
            waiting.append((one, place))
            self._next = next(self._wanted, None)
        if not waiting:
            return None
        if self._pool is not None and (group := self._kept(self._pool, waiting)) is not None:
            return group
        return Group(self._prefill([ids for _, ids in prompts.values()]), waiting)

    def _kept(self, pool: Pool, waiting: deque[tuple[Wanted, int]]) -> Group | None:
        """The rows with their prompts in the pool, where prompts that are not there yet are put."""
        prompts = {one.name: one.prompt for one, _ in waiting}
        new = {name: ids for name, ids in prompts.items() if not pool.use(name)}
        if new and not pool.put(list(new), self._prefill(list(new.values())), prompts.keys()):
            self._pool = None
            return None
        return Group(pool.of(prompts), deque((one, pool.places_of[one.name]) for one, _ in waiting))

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> Prefilled:
        import torch

        shared = self._shared
        rest = [ids[shared:] for ids in prompts]
        width = max(map(len, rest))
        ids = torch.tensor([[self._pad_id] * (width - len(one)) + list(one) for one in rest], device=self._model.device)
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in rest], device=self._model.device)
        positions = shared + (mask.cumsum(1) - 1).clamp(min=0)
        mask = torch.nn.functional.pad(mask, (shared, 0), value=1)
        cache = self._begun(prompts[0][:shared], len(prompts))
        logits = forward(self._model, self.accepts, ids, mask, positions, cache)
        if cache.get_seq_length() != shared + width:
            raise _unfit(self._model)
        return Prefilled(logits, cache, mask, positions[:, -1], [len(one) < width for one in rest])

    def _begun(self, beginning: Sequence[int], prompts: int) -> Any:
        """A cache for so many prompts after what they begin with."""
        import torch

        from nsd.plugins.engines.hf_cache import make_cache, select_rows

        device = self._model.device
        if not beginning:
            return make_cache(self._model.config)
        if self._beginning is None:
            self._beginning = make_cache(self._model.config)
            ids = torch.tensor([list(beginning)], device=device)
            mask, positions = torch.ones_like(ids), torch.arange(len(beginning), device=device)[None]
            forward(self._model, self.accepts, ids, mask, positions, self._beginning)
        cache = make_cache(self._model.config)
        for layer, begun in zip(cache.layers, self._beginning.layers, strict=True):
            layer.update(begun.keys, begun.values)
        select_rows(cache, torch.zeros(prompts, dtype=torch.int64, device=device))
        return cache


def common_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, each keeping one of its own; 0 for a single prompt."""
    if len(prompts) < 2:
        return 0
    least, most = (
        min(map(list, prompts)),
        max(map(list, prompts)),
    )  # in the order of lists, what all share is what these two do
    room = min(map(len, prompts)) - 1
    return next((place for place in range(room) if least[place] != most[place]), room)


def forward(model: Any, accepts: Any, ids: Any, mask: Any, positions: Any, cache: Any) -> Any:
    """Next-token logits [R, V]; the cache grows in place."""
    options: dict[str, Any] = {}
    if "position_ids" in accepts:
        options["position_ids"] = positions
    if "logits_to_keep" in accepts:  # the logits of a whole group of prompts are the largest tensor there is
        options["logits_to_keep"] = 1
    output = model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options)
    return output.logits[:, -1]


def _unfit(model: Any) -> InputError:
    return InputError(
        f"engine hf cannot run {type(model).__name__}: it does not keep its state in a transformers DynamicCache; "
        "use a decoder model that does"
    )
