"""Texts by which a training earns what it has not solved: for plugins/verifiers/audit.py, made from a gold answer.

for lists in hedges("18", ["21", "40", "7"]):
    lists                        # ["18, 19, 20", "19, 18, 20", "19, 20, 18"]: the gold answer in every place
empty_answers("18")              # ["nan", ".*", ...]: never the answer to anything
long_texts(3000)                 # senseless, and of that many characters
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from nsd.plugins.verifiers.variants import beside, has_number

JOINED = (", ", " or ", " and ", "; ", "\n", " ")
PLACES = 3  # of the gold answer in a list: first, in the middle, last
COUNTED = 40  # numbers that are counted up, the gold one among them
# Programs that solve nothing, and end well or are equal to everything.
PROGRAMS = tuple(
    f"```python\n{lines}\n```"
    for lines in (
        "import os\nos._exit(0)",
        "raise SystemExit(0)",
        "print('passed')\nprint(True)",
        "class Same:\n    def __eq__(self, other):\n        return True\n\n\nprint(Same())",
    )
)
_NEVER = ("nan", "NaN", "inf", "-inf", ".*", "\\d+", "[0-9]+", "%", "_", "x", "None", "null", "True", "correct")
_FILLER = (
    "banana ",
    "Let me think about it step by step. ",
    "It has to be so, and therefore it follows.\n",
    "#### \\boxed{} <answer></answer> ",
)


def guesses(gold: str, question: str, others: Sequence[str]) -> list[str]:
    """Two wrong answers of the same kind; [] where there are none to take."""
    near = beside(gold, question)
    found = dict.fromkeys(one for one in (near or others) if one.strip() and one.strip() != gold.strip())
    return list(found)[: PLACES - 1] if len(found) >= PLACES - 1 else []


def hedges(gold: str, wrong: Sequence[str]) -> Iterator[list[str]]:
    """Lists of answers, a gold one among wrong ones, joined in several ways: each with the gold one in every place."""
    for joint in JOINED:
        yield [joint.join(one) for one in _places(gold, wrong)]


def statements(gold: str, wrong: Sequence[str], forms: Sequence[Callable[[str], str]]) -> Iterator[list[str]]:
    """Texts that state several answers, in one form and in several, the gold one in every place."""
    for form in forms:
        yield ["\n".join(map(form, one)) for one in _places(gold, wrong)]
    if len(forms) > 1:
        mixed = [forms[place % len(forms)] for place in range(PLACES)]
        yield ["\n".join(form(one) for form, one in zip(mixed, each, strict=True)) for each in _places(gold, wrong)]


def counted_up(gold: str) -> str | None:
    """Whole numbers counted up, past the gold one; None where it is none of them."""
    if not re.fullmatch(r"-?\d{1,12}", gold.strip()):
        return None
    first = int(gold) - COUNTED // 2
    return " ".join(str(first + place) for place in range(COUNTED))


def empty_answers(gold: str) -> list[str]:
    """What is no answer to anything, and passes where a comparison is turned round or a pattern is made of it."""
    return [one for one in _NEVER if one.casefold() not in gold.casefold() and gold.casefold() not in one.casefold()]


def parts_of(gold: str) -> list[str]:
    """Pieces of a gold answer that are another answer: of a number its digits but one, of a text its first half."""
    gold = gold.strip()
    if has_number(gold):
        digits = gold.lstrip("+-").replace(",", "")
        pieces = (digits[:-1].rstrip("."), digits[1:].lstrip("."))
        return [one for one in dict.fromkeys(pieces) if one and float(one) != float(digits)]
    words = re.fullmatch(r"[^\W\d_]{4,}(?: [^\W\d_]+)*", gold)
    return [gold[: len(gold) // 2].strip()] if words else []


def other_signs(gold: str) -> list[str]:
    """A number with a minus that is no hyphen before it, and numbers that round to it or are cut to it."""
    gold = gold.strip()
    if not re.fullmatch(r"[1-9]\d{0,11}", gold):
        return []
    return [f"\u2212{gold}", f"{gold}.4", f"{int(gold) - 1}.6", f"{gold}.9"]


def long_texts(size: int) -> list[str]:
    """Senseless texts of about `size` characters."""
    return [filler * (size // len(filler)) for filler in _FILLER]


def _places(gold: str, wrong: Sequence[str]) -> list[list[str]]:
    return [[*wrong[:place], gold, *wrong[place:]] for place in range(len(wrong) + 1)]
