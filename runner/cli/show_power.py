"""`nsd power` and the power lines of `nsd plan`: what a design can detect, for people and as JSON.

    print_power(workspace, "specs/quickstart.yaml", Wanted(detect=0.02), as_json=False)
    print_power(workspace, None, Wanted(questions=1319), as_json=False)
    plan_power(plan, workspace)                                   # nsd.reports.judge.power.Power of a plan

A spec need not have run; an experiment that ran is read from the results database, with the claims it ran with last.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from nsd.plugins.errors import InputError
from nsd.plugins.groups import grouped
from nsd.plugins.words import hint
from nsd.reports import stats
from nsd.reports.judge.runs import condition_arms, draws_nothing
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Claim, Hypotheses
from nsd.runner.store.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

    from nsd.plugins.api import Question
    from nsd.reports.judge.power import Claimed, ClaimPower, Design, Power, Reach
    from nsd.reports.judge.purchases import Prices
    from nsd.runner.plan.model import Plan

CLAIMS_IN_A_LINE = 8
BY_GROUPS = (
    "an interaction is about these weights; its difference is that of the smallest group of questions from all others, "
    "which are taken to be alike"
)
IN_GROUPS = (
    "the questions have a field `group`, and power takes each question for itself: nsd compare --groups group counts "
    "groups, and finds less where answers in a group go together"
)
BY_SIGN = (
    "with one search of each question the claim is a sign test: discordance is the share of questions that tell the "
    "two conditions apart, and a difference is by how much larger a share of them goes one way"
)


@dataclass(frozen=True)
class Wanted:
    """What a person asks of `nsd power`; None leaves it to the spec, the experiment or the default."""

    detect: float | None = None
    power: float = 0.8
    alpha: float | None = None
    questions: int | None = None
    samples: int | None = None
    seeds: int | None = None
    discordance: float | None = None
    seed_sd: float | None = None
    most_questions: int | None = None


def plan_power(plan: Plan, workspace: Workspace, wanted: Wanted | None = None) -> Power:
    """Power of a plan's claims. Needs no results; uses those the workspace has."""
    hypotheses = plan.experiment.hypotheses
    block = Hypotheses() if hypotheses is None else Hypotheses(**hypotheses.to_json())
    with _earlier(workspace) as connection:
        earlier = 0 if connection is None else _earlier_claims(connection, plan.name, block.claims)
        family = len(block.claims) + earlier
        beside = {run.condition: str(run.measurement) for run in plan.runs if run.beside}
        designs, shop = _designs_of_plan(plan), wanted is not None
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

        design = Design(wanted.questions, wanted.samples or 1, wanted.seeds or 1)
        found = _power(None, None, {"": design}, Hypotheses(), 0, wanted, True)
    elif name.endswith((".yaml", ".yml")) or Path(name).is_file():
        from nsd.runner.plan.build import build_plan
        from nsd.runner.spec.load import load_spec

        found = plan_power(build_plan(load_spec(Path(name), run_files=run_files)), workspace, wanted)
    else:
        with Store(workspace).read() as connection:
            designs, block = _designs_of_experiment(connection, name)
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

    designs = {condition: _changed(design, wanted) for condition, design in designs.items()}
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
    )
    questions = cache(questions)
    claims = [claimed for claim in block.claims if (claimed := _claimed(claim, designs, questions)) is not None]
    found = stated(claims, design=_common(of.pop("")))
    return replace(found, beside={name: stated([], design=_common(mine)).overall for name, mine in of.items()})


def _common(designs: Sequence[Design]) -> Design:
    """The design that most conditions have that train, or most of all where none does."""
    trained = [design for design in designs if any(design.trained)]
    found, _ = Counter(trained or designs).most_common(1)[0]
    return found


def _earlier_claims(connection: duckdb.DuckDBPyConnection, experiment: str, claims: Sequence[Claim]) -> int:
    """How many claims earlier versions of the spec declared beside these."""
    from nsd.reports.judge.versions import declared_earlier, versions_of

    return len(declared_earlier(versions_of(connection, experiment), claims))


def _changed(design: Design, wanted: Wanted) -> Design:
    from nsd.plugins.metrics import averages

    if wanted.samples is not None and wanted.samples != design.samples and not averages(design.metric):
        raise InputError(
            f"--samples says nothing of {design.metric}: its value is one decision over its samples, not their mean"
        )
    return replace(
        design,
        questions=wanted.questions or design.questions,
        samples=wanted.samples or design.samples,
        seeds=(wanted.seeds or design.seeds) if any(design.trained) else 1,
    )


def _group_sizes(claim: Claim, content: str | None, questions: Callable[[str], Sequence[Question]]) -> tuple[int, ...]:
    """How many questions each group of an interaction has; () where that is not known."""
    if claim.by is None or content is None:
        return ()
    asked = {one.id: one for one in questions(content)}
    try:
        return tuple(Counter(grouped(asked, claim.by).values()).values()) if asked else ()
    except InputError:  # the plan, or the comparison, says so
        return ()


def _in_groups(questions: Sequence[Question]) -> bool:
    """Whether several questions share a value of the field `group`."""
    groups = [str(one.meta["group"]) for one in questions if one.meta.get("group") is not None]
    return len(set(groups)) < len(groups)


