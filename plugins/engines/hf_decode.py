"""The decode loop of the `hf` engine: many prompts, many samples each, every row with a random stream of its own.

Prompts are padded on the left and prefilled once; the key-value cache is then spread over the samples by row
index, and rows that have ended leave the batch (plain `generate` carries them to the end, which is where most of
its time goes). Nothing here knows of plugins, prompts as text, or files.

**Randomness.** Row r draws the uniform number of step t from SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) started
at the row's seed: a counter-based hash in 64-bit integer arithmetic, the same on every device and for every batch.
A token is drawn by inverting the cumulative distribution, accumulated in float64 over the vocabulary in its own
order. Chosen over Gumbel-max because it needs one random number a row and step instead of one per vocabulary
entry (150,000 for Qwen), and over an order sorted by probability because near-ties would then swap places under
rounding and move large pieces of the distribution.

Limits: a token changes with the batch when rounding in the model moves a boundary of the distribution across the
drawn number; see hf.py for how often that is. One forward pass holds the whole batch of prompts; no chunked prefill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plugins.api import Sampling

GOLDEN = 0x9E3779B97F4A7C15
MIX_1, MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
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
    """One row's tokens, the end token included. `ended`: by an end token; `failed`: the logits were not finite."""

    tokens: list[int]
    ended: bool
    failed: bool


def decode(
    model: Any,
    rows: Rows,
    sampling: Sampling,
    end_ids: Sequence[int],
    pad_id: int,
    check_every: int = 1,
) -> list[Decoded]:
    """Decode every row until an end token or its limit; returns them in order.

    `end_ids` may be empty. `check_every` is how many steps pass between looks at which rows have ended (a look
    waits for the accelerator); it changes nothing in the output. Raises InputError for a model whose cache cannot
    be cut by rows, and lets torch's out-of-memory error through.
    """
    import torch

    device = model.device
    count, longest = len(rows.prompt_of), max(rows.limits)
    with torch.inference_mode():
        logits, cache, mask, positions = _prefill(model, rows, pad_id)
        prompt_of = torch.tensor(rows.prompt_of, device=device)
        if list(rows.prompt_of) != list(range(len(rows.prompts))):
            logits, mask, positions = logits[prompt_of], mask[prompt_of], positions[prompt_of]
            select_rows(cache, prompt_of)
        seeds = torch.tensor(rows.seeds, dtype=torch.int64, device=device)
        limits = torch.tensor(rows.limits, device=device)
        ends = torch.tensor(list(end_ids), dtype=torch.int64, device=device)
        written = torch.full((count, longest), pad_id, dtype=torch.int64, device=device)
        lengths = torch.zeros(count, dtype=torch.int64, device=device)
        ended = torch.zeros(count, dtype=torch.bool, device=device)
        failed = torch.zeros(count, dtype=torch.bool, device=device)
        place = torch.arange(count, device=device)  # where each row of the shrinking batch stands in the output
        alive = torch.ones(count, dtype=torch.bool, device=device)
        mask = torch.cat([mask, mask.new_ones(count, longest)], dim=1)
        width = mask.shape[1] - longest

        for step in range(longest):
            if step % UNIFORM_BLOCK == 0:
                block = uniforms(seeds, step, UNIFORM_BLOCK)
            tokens, finite = choose(logits, sampling, block[:, step % UNIFORM_BLOCK])
            broken = alive & ~finite
            alive = alive & finite
            tokens = torch.where(alive, tokens, pad_id)
            written[place, step] = tokens
            lengths[place] += alive
            at_end = alive & torch.isin(tokens, ends)
            ended[place] |= at_end
            failed[place] |= broken
            alive = alive & ~at_end & (limits > step + 1)
            if step + 1 == longest:
                break
            if (step + 1) % check_every == 0:
                remaining = int(alive.sum())
                if remaining == 0:
                    break
                if remaining < COMPACT_BELOW * len(alive):
                    keep = alive.nonzero().squeeze(1)
                    tokens, place, alive, limits, seeds = (
                        one[keep] for one in (tokens, place, alive, limits, seeds)
                    )
                    block, mask, positions = block[keep], mask[keep], positions[keep]
                    select_rows(cache, keep)
            positions = positions + 1
            logits, cache = _forward(
                model, tokens[:, None], mask[:, : width + step + 1], positions[:, None], cache
            )
        result = [one.tolist() for one in (written, lengths, ended, failed)]
    return [Decoded(tokens[:length], end, fail) for tokens, length, end, fail in zip(*result, strict=True)]


# --------------------------------------------------------------------------- the model


def _prefill(model: Any, rows: Rows, pad_id: int) -> tuple[Any, Any, Any, Any]:
    """Run the prompts: (next-token logits [P, V], cache, mask [P, L], position of the last token [P])."""
    import torch
    from transformers import DynamicCache

    width = max(map(len, rows.prompts))
    padded = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in rows.prompts]
    ids = torch.tensor(padded, device=model.device)
    mask = torch.tensor(
        [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in rows.prompts], device=model.device
    )
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits, cache = _forward(model, ids, mask, positions, DynamicCache(config=model.config))
    return logits, cache, mask, positions[:, -1]


def _forward(model: Any, ids: Any, mask: Any, positions: Any, cache: Any) -> tuple[Any, Any]:
    accepts = _accepted(type(model))
    options: dict[str, Any] = {"position_ids": positions} if "position_ids" in accepts else {}
    if "logits_to_keep" in accepts:
        options["logits_to_keep"] = 1
    output = model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options)
    return output.logits[:, -1], output.past_key_values
