"""Failed completions, and the stage that drew them.

    found = failures(completions)                     # None where none failed
    found.most, found.sentence()                      # True from a half on; "12 of 20 completions failed: ..."

A failed completion (stop reason ERROR) scores 0 and has no vote, whatever its text says. Where at least half of a
stage's completions failed, the stage has measured the failure and not the model, so it is a failed stage.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
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


def failures(completions: Sequence[Completion]) -> Failures | None:
    """Count the failed ones; None where none failed. Reasons that differ in their numbers alone are of one kind."""
    reasons = [_reason(completion) for completion in completions if completion.failed]
    if not reasons:
        return None
    kinds = [_WITH_A_DIGIT.sub("#", reason) for reason in reasons]
    kind, alike = Counter(kinds).most_common(1)[0]
    shown = Counter(reason for reason, its in zip(reasons, kinds, strict=True) if its == kind).most_common(1)[0][0]
    return Failures(len(reasons), len(completions), alike, shown)


def _reason(completion: Completion) -> str:
    reason = " ".join((completion.error or "").split()) or "no reason was given"
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 3] + "..."


def without_failed_text(completion: Completion) -> Completion:
    """The completion as a vote or a protocol may see it: a failed one has no text to be read or trained on."""
    return replace(completion, text="") if completion.failed else completion
