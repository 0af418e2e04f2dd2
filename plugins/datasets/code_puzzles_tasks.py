"""Puzzles of `code_puzzles`, drawn from a seed: a few steps, the program that takes them, and its tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nsd.plugins.data import Question, question_id
from nsd.plugins.datasets.code_puzzles_operations import LETTERS, NUMBER, NUMBERS, OPERATIONS, WORD, Operation, Step
from nsd.plugins.datasets.wordmath_stories import Draw
from nsd.plugins.errors import InputError

STARTS = {NUMBERS: 6, WORD: 3, NUMBER: 1}  # weights of what a function takes
NAMES = {NUMBERS: "a list of numbers", NUMBER: "a number", WORD: "a word"}
PUBLIC, HIDDEN = 3, 3  # tests of a puzzle
LARGEST = 9999  # number that a solution may give
TRIES = 20  # inputs drawn for one test before the puzzle is given up
MOST_REPEATS = 20_000  # draws in a row of tasks that are there already
Program = tuple[Step, ...]


class UnfitError(Exception):
    """The steps make no sound puzzle (one of them changes nothing, or fails): draw again."""


@dataclass(frozen=True)
class Puzzle:
    """Steps on a value of type `start`, and inputs with what the steps make of them."""

    start: str
    steps: Program
    tests: tuple[tuple[Any, Any], ...]

    @property
    def text(self) -> str:
        """The task in words."""
        told = ". ".join(f"{'Then' if place else 'First'} {step.said}" for place, step in enumerate(self.steps))
        return f"Write a function f(x) for {NAMES[self.start]} x. {told}."

    @property
    def program(self) -> str:
        """The gold program."""
        return source(self.steps)


def source(steps: Program) -> str:
    """The program that takes these steps, a line each."""
    return "\n".join(["def f(x):", *(f"    x = {step.code}" for step in steps), "    return x"])


def fenced(program: str) -> str:
    """A program as a completion has it."""
    return f"```python\n{program}\n```"


def run(steps: Program, value: Any) -> Any:
    """What the steps make of a value. Raises UnfitError where there is no such thing, or it is too large to read."""
    for step in steps:
        try:
            value = step(value)
        except (ValueError, IndexError):
            raise UnfitError from None
        if isinstance(value, int) and abs(value) > LARGEST:
            raise UnfitError
    return value


# --------------------------------------------------------------------------- drawing


def puzzle(draw: Draw, level: int, plain: float, operations: Sequence[Operation] = OPERATIONS) -> Puzzle:
    """One puzzle of `level` steps; each is told in its plain wording with probability `plain`."""
    while True:
        start = draw.weighted(STARTS)
        try:
            steps = _steps(draw, start, level, plain, operations)
            return Puzzle(start, steps, _tests(draw, start, steps))
        except UnfitError:
            continue


def drawn(draw: Draw, operation: Operation, plain: float) -> Step:
    """The operation with its number, letter and wording."""
    others = len(operation.said) - 1
    wording = 0 if draw.chance(plain) or not others else draw.between(1, others)
    return Step(operation, draw.between(operation.low, operation.high), draw.pick(LETTERS), wording)


def _steps(draw: Draw, start: str, level: int, plain: float, operations: Sequence[Operation]) -> Program:
    steps: list[Step] = []
    kind = start
    for _ in range(level):
        able = [one for one in operations if one.takes == kind and all(one is not step.operation for step in steps)]
        if not able:
            raise UnfitError
        steps.append(drawn(draw, draw.pick(able), plain))
        kind = steps[-1].operation.gives
    return tuple(steps)


def value(draw: Draw, kind: str, steps: Program) -> Any:
    """An input: small numbers, near those of the steps now and then, and letters with theirs among them."""
    if kind == NUMBER:
        return draw.between(0, 40)
    if kind == WORD:
        letters = LETTERS + "".join(step.letter for step in steps)
        return "".join(draw.pick(letters) for _ in range(draw.between(3, 5)))
    near = [step.k + shift for step in steps for shift in (0, 0, 1)]
    return [draw.pick(near) if draw.chance(0.3) else draw.between(0, 9) for _ in range(draw.between(3, 4))]


def _tests(draw: Draw, start: str, steps: Program) -> tuple[tuple[Any, Any], ...]:
    """Distinct inputs with what the steps give; without any one of the steps at least two tests would fail."""
    tests: list[tuple[Any, Any]] = []
    for _ in range(TRIES * (PUBLIC + HIDDEN)):
        given = value(draw, start, steps)
        if all(given != other for other, _ in tests):
            try:
                tests.append((given, run(steps, given)))
            except UnfitError:
                continue
        if len(tests) == PUBLIC + HIDDEN:
            break
    else:
        raise UnfitError
    if all(expected == tests[0][1] for _, expected in tests):
        raise UnfitError  # a constant would do
    for place in range(len(steps)):
        without = steps[:place] + steps[place + 1 :]
        if sum(not agrees(without, test) for test in tests) < 2:
            raise UnfitError
    return tuple(tests)


def agrees(steps: Program, test: tuple[Any, Any]) -> bool:
    """Whether the steps give what a test expects."""
    try:
        return bool(run(steps, test[0]) == test[1])
    except (UnfitError, TypeError, AttributeError):
        return False


def question(found: Puzzle, examples: int = 0) -> Question:
    """The puzzle as a question, with its first public tests as examples in the text."""
    shown = "".join(f" f({_said(given)}) is {_said(expected)}." for given, expected in found.tests[:examples])
    text = found.text + shown
    solution = fenced(found.program)
    tests = [
        {"kind": "functional", "input": [given], "output": expected, **({"public": True} if place < PUBLIC else {})}
        for place, (given, expected) in enumerate(found.tests)
    ]
    meta = {
        "tests": tests,
        "function": "f",
        "level": len(found.steps),
        "steps": [step.operation.name for step in found.steps],
        "plain": all(step.wording == 0 for step in found.steps),
    }
    return Question(id=question_id(text), text=text, answer=solution, solution=solution, meta=meta)


def _said(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def generate(
    seed: int,
    count: int,
    levels: Mapping[int, float],
    plain: float,
    examples: int = 0,
    exclude: Collection[str] = (),
) -> list[Question]:
    """`count` distinct puzzles, levels by weight. Ids in `exclude` are left out. More begin with fewer.

    Raises InputError where there are not so many.
    """
    draw = Draw(seed)
    seen = set(exclude)
    questions: list[Question] = []
    repeats = 0
    while len(questions) < count:
        made = question(puzzle(draw, draw.weighted(levels), plain), examples)
        repeats += 1
        if made.id not in seen:
            seen.add(made.id)
            questions.append(made)
            repeats = 0
        elif repeats > MOST_REPEATS:
            raise InputError(
                f"dataset code_puzzles: {count} different tasks of these levels and wordings are wanted, and after "
                f"{len(questions)} of them {repeats} in a row were there already: ask for fewer, or for other levels"
            )
    return questions
