"""What the teacher of a self-distillation reads: the student's prompt with privileged text in it.

    sdpo_inputs(rollouts, rewards, groups, prompts, tokenizer, how)   another rollout that succeeded, or feedback
    pcsd_inputs(prompts, contexts, tokenizer, max_len)                a text given for each prompt
    privileged_text(examples, "solution", seed)                       such texts: the solution, or another question's

A teacher's input ends where the student's does, before the response: with the beginning of the assistant's turn, or
with the plain prompt. The student's own response tokens follow in both. Teacher and student differ by the inserted text
alone, for both go through plugins/chat.py.

SDPO (arXiv 2601.20802, README of lasgroup/SDPO): the last turn becomes `{prompt}{solution}{feedback}` and a request,
the turns before it stay. PCSD (hongyi-zhang/verl): the last turn gets a line end and the privileged text behind it. A
plain prompt is treated as such a turn, so that the inserted text stands behind a prompt's `Solution:` too, as the
templates have it.

What is too long loses privileged text, and never the question or the beginning of the assistant's turn; the published
code cuts the end of the whole input, TRL 1.16 its beginning. Pure functions: no model and no torch.
Limit: text that looks like a special token of the tokenizer becomes one, in the question as in what is inserted.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, model_validator

from nsd.plugins.chat import Chat, prompt_ids, prompt_text
from nsd.plugins.config import PluginConfig
from nsd.plugins.data import Example, Rollout
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.seeds import stream

Truncation = Literal["right", "left", "error"]

_PLACEHOLDERS = {
    "reprompt": ("prompt", "solution", "feedback"),
    "solution": ("successful_previous_attempt",),
    "feedback": ("feedback_raw",),
}


class Templates(PluginConfig):
    """The words around what is inserted. A placeholder is filled once; all other braces stay as they are."""

    reprompt: str = Field(
        default="{prompt}{solution}{feedback}\n\nCorrectly solve the original question.",
        description="The teacher's user turn, with {prompt}, {solution} and {feedback}.",
    )
    solution: str = Field(
        default="\nCorrect solution:\n\n{successful_previous_attempt}",
        description="What stands for {solution} where a rollout of the question succeeded.",
    )
    feedback: str = Field(
        default="\nThe following is feedback from your unsuccessful earlier attempt:\n\n{feedback_raw}",
        description="What stands for {feedback} where the rollout's verdict has some.",
    )

    @model_validator(mode="after")
    def _every_placeholder(self) -> Templates:
        for name, placeholders in _PLACEHOLDERS.items():
            for placeholder in placeholders:
                if getattr(self, name).count(f"{{{placeholder}}}") != 1:
                    raise ValueError(f"{name} should have {{{placeholder}}} once: what belongs there is lost otherwise")
        return self


@dataclass(frozen=True)
class Reprompting:
    """SDPO's options of the teacher's input, under the names and with the defaults of its README.

    `dont_reprompt_on_self_success`: a rollout is no demonstration for itself, however right it is; without it the first
    success of the question is everybody's, its own author's too. `environment_feedback_only_without_solution`: feedback
    is used where there is no demonstration.
    """

    success_reward_threshold: float = 1.0
    dont_reprompt_on_self_success: bool = True
    remove_thinking_from_demonstration: bool = True
    include_environment_feedback: bool = True
    environment_feedback_only_without_solution: bool = True
    max_reprompt_len: int = 10240
    reprompt_truncation: Truncation = "right"
    templates: Templates = field(default_factory=Templates)


@dataclass(frozen=True)
class TeacherInput:
    """What the teacher reads before the response. `ids` None: it knows no more than the student, and the sample is
    masked out of the loss.

    `text` is the same as it was tokenized. `has_solution` and `has_feedback` say what was inserted, `cut` that some or
    all of it was left out for its length.
    """

    ids: list[int] | None
    text: str | None = None
    has_solution: bool = False
    has_feedback: bool = False
    cut: bool = False


# --------------------------------------------------------------------------- SDPO


def sdpo_inputs(
    rollouts: Sequence[Rollout],
    rewards: Sequence[float],
    groups: Sequence[Hashable],
    prompts: Sequence[str | Chat],
    tokenizer: Any,
    how: Reprompting = Reprompting(),
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[TeacherInput]:
    """The teacher's input for each rollout: with a demonstration, or feedback, or masked.

    Args:
        rollouts: of one step, all of a question's among them.
        rewards: of each rollout, what `success_reward_threshold` is compared with.
        groups: of each rollout, what it shares with the others of its question alone.
        prompts: of each rollout, what the student read.

    Raises:
        StageFailed: an input is too long and `reprompt_truncation` is "error".
        InputError: a chat meets a model without a chat template.
    """
    given = list(zip(rollouts, rewards, groups, prompts, strict=True))
    successes: dict[Hashable, list[tuple[int, str]]] = {}
    for index, (rollout, reward, group, _) in enumerate(given):
        if reward >= how.success_reward_threshold:
            text = without_thinking(rollout.text) if how.remove_thinking_from_demonstration else rollout.text
            if text.strip():  # a thought alone demonstrates nothing
                successes.setdefault(group, []).append((index, text))
    made = []
    for index, (rollout, _, group, prompt) in enumerate(given):
        others = (
            text for place, text in successes.get(group, []) if place != index or not how.dont_reprompt_on_self_success
        )
        solution = next(others, "")
        feedback = _feedback(rollout, how, bool(solution))
        made.append(_reprompted(prompt, solution, feedback, tokenizer, how, chat_template_kwargs))
    return made


def _feedback(rollout: Rollout, how: Reprompting, has_solution: bool) -> str:
    """The feedback of the rollout's own verdict, "" where none is to be used."""
    if not how.include_environment_feedback or (has_solution and how.environment_feedback_only_without_solution):
        return ""
    feedback = rollout.score.feedback or ""
    return feedback if feedback.strip() else ""


