"""What a program of `code_puzzles` does to its input, step by step: the operations, their code and how they are told.

An operation takes a value of one type to one of another. `code` is a Python expression over `x`, and the only truth
about what the operation does: solutions are made of it and tests are computed by it. `said` are its wordings; the first
one is the plain one. `{k}` is a number that the puzzle draws, `{c}` a letter.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import CodeType
from typing import Any

NUMBERS, NUMBER, WORD = "numbers", "number", "word"


@dataclass(frozen=True)
class Operation:
    """One step. `low` and `high` bound `{k}`, both included."""

    name: str
    takes: str
    gives: str
    code: str
    said: tuple[str, ...]
    low: int = 2
    high: int = 9


def _numbers(name: str, code: str, *said: str, low: int = 2, high: int = 9, gives: str = NUMBERS) -> Operation:
    return Operation(name, NUMBERS, gives, code, said, low, high)


def _number(name: str, code: str, *said: str, low: int = 2, high: int = 9) -> Operation:
    return Operation(name, NUMBER, NUMBER, code, said, low, high)


def _word(name: str, code: str, *said: str, low: int = 2, high: int = 3, gives: str = WORD) -> Operation:
    return Operation(name, WORD, gives, code, said, low, high)


OPERATIONS = (
    # A list of numbers to another.
    _numbers("add", "[n + {k} for n in x]", "add {k} to each number", "make each number larger by {k}"),
    _numbers("subtract", "[n - {k} for n in x]", "take {k} off each number", "make each number smaller by {k}"),
    _numbers("multiply", "[n * {k} for n in x]", "multiply each number by {k}", "scale all values up {k} fold", high=5),
    _numbers("squares", "[n * n for n in x]", "square each number", "multiply each number with itself"),
    _numbers("even", "[n for n in x if n % 2 == 0]", "keep the even numbers", "throw the odd ones out"),
    _numbers("odd", "[n for n in x if n % 2 == 1]", "keep the odd numbers", "throw the even ones out"),
    _numbers("above", "[n for n in x if n > {k}]", "keep the numbers above {k}", "throw all values up to {k} out"),
    _numbers(
        "below", "[n for n in x if n < {k}]", "keep the numbers below {k}", "throw all values from {k} on out", low=5
    ),
    _numbers("other", "[n for n in x if n != {k}]", "remove the number {k}", "throw every {k} out"),
    _numbers("reverse", "x[::-1]", "reverse the list", "read the list from its end"),
    _numbers("rising", "sorted(x)", "sort the numbers upwards", "put small values before large ones"),
    _numbers("falling", "sorted(x)[::-1]", "sort the numbers downwards", "put large values before small ones"),
    _numbers("head", "x[:{k}]", "keep the first {k} numbers", "cut the list behind place {k}", high=3),
    _numbers("tail", "x[-{k}:]", "keep the last {k} numbers", "cut the list but for {k} at its end", high=3),
    _numbers("drop", "x[{k}:]", "remove the first {k} numbers", "begin the list behind place {k}", low=1, high=2),
    _numbers("second", "x[::2]", "keep every second number", "leap over each other place"),
    _numbers("distinct", "sorted(set(x))", "sort the different numbers", "throw doubles out and put in order"),
    _numbers("append", "x + [{k}]", "append {k} to the list", "put a {k} behind the end"),
    # A list of numbers to one.
    _numbers("sum", "sum(x)", "add up the numbers", "find the total", gives=NUMBER),
    _numbers("largest", "max(x)", "take the largest number", "find the top value", gives=NUMBER),
    _numbers("smallest", "min(x)", "take the smallest number", "find the bottom value", gives=NUMBER),
    _numbers("count", "len(x)", "count the numbers", "find the length", gives=NUMBER),
    _numbers("first", "x[0]", "take the first number", "pick what stands in front", gives=NUMBER),
    _numbers("last", "x[-1]", "take the last number", "pick what stands at the end", gives=NUMBER),
    _numbers(
        "spread",
        "max(x) - min(x)",
        "take the largest less the smallest",
        "find the gap of top and bottom",
        gives=NUMBER,
    ),
    _numbers("frequency", "x.count({k})", "count how often {k} occurs", "find how many are {k}", gives=NUMBER),
    # A number to another.
    _number("plus", "x + {k}", "add {k}", "go up by {k}"),
    _number("minus", "x - {k}", "subtract {k}", "go down by {k}"),
    _number("times", "x * {k}", "multiply by {k}", "scale it up {k} fold", high=5),
    _number("over", "x // {k}", "divide by {k} without rest", "find how many {k} fit in", high=5),
    _number("rest", "x % {k}", "take the rest by {k}", "see what {k} leaves over", high=7),
    _number("square", "x * x", "square it", "multiply it with itself"),
    # A word to another, or to a number.
    _word("upper", "x.upper()", "write it in capitals", "make all letters big"),
    _word("backwards", "x[::-1]", "reverse the word", "read the word from its end"),
    _word("repeat", "x * {k}", "repeat the word {k} times", "write {k} copies in a row"),
    _word("start", "x[:{k}]", "keep the first {k} letters", "cut the word behind place {k}"),
    _word("ending", "x[-{k}:]", "keep the last {k} letters", "cut the word but for {k} at its end"),
    _word("behead", "x[{k}:]", "remove the first {k} letters", "begin the word behind place {k}", low=1, high=2),
    _word("alternate", "x[::2]", "keep every second letter", "leap over each other letter"),
    _word("letter", 'x + "{c}"', "append the letter {c}", "put {c} behind the end"),
    _word("without", 'x.replace("{c}", "")', "remove the letter {c}", "throw every {c} out"),
    _word("length", "len(x)", "count the letters", "find the length", gives=NUMBER),
    _word("letters", 'x.count("{c}")', "count the letter {c}", "find how many are {c}", gives=NUMBER),
)
BY_NAME = {operation.name: operation for operation in OPERATIONS}
LETTERS = "abcde"
_ALLOWED = {"len": len, "max": max, "min": min, "set": set, "sorted": sorted, "sum": sum}


@dataclass(frozen=True)
class Step:
    """An operation with its number and letter drawn, and how it is told: `wording` counts from 0, the plain one."""

    operation: Operation
    k: int
    letter: str
    wording: int = 0

    @property
    def code(self) -> str:
        """The expression over `x`."""
        return self._filled(self.operation.code)

    @property
    def said(self) -> str:
        """The step in words."""
        return self._filled(self.operation.said[self.wording])

    def _filled(self, text: str) -> str:
        return text.replace("{k}", str(self.k)).replace("{c}", self.letter)

    def __call__(self, x: Any) -> Any:
        """What becomes of a value. Raises ValueError or IndexError where an empty list has no such thing."""
        return eval(_compiled(self.code), {"x": x, "__builtins__": _ALLOWED})


@functools.lru_cache(maxsize=4096)
def _compiled(code: str) -> CodeType:
    return compile(code, "<step>", "eval")
