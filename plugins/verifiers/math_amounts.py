"""Amounts with a unit, for plugins/verifiers/math.py: lengths, masses, times, money, angles and percentages.

    equal("\\\\$3", "300\\\\text{ cents}", same)       # True: one amount, said in two units
    equal("5\\\\text{ cm}", "5\\\\text{ m}", same)      # False
    equal("5\\\\text{ cm}", "5", same)                # True: the question may have said the unit

A percent sign is such a unit: 50% is 50 with its unit, as for the verifiers `numeric` and `final_answer`, and not 0.5;
so no vote joins 50 and 0.5 through it. A degree sign is one too, and an angle in degrees is also what it is in radians.
`cents` are of a dollar or a euro, `pounds` weigh or are money, `pence` of the latter: what can be one amount is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

# Quantity, size of the unit in the quantity's own, names. Units of different quantities are never equal.
_TABLE = """
length 0.001 mm millimeter millimetre
length 0.01 cm centimeter centimetre
length 1 m meter metre
length 1000 km kilometer kilometre
length 0.0254 in inch inches
length 0.3048 ft foot feet
length 0.9144 yd yard
length 1609.344 mi mile
mass 0.001 mg milligram
mass 1 g gram
mass 1000 kg kilogram
mass 28.349523125 oz ounce
mass 453.59237 lb lbs pound
length^3 0.000001 ml milliliter millilitre
length^3 0.001 l liter litre
time 1 second sec s
time 60 minute min
time 3600 hour hr h
time 86400 day
time 604800 week
months 1 month
months 12 year
degree 1 degree deg
radian 1 radian rad
celsius 1 celsius
fahrenheit 1 fahrenheit
percent 1 percent
dollar 1 dollar usd
dollar 0.01 cent penny pennies
euro 1 euro eur
euro 0.01 cent
sterling 1 pound gbp sterling
sterling 0.01 pence penny pennies
yen 1 yen
"""
_PREFIXES = {"\\$": "dollar", "$": "dollar", "€": "euro", "\\euro": "euro", "£": "sterling", "\\pounds": "sterling"}
_PREFIXES |= {"¥": "yen", "\\yen": "yen"}
_MONEY = re.compile(
    r"\s*(?P<minus>-?)\s*(?P<sign>\\\$|\$|€|£|¥|\\(?:euro|pounds|yen)(?![A-Za-z]))\s*(?P<number>.*)", re.DOTALL
)
_DEGREE = (
    r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|°|\\(?:text)?degree(?![A-Za-z])"
    r"|\\(?:text|mathrm)\s*\{\s*degrees?\s*\}"
)
_SIGN = re.compile(
    rf"(?P<number>.+?)\s*(?:(?P<degree>{_DEGREE})\s*(?:\\(?:text|mathrm)\s*\{{\s*)?(?P<scale>[CF]?)\}}?"
    r"|(?P<percent>\\?%|\\text\s*\{\s*\\?%\s*\})|(?P<cent>¢|\\(?:text)?cent(?![A-Za-z])))",
    re.DOTALL,
)
_WORDS = re.compile(
    r"(?P<number>.*?)(?:(?:\s|~|\\ )*\\(?:text|mathrm|textrm|mbox)\s*\{\s*(?P<text>[^{}]+?)\s*\}"
    r"|(?<=[0-9)}])(?:\s|~|\\ )*(?P<bare>[A-Za-z]+(?:\s+[A-Za-z]+)*))\s*(?:\^\s*\{?\s*(?P<power>[0-9])\s*\}?)?",
    re.DOTALL,
)
_POWERS = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3}
# What a number is not: more words, another unit, a sign of money.
_UNCLEAR = re.compile(
    r"\\text|\\mathrm|(?<![\\A-Za-z])[A-Za-z]{2,}|[%°$€£¥¢]|\\(?:circ|approx|pm|a?(?:rc)?(?:sin|cos|tan|cot|sec|csc)h?)(?![A-Za-z])"
)
_DECIMAL = re.compile(r"-?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)?(?:\.[0-9]+)?")
_FRACTION = re.compile(r"(-?)(?:\\frac\{([0-9]+)\}\{([0-9]+)\}|([0-9]+)/([0-9]+))")
_STEP = re.compile(r"\s*(?:,|and\s)?\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)")
_IN_DEGREES = re.compile(
    r"(\\frac\s*\{[^{}]*\}\s*\{[^{}]*\}|\([^()]*\)|\{[^{}]*\}|[0-9]+(?:\.[0-9]+)?|(?<!\\)[A-Za-z]|\\[A-Za-z]+)"
    rf"\s*(?:{_DEGREE})"
)


@dataclass(frozen=True)
class Unit:
    """A quantity (`length^2`, `length/time`) and the unit's size in the quantity's own."""

    quantity: str
    size: Fraction


@dataclass(frozen=True)
class Amount:
    """A number, None where it is not read here, and what its unit may be. `steps`: summed up from several units."""

    number: str | None
    units: tuple[Unit, ...]
    steps: bool = False
    letter: bool = False  # the unit is one or two letters, which may be variables


def _table() -> dict[str, tuple[Unit, ...]]:
    found: dict[str, tuple[Unit, ...]] = {}
    for line in _TABLE.split("\n"):
        if line:
            quantity, size, *names = line.split()
            for name in names:
                found[name] = (*found.get(name, ()), Unit(quantity, Fraction(size)))
    return found


_UNITS = _table()


def equal(a: str, b: str, same: Callable[[str, str], bool]) -> bool | None:
    """Whether two answers of which one has a unit are equal; `same` compares numbers. None where none has, or a number
    is not read here.
    """
    first, second = _amount(a), _amount(b)
    if first is None or second is None:
        amount, bare = (first, b) if second is None else (second, a)
        return None if amount is None or amount.letter else _equals_bare(amount, bare, same)
    sizes = [(one.size, other.size) for one in first.units for other in second.units if one.quantity == other.quantity]
    numbers = first.number, second.number
    if {unit.quantity for unit in (*first.units, *second.units)} == {"degree", "radian"} and None not in numbers:
        return same(*(_as_angle(amount) for amount in (first, second)))
    if not sizes:
        return False
    if numbers[0] is None or numbers[1] is None:
        return None
    return any(_equal_sizes(numbers[0], one, numbers[1], other, same) for one, other in sizes)


def in_radians(answer: str) -> str:
    """The answer with each value in degrees written in radians: the library reads over the sign."""
    return _IN_DEGREES.sub(lambda found: f"({found[1]}\\cdot\\frac{{\\pi}}{{180}})", answer)


def _equals_bare(amount: Amount, bare: str, same: Callable[[str, str], bool]) -> bool | None:
    if amount.steps:
        return False
    if amount.number is None:
        return None
    if same(amount.number, bare):
        return True
    degrees = any(unit.quantity == "degree" for unit in amount.units)
    return degrees and _value(bare) is None and same(_radians(amount.number), bare)


def _equal_sizes(a: str, size: Fraction, b: str, other: Fraction, same: Callable[[str, str], bool]) -> bool:
    if size == other:
        return same(a, b)
    if size < other:  # the same comparison whichever answer is asked first
        return _equal_sizes(b, other, a, size, same)
    first, second = _value(a), _value(b)
    if first is not None and second is not None:
        return first * size == second * other
    ratio = size / other
    return same(f"\\frac{{{ratio.numerator}}}{{{ratio.denominator}}}\\cdot({a})", b)


def _amount(answer: str) -> Amount | None:
    """The amount that an answer is; None where it has no unit that is known."""
    text = answer.strip()
    if (steps := _steps(text)) is not None:
        return steps
    if (found := _MONEY.fullmatch(text)) is not None:
        return _money(found)
    if (found := _SIGN.fullmatch(text)) is not None:
        name = "percent" if found["percent"] else "cent" if found["cent"] else "degree"
        name = {"C": "celsius", "F": "fahrenheit"}.get(found["scale"] or "", name)
        return Amount(_number(found["number"]), _UNITS[name])
    if (found := _WORDS.fullmatch(text)) is None or not found["number"].strip():
        return None
    word = " ".join((found["text"] or found["bare"]).lower().replace("\\", "").split())
    units = _named(word, int(found["power"] or 1))
    if not units:
        return None
    return Amount(_number(found["number"]), units, letter=found["text"] is None and len(word) < 3)


def _money(found: re.Match[str]) -> Amount:
    units: tuple[Unit, ...] = _UNITS[_PREFIXES[found["sign"]]][:1]
    if found["sign"] in ("£", "\\pounds"):
        units = tuple(unit for unit in _UNITS["pound"] if unit.quantity == "sterling")
    number = found["number"]
    if (behind := _WORDS.fullmatch(number)) is not None and behind["number"].strip():
        word = " ".join((behind["text"] or behind["bare"]).lower().split())
        rate = _named(f"dollar {word}", 1) if word.startswith(("per ", "/")) else ()
        units = tuple(Unit(one.quantity.replace("dollar", units[0].quantity), one.size) for one in rate) or units
        if behind["text"] is not None or len(word) > 2:  # 3x is no 3
            number = behind["number"]
    number = _number(number) or ""
    return Amount(f"{found['minus']}{number}" if number else None, units)


def _named(word: str, power: int) -> tuple[Unit, ...]:
    """What a name of a unit may mean: `square cm`, `miles per hour`, `km/h`; () where it is not known."""
    above, divided, below = re.sub(r"\s+per\s+|\s*/\s*", "/", word).partition("/")
    units = _plain(above)
    if divided:
        units = tuple(
            Unit(f"{one.quantity}/{other.quantity}", one.size / other.size)
            for one in units
            for other in _plain(below.removeprefix("an ").removeprefix("a "))
        )
    if word == "mph":
        units = _named("mile per hour", 1)
    return units if power == 1 else tuple(_raised(unit, power) for unit in units)


def _plain(word: str) -> tuple[Unit, ...]:
    words = word.split()
    power = 1
    if len(words) == 2:
        for place in (0, 1):
            if words[place] in _POWERS:
                power = _POWERS[words.pop(place)]
                break
    if len(words) == 2 and words[0] in ("us", "degrees", "degree"):
        words = words[1:]
    if len(words) != 1:
        return ()
    name = words[0]
    units = _UNITS.get(name) or _UNITS.get(name.removesuffix("s")) or _UNITS.get(name.removesuffix("es")) or ()
    return units if power == 1 else tuple(_raised(unit, power) for unit in units)


def _raised(unit: Unit, power: int) -> Unit:
    base, _, before = unit.quantity.partition("^")
    return Unit(f"{base}^{int(before or 1) * power}", unit.size**power)


def _steps(text: str) -> Amount | None:
    """`1 hour 30 minutes`, `5 feet 3 inches`: one amount, of at least two units of one quantity."""
    plain = re.sub(r"\\(?:text|mathrm|textrm)\s*\{([^{}]*)\}", r" \1 ", text).strip()
    total, place, units = Fraction(0), 0, list[Unit]()
    while place < len(plain):
        if (found := _STEP.match(plain, place)) is None or not (named := _named(found[2].lower(), 1)):
            return None
        shared = [unit for unit in named if not units or unit.quantity == units[0].quantity]
        if not shared or shared[0] in units:
            return None
        units.append(shared[0])
        total += Fraction(found[1]) * shared[0].size
        place = found.end()
    if len(units) < 2:
        return None
    return Amount(f"{total.numerator}/{total.denominator}", (Unit(units[0].quantity, Fraction(1)),), steps=True)


def _number(text: str) -> str | None:
    """What stands before a unit: of an equation its right side; None where it is more than a number."""
    text = text.rpartition("=")[2].strip().removesuffix("\\").strip()
    return None if not text or _UNCLEAR.search(text) else text


def _as_angle(amount: Amount) -> str:
    number = str(amount.number)
    return _radians(number) if amount.units[0].quantity == "degree" else number


def _value(number: str) -> Fraction | None:
    text = number.replace("{,}", ",").strip()
    if any(character.isdigit() for character in text) and _DECIMAL.fullmatch(text):
        return Fraction(text.replace(",", ""))
    if (found := _FRACTION.fullmatch(text)) is None:
        return None
    above, below = int(found[2] or found[4]), int(found[3] or found[5])
    return None if below == 0 else Fraction(above, below) * (-1 if found[1] else 1)


def _radians(number: str) -> str:
    return f"({number})\\cdot\\frac{{\\pi}}{{180}}"
