"""What a test set, its samples and its seeds can detect, and what it takes to see a wanted difference.

    claim = Claimed("oracle > baseline", better="oracle", worse="baseline", design=Design(questions=1000))
    (found,) = power_of([claim], detect=0.02).claims
    found.alone.detectable            # smallest true difference that one test finds in 4 of 5 cases
    found.hardest.questions           # questions that .02 needs where every other claim fails (Holm: alpha / m)

A claim on checkpoints (one training seed) rests on questions; V is the variance of the per-question difference (for
right-or-wrong answers the discordant share). K samples a question shrink only the part of V that is sampling noise:
V = w^2 + (s_A^2 + s_B^2) / K (Miller 2024, arXiv 2411.00640, equation 9). A claim on recipes rests on training seeds
and questions: the variance of the difference is 2 seed^2 / S + w^2 / n and what S seeds leave of the rest. A claim of
no harm or equivalence is asked at a true difference of zero, one-sided. Every chance is that of the test that will be
taken (stats/chances.py; designs.py). Where V and the SD come from is decided in spread.py and always said; what was
estimated has a range.

Limits: with fewer than twenty questions of means no figure is given. With few seeds the t test leans on seed means
being normal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.plugins.metrics import averages
from nsd.reports import stats
from nsd.reports.judge.designs import Asked
from nsd.reports.judge.purchases import Prices, Purchase, prices_of, purchases
from nsd.reports.judge.spread import Claimed, Design, Spread, Spreads

if TYPE_CHECKING:
    import duckdb

__all__ = ["ClaimPower", "Claimed", "Design", "Power", "Reach", "Spread", "power_of"]

GENERIC = "any two conditions"


@dataclass(frozen=True)
class Reach:
    """What is reached at one level, all differences as shares (.02 = two points).

    `detectable`: smallest true difference found with the wanted power by the design as it is; for a claim with a margin
    the smallest margin that can be shown. None where not even a difference of 1 would be found, or nothing can be said.
    `at_best`: the same if all variance were sampling noise, where its share is unknown and that is less. `questions`,
    `samples` and `seeds` (per arm): what the wanted difference takes, each alone; None: no number is enough.
    `samples_at_least`: it is that many if all variance is sampling noise, else more or no number at all;
    `seeds_at_least` alike, where `seeds` is the most. `floors`: the difference that stays out of reach however much of
    each is bought alone. `groups`, of questions that the test counts by groups: as many of them, like these, as
    the wanted difference takes; `questions` are then more in the same groups. Ranges: at both ends of the interval of
    the spread, or of an assumed correlation inside groups.
    """

    alpha: float
    detectable: float | None
    at_best: float | None
    questions: int | None
    samples: int | None
    samples_at_least: int | None
    seeds: int | None
    seeds_at_least: int | None = None
    detectable_range: tuple[float | None, float | None] | None = None
    questions_range: tuple[int | None, int | None] | None = None
    seeds_range: tuple[int | None, int | None] | None = None
    floors: dict[str, float | None] = field(default_factory=dict)
    groups: int | None = None
    groups_range: tuple[int | None, int | None] | None = None


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
    purchases: list[Purchase] = field(default_factory=list)

    @property
    def own_notes(self) -> list[str]:
        """Notes on the claim itself, beside those on where its spread comes from."""
        return self.notes[len(self.spread.notes) :]


@dataclass(frozen=True)
class Power:
    """Power of every claim and, as `overall`, of any two conditions of the experiment.

    `overall` is about the first of the spec's evaluations, `beside` about each other one, by its name. `any_look`: of
    verdicts that hold at any look, of which this is the one that has all the data. `grouped`: the same where the test
    counts the groups of a field `group` that the questions have, and nobody has asked for it.
    """

    experiment: str | None
    alpha: float
    power: float
    detect: float
    correction: str
    family: int
    overall: ClaimPower
    claims: list[ClaimPower] = field(default_factory=list)
    prices: Prices | None = None
    beside: dict[str, ClaimPower] = field(default_factory=dict)
    grouped: ClaimPower | None = None
    any_look: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data under the names of the fields, without the models behind them."""
        return asdict(self, dict_factory=lambda pairs: {name: value for name, value in pairs if name != "recipe"})


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
    most_questions: int | None = None,
    shop: bool = False,
    any_look: bool = False,
    groups: Mapping[str, str] | None = None,
    icc: float | None = None,
) -> Power:
    """Power of claims that are one family (of `family` tests, by default as many as claims).

    The same of any two conditions under `design` (default: the first claim's).
    `connection` gives earlier runs to learn the spread from; None: it is assumed. `discordance` and `seed_sd` state it
    instead. `shop`: say too which purchases reach the wanted difference, at the price of the experiment's stages, where
    at most `most_questions` can be had. `any_look`: verdicts are to hold at any look (`looks: any`), at its price.
    `groups`: question id -> group, for designs that have `clusters`; `icc` states how differences correlate inside one.
    Raises InputError for numbers outside their range, and where there is neither a claim nor a design.
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
    data = {one.data_hash for one in [design, *(claim.design for claim in claims)]} - {None}
    spreads = Spreads(connection, experiment, discordance, seed_sd, sorted(map(str, data)), groups, icc)
    levels = (alpha, alpha if correction == "none" else alpha / max(1, family))
    overall = Claimed(GENERIC, "better", None, None, None, design)
    prices = None
    if shop and connection is not None and experiment is not None:
        prices = prices_of(connection, experiment)

    def judged(claim: Claimed) -> ClaimPower:
        found = _claim_power(claim, spreads.of(claim), levels, power, detect, any_look)
        if not shop:
            return found
        asked = Asked(claim, found.spread, found.about, found.wanted, levels[1], power, any_look)
        return replace(found, purchases=purchases(asked, prices, most_questions))

    return Power(
        experiment=experiment,
        alpha=alpha,
        power=power,
        detect=detect,
        correction=correction,
        family=family,
        overall=judged(overall),
        claims=[judged(claim) for claim in claims],
        prices=prices,
        any_look=any_look,
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
    claim: Claimed,
    spread: Spread,
    levels: tuple[float, float],
    power: float,
    detect: float,
    any_look: bool,
) -> ClaimPower:
    wanted = detect if claim.margin is None else claim.margin
    of_seeds = claim.kind != "interaction" and claim.design.seeds >= 2 and any(claim.design.trained)
    about = "recipe" if of_seeds else "checkpoint"
    alone, hardest = (reach_of(Asked(claim, spread, about, wanted, level, power, any_look)) for level in levels)
    smallest = None
    if about == "recipe":
        seeds = claim.design.seeds
        smallest = stats.smallest_permutation_p(seeds, None if spread.one_trained else seeds)
    notes = [*spread.notes, *([claim.note] if claim.note else [])]
    return ClaimPower(
        claim.text, claim.kind, claim.margin, about, wanted, claim.design, spread, alone, hardest, smallest, notes
    )


def reach_of(asked: Asked) -> Reach:
    """What the design reaches, and what each purchase alone takes."""
    design = asked.claim.design
    best = None
    detectable = asked.smallest(asked.model())
    if not asked.spread.known and (design.samples > 1 or asked.about == "recipe"):
        best = asked.smallest(asked.model(at_best=True))
        # Noise of seeds counts with the few degrees of freedom of seeds: of two of them, less of it is not worse.
        best = None if best is None or (detectable is not None and best >= detectable) else best
    samples, at_least = _samples(asked)
    ends = None
    if (two := asked.varied()) is not None:
        ends = (
            two[0][0].smallest(two[0][0].model(scale=two[0][1])),
            two[1][0].smallest(two[1][0].model(scale=two[1][1])),
        )
    recipe = replace(asked, about="recipe")
    counts = any(design.trained) and asked.claim.kind != "interaction"  # which is about the weights at hand
    seeds = recipe.least("seeds") if counts else None
    seeds_at_best = recipe.least("seeds", at_best=True) if counts and not asked.spread.known else None
    return Reach(
        alpha=asked.level,
        detectable=detectable,
        at_best=best,
        questions=asked.least("questions"),
        samples=samples,
        samples_at_least=at_least,
        seeds=seeds,
        seeds_at_least=min(seeds_at_best, seeds) if seeds_at_best and seeds else seeds_at_best,
        detectable_range=ends,
        questions_range=asked.ends("questions"),
        seeds_range=recipe.ends("seeds") if counts else None,
        groups=asked.least("groups") if design.clusters else None,
        groups_range=asked.ends("groups") if design.clusters else None,
        floors={what: asked.smallest(asked.endless(what)) for what in asked.purchases},
    )


def _samples(asked: Asked) -> tuple[int | None, int | None]:
    """Samples per question that are enough at these questions, and the least number where the split is unknown."""
    if not averages(asked.claim.design.metric) or asked.claim.design.greedy:
        return None, None
    if asked.spread.sampling is not None:
        return asked.least("samples"), None
    return None, asked.least("samples", at_best=True)
