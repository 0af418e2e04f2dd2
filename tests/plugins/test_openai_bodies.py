"""What the `openai` engine reads of an answer and of an error, case by case."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest

from nsd.plugins.api import Request, Sampling, StopReason
from nsd.plugins.engines.openai_bodies import (
    Form,
    Invalid,
    Tokens,
    most_prompt_tokens,
    read_answer,
    refusal,
    said_in,
    tokens_of,
)

PLAIN = Request("q", "two?")
CHAT = Request("q", [{"role": "user", "content": "two?"}])
SAMPLING = Sampling(1, 1.0, 9, stop=("\n\n",))


def form(logprobs: bool = False, reasoning: Literal["drop", "keep"] = "drop") -> Form:
    return Form("toy", True, "max_tokens", logprobs, reasoning, {})


def body(finish: Any = "stop", text: Any = "four", **more: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return {"choices": [{"text": text, "finish_reason": finish, **more}], "usage": usage}


@pytest.mark.parametrize(
    ("finish", "end"),
    [
        ("stop", StopReason.STOP),
        ("eos", StopReason.STOP),
        ("tool_calls", StopReason.STOP),
        ("length", StopReason.LENGTH),
        ("max_tokens", StopReason.LENGTH),
        ("content_filter", StopReason.ERROR),
        ("boredom", StopReason.ERROR),
    ],
)
def test_why_an_answer_ended(finish: str, end: StopReason) -> None:
    answer = read_answer(body(finish), form(), PLAIN, 4, SAMPLING)
    completion = answer.completion
    assert (completion.stop_reason, completion.sample, completion.text, completion.tokens) == (end, 4, "four", 2)
    assert (completion.error is not None) == (end is StopReason.ERROR)
    assert answer.tokens == Tokens(3, 2)


@pytest.mark.parametrize("finish", [None, "abort", "error", 3])
def test_an_answer_that_did_not_end_is_none_and_tells_its_tokens(finish: Any) -> None:
    with pytest.raises(Invalid) as raised:
        read_answer(body(finish), form(), PLAIN, 0, SAMPLING)
    assert raised.value.tokens == Tokens(3, 2)


@pytest.mark.parametrize("found", [None, [], "text", {}, {"choices": []}, {"choices": [3]}, {"choices": [{}, {}]}])
def test_what_is_no_answer_is_none(found: Any) -> None:
    with pytest.raises(Invalid):
        read_answer(found, form(), PLAIN, 0, SAMPLING)


def test_a_text_ends_before_a_stop_string_that_the_server_left_in() -> None:
    completion = read_answer(body("length", "four\n\nand more"), form(), PLAIN, 0, SAMPLING).completion
    assert (completion.text, completion.stop_reason) == ("four", StopReason.STOP)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_what_a_model_thought_is_left_out_or_stands_in_tags(name: str) -> None:
    found = body(message={"content": "four", name: "2 and 2"})
    assert read_answer(found, form(), CHAT, 0, SAMPLING).completion.text == "four"
    kept = read_answer(found, form(reasoning="keep"), CHAT, 0, Sampling(1, 1.0, 9)).completion
    assert kept.text == "<think>\n2 and 2\n</think>\n\nfour"


def test_an_answer_without_content_has_no_text() -> None:
    found = body("length", message={"content": None, "reasoning_content": "long"})
    assert read_answer(found, form(), CHAT, 0, SAMPLING).completion.text == ""


def test_how_the_model_named_itself() -> None:
    named = {**body(), "model": "toy-2026", "system_fingerprint": "fp_1"}
    assert read_answer(named, form(), PLAIN, 0, SAMPLING).answered_by == "toy-2026 (fp_1)"
    assert read_answer(body(), form(), PLAIN, 0, SAMPLING).answered_by is None


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": -1}, {"prompt_tokens": True}, {"prompt_tokens": 1.5}, {"prompt_tokens": "3"}]
)
def test_counts_that_cannot_be_are_not_told(usage: Any) -> None:
    assert tokens_of({"usage": usage}) is None


# Twenty equally likely tokens but the drawn one: log-probabilities -1 (drawn) and -3 (the other nineteen).
LIKELY = [-1.0] + [-3.0] * 19
SURE = (1 + 19 * 3) / 20  # minus the mean of the twenty


def test_confidences_are_those_of_the_twenty_most_likely_tokens() -> None:
    tops = [{"logprob": one} for one in LIKELY]
    chat = body(message={"content": "x"}, logprobs={"content": [{"logprob": -1.0, "top_logprobs": tops}] * 3})
    plain_tops = {f"t{number}": one for number, one in enumerate([*LIKELY, -9.0])}  # and the drawn one beside them
    plain = body(logprobs={"token_logprobs": [-1.0] * 3, "top_logprobs": [plain_tops] * 3})
    for found, request in ((chat, CHAT), (plain, PLAIN)):
        sure = read_answer(found, form(logprobs=True), request, 0, SAMPLING).completion.confidence
        assert sure is not None
        assert (sure.logprob, sure.logprob_lowest) == (-1.0, -1.0)
        assert all(math.isclose(one, SURE) for one in (sure.mean, sure.tail, sure.bottom, sure.lowest))
        assert read_answer(found, form(), request, 0, SAMPLING).completion.confidence is None


@pytest.mark.parametrize(
    "logprobs",
    [None, {}, {"token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}]}, {"token_logprobs": None}, {"content": None}],
)
def test_fewer_log_probabilities_give_no_confidence(logprobs: Any) -> None:
    found = body(logprobs=logprobs)
    assert read_answer(found, form(logprobs=True), PLAIN, 0, SAMPLING).completion.confidence is None


# As vLLM, llama.cpp, SGLang and OpenAI say it.
TOO_LONG: list[tuple[int, Any]] = [
    (400, {"object": "error", "message": "This model's maximum context length is 2048 tokens. However, you requested"}),
    (
        400,
        {"error": {"message": "the request exceeds the available context size", "type": "exceed_context_size_error"}},
    ),
    (400, {"error": {"message": "The input (900 tokens) is longer than the model's context length (512 tokens)."}}),
    (400, {"error": {"message": "too long", "code": "context_length_exceeded"}}),
    (413, "Payload Too Large"),
    (400, {"error": {"message": "no", "code": "content_filter"}}),
]


@pytest.mark.parametrize(("status", "found"), TOO_LONG)
def test_a_refusal_of_one_prompt_is_told_from_others(status: int, found: Any) -> None:
    refused = refusal(status, found)
    assert refused.question and not refused.again


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_pass(status: int) -> None:
    assert refusal(status, "").again


@pytest.mark.parametrize(("status", "code"), [(400, None), (401, None), (404, None), (429, "insufficient_quota")])
def test_what_does_not_pass(status: int, code: str | None) -> None:
    refused = refusal(status, {"error": {"message": "no", "code": code}})
    assert not refused.again and not refused.question


def test_what_a_body_says_is_one_short_line() -> None:
    assert said_in({"detail": "Not\n Found"}) == "Not Found"
    assert len(said_in("x" * 999)) == 300


def test_a_prompt_has_no_more_tokens_than_bytes_and_its_template() -> None:
    assert most_prompt_tokens("größer") >= len("größer".encode())
    assert most_prompt_tokens([{"role": "user", "content": "x" * 50}]) > 50
