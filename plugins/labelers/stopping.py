"""When a vote of K samples may stop before all are drawn: a lower bound of how many more samples it needs.

    exact(answers, Ballot(k=8, need=6), verifier)           # 0: no continuation changes what the vote comes to
    adaptive(answers, Ballot(k=8, need=6), verifier, 0.95)
    windows(answers, Ballot(k=8, need=6), verifier, 4)

`answers` are those of the first samples, in order; None stays among the K and has no vote. Each function gives 0 where
the vote may stop, else a number of further samples before which it cannot; what is drawn so, and asked again, is what
is needed and no more.

**exact** stops where acceptance, winner, its label and its first text are decided. It is sound for every verifier whose
classes are `Verifier.group`'s, a tolerance that is not transitive included. With n of K answers seen and r to come:

- Rejected: no class can reach the votes that it needs. A class that holds an answer b has at most the answers that are
  the same as b, and r more; a class of answers not seen yet has r.
- Accepted: the answer a has the votes that are needed by itself. Nothing that is the same as a, seen or to come, can be
  given as often: classes form from the most frequent answer on, so a begins its class, keeps all its votes and gives
  the class its name. Every class without a, bounded as above, has fewer votes than a, or as many and is seen later. No
  other answer that is the same as a comes before the first a, so that the first text is a's.

Where `same` is equality a class is one text, and ties that go to the one seen first are enough.

**adaptive** also stops where the Beta integral over the two most frequent classes with v1 and v2 votes, the chance that
the first is the more likely one under a flat prior, reaches `confidence` (Aggarwal et al. 2023, arXiv 2305.11860, eq.
3): I_1/2(v2 + 1, v1 + 1), the chance of more than v2 heads in v1 + v2 + 1 throws of a coin.

**windows** also stops where the samples of a window, one after the other and of a fixed length, give one answer (ESC,
Li et al. 2024, arXiv 2401.10480).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nsd.plugins.api import Verifier

Answers = Sequence[str | None]

# The noisy-student study's winner's votes of 8, over 4,000 GSM8K problems: votes -> problems.
PUBLISHED_HISTOGRAM = {1: 597, 2: 936, 3: 648, 4: 475, 5: 363, 6: 305, 7: 287, 8: 389}
PUBLISHED_K = 8
SIMULATED = 2000  # questions; the standard error of the share is under 0.01


@dataclass(frozen=True)
class Ballot:
    """A vote of `k` samples in which a label takes `need` votes."""

    k: int
    need: int

    @classmethod
    def of(cls, k: int, threshold: float) -> Ballot:
        """The ballot of a threshold on votes / k, compared as the vote compares it; one vote at least."""
        return cls(k, next(votes for votes in range(1, k + 1) if votes / k >= threshold))


def exact(answers: Answers, ballot: Ballot, verifier: Verifier) -> int:
    """Further samples without which the vote cannot be decided; 0 where it is."""
    left = ballot.k - len(answers)
    if left <= 0 or _decided(answers, ballot, verifier):
        return 0
    most, second = _two_most([answer for answer in answers if answer is not None])
    accepted = max(ballot.need - most, -(-(second + left - most) // 2))
    rejected = most + left - ballot.need + 1
    return max(1, min(accepted, rejected, left))


def adaptive(answers: Answers, ballot: Ballot, verifier: Verifier, confidence: float) -> int:
    """As `exact`, and 0 also where the winner is the more likely answer with this chance."""
    surely = exact(answers, ballot, verifier)
    first, second = _two_most([found for found in verifier.group(answers) if found is not None])
    more = next(more for more in range(surely + 1) if more == surely or leads(first + more, second) >= confidence)
    return more


def windows(answers: Answers, ballot: Ballot, verifier: Verifier, length: int) -> int:
    """As `exact` at the end of each window, and 0 also where the last one is unanimous."""
    left, inside = ballot.k - len(answers), len(answers) % length
    if left <= 0:
        return 0
    if inside == 0 and answers:
        if exact(answers, ballot, verifier) == 0:
            return 0
        last = verifier.group(answers)[-length:]
        if last[0] is not None and len(set(last)) == 1:
            return 0
    return min(left, length - inside)


def leads(first: int, second: int) -> float:
    """Chance that the class with `first` votes is more likely than that with `second`, of the two (see above)."""
    throws = first + second + 1
    return float(sum(math.comb(throws, heads) for heads in range(second + 1, throws + 1)) / 2**throws)


def _two_most(given: Sequence[str | int]) -> tuple[int, int]:
    first, second, *_ = [*sorted(Counter(given).values(), reverse=True), 0, 0]
    return first, second


def _decided(answers: Answers, ballot: Ballot, verifier: Verifier) -> bool:
    left = ballot.k - len(answers)
    counts = Counter(answer for answer in answers if answer is not None)  # in order of first sight
    most = max(counts.values(), default=0)
    if most < ballot.need:  # a class may have more votes than each of its texts, never less
        return most + left < ballot.need and _rejected(counts, left, ballot.need, verifier)
    return any(_accepted(one, counts, left, verifier) for one, votes in counts.items() if votes == most)


def _rejected(counts: Mapping[str, int], left: int, need: int, verifier: Verifier) -> bool:
    if verifier.by_equality:
        return True
    reach = (sum(votes for other, votes in counts.items() if _alike(one, other, verifier)) for one in counts)
    return all(votes + left < need for votes in reach)


def _accepted(winner: str, counts: Mapping[str, int], left: int, verifier: Verifier) -> bool:
    mine = counts[winner]
    place = {answer: number for number, answer in enumerate(counts)}
    others = [answer for answer in counts if answer != winner]
    if verifier.by_equality:
        reach = ((counts[other] + left, place[other]) for other in others)
        return left <= mine and all(votes < mine or (votes == mine and at > place[winner]) for votes, at in reach)
    if left >= mine or any(counts[other] + left > mine for other in others):
        return False
    for other in others:
        if _alike(winner, other, verifier) and (counts[other] + left >= mine or place[other] < place[winner]):
            return False
        alike = [one for one in others if _alike(other, one, verifier)]
        votes, at = sum(counts[one] for one in alike) + left, min(place[one] for one in alike)
        if votes > mine or (votes == mine and at < place[winner]):
            return False
    return True


def _alike(a: str, b: str, verifier: Verifier) -> bool:
    return a == b or (verifier.same(a, b) and verifier.same(b, a))


def expected_share(
    more: Callable[[Answers], int], k: int, histogram: Mapping[int, int], of: int, simulated: int = SIMULATED
) -> float:
    """Share of K samples that a rule draws of questions whose winners have these votes of `of`: votes -> questions.

    `more` is the rule, by equal answers. Each question's K samples are simulated, from a seed: each gives the winner
    with its share of the votes, else an answer of its own. So it is a guess: wrong answers that repeat take more.
    """
    generator = random.Random(0)
    drawn = 0
    for votes in generator.choices(list(histogram), weights=list(histogram.values()), k=simulated):
        answers = [str(0 if generator.random() < votes / of else number) for number in range(1, k + 1)]
        seen = 0
        while seen < k and (further := more(answers[:seen])) > 0:
            seen = min(k, seen + further)
        drawn += seen
    return drawn / (k * simulated)
