"""What is asked of a model and what its answers are read with: what the engines that hold weights have in common.

prompts, why = tokenize(requests, asked)
errors = refused(why, sampling.n, done)
texts = decoded_texts(asked.tokenizer, [[5, 6], [7]])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from nsd.plugins.api import Completion, Request, Sampling, StopReason
from nsd.plugins.chat import prompt_ids, turn_end
from nsd.plugins.errors import InputError


@dataclass(frozen=True)
class Asked:
    """What a decode loop needs to know of a model beside its weights; `context` in tokens, None where it has no end."""

    tokenizer: Any
    end_ids: list[int]
    context: int | None
    vocabulary: int


Kind = TypeVar("Kind", bound=Asked)


@dataclass(frozen=True)
class AskedPrompt:
    """A question's prompt as token ids, and the sample that is wanted first."""

    question_id: str
    ids: list[int]
    first: int = 0


def check(requests: Sequence[Request], sampling: Sampling, engine: str) -> None:
    """Raise InputError for sampling values that no engine takes, and for question ids that repeat."""
    if sampling.n < 1 or sampling.max_tokens < 1 or sampling.temperature < 0:
        raise InputError(
            f"engine {engine}: n and max_tokens must be at least 1 and temperature at least 0, not {sampling}"
        )
    if not 0 < sampling.top_p <= 1 or sampling.top_k < 0:
        raise InputError(f"engine {engine}: top_p must be in (0, 1] and top_k at least 0, not {sampling}")
    if not all(sampling.stop):
        raise InputError(f"engine {engine}: a stop string is empty, and every text holds it")
    seen: set[str] = set()
    for request in requests:
        if request.question_id in seen:
            raise InputError(
                f"engine {engine}: question {request.question_id} is asked twice; question ids must differ"
            )
        seen.add(request.question_id)


def all_done(requests: Sequence[Request], sampling: Sampling, done: AbstractSet[tuple[str, int]]) -> bool:
    """Whether nothing is left to draw, and no model need be loaded."""
    return all((one.question_id, sample) in done for one in requests for sample in range(one.first, sampling.n))


def asked_of(config: Any, generation_config: Any, tokenizer: Any, vocabulary: int) -> Asked:
    """What is to be known of a model. End tokens: the checkpoint's list and the tokenizer's own."""
    listed = getattr(generation_config, "eos_token_id", None)
    ends = {*(listed if isinstance(listed, list) else [listed]), tokenizer.eos_token_id} - {None}
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    return Asked(tokenizer=tokenizer, end_ids=sorted(ends), context=context, vocabulary=vocabulary)


def with_turn_end(asked: Kind, template_kwargs: Mapping[str, Any] | None) -> Kind:
    """The same model with the end of its chat template's turns among its end tokens."""
    end = turn_end(asked.tokenizer, template_kwargs)
    return asked if end is None else replace(asked, end_ids=sorted({*asked.end_ids, end}))


def ends_of(asked: Kind, requests: Sequence[Request]) -> Kind:
    """The same model with the end of its template's turns among its end tokens, where a prompt is a chat."""
    chat = next((request for request in requests if not isinstance(request.prompt, str)), None)
    return asked if chat is None else with_turn_end(asked, chat.chat_template_kwargs)


def tokenize(requests: Sequence[Request], asked: Asked) -> tuple[list[AskedPrompt], dict[str, str]]:
    """Token ids of every prompt, and why the others were refused, by question id."""
    prompts: list[AskedPrompt] = []
    why: dict[str, str] = {}
    for request in requests:
        try:
            ids = prompt_ids(asked.tokenizer, request.prompt, request.chat_template_kwargs)
        except InputError:
            raise
        except Exception as error:  # a chat template may refuse a message, a tokenizer may lack a character
            why[request.question_id] = f"the prompt could not be tokenized: {type(error).__name__}: {error}"
            continue
        if not ids:
            why[request.question_id] = "the prompt has no tokens"
        elif asked.context is not None and len(ids) >= asked.context:
            why[request.question_id] = (
                f"the prompt has {len(ids)} tokens and the model's context {asked.context}: no room for a completion"
            )
        elif max(ids) >= asked.vocabulary:
            why[request.question_id] = f"token {max(ids)} of the prompt has no embedding in the model"
        else:
            prompts.append(AskedPrompt(request.question_id, ids, request.first))
    return prompts, why


def refused(why: Mapping[str, str], samples: int, done: AbstractSet[tuple[str, int]]) -> list[Completion]:
    """The failed completions of prompts that a model cannot take."""
    return [
        Completion(question, sample, "", 0, StopReason.ERROR, reason)
        for question, reason in why.items()
        for sample in range(samples)
        if (question, sample) not in done
    ]


def decoded_texts(tokenizer: Any, tokens: Sequence[Sequence[int]]) -> list[str]:
    """What was written, as text; end tokens and other special ones have none."""
    return list(tokenizer.batch_decode([list(one) for one in tokens], skip_special_tokens=True))
