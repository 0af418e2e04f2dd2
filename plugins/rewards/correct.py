"""`correct`: 1 for a completion whose answer equals the (pseudo-)label by the spec's verifier, else 0."""

from __future__ import annotations

from collections.abc import Sequence

from nsd.plugins.api import Question, Reward, Verifier
from nsd.plugins.registry import plugin


@plugin("reward", "correct")
class Correct(Reward):
    """Correctness against the label."""

    def rewards(
        self,
        completions: Sequence[str],
        questions: Sequence[Question],
        truncated: Sequence[bool],
        verifier: Verifier,
    ) -> list[float]:
        """1.0 or 0.0 for each completion."""
        return [
            float(verifier.score(completion, question).correct)
            for completion, question in zip(completions, questions, strict=True)
        ]
