"""How a prompt becomes token ids, the same wherever a model reads one: training, sampling, evaluation, counting.

    prompt_ids(tokenizer, prompt, template_kwargs)   a plain text, or a chat by the model's own template
    prompt_text(tokenizer, prompt, template_kwargs)  the same as text
    turn_end(tokenizer, template_kwargs)             the token by which the template ends an answer
    training_ids(tokenizer, chat, target, end, template_kwargs)  a chat with the answer to imitate, and where it begins

A chat is rendered with the beginning of the assistant's turn, and the text is tokenized without the tokenizer's own
special tokens, for a template writes its BOS itself. What is trained on is that prompt, the target's tokens and the end
of the turn: the very sequence that the model would have drawn. The template does not render the target, since several
do not render an answer as the model writes it: Qwen3's puts an empty thought in front of it or takes a thought out of
it, Llama 3's cuts blanks off, and a prompt may then be no beginning of what is trained on.

Limits: text alone (no images, no tools); one answer after the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nsd.plugins.errors import InputError

Chat = Sequence[Mapping[str, str]]  # turns, each with role and content
_PLACEHOLDER = "ANSWER"


def prompt_ids(tokenizer: Any, prompt: str | Chat, template_kwargs: Mapping[str, Any] | None = None) -> list[int]:
    """Token ids of a prompt: a plain one as the tokenizer does it (with BOS where it sets one), a chat by its template.

    Raises InputError where a chat meets a model without a chat template, and whatever a template raises.
    """
    text = prompt_text(tokenizer, prompt, template_kwargs)
    return list(tokenizer(text)["input_ids"]) if isinstance(prompt, str) else _ids(tokenizer, text)


def prompt_text(tokenizer: Any, prompt: str | Chat, template_kwargs: Mapping[str, Any] | None = None) -> str:
    """The text that is tokenized: a plain prompt as it stands, a chat by its template. Raises as `prompt_ids`."""
    if isinstance(prompt, str):
        return prompt
    return _rendered(tokenizer, prompt, template_kwargs, add_generation_prompt=True)


def training_ids(
    tokenizer: Any, prompt: Chat, target: str, end: int | None, template_kwargs: Mapping[str, Any] | None = None
) -> tuple[list[int], int]:
    """Token ids of a chat with its answer and the end of the turn, and how many of them are the prompt's.

    `end` is what `turn_end` found; where that is None the tokenizer's end token ends the turn.
    """
    asked = prompt_ids(tokenizer, prompt, template_kwargs)
    return [*asked, *_ids(tokenizer, target), tokenizer.eos_token_id if end is None else end], len(asked)


def turn_end(tokenizer: Any, template_kwargs: Mapping[str, Any] | None = None) -> int | None:
    """The special token that the template writes right after an answer; None where it writes none, or is none itself.

    It need not be the tokenizer's end token: a base model of Qwen2.5 ends texts with <|endoftext|>, and its template
    ends turns with <|im_end|>.
    """
    turns = [{"role": "user", "content": "Question?"}, {"role": "assistant", "content": _PLACEHOLDER}]
    if tokenizer.chat_template is None:
        return None
    try:
        text = _rendered(tokenizer, turns, template_kwargs, add_generation_prompt=False)
    except Exception:  # a template may refuse these turns; nothing is known of its end then
        return None
    _, found, after = text.rpartition(_PLACEHOLDER)
    ids = _ids(tokenizer, after) if found else []
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return ids[0] if ids and ids[0] in special | set(tokenizer.all_special_ids) else None


def _rendered(
    tokenizer: Any, turns: Chat, template_kwargs: Mapping[str, Any] | None, add_generation_prompt: bool
) -> str:
    if tokenizer.chat_template is None:
        raise InputError("the prompt is a chat and the model has no chat template: set prompt.chat to false")
    given = dict(template_kwargs or {})
    return str(
        tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt, **given)
    )


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
