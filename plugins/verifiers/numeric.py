"""`numeric`: the final number of a completion, in four stages, first that hits.

1. the first number after `####`; 2. the first `\\boxed{number}`; 3. the first number after `answer is`
(any case); 4. the last number anywhere. These are the stages of the noisy-student study.

A number has ASCII digits, commas among them dropped, an optional decimal part. A trailing dot is a full
stop; a comma alone is no number. Dollar, euro and pound signs and bold asterisks may stand before it in
stages 1 to 3, a percent sign or a `\\text{unit}` after it in a box. A minus (ASCII or U+2212) counts
directly before the digits and not after a letter, digit or closing bracket, so `10-5` ends in 5; in stages 1 to
3 also before a currency sign. In stage 4, as in the study, `-$5` is read as 5.

A bare answer (`normalise`: a gold answer, a label) is read strictly: the whole text must be one number, or it has
none. Around it may stand blanks, one currency sign, a percent sign (18% is 18), a full stop, bold asterisks,
`$...$`, a whole box, or `####` before it; commas only between groups of three digits (`12,5` is no number, nor are
`3/4`, `5 1/2`, `1, 2` and `5 hours`); an exponent (`1e-05`) is read to its value.

The normal form is a plain decimal: no commas, no leading or trailing zeros, no `-0`: `18.`, `18.0` and `$18`
are all `18`. Two answers are the same if they differ by less than 1e-6, as in the study. That relation is not
transitive, so votes are counted over `Verifier.group`'s greedy classes, in which no order matters.

Limits: in completions fractions (`3/4`), scientific notation (`1e5`), number words, digits of other scripts and
decimal commas are not understood, as in the study; the last stage takes a step's number for an answer where no
answer was given.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from nsd.plugins.api import Verifier
from nsd.plugins.registry import plugin

TOLERANCE = Decimal("1e-6")
# Beyond this a string of digits is a runaway generation: compared as text, so that cost stays bounded.
LONGEST_COMPARED = 100

# Possessive quantifiers (`*+`): every pattern is linear in the text, whatever a model writes.
_NUMBER = (
    r"(?P<minus>(?<![\w)\]}])[-\u2212])?"
    r"(?P<digits>[0-9][0-9,]*+(?:\.[0-9]++)?+|(?<![\w.])\.[0-9]++)"
)
_CURRENCY = r"\\?[$€£]"
# A minus before the currency sign: -$5.
_DEBT = rf"(?:(?P<debt>[-\u2212]){_CURRENCY}\s*+)?"
_BEFORE = rf"[\s*$€£\\]*+{_DEBT}"
_STAGES = (
    re.compile(rf"####{_BEFORE}{_NUMBER}"),
    re.compile(rf"\\boxed\s*+\{{{_BEFORE}{_NUMBER}\.?(?:\\?%|\\text\s*+\{{[^{{}}]*+\}}|\\?\s|\$)*+\}}"),
    re.compile(rf"answer is[\s:*$€£\\]*+{_DEBT}{_NUMBER}", re.IGNORECASE),
)
_ANYWHERE = re.compile(_NUMBER)
_BARE = re.compile(
    rf"(?P<debt>[-+\u2212])?+\s*+(?:{_CURRENCY}\s*+)?+(?P<minus>[-+\u2212])?+"
    r"(?P<digits>[0-9]{1,3}(?:,[0-9]{3})++(?:\.[0-9]*+)?+|[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)"
    rf"(?:[eE](?P<exponent>[-+]?[0-9]{{1,3}}))?+\s*+(?:\\?%|{_CURRENCY})?+\s*+\.?+"
)
_WRAPPED = re.compile(
    r"#++(.*+)|\\boxed\s*+\{([^{}]*+)\}\.?+|\$([^$]*+)\$\.?+|\*\*([^*]*+)\*\*\.?+",
    re.DOTALL,
)
_WRAPPINGS = 4  # `#### **$18$**` is as deep as anybody writes
_LATEX_COMMA = re.compile(r"\{,\}|,\\!")


def bare_number(text: str) -> str | None:
    """The number that a text is, in normal form; None where it is anything else or more. Linear in the text."""
    text = _LATEX_COMMA.sub(",", text.strip())
    for _ in range(_WRAPPINGS):
        if whole := _WRAPPED.fullmatch(text):
            text = next(group for group in whole.groups() if group is not None).strip()
    match = _BARE.fullmatch(text)
    if match is None or (match["debt"] and match["minus"]):
        return None
    digits = match["digits"].replace(",", "")
    if match["exponent"] is not None:
        digits = format(Decimal(f"{digits}e{match['exponent']}"), "f")
    return _normal_form(digits, negative=_is_negative(match))


def _normal_form(digits: str, negative: bool) -> str:
    # Done on strings: int() refuses more than 4300 digits and float() loses some.
    whole, _, fraction = digits.partition(".")
    whole = whole.lstrip("0") or "0"
    fraction = fraction.rstrip("0")
    number = f"{whole}.{fraction}" if fraction else whole
    return f"-{number}" if negative and number != "0" else number


def _is_negative(match: re.Match[str]) -> bool:
    return any(sign in ("-", "\u2212") for sign in (match["minus"], match.groupdict().get("debt")))


def _found(match: re.Match[str]) -> str:
    return _normal_form(match["digits"].replace(",", ""), negative=_is_negative(match))


@plugin("verifier", "numeric")
class Numeric(Verifier):
    """The final number of a completion; equal within 1e-6."""

    version = 2

    def extract(self, completion: str) -> str | None:
        """The number in normal form, None where there is none. Never raises; linear in the text."""
        for stage in _STAGES:
            if match := stage.search(completion):
                return _found(match)
        last = None
        for last in _ANYWHERE.finditer(completion):  # noqa: B007 (the last one is wanted)
            pass
        return None if last is None else _found(last)

    def normalise(self, answer: str) -> str | None:
        """The number that the answer is, None where it is not wholly one number."""
        return bare_number(answer)

    def recorded(self, answer: str) -> str | None:
        """As in a completion: other tools record units and whole sentences."""
        return self.extract(answer)

    def same(self, a: str, b: str) -> bool:
        """|a - b| < 1e-6 for numbers, equal stripped text for anything else."""
        if a == b:
            return True
        if max(len(a), len(b)) > LONGEST_COMPARED:
            return False
        try:
            return abs(Decimal(a) - Decimal(b)) < TOLERANCE
        except InvalidOperation:
            return a.strip() == b.strip()
