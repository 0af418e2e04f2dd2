"""What a test set, its samples and its seeds can detect, and what it takes to see a wanted difference.

    claim = Claimed("oracle > baseline", better="oracle", worse="baseline", design=Design(questions=1000))
    (found,) = power_of([claim], detect=0.02).claims
    found.alone.detectable            # smallest true difference that one test finds in 4 of 5 cases
    found.hardest.questions           # questions that .02 needs where every other claim fails (Holm: alpha / m)

A claim on checkpoints (one training seed) rests on questions: (z_{alpha/2} + z_power)^2 V / d^2 of them, with V the
variance of the per-question difference (for right-or-wrong answers the discordant share). K samples a question shrink
only the part of V that is sampling noise: V = w^2 + (s_A^2 + s_B^2) / K (Miller 2024, arXiv 2411.00640, equation 9). A
claim on recipes rests on training seeds: noncentral t at their standard deviation. A claim of no harm or equivalence
is asked at a true difference of zero, one-sided. Where V and the SD come from is decided in spread.py and always
said.

Limits: the formulas are those of large samples. McNemar's mid-p is discrete and reaches the named power within a point
or two (simulated in the tests) where at least about ten discordant questions are expected. With few seeds the t test
leans on seed means being normal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.reports import stats
from nsd.reports.judge.metrics import averages
from nsd.reports.judge.spread import Claimed, Design, Spread, Spreads

if TYPE_CHECKING:
    import duckdb

__all__ = ["ClaimPower", "Claimed", "Design", "Power", "Reach", "Spread", "power_of"]

GENERIC = "any two conditions"


@dataclass(frozen=True)
class Reach:
    """What is reached at one level, all differences as shares (.02 = two points).

    `detectable`: smallest true difference found with the wanted power by the design as it is; for a claim with a margin
    the smallest margin that can be shown. None where not even a difference of 1 would be found. `at_best`: the same if
    all variance were sampling noise, where several samples are drawn and its share is unknown. `questions`, `samples`
    and `seeds` (per arm): what the wanted difference takes, each alone. `samples` None: no number is enough;
    `samples_at_least`: it is that many if all variance is sampling noise, else more or no number at all.
    """

    alpha: float
    detectable: float | None
    at_best: float | None
    questions: int | None
    samples: int | None
    samples_at_least: int | None
    seeds: int | None


@dataclass(frozen=True)
class ClaimPower:
    """One claim: `about` checkpoint or recipe; `wanted` is the margin of a claim that has one."""

    claim: str
    kind: str
    margin: float | None
    about: str
    wanted: float
    design: Design
    spread: Spread
    alone: Reach
    hardest: Reach
    smallest_p: float | None
    notes: list[str]

    @property
    def own_notes(self) -> list[str]:
        """Notes on the claim itself, beside those on where its spread comes from."""
        return self.notes[len(self.spread.notes) :]


@dataclass(frozen=True)
class Power:
    """Power of every claim and, as `overall`, of any two conditions of the experiment.

    `overall` is about the first of the spec's evaluations, `beside` about each other one, by its name.
    """

    experiment: str | None
    alpha: float
    power: float
    detect: float
    correction: str
    family: int
    overall: ClaimPower
    claims: list[ClaimPower] = field(default_factory=list)
    beside: dict[str, ClaimPower] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data under the names of the fields."""
        return asdict(self)


def power_of(
    claims: Sequence[Claimed],
    *,
    design: Design | None = None,
    connection: duckdb.DuckDBPyConnection | None = None,
    experiment: str | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
    detect: float = 0.02,
    correction: str = "holm",
    discordance: float | None = None,
    seed_sd: float | None = None,
    family: int | None = None,
) -> Power:
    """Power of claims that are one family (of `family` tests, by default as many as claims).

    The same of any two conditions under `design` (default: the first claim's).
    `connection` gives earlier runs to learn the spread from; None: it is assumed. `discordance` and `seed_sd` state it
    instead. Raises InputError for numbers outside their range, and where there is neither a claim nor a design.
    """
    _check(alpha, power, detect, discordance, seed_sd)
    if design is None:
        if not claims:
            raise InputError("nothing to plan: name a spec or an experiment, or give --questions")
        design = claims[0].design
    if family is None:
        family = len(claims)
    for one in [design, *(claim.design for claim in claims)]:
        if min(one.questions, one.samples, one.seeds) < 1:
            raise InputError("questions, samples and seeds are at least 1 each")
    spreads = Spreads(connection, experiment, discordance, seed_sd)
    levels = (alpha, alpha if correction == "none" else alpha / max(1, family))
    overall = Claimed(GENERIC, "better", None, None, None, design)
    return Power(
        experiment=experiment,
        alpha=alpha,
        power=power,
        detect=detect,
        correction=correction,
        family=family,
        overall=_claim_power(overall, spreads.of(overall), levels, power, detect),
        claims=[_claim_power(claim, spreads.of(claim), levels, power, detect) for claim in claims],
    )


