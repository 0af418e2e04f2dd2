"""`code`: a program is right where it passes every test of its question, each in a process of its own, in a sandbox.

    ```python
    print(sum(map(int, input().split())))
    ```

The program is the longest fenced block of the completion. Tests with standard input compare the printed output without
white space around it and at the ends of lines, functional tests the returned value by its JSON structure
(code_tests.py). `score` is 1 where all tests pass; `share_passed` among the verdict's `numbers` is another number.

With `tests: train` half of each question's tests are seen, one at least, the same each time: for a training's reward
(`train_verifier`), beside an evaluation that sees all. So is LiveCodeBench judged in SDPO's study (arXiv 2601.20802).

Feedback is the first error, time-out or missing block, else the two shortest tests that failed, in at most 2,000
characters. It shows input and output of a public test and of one that `tests: train` sees; of a hidden one it says that
it failed and how, and nothing that the program said there, for a program can say its input.

A test's time is of the clock on the wall. One that runs out without having had a processor for half of it was slowed by
other work, or sleeps: it is run once more with three times the time, of which it may spend as much on a processor as
before. So a busy machine gives the same verdicts.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from nsd.plugins import sandbox
from nsd.plugins.api import OutputNeutral, PluginConfig, Question, Sandboxed, Score, Verifier
from nsd.plugins.registry import plugin
from nsd.plugins.verifiers.code_feedback import feedback
from nsd.plugins.verifiers.code_tests import (
    Attempt,
    Judged,
    Outcome,
    Test,
    attempt,
    compiling,
    half,
    judged,
    tests_of,
)

GRACE_SECONDS = 1.0  # beyond a test's time, as in the study: Python has to start
PATIENCE = 3.0
LONGEST_SECONDS = 600.0  # that a test may take, whatever its question says

_FENCE = re.compile(r"[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)\Z")
_OPENS = re.compile(r"(?:(?!```).)*[^`](?P<fence>`{3,})[ \t]*(?P<info>[\w+#.-]*)[ \t]*\Z", re.DOTALL)  # behind prose
_CLOSES = re.compile(r"(?P<before>(?:(?!```).)*[^`])(?P<fence>`{3,})[ \t]*\Z", re.DOTALL)  # behind code
_LANGUAGE = re.compile(r"[\w+#.-]+")


@plugin("verifier", "code")
class Code(Verifier):
    """Programs by their tests."""

    votes = False
    needs_answer = False
    gives_feedback = True
    uses_every_core = True

    class Config(PluginConfig):
        tests: Literal["all", "train"] = Field(
            default="all", description="All tests of a question, or the half that a training's reward sees."
        )
        tests_seed: int = Field(default=0, ge=0, lt=2**32, description="Which half `tests: train` is.")
        seconds: float = Field(
            default=6.0, gt=0, le=LONGEST_SECONDS, description="Time of a test where the question does not say it."
        )
        memory_mb: int = Field(default=1024, ge=64, description="Memory of a test in MiB.")
        timeouts: int = Field(
            default=3,
            ge=1,
            description="Where a program's first so many tests all run out of time, the others count as failed unrun.",
        )
        sandbox: Annotated[
            Literal["auto", "bubblewrap", "landlock", "process"],
            OutputNeutral(),
            Field(description="What holds the programs; auto: bubblewrap, else landlock. process: nothing but limits."),
        ] = "auto"

    config: Config

    def sandboxed(self) -> Sandboxed:
        """The kind of sandbox here, and what it guarantees. Raises InputError where there is none."""
        kind, held = sandbox.chosen(self.config.sandbox), sandbox.guarantees(self.config.sandbox)
        return Sandboxed(kind, tuple(name for name in sandbox.GUARANTEES if name in held))

    def extract(self, completion: str) -> str | None:
        """The program of a completion, None where it has no fenced block."""
        return longest_block(completion)

    def normalise(self, answer: str) -> str | None:
        """A program that stands alone is itself."""
        block = longest_block(answer)
        return answer if block is None else block

    def score(self, completion: str, question: Question) -> Score:
        """Judge one completion. Raises InputError for a question without tests, or where no sandbox works."""
        return self.score_many([(completion, question)])[0]

    def score_many(self, items: Sequence[tuple[str, Question]]) -> list[Score]:
        """Judge completions, the tests of all of them side by side. Raises as `score` does."""
        about = {id(question): question for _, question in items}  # a group's completions share theirs
        tests = {key: self._tests(question) for key, question in about.items()}
        trials = [_Trial(self, completion, question, tests[id(question)]) for completion, question in items]
        for first in (True, False):
            self._run([(trial, test) for trial in trials for test in trial.owed(first)])
        unclear = [trial for trial in trials if trial.unclear]
        checks = sandbox.run_many([compiling(trial.solution or "") for trial in unclear], self.config.sandbox)
        for trial, ran in zip(unclear, checks, strict=True):
            trial.compile_error = ran.stderr if ran.exit_code != 0 and ran.stopped is None else None
        return [trial.score() for trial in trials]

    def _tests(self, question: Question) -> tuple[Test, ...]:
        """The tests that this verifier sees; those whose content it may show are marked public."""
        found = tests_of(question)
        if self.config.tests == "all":
            return found
        return tuple(replace(test, public=True) for test in half(found, question, self.config.tests_seed))

    def _run(self, owed: Sequence[tuple[_Trial, Test]]) -> None:
        attempts = [trial.attempt(test) for trial, test in owed]
        rans = sandbox.run_many([one.program for one in attempts], self.config.sandbox)
        slowed = [
            place
            for place, (one, ran) in enumerate(zip(attempts, rans, strict=True))
            if ran.timed_out and ran.cpu_seconds is not None and ran.cpu_seconds < one.program.seconds / 2
        ]
        again = [
            replace(program, seconds=PATIENCE * program.seconds, cpu_seconds=program.seconds)
            for program in (attempts[place].program for place in slowed)
        ]
        for place, ran in zip(slowed, sandbox.run_many(again, self.config.sandbox), strict=True):
            rans[place] = ran
        for (trial, _), one, ran in zip(owed, attempts, rans, strict=True):
            trial.found.append(judged(one, ran))


class _Trial:
    """A completion, the tests of its question, and what has come of them."""

    def __init__(self, verifier: Code, completion: str, question: Question, tests: tuple[Test, ...]) -> None:
        self.config, self.question, self.tests = verifier.config, question, tests
        self.solution = longest_block(completion)
        self.found: list[Judged] = []
        self.compile_error: str | None = None
        given = question.meta.get("seconds")
        self.seconds = self.config.seconds
        if isinstance(given, int | float) and not isinstance(given, bool) and 0 < given < math.inf:
            self.seconds = float(min(given, LONGEST_SECONDS))

    def owed(self, first: bool) -> Iterator[Test]:
        """The first tests, or the others where not all of the first ran out of time."""
        if self.solution is None:
            return
        if first:
            yield from self.tests[: self.config.timeouts]
        elif any(one.outcome is not Outcome.TIME for one in self.found):
            yield from self.tests[self.config.timeouts :]

    def attempt(self, test: Test) -> Attempt:
        """What runs the program on a test."""
        assert self.solution is not None
        function = self.question.meta.get("function")
        return attempt(self.solution, function, test, self.seconds + GRACE_SECONDS, self.config.memory_mb)

    @property
    def unclear(self) -> bool:
        """Whether every test ended with an error, as all do where the program cannot be compiled."""
        return bool(self.found) and all(one.outcome is Outcome.ERROR for one in self.found)

    def score(self) -> Score:
        """The verdict."""
        passed = sum(one.outcome is Outcome.PASSED for one in self.found)
        correct = passed == len(self.tests)
        return Score(
            score=float(correct),
            correct=correct,
            answer=self.solution,
            feedback=None if correct else feedback(self.solution, self.found, self.compile_error, self.seconds),
            numbers={"share_passed": passed / len(self.tests)},
        )


def longest_block(text: str) -> str | None:
    """The longest fenced block of a completion (the first of equals), without its fences; None where none is closed.

    A fence may also open at the end of a line of prose and close at the end of a line of the program. One with a
    language inside an open block begins a new one, for the open one was never closed.
    """
    longest: str | None = None
    fence, lines = "", list[str]()
    for line in (one.removesuffix("\r") for one in text.split("\n")):
        found = _FENCE.match(line)
        if not fence:
            if (found := found or _OPENS.match(line)) is not None:
                fence, lines = found["fence"], []
            continue
        closes = found is not None and found["fence"].startswith(fence) and not found["info"].strip()
        if found is None and (ends := _CLOSES.match(line)) is not None and ends["fence"].startswith(fence):
            closes = True
            lines.append(ends["before"])
        if closes:
            block = _dedented(lines)
            if block.strip() and (longest is None or len(block) > len(longest)):
                longest = block
            fence = ""
        elif found is not None and found["fence"].startswith(fence) and _LANGUAGE.fullmatch(found["info"].strip()):
            fence, lines = found["fence"], []
        else:
            lines.append(line)
    return None if longest is None else f"{longest}\n"


def _dedented(lines: list[str]) -> str:
    """A block as it stands, or, where its first line is indented as in a list, without what all lines have of that."""
    block = "\n".join(lines)
    return textwrap.dedent(block) if next(filter(str.strip, lines), "")[:1].isspace() else block
