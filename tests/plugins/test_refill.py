"""Slots are refilled: whoever joins a batch late, behind a common beginning, or across a move, writes the same text.

Texts are compared with those of rows that are decoded alone, up to rounding, which may move one in hundreds.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from nsd.plugins.api import Sampling
from nsd.plugins.engines import hf_prefill, hf_slots
from nsd.plugins.engines.hf_decode import Decoded, Rows, Ways, decode, stream
from nsd.plugins.engines.hf_prefill import Queue, Wanted, common_beginning
from nsd.plugins.engines.hf_sampling import shifted, uniforms
from nsd.plugins.engines.hf_stops import Stops
from tiny_model import make_tiny_model, make_tokenizer

LONGEST = 40
SAMPLING = Sampling(1, 1.0, LONGEST)
# Rows of several lengths: many tokens of so small a vocabulary end a text.
ENDS = list(range(1, 5))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from nsd.plugins import models
    from nsd.plugins.api import ModelRef

    return models.load_model(ModelRef(str(make_tiny_model(tmp_path_factory.mktemp("model")))), device="cpu")[0]


def prompts(count: int, beginning: int = 0) -> list[list[int]]:
    """Random prompts of 1 to 12 tokens of their own after a common beginning, the longest first."""
    made = random.Random(3)
    common = [made.randrange(10, 250) for _ in range(beginning)]
    own = [[made.randrange(10, 250) for _ in range(made.randint(1, 12))] for _ in range(count)]
    return sorted((common + one for one in own), key=len, reverse=True)


def rows(of: list[list[int]], samples: int = 4) -> Rows:
    prompt_of = [prompt for prompt in range(len(of)) for _ in range(samples)]
    limits = [LONGEST - number % 7 for number in range(len(prompt_of))]
    return Rows(of, prompt_of, range(1, len(prompt_of) + 1), limits)


def one_by_one(model: Any, wanted: Rows) -> list[Decoded]:
    return [
        decode(model, Rows([wanted.prompts[prompt]], [0], [seed], [limit]), SAMPLING, ENDS, 0)[0]
        for prompt, seed, limit in zip(wanted.prompt_of, wanted.seeds, wanted.limits, strict=True)
    ]


def differing(found: list[Decoded], expected: list[Decoded]) -> int:
    return sum(one != other for one, other in zip(found, expected, strict=True))


@pytest.fixture(scope="module")
def alone_of_12(model: Any) -> list[Decoded]:
    return one_by_one(model, rows(prompts(12)))


@pytest.mark.slow
@pytest.mark.parametrize("beginning", [0, pytest.param(30, marks=pytest.mark.slow)])
def test_a_row_writes_the_same_in_a_slot_that_others_had(
    model: Any, alone_of_12: list[Decoded], beginning: int
) -> None:
    wanted = rows(prompts(12, beginning))
    alone = one_by_one(model, wanted) if beginning else alone_of_12
    assert len({len(one.tokens) for one in alone}) > 10, "the toy should end rows at many steps"
    for slots in (1, 3, 7, 48):
        assert differing(decode(model, wanted, SAMPLING, ENDS, 0, slots=slots), alone) <= 1
    seldom = decode(model, wanted, SAMPLING, ENDS, 0, check_every=8, slots=5)
    assert differing(seldom, alone) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("check_every", [1, 8])
def test_a_stop_string_ends_a_row_at_any_token_of_its_own(model: Any, check_every: int) -> None:
    """Also at the first token of a row that takes another's slot. A letter is a token."""
    tokenizer, wanted = make_tokenizer(), rows(prompts(12))

    def ended(slots: int) -> list[Decoded]:
        stops = Stops(tokenizer, [chr(65 + letter) for letter in range(26)])
        return decode(model, wanted, SAMPLING, ENDS, 0, check_every=check_every, stops=stops, slots=slots)

    alone, refilled = ended(48), ended(3)
    assert differing(refilled, alone) <= 1
    assert sum(len(one.tokens) == 1 and not one.ended for one in alone) > 1, "some should stop at their first token"


