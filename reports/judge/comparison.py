"""One comparison of two arms, as data and as a sentence; `reports/judge/compare.py` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nsd.reports.judge.chance import Chance
from nsd.reports.judge.metrics import UNITS
from nsd.reports.judge.spread import ASSUMED_DISCORDANCE
from nsd.reports.judge.verdict import Verdict


@dataclass(frozen=True)
class Comparison:
    """b against a. Means are over the shared questions; None stands for "cannot be known from these data".

    `n`: shared questions (the smaller arm's where only counts are known). `ci`: interval of the difference,
    of `level`: by `intervals` the one that the correction leaves this test, or one that was asked for instead.
    `discordant`: questions that only a, only b, has right, for one right-or-wrong value per question.
    `unmatched`: questions that only a, only b, has. `bounds`: the difference if every missing, truncated or
    failed answer had gone the worst or best way. `detectable`: smallest true difference this comparison
    finds with 80 % power, at the level that the correction leaves it (with `finds_margin` the smallest margin it shows
    at no difference); `needed_n`, `needed_seeds`: what would show `needed_for`, which somebody stated, at that level,
    each alone. Their ranges: the same at both ends of the 95 % interval of the spread; None there: no number;
    `depends_on_missing`: whether the verdict is another somewhere within `bounds`.
    `needed_paired`: where only counts are known, the questions of a paired re-run at ASSUMED_DISCORDANCE.
    `evals_a`, `evals_b`: digests of the evaluations it rests on; `trained_a`, `trained_b`: of the models' training.
    `chance`: that b beats a by more than a margin, a posterior probability beside the p (chance.py).
    `remarks`: what must be known of how a or b was trained (see trainings.py); an answer says it once for all pairs.
    `other`: of runs that were compared by name, the same pair in its other reading (readings.py), in a family of the
    other readings; `short_of_seeds` are the trained arms that one model alone speaks for, so that there is none.
    """

    a: str
    b: str
    metric: str
    n: int
    mean_a: float | None
    mean_b: float | None
    difference: float | None
    ci: tuple[float, float] | None
    test: str
    p: float | None
    p_adjusted: float | None
    discordant: tuple[int, int] | None
    verdict: Verdict
    because: str
    claim: str
    paired: bool
    seeds: tuple[int, int]
    statistic: float | None
    interval: str | None
    level: float
    alpha: float
    correction: str
    family: int
    ci_a: tuple[float, float] | None
    ci_b: tuple[float, float] | None
    n_a: int
    n_b: int
    unmatched: tuple[int, int]
    bounds: tuple[float, float] | None
    truncated: tuple[float | None, float | None]
    failed: tuple[float | None, float | None]
    detectable: float | None
    needed_n: int | None
    needed_seeds: int | None
    needed_for: str
    forced: bool
    note: str
    evals_a: tuple[str, ...] = ()
    evals_b: tuple[str, ...] = ()
    trained_a: tuple[str, ...] = ()
    trained_b: tuple[str, ...] = ()
    needed_paired: int | None = None
    depends_on_missing: bool = False
    chance: Chance | None = None
    detectable_range: tuple[float | None, float | None] | None = None
    finds_margin: bool = False
    needed_range: tuple[int | None, int | None] | None = None
    needed_seeds_range: tuple[int | None, int | None] | None = None
    intervals: str = "corrected"
    remarks: tuple[str, ...] = ()
    other: Comparison | None = None
    short_of_seeds: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data; the first thirteen keys are a promise to readers, the others may grow."""
        found = {
            name: list(value) if isinstance(value, tuple) else vars(value) if isinstance(value, Chance) else value
            for name, value in vars(self).items()
            if name != "depends_on_missing"  # `note` says it
        }
        return {**found, "other": None if self.other is None else self.other.to_json()}

    def sentence(self) -> str:
        """The outcome in words."""
        if self.difference is None:
            return f"{self.b} against {self.a}: {self.note}."
        told = self.verdict.apart
        size = amount(self.difference, self.metric, signed=True)
        range_ = ""
        if self.ci:
            low, high = (amount(limit, self.metric, signed=True) for limit in self.ci)
            range_ = f", {show_level(self.level)} interval {low.split()[0]} to {high.split()[0]}"
        facts = f"({size}{range_}; {self.test}, {say_p(self.p)}, adjusted {say_p(self.p_adjusted)}; n = {self.n})"
        if told:
            return f"{self.b} is {self.verdict.lower()} than {self.a} {facts}."
        if self.verdict.resolved:
            return f"{self.b} is {self.verdict.lower()} to {self.a} {facts}.".replace("not worse to", "not worse than")
        more = f" {self.still_needed()}" if self.still_needed() else ""
        return f"no difference shown between {self.a} and {self.b} {facts}.{more}"

    def still_needed(self) -> str:
        """What this comparison could have found, and what the stated difference would take."""
        parts = []
        if self.detectable is not None:
            what = "shows a margin of" if self.finds_margin else "finds a true difference of"
            parts.append(f"this comparison {what} {amount(self.detectable, self.metric)} in 4 of 5 cases")
        takes = [_count(*one) for one in self._counts()]
        if takes:
            parts.append(f"{self.needed_for} needs {', or '.join(takes)}")
        if self.needed_paired is not None:
            parts.append(
                f"paired on the same questions about {self.needed_paired} would do, at {ASSUMED_DISCORDANCE:.0%} "
                "discordance"
            )
        return ("; ".join(parts) + ".").capitalize() if parts else ""

    def needed_in_short(self) -> str:
        """The same in a few words, "" where nothing can be named."""
        takes = [_count(*one) for one in self._counts()]
        if self.needed_paired is not None:
            takes.append(f"{self.needed_paired} if paired")
        parts = []
        if self.detectable is not None:
            parts.append(f"{'shows margin' if self.finds_margin else 'finds'} {amount(self.detectable, self.metric)}")
        if takes:
            parts.append(f"{self.needed_for} needs {', or '.join(takes)}")
        return "; ".join(parts)

    def _counts(self) -> list[tuple[int, tuple[int | None, int | None] | None, str]]:
        both = [
            (self.needed_seeds, self.needed_seeds_range, "seeds per arm"),
            (self.needed_n, self.needed_range, "questions"),
        ]
        return [(count, ends, what) for count, ends, what in both if count is not None]


def _count(count: int, ends: tuple[int | None, int | None] | None, what: str) -> str:
    """A number with its range: 3,925 questions (3,100 to 4,800)."""
    if ends is None or ends == (count, count):
        return f"{count} {what}"
    low, high = ends
    return f"{count} {what} ({low if low is not None else 'any'} to {'no number' if high is None else high})"


def amount(value: float, metric: str, signed: bool = False) -> str:
    """A difference with its unit: percentage points for shares, else the metric's own."""
    unit = UNITS.get(metric)
    number = value if unit else value * 100
    return f"{number:+.1f} {unit or 'points'}" if signed else f"{number:.1f} {unit or 'points'}"


def show_level(level: float) -> str:
    """A confidence level for people: 95%, 99.17%."""
    return f"{100 * level:.4g}%"


def say_p(p: float | None) -> str:
    """A p-value inside a sentence."""
    return "no p" if p is None else f"p {show_p(p)}" if p < 1e-4 else f"p = {show_p(p)}"


def show_p(p: float | None) -> str:
    """A p-value for people: no leading zero dropped, three digits, never "0"."""
    return "-" if p is None else "< .0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"
