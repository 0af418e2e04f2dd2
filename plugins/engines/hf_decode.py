"""The decode loop of the `hf` engine: many prompts, many samples each, every row with a random stream of its own.

Prompts are padded on the left and prefilled once; the key-value cache is then spread over the samples by row
index, and rows that have ended leave the batch (plain `generate` carries them to the end, which is where most of
its time goes). Nothing here knows of plugins, prompts as text, or files. How a token is drawn: hf_sampling.py. Where
the model takes the mask of hf_mask.py, the host waits for nothing between two looks at which rows have ended
(tests/plugins/test_decode_waits.py).

Limits: one forward pass holds the whole batch of prompts (no chunked prefill).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from nsd.plugins.api import Confidence, Sampling
from nsd.plugins.confidence import summary, token_confidence
from nsd.plugins.engines.hf_sampling import choose, levels, uniforms
from nsd.plugins.engines.hf_stops import Stops
from nsd.plugins.errors import InputError

UNIFORM_BLOCK = 32  # steps drawn at once: the integer hash is a dozen small kernels, so it is not run every step
COMPACT_BELOW = 0.8  # rows leave when fewer than this share of the batch are still being written


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


def decode(
    model: Any,
    rows: Rows,
    sampling: Sampling,
    end_ids: Sequence[int],
    pad_id: int,
    check_every: int = 1,
    stops: Stops | None = None,
) -> list[Decoded]:
    """Decode every row until an end token, a stop string or its limit; returns them in order.

    `end_ids` may be empty. `check_every` is how many steps pass between looks at which rows have ended (a look
    waits for the accelerator); it changes nothing in the output. `stops` is fresh and for as many rows. Raises
    InputError for a model whose cache cannot be cut by rows, and lets torch's out-of-memory error through.
    """
    import torch

    # Models differ in what their forward takes: some count positions themselves, some cannot leave logits out.
    accepts = inspect.signature(type(model).forward).parameters.keys()
    longest = max(rows.limits)
    with torch.inference_mode():
        batch = Batch(model, accepts, rows, sampling, end_ids, pad_id)
        for step in range(longest):
            batch.draw(step)
            last = step + 1 == longest
            if last or (step + 1) % check_every == 0:
                if stops is not None:
                    batch.look_for(stops, step)
                if last or not batch.drop_ended():
                    break
            batch.forward(step)
        return batch.decoded()


class Batch:
    """The rows still being written, and what all have written. `draw` and `forward` read nothing back to the host.

    What is of every row of the whole batch is the output; `place` says where each row of the shrinking batch stands
    in it.
    """

    def __init__(
        self,
        model: Any,
        accepts: AbstractSet[str],
        rows: Rows,
        sampling: Sampling,
        end_ids: Sequence[int],
        pad_id: int,
    ) -> None:
        import torch

        from nsd.plugins.engines.hf_cache import select_rows
        from nsd.plugins.engines.hf_mask import Masks

        self.model, self.accepts, self.sampling, self.pad_id = model, accepts, sampling, pad_id
        device, count, longest = model.device, len(rows.prompt_of), max(rows.limits)
        logits, self.cache, mask, positions = _prefill(model, accepts, rows.prompts, pad_id)
        if list(rows.prompt_of) != list(range(len(rows.prompts))):
            prompt_of = torch.tensor(rows.prompt_of, device=device)
            logits, mask, positions = logits[prompt_of], mask[prompt_of], positions[prompt_of]
            select_rows(self.cache, prompt_of)
        self.width = mask.shape[1]
        padded = [len(rows.prompts[prompt]) < self.width for prompt in rows.prompt_of]
        self.masks = Masks(model, accepts, self.cache, mask, padded, longest)
        self.logits, self.positions = logits, positions
        self.seeds = torch.tensor(rows.seeds, dtype=torch.int64, device=device)
        self.limits = torch.tensor(rows.limits, device=device)
        self.ends = torch.tensor(list(end_ids), dtype=torch.int64, device=device)
        self.place = torch.arange(count, device=device)
        self.alive = torch.ones(count, dtype=torch.bool, device=device)
        self.written = torch.full((count, longest), pad_id, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(count, dtype=torch.int64, device=device)
        self.ended = torch.zeros(count, dtype=torch.bool, device=device)
        self.failed = torch.zeros(count, dtype=torch.bool, device=device)
        self.logprobs = torch.zeros((count, longest), device=device)
        self.confidences = torch.zeros((count, longest), device=device)
        self.looked = 0  # steps whose tokens were looked at for stop strings

    def draw(self, step: int) -> None:
        """Draw a token of every row from `logits`, and write it down."""
        logits, place = self.logits.float(), self.place
        if step % UNIFORM_BLOCK == 0:
            self.block = uniforms(self.seeds, step, UNIFORM_BLOCK, levels(logits.shape[1]))
        tokens, usable = choose(logits, self.sampling, self.block[:, step % UNIFORM_BLOCK])
        self.failed[place] |= self.alive & ~usable
        alive = self.alive & usable
        self.tokens = tokens.where(alive, self.pad_id)
        self.written[place, step] = self.tokens
        self.logprobs[place, step], self.confidences[place, step] = token_confidence(logits, self.tokens)
        self.lengths[place] += alive
        at_end = alive & (self.tokens[:, None] == self.ends).any(1)
        self.ended[place] |= at_end
        self.alive = alive & ~at_end & (self.limits > step + 1)

    def forward(self, step: int) -> None:
        """Run the model on the tokens drawn: the logits of the next ones."""
        self.positions = self.positions + 1
        mask = self.masks.of(self.width + step + 1)
        ids, positions = self.tokens[:, None], self.positions[:, None]
        self.logits = _forward(self.model, self.accepts, ids, mask, positions, self.cache)

    def look_for(self, stops: Stops, step: int) -> None:
        """End the rows that have met a stop string since the last look. Waits for the device."""
        place = self.place
        new = self.written[place, self.looked : step + 1].tolist()
        for index, (row, tokens, length, end) in enumerate(
            zip(place.tolist(), new, self.lengths[place].tolist(), self.ended[place].tolist(), strict=True)
        ):
            # An end token has no text; rows that have ended before have nothing new.
            position = stops.first(row, tokens[: max(0, length - end - self.looked)])
            if position is not None:
                # What came after, an end token or a failure, is not of this row.
                self.lengths[row] = self.looked + position + 1
                self.ended[row], self.failed[row], self.alive[index] = False, False, False
        self.looked = step + 1

    def drop_ended(self) -> bool:
        """Let rows that have ended go, where they are many; whether any is left. Waits for the device."""
        from nsd.plugins.engines.hf_cache import select_rows

        remaining = int(self.alive.sum())
        if 0 < remaining < COMPACT_BELOW * len(self.alive):
            keep = self.alive.nonzero().squeeze(1)
            select_rows(self.cache, keep)
            self.masks.select(keep)
            for name in ("tokens", "alive", "place", "limits", "seeds", "block", "positions"):
                setattr(self, name, getattr(self, name)[keep])
        return remaining > 0

    def decoded(self) -> list[Decoded]:
        """What every row has become, in order."""
        columns = [one.tolist() for one in (self.written, self.lengths, self.ended, self.failed)]
        drawn, sure = (one.cpu().numpy() for one in (self.logprobs, self.confidences))
        return [
            Decoded(tokens[:length], end, fail, summary(drawn[row, :length], sure[row, :length]))
            for row, (tokens, length, end, fail) in enumerate(zip(*columns, strict=True))
        ]


# --------------------------------------------------------------------------- the model


def _prefill(
    model: Any, accepts: AbstractSet[str], prompts: Sequence[Sequence[int]], pad_id: int
) -> tuple[Any, Any, Any, Any]:
    """Run the prompts: (next-token logits [P, V], cache, mask [P, L], position of the last token [P])."""
    import torch

    from nsd.plugins.engines.hf_cache import make_cache

    if "past_key_values" not in accepts:
        raise _unfit(model)
    width = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (width - len(one)) + list(one) for one in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = make_cache(model.config)
    logits = _forward(model, accepts, ids, mask, positions, cache)
    if cache.get_seq_length() != width:
        raise _unfit(model)
    return logits, cache, mask, positions[:, -1]


def _unfit(model: Any) -> InputError:
    return InputError(
        f"engine hf cannot run {type(model).__name__}: it does not keep its state in a transformers DynamicCache; "
        "use a decoder model that does"
    )


def _forward(model: Any, accepts: AbstractSet[str], ids: Any, mask: Any, positions: Any, cache: Any) -> Any:
    """Next-token logits [R, V]; the cache grows in place."""
    options: dict[str, Any] = {}
    if "position_ids" in accepts:
        options["position_ids"] = positions
    if "logits_to_keep" in accepts:  # the logits of a whole prompt batch are the largest tensor there is
        options["logits_to_keep"] = 1
    output = model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options)
    return output.logits[:, -1]