@pytest.mark.slow
def test_the_window_moves_and_the_texts_do_not(
    model: Any, alone_of_12: list[Decoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, alone = rows(prompts(12)), alone_of_12
    monkeypatch.setattr(hf_slots, "ROOM", 4)
    moved: list[tuple[int, bool]] = []
    inner = hf_slots.SlotMemory.make_room

    def watched(memory: hf_slots.SlotMemory) -> hf_slots.Shift:
        before, shift = memory.columns, inner(memory)
        moved.append((shift.first, shift.columns > before))
        return shift

    monkeypatch.setattr(hf_slots.SlotMemory, "make_room", watched)
    found = decode(model, wanted, SAMPLING, ENDS, 0, slots=3)
    assert differing(found, alone) <= 1
    assert any(first > 0 for first, _ in moved), "the toy should move the window"
    assert any(longer for _, longer in moved), "the toy should make the buffers longer"


def test_what_all_prompts_begin_with_is_run_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    inner = hf_prefill.forward

    def watched(own: Any, accepts: Any, ids: Any, *more: Any) -> Any:
        seen.append(tuple(ids.shape))
        return inner(own, accepts, ids, *more)

    monkeypatch.setattr(hf_prefill, "forward", watched)
    given = prompts(12, 30)
    decode(model, rows(given), SAMPLING, ENDS, 0, slots=8)
    assert [shape for shape in seen if shape[1] == 30] == [(1, 30)]
    assert all(width <= 12 for _, width in seen[1:])
    assert sum(prompts for prompts, _ in seen[1:]) == 12, "each prompt once, for all of its samples"


@pytest.mark.parametrize(
    ("given", "common"),
    [
        ([[1, 2, 3], [1, 2, 4]], 2),
        ([[1, 2], [1, 2, 4]], 1),  # each keeps a token of its own, to have logits
        ([[1, 2], [1, 2]], 1),
        ([[1], [2]], 0),
        ([[1, 2, 3]], 0),
    ],
)
def test_a_common_beginning_by_hand(given: list[list[int]], common: int) -> None:
    assert common_beginning(given) == common


def test_a_shifted_seed_gives_the_numbers_of_the_seed_later() -> None:
    seed, step = 2**63 - 5, 1000
    later = uniforms(torch.tensor([shifted(seed, step)]), step, 3, 16)
    assert torch.equal(later, uniforms(torch.tensor([seed]), 0, 3, 16))


def test_a_row_is_handed_out_before_the_queue_is_read_to_its_end(model: Any) -> None:
    """What has ended is given out within the longest row's steps, however many rows wait."""
    taken: list[int] = []

    def wanted() -> Any:
        for number in range(200):
            taken.append(number)
            yield Wanted(number, str(number), [20 + number], number + 1, LONGEST)

    first, _ = next(stream(model, Queue(model, wanted(), 0), Ways(SAMPLING, ENDS, 8, LONGEST), 0))
    assert first < 8
    assert len(taken) < 30


@pytest.mark.slow
def test_a_slot_with_what_is_no_number_is_clean_for_the_next_row(model: Any) -> None:
    """Not-a-number in a masked column would spread: 0 x NaN is NaN."""
    wanted = rows(prompts(6), samples=2)
    expected = one_by_one(model, wanted)
    poison = 7  # the first row's second token is NaN to the model
    embedding = model.get_input_embeddings()
    inner, calls = embedding.forward, [0]

    def poisoned(ids: Any) -> Any:
        calls[0] += 1
        states = inner(ids)
        if calls[0] == poison:
            states = states.clone()
            states[0] = float("nan")
        return states

    embedding.forward = poisoned
    try:
        found = decode(model, wanted, SAMPLING, ENDS, 0, slots=2)
    finally:
        del embedding.forward
    assert [one.failed for one in found].count(True) == 1
    assert differing(found, expected) <= 2
