"""`nsd power` and the power lines of `nsd plan`: what a design can detect, for people and as JSON.

    print_power(workspace, "specs/quickstart.yaml", Wanted(detect=0.02), as_json=False)
    print_power(workspace, None, Wanted(questions=1319), as_json=False)
    plan_power(plan, workspace)                                   # nsd.reports.judge.power.Power of a plan

A spec need not have run; an experiment that ran is read from the results database, with the claims it ran with last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from nsd.plugins.errors import InputError
from nsd.plugins.metrics import averages
from nsd.reports import stats
from nsd.reports.judge.runs import condition_arms
from nsd.runner.cli.grouping import GROUP_FIELD, grouping, own_sizes, sizes_of
from nsd.runner.cli.power_designs import (
    BY_SIGN,
    Wanted,
    changed,
    claim_of,
    common,
    designs_of_experiment,
    designs_of_plan,
)
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Claim, Hypotheses
from nsd.runner.store.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

    from nsd.plugins.api import Question
    from nsd.reports.judge.power import ClaimPower, Design, Power, Reach
    from nsd.reports.judge.purchases import Prices
    from nsd.runner.plan.model import Plan

CLAIMS_IN_A_LINE = 8
OF_GROUPS = "the questions have a field `group`; counted by groups, as nsd compare --groups group does, this detects"
NO_FIGURE = "no figure"
MOST_GROUPS = 100_000


def plan_power(plan: Plan, workspace: Workspace, wanted: Wanted | None = None) -> Power:
    """Power of a plan's claims. Needs no results; uses those the workspace has."""
    hypotheses = plan.experiment.hypotheses
    block = Hypotheses() if hypotheses is None else Hypotheses(**hypotheses.to_json())
    with _earlier(workspace) as connection:
        earlier = 0 if connection is None else _earlier_claims(connection, plan.name, block.claims)
        family = len(block.claims) + earlier
        beside = {run.condition: str(run.measurement) for run in plan.runs if run.beside}
        designs, shop = designs_of_plan(plan), wanted is not None
        return _power(
            connection, plan.name, designs, block, family, wanted or Wanted(), shop, beside, plan.data.__getitem__
        )


def print_power(workspace: Workspace, name: str | None, wanted: Wanted, as_json: bool, run_files: bool = False) -> None:
    """The command. Raises InputError for a name that is neither a spec nor an experiment with results."""
    if name is None:
        if wanted.questions is None:
            raise InputError(
                "say how many questions the test set has (nsd power --questions 1319), or name a spec or an experiment"
            )
        from nsd.reports.judge.power import Design

        clusters = _equal_groups(wanted.questions, wanted.groups)
        design = Design(wanted.questions, wanted.samples or 1, wanted.seeds or 1, clusters=clusters)
        found = _power(None, None, {"": design}, Hypotheses(), 0, replace(wanted, groups=None), True)
    elif name.endswith((".yaml", ".yml")) or Path(name).is_file():
        from nsd.runner.plan.build import build_plan
        from nsd.runner.spec.load import load_spec

        found = plan_power(build_plan(load_spec(Path(name), run_files=run_files)), workspace, wanted)
    else:
        with Store(workspace).read() as connection:
            designs, block = designs_of_experiment(connection, name)
            arms = condition_arms(connection, name)
            beside = {condition: str(arm.measurement) for condition, arm in arms.items() if arm.beside}
            family = len(block.claims) + _earlier_claims(connection, name, block.claims)
            found = _power(
                connection,
                name,
                designs,
                block,
                family,
                wanted,
                True,
                beside,
                partial(tables.held_questions, workspace),
            )
    if as_json:
        from nsd.plugins.screen import print_json

        print_json(found.to_json())
        return
    _print(found)


