"""Rows of a loaded model, decoded as many at once as fit in memory: what the `hf` engine and trainers share.

    loaded = facts(model, tokenizer)
    for rows, decoded in in_shards(loaded, [[(prompt, 0), (prompt, 1)]], sampling, seed, slots, refused):
        texts = texts_of(loaded, decoded)

A row is a prompt and a sample number, and is drawn from `stream(seed, question id, sample number)`.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from nsd.plugins.api import Sampling
from nsd.plugins.engines.asking import Asked, AskedPrompt, asked_of, decoded_texts
from nsd.plugins.errors import StageFailed
from nsd.plugins.seeds import stream

if TYPE_CHECKING:  # what only a drawing needs is imported by it: a spec that names `hf` is read quickly
    from nsd.plugins.engines.hf_decode import Decoded
    from nsd.plugins.engines.hf_prefill import Wanted

LOOK_EVERY_ON_ACCELERATORS = 8  # steps between looks at which rows have ended; each look waits for the device


@dataclass(frozen=True)
class Loaded(Asked):
    """A model in memory, and what a decode loop needs to know of it.

    `static` and `compiled` are those of hf_decode.Ways.
    """

    model: Any
    pad_id: int
    static: bool = False
    compiled: Any = None


Row = tuple[AskedPrompt, int]  # a prompt and a sample number


def facts(model: Any, tokenizer: Any) -> Loaded:
    """What the loop needs to know of a model."""
    vocabulary = int(model.get_input_embeddings().weight.shape[0])  # an adapted embedding has no other number
    asked = asked_of(model.config, model.generation_config, tokenizer, vocabulary)
    pad = int(tokenizer.pad_token_id)
    # A pad token that was added without resizing the model has no embedding; any masked token will do.
    return Loaded(**vars(asked), model=model, pad_id=pad if pad < vocabulary else 0)


def in_shards(
    loaded: Loaded,
    shards: Iterable[Sequence[Row]],
    sampling: Sampling,
    seed: int,
    slots: int,
    refused: list[int],
    shared: int = 0,
) -> Iterator[tuple[Sequence[Row], list[Decoded]]]:
    """Decode shards of rows, `slots` rows at once; a shard is handed out when it and those before it are whole.

    The rows of the next shards are begun where those of the first ones have ended. `shared` tokens begin every prompt.
    Where the rows at once do not fit in memory, what is not written yet begins again with half as many; the numbers
    that did not fit are added to `refused`, and where it has some, no more than half of the last is tried. Raises
    StageFailed where not even one row fits.
    """
    yield from drawn(loaded, _Work(loaded, shards, sampling, seed), sampling, slots, refused, shared)


def drawn(
    loaded: Loaded,
    work: Work[Part],
    sampling: Sampling,
    slots: int,
    refused: list[int],
    shared: int,
    widest: int | None = None,
) -> Iterator[Part]:
    """What becomes of the rows of `work`, in the parts that it hands out; see `in_shards`.

    With `widest`, the tokens of the longest prompt, rows may be wanted while others are drawn (`Queue`).
    """
    while True:
        if refused:
            slots = min(slots, max(1, (refused[-1] + 1) // 2))
        try:
            for number, decoded in _stream(loaded, work, sampling, slots, shared, widest):
                work.take(number, decoded)
                yield from work.whole()
            yield from work.whole()
            return
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            told = str(error)
        free_memory()  # outside the except block, whose traceback holds the tensors
        refused.append(slots)
        import logging

        logging.getLogger("nsd.engine.hf").warning(
            "out of memory with %d completions at once on %s: %s", slots, loaded.model.device, told
        )
        if slots == 1:
            raise StageFailed(
                f"engine hf: not even one completion of {sampling.max_tokens} tokens after a prompt of "
                f"{work.longest_prompt()} tokens fits in the memory of {loaded.model.device}"
            )


Part = TypeVar("Part", covariant=True)


class Work(Protocol[Part]):
    """Rows that are wanted, and what has become of them."""

    def wanted(self) -> Iterator[Wanted]:
        """The rows not written yet, in order: those that were begun before, then new ones."""
        ...

    def take(self, number: int, decoded: Decoded) -> None:
        """A row was written."""
        ...

    def whole(self) -> Iterator[Part]:
        """What can be handed out; asked after each row, and at the end."""
        ...

    def longest_prompt(self) -> int:
        """In tokens, of the rows that are not written yet."""
        ...


class _Work:
    """The rows of shards, taken from their source when they are begun, and what has become of them."""

    def __init__(self, loaded: Loaded, shards: Iterable[Sequence[Row]], sampling: Sampling, seed: int) -> None:
        self._loaded, self._source, self._sampling, self._seed = loaded, iter(shards), sampling, seed
        self._open: deque[_Shard] = deque()
        self._owner: dict[int, tuple[_Shard, list[int]]] = {}  # of a row to be written: where its text belongs
        self._begun: dict[int, Wanted] = {}  # rows that are not written yet, in order
        self._numbers = count()

    def wanted(self) -> Iterator[Wanted]:
        """The rows not written yet, in order: those that were begun before, then new ones."""
        yield from list(self._begun.values())
        for rows in self._source:
            shard = _Shard(rows, [None] * len(rows))
            self._open.append(shard)
            yield from self._rows_of(shard)

    def _rows_of(self, shard: _Shard) -> Iterator[Wanted]:
        places: dict[tuple[str, int], list[int]] = {}
        prompts: dict[str, AskedPrompt] = {}
        for place, (prompt, sample) in enumerate(shard.rows):
            prompts[prompt.question_id] = prompt
            # Greedy samples of a prompt are one row, written once.
            one = 0 if self._sampling.temperature == 0 else sample
            places.setdefault((prompt.question_id, one), []).append(place)
        made = []
        for (name, sample), where in places.items():
            prompt = prompts[name]
            made.append(wanted_row(next(self._numbers), prompt, sample, self._loaded, self._sampling, self._seed))
            self._owner[made[-1].number] = (shard, where)
        # All are noted before the first is begun: whatever stops the loop, none is forgotten.
        self._begun |= {one.number: one for one in made}
        yield from made

    def take(self, number: int, decoded: Decoded) -> None:
        """A row was written."""
        del self._begun[number]
        shard, places = self._owner.pop(number)
        for place in places:
            shard.found[place] = decoded

    def whole(self) -> Iterator[tuple[Sequence[Row], list[Decoded]]]:
        """The shards that are whole and have none before them that is not."""
        while self._open:
            found = [one for one in self._open[0].found if one is not None]
            if len(found) < len(self._open[0].rows):
                return
            rows = self._open.popleft().rows
            if rows:
                yield rows, found

    def longest_prompt(self) -> int:
        """In tokens, of the rows that are not written yet."""
        return max(len(one.prompt) for one in self._begun.values())


@dataclass
class _Shard:
    rows: Sequence[Row]
    found: list[Decoded | None]


def wanted_row(number: int, prompt: AskedPrompt, sample: int, loaded: Loaded, sampling: Sampling, seed: int) -> Wanted:
    """A row of a prompt: its stream, and how many tokens it may have."""
    from nsd.plugins.engines.hf_prefill import Wanted

    most, name = sampling.max_tokens, prompt.question_id
    limit = most if loaded.context is None else min(most, loaded.context - len(prompt.ids))
    return Wanted(number, name, prompt.ids, stream(seed, name, sample), limit)


def _stream(
    loaded: Loaded, work: Work[Any], sampling: Sampling, slots: int, shared: int, widest: int | None
) -> Iterator[tuple[int, Decoded]]:
    """What becomes of the rows not written yet, in the order in which they end."""
    from nsd.plugins.engines.hf_decode import Ways, stream
    from nsd.plugins.engines.hf_pool import Pool
    from nsd.plugins.engines.hf_prefill import Queue
    from nsd.plugins.engines.hf_stops import Stops

    ways = Ways(
        sampling,
        loaded.end_ids,
        slots,
        sampling.max_tokens,
        check_every=1 if loaded.model.device.type == "cpu" else LOOK_EVERY_ON_ACCELERATORS,
        stops=Stops(loaded.tokenizer, sampling.stop) if sampling.stop else None,
        static=loaded.static,
        compiled=loaded.compiled,
    )
    pool = None if widest is None else Pool(loaded.model, slots, widest)  # each open question has a row at least
    queue = Queue(loaded.model, work.wanted(), loaded.pad_id, shared, pool)
    yield from stream(loaded.model, queue, ways, loaded.pad_id)


def texts_of(loaded: Loaded, decoded: Sequence[Decoded]) -> list[str]:
    """What was written, as text, without end tokens."""
    ids = [one.tokens[:-1] if one.ended else one.tokens for one in decoded]
    return decoded_texts(loaded.tokenizer, ids)


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    # The CPU allocator and mps have no class of their own for it.
    texts = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(text in str(error) for text in texts)


def free_memory() -> None:
    """Give back the memory of what nothing refers to any more."""
    import sys

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