def _reprompted(
    prompt: str | Chat,
    solution: str,
    feedback: str,
    tokenizer: Any,
    how: Reprompting,
    chat_template_kwargs: Mapping[str, Any] | None,
) -> TeacherInput:
    if not solution and not feedback:
        return TeacherInput(None)
    words = how.templates

    def turn(content: str, pieces: Sequence[str]) -> str:
        solution, feedback = pieces
        return filled(
            words.reprompt,
            prompt=content,
            solution=filled(words.solution, successful_previous_attempt=solution) if solution else "",
            feedback=filled(words.feedback, feedback_raw=feedback) if feedback else "",
        )

    reading = _Reading(prompt, tokenizer, chat_template_kwargs, turn)
    pieces, cut = _fitting(reading, [solution, feedback], how.max_reprompt_len, how.reprompt_truncation)
    if not any(pieces):
        return TeacherInput(None, cut=cut)
    return TeacherInput(reading.ids(pieces), reading.text(pieces), bool(pieces[0]), bool(pieces[1]), cut)


def filled(template: str, **values: str) -> str:
    """The template with its placeholders filled in one pass: what a value holds is never taken for a placeholder."""
    return re.sub(r"\{(" + "|".join(values) + r")\}", lambda found: values[found[1]], template)


def without_thinking(text: str) -> str:
    """A response without its thoughts, `<think>...</think>` and the white space behind each.

    A thought that the generation prompt began has its end alone, and goes from the beginning of the text; one that
    never ends goes to the end of the text. The published code leaves both in.
    """
    text = re.sub(r"<think>.*?</think>\s*", "", text, flags=re.DOTALL)
    _, _, after = text.rpartition("</think>")
    text = after.lstrip() if after != text else text
    return text.partition("<think>")[0]


# --------------------------------------------------------------------------- PCSD


