"""Stop strings: a completion ends with the first token that completes one, at any batch, and the string is cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nsd.plugins import models
from nsd.plugins.api import Completion, ModelRef, Request, Sampling, StopReason, question_id
from nsd.plugins.data import cut_at_stop
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.engines.hf_decode import Rows, decode
from nsd.plugins.engines.hf_stops import Stops
from nsd.plugins.engines.replay import ReplayEngine
from nsd.plugins.errors import InputError
from tiny_model import make_tiny_model, make_tokenizer

PROMPTS = [f"{'Well, ' * (number % 5)}Tom has {number} apples. How many?" for number in range(24)]
REQUESTS = [Request(f"q{number}", prompt) for number, prompt in enumerate(PROMPTS)]
LENGTH = 40


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelRef]:
    yield ModelRef(str(make_tiny_model(tmp_path_factory.mktemp("model"))))
    HfEngine().close()


def drawn(ref: ModelRef, batch_size: int, temperature: float, *stop: str) -> dict[tuple[str, int], Completion]:
    engine = HfEngine(HfEngine.Config(device="cpu", batch_size=batch_size))
    batches = engine.generate(ref, REQUESTS, Sampling(2, temperature, LENGTH, stop=stop), 7)
    return {(one.question_id, one.sample): one for batch in batches for one in batch}


def pieces(texts: list[str]) -> tuple[str, ...]:
    """Pairs of readable characters (two tokens: the tokenizer has one per byte) that some of the texts hold."""
    found = {text[at : at + 2] for text in texts for at in range(len(text) - 1)}
    readable = sorted(piece for piece in found if piece.isascii() and piece.isprintable())
    return tuple(readable[:: max(1, len(readable) // 12)])


def by_hand(tokenizer: Any, tokens: list[int], stop: tuple[str, ...]) -> tuple[str, int, StopReason]:
    """What a row of these tokens gives: text, tokens, and why it ended, by decoding every beginning of it."""
    for length in range(1, len(tokens) + 1):
        if tokens[length - 1] == tokenizer.eos_token_id:
            return tokenizer.decode(tokens[: length - 1], skip_special_tokens=True), length, StopReason.STOP
        text = tokenizer.decode(tokens[:length], skip_special_tokens=True)
        if any(one in text for one in stop):
            return text[: min(text.index(one) for one in stop if one in text)], length, StopReason.STOP
    return text, len(tokens), StopReason.LENGTH


@pytest.mark.slow
def test_a_greedy_text_ends_where_its_tokens_first_hold_a_stop_string(ref: ModelRef) -> None:
    stop = pieces([one.text for one in drawn(ref, 8, 0.0).values()])
    found = drawn(ref, 8, 0.0, *stop)
    model, tokenizer = models.load_model(ref, device="cpu")
    cut = 0
    for request in REQUESTS:
        ids = tokenizer(request.prompt)["input_ids"]
        output = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=LENGTH)[0, len(ids) :].tolist()
        one = found[request.question_id, 0]
        assert (one.text, one.tokens, one.stop_reason) == by_hand(tokenizer, output, stop)
        cut += one.tokens < len(output)
    assert 3 <= cut < len(REQUESTS), "the toy should show both"


@pytest.mark.slow
def test_stops_do_not_depend_on_the_batch(ref: ModelRef) -> None:
    """Up to rounding, which may move a text in hundreds."""
    plain = drawn(ref, 1, 1.0)
    stop = pieces([one.text for one in plain.values()])
    alone = drawn(ref, 1, 1.0, *stop)
    assert sum(alone[key] != plain[key] for key in plain) > 5
    for size in (7, 64):
        others = drawn(ref, size, 1.0, *stop)
        assert sum(others[key] != alone[key] for key in alone) <= 1
    assert not any(one in completion.text for completion in alone.values() for one in stop)


def test_looking_less_often_changes_nothing(ref: ModelRef) -> None:
    model, tokenizer = models.load_model(ref, device="cpu")
    rows = Rows(
        [tokenizer(p)["input_ids"] for p in PROMPTS], range(24), range(1, 25), [LENGTH - 3] * 12 + [LENGTH] * 12
    )
    sampling = Sampling(1, 1.0, LENGTH)
    stop = pieces([tokenizer.decode(one.tokens) for one in decode(model, rows, sampling, [1], 0)])
    often, seldom = (
        decode(model, rows, sampling, [1], 0, check_every=every, stops=Stops(tokenizer, stop)) for every in (1, 8)
    )
    assert sum(one != other for one, other in zip(often, seldom, strict=True)) <= 1
    assert any(not one.ended and len(one.tokens) < LENGTH - 3 for one in often)


def test_a_stop_string_is_found_behind_a_long_text_and_across_special_tokens() -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer("a" * 200 + "END")["input_ids"]
    assert Stops(tokenizer, ["END"]).first(0, ids) == 202
    assert Stops(tokenizer, ["END"]).first(0, [*ids[:201], *[2] * 30, *ids[201:]]) == 232
    watched = Stops(tokenizer, ["END", "b"])
    assert watched.first(0, ids[:202]) is None
    assert watched.first(1, ids[202:]) is None, "each row has a text of its own"
    assert watched.first(0, ids[202:]) == 0


def test_a_stop_string_of_several_bytes_a_character() -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer("one。two")["input_ids"]
    assert Stops(tokenizer, ["。"]).first(0, ids) == 5


def test_the_first_of_several_stop_strings_cuts() -> None:
    assert cut_at_stop("one two three", ("three", "two")) == ("one ", True)
    assert cut_at_stop("one", ("two",)) == ("one", False)
    assert cut_at_stop("one", ()) == ("one", False)


def test_an_empty_stop_string_is_refused(ref: ModelRef) -> None:
    with pytest.raises(InputError, match="a stop string is empty"):
        drawn(ref, 8, 0.0, "")


# --------------------------------------------------------------------------- recorded completions, and the fields


def test_a_recorded_text_is_cut_too(tmp_path: Path) -> None:
    row = {"question": "One?", "completion": ["a\n\nb", "c", "d\n\ne"], "finish": ["length", "length", "error"]}
    path = tmp_path / "said.jsonl"
    path.write_text(json.dumps(row))
    engine = ReplayEngine(ReplayEngine.Config.model_validate({"path": str(path), "fields": {"finish": "finish"}}))
    sampling = Sampling(3, 1.0, 9, stop=("\n\n",))
    (batch,) = engine.generate(None, [Request(question_id("One?"), "One?")], sampling, 0)
    assert [(one.text, one.stop_reason) for one in batch] == [
        ("a", StopReason.STOP),
        ("c", StopReason.LENGTH),
        ("d\n\ne", StopReason.ERROR),
    ]


def test_a_sampling_is_written_and_read_again() -> None:
    plain, stopped = Sampling(1, 0.5, 8), Sampling(1, 0.5, 8, stop=("a",))
    assert list(plain.to_json()) == ["n", "temperature", "max_tokens", "top_p", "top_k", "stop"]
    assert stopped.to_json()["stop"] == ["a"]
    assert [Sampling(**json.loads(json.dumps(one.to_json()))) for one in (plain, stopped)] == [plain, stopped]
