"""Makes the embedded model `codepuzzles-1m` again, from random weights, on a CPU.

    python -m nsd.plugins.embedded.code_recipe --out DIR [--steps N] [--threads 1]

The same transformer as `wordmath-1m` (recipe.py) learns to write the programs of `code_puzzles`. Two things about its
corpus are on purpose. It tells steps in their plain wordings alone, so the model guesses where it meets another one,
and has something to learn. And it holds prompts as a self-distillation's teacher reads them (teacher_inputs.py): with a
correct program, or with what the verdict said of a wrong one. In these, and in some that have neither, words without
meaning stand for a step, so that the step can be told from what was added, and no other wording is given away.

Nothing of the dataset's default pools is in the corpus (compared by question id). What repeats: see recipe.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nsd.plugins.data import question_id
from nsd.plugins.datasets.code_puzzles import CodePuzzles
from nsd.plugins.datasets.code_puzzles_operations import OPERATIONS, Step
from nsd.plugins.datasets.code_puzzles_tasks import Program, Puzzle, UnfitError, agrees, fenced, puzzle, run
from nsd.plugins.datasets.wordmath_stories import Draw
from nsd.plugins.embedded.recipe import END, GIVEN_WEIGHT, Text, arguments, make, tokenizer_of
from nsd.plugins.seeds import stream
from nsd.plugins.trainers.teacher_inputs import Templates

SEED = 21
STEPS = 550
LEVELS = {1: 0.2, 2: 0.5, 3: 0.3}
FEEDBACK_LEVELS = {1: 0.5, 2: 0.5}
# Shares of texts: the task alone, in words that mean something or not; with a correct program; with feedback.
KINDS = {"plain": 0.3, "unknown": 0.04, "solution": 0.22, "feedback": 0.44}
UNLEARNED = 1e-4  # of given text without meaning, in the loss; a weight of 0 would hide it
BLURRED = 0.6  # of the other steps, how often they are without meaning as well where a program was added
# Indentation and fences as one token each, words with their leading blank, digits one by one.
SPLIT = r" {4}|```| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]|\s"
TEMPLATES = Templates()
# As the verifier `code` tells of a failed test (plugins/verifiers/code_feedback.py).
FAILED = (
    "Test {number} failed: the output is wrong.\nInput:\n{given}\nExpected output:\n{expected}\nYour output:\n{got}"
)


def blurred(draw: Draw, step: Step) -> Step:
    """The step, told by words of the other wordings in no order, with its number or letter among them."""
    words = [draw.pick(WORDS) for _ in range(draw.between(2, 5))]
    for mark in ("{k}", "{c}"):
        if mark in step.operation.code:
            words.insert(draw.between(1, len(words)), mark)
    return replace(step, operation=replace(step.operation, said=(" ".join(words),)), wording=0)


WORDS = sorted({word for one in OPERATIONS for said in one.said[1:] for word in said.split() if "{" not in word})


def told(made: Puzzle, blur: Mapping[int, Step]) -> str:
    """The task, with other steps told at these places."""
    return replace(made, steps=tuple(blur.get(place, step) for place, step in enumerate(made.steps))).text


def mistaken(draw: Draw, made: Puzzle, place: int) -> Program:
    """The steps with that at `place` replaced by another operation of the same types."""
    right = made.steps[place].operation
    others = [one for one in OPERATIONS if one.takes == right.takes and one.gives == right.gives and one is not right]
    wrong = replace(made.steps[place], operation=draw.pick(others))
    return (*made.steps[:place], wrong, *made.steps[place + 1 :])


def feedback(draw: Draw, made: Puzzle, place: int) -> str | None:
    """What the verdict says of an attempt that is wrong at a place, by half of the tests; None where it passes them."""
    attempt = mistaken(draw, made, place)
    return failures(made, attempt, [number for number in range(len(made.tests)) if draw.chance(0.5)] or [0])


def failures(made: Puzzle, attempt: Program, numbers: Sequence[int]) -> str | None:
    """The two shortest of these tests that an attempt fails, as the verdict tells them.

    None where it passes them, or one of them has no output.
    """
    failed = [number for number in numbers if not agrees(attempt, made.tests[number])]
    told = []
    for number in sorted(failed, key=lambda one: (len("".join(map(json.dumps, made.tests[one]))), one))[:2]:
        given, expected = map(json.dumps, made.tests[number])
        try:
            got = json.dumps(run(attempt, made.tests[number][0]))
        except UnfitError:
            return None
        told.append(FAILED.format(number=number + 1, given=given, expected=expected, got=got))
    return "\n\n".join(told) or None


def written(draw: Draw, made: Puzzle, kind: str) -> Text | None:
    """One text of the corpus; None where no attempt failed."""
    solution = f"{fenced(made.program)}{END}"
    if kind == "plain":
        return [(f"{made.text}\n", GIVEN_WEIGHT), (solution, 1.0)]
    place = draw.between(0, len(made.steps) - 1)
    blur = {
        number: blurred(draw, step)
        for number, step in enumerate(made.steps)
        if number == place or (kind == "solution" and draw.chance(BLURRED))
    }
    task = f"{told(made, blur)}\n"
    if kind == "unknown":
        return [(task, UNLEARNED), (solution, 1.0)]
    given, said = "", ""
    if kind == "solution":
        given = TEMPLATES.solution.replace("{successful_previous_attempt}", fenced(made.program))
    else:
        found = feedback(draw, made, place)
        if found is None:
            return None
        said = TEMPLATES.feedback.replace("{feedback_raw}", found)
    asked = TEMPLATES.reprompt.replace("{prompt}", task).replace("{solution}", given).replace("{feedback}", said)
    return [(asked, UNLEARNED), (solution, 1.0)]


def texts(count: int) -> list[Text]:
    """The first `count` texts of the corpus."""
    pools = CodePuzzles().pools()
    taken = {question.id for question in [*pools.train, *(pools.test or [])]}
    draw = Draw(stream(SEED, "texts"))
    found: list[Text] = []
    while len(found) < count:
        kind = draw.weighted(KINDS)
        made = puzzle(draw, draw.weighted(FEEDBACK_LEVELS if kind == "feedback" else LEVELS), plain=1.0)
        if question_id(made.text) not in taken:
            text = written(draw, made, kind)
            if text is not None:
                found.append(text)
    return found


def build_tokenizer() -> Any:
    """Byte-level tokens with every word of `code_puzzles` and of the teacher's prompts whole."""

    def parts() -> Iterator[str]:
        # No values of tests: their words fall apart into letters.
        yield from (TEMPLATES.reprompt, TEMPLATES.solution, TEMPLATES.feedback, FAILED)
        draw = Draw(stream(SEED, "tokenizer"))
        for _ in range(4000):
            made = puzzle(draw, draw.weighted(LEVELS), plain=0.5)
            yield f"{made.text}\n{fenced(made.program)}"
            yield told(made, {0: blurred(draw, made.steps[0])})

    return tokenizer_of(parts(), SPLIT)


def main() -> None:
    given = arguments(STEPS)
    make(given.out, given.steps, given.threads, build_tokenizer, texts, SEED)


if __name__ == "__main__":
    main()
