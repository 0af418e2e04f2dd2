"""How sure a model was: by hand from given logits, and from the engine against a plain forward pass."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy
import pytest
import torch

from nsd.plugins import models
from nsd.plugins.api import Confidence, ModelRef, Request, Sampling
from nsd.plugins.confidence import entropy_and_certainty, summary, token_confidence, window_length
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.engines.hf_decode import Rows, decode
from tiny_model import make_tiny_model

PROMPTS = [f"{'Well, ' * (number % 3)}Tom has {number} apples. How many?" for number in range(6)]
REQUESTS = [Request(prompt, prompt) for prompt in PROMPTS]


def test_a_tokens_numbers_by_hand() -> None:
    # Probabilities 1/2, 1/4, 1/8, 1/8, as logits with any constant added.
    logits = torch.tensor([[-1.0, -2.0, -3.0, -3.0]]) * math.log(2) + 5
    logprob, confidence = token_confidence(logits, torch.tensor([1]))
    assert logprob.item() == pytest.approx(-2 * math.log(2), abs=1e-6)
    # A vocabulary of four has four most likely tokens: (1 + 2 + 3 + 3) / 4 bits.
    assert confidence.item() == pytest.approx(9 / 4 * math.log(2), abs=1e-6)
    entropy, certainty = entropy_and_certainty(logits)
    assert entropy.item() == pytest.approx((1 / 2 + 2 / 4 + 3 / 8 + 3 / 8) * math.log(2), abs=1e-6)
    # ln(e^5) - (5 - 9/4 ln 2)
    assert certainty.item() == pytest.approx(9 / 4 * math.log(2), abs=1e-6)


@pytest.mark.parametrize("vocabulary", [1, 19, 20, 21, 167, 168, 169, 833, 4096, 4097, 10_001])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_the_twenty_are_those_of_a_sorted_row_whatever_the_vocabulary(vocabulary: int, shape: tuple[int, ...]) -> None:
    """With many that tie, and some that cannot be drawn at all."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(*shape, vocabulary, generator=generator).mul(4).round().div(4)
    logits[..., 1::7] = float("-inf")
    _, confidence = token_confidence(logits, torch.zeros(shape, dtype=torch.int64))
    most = logits.double().log_softmax(-1).sort(-1, descending=True).values[..., :20]
    assert torch.allclose(confidence.double(), -most.mean(-1), rtol=1e-5)


def test_only_the_twenty_most_likely_tokens_count() -> None:
    # Twenty tokens of probability 1/40 each, 40 of 1/80 each.
    logits = torch.tensor([[1 / 80] * 40 + [1 / 40] * 20]).log()
    _, confidence = token_confidence(logits, torch.tensor([0]))
    assert confidence.item() == pytest.approx(math.log(40), abs=1e-6)


def test_a_texts_numbers_by_hand() -> None:
    # Eight tokens: a window is two, and there are seven; a tenth of seven is none, so the lowest window alone.
    found = summary(
        numpy.array([-1.0, -2, -3, -4, -5, -4, -3, -2]), numpy.array([8.0, 6, 4, 2, 4, 6, 8, 10], dtype="float32")
    )
    assert found == Confidence(logprob=-3.0, logprob_lowest=-4.5, mean=6.0, tail=9.0, bottom=3.0, lowest=3.0)


def test_the_lowest_tenth_of_the_windows_is_averaged() -> None:
    # 28 tokens rising by 1: windows of 7, 22 of them with means 3 to 24; the lowest two are 3 and 4.
    found = summary(numpy.zeros(28), numpy.arange(28.0))
    assert found is not None
    assert (found.bottom, found.lowest, found.tail) == (3.5, 3.0, 24.0)


@pytest.mark.parametrize(("tokens", "window"), [(1, 1), (4, 1), (5, 2), (8191, 2048), (8192, 2048), (100_000, 2048)])
def test_windows_of_short_texts_are_a_quarter_of_them(tokens: int, window: int) -> None:
    assert window_length(tokens) == window


def test_no_token_has_no_confidence() -> None:
    assert summary(numpy.zeros(0), numpy.zeros(0)) is None


# --------------------------------------------------------------------------- the engine


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    return ModelRef(str(make_tiny_model(tmp_path_factory.mktemp("model"))))


def plain(model: Any, prompt: list[int], tokens: list[int]) -> dict[str, float]:
    """The numbers by their definitions, from one forward pass over the whole text."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0].double()
    rows = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    drawn = [float(row[token]) for row, token in zip(rows, tokens, strict=True)]
    sure = [-sum(sorted(row.tolist())[-20:]) / 20 for row in rows]
    window = math.ceil(len(tokens) / 4)
    places = range(len(tokens) - window + 1)
    windows = sorted(sum(sure[start : start + window]) / window for start in places)
    tenth = windows[: max(1, len(windows) // 10)]
    return {
        "logprob": sum(drawn) / len(drawn),
        "logprob_lowest": min(sum(drawn[start : start + window]) / window for start in places),
        "mean": sum(sure) / len(sure),
        "tail": sum(sure[-window:]) / window,
        "bottom": sum(tenth) / len(tenth),
        "lowest": windows[0],
    }


def test_numbers_of_sampled_rows_are_those_of_a_plain_forward_pass(ref: ModelRef) -> None:
    model, tokenizer = models.load_model(ref, device="cpu")
    prompts = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    rows = Rows(prompts, [*range(6), *range(6)], range(1, 13), [50] * 12)
    found = decode(model, rows, Sampling(2, 0.6, 50, top_p=0.8, top_k=40), [1], 0)
    assert len({len(one.tokens) for one in found}) > 3, "rows should leave the batch at different steps"
    for one, prompt in zip(found, rows.prompt_of, strict=True):
        assert one.confidence is not None
        assert asdict(one.confidence) == pytest.approx(plain(model, prompts[prompt], one.tokens), rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_a_completion_carries_the_numbers_of_its_tokens(ref: ModelRef) -> None:
    engine = HfEngine(HfEngine.Config(device="cpu", batch_size=4))
    drawn = [one for batch in engine.generate(ref, REQUESTS, Sampling(2, 0.0, 30), 3) for one in batch]
    engine.close()
    model, tokenizer = models.load_model(ref, device="cpu")
    assert len(drawn) == 12
    for one in drawn:
        ids = tokenizer(one.question_id)["input_ids"]
        tokens = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=30)[0, len(ids) :].tolist()
        assert one.confidence is not None
        assert asdict(one.confidence) == pytest.approx(plain(model, ids, tokens), rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_a_failed_completion_has_none(ref: ModelRef) -> None:
    engine = HfEngine(HfEngine.Config(device="cpu"))
    (batch,) = engine.generate(ref, [Request("long", "x" * 2000)], Sampling(1, 1.0, 4), 3)
    engine.close()
    assert (batch[0].failed, batch[0].confidence) == (True, None)