def pcsd_inputs(
    prompts: Sequence[str | Chat],
    contexts: Sequence[str | None],
    tokenizer: Any,
    max_len: int | None = None,
    truncation: Truncation = "right",
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[TeacherInput]:
    """The teacher's input for each prompt: a line end and the privileged context behind the student's user turn.

    Without a context (None, blank, or cut to nothing) it is the student's own input, so that both distributions are the
    same. None is masked. Raises as `sdpo_inputs`; `max_len` counts tokens, None sets no bound.
    """
    made = []
    for prompt, context in zip(prompts, contexts, strict=True):
        reading = _Reading(
            prompt,
            tokenizer,
            chat_template_kwargs,
            lambda content, pieces: f"{content}\n{pieces[0]}" if pieces[0] else content,
        )
        known = context if context is not None and context.strip() else ""
        pieces, cut = _fitting(reading, [known], max_len, truncation, ("max_teacher_len", "truncation"))
        made.append(TeacherInput(reading.ids(pieces), reading.text(pieces), has_solution=bool(pieces[0]), cut=cut))
    return made


def privileged_text(
    examples: Sequence[Example], kind: Literal["solution", "other_question"], seed: int
) -> list[str | None]:
    """The privileged context of each example; None for one without.

    `solution` is the text that an example is known to be solved by: the gold solution of a labeled question, the voted
    completion of a pseudo-labeled one; a question whose truth is hidden has none. `other_question` is the same of
    another question, never of one with the same id: each question's text goes to one other, by a circle drawn from the
    seed, and an example without a text of its own gets none.

    Raises InputError where `other_question` meets less than two questions with a text.
    """
    own = [_known_solution(example) for example in examples]
    if kind == "solution":
        return own
    by_question: dict[str, str] = {}
    for example, text in zip(examples, own, strict=True):
        if text is not None:
            by_question.setdefault(example.question.id, text)
    circle = sorted(by_question, key=lambda one: (stream(seed, "other_question", one), one))
    if len(circle) < 2:
        raise InputError(
            f"trainer.privileged: other_question needs two questions with a solution, and there are {len(circle)}"
        )
    text_for = {one: by_question[other] for one, other in zip(circle, [*circle[1:], circle[0]], strict=True)}
    return [
        None if text is None else text_for[example.question.id] for example, text in zip(examples, own, strict=True)
    ]


def _known_solution(example: Example) -> str | None:
    if example.source in ("questions", "test_questions") or example.target is None:
        return None
    return example.target if example.target.strip() else None


# --------------------------------------------------------------------------- length


@dataclass(frozen=True)
class _Reading:
    """An input as a function of the inserted pieces: `turn(content, pieces)` is the last turn."""

    prompt: str | Chat
    tokenizer: Any
    chat_template_kwargs: Mapping[str, Any] | None
    turn: Callable[[str, Sequence[str]], str]

    def _with(self, pieces: Sequence[str]) -> str | Chat:
        if isinstance(self.prompt, str):
            return self.turn(self.prompt, pieces)
        *before, last = self.prompt
        return [*before, {**last, "content": self.turn(last["content"], pieces)}]

    def ids(self, pieces: Sequence[str]) -> list[int]:
        return prompt_ids(self.tokenizer, self._with(pieces), self.chat_template_kwargs)

    def text(self, pieces: Sequence[str]) -> str:
        return prompt_text(self.tokenizer, self._with(pieces), self.chat_template_kwargs)


def _fitting(
    reading: _Reading,
    pieces: Sequence[str],
    max_len: int | None,
    truncation: Truncation,
    names: tuple[str, str] = ("max_reprompt_len", "reprompt_truncation"),
) -> tuple[list[str], bool]:
    """The pieces as far as they fit, and whether something had to go.

    "right" takes tokens from the end of the last piece, then of the one before; "left" from the beginning of the first.
    A piece of which nothing is left goes with the words around it. `names` are the trainer's fields of both bounds.
    """
    left = list(pieces)
    if max_len is None or not any(left):
        return left, False
    over = len(reading.ids(left)) - max_len
    if over > 0 and truncation == "error":
        raise StageFailed(
            f"a teacher's input has {over + max_len} tokens and trainer.{names[0]} is {max_len}: raise it, or "
            f"cut the inserted text with trainer.{names[1]}: right or left"
        )
    for place in range(len(left)) if truncation == "left" else reversed(range(len(left))):
        parts = _parts(left[place], reading.tokenizer)
        while over > 0 and left[place]:
            while over > 0 and parts:
                _, tokens = parts.popleft() if truncation == "left" else parts.pop()
                over -= tokens
            left[place] = "".join(part for part, _ in parts)
            # A join may make a token more or less, so what is left is counted again.
            over = len(reading.ids(left)) - max_len
    return left, left != list(pieces)


def _parts(text: str, tokenizer: Any) -> deque[tuple[str, int]]:
    """The text in parts of whole characters, as small as its tokens allow, each with how many tokens it is.

    A tokenizer that cannot tell has every character for a token, and is asked again more often.
    """
    if not getattr(tokenizer, "is_fast", False):
        return deque((character, 1) for character in text)
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    tokens = Counter(end for _, end in spans)
    ends = sorted({0, len(text), *tokens})
    return deque((text[start:end], tokens[end]) for start, end in pairwise(ends))
