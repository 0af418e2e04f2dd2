"""Samples that are asked for while others are drawn: which ones are drawn, and their texts, hang on no batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from asked_as_they_go import MOST, asked_for, asked_of
from nsd.plugins.api import Completion, ModelRef, Request, Sampling, StopReason
from nsd.plugins.engines import hf
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.engines.hf_pool import Pool
from nsd.plugins.engines.hf_prefill import Queue, Wanted
from nsd.runner.work.rounds import Growing
from tiny_model import make_tiny_model

REQUESTS = [Request(f"q{number}", f"{'Well, ' * (number % 5)}Tom has {number} apples.") for number in range(16)]
SAMPLING = Sampling(MOST, 1.0, 12)
Found = dict[tuple[str, int], Completion]


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelRef]:
    yield ModelRef(str(make_tiny_model(tmp_path_factory.mktemp("model"))))
    HfEngine().close()


@pytest.fixture(scope="module")
def full(ref: ModelRef) -> Found:
    return collected(list(engine().generate(ref, REQUESTS, SAMPLING, 7)))


def engine(**config: Any) -> HfEngine:
    return HfEngine(HfEngine.Config(device="cpu", **config))


def grown(made: HfEngine, ref: ModelRef, samples: Growing, requests: list[Request] = REQUESTS) -> Found:
    return collected(list(made.generate_growing(ref, requests, SAMPLING, 7, samples)))


def collected(batches: list[list[Completion]]) -> Found:
    found = [one for batch in batches for one in batch]
    assert len({(one.question_id, one.sample) for one in found}) == len(found)
    return {(one.question_id, one.sample): one for one in found}


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2, 5, 40])
def test_batches_change_neither_which_samples_are_drawn_nor_their_texts(
    ref: ModelRef, full: Found, batch_size: int
) -> None:
    expected = asked_for(REQUESTS, full)
    assert {sum(name == one.question_id for name, _ in expected) for one in REQUESTS} >= {2, 3, MOST}
    found = grown(engine(batch_size=batch_size), ref, asked_of(REQUESTS))
    assert found.keys() == expected
    # Rounding may move one text in hundreds, and with it what is asked of its question.
    assert sum(found[place].text != full[place].text for place in found) == 0


def test_what_is_there_is_not_drawn_again(ref: ModelRef, full: Found) -> None:
    expected = asked_for(REQUESTS, full)
    there = {place: full[place] for place in sorted(expected)[::3]}
    found = grown(engine(batch_size=2), ref, asked_of(REQUESTS, there))
    assert found.keys() == expected - there.keys()


@pytest.mark.slow
def test_what_does_not_fit_begins_again_and_nothing_is_told_twice(
    ref: ModelRef, full: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engine(batch_size=6)
    list(made.generate(ref, REQUESTS[:1], Sampling(1, 1.0, 1), 7))
    assert hf._last is not None
    model = hf._last.loaded.model
    forward, tried = model.forward, []

    def limited(input_ids: Any, **more: Any) -> Any:
        tried.append(len(input_ids))
        if len(input_ids) > 20 and len(tried) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(input_ids=input_ids, **more)

    monkeypatch.setattr(model, "forward", limited)
    found = grown(made, ref, asked_of(REQUESTS))
    assert made.notes["out_of_memory_at_rows"] == [36]
    assert found.keys() == asked_for(REQUESTS, full)


def test_a_prompt_that_the_model_cannot_take_fails_as_often_as_it_is_asked_for(ref: ModelRef) -> None:
    requests = [*REQUESTS[:2], Request("long", "word " * 5000)]
    found = grown(engine(), ref, asked_of(requests), requests)
    failed = [one for (name, _), one in found.items() if name == "long"]
    # An empty text has no letters, a multiple of four: two samples end it.
    assert [one.stop_reason for one in failed] == [StopReason.ERROR] * 2


def test_each_prompt_is_read_once(ref: ModelRef, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    prefill = Queue._prefill

    def counted(queue: Queue, prompts: Any) -> Any:
        read.append(len(prompts))
        return prefill(queue, prompts)

    monkeypatch.setattr(Queue, "_prefill", counted)
    list(engine(batch_size=1).generate_growing(ref, REQUESTS, SAMPLING, 7, asked_of(REQUESTS)))
    assert len(read) > 1 and sum(read) == len(REQUESTS)


def test_a_pool_that_is_full_lets_go_what_was_not_wanted_for_longest(ref: ModelRef) -> None:
    loaded = engine()._load(ref)
    prompts = {name: [10 + number, 30, 40 + number][: 1 + number % 3] for number, name in enumerate("abcdefg")}

    def taken(queue: Queue, names: str) -> Any:
        rows.extend(Wanted(number, name, prompts[name], 0, 9) for number, name in enumerate(names))
        group = queue.take(len(names))
        assert group is not None
        with torch.inference_mode():
            alone = Queue(loaded.model, iter(()), loaded.pad_id)._prefill([prompts[name] for name in names])
        place = [place for _, place in group.waiting]
        assert torch.allclose(group.prefilled.logits[place], alone.logits, atol=1e-5)
        for one, other in zip(group.prefilled.cache.layers, alone.cache.layers, strict=True):
            seen = alone.mask[:, None, :, None].bool()
            assert torch.allclose(one.keys[place] * seen, other.keys * seen, atol=1e-5)
        assert torch.equal(group.prefilled.mask[place], alone.mask)
        assert [group.prefilled.padded[one] for one in place] == alone.padded
        return pool.places_of.keys()

    rows: list[Wanted] = []
    pool = Pool(loaded.model, 4, 3)
    with torch.inference_mode():
        queue = Queue(loaded.model, Further(rows), loaded.pad_id, pool=pool)
        assert taken(queue, "abc") == set("abc")
        assert taken(queue, "a") == set("abc")
        assert taken(queue, "dbe") == set("abde")  # not c, which was not wanted since
        assert taken(queue, "fgca") == set("fgca")


class Further(Iterator[Wanted]):
    """What is in a list, also after it was empty."""

    def __init__(self, rows: list[Wanted]) -> None:
        self.rows = rows

    def __next__(self) -> Wanted:
        if not self.rows:
            raise StopIteration
        return self.rows.pop(0)
