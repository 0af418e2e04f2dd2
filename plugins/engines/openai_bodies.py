"""What the `openai` engine sends and reads: request bodies, answers, and errors told apart. Nothing is sent from here.

The fields are those of the API reference of OpenAI (chat completions, completions), with what vLLM, SGLang and
llama.cpp add to them: `top_k`, `chat_template_kwargs`, `reasoning_content`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nsd.plugins.api import Completion, Confidence, Request, Sampling, StopReason
from nsd.plugins.confidence import MOST_LIKELY, summary
from nsd.plugins.data import cut_at_stop
from nsd.plugins.engines.openai_server import Secret

# What nsd itself says in a body. Those of the second line may be left out by `extra_body: {NAME: null}`.
GIVEN = {"model", "prompt", "messages", "n", "stream", "seed", "max_tokens", "max_completion_tokens"}
MAY_BE_LEFT_OUT = {"temperature", "top_p", "top_k", "stop", "logprobs", "top_logprobs", "chat_template_kwargs"}

# What makes a request cost more than its prompt and `max_tokens` say, by which `max_dollars` and the plan count.
COSTS_MORE = {"best_of", "use_beam_search", "num_beams", "num_return_sequences", "candidate_count"}
COSTS_MORE |= {"n_predict", "max_new_tokens", "max_output_tokens"}

STOPPED = {"stop", "eos", "end_turn", "stop_sequence", "tool_calls", "function_call"}
CUT = {"length", "max_tokens", "model_length"}
REFUSED = {"content_filter": "the server's content filter ended the answer"}
GONE = {"abort", "aborted", "cancelled", "error"}  # the server gave up, as when it is restarted

_TOO_LONG = re.compile(
    r"context[ _-]?(length|size|window)|maximum (model|context|sequence) length|max_model_len|prompt is too long"
    r"|too many (input )?tokens|reduce the length",
    re.IGNORECASE,
)
_TOO_LONG_CODES = {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
_FILTERED = {"content_filter", "content_policy_violation"}
# 429 that no waiting ends.
_NO_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"}
_AGAIN = {408, 409, 425, 429}
LONGEST_SAID = 300
MOST_TOKENS = 2**31 - 1  # of one request, as the tables hold them
NO_SECRET = Secret()


class Invalid(Exception):
    """An answer that cannot be read; `tokens` are those it told all the same, `lasting` what another try has too."""

    def __init__(self, reason: str, tokens: Tokens | None = None, lasting: bool = False) -> None:
        super().__init__(reason)
        self.tokens, self.lasting = tokens, lasting


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of a request and its answer, as the server counts and bills them."""

    prompt: int
    completion: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion as it was read, what it took (None: not told), and how the model named itself."""

    completion: Completion
    tokens: Tokens | None
    answered_by: str | None


@dataclass(frozen=True, slots=True)
class Form:
    """How a body is made: the engine's config, as far as it says so."""

    model: str
    seeds: bool
    limit_field: Literal["max_tokens", "max_completion_tokens"]
    logprobs: bool
    reasoning: Literal["drop", "keep"]
    extra: Mapping[str, Any]


def path_of(request: Request) -> str:
    """Where a prompt is sent, below the base URL."""
    return "completions" if isinstance(request.prompt, str) else "chat/completions"


