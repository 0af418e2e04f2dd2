"""`final_answer`: the number that a completion states as its answer; of several statements the last one counts.

A statement is `#### 18`, `\\boxed{18}`, `<answer>18</answer>`, `the answer is 18` (also `answer: 18`, `final answer
should be 18`), or after a word of correction (`wait`, `actually`, `no`, `correction`, `sorry`) `it is 18` or `should be
18`. A correction with a number alone (`18, no, 19`, `18. Sorry, 19.`) counts after a statement, and a statement that is
called wrong and not corrected (`18 (wrong)`) leaves no answer. A text without a statement has no answer: no number is
picked up from its working. A statement that ends in a calculation (`5 + 13 = 18`) states what stands behind the last
equals sign.

A number may have thousands separators (commas, blanks or underscores between groups of three digits), a currency sign,
a sign, decimals, an exponent, a fraction (`3/4`, `\\frac{3}{4}`), a mixed number (`1 1/2`), a percent sign, a scale in
words (`1.8 thousand`, `2 dozen`, `18k`, `$18M`), and a unit or words behind it. Where words make another number of it
that is not worked out here (`18 and a half`, `18 squared`, `18 minus 3`, `\\boxed{18!}`), where it is part of an
expression (`18x`, `18\\pi`, `(18)(2)`) and where two are offered (`18 or 19`), there is no answer; `18!` in a sentence
is an exclamation. Its normal form is a fraction in lowest terms, so that `0.75`, `3/4` and `\\frac{3}{4}`
are one answer and `18%` is 18; two answers are the same where their normal forms are, so that votes count them by hash.

Which to take: `numeric` where published numbers of the noisy-student study are to be compared with, `math` where
answers are expressions, this one where a reward must not be earned by a number that happens to stand last.

Limits: numbers in words and decimal commas are not understood; of a list (`18, 19`) the first number counts.
"""

from __future__ import annotations

import re
from fractions import Fraction

from nsd.plugins.api import Verifier
from nsd.plugins.registry import plugin

LONGEST = 60  # digits; a longer string of them is a runaway generation and no answer
_EXPONENT = 30

