"""Answers made from a gold one: others that are next to it and wrong, and the same one as models write it.

By what the answer is: a number (with a unit, a base or a percent sign), a tuple, a letter of a list of options, a
relation, a list of tool calls, or any other text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

_NUMBER = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-+]?\d+(?:\.\d+)?")
# A fenced program; `code` is all of it but its last line.
_PROGRAM = re.compile(r"(?P<opens>```[^\n`]*\n)(?P<code>(?:[^\n]*\n)*)[^\n]*\S[^\n]*\n(?P<closes>```)")
_BASE = re.compile(r"^(?P<digits>[0-9A-Fa-f]+)_\{?(?P<base>\d+)\}?$")
_UNIT = re.compile(rf"^(?P<number>{_NUMBER.pattern})\s*(?P<unit>[A-Za-z]{{1,12}}|\\text\{{[^{{}}]+\}})$")
_FRACTION = re.compile(r"^(?P<minus>-?)(?:\\d?frac\{(?P<a>\d+)\}\{(?P<b>\d+)\}|(?P<c>\d+)/(?P<d>\d+))$")
_CLOCK = re.compile(r"^(?P<hours>\d{1,2}):(?P<minutes>\d{2})$")
_PAIRS = (("<", ">"), ("\\le", "\\ge"), ("\\leq", "\\geq"), ("≤", "≥"))
_RELATIONS = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}
_RELATION = re.compile(r"(\\leq?|\\geq?|[<>≤≥])(?![A-Za-z])")
_OTHER_UNITS = {"cm": "m", "m": "km", "km": "m", "kg": "g", "g": "kg", "hours": "minutes", "minutes": "hours"}
_TUPLE = re.compile(r"^\((?P<first>[^,(){}\\]+),(?P<second>[^,(){}\\]+)(?P<rest>(?:,[^,(){}\\]+)*)\)$")
_PERCENT = re.compile(rf"^(?P<number>{_NUMBER.pattern})\s*(?P<sign>\\?%| percent)$")
_LETTERS = re.compile(r"(?m)^\s*\(?([A-J])[).:]")


def wrong_variants(gold: str, question: str = "") -> list[str]:
    """Wrong answers next to a gold one, each another kind of mistake; [] for what nothing is known of."""
    gold = gold.strip()
    if (found := _BASE.match(gold)) is not None:
        return [f"{found['digits']}_{int(found['base']) + 1}", f"{found['digits']}1_{found['base']}"]
    if (found := _TUPLE.match(gold)) is not None:
        first, second = found["first"].strip(), found["second"].strip()
        return [f"({second}, {first}{found['rest']})"] if first != second else []
    if (percent := percentage(gold)) is not None and percent.number != 0:
        return [
            f"{percent.number + 1}{percent.sign}",
            f"{percent.hundredth}{percent.sign}",
            f"{percent.hundredfold}{percent.sign}",
        ]
    if (found := _CLOCK.match(gold)) is not None:
        hours, minutes = int(found["hours"]), int(found["minutes"])
        return [f"{hours}:{(minutes + 1) % 60:02d}", f"{hours % 12 + 1}:{minutes:02d}"]
    if (found := _UNIT.match(gold)) is not None:
        unit = found["unit"]
        other = _OTHER_UNITS.get(unit, "light years")
        return [f"{_plus(found['number'], 1)} {unit}", f"{found['number']} {other}"]
    if (found := _FRACTION.match(gold)) is not None:
        above, below = int(found["a"] or found["c"]), int(found["b"] or found["d"])
        return [f"{found['minus']}{above + 1}/{below}", f"{found['minus']}{above}/{below + 1}"]
    if _NUMBER.fullmatch(gold):
        return _other_numbers(gold)
    if re.fullmatch(r"\(?[A-J]\)?", gold):
        letters = sorted(set(_LETTERS.findall(question))) or list("ABCD")
        others = [letter for letter in letters if letter not in gold]
        return [*others[:3], *([", ".join(letters), " or ".join(letters)] if others else [])]
    if _RELATION.search(gold):
        return [_RELATION.sub(lambda found: _RELATIONS[found[1]], gold)]
    if gold.startswith(("[", "{")):
        return _other_calls(gold)
    if (found := _PROGRAM.fullmatch(gold)) is not None:  # what is said beside a program is none of it
        return [f"{found['opens']}{found['code']}{found['closes']}"]
    return [f"{gold} + 1"] if "\\" in gold else [f"not {gold}", f"{gold} or another"]


@dataclass(frozen=True)
class Percentage:
    """A number with a percent sign, and what it is confused with."""

    number: Decimal
    sign: str

    @property
    def hundredth(self) -> str:
        """The number that it is a hundred times of: the value as a part of 1."""
        return f"{self.number.scaleb(-2).normalize():f}"

    @property
    def hundredfold(self) -> str:
        """A hundred times the number."""
        return f"{self.number.scaleb(2).normalize():f}"


def percentage(gold: str) -> Percentage | None:
    """The percentage that an answer is; None where it is none."""
    found = _PERCENT.match(gold.strip())
    return None if found is None else Percentage(Decimal(found["number"].replace(",", "")), found["sign"])


def has_number(gold: str) -> bool:
    """Whether an answer is a number."""
    return _NUMBER.fullmatch(gold.strip()) is not None


def written_variants(gold: str) -> list[str]:
    """The same answer as models write it; [] for what is written in one way alone."""
    gold = gold.strip()
    if has_number(gold):
        plain = gold.replace(",", "").lstrip("+")
        whole = plain.lstrip("-").partition(".")[0]
        grouped = f"{int(whole):,}".join(("-" if plain.startswith("-") else "", plain.partition(whole)[2]))
        return [f"{plain}.0" if "." not in plain else f"{plain}0", *([grouped] if len(whole) > 3 else [])]
    if (found := _FRACTION.match(gold)) is not None:
        above, below = found["a"] or found["c"], found["b"] or found["d"]
        return [f"{found['minus']}\\frac{{{above}}}{{{below}}}", f"{found['minus']}{above}/{below}"]
    return [f" {gold.strip('()')} "] if re.fullmatch(r"\(?[A-J]\)?", gold) else []


def _plus(number: str, added: int) -> str:
    try:
        return f"{Decimal(number.replace(',', '')) + added}"
    except InvalidOperation:
        return f"{number}{added}"


def _other_numbers(gold: str) -> list[str]:
    plain = gold.replace(",", "").lstrip("+")
    if Decimal(plain) == 0:
        return ["1", "-1", "10"]
    negative = plain[1:] if plain.startswith("-") else f"-{plain}"
    longer = f"{plain}0000000" if "." not in plain else f"{plain}7"
    return [_plus(plain, 1), longer, f"1{plain.lstrip('-')}", negative]


def as_calls(answer: str) -> str:
    """A list of tool calls as a model writes them, a line for the name and one for the input; other answers as they
    stand.
    """
    calls = _calls(answer)
    written = [f"Action: {one['Action']}\nAction Input: {_input_text(one)}" for one in calls]
    return "\n".join(written) if written else answer


def _calls(answer: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(answer)
    except ValueError:
        return []
    whole = isinstance(found, list) and all(isinstance(one, dict) and "Action" in one for one in found)
    return found if whole else []


def _input_text(call: dict[str, Any]) -> str:
    given = call.get("Action_Input", {})
    return given if isinstance(given, str) else json.dumps(given)


def _other_calls(gold: str) -> list[str]:
    """A call made twice, another tool, another input; [] for what is no list of calls."""
    if not (calls := _calls(gold)):
        return []
    first, *rest = calls
    others = [[first, *calls], [{**first, "Action": f"{first['Action']}2"}, *rest]]
    others.append([{**first, "Action_Input": '{"another": "input"}'}, *rest])
    return [json.dumps(one) for one in others]


def beside(gold: str, question: str = "") -> list[str]:
    """Other answers of the kind of a gold one, to be guessed beside it; [] for a text of which nothing is known."""
    gold = gold.strip()
    if has_number(gold):
        return [_plus(gold, added) for added in (1, 2)]
    if re.fullmatch(r"\(?[A-J]\)?", gold):
        letters = sorted(set(_LETTERS.findall(question))) or list("ABCD")
        return [gold.replace(gold.strip("()"), letter) for letter in letters if letter not in gold]
    if _BASE.match(gold) or _CLOCK.match(gold) or _UNIT.match(gold) or _FRACTION.match(gold):
        return wrong_variants(gold, question)
    return []
