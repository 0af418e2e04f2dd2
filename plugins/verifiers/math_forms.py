"""What the math-verify library reads over when it compares two answers, and what it does not read.

    apart("5\\\\text{ cm}", "5\\\\text{ m}")     # True: the numbers are equal, the answers are not
    spelled("1 1/2")                         # "(1+1/2)": the library takes it for eleven halves

An answer that leaves out a unit is not told apart from one that has it: the question may have said it. A base or a
word that changes the value (`18 million`, `18 negative`) is no unit: what lacks it is another number.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

_BASE = re.compile(r"(-?)([0-9A-Za-z]+)_\{?([0-9]{1,2})\}?")
_HALF_OF_DAY = re.compile(r"([0-9]{1,2})(?::([0-9]{2}))?\s*\\?\s*([ap])\.?\s*m\.?", re.IGNORECASE)
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# Words the library passes over behind or before a number, that make another number of it.
_CHANGING = re.compile(
    rf"(?<![\\A-Za-z])(?:(?P<scale>{'|'.join(_SCALES)})s?|negative|minus|plus|times(?=\s*\}}?\s*[0-9])|over|not|at\s+(?:least|most)|"
    r"(?:more|less|fewer)\s+than|and\s+(?:[a-z]+\s+)?(?:half|quarters?|thirds?)|tenths?|hundredths?|thousandths?|millionths?|squared|cubed|"
    r"factorial|twice|double|mod)(?![A-Za-z])",
    re.IGNORECASE,
)
_TEXT = re.compile(r"\\(?:text|textrm|mathrm)\s*\{([^{}]*)\}")
_SQUARE_UNIT = re.compile(r"(?i)[a-z]\s+(?:squared|cubed)(?![a-z])")
_PLAIN = re.compile(r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?")
_SCALED = re.compile(
    rf"(?P<before>\s*-?\s*(?:\\\$|\$|[€£¥])?\s*)(?P<number>{_PLAIN.pattern})[\s~]*"
    rf"(?P<words>(?:{'|'.join(_SCALES)})s?(?![A-Za-z]).*)",
    re.IGNORECASE | re.DOTALL,
)
_MIXED = re.compile(r"(-?)\s*([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)")


def apart(a: str, b: str) -> bool | None:
    """What is decided without the library: whether two values in a base, or two times of a half of the day, differ;
    True for a whole number and a value in a base, and where a word makes another number of one of them; None for all
    else.
    """
    for read in (_value_in_base, _time):
        first, second = read(a), read(b)
        if first is not None and second is not None:
            return first != second
    for one, bare in ((a, b), (b, a)):
        if _value_in_base(one) is not None and _PLAIN.fullmatch(bare):
            return True
    return True if _changing(a) != _changing(b) else None


def in_full(answer: str) -> str:
    """A number with the scales behind it as one number: `1.8 million dollars` is `1800000\\text{ dollars}`."""
    text = _in_plain(answer).replace("{,}", ",")
    if (found := _SCALED.fullmatch(text)) is None:
        return answer
    value = Fraction(found["number"].replace(",", ""))
    words = found["words"].split()
    while words and (scale := _SCALES.get(words[0].lower().removesuffix("s"))) is not None:
        value *= scale
        words = words[1:]
    rest = " ".join(words)
    if rest and (_changing(rest) or not all(word.isalpha() for word in words)):
        return answer
    # Scales are whole, and a decimal times one of them is a decimal.
    digits = str(value.numerator) if value.denominator == 1 else f"{Decimal(value.numerator) / value.denominator:f}"
    return f"{found['before']}{digits}" + (f"\\text{{ {rest}}}" if rest else "")


def spelled(answer: str) -> str:
    """The answer with a mixed number written out."""
    found = _MIXED.fullmatch(answer)
    return answer if found is None else f"{found[1]}({found[2]}+{found[3]}/{found[4]})"


def _value_in_base(answer: str) -> int | None:
    found = _BASE.fullmatch(answer)
    if found is None or not any(character.isdigit() for character in found[2]):
        return None  # x_1 is a name
    base = int(found[3])
    try:
        return int(found[1] + found[2], base) if 2 <= base <= 36 else None
    except ValueError:
        return None  # no number in its base: 2x_1


def _changing(answer: str) -> list[str]:
    """The words that make another number of the one beside them."""
    return [" ".join(found[0].lower().split()) for found in _CHANGING.finditer(_SQUARE_UNIT.sub("", answer))]


def _in_plain(answer: str) -> str:
    """The answer with the content of its text commands in their place."""
    return _TEXT.sub(r" \1 ", answer).strip()


def _time(answer: str) -> str | None:
    found = _HALF_OF_DAY.fullmatch(_in_plain(answer))
    return None if found is None else f"{found[1].removeprefix('0')}:{found[2] or '00'} {found[3].lower()}"
