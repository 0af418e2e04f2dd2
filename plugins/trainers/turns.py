"""What a model reads that is told what was wrong with its attempts so far: the question and the feedback, no attempt.

    prompt, shown = next_turn(prompt, feedback, tokenizer, room)

The words are those by which SDPO's teacher reads feedback (teacher_inputs.py), the one on each attempt after the other
in the order of the attempts. Where the prompt has more tokens than there is room, the oldest feedback is left out. An
attempt whose verdict says nothing leaves nothing. Pure: no model and no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nsd.plugins.chat import Chat, prompt_ids
from nsd.plugins.trainers.teacher_inputs import Templates, filled


def next_turn(
    prompt: str | Chat,
    feedback: Sequence[str | None],
    tokenizer: Any,
    room: int,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    templates: Templates = Templates(),
) -> tuple[str | Chat, int]:
    """The prompt with as much of the newest feedback as there is room for, and how many attempts' feedback it holds.

    `feedback` is in the order of the attempts; `room` counts the tokens of the whole prompt, which is never cut: with
    no room for any feedback it is the plain one.
    """
    said = [one for one in feedback if one is not None and one.strip()]
    few, many = 0, len(said)  # the most that fit, by halving: more feedback never takes fewer tokens
    while few < many:
        middle = (few + many + 1) // 2
        asked = _with(prompt, said[len(said) - middle :], templates)
        if len(prompt_ids(tokenizer, asked, chat_template_kwargs)) <= room:
            few = middle
        else:
            many = middle - 1
    return _with(prompt, said[len(said) - few :], templates), few


def _with(prompt: str | Chat, said: Sequence[str], words: Templates) -> str | Chat:
    if not said:
        return prompt
    told = "".join(filled(words.feedback, feedback_raw=one) for one in said)
    if isinstance(prompt, str):
        return filled(words.reprompt, prompt=prompt, solution="", feedback=told)
    *before, last = prompt
    return [*before, {**last, "content": filled(words.reprompt, prompt=last["content"], solution="", feedback=told)}]
