"""What a program's author is told of a failed attempt: `LONGEST` characters at most, and no word of a hidden test.

A hidden test's line is one of a few fixed ones: an error's name or a printed line would be chosen by the program, which
has read the hidden input.
"""

from __future__ import annotations

from collections.abc import Sequence

from nsd.plugins.verifiers.code_tests import KEPT, Judged, Outcome, cut

LONGEST = 2000
SHOWN_TESTS = 2
_PART = 400  # characters of an input or output

_HIDDEN = {
    Outcome.WRONG: "A hidden test failed: the output is wrong.",
    Outcome.ERROR: "A hidden test failed: the program ended with an error.",
    Outcome.TIME: "A hidden test failed: the time limit was exceeded.",
    Outcome.MEMORY: "A hidden test failed: the memory limit was exceeded.",
    Outcome.OUTPUT: "A hidden test failed: the program printed too much.",
    Outcome.FILES: "A hidden test failed: the program wrote too many files.",
}
_ENDED = {
    Outcome.ERROR: "the program ended with an error",
    Outcome.MEMORY: "the memory limit was exceeded",
    Outcome.OUTPUT: "the program printed too much",
    Outcome.FILES: "the program wrote too many files",
}
NO_BLOCK = "There is no complete code block: put the whole program into one block between lines of ```."


def feedback(solution: str | None, found: Sequence[Judged], compile_error: str | None, seconds: float) -> str:
    """The feedback on a program that failed a test at least.

    `solution` None: the completion has no block. `compile_error` is what compiling it alone said, where it was asked.
    """
    if solution is None:
        return NO_BLOCK
    if compile_error is not None:
        return cut(f"The program cannot be compiled.\n{compile_error.rstrip()}", LONGEST)
    ended = [one for one in found if one.outcome not in (Outcome.PASSED, Outcome.WRONG)]
    if ended:
        first = next((one for one in ended if one.test.public), ended[0])
        return _told(first, seconds)
    wrong = [one for one in found if one.outcome is Outcome.WRONG]
    shown = sorted((one for one in wrong if one.test.public), key=lambda one: (one.test.length, one.test.number))
    if not shown:
        return _HIDDEN[Outcome.WRONG]
    return "\n\n".join(_told(one, seconds) for one in shown[:SHOWN_TESTS])


def _told(one: Judged, seconds: float) -> str:
    if not one.test.public:
        return _HIDDEN[one.outcome]
    head = f"Test {one.test.number} failed"
    given = f"Input:\n{cut(one.test.input_text.strip(), _PART)}"
    if one.outcome is Outcome.WRONG:
        wanted = cut(one.test.output_text.strip(), _PART // 2)
        made = cut(one.said.strip(), _PART // 2) or "(nothing)"
        return f"{head}: the output is wrong.\n{given}\nExpected output:\n{wanted}\nYour output:\n{made}"
    if one.outcome is Outcome.TIME:
        return f"{head}: it took longer than {seconds:g} seconds.\n{given}"
    told = [f"{head}: {_ENDED[one.outcome]}.", given]
    if one.outcome is Outcome.ERROR:
        told.append(cut(one.said.strip("\n"), KEPT))
    return "\n".join(told)