def _power(
    connection: duckdb.DuckDBPyConnection | None,
    experiment: str | None,
    designs: Mapping[str, Design],
    block: Hypotheses,
    family: int,
    wanted: Wanted,
    shop: bool,
    beside: Mapping[str, str] | None = None,
    questions: Callable[[str], Sequence[Question]] = lambda content: (),
) -> Power:
    """Designs by condition, and the hypotheses block, to power; `family` counts every claim ever declared.

    `shop`: say also what to buy. `beside` names the evaluation of conditions that are measured by another one than the
    spec's first. `questions` gives those of a content hash, for claims about groups of them.
    """
    from nsd.reports.judge.anytime import ANY_LOOK, planned_looks
    from nsd.reports.judge.power import power_of

    questions = cache(questions)
    groups = None
    if wanted.groups is not None:
        designs, groups = _in_groups(designs, wanted.groups, questions)
    elif wanted.icc is not None and not any(design.clusters for design in designs.values()):
        raise InputError("--icc is about questions in groups: name those with --groups")
    designs = {condition: changed(design, wanted) for condition, design in designs.items()}
    if not designs:
        raise InputError(f"{experiment} has nothing to evaluate: no design to judge")
    of: dict[str, list[Design]] = {"": []}
    for condition, design in designs.items():
        of.setdefault((beside or {}).get(condition, ""), []).append(design)
    stated = partial(
        power_of,
        connection=connection,
        experiment=experiment,
        alpha=(block.alpha if wanted.alpha is None else wanted.alpha) / planned_looks(block.looks),
        power=wanted.power,
        detect=next(one for one in (wanted.detect, block.detect, 0.02) if one is not None),
        correction=block.correction,
        discordance=wanted.discordance,
        seed_sd=wanted.seed_sd,
        family=family,
        most_questions=wanted.most_questions,
        shop=shop,
        any_look=block.looks == ANY_LOOK,
        groups=groups,
        icc=wanted.icc,
    )
    claims = [claimed for claim in block.claims if (claimed := claim_of(claim, designs, questions)) is not None]
    planned = common(of.pop(""))
    found = stated(claims, design=planned)
    if groups is None and (sizes := own_sizes(questions(planned.data_hash) if planned.data_hash else ())):
        own = grouping(GROUP_FIELD, questions(str(planned.data_hash)))
        found = replace(found, grouped=stated([], design=replace(planned, clusters=sizes), groups=own).overall)
    return replace(found, beside={name: stated([], design=common(mine)).overall for name, mine in of.items()})


def _in_groups(
    designs: Mapping[str, Design], wanted: str, questions: Callable[[str], Sequence[Question]]
) -> tuple[dict[str, Design], dict[str, str]]:
    """Designs with the sizes of the groups that `wanted` names, and the group of each question by its id."""
    content = {str(design.data_hash): questions(str(design.data_hash)) for design in designs.values()}
    if not all(content.values()):
        raise InputError("--groups: the questions of this experiment are not in this workspace")
    groups = grouping(wanted, [one for asked in content.values() for one in asked])
    sizes = {name: sizes_of(asked, groups) for name, asked in content.items()}
    found = {name: replace(one, clusters=sizes[str(one.data_hash)]) for name, one in designs.items()}
    return found, groups


