"""Answers that are names, for plugins/verifiers/math.py: words of capital letters, and figures named by their points.

    differ("BAC", "ABC")                                    # True: an order, a code, a word; never a product
    differ(r"\\\\overline{AB}", r"\\\\overline{BA}")             # False: one segment

The library takes `BAC` for a product, whose factors have no order. Here two capital letters and more are a text, equal
to the same letters in the same order, whatever stands between them (`B, A, C`, `\\text{BAC}`, `B \\cdot A \\cdot C`).
A product `AB` written `BA` is refused with it: a verdict that takes any order would call every ordering right. Two
products that are written with their signs (`A \\cdot B`) are products.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Za-z]{2,}")
_CAPITALS = re.compile(r"[A-Z]{2,}")
_DASHED = re.compile(r"[A-Z](?:[-\u2013][A-Z]){2,}")
_FIGURE = re.compile(
    r"(?:m\s*)?\\(?P<kind>overline|widehat|overarc|overleftrightarrow|overrightarrow|vec|(?:measured|spherical)?angle"
    r"|triangle|bigtriangleup)(?![A-Za-z])\s*\{?\s*(?P<points>[A-Z]{2,})\s*\}?"
)
# The points of these in the other direction name the same thing.
_EITHER_WAY = {"overline": 2, "widehat": 2, "overarc": 2, "overleftrightarrow": 2, "angle": 3}
_NAMED = re.compile(r"^\s*[A-Za-z]\s*=")
_WRAPPER = re.compile(r"\\(?:text|textrm|textbf|mathrm|mathbf|mathit|mbox|overline)(?![A-Za-z])")
_JOINT = r"\\(?:quad|qquad)(?![A-Za-z])|\\?[\s,;{}().]|\\text\s*\{\s*,?\s*and\s*\}|(?<![A-Za-z])and(?![A-Za-z])"
_BETWEEN = re.compile(_JOINT)
_FACTORS = re.compile(rf"{_JOINT}|\\(?:cdot|times)(?![A-Za-z])|\*")


def differ(a: str, b: str) -> bool | None:
    """Whether two answers of which one is a name differ; None where none of them is."""
    first, second = _figure(a), _figure(b)
    if first is not None and second is not None:
        return first != second
    for one, other in ((a, b), (b, a)):
        if (word := _word(one, _BETWEEN)) is not None and _CAPITALS.fullmatch(word):
            letters = _word(other, _FACTORS)
            return letters is None or word.casefold() != letters.casefold()
    one, other = ("".join(text.split()) for text in (a, b))
    return one != other if _DASHED.fullmatch(one) and _DASHED.fullmatch(other) else None


def _word(answer: str, between: re.Pattern[str]) -> str | None:
    """Letters that are a word, or stand one by one in a list or a product; None for words beside each other."""
    pieces = between.sub(" ", _WRAPPER.sub(" ", _NAMED.sub("", answer))).split()
    one_by_one = len(pieces) == 1 or all(len(piece) == 1 for piece in pieces)
    joined = "".join(pieces)
    return joined if one_by_one and _WORD.fullmatch(joined) else None


def _figure(answer: str) -> tuple[str, str] | None:
    """The kind of a figure and its points, in the direction that comes first in the alphabet where either will do."""
    found = _FIGURE.fullmatch(answer.strip())
    if found is None:
        return None
    kind = found["kind"].removeprefix("measured").removeprefix("spherical")
    points = found["points"]
    if _EITHER_WAY.get(kind) == len(points):
        points = min(points, points[::-1])
    return {"bigtriangleup": "triangle", "vec": "overrightarrow", "overarc": "widehat"}.get(kind, kind), points
