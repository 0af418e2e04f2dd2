"""The two readings of a claim, each time named: these weights, and this recipe trained again, on questions like these.

    other, short = other_reading(tested, arms, values, Rules(alpha, correction, family, looks), "corrected")

*These weights*: questions are a sample, training is what it was. *This recipe, trained again*: seeds and questions are
samples, which takes two or more training seeds in each trained arm. The verdicts of an answer are of the second where
the seeds are there, else of the first (or of the one asked for); the other one is printed beside it, as a family of its
own of the same size, corrected alike. Models that nobody trained have one reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nsd.plugins.errors import InputError
from nsd.reports import stats
from nsd.reports.judge.compare import short_of_seeds
from nsd.reports.judge.comparison import Comparison
from nsd.reports.judge.hypotheses import ClaimVerdict, Rules, TestedClaim, judge_family, weigh_claim
from nsd.reports.judge.metrics import is_search
from nsd.reports.judge.pairs import TYPICAL_SEED_SD, about_recipe
from nsd.reports.judge.runs import Arm
from nsd.reports.judge.subgroups import ByField
from nsd.reports.judge.values import Values

WEIGHTS = "these weights, on questions like these"
RECIPE = "this recipe, trained again, on questions like these"
MODELS = "these models as they are, on questions like these"
SEARCHES = "one search of each question, on questions like these"


def reading_of(one: Comparison | ByField) -> str:
    """What a comparison speaks of; an interaction is about the weights that were measured."""
    if isinstance(one, Comparison) and one.claim == "recipe":
        return RECIPE
    if any(map(is_search, one.metric.split(" against "))):
        return SEARCHES
    return MODELS if {*one.trained_a, *one.trained_b} == {"untrained"} else WEIGHTS


def readings_of(comparisons: Sequence[Comparison | ByField | None]) -> str:
    """What several speak of, "" where none has a result."""
    return "; ".join(dict.fromkeys(reading_of(one) for one in comparisons if one is not None))


def other_reading(
    tested: Sequence[TestedClaim], arms: Mapping[str, Arm], values: Values, rules: Rules, intervals: str
) -> tuple[list[ClaimVerdict], list[str]]:
    """The verdicts of the other reading, and the trained arms with too few seeds for a recipe (see `what_would`)."""
    others: list[TestedClaim | None] = []
    short: list[str] = []
    for one in tested:
        found = None
        if one.evidence is not None and (one.evidence.a.trained or one.evidence.b.trained):
            a, b = arms[one.claim.worse], arms[one.claim.better]
            if one.evidence.claim == "recipe":
                found = _weighed(one, arms, values, rules, "checkpoint")
            elif about_recipe(a, b):
                found = _weighed(one, arms, values, rules, "recipe")
            else:
                short += short_of_seeds(a, b)
        others.append(found)
    untested: list[float | None] = [None] * (rules.family - len(others))
    verdicts = [one for one in judge_family(others, untested, values, rules, intervals) if one is not None]
    return verdicts, short


def _weighed(one: TestedClaim, arms: Mapping[str, Arm], values: Values, rules: Rules, about: str) -> TestedClaim | None:
    try:
        return weigh_claim(one.claim, arms, values, rules.alpha, about, rules.looks)
    except InputError:  # the answer does not fail for what nobody asked
        return None


def what_would(short: Sequence[str]) -> str:
    """What it takes to speak of the recipe; "" where nothing is missing."""
    if not short:
        return ""
    names = ", ".join(name.rpartition("/")[2] for name in short)
    wanted = stats.seeds_needed(0.02, TYPICAL_SEED_SD)
    return (
        f"{RECIPE}: one trained model of {names} says nothing of it. Two in each trained arm can be tested (seeds: "
        f"[1, 2] in the spec); where seeds scatter by {TYPICAL_SEED_SD * 100:.1f} points, {wanted} find a difference "
        "of 2 points in 4 of 5 cases, if the questions are enough"
    )


def others_of(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Pairs of runs in their other reading, those that have one."""
    return [one.other for one in comparisons if one.other is not None]


def not_supported(comparisons: Sequence[Comparison]) -> str:
    """What it takes to speak of the recipe of runs that were compared; "" where each pair has both readings."""
    return what_would(sorted({name for one in comparisons for name in one.short_of_seeds}))