def _equal_groups(questions: int, wanted: str | None) -> tuple[int, ...]:
    """The sizes of so many groups, as equal as can be; () without groups. Raises InputError for what is no number."""
    if wanted is None:
        return ()
    if not wanted.isdigit() or not 1 <= int(wanted) <= min(questions, MOST_GROUPS):
        raise InputError(
            f"--groups {wanted}: without a spec or an experiment, a number of groups, from 1 to the number of "
            f"questions and at most {MOST_GROUPS:,}"
        )
    groups = int(wanted)
    return tuple(questions // groups + (number < questions % groups) for number in range(groups))


def _earlier_claims(connection: duckdb.DuckDBPyConnection, experiment: str, claims: Sequence[Claim]) -> int:
    """How many claims earlier versions of the spec declared beside these."""
    from nsd.reports.judge.versions import declared_earlier, versions_of

    return len(declared_earlier(versions_of(connection, experiment), claims))


@contextlib.contextmanager
def _earlier(workspace: Workspace) -> Iterator[duckdb.DuckDBPyConnection | None]:
    """A connection to earlier results, None where the workspace has none."""
    if not workspace.database.exists():
        yield None
        return
    with Store(workspace).read() as connection:
        yield connection


# --------------------------------------------------------------------------- for people


def power_lines(found: Power) -> list[str]:
    """A few lines for below a plan: the experiment, its claims, its seeds, and that searches are told apart."""
    overall = found.overall
    alone, hardest = show_reach(overall, overall.alone), show_reach(overall, overall.hardest)
    many = f" ({hardest} at the hardest level of {found.family} claims)" if hardest != alone else ""
    chance = f"{found.power:.0%} power at alpha {found.alpha:g}{', valid at any look' if found.any_look else ''}"
    source = overall.spread.seed_source if overall.about == "recipe" else overall.spread.source
    if overall.spread.icc_source:
        source += f"; {overall.spread.icc_source}"
    lines = [f"can detect {alone}{many}: {chance}, {show_design(overall.design)}; {source}"]
    for name, other in found.beside.items():
        reach, design = show_reach(other, other.alone), show_design(other.design)
        lines.append(f"on {name} can detect {reach}: {chance}, {design}")
    reaches = [show_reach(claim, claim.hardest) for claim in found.claims]
    if reaches:
        level = "each claim" if hardest == alone else "each claim, at its hardest"
        shown = [f"{claim.claim} {reach}" for claim, reach in zip(found.claims, reaches, strict=True)]
        rest = len(shown) - CLAIMS_IN_A_LINE
        more = f"; and {rest} more (nsd power)" if rest > 0 else ""
        same = f"the same {reaches[0]}" if len(shown) > 1 else shown[0]
        lines.append(f"{level}: {same if len(set(reaches)) == 1 else '; '.join(shown[:CLAIMS_IN_A_LINE]) + more}")
    lines.append(_seed_line(overall))
    if found.grouped is not None:
        reach, design = show_reach(found.grouped, found.grouped.alone), show_design(found.grouped.design)
        lines.append(f"{OF_GROUPS} {reach}: {chance}, {design}; {found.grouped.spread.icc_source}")
    if any(BY_SIGN in claim.own_notes for claim in found.claims):
        lines.append(BY_SIGN)
    return lines


def _seed_line(claim: ClaimPower) -> str:
    seeds, wanted = claim.design.seeds, _points(claim.wanted)
    if claim.alone.seeds_at_least:
        takes = f"{wanted} would take {_seeds(claim, claim.alone)} seeds per arm"
    elif claim.alone.seeds:
        takes = f"{wanted} would take {_ranged(claim.alone.seeds, claim.alone.seeds_range)} seeds per arm"
    else:
        takes = f"no number of seeds finds {wanted} on these questions"
    if claim.about == "checkpoint":
        return f"one seed speaks of these checkpoints, never of the recipe: {takes} ({claim.spread.seed_source})"
    return f"{seeds} seeds per arm speak of the recipe; {_strictness(claim)}; {takes}"


def _strictness(claim: ClaimPower) -> str:
    """What so few seeds cost the test that decides."""
    reach, df = stats.seeds_count(claim.design.seeds, 1 if claim.spread.one_trained else 2, claim.alone.alpha)
    degrees = "1 degree" if df == 1 else f"{df} degrees"
    return (
        f"in the two-level test their spread counts {reach:.1f} times, by t with {degrees} of freedom (many seeds: "
        f"{stats.seeds_count(None, 1, claim.alone.alpha)[0]:.1f} times)"
    )


def _print(found: Power) -> None:
    from rich.text import Text

    from nsd.plugins.screen import console, table

    screen = console()
    title = f"{found.experiment or 'a test set'}: {found.power:.0%} power at alpha {found.alpha:g}"
    title += ", valid at any look" if found.any_look else ""
    if found.family > 1 and found.correction != "none":
        title += f"; two numbers: a test alone, and the hardest of {found.family} claims ({found.correction})"
    shown = table(
        "claim", "about", "design", "detects now", "to see", "questions", "or samples", "or seeds", title=title
    )
    rows = found.claims or [found.overall]
    for claim in rows:
        shown.add_row(*map(Text, _cells(claim)))
    screen.print(shown)
    for line in _notes(rows, found.prices):
        screen.print(Text(f"- {line}"))


def _cells(claim: ClaimPower) -> list[str]:
    pairs = [
        _both(show_reach(claim, claim.alone), show_reach(claim, claim.hardest)),
        _points(claim.wanted) if claim.margin is None else f"margin {_points(claim.wanted)}",
        *(_both(show(claim, claim.alone), show(claim, claim.hardest)) for show in (_questions, _samples, _seeds)),
    ]
    return [claim.claim, f"this {claim.about}", show_design(claim.design), *pairs]


def _both(alone: str, hardest: str) -> str:
    return alone if alone == hardest else f"{alone} / {hardest}"


def show_reach(claim: ClaimPower, reach: Reach) -> str:
    """The detectable difference (or the margin that can be shown) in words."""
    if reach.detectable is None:
        return "no difference" if claim.design.in_groups is None else NO_FIGURE
    best = "" if reach.at_best is None else f" (at best {_points(reach.at_best)})"
    ends = ""
    if claim.spread.icc_range is not None and reach.detectable_range is not None and claim.design.clusters:
        low, high = ("none" if end is None else _points(end) for end in reach.detectable_range)
        tied = " to ".join(f"{icc:g}" for icc in claim.spread.icc_range)
        ends = f" ({low} to {high} at a correlation of {tied})"
    return ("" if claim.margin is None else "margin ") + _points(reach.detectable) + best + ends


def show_design(design: Design) -> str:
    """Questions, samples and seeds in words."""
    parts = [(design.questions, "question"), (design.samples, "sample"), (design.seeds, "seed")]
    words = [f"{count} {word}{'' if count == 1 else 's'}" for count, word in parts if count > 1 or word == "question"]
    if design.clusters:
        words[0] += f" in {len(design.clusters)} group{'' if len(design.clusters) == 1 else 's'}"
    return " x ".join(words)


def _questions(claim: ClaimPower, reach: Reach) -> str:
    if claim.design.clusters:
        more = _ranged(reach.questions, reach.questions_range)
        return f"{_ranged(reach.groups, reach.groups_range)} of groups; {more} in the same"
    return _ranged(reach.questions, reach.questions_range)


def _ranged(count: int | None, ends: tuple[int | None, int | None] | None) -> str:
    """A number with the range that an estimated spread gives it."""
    if count is None:
        return "no number"
    if ends is None or ends == (count, count):
        return str(count)
    return f"{count} ({ends[0] or 'any'} to {ends[1] or 'no number'})"


def _samples(claim: ClaimPower, reach: Reach) -> str:
    if reach.samples is not None:
        return str(reach.samples)
    return "no number" if reach.samples_at_least is None else f"{reach.samples_at_least} or more"


def _seeds(claim: ClaimPower, reach: Reach) -> str:
    if reach.seeds_at_least is not None:
        if reach.seeds == reach.seeds_at_least:
            return str(reach.seeds)
        return f"{reach.seeds_at_least} {f'to {reach.seeds}' if reach.seeds else 'or more'}"
    return "none to vary" if not any(claim.design.trained) else _ranged(reach.seeds, reach.seeds_range)


def _notes(rows: Sequence[ClaimPower], prices: Prices | None) -> list[str]:
    """Where the numbers come from, each once, with the claims it belongs to where not to all."""
    said: dict[str, list[str]] = {}
    for claim in rows:
        recipe = claim.about == "recipe"
        lines = [claim.spread.source, f"seeds: {claim.spread.seed_source}", *_split(claim), *_of_groups(claim)]
        if recipe:
            lines.append("a claim about a recipe is decided by its seeds and its questions: each leaves what it leaves")
            lines.append(f"{claim.design.seeds} seeds per arm: {_strictness(claim)}")
        else:
            if claim.kind == "interaction":
                lines.append("an interaction is about the weights that are measured, however many seeds there are")
            else:
                lines.append(
                    "one seed never supports a claim about the recipe; `or seeds` is what that claim would take"
                )
            lines += claim.notes[:1] if claim.alone.samples_at_least else []
            if claim.alone.samples is None and claim.alone.samples_at_least is None:
                lines.append(_why_no_samples(claim))
        if claim.margin is not None:
            lines.append("a margin is shown at a true difference of zero, on one side")
        lines += [*claim.own_notes, *_floors(claim), *_shopping(claim, prices)]
        for line in lines:
            said.setdefault(line, []).append(claim.claim)
    return [line if len(names) == len(rows) else f"{', '.join(names)}: {line}" for line, names in said.items()]


def _of_groups(claim: ClaimPower) -> list[str]:
    """What is said of questions that the test counts by groups."""
    sizes = claim.design.in_groups
    if sizes is None:
        return []
    low, high = min(sizes.sizes), max(sizes.sizes)
    each = f"{low:g}" if low == high else f"{low:.3g} to {high:.3g}"
    said = [
        claim.spread.icc_source,
        f"the test counts {sizes.groups} groups of {each} questions (CR2); more questions in the same groups help only "
        "as far as their differences do not go together",
    ]
    if sizes.groups < stats.FEWEST_CLUSTERS:
        said.append(f"no figure: the test is refused under {stats.FEWEST_CLUSTERS} groups")
    elif sizes.groups < stats.FEWEST_TOLD:
        said.append(f"no figure: the chance of so few groups is not told, that of {stats.FEWEST_TOLD} or more is")
    elif claim.alone.detectable is None:
        why = f"their sizes count as {sizes.effective:.1f} equal groups" if sizes.effective < sizes.groups - 0.5 else ""
        why = why or "so few groups, or so rare answers, leave the sums of groups too skewed, or find no difference"
        said.append(f"no figure: {why}; more groups, or groups of like sizes, have one")
    return said


def _split(claim: ClaimPower) -> list[str]:
    """What the variance of the planned difference is made of, where its parts are known."""
    spread, design = claim.spread, claim.design
    if not spread.known or design.clusters:
        return []
    arms, n = (1 if spread.one_trained else 2), design.questions
    sampling = (spread.sampling or 0.0) / design.samples
    own = max(0.0, spread.variance_at(design.samples) - sampling - spread.interaction)
    parts = {"questions": own / n, "samples": sampling / n}
    if claim.about == "recipe":
        divided = arms / 2 / design.seeds
        parts["samples"] *= divided + (1 - arms / 2)
        parts["training seeds"] = arms * spread.seed_sd**2 / design.seeds
        parts["what seeds do at single questions"] = spread.interaction / n / design.seeds
        parts["the engine"] = arms * spread.engine / design.seeds
    else:
        parts["questions"] += spread.interaction / n
        parts["the engine"] = 2 * spread.engine
    whole = sum(parts.values())
    if whole <= 0:
        return []
    said = ", ".join(f"{name} {part / whole:.0%}" for name, part in parts.items() if part)
    return [f"the variance of this difference comes from {said} (SD {_points(whole**0.5)})"]


def _floors(claim: ClaimPower) -> list[str]:
    """What stays out of reach however much of one thing is bought."""
    in_groups = "questions in the same groups" if claim.design.clusters else "questions"
    never = "show no margin below" if claim.margin is not None else "find no difference below"
    said = [
        f"{in_groups if what == 'questions' else what} without end {never} {_points(floor)}"
        for what, floor in claim.hardest.floors.items()
        if floor is not None and floor > claim.wanted
    ]
    return [f"never reached: {'; '.join(said)}"] if said else []


def _shopping(claim: ClaimPower, prices: Prices | None) -> list[str]:
    """Which purchases reach what is wanted, the cheapest first."""
    wanted = f"{'margin ' if claim.margin is not None else ''}{_points(claim.wanted)}"
    if not claim.purchases:
        return [f"to see {wanted}: more of one thing alone is not enough"]
    said = []
    for one in claim.purchases:
        if one.what == "nothing":
            return [f"to see {wanted}: the design is enough as it is"]
        design = replace(claim.design, questions=one.questions, samples=one.samples, seeds=one.seeds)
        if one.groups is not None and one.groups != len(design.clusters):
            design = replace(design, clusters=(1,) * one.groups)  # of these only their number is shown
        cost = "" if one.extra is None or prices is None else f" for {prices.show(one.extra)} more"
        said.append(f"{one.what} ({show_design(design)}){cost}")
    how = "cheapest first" if prices is not None else "no stage has a price or time on record"
    return [f"to see {wanted}, buy {'; or '.join(said)}: {how}"]


def _why_no_samples(claim: ClaimPower) -> str:
    if claim.design.greedy:
        return "no number of samples is enough: at temperature 0 every sample is the same"
    if claim.spread.sampling is None and not (claim.design.clusters and averages(claim.design.metric)):
        return f"more samples do not sharpen {claim.design.metric}, one decision over all of them"
    return "no number of samples is enough: the questions themselves differ too much"


def _points(share: float) -> str:
    return f"{share * 100:.1f} points"
