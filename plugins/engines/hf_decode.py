"""The decode loop of the `hf` engine: rows from a queue, each with a random stream of its own, in a number of slots.

A row that has ended leaves its slot, and the next row in the queue takes it (plain `generate` carries rows that have
ended to the end of the batch, which is where most of its time goes). Prompts come prefilled (hf_prefill.py), keys and
values stand in slots (hf_slots.py), how a token is drawn says hf_sampling.py. Nothing here knows of plugins, prompts as
text, or files. Where the model takes the mask of hf_mask.py, the host waits for nothing between two looks at which rows
have ended (tests/plugins/test_decode_waits.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from nsd.plugins.api import Confidence, Sampling
from nsd.plugins.confidence import summary, token_confidence
from nsd.plugins.engines.hf_attention import quick_steps, takes_quick_steps
from nsd.plugins.engines.hf_prefill import Group, Queue, Wanted, common_beginning, forward
from nsd.plugins.engines.hf_sampling import choose, levels, shifted, uniforms
from nsd.plugins.engines.hf_slots import Prefilled, Shift, memory_for
from nsd.plugins.engines.hf_stops import Stops

UNIFORM_BLOCK = 32  # steps drawn at once: the integer hash is a dozen small kernels, so it is not run every step
REFILL_ABOVE = 1 / 16  # share of the slots that are free: taking rows in costs as much as a few of them in a step
PREFILL = 1 / 4  # rows of a group of prompts that are prefilled ahead, by slots
COMPACT_BELOW = 0.8  # slots go when nobody waits and fewer than this share is still being written


# What a batch has of each slot on the device.
OF_SLOTS = (
    *("tokens", "positions", "seeds", "limits", "lengths", "alive", "ended", "failed", "unusable"),
    *("written", "logprobs", "confidences", "block"),
)


@dataclass(frozen=True)
class Rows:
    """What to decode: `prompts` as token ids; per row the index of its prompt, its seed and its token limit."""

    prompts: Sequence[Sequence[int]]
    prompt_of: Sequence[int]
    seeds: Sequence[int]
    limits: Sequence[int]


@dataclass(frozen=True)
class Decoded:
    """One row's tokens, the end token included. `ended`: by an end token; `failed`: the logits were not finite.

    `confidence` is None where there are no tokens.
    """

    tokens: list[int]
    ended: bool
    failed: bool
    confidence: Confidence | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Ways:
    """How rows are decoded: `end_ids` may be empty; `slots` rows at once, of at most `longest` tokens.

    `check_every` is how many steps pass between looks at which rows have ended (a look waits for the accelerator).
    `stops` is fresh. Neither slots nor looks change what is drawn. With `static` shapes are those of StaticMemory, and
    `compiled` is the model as it is called for a step (None: as it is); then there are as many slots in every batch.
    """

    sampling: Sampling
    end_ids: Sequence[int]
    slots: int
    longest: int
    check_every: int = 1
    stops: Stops | None = None
    static: bool = False
    compiled: Any = None


def decode(
    model: Any,
    rows: Rows,
    sampling: Sampling,
    end_ids: Sequence[int],
    pad_id: int,
    check_every: int = 1,
    stops: Stops | None = None,
    slots: int | None = None,
) -> list[Decoded]:
    """Decode every row until an end token, a stop string or its limit; returns them in order.

    All at once, or in so many `slots`. Raises as `stream` does.
    """
    wanted = [
        Wanted(number, str(prompt), rows.prompts[prompt], seed, limit)
        for number, (prompt, seed, limit) in enumerate(zip(rows.prompt_of, rows.seeds, rows.limits, strict=True))
    ]
    queue = Queue(model, wanted, pad_id, common_beginning(rows.prompts))
    ways = Ways(sampling, end_ids, slots or len(wanted), max(rows.limits), check_every, stops)
    found = dict(stream(model, queue, ways, pad_id))
    return [found[one.number] for one in wanted]


def stream(model: Any, queue: Queue, ways: Ways, pad_id: int) -> Iterator[tuple[int, Decoded]]:
    """Decode every row of a queue until an end token, a stop string or its limit: row numbers with what they became.

    In the order in which they end. Raises InputError for a model whose cache cannot be cut by rows, and lets torch's
    out-of-memory error through.
    """
    import torch

    group: Group | None = None
    while True:
        with torch.inference_mode():  # left before anything is handed out: who takes it may train
            group = group or queue.take(ways.slots)
            if group is None:
                return
            batch = Batch(model, queue, group, ways, pad_id)
        while batch.occupied:
            with torch.inference_mode():
                found = batch.turn()
            yield from found  # whoever takes them may put further rows into the queue
            with torch.inference_mode():
                batch.take_in()
        group = batch.group


class Batch:
    """The rows being written, a slot each. `draw` and `forward` read nothing back to the host.

    What is on the device is by slot. Tokens are written in the columns of the memory's time line. `group` has the rows
    that come next, where their prompts are prefilled.
    """

    def __init__(self, model: Any, queue: Queue, group: Group, ways: Ways, pad_id: int) -> None:
        import torch

        self.model, self.queue, self.ways, self.pad_id = model, queue, ways, pad_id
        self.group: Group | None = group
        count = min(ways.slots, len(group.waiting)) if ways.compiled is None else ways.slots
        device = model.device
        self.memory = memory_for(model, queue.accepts, group.prefilled, count, ways.longest, ways.static)
        self.quick = self.memory.prebuilt is not None and takes_quick_steps(model)
        self.step = 0  # of the time line
        self.rows: list[Wanted | None] = [None] * count  # who is in a slot
        self.begins = [0] * count  # the column of its first token
        self.unseen = [0] * count  # the first column whose token was not looked at for stop strings
        self.going = [False] * count  # it was still being written at the last look
        self.broken = [False] * count  # what the slot holds is no number

        def slots(kind: Any, *more: int) -> Any:
            return torch.zeros((count, *more), dtype=kind, device=device)

        self.tokens, self.positions, self.seeds = (slots(torch.int64) for _ in range(3))
        self.limits, self.lengths = (slots(torch.int64) for _ in range(2))  # the column after the last; tokens
        self.alive, self.ended, self.failed, self.unusable = (slots(torch.bool) for _ in range(4))
        self.written = slots(torch.int64, self.memory.columns)
        self.logprobs, self.confidences = (slots(torch.float32, self.memory.columns) for _ in range(2))
        self.ends = torch.tensor(list(ways.end_ids), dtype=torch.int64, device=device)
        self.levels = levels(group.prefilled.logits.shape[1])
        self.block = uniforms(self.seeds, 0, UNIFORM_BLOCK, self.levels)
        self.refill()

    @property
    def occupied(self) -> bool:
        """Whether any slot holds a row, ended or not."""
        return any(one is not None for one in self.rows)

    def turn(self) -> list[tuple[int, Decoded]]:
        """Write on until enough rows have ended to give their slots away; returns what has ended."""
        steps = 0
        while True:
            steps += 1
            look = steps % self.ways.check_every == 0 or self.memory.full
            if look:
                self.look()
            if look and self.is_due():
                break
            self.forward()
            self.draw()
        return self.harvest()

    def take_in(self) -> None:
        """Let those that wait into the empty slots."""
        if self.memory.full:
            self.make_room()
        self.refill()
        self.compact()

    def is_due(self) -> bool:
        """Whether slots are to be given away, or to be let go."""
        count, going = len(self.rows), sum(self.going)
        if not going or self.memory.full:
            return True
        if self.may_refill():
            return going <= count - max(1, count * REFILL_ABOVE)
        if self.queue.grows:  # those that have ended may be asked for more
            occupied = sum(row is not None for row in self.rows)
            return going <= occupied - max(1, occupied * REFILL_ABOVE)
        return self.memory.shrinks and going < COMPACT_BELOW * count

    # ----------------------------------------------------------------- steps

    def forward(self) -> None:
        """Run the model on the tokens drawn: the logits of the next ones."""
        self.positions = self.positions + self.alive  # who has ended stays within the context
        ids, positions, memory = self.tokens[:, None], self.positions[:, None], self.memory
        with quick_steps(self.model) if self.quick else nullcontext():
            called = self.ways.compiled or self.model
            self.logits = forward(called, self.queue.accepts, ids, memory.mask(), positions, memory.cache)
        memory.window.now += 1
        self.step += 1

    def draw(self) -> None:
        """Draw a token for every slot, and write it down."""
        if self.step % UNIFORM_BLOCK == 0:
            self.block = uniforms(self.seeds, self.step, UNIFORM_BLOCK, self.levels)
        self._draw(slice(None), self.logits)

    def _draw(self, slots: Any, logits: Any) -> None:
        """The same for some slots, from the logits of these."""
        logits, column = logits.float(), self.memory.window.now
        tokens, usable = choose(logits, self.ways.sampling, self.block[slots, self.step % UNIFORM_BLOCK])
        alive = self.alive[slots]
        self.failed[slots] |= alive & ~usable
        self.unusable[slots] |= ~usable
        alive = alive & usable
        tokens = tokens.where(alive, self.pad_id)
        self.tokens[slots] = tokens
        self.written[slots, column] = tokens
        self.logprobs[slots, column], self.confidences[slots, column] = token_confidence(logits, tokens)
        self.lengths[slots] += alive
        at_end = alive & (tokens[:, None] == self.ends).any(1)
        self.ended[slots] |= at_end
        self.alive[slots] = alive & ~at_end & (self.limits[slots] > column + 1)

    # ----------------------------------------------------------------- who has ended

    def look(self) -> None:
        """See who is still being written. Waits for the device."""
        import torch

        if self.ways.stops is not None:
            self.look_for(self.ways.stops)
        self.going, self.broken = torch.stack([self.alive, self.unusable]).tolist()

    def look_for(self, stops: Stops) -> None:
        """End the rows that have met a stop string since the last look. Waits for the device."""
        watched = [slot for slot, row in enumerate(self.rows) if row is not None and self.going[slot]]
        first, behind = min((self.unseen[slot] for slot in watched), default=0), self.memory.window.now + 1
        new = self.written[:, first:behind].tolist()
        lengths, ended = self.lengths.tolist(), self.ended.tolist()
        for slot in watched:
            row, begin, unseen = self.rows[slot], self.begins[slot], self.unseen[slot]
            assert row is not None
            # An end token has no text, and what follows it is not of this row.
            tokens = new[slot][unseen - first : max(0, begin + lengths[slot] - ended[slot] - first)]
            position = stops.first(row.number, tokens)
            if position is not None:
                # What came after, an end token or a failure, is not of this row.
                self.lengths[slot] = unseen + position + 1 - begin
                self.ended[slot], self.failed[slot], self.alive[slot] = False, False, False
            self.unseen[slot] = behind

    def harvest(self) -> list[tuple[int, Decoded]]:
        """Empty the slots of rows that have ended. Waits for the device."""
        import torch

        over = [slot for slot, row in enumerate(self.rows) if row is not None and not self.going[slot]]
        if not over:
            return []
        place = torch.tensor(over, device=self.tokens.device)
        first, behind = min(self.begins[slot] for slot in over), self.memory.window.now + 1
        written = self.written[place, first:behind].tolist()
        drawn, sure = (one[place, first:behind].cpu().numpy() for one in (self.logprobs, self.confidences))
        lengths, ended, failed = torch.stack([self.lengths, self.ended.long(), self.failed.long()])[:, place].tolist()
        found = []
        for index, slot in enumerate(over):
            row = self.rows[slot]
            assert row is not None
            at = slice(self.begins[slot] - first, self.begins[slot] - first + lengths[index])
            confidence = summary(drawn[index, at], sure[index, at])
            made = Decoded(written[index][at], bool(ended[index]), bool(failed[index]), confidence)
            found.append((row.number, made))
            self.rows[slot] = None
            if self.ways.stops is not None:
                self.ways.stops.forget(row.number)
        return found

    # ----------------------------------------------------------------- who comes and goes

    def may_refill(self) -> bool:
        """Whether another row waits that these slots can take; prefills its group where that is not done."""
        if self.group is None and self.memory.refills:
            self.group = self.queue.take(max(1, int(len(self.rows) * PREFILL)))
        return self.group is not None and self.memory.takes(self.group.prefilled)

    def refill(self) -> None:
        """Let rows that wait into empty slots."""
        empty = [slot for slot, row in enumerate(self.rows) if row is None]
        while empty and self.may_refill():
            group = self.group
            assert group is not None
            count = min(len(empty), len(group.waiting))
            self.admit([group.waiting.popleft() for _ in range(count)], empty[:count], group.prefilled)
            if not group.waiting:
                self.group = None
            empty = empty[count:]
        self.memory.narrow([slot for slot, row in enumerate(self.rows) if row is not None])

    def admit(self, rows: Sequence[tuple[Wanted, int]], slots: Sequence[int], prefilled: Prefilled) -> None:
        """Begin rows, each with its prompt's place among the prefilled: draw their first tokens into these slots."""
        import torch

        self.memory.admit(prefilled, [source for _, source in rows], slots, [one for one in slots if self.broken[one]])
        column = self.memory.window.now
        for slot, (row, _) in zip(slots, rows, strict=True):
            self.rows[slot], self.begins[slot], self.unseen[slot] = row, column, column
            self.going[slot], self.broken[slot] = True, False
        numbers = [
            [source, shifted(row.seed, self.step), column + row.limit, slot]
            for slot, (row, source) in zip(slots, rows, strict=True)
        ]
        source, seeds, limits, place = torch.tensor(numbers, device=self.tokens.device).T
        self.seeds[place], self.limits[place], self.lengths[place] = seeds, limits, 0
        self.positions[place] = prefilled.positions[source]
        self.alive[place] = True
        self.ended[place], self.failed[place], self.unusable[place] = False, False, False
        begun = self.step // UNIFORM_BLOCK * UNIFORM_BLOCK
        self.block[place] = uniforms(seeds, begun, UNIFORM_BLOCK, self.levels)
        self._draw(place, prefilled.logits[source])

    def make_room(self) -> None:
        """Make columns for the steps to come."""
        shift = self.memory.make_room()
        wide = Shift(shift.first, shift.now + 1, shift.columns)  # the tokens of this step are written, its keys are not
        self.written, self.logprobs, self.confidences = (
            wide.of(one, 1) for one in (self.written, self.logprobs, self.confidences)
        )
        self.limits = self.limits - shift.first
        self.begins = [column - shift.first for column in self.begins]
        self.unseen = [column - shift.first for column in self.unseen]

    def compact(self) -> None:
        """Let empty slots go, where they are many. Waits for the device."""
        import torch

        keep = [slot for slot, row in enumerate(self.rows) if row is not None]
        if not keep or not self.memory.shrinks or len(keep) >= COMPACT_BELOW * len(self.rows):
            return
        self.rows = [self.rows[slot] for slot in keep]
        self.begins, self.unseen = [self.begins[slot] for slot in keep], [self.unseen[slot] for slot in keep]
        self.going, self.broken = [self.going[slot] for slot in keep], [self.broken[slot] for slot in keep]
        place = torch.tensor(keep, device=self.tokens.device)
        self.memory.select(place, keep)
        for name in OF_SLOTS:
            setattr(self, name, getattr(self, name)[place])
