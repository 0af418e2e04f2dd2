"""Samples that are asked for while others are drawn: what votes that stop early tell an engine that can take more.

samples.first("q1")          # [0, 1, 2]: wanted from the beginning
samples.further(completion)  # [3, 4] where this one was the last that the question's vote waited for, else []
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from nsd.plugins.data import Completion, StopReason


class GrowingSamples(Protocol):
    """Sample numbers of questions. What is asked of a question follows from its own completions alone.

    So the samples that are drawn in the end are the same, in whatever order they are drawn and told. Each completion is
    told once, by one thread at a time.
    """

    def first(self, question_id: str) -> Sequence[int]:
        """The samples of a question that are wanted from the beginning; none where it has all that it needs."""
        ...

    def further(self, completion: Completion) -> Sequence[int]:
        """Take a completion, failed or not, as soon as it is written: the samples of its question wanted next."""
        ...


def refused_while_asked(why: Mapping[str, str], samples: GrowingSamples) -> Iterator[Completion]:
    """The failed completions of prompts that a model cannot take, as long as more are wanted; `why` by question id."""
    for question, reason in why.items():
        waiting = list(samples.first(question))
        for sample in waiting:  # grows
            failed = Completion(question, sample, "", 0, StopReason.ERROR, reason)
            waiting.extend(samples.further(failed))
            yield failed
