"""Failed completions, and the stage that drew them.

    found = failures(completions)                     # None where none failed
    found.most, found.sentence()                      # True from a half on; "12 of 20 completions failed: ..."

A failed completion (stop reason ERROR) scores 0 and has no vote, whatever its text says. Where at least half of a
stage's completions failed, the stage has measured the failure and not the model, so it is a failed stage.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from nsd.plugins.api import Completion

LONGEST_REASON = 300
_WITH_A_DIGIT = re.compile(r"\w*\d\w*")


@dataclass(frozen=True)
class Failures:
    """`failed` of `drawn` completions failed, `alike` of them for the commonest kind of reason, such as `reason`."""

    failed: int
    drawn: int
    alike: int
    reason: str

    @property
    def most(self) -> bool:
        """Whether at least half failed."""
        return 2 * self.failed >= self.drawn

    def sentence(self) -> str:
        """How many and why."""
        count = f"{self.failed} of {self.drawn} completions failed"
        if self.alike == self.failed:
            return f"{count}: {self.reason}"
        return f"{count}, most often ({self.alike} of {self.failed}): {self.reason}"


class Failing:
    """Counts completions and the failed ones among them, as they come."""

    def __init__(self) -> None:
        self._drawn = 0
        self._reasons: Counter[str] = Counter()

    def add(self, completion: Completion) -> None:
        """One more."""
        self.tell((completion.error or "") if completion.failed else None)

    def tell(self, error: str | None) -> None:
        """One more, that failed for this reason; None: it did not."""
        self._drawn += 1
        if error is not None:
            self._reasons[_reason(error)] += 1

    def found(self) -> Failures | None:
        """The failed ones; None where none failed. Reasons that differ in their numbers alone are of one kind."""
        if not self._reasons:
            return None
        kinds: Counter[str] = Counter()
        for reason, count in self._reasons.items():
            kinds[_WITH_A_DIGIT.sub("#", reason)] += count
        kind, alike = kinds.most_common(1)[0]
        shown = next(reason for reason, _ in self._reasons.most_common() if _WITH_A_DIGIT.sub("#", reason) == kind)
        return Failures(self._reasons.total(), self._drawn, alike, shown)


def failures(completions: Iterable[Completion]) -> Failures | None:
    """Count the failed ones; None where none failed."""
    counting = Failing()
    for completion in completions:
        counting.add(completion)
    return counting.found()


def _reason(error: str) -> str:
    reason = " ".join(error.split()) or "no reason was given"
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 3] + "..."


def without_failed_text(completion: Completion) -> Completion:
    """The completion as a vote or a protocol may see it: a failed one has no text to be read or trained on."""
    return replace(completion, text="") if completion.failed else completion