# Possessive quantifiers (`*+`) and 200 characters of a statement: the patterns are linear in the text, whatever a model
# writes. What is stated is looked at and not consumed, for a line may hold several statements.
_STATEMENT = re.compile(
    r"""
      \#\#\#\#\s*+(?=(?P<hashes>[^\n]{1,200}))
    | \\boxed\s*+\{(?P<box>(?:[^{}]|\{[^{}]*+\})*+)\}
    | <answer>(?P<tag>[^<]*+)</answer>
    | \banswer(?:\s++(?:is|equals|should\s++be|must\s++be|would\s++be)|\s*+[:=])\s*+:?(?=(?P<said>[^\n]{0,200}))
    | \b(?:wait|actually|no\s*+,|correction|sorry|oops|rather)(?!\w)[^.\n]{0,40}?
      \b(?:it\s++is|it's|should\s++be|must\s++be)\b(?=(?P<corrected>[^\n]{0,200}))
    | \b(?:no|wait|sorry|oops|hmm|correction|scratch\s++that|i\s++mean|make\s++that)\s*+[,:]?\s*+
      (?=(?P<again>[*$\-\u2212]{0,4}[0-9][0-9,./]{0,60}[*$]{0,4}\s*+(?:[.!)\]](?:\s|$)|$|\n)))
    """,
    re.IGNORECASE | re.VERBOSE,
)
_BEFORE = (
    r"[\s*:(\"'`]*+(?:about|approximately|exactly|simply|just|now|then)?[\s*]*+\$?(?:\\boxed\{|\\\(|\\text\{)?\s*+"
)
_SIGN = r"(?P<sign>[-+\u2212]?)\s*+(?:\\?[$€£]\s*+)?(?P<inner>[-\u2212]?)"
_INTEGER = r"[0-9]{1,3}(?:(?:,|_|\\,|\ |\u00a0|\u202f)[0-9]{3})++(?![0-9])|[0-9]++"
_NUMBER = re.compile(
    rf"""{_BEFORE}{_SIGN}(?:
      \\[dt]?frac\s*+\{{\s*+(?P<above>[0-9]++)\s*+\}}\s*+\{{\s*+(?P<below>[0-9]++)\s*+\}}
    | (?:(?P<whole>[0-9]++)\s++)?(?P<top>[0-9]++)\s*+/\s*+(?P<bottom>[0-9]++)(?![0-9./])
    | (?P<mixed>[0-9]++)\s*+\\[dt]?frac\s*+\{{\s*+(?P<over>[0-9]++)\s*+\}}\s*+\{{\s*+(?P<under>[0-9]++)\s*+\}}
    | (?P<digits>(?:{_INTEGER})(?:\.[0-9]++)?|\.[0-9]++)(?:[eE](?P<exponent>[-+]?[0-9]{{1,3}})(?![0-9]))?
    )""".replace("\n", ""),
    re.VERBOSE,
)
# What may stand before the last equals sign of a statement that is a calculation: a name, numbers and signs.
_CALCULATION = re.compile(
    r"[\s*:$]*+(?:[A-Za-z]{1,12}\s*+(?:=|$))?+(?:[\s\d.+\-*/×·÷^()=$€£%{}]|\\(?:times|cdot|div|d?frac)(?![A-Za-z]))*+"
)
_NO_PLAIN_NUMBER = ""
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES |= {"k": 10**3, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9}
_IN_WORDS = r"[\s*}-]*+(?:\\?text\s*+\{\s*+)?(dozen|hundred|thousand|million|billion|trillion)s?+(?![A-Za-z])"
_SCALE = re.compile(rf"{_IN_WORDS}|(k)(?![A-Za-z])", re.IGNORECASE)
_SCALE_OF_MONEY = re.compile(rf"{_IN_WORDS}|\s?+(k|mn?|bn?)(?![A-Za-z])", re.IGNORECASE)
_COUNT = r"(?:[$(\\]*+[0-9]|(?:one|two|three|four|five|six|seven|eight|nine|ten|a|an)\b)"
_PART = r"(?:half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?)\b"
_CHANGED = re.compile(
    rf"""[\s*}}]*+(?:\\?text\s*+\{{\s*+)?(?:
      (?:minus|plus|over|mod|modulo|divided\s+by|multiplied\s+by|to\s+the\s+power(?:\s+of)?)\s++{_COUNT}
    | times\s++(?!an?\b){_COUNT}
    | (?:squared|cubed|factorial|negative)\b
    | (?:tenth|hundredth|thousandth|millionth)s?\b
    | and\s++(?:{_COUNT}[\s-]++)?{_PART}
    | and\s++[0-9]++\s*+/\s*+[0-9]
    | [0-9]{{1,12}}\s++(?:hundred|thousand|million)
    | (?:less|more|fewer)\s++than\s++{_COUNT}
    | (?:\\?%|percent)\s++of\s++{_COUNT}
    | (?:in\s++)?base\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
# A number that is part of an expression or a range, or one of several: 18pi, 18x, (18)(2), 18±1, 18–20, 18 or 19.
_EXPRESSION = re.compile(
    r"""\s*+\*\*\s*+[0-9(]
    | [\s*$}]*+(?:
      \)\s*+\(
    | \([-\u2212]?[0-9]++\)
    | ,\s++[0-9]++(?:\s*+,\s*+(?:(?:or|and)\s++)?[0-9]++)*+[\s.*$}]*+$
    | [±\u00b1√π]
    | \\(?:pi|sqrt|pm)(?![A-Za-z])
    | [\u2013\u2014]\s*+[0-9]
    | pi\b
    | (?:or|to)\s++[$(\\]*+[-\u2212]?[0-9]
    | (?:\\?text\s*+\{\s*+)or\b
    )
    | [xyzni](?![A-Za-z])
    | \s*+[+]\s*+[a-z](?![A-Za-z])
    """,
    re.VERBOSE,
)
_WRONG = re.compile(
    r"[\s,;:(\[*\u2014\u2013-]*+(?:(?:is|was|that's|which\s+is)\s++)?(?:wrong|incorrect)\b", re.IGNORECASE
)
_CORRECTED = re.compile(
    r"[\s,;:.(\[*\u2014\u2013-]*+(?:(?:or|is|was)\s++)?"
    r"(?:no|wait|actually|correction|sorry|oops|hmm|rather(?!\s+than)|scratch\s+that|i\s+mean|make\s+that|wrong|incorrect)\b"
    r"[^0-9A-Za-z$\-\u2212\n]{0,10}"
    r"(?:(?:it|that|the\s+answer|make|should|must|is|be|it's|that's)\b[^0-9A-Za-z$\-\u2212\n]{0,4}){0,4}"
    r"(?=[$*\-\u2212]{0,4}[0-9])",
    re.IGNORECASE,
)
_NO_DIGITS = re.compile(r"[,_\\\s\u00a0\u202f]")


@plugin("verifier", "final_answer")
class FinalAnswer(Verifier):
    """The last number that is stated as the answer."""

    version = 3

    def extract(self, completion: str) -> str | None:
        """Normal form of the last statement that holds a number, None where there is none."""
        found = None
        for statement in _STATEMENT.finditer(completion):
            said = next(part for part in statement.groups() if part is not None)
            if statement["again"] is not None and found is None:
                continue  # it corrects nothing
            exact = statement["box"] is not None or statement["tag"] is not None
            if exact and not said.strip():  # what is stated last is nothing
                found = None
            elif (read := _read(said, exact=exact)) is not None:
                found = None if read == _NO_PLAIN_NUMBER else read
        return found

    def normalise(self, answer: str) -> str | None:
        """A bare answer: a number and what may stand around it, or a statement."""
        read = self.extract(answer) or _read(answer, whole=True, exact=True)
        return None if read == _NO_PLAIN_NUMBER else read


def _read(said: str, whole: bool = False, exact: bool = False) -> str | None:
    """The number that a statement begins with, or that its calculation ends in.

    `_NO_PLAIN_NUMBER` where words make another number of it, or call it wrong. `exact`: a box or tag, where `18!` is a
    factorial.
    """
    sentence = re.split(r"(?<=[.!?;])\s", said, maxsplit=1)[0]
    calculation, _, result = sentence.rpartition("=")
    stated = _CALCULATION.fullmatch(calculation) and calculation.count("(") == calculation.count(")")
    text = result if calculation and stated else sentence
    found = _NUMBER.match(text)
    if found is None:
        return None
    rest = text[found.end() :]
    if correction := _CORRECTED.match(rest):
        corrected = _read(rest[correction.end() :])
        return _NO_PLAIN_NUMBER if corrected is None else corrected
    scale, money = Fraction(1), bool(re.search(r"[$€£]", found[0]))
    while behind := (_SCALE_OF_MONEY if money else _SCALE).match(rest):
        word = next(part for part in behind.groups() if part is not None).lower()
        scale *= _SCALES[word]
        rest = rest[behind.end() :]
    if _WRONG.match(rest) or _CHANGED.match(rest) or _EXPRESSION.match(rest) or (exact and rest.startswith("!")):
        return _NO_PLAIN_NUMBER
    # 3 x 4 or 3-4 is no number; what a bare answer has behind its number is a unit at most.
    if re.match(r"\s*+(?:[-+*/^x×·÷−]\s*+[0-9(\\]|\\(?:times|cdot|div|pm|sqrt)|[.,:][0-9]|[A-Za-z_]*+[0-9])", rest):
        return None
    if whole and not re.fullmatch(r"[\s.%$€£°*})\]\\]*+(?:(?:text|mathrm)\s*+\{)?[A-Za-z°\s/%.^0-9{}()$*\\]*+", rest):
        return None
    value = _value(found)
    if value is not None:
        value *= scale
    return (
        None
        if value is None
        else str(-value if (found["sign"] in "-\u2212" and found["sign"]) or found["inner"] else value)
    )


def _value(found: re.Match[str]) -> Fraction | None:
    parts = {name: text for name, text in found.groupdict().items() if text}
    if any(len(text) > LONGEST for text in parts.values()):
        return None
    for whole, above, below in ((None, "above", "below"), ("whole", "top", "bottom"), ("mixed", "over", "under")):
        if above in parts:
            if int(parts[below]) == 0:
                return None
            return int(parts.get(whole, "0") if whole else "0") + Fraction(int(parts[above]), int(parts[below]))
    exponent = int(parts.get("exponent", "0"))
    if abs(exponent) > _EXPONENT:
        return None
    return Fraction(_NO_DIGITS.sub("", parts["digits"])) * Fraction(10) ** exponent
