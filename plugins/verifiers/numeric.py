"""`numeric`: the final number of a completion, in four stages, first that hits.

1. the first number after `####`; 2. the first `\\boxed{number}`; 3. the first number after `answer is`
(any case); 4. the last number anywhere. These are the stages of the noisy-student study.

A number has ASCII digits, commas among them dropped, an optional decimal part. A trailing dot is a full
stop; a comma alone is no number. Dollar, euro and pound signs and bold asterisks may stand before it in
stages 1 to 3, a percent sign or a `\\text{unit}` after it in a box. A minus (ASCII or U+2212) counts only
directly before the digits and not after a letter, digit or closing bracket, so `10-5` ends in 5; as in the
study, `-$5` is read as 5.

The normal form is a plain decimal: no commas, no leading or trailing zeros, no `-0`: `18.`, `18.0` and `$18`
are all `18`. Two answers are the same if they differ by less than 1e-6, as in the study. That relation is not
transitive, so votes are counted over `Verifier.group`'s greedy classes, in which no order matters.

Limits: fractions (`3/4`), scientific notation (`1e5`), number words, digits of other scripts and decimal commas
are not understood; the last stage takes a step's number for an answer where no answer was given.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from plugins.api import Verifier
from plugins.registry import plugin

TOLERANCE = Decimal("1e-6")
# Beyond this a string of digits is a runaway generation: compared as text, so that cost stays bounded.
LONGEST_COMPARED = 100

# Possessive quantifiers (`*+`): every pattern is linear in the text, whatever a model writes.
_NUMBER = (
    r"(?P<minus>(?<![\w)\]}])[-\u2212])?"
    r"(?P<digits>[0-9][0-9,]*+(?:\.[0-9]++)?+|(?<![\w.])\.[0-9]++)"
)
_BEFORE = r"[\s*$€£\\]*+"
_STAGES = (
    re.compile(rf"####{_BEFORE}{_NUMBER}"),
    re.compile(rf"\\boxed\s*+\{{{_BEFORE}{_NUMBER}\.?(?:\\?%|\\text\s*+\{{[^{{}}]*+\}}|\\?\s|\$)*+\}}"),
    re.compile(rf"answer is[\s:*$€£\\]*+{_NUMBER}", re.IGNORECASE),
)
_ANYWHERE = re.compile(_NUMBER)


def _normal_form(match: re.Match[str]) -> str:
    # Done on strings: int() refuses more than 4300 digits and float() loses some.
    whole, _, fraction = match["digits"].replace(",", "").partition(".")
    whole = whole.lstrip("0") or "0"
    fraction = fraction.rstrip("0")
    number = f"{whole}.{fraction}" if fraction else whole
    return f"-{number}" if match["minus"] and number != "0" else number


@plugin("verifier", "numeric")
class Numeric(Verifier):
    """The final number of a completion; equal within 1e-6."""

    def extract(self, completion: str) -> str | None:
        """The number in normal form, None where there is none. Never raises; linear in the text."""
        for stage in _STAGES:
            if match := stage.search(completion):
                return _normal_form(match)
        last = None
        for last in _ANYWHERE.finditer(completion):  # noqa: B007 (the last one is wanted)
            pass
        return None if last is None else _normal_form(last)

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