def _check(alpha: float, power: float, detect: float, discordance: float | None, seed_sd: float | None) -> None:
    if not 0 < alpha < 1:
        raise InputError(f"alpha {alpha}: a level between 0 and 1, such as 0.05")
    if not alpha < power < 1:
        raise InputError(f"power {power}: a chance above alpha and below 1, such as 0.8")
    if not 0 < detect < 1:
        raise InputError(f"detect {detect}: a share between 0 and 1, such as 0.02 for two points")
    if discordance is not None and not 0 < discordance <= 1:
        raise InputError(
            f"discordance {discordance}: the share of questions on which two arms differ, above 0 (arms that never "
            "differ have no difference to find) and at most 1, such as 0.2"
        )
    if seed_sd is not None and not 0 < seed_sd < 1:
        raise InputError(f"seed SD {seed_sd}: a share above 0 and below 1, such as 0.014 for 1.4 points")


def _claim_power(
    claim: Claimed, spread: Spread, levels: tuple[float, float], power: float, detect: float
) -> ClaimPower:
    wanted = detect if claim.margin is None else claim.margin
    about = "recipe" if claim.design.seeds >= 2 and any(claim.design.trained) else "checkpoint"
    alone, hardest = (_reach(claim, spread, about, wanted, level, power) for level in levels)
    smallest = None
    if about == "recipe":
        seeds = claim.design.seeds
        one_sample = spread.seed_paired or spread.one_trained
        smallest = stats.smallest_permutation_p(seeds, None if one_sample else seeds)
    notes = [*spread.notes, *([claim.note] if claim.note else [])]
    return ClaimPower(
        claim.text, claim.kind, claim.margin, about, wanted, claim.design, spread, alone, hardest, smallest, notes
    )


def _reach(claim: Claimed, spread: Spread, about: str, wanted: float, level: float, power: float) -> Reach:
    # A margin is tested on one side, at a true difference of zero; equivalence must pass on both.
    alpha = level if claim.margin is None else min(2 * level, 1.0)
    chance = (1 + power) / 2 if claim.kind == "equivalent_within" else power
    design = claim.design
    one_sample = spread.seed_paired or spread.one_trained
    seeds = None
    if any(design.trained):
        seeds = stats.seeds_needed(wanted, spread.seed_sd, alpha, chance, one_sample)
    if about == "recipe":
        reached = _seed_detectable(spread.seed_sd, design.seeds, alpha, chance, one_sample)
        return Reach(level, reached, None, None, None, None, seeds)
    binary = claim.margin is None and spread.binary(design)
    variance, best = spread.variance_at(design.samples), spread.least_variance_at(design.samples)
    detectable = _detectable(variance, design.questions, alpha, chance, binary)
    at_best = _detectable(best, design.questions, alpha, chance, binary) if best < variance else None
    # A difference of d needs at least a share d of discordant answers.
    needed = max(variance, wanted) if binary else variance
    questions = stats.sample_size(wanted, needed, alpha=alpha, power=chance)
    samples, at_least = _samples(spread, design, wanted, alpha, chance)
    return Reach(level, detectable, at_best, questions, samples, at_least, seeds)


def _detectable(variance: float, questions: int, alpha: float, power: float, binary: bool) -> float | None:
    """Smallest difference found; for right-or-wrong answers it cannot exceed the discordant share it implies."""
    found = stats.minimum_detectable_effect(variance, questions, alpha, power)
    assert found is not None
    if binary and found > variance:
        found = found**2 / variance  # with the variance at the difference itself: d = z^2 / n
    return found if found <= 1 else None


def _seed_detectable(sd: float, seeds: int, alpha: float, power: float, paired: bool) -> float | None:
    """Smallest difference that a t test on this many seeds finds, by bisection to 1e-6; None above 1."""
    low, high = 0.0, 1.0
    if stats.seeds_needed(high, sd, alpha, power, paired, limit=seeds) is None:
        return None
    while high - low > 1e-6:
        middle = (low + high) / 2
        enough = stats.seeds_needed(middle, sd, alpha, power, paired, limit=seeds) is not None
        low, high = (low, middle) if enough else (middle, high)
    return high


def _samples(
    spread: Spread, design: Design, wanted: float, alpha: float, power: float
) -> tuple[int | None, int | None]:
    """Samples per question that are enough at these questions, and the least number where the split is unknown."""
    if not averages(design.metric):
        return None, None
    unit = stats.minimum_detectable_effect(1.0, design.questions, alpha, power)
    assert unit is not None
    allowed = (wanted / unit) ** 2 * (1 + 1e-9)
    if spread.sampling is None:
        if spread.variance <= allowed:
            return spread.samples, None
        return None, math.ceil(spread.variance * spread.samples / allowed)
    rest = spread.between
    if rest + spread.sampling <= allowed:
        return 1, None
    return (math.ceil(spread.sampling / (allowed - rest)), None) if rest < allowed and spread.sampling else (None, None)
