"""The majority vote that the `consensus` labeler and the `maj_at_k` protocol share.

Votes are counted over `Verifier.group` classes of normalised answers. A class goes by the answer in it that was given
most often (of equals the one earlier in the order of texts), which every answer of the class is the same as. Ties go
to the class seen first; that tie rule is all that depends on the order of the samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nsd.plugins.api import Verifier


@dataclass(frozen=True)
class Vote:
    """Outcome of a vote. `tally` maps each class's most frequent answer to its votes, in order of first sight.

    `agreeing` are the positions of the answers in the winning class, ascending; empty where nobody answered.
    """

    winner: str | None
    agreeing: list[int]
    tally: dict[str, int]

    @property
    def votes(self) -> int:
        return len(self.agreeing)


def majority(answers: Sequence[str | None], verifier: Verifier) -> Vote:
    """Vote over normalised answers; None is an abstention."""
    classes = verifier.group(answers)
    counts = Counter(found for found in classes if found is not None)  # in order of first sight
    if not counts:
        return Vote(winner=None, agreeing=[], tally={})
    winner = max(counts, key=lambda found: counts[found])  # max keeps the first of equals
    given: dict[int, Counter[str]] = {found: Counter() for found in counts}
    for answer, found in zip(answers, classes, strict=True):
        if answer is not None and found is not None:
            given[found][answer] += 1
    names = {found: min(texts, key=lambda text: (-texts[text], text)) for found, texts in given.items()}
    return Vote(
        winner=names[winner],
        agreeing=[index for index, found in enumerate(classes) if found == winner],
        tally={names[found]: votes for found, votes in counts.items()},
    )
