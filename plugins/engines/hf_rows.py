"""Rows of a model that is loaded, decoded in pieces that fit in its memory: what the `hf` engine and trainers share.

    loaded = facts(model, tokenizer)
    for rows, decoded in in_pieces(loaded, [[(prompt, 0), (prompt, 1)]], sampling, seed, notes):
        texts = texts_of(loaded, decoded)

A row is a prompt and a sample number, and is drawn from `stream(seed, question id, sample number)`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nsd.plugins.api import Sampling
from nsd.plugins.chat import turn_end
from nsd.plugins.errors import StageFailed
from nsd.plugins.seeds import stream

if TYPE_CHECKING:  # what only a drawing needs is imported by it: a spec that names `hf` is read quickly
    from nsd.plugins.engines.hf_decode import Decoded

LOOK_EVERY_ON_ACCELERATORS = 8  # steps between looks at which rows have ended; each look waits for the device


@dataclass(frozen=True)
class Loaded:
    """A model in memory, and what a decode loop needs to know of it; `context` in tokens, None where it has no end."""

    model: Any
    tokenizer: Any
    end_ids: list[int]
    pad_id: int
    context: int | None
    vocabulary: int


@dataclass(frozen=True)
class AskedPrompt:
    """A question's prompt as token ids, and the sample that is wanted first."""

    question_id: str
    ids: list[int]
    first: int = 0


Row = tuple[AskedPrompt, int]  # a prompt and a sample number


def facts(model: Any, tokenizer: Any) -> Loaded:
    """What the loop needs to know of a model. End tokens: the checkpoint's list and the tokenizer's own."""
    listed = getattr(model.generation_config, "eos_token_id", None)
    ends = {*(listed if isinstance(listed, list) else [listed]), tokenizer.eos_token_id} - {None}
    vocabulary = int(model.get_input_embeddings().weight.shape[0])  # an adapted embedding has no other number
    pad = int(tokenizer.pad_token_id)
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        end_ids=sorted(ends),
        # A pad token that was added without resizing the model has no embedding; any masked token will do.
        pad_id=pad if pad < vocabulary else 0,
        context=getattr(model.config.get_text_config(), "max_position_embeddings", None),
        vocabulary=vocabulary,
    )


def with_turn_end(loaded: Loaded, template_kwargs: Mapping[str, Any] | None) -> Loaded:
    """The same model with the end of its chat template's turns among its end tokens."""
    end = turn_end(loaded.tokenizer, template_kwargs)
    return loaded if end is None else replace(loaded, end_ids=sorted({*loaded.end_ids, end}))


def in_pieces(
    loaded: Loaded, batches: Iterable[Sequence[Row]], sampling: Sampling, seed: int, refused: list[int]
) -> Iterator[tuple[Sequence[Row], list[Decoded]]]:
    """Decode batches of rows; one that does not fit in memory is halved, and the batches after it too.

    The numbers of rows that did not fit are added to `refused`. Raises StageFailed where not even one row fits.
    """
    cap: int | None = None  # rows that may run at once, since memory first ran out
    for batch in batches:
        stack = [batch]
        while stack:
            rows = stack.pop()
            if not rows:
                continue
            half = (len(rows) + 1) // 2
            if cap is None or len(rows) <= cap:
                if (decoded := _tried(loaded, rows, sampling, seed)) is not None:
                    yield rows, decoded
                    continue
                refused.append(len(rows))
                if len(rows) == 1:
                    raise StageFailed(
                        f"engine hf: not even one completion of {sampling.max_tokens} tokens after a prompt of "
                        f"{len(rows[0][0].ids)} tokens fits in the memory of {loaded.model.device}"
                    )
                cap = half
            stack += [rows[half:], rows[:half]]


def _tried(loaded: Loaded, rows: Sequence[Row], sampling: Sampling, seed: int) -> list[Decoded] | None:
    """These rows decoded, None where they did not fit in memory."""
    try:
        return _decode(loaded, rows, sampling, seed)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        import logging

        logging.getLogger("nsd.engine.hf").warning(
            "out of memory with %d completions at once on %s", len(rows), loaded.model.device
        )
    free_memory()  # outside the except block, whose traceback holds the tensors
    return None


def _decode(loaded: Loaded, rows: Sequence[Row], sampling: Sampling, seed: int) -> list[Decoded]:
    """Decode rows, each prompt prefilled once. Greedy samples of a prompt are one row, written once."""
    from nsd.plugins.engines.hf_decode import Rows, decode
    from nsd.plugins.engines.hf_stops import Stops

    prompts = list({prompt.question_id: prompt for prompt, _ in rows}.values())
    place = {prompt.question_id: index for index, prompt in enumerate(prompts)}
    wanted = [(prompt, 0) for prompt in prompts] if sampling.temperature == 0 else rows
    room = [sampling.max_tokens if loaded.context is None else loaded.context - len(p.ids) for p, _ in wanted]
    decoded = decode(
        loaded.model,
        Rows(
            prompts=[prompt.ids for prompt in prompts],
            prompt_of=[place[prompt.question_id] for prompt, _ in wanted],
            seeds=[stream(seed, prompt.question_id, sample) for prompt, sample in wanted],
            limits=[min(sampling.max_tokens, room_of) for room_of in room],
        ),
        sampling,
        loaded.end_ids,
        loaded.pad_id,
        check_every=1 if loaded.model.device.type == "cpu" else LOOK_EVERY_ON_ACCELERATORS,
        stops=Stops(loaded.tokenizer, sampling.stop, len(wanted)) if sampling.stop else None,
    )
    return [decoded[place[prompt.question_id]] for prompt, _ in rows] if sampling.temperature == 0 else decoded


def texts_of(loaded: Loaded, decoded: Sequence[Decoded]) -> list[str]:
    """What was written, as text, without end tokens."""
    ids = [one.tokens[:-1] if one.ended else one.tokens for one in decoded]
    return list(loaded.tokenizer.batch_decode(ids, skip_special_tokens=True))


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