def body_of(form: Form, request: Request, sampling: Sampling, seed: int) -> dict[str, Any]:
    """The body of one sample's request. `seed` is taken modulo 2**31, which every server's type holds."""
    chat = not isinstance(request.prompt, str)
    body: dict[str, Any] = {"model": form.model, "messages" if chat else "prompt": request.prompt}
    body |= {form.limit_field: sampling.max_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if form.seeds:
        body["seed"] = seed % 2**31
    if form.logprobs:
        body |= {"logprobs": True, "top_logprobs": MOST_LIKELY} if chat else {"logprobs": MOST_LIKELY}
    if chat and request.chat_template_kwargs:
        body["chat_template_kwargs"] = dict(request.chat_template_kwargs)
    body |= form.extra
    return {name: value for name, value in body.items() if value is not None}


def most_prompt_tokens(prompt: str | Sequence[Mapping[str, str]]) -> int:
    """As many tokens as a prompt can have: one a byte, and what a template adds."""
    if isinstance(prompt, str):
        return len(prompt.encode("utf-8", "surrogatepass")) + 8
    return sum(len(one["content"].encode("utf-8", "surrogatepass")) + 32 for one in prompt) + 256


def likely_prompt_tokens(prompt: str | Sequence[Mapping[str, str]]) -> int:
    """About as many tokens as a prompt has: four characters each."""
    texts = [prompt] if isinstance(prompt, str) else [one["content"] for one in prompt]
    return sum(len(text) // 4 + 4 for text in texts)


# --------------------------------------------------------------------------- answers


def tokens_of(found: Any) -> Tokens | None:
    """What a body says of its tokens, None where it says nothing that can be so."""
    usage = found.get("usage") if isinstance(found, dict) else None
    if not isinstance(usage, dict):
        return None
    counts = [usage.get("prompt_tokens"), usage.get("completion_tokens", 0)]
    if any(isinstance(one, bool) or not isinstance(one, int) or not 0 <= one <= MOST_TOKENS for one in counts):
        return None
    return Tokens(*counts)


def read_answer(
    found: Any, form: Form, request: Request, sample: int, sampling: Sampling, secret: Secret = NO_SECRET
) -> Answer:
    """The completion in a body, without the secret in any text. Raises Invalid for a body without one."""
    tokens = tokens_of(found)
    choices = found.get("choices") if isinstance(found, dict) else None
    if isinstance(choices, list) and len(choices) > 1:
        raise Invalid(f"the answer has {len(choices)} choices, and one was asked for", tokens, lasting=True)
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise Invalid(f"the answer has {said_in(found, secret) or 'no choices'}", tokens)
    choice = choices[0]
    chat = not isinstance(request.prompt, str)
    message = choice.get("message") if chat else choice
    if not isinstance(message, dict):
        raise Invalid("the answer has no message", tokens)
    text = message.get("content") if chat else message.get("text")
    finish = choice.get("finish_reason")
    if not isinstance(finish, str) or not (text is None or isinstance(text, str)):
        raise Invalid("the answer has no finish_reason" if isinstance(text, str) else "the answer has no text", tokens)
    if finish in GONE:
        raise Invalid(f"the server gave the answer up ({finish})", tokens)
    text = text or ""
    thought = message.get("reasoning_content") or message.get("reasoning")
    if form.reasoning == "keep" and isinstance(thought, str) and thought:
        text = f"<think>\n{thought}\n</think>\n\n{text}"
    text = secret.out_of_answer(text)
    count = 0 if tokens is None else tokens.completion
    by = _name(found, secret)
    if finish not in STOPPED | CUT:
        reason = REFUSED.get(finish, f"the answer ended by {secret.out_of(finish)[:80]!r}")
        return Answer(Completion(request.question_id, sample, text, count, StopReason.ERROR, reason), tokens, by)
    text, stopped = cut_at_stop(text, sampling.stop)
    end = StopReason.STOP if stopped or finish in STOPPED else StopReason.LENGTH
    confidence = _confidence(choice.get("logprobs"), chat) if form.logprobs else None
    completion = Completion(request.question_id, sample, text, count, end, confidence=confidence)
    return Answer(completion, tokens, by)


def _name(found: Mapping[str, Any], secret: Secret) -> str | None:
    model, print_ = found.get("model"), found.get("system_fingerprint")
    if not isinstance(model, str):
        return None
    return secret.out_of(f"{model} ({print_})" if isinstance(print_, str) and print_ else model)


def _confidence(found: Any, chat: bool) -> Confidence | None:
    """How sure the model was, where the answer has as many log-probabilities of each token as that takes."""
    import numpy

    try:
        if chat:
            drawn = [float(one["logprob"]) for one in found["content"]]
            likely = [[float(top["logprob"]) for top in one["top_logprobs"]] for one in found["content"]]
        else:
            drawn = [float(one) for one in found["token_logprobs"]]
            likely = [[float(top) for top in one.values()] for one in found["top_logprobs"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    # Of a completion some servers name the drawn token beside the most likely ones.
    likely = [sorted(one, reverse=True)[:MOST_LIKELY] for one in likely]
    if len(drawn) != len(likely) or any(len(one) < MOST_LIKELY for one in likely):
        return None
    surely = [-sum(one) / len(one) for one in likely]
    numbers = numpy.asarray([drawn, surely], dtype=numpy.float64)
    return summary(numbers[0], numbers[1]) if numpy.isfinite(numbers).all() else None


# --------------------------------------------------------------------------- errors


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an answer with another status than 200 means.

    `again`: another try may do better. `question`: it is about this prompt alone, whose completion has failed. Else
    nothing else will do better either. `worked`: the server may have computed, and billed, an answer that was lost.
    """

    reason: str
    again: bool = False
    question: bool = False
    worked: bool = False


def refusal(status: int, found: Any, secret: Secret = NO_SECRET) -> Refusal:
    """What a status says; `found` is the body, read as JSON where it is that, else as text."""
    said, code = said_in(found, secret), _code(found)
    reason = f"{status}: {said}" if said else str(status)
    if status == 429 and code & _NO_MONEY:
        return Refusal(reason)
    if status in _AGAIN or status >= 500:
        return Refusal(reason, again=True, worked=status == 408 or status >= 500)
    too_long = status == 413 or bool(code & _TOO_LONG_CODES) or bool(_TOO_LONG.search(said))
    if status in (400, 413, 422) and (too_long or code & _FILTERED):
        return Refusal(reason, question=True)
    return Refusal(reason)


def said_in(found: Any, secret: Secret = NO_SECRET) -> str:
    """What a body says went wrong, in one line, the secret masked before it is cut; "" where it says nothing."""
    if isinstance(found, dict):
        error = found.get("error", found.get("detail", found.get("message", "")))
        found = error.get("message", error) if isinstance(error, dict) else error
    try:
        text = " ".join(secret.out_of(str(found or "")).split())
    except RecursionError:
        text = "lists in lists, too many to read"
    return text if len(text) <= LONGEST_SAID else text[: LONGEST_SAID - 3] + "..."


def _code(found: Any) -> set[str]:
    error = found.get("error", found) if isinstance(found, dict) else None
    return {str(error.get(name)) for name in ("code", "type")} if isinstance(error, dict) else set()
