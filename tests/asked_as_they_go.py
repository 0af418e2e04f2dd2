"""Samples that are asked for by what was said, for tests of engines that take them while they draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nsd.plugins.api import Completion, Labeler, Question, Request, Sampling, Verifier
from nsd.runner.work.rounds import Growing, Place, Wanted

MOST = 6


class Fickle(Labeler):
    """Wants two samples, then one or two more for as long as the letters of the last one are no multiple of four."""

    in_rounds = True

    def sampling(self) -> Sampling:
        return Sampling(MOST, 1.0, 12)

    def more(self, question: Question, completions: Sequence[Completion], verifier: Verifier) -> int:
        if not completions:
            return 2
        letters = len(completions[-1].text)
        return 0 if letters % 4 == 0 else min(1 + letters % 2, MOST - len(completions))


def asked_of(requests: Sequence[Request], held: Mapping[Place, Completion] | None = None) -> Growing:
    """What it wants of questions of which some samples are there."""
    wanted = Wanted(Fickle(), None, MOST, 1)
    return wanted.growing([Question(one.question_id, str(one.prompt)) for one in requests], held or {})


def asked_for(requests: Sequence[Request], full: Mapping[Place, Completion]) -> set[Place]:
    """What it asks for in all, of all samples: told one question after the other."""
    found = set()
    for one in requests:
        there = [full[one.question_id, sample] for sample in range(MOST)]
        upto = Fickle().asked(Question(one.question_id, ""), there, Verifier())
        found |= {(one.question_id, sample) for sample in range(min(MOST, upto))}
    return found
