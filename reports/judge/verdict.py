"""The eight verdicts, and everything that is asked of one: what it shows, its mark, its words.

    verdict = Verdict.BETTER
    verdict.apart, verdict.turned, verdict.mark         # True, Verdict.WORSE, "▲"

A verdict speaks of b, or of the first of the pair on a page. A verdict is text: JSON, CSV and a page hold its value.
"""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """What the data say of a pair. HIGHER and LOWER: of a metric of which more is neither better nor worse.

    DIFFERS: the difference is not the same in all groups of questions.
    """

    BETTER = "BETTER"
    WORSE = "WORSE"
    HIGHER = "HIGHER"
    LOWER = "LOWER"
    EQUIVALENT = "EQUIVALENT"
    NOT_WORSE = "NOT WORSE"
    DIFFERS = "DIFFERS"
    UNRESOLVED = "UNRESOLVED"

    @property
    def resolved(self) -> bool:
        """Whether the data decide anything: a difference, or that there is none beyond a margin."""
        return self is not Verdict.UNRESOLVED

    @property
    def direction(self) -> int:
        """1 for a difference shown upwards, -1 downwards, 0 for none shown."""
        return {Verdict.BETTER: 1, Verdict.HIGHER: 1, Verdict.WORSE: -1, Verdict.LOWER: -1}.get(self, 0)

    @property
    def apart(self) -> bool:
        """Whether a difference is shown."""
        return self.direction != 0

    @property
    def neutral(self) -> bool:
        """Whether the difference is shown of a metric of which more is neither better nor worse."""
        return self in (Verdict.HIGHER, Verdict.LOWER)

    @property
    def as_neutral(self) -> Verdict:
        """The same of a metric of which more is neither better nor worse."""
        return {Verdict.BETTER: Verdict.HIGHER, Verdict.WORSE: Verdict.LOWER}.get(self, self)

    @property
    def turned(self) -> Verdict:
        """The verdict on the same pair, read the other way round."""
        return _TURNED.get(self, self)

    @property
    def mark(self) -> str:
        """A sign that tells it apart without its colour."""
        return _MARKS[self]

    @property
    def words(self) -> str:
        """What it says of the first of a pair, for a key."""
        return _WORDS[self]

    @property
    def marker(self) -> str:
        """Matplotlib's marker."""
        return _MARKERS[self]

    @property
    def colour(self) -> str:
        """The colour's name on a page: better, worse, same or unsure."""
        if self.apart:
            return "better" if self.direction > 0 else "worse"
        return "same" if self.resolved else "unsure"

    @property
    def style(self) -> str:
        """The colour on a screen, "" for none."""
        return {Verdict.BETTER: "green", Verdict.WORSE: "red"}.get(self, "")


_TURNED = {
    Verdict.BETTER: Verdict.WORSE,
    Verdict.WORSE: Verdict.BETTER,
    Verdict.HIGHER: Verdict.LOWER,
    Verdict.LOWER: Verdict.HIGHER,
}
_MARKS = {
    Verdict.BETTER: "▲",
    Verdict.HIGHER: "▲",
    Verdict.WORSE: "▼",
    Verdict.LOWER: "▼",
    Verdict.EQUIVALENT: "■",
    Verdict.NOT_WORSE: "◆",
    Verdict.DIFFERS: "◇",
    Verdict.UNRESOLVED: "○",
}
_MARKERS = {
    Verdict.BETTER: "^",
    Verdict.HIGHER: "^",
    Verdict.WORSE: "v",
    Verdict.LOWER: "v",
    Verdict.EQUIVALENT: "s",
    Verdict.NOT_WORSE: "D",
    Verdict.DIFFERS: "d",
    Verdict.UNRESOLVED: "o",
}
_WORDS = {
    Verdict.BETTER: "first is better",
    Verdict.WORSE: "first is worse",
    Verdict.HIGHER: "first is higher",
    Verdict.LOWER: "first is lower",
    Verdict.EQUIVALENT: "within the margin on both sides",
    Verdict.NOT_WORSE: "within the margin",
    Verdict.DIFFERS: "not the same in all groups",
    Verdict.UNRESOLVED: "not told apart",
}