def _claimed(
    claim: Claim, designs: Mapping[str, Design], questions: Callable[[str], Sequence[Question]]
) -> Claimed | None:
    """The claim with the design both conditions share; None where one of them is not planned."""
    from nsd.reports.judge.metrics import is_search
    from nsd.reports.judge.power import Claimed

    better, worse = designs.get(claim.better), designs.get(claim.worse)
    if better is None or worse is None:
        return None
    note = ""
    if better.data_hash != worse.data_hash or better.metric != worse.metric:
        note = "the two conditions are measured on different questions or metrics, which nsd compare refuses"
    elif is_search(better.metric) and not all(one.seeds > 1 for one in (better, worse) if any(one.trained)):
        note = BY_SIGN
    elif claim.by is not None:
        note = BY_GROUPS
    content = better.data_hash
    if claim.by is None and content is not None and _in_groups(questions(content)):
        note = "; ".join(filter(None, (note, IN_GROUPS)))
    design = replace(
        better,
        questions=min(better.questions, worse.questions),
        samples=min(better.samples, worse.samples),
        seeds=min((one.seeds for one in (better, worse) if any(one.trained)), default=1),
        greedy=better.greedy and worse.greedy,
        trained=(better.trained[0], worse.trained[0]),
        groups=_group_sizes(claim, better.data_hash, questions),
    )
    margin = None if claim.kind == "better" else claim.margin
    return Claimed(claim.text, claim.kind, claim.better, claim.worse, margin, design, note)


def _designs_of_plan(plan: Plan) -> dict[str, Design]:
    from nsd.reports.judge.power import Design

    found: dict[str, Design] = {}
    seeds = Counter(run.condition for run in plan.runs)
    for run in plan.runs:
        drawn = plan.stages[run.eval_digest].settings
        greedy = draws_nothing(drawn["engine"]["use"], drawn["sampling"]["temperature"])
        metric = plan.measured(run).eval.make().metric()
        trained = run.train_digest is not None or drawn.get("by") == "training"  # a search may be what trains
        found[run.condition] = Design(
            questions=len(plan.data[drawn["questions"]]),
            samples=_samples_of(metric, drawn["sampling"]["n"]) * _draws(trained, greedy, metric, seeds[run.condition]),
            seeds=seeds[run.condition] if trained else 1,
            metric=metric,
            data_hash=drawn["questions"],
            greedy=greedy,
            trained=(trained, trained),
        )
    return found


def _samples_of(metric: str, samples: int) -> int:
    """A search gives one value for each question, however many samples it may draw."""
    from nsd.reports.judge.metrics import is_search

    return 1 if is_search(metric) else samples


def _draws(trained: bool, greedy: bool, metric: str, seeds: int) -> int:
    """How many times an arm's seeds sample each question of one model: seeds that train nothing draw again, or not."""
    from nsd.plugins.metrics import averages

    return 1 if trained or greedy or not averages(metric) else seeds


def _designs_of_experiment(connection: duckdb.DuckDBPyConnection, name: str) -> tuple[dict[str, Design], Hypotheses]:
    """Designs and hypotheses of an experiment that ran. Raises InputError with the nearest names."""
    from nsd.reports.judge.power import Design

    questions = dict(connection.execute("SELECT eval_digest, questions FROM eval_info").fetchall())
    found = {}
    for condition, arm in condition_arms(connection, name).items():
        run = arm.runs[0]
        seeds = len(arm.observations) if arm.trained else 1
        samples = _samples_of(run.metric, run.samples) * _draws(
            arm.trained, run.repeats_itself, run.metric, len(arm.runs)
        )
        found[condition] = Design(
            questions=questions[run.eval_digest],
            samples=samples,
            seeds=seeds,
            metric=run.metric,
            data_hash=run.data_hash,
            greedy=run.repeats_itself,
            trained=(arm.trained, arm.trained),
        )
    if not found:
        query = "SELECT DISTINCT experiment FROM runs WHERE experiment IS NOT NULL ORDER BY 1"
        names = [row[0] for row in connection.execute(query).fetchall()]
        meant = hint(name, names, "; `nsd runs` lists what ran", most=3)
        raise InputError(f"no spec file and no experiment with results is named {name!r}{meant}")
    from nsd.reports.judge.versions import current_version, versions_of

    current = current_version(versions_of(connection, name))
    return found, Hypotheses() if current is None else current.hypotheses


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
        return "no difference"
    best = "" if reach.at_best is None else f" (at best {_points(reach.at_best)})"
    return ("" if claim.margin is None else "margin ") + _points(reach.detectable) + best


def show_design(design: Design) -> str:
    """Questions, samples and seeds in words."""
    parts = [(design.questions, "question"), (design.samples, "sample"), (design.seeds, "seed")]
    words = [f"{count} {word}{'' if count == 1 else 's'}" for count, word in parts if count > 1 or word == "question"]
    return " x ".join(words)


def _questions(claim: ClaimPower, reach: Reach) -> str:
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
        lines = [claim.spread.source, f"seeds: {claim.spread.seed_source}", *_split(claim)]
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


def _split(claim: ClaimPower) -> list[str]:
    """What the variance of the planned difference is made of, where its parts are known."""
    spread, design = claim.spread, claim.design
    if not spread.known:
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
    said = [
        f"{what} without end {'show no margin below' if claim.margin is not None else 'find no difference below'} "
        f"{_points(floor)}"
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
        cost = "" if one.extra is None or prices is None else f" for {prices.show(one.extra)} more"
        said.append(f"{one.what} ({show_design(design)}){cost}")
    how = "cheapest first" if prices is not None else "no stage has a price or time on record"
    return [f"to see {wanted}, buy {'; or '.join(said)}: {how}"]


def _why_no_samples(claim: ClaimPower) -> str:
    if claim.design.greedy:
        return "no number of samples is enough: at temperature 0 every sample is the same"
    if claim.spread.sampling is None:
        return f"more samples do not sharpen {claim.design.metric}, one decision over all of them"
    return "no number of samples is enough: the questions themselves differ too much"


def _points(share: float) -> str:
    return f"{share * 100:.1f} points"
