"""Verdicts on the claims a spec declared before the run, as one family of tests.

    tested = [weigh_claim(claim, arms, values, alpha) for claim in claims]
    verdicts = judge_family(tested, [], values, Rules(alpha, "holm", family=len(tested)))
    print(verdicts[0].sentence())

A claim names two conditions. Kinds: `better` (two-sided, so that
WORSE can be found too), `not_worse_by` (non-inferiority within the margin) and `equivalent_within` (TOST), the
last two one-sided at alpha with an interval of level 1 - 2 alpha; an `interaction` says that the difference is not the
same in all groups of questions (subgroups.py), about the weights that were measured. With two or more training seeds
in each condition that trains, another claim speaks of the recipe; otherwise it is decided on questions, and speaks of
one checkpoint each, or of models as they are where nothing was trained. The verdict says which.

Whether a claim was declared before its results is judged in reports/judge/answer.py, which is what people see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.reports import stats
from nsd.reports.judge.anytime import ANY_LOOK, at_any_look, no_promise, planned_looks
from nsd.reports.judge.compare import describe, measured_with, not_comparable
from nsd.reports.judge.comparison import Comparison
from nsd.reports.judge.pairs import Evidence, gather
from nsd.reports.judge.runs import Arm
from nsd.reports.judge.seeds import choose_seeds
from nsd.reports.judge.settle import levels_left, settle, settle_margin
from nsd.reports.judge.subgroups import ByField, pair_by_field
from nsd.reports.judge.values import Values
from nsd.reports.judge.verdict import Verdict
from nsd.runner.store.shapes import Claim

if TYPE_CHECKING:
    import duckdb

    from nsd.runner.store.workspace import Workspace


WITH_MARGIN = ("not_worse_by", "equivalent_within")


@dataclass(frozen=True)
class ClaimVerdict:
    """What the data say of one claim. `comparison` is `better` (b) against `worse` (a), None where a run lacks.

    `holds`: True, False, or None where the data do not decide. `about`: this checkpoint, or this recipe.
    `mark`: why the verdict is exploratory, "" where the claim was declared before its results. `by`: of an interaction
    the groups of questions; it has no `comparison`.
    """

    claim: str
    kind: str
    margin: float | None
    verdict: Verdict
    holds: bool | None
    about: str
    family: int
    correction: str
    alpha: float
    comparison: Comparison | None
    note: str
    mark: str = ""
    by: ByField | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, the comparison's keys under `comparison`, those of an interaction under `by`."""
        found = {name: value for name, value in vars(self).items() if name != "by"}
        found["comparison"] = None if self.comparison is None else self.comparison.to_json()
        return found if self.by is None else {**found, "by": self.by.to_json()}

    def sentence(self) -> str:
        """The verdict in words."""
        state = {True: "holds", False: "is refuted", None: "is not decided"}[self.holds]
        detail = self.note if self.comparison is None else self.comparison.sentence()
        mark = f" [{self.mark}]" if self.mark else ""
        return f"`{self.claim}` {state}, for {self.about}: {detail}{mark}"


@dataclass(frozen=True)
class TestedClaim:
    """A claim with its test, not yet corrected for the others."""

    claim: Claim
    evidence: Evidence | None
    result: stats.Result | None
    about: str
    notes: list[str]
    by: ByField | None = None

    @property
    def p(self) -> float | None:
        """Two-sided p (one-sided for a claim with a margin), None where nothing could be tested."""
        return None if self.result is None else self.result.p


@dataclass(frozen=True)
class Asked:
    """Where the questions are, and how their answers are judged, for claims that ask what only the questions tell."""

    connection: duckdb.DuckDBPyConnection
    workspace: Workspace
    metric: str | None = None


def weigh_claim(
    claim: Claim,
    arms: Mapping[str, Arm],
    values: Values,
    alpha: float,
    about: str | None = None,
    looks: int | str | None = None,
    asked: Asked | None = None,
) -> TestedClaim:
    """Test one claim. `about` "recipe" or "checkpoint" asks for that reading; `looks` "any" for a test valid at each.

    `asked` has the questions, without which no interaction is tested.

    Raises InputError for a claim without its margin, and for "recipe" where a condition that trains has one seed only.
    """
    kind, margin = claim.kind, claim.margin if claim.kind in WITH_MARGIN else None
    if kind in WITH_MARGIN and (margin is None or not 0 < margin < 1):
        raise InputError(f"claim {claim.text!r}: {kind} needs a margin between 0 and 1, such as 0.02")
    absent = [name for name in (claim.worse, claim.better) if name not in arms]
    if absent:
        return TestedClaim(claim, None, None, "nothing yet", [f"no finished run of {' and '.join(absent)}"])
    a, b, subject, note, reading = choose_seeds(arms[claim.worse], arms[claim.better], about)
    if fault := measured_with(a, b):  # the other claims still deserve their verdicts
        return TestedClaim(claim, None, None, subject, [not_comparable(a, b, fault)])
    if claim.by is not None:
        return _weigh_interaction(claim, (arms[claim.worse], arms[claim.better]), claim.by, alpha, looks, asked)
    evidence = gather(a, b, values, reading)
    if looks == ANY_LOOK:
        if fault := no_promise(evidence):
            return TestedClaim(claim, None, None, subject, [f"no verdict at any look: {fault}"])
        evidence = at_any_look(evidence)
    if margin is None:
        result = evidence.test(1 - alpha)
    else:
        result = evidence.margin_test(margin, both_sides=kind == "equivalent_within", alpha=alpha)
    return TestedClaim(claim, evidence, result, subject, [note])


