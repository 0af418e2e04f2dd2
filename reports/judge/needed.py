"""What an undecided comparison could have found, and what a stated difference, or margin, takes: questions or seeds.

    found = reach(evidence, result, level=0.05 / 6, detect=0.02)
    found.detectable, found.needed_n, found.needed_range

All at 80 % power, and at the level that the correction for the family leaves. Nothing is ever said to be needed for the
difference that was observed: that one is noise until it is shown, and so would the number be. Before any data, power.py
asks the same of a plan. What rests on a spread that the data estimate has a range: both ends of its 95 % interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nsd.reports import stats
from nsd.reports.judge.anytime import AnytimeEvidence
from nsd.reports.judge.finding import design_of
from nsd.reports.judge.pairs import Evidence
from nsd.reports.judge.spread import ASSUMED_DISCORDANCE
from nsd.reports.stats.anytime import AnyLook
from nsd.reports.stats.choose import PairTest

POWER = 0.8


@dataclass(frozen=True)
class Reached:
    """`detectable`: smallest true difference found (of a claim with a margin: smallest margin shown at no difference),
    in the unit of the metric. `needed_n`, `needed_seeds`: what the stated difference or margin takes, each alone, and
    their ranges; in a range None stands for "no number". `needed_paired`: of counts, the questions of a paired re-run
    at ASSUMED_DISCORDANCE.
    """

    detectable: float | None = None
    detectable_range: tuple[float | None, float | None] | None = None
    needed_n: int | None = None
    needed_range: tuple[int | None, int | None] | None = None
    needed_seeds: int | None = None
    needed_seeds_range: tuple[int | None, int | None] | None = None
    needed_paired: int | None = None
    remark: str = ""


def reach(
    evidence: Evidence,
    result: stats.Result,
    level: float,
    claim: tuple[str, float] | None = None,
    detect: float | None = None,
    resolved: bool = False,
) -> Reached:
    """What is found at `level`, and where the comparison is not `resolved` what a stated difference takes.

    `claim`: kind and margin of a claim that has one, which is what is asked then; else `detect` is. Without either
    nothing is said to be needed.
    """
    found = design_of(evidence)
    model = None if found is None else found.at()
    at_look: Callable[[stats.Model], stats.Model] = AnyLook if isinstance(evidence, AnytimeEvidence) else _once
    if found is None or model is None:
        return Reached(remark="" if resolved else _silence(evidence))
    both_sides = claim is not None and claim[0] == "equivalent_within"

    def smallest(scale: float) -> float | None:
        one = found.at(scale=scale)
        if one is None:
            return None
        one = at_look(one)
        if claim is None:
            return stats.detectable(one, level, POWER)
        return stats.smallest_margin(one, level, POWER, both_sides)

    detectable = smallest(1.0)
    if detectable is None and not resolved and evidence.clusters is not None:
        return Reached(remark=_no_figure(evidence))
    if detectable is None and not resolved:
        return Reached(remark=f"{_asked(evidence)}: no difference, however large, shows in 4 of 5 cases")
    ends = None
    if found.scales is not None and not resolved:
        ends = stats.spanning((smallest(found.scales[0]), smallest(found.scales[1])), detectable)
    if evidence.choice.test is PairTest.SIGN:
        said = "" if detectable is None or resolved else _by_sign(detectable)
        return Reached(remark=said)
    wanted = detect if claim is None else claim[1]
    remark = "" if resolved or evidence.clusters is None else _of_few(evidence)
    if resolved or wanted is None:
        return Reached(detectable, ends, remark=remark)
    return _needed(
        evidence,
        Reached(detectable, ends, remark=remark),
        level,
        wanted,
        claim,
        both_sides,
        found.least_questions,
        found.least_seeds if evidence.claim == "recipe" else None,
        found.scales,
        at_look,
    )


def _once(model: stats.Model) -> stats.Model:
    """A design that is looked at once."""
    return model


def _needed(
    evidence: Evidence,
    known: Reached,
    level: float,
    wanted: float,
    claim: tuple[str, float] | None,
    both_sides: bool,
    questions: Callable[..., int | None],
    seeds: Callable[..., int | None] | None,
    scales: tuple[float, float] | None,
    at_look: Callable[[stats.Model], stats.Model],
) -> Reached:
    def enough(design: stats.Model) -> bool:
        model = at_look(design)
        if claim is None:
            return model.chance(wanted, level) >= POWER
        return model.margin_chance(wanted, level, both_sides) >= POWER

    def ends(count: Callable[..., int | None]) -> tuple[int | None, int | None] | None:
        if scales is None:
            return None
        return stats.spanning((count(enough, scales[0]), count(enough, scales[1])), count(enough))

    of_seeds = evidence.claim == "recipe" and evidence.choice.test is not PairTest.TWO_LEVEL
    paired = None
    if evidence.choice.test is PairTest.TWO_PROPORTION and claim is None:
        paired = stats.least(lambda n: enough(stats.PairedShares(n, ASSUMED_DISCORDANCE)))
    return Reached(
        known.detectable,
        known.detectable_range,
        None if of_seeds else questions(enough),
        None if of_seeds else ends(questions),
        None if seeds is None else seeds(enough),
        None if seeds is None else ends(seeds),
        paired,
        known.remark,
    )


def _asked(evidence: Evidence) -> str:
    return f"{evidence.n_a} shared question{'' if evidence.n_a == 1 else 's'}"


def _no_figure(evidence: Evidence) -> str:
    """Why groups of questions have no figure, or find nothing."""
    assert evidence.clusters is not None
    groups = len(set(evidence.clusters.tolist()))
    if groups < stats.FEWEST_TOLD:
        return f"{groups} groups of questions: too few to say which difference they find, {stats.FEWEST_TOLD} are not"
    return (
        f"{groups} groups of questions: no figure for the difference they find, for they are so few, of so unequal "
        "sizes or their sums so skewed that it cannot be told"
    )


def _of_few(evidence: Evidence) -> str:
    """That the groups are so few that they find little, where they are."""
    assert evidence.clusters is not None
    groups = len(set(evidence.clusters.tolist()))
    if groups >= stats.FEW_QUESTIONS:
        return ""
    return f"{groups} groups of questions: too few for t alone, so that the bounded mean of groups decides"


def _by_sign(share: float) -> str:
    return (
        f"the sign test finds {share * 100:.1f} points more questions that one arm solves sooner than the other does, "
        "in 4 of 5 cases"
    )


def _silence(evidence: Evidence) -> str:
    """Why there is no figure."""
    if evidence.difference is None or evidence.twice:
        return ""
    asked = _asked(evidence)
    if evidence.clusters is not None and (groups := len(set(evidence.clusters.tolist()))) < stats.FEWEST_CLUSTERS:
        return f"{groups} groups of questions: the test is refused under {stats.FEWEST_CLUSTERS}"
    if evidence.shape.lopsided:
        return "one arm has so few samples that nothing can be said of the difference this finds"
    spread = evidence.table[1] + evidence.table[2] if evidence.table else evidence.variance()
    if not spread:
        return f"{asked} without any spread: too few to say what it takes"
    return f"{asked}: too few to say which difference they find"
