"""A verifier, for file_wrong_kind.yaml, which wants a labeler."""

from __future__ import annotations

from nsd.plugins.api import Verifier
from nsd.plugins.registry import plugin


@plugin("verifier", "last_word_of_a_test")
class LastWord(Verifier):
    """The last word is the answer."""

    def extract(self, completion: str) -> str | None:
        words = completion.split()
        return words[-1] if words else None