def _weigh_interaction(
    claim: Claim, pair: tuple[Arm, Arm], field: str, alpha: float, looks: int | str | None, asked: Asked | None
) -> TestedClaim:
    about = "these weights"
    if looks == ANY_LOOK:
        fault = "no verdict at any look: the test of an interaction is for one look, or planned ones"
        return TestedClaim(claim, None, None, about, [fault])
    if asked is None:
        return TestedClaim(claim, None, None, about, ["the questions are not at hand, so no interaction is tested"])
    try:
        found = pair_by_field(asked.connection, asked.workspace, *pair, field, asked.metric, alpha, "checkpoint")
    except InputError as error:  # the other claims still deserve their verdicts
        return TestedClaim(claim, None, None, about, [str(error)])
    return TestedClaim(claim, None, stats.Result(found.test, found.q, found.p, None), found.about, [""], found)


def family_adjusted(p_values: Sequence[float | None], correction: str) -> list[float | None]:
    """Adjusted p of a declared family. A claim that could not be tested (None) keeps its place, as p = 1.

    So an adjusted p never rises because another claim is finished, and an arm that fails for good relaxes nothing.
    """
    adjusted = stats.adjust([1.0 if p is None else p for p in p_values], correction)
    return [None if p is None else one for p, one in zip(p_values, adjusted, strict=True)]


@dataclass(frozen=True)
class Rules:
    """By which a family is judged: level, correction, its size, planned looks or "any", the difference asked about."""

    alpha: float
    correction: str
    family: int
    looks: int | str | None = None
    detect: float | None = None


def judge_family(
    tested: Sequence[TestedClaim | None],
    others: Sequence[float | None],
    values: Values,
    rules: Rules,
    intervals: str = "corrected",
) -> list[ClaimVerdict | None]:
    """The verdicts of a family's claims in order, None for None. `others` are the p-values of the rest of the family.

    Each of several planned looks is tested at its part of alpha: the adjusted p is multiplied by their number.
    """
    looks = planned_looks(rules.looks)
    p_values = [*(None if one is None else one.p for one in tested), *others]
    adjusted = family_adjusted(p_values, rules.correction)
    levels = levels_left(p_values, adjusted, rules.correction, rules.alpha / looks)
    return [
        None
        if one is None
        else verdict_on(
            one,
            None if p is None else min(1.0, p * looks),
            *(values, rules.alpha, rules.correction, rules.family),
            level=left,
            intervals=intervals,
            detect=rules.detect,
            looks=looks,
        )
        for one, p, left in zip(tested, adjusted, levels, strict=False)
    ]


def verdict_on(
    one: TestedClaim,
    p: float | None,
    values: Values,
    alpha: float,
    correction: str,
    family: int,
    level: float,
    mark: str = "",
    intervals: str = "corrected",
    detect: float | None = None,
    looks: int = 1,
) -> ClaimVerdict:
    """The verdict from the adjusted p and the interval at `level`, the alpha that the correction leaves this claim.

    `looks`: how many are planned, so that each has its part of alpha.
    """
    claim, kind = one.claim, one.claim.kind
    margin = claim.margin if kind in WITH_MARGIN else None
    known = (claim.text, kind, margin)
    if one.by is not None:
        return _verdict_by(one, one.by, p, Rules(alpha, correction, family), mark)
    if one.evidence is None or one.result is None:
        return ClaimVerdict(
            *known, Verdict.UNRESOLVED, None, one.about, family, correction, alpha, None, one.notes[0], mark
        )
    if margin is None:
        verdict, interval, note = settle(one.result.estimate, p, alpha, one.evidence.interval(1 - level))
        holds = None if not verdict.apart else verdict.direction > 0
    else:
        verdict, holds, interval, note = _margin_verdict(one.evidence, p, kind, margin, alpha, family * looks, level)
    within = None if margin is None else (kind, margin)
    about = (one.evidence, one.result, p, verdict, values, alpha, correction, family, [*one.notes, note])
    comparison = describe(
        *about, claim=within, interval=interval, level=level, intervals=intervals, detect=detect, looks=looks
    )
    return ClaimVerdict(*known, verdict, holds, one.about, family, correction, alpha, comparison, comparison.note, mark)


def _verdict_by(one: TestedClaim, by: ByField, p: float | None, rules: Rules, mark: str) -> ClaimVerdict:
    """The verdict on an interaction: shown, or not decided, for nothing shows that all groups are alike."""
    family, alpha, correction = rules.family, rules.alpha, rules.correction
    by = replace(by, p_adjusted=p, family=family, alpha=alpha, correction=correction, exploratory=bool(mark))
    return ClaimVerdict(
        claim=one.claim.text,
        kind=one.claim.kind,
        margin=None,
        verdict=Verdict.DIFFERS if by.shown else Verdict.UNRESOLVED,
        holds=True if by.shown else None,
        about=one.about,
        family=family,
        correction=correction,
        alpha=alpha,
        comparison=None,
        note=by.sentence(),
        mark=mark,
        by=by,
    )


def _margin_verdict(
    evidence: Evidence, p: float | None, kind: str, margin: float, alpha: float, family: int, left: float
) -> tuple[Verdict, bool | None, stats.Interval | None, str]:
    """Verdict, whether the claim holds, the interval that decided, and a note."""
    both = kind == "equivalent_within"
    interval = evidence.margin_test(margin, both, left).interval
    verdict, interval, note = settle_margin(kind, margin, p, alpha, interval)
    if verdict.resolved:
        return verdict, True, interval, note
    # Refuted where a two-sided interval, Bonferroni-corrected for the family, lies wholly beyond the margin.
    beyond = evidence.interval(1 - alpha / max(family, 1))
    if beyond is not None and beyond.high < -margin:
        return Verdict.WORSE, False, beyond, ""
    if beyond is not None and beyond.low > margin and both:
        return Verdict.BETTER, False, beyond, ""
    return verdict, None, interval, note
