"""Tests of programs: what a question carries, how one is run in the sandbox, and how its outcome is judged.

    {"kind": "stdin", "input": "3 4\\n", "output": "7\\n"}
    {"kind": "functional", "input": [[1, 2], 3], "output": 3, "public": true}

`meta["tests"]` of a question is a list of these, or a side file of the list as JSON. `meta["function"]` names the
function of functional tests, a method of `class Solution` or a function of the program; `meta["seconds"]` may say how
long a test may take. Outputs are compared here, outside of the sandbox: what a test expects never enters it.
"""

from __future__ import annotations

import json
import math
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from nsd.plugins.data import Question
from nsd.plugins.errors import InputError
from nsd.plugins.sandbox import Program, Ran
from nsd.plugins.seeds import stream
from nsd.plugins.side_files import SideFile

KEPT = 1400  # characters of what a program said on a test


class Kind(StrEnum):
    """How a test gives its input and takes the output."""

    STDIN = "stdin"
    FUNCTIONAL = "functional"


class Outcome(StrEnum):
    """How a test ended. ERROR: an exception, another exit code than 0, or a result that cannot be read."""

    PASSED = "passed"
    WRONG = "wrong"
    ERROR = "error"
    TIME = "time"
    MEMORY = "memory"
    OUTPUT = "output"
    FILES = "files"


@dataclass(frozen=True)
class Test:
    """One test of a question; `number` counts from 1 in the question's order."""

    number: int
    kind: Kind
    input: Any
    output: Any
    public: bool = False

    @property
    def length(self) -> int:
        """Characters of input and output as they are shown."""
        return len(self.input_text) + len(self.output_text)

    @property
    def input_text(self) -> str:
        """The input as it is shown."""
        return str(self.input) if self.kind is Kind.STDIN else ", ".join(json.dumps(one) for one in self.input)

    @property
    def output_text(self) -> str:
        """The expected output as it is shown."""
        return str(self.output) if self.kind is Kind.STDIN else json.dumps(self.output)


@dataclass(frozen=True)
class Judged:
    """What came of a test; `said` is what the program printed or returned, or its error, `KEPT` characters at most."""

    test: Test
    outcome: Outcome
    said: str = ""


def tests_of(question: Question) -> tuple[Test, ...]:
    """The tests of a question, in its order. Raises InputError, with the question's place, where they are none."""
    found = question.meta.get("tests")
    place = question.place or f"question {question.id}"
    if isinstance(found, SideFile):
        found = found.json()
    if not isinstance(found, list) or not found:
        raise InputError(f"{place}: meta.tests should be a list with a test at least, or a side file of one")
    return tuple(_test(number, one, question, place) for number, one in enumerate(found, 1))


def _test(number: int, found: Any, question: Question, place: str) -> Test:
    def wrong(what: str) -> InputError:
        return InputError(f"{place}: test {number}: {what}")

    if not isinstance(found, dict) or not {"kind", "input", "output"} <= found.keys():
        raise wrong("it should be an object with kind, input and output")
    try:
        kind = Kind(found["kind"])
    except ValueError:
        raise wrong(f"kind {found['kind']!r} should be stdin or functional") from None
    if kind is Kind.STDIN and not (isinstance(found["input"], str) and isinstance(found["output"], str)):
        raise wrong("a stdin test has text as input and output")
    if kind is Kind.FUNCTIONAL and not isinstance(found["input"], list):
        raise wrong("a functional test has a list of arguments as input")
    if kind is Kind.FUNCTIONAL and not isinstance(question.meta.get("function"), str):
        raise wrong("it is functional, and meta.function does not name the function")
    if kind is Kind.FUNCTIONAL and _holds_nan(found["output"]):
        raise wrong("its output holds NaN, which equals nothing: no program could pass; leave the test out")
    return Test(number, kind, found["input"], found["output"], found.get("public") is True)


def _holds_nan(value: Any) -> bool:
    """Whether a value as JSON gives it holds a number that is none."""
    owed = [value]
    while owed:
        one = owed.pop()
        if isinstance(one, float) and math.isnan(one):
            return True
        owed += one.values() if isinstance(one, dict) else one if isinstance(one, list | tuple) else ()
    return False


def half(tests: Sequence[Test], question: Question, seed: int) -> tuple[Test, ...]:
    """Half of the tests, one at least, the same each time for a question and a seed; in their order."""
    drawn = random.Random(stream(seed, "tests", question.id)).sample(range(len(tests)), max(1, len(tests) // 2))
    return tuple(tests[place] for place in sorted(drawn))


@dataclass(frozen=True)
class Attempt:
    """A solution that is to be run on a test, as the sandbox runs it; `number` is what its result stands behind."""

    test: Test
    program: Program
    number: str


def attempt(solution: str, function: str | None, test: Test, seconds: float, memory_mb: int) -> Attempt:
    """What runs a solution on a test."""
    number = secrets.token_hex(16)
    stdin = test.input if test.kind is Kind.STDIN else json.dumps([number, test.input])
    called = None if test.kind is Kind.STDIN else function
    return Attempt(test, Program(_source(solution, called), stdin, seconds, memory_mb), number)


def compiling(solution: str) -> Program:
    """A program that compiles a solution, and no more: its error tells nothing of any test."""
    return Program(_source(solution, ""), seconds=10.0)


def _source(solution: str, function: str | None) -> str:
    return f"{_harness()}\n\nmain({solution!a}, {function!r})\n"


@lru_cache
def _harness() -> str:
    return Path(__file__).with_name("_code_harness.py").read_text(encoding="utf-8")


def judged(tried: Attempt, ran: Ran) -> Judged:
    """How a test ended."""
    found = _judged(tried, ran)
    said = found.said.strip("\n") if found.outcome is Outcome.ERROR else found.said.strip()
    return replace(found, said=cut(said, KEPT))


def _judged(tried: Attempt, ran: Ran) -> Judged:
    test = tried.test
    if ran.stopped is not None:
        return Judged(test, Outcome(ran.stopped), ran.stderr)
    if ran.exit_code != 0:
        memory = ran.exit_code == 1 and ran.stderr.rstrip().endswith("MemoryError")
        return Judged(test, Outcome.MEMORY if memory else Outcome.ERROR, ran.stderr or f"exit code {ran.exit_code}")
    if test.kind is Kind.STDIN:
        same = plain(ran.stdout) == plain(test.output)
        return Judged(test, Outcome.PASSED if same else Outcome.WRONG, ran.stdout)
    if not ran.stdout.startswith(tried.number):
        return Judged(test, Outcome.ERROR, "the program ended before its function returned")
    said = ran.stdout.removeprefix(tried.number)
    try:
        same = bool(json.loads(said) == test.output)
    except (ValueError, RecursionError):
        same = False
    return Judged(test, Outcome.PASSED if same else Outcome.WRONG, said)


def plain(output: str) -> str:
    """Printed output as it is compared: ends of lines alike, without white space around it or at the end of a line."""
    return "\n".join(line.rstrip() for line in output.strip().splitlines())


def cut(text: str, most: int) -> str:
    """The text, or so many characters of it: its begin and its end."""
    if len(text) <= most:
        return text
    kept = most - 5
    return f"{text[: kept // 2]}\n...\n{text[len(text) - (kept - kept // 2) :]}"
