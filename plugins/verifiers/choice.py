"""`choice`: the letter of a multiple-choice answer, in the last `<answer>...</answer>` of a completion.

What stands between the tags, without the blanks around it, must be one capital letter and nothing else: prose, a lower
case letter or a restated option is no answer. A bare answer (`normalise`: a gold answer, a label) is that letter
itself. There is no feedback. This is how SDPO's study judges SciKnowEval (arXiv 2601.20802).
"""

from __future__ import annotations

import re

from nsd.plugins.api import Verifier
from nsd.plugins.registry import plugin

_OPEN, _CLOSE = "<answer>", "</answer>"
_LETTER = re.compile("[A-Z]")


@plugin("verifier", "choice")
class Choice(Verifier):
    """The letter chosen, by exact equality."""

    def extract(self, completion: str) -> str | None:
        """The letter between the last pair of tags; None where anything else stands there, or nothing."""
        end = completion.rfind(_CLOSE)
        start = completion.rfind(_OPEN, 0, end) if end >= 0 else -1
        return self.normalise(completion[start + len(_OPEN) : end]) if start >= 0 else None

    def normalise(self, answer: str) -> str | None:
        """The letter that a text is."""
        letter = answer.strip()
        return letter if _LETTER.fullmatch(letter) else None
