"""The majority vote that the `consensus` labeler and the `maj_at_k` protocol share.

Votes are counted over `Verifier.group` classes of normalised answers. A class goes by the answer in it that was given
most often (of equals the one earlier in the order of texts), which every answer of the class is the same as. Ties go
to the class seen first; that tie rule is all that depends on the order of the samples.

A weighted vote counts each sample by how sure the model was of it (DeepConf, Fu et al. 2025, arXiv 2508.15260).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nsd.plugins.api import Confidence, Verifier


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


@dataclass(frozen=True)
class WeightedVote:
    """Outcome of a weighted vote: the winner's share of the weight of all samples, and how many agree with it."""

    winner: str | None
    share: float
    votes: int


def weight(confidence: Confidence, by: str) -> float:
    """A sample's weight: a field of its Confidence; of log-probabilities the probability, which is positive."""
    value = float(getattr(confidence, by))
    return math.exp(value) if by.startswith("logprob") else value


def weighted(
    answers: Sequence[str | None], weights: Sequence[float], verifier: Verifier, top: float = 1.0
) -> WeightedVote:
    """Vote in which each answer counts its weight (positive); the classes are those of the plain vote of all answers.

    Of the n samples the round(top * n) with most weight vote, one at least, the earlier of equals; the others are left
    out altogether. A sample without an answer has no vote, and its weight stays in the denominator. Ties go to the
    class seen first.
    """
    count = min(len(answers), max(1, round(top * len(answers))))
    chosen = sorted(sorted(range(len(answers)), key=lambda index: (-weights[index], index))[:count])
    answers, weights = [answers[index] for index in chosen], [weights[index] for index in chosen]
    sums: dict[int, float] = {}
    classes = verifier.group(answers)
    for found, one in zip(classes, weights, strict=True):
        if found is not None:
            sums[found] = sums.get(found, 0.0) + one
    if not sums:
        return WeightedVote(None, 0.0, 0)
    winner = max(sums, key=lambda found: sums[found])
    given = Counter(answer for answer, found in zip(answers, classes, strict=True) if found == winner and answer)
    name = min(given, key=lambda text: (-given[text], text))
    return WeightedVote(name, sums[winner] / math.fsum(weights), sum(given.values()))
