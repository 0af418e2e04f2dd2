"""What the math-verify library reads over when it compares two answers, and what it does not read.

    apart("5\\\\text{ cm}", "5\\\\text{ m}")     # True: the numbers are equal, the answers are not
    spelled("1 1/2")                         # "(1+1/2)": the library takes it for eleven halves

An answer that leaves out a unit is not told apart from one that has it: the question may have said it. A base or a
word that changes the value (`18 million`, `18 negative`) is no unit: what lacks it is another number.
"""

from __future__ import annotations

import re
from fractions import Fraction

_BASE = re.compile(r"(-?)([0-9A-Za-z]+)_\{?([0-9]{1,2})\}?")
_WORD = r"\\(?:text|mathrm|textrm)\s*\{\s*(?P<text>[^{}]+?)\s*\}|(?P<bare>[A-Za-z]+)"
_UNIT = re.compile(rf".*?[0-9)}}]\s*\\?\s*(?:{_WORD})")
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
_MIXED = re.compile(r"(-?)\s*([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)")

_SAME_UNITS = (
    "mm millimeter millimetre",
    "cm centimeter centimetre",
    "m meter metre",
    "km kilometer kilometre",
    "in inch inches",
    "ft foot feet",
    "yd yard",
    "mi mile",
    "mg milligram",
    "g gram",
    "kg kilogram",
    "oz ounce",
    "lb lbs pound",
    "ml milliliter millilitre",
    "l liter litre",
    "second sec s",
    "minute min",
    "hour hr h",
    "day",
    "week",
    "month",
    "year",
    "degree",
    "radian rad",
    "cent",
    "dollar usd",
    "euro eur",
    "yen",
    "mph",
)
_CURRENCIES = {"\\$": "dollar", "€": "euro", "£": "pound sterling", "¥": "yen"}
_UNITS = {name: line.split()[0] for line in _SAME_UNITS for name in line.split()}


def apart(a: str, b: str) -> bool | None:
    """What is decided without the library: whether two values in a base, or two times of a half of the day, differ;
    True for answers with different units of measure, for a whole number and a value in a base, and where a word makes
    another number of one of them; None for all else.
    """
    for read in (_value_in_base, _time):
        first, second = read(a), read(b)
        if first is not None and second is not None:
            return first != second
    for one, bare in ((a, b), (b, a)):
        if _value_in_base(one) is not None and _PLAIN.fullmatch(bare):
            return True
    words, others = _changing(a), _changing(b)
    if words or others:
        value, against = _scaled(a), _scaled(b)
        if value is not None and against is not None:
            return value != against
        if words != others:
            return True
    unit, other = _unit(a), _unit(b)
    return True if unit is not None and other is not None and unit != other else None


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


def _scaled(answer: str) -> Fraction | None:
    """The value of a number and the scales behind it (`1.8 million`), whatever unit follows; None for all else."""
    text = _in_plain(answer.replace("\\$", "").replace("{,}", ","))
    if (found := _PLAIN.match(text)) is None:
        return None
    value = Fraction(found[0].replace(",", ""))
    words = text[found.end() :].lower().split()
    while words and (scale := _SCALES.get(words[0].removesuffix("s"))) is not None:
        value *= scale
        words = words[1:]
    return value if all(word.isalpha() for word in words) and not _changing(" ".join(words)) else None


def _unit(answer: str) -> tuple[str, int] | None:
    """The unit of measure, with its power; None where there is none that is known."""
    if (money := re.match(r"\s*-?\s*(\\\$|[€£¥])", answer)) is not None:
        return _CURRENCIES[money[1]], 1
    text, _, power = answer.partition("^")
    found = _UNIT.fullmatch(text)
    if found is None:
        return None
    word = (found["text"] or found["bare"]).lower().strip()
    first, _, rest = word.partition(" ")
    squared = {"square": 2, "sq": 2, "cubic": 3}.get(first)
    name = rest.strip() if squared is not None else word
    unit = _UNITS.get(name) or _UNITS.get(name.removesuffix("s")) or _UNITS.get(name.removesuffix("es"))
    digits = power.strip("{} ")
    return None if unit is None else (unit, squared or (int(digits) if digits.isdecimal() else 1))


def _in_plain(answer: str) -> str:
    """The answer with the content of its text commands in their place."""
    return _TEXT.sub(r" \1 ", answer).strip()


def _time(answer: str) -> str | None:
    found = _HALF_OF_DAY.fullmatch(_in_plain(answer))
    return None if found is None else f"{found[1].removeprefix('0')}:{found[2] or '00'} {found[3].lower()}"
