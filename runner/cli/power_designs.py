"""What a plan, or an experiment that ran, measures: a design for each condition, and that of a claim.

designs_of_plan(plan)                             # condition -> nsd.reports.judge.power.Design
claim_of(claim, designs, questions)               # the claim with the design that both its conditions share
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nsd.plugins.errors import InputError
from nsd.plugins.groups import grouped
from nsd.plugins.words import hint
from nsd.reports.judge.runs import condition_arms, draws_nothing
from nsd.runner.store.shapes import Claim, Hypotheses

if TYPE_CHECKING:
    import duckdb

    from nsd.plugins.api import Question
    from nsd.reports.judge.power import Claimed, Design
    from nsd.runner.plan.model import Plan

BY_GROUPS = (
    "an interaction is about these weights; its difference is that of the smallest group of questions from all others, "
    "which are taken to be alike"
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
    groups: str | None = None
    icc: float | None = None


def common(designs: Sequence[Design]) -> Design:
    """The design that most conditions have that train, or most of all where none does."""
    trained = [design for design in designs if any(design.trained)]
    found, _ = Counter(trained or designs).most_common(1)[0]
    return found


def changed(design: Design, wanted: Wanted) -> Design:
    """The design with what a person wants in place of the planned. Raises InputError for samples of one decision."""
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


def group_sizes(claim: Claim, content: str | None, questions: Callable[[str], Sequence[Question]]) -> tuple[int, ...]:
    """How many questions each group of an interaction has; () where that is not known."""
    if claim.by is None or content is None:
        return ()
    asked = {one.id: one for one in questions(content)}
    try:
        return tuple(Counter(grouped(asked, claim.by).values()).values()) if asked else ()
    except InputError:  # the plan, or the comparison, says so
        return ()


def claim_of(
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
    elif (
        is_search(better.metric)
        and not better.clusters
        and not all(one.seeds > 1 for one in (better, worse) if any(one.trained))
    ):
        note = BY_SIGN
    elif claim.by is not None:
        note = BY_GROUPS
    design = replace(
        better,
        questions=min(better.questions, worse.questions),
        samples=min(better.samples, worse.samples),
        seeds=min((one.seeds for one in (better, worse) if any(one.trained)), default=1),
        greedy=better.greedy and worse.greedy,
        trained=(better.trained[0], worse.trained[0]),
        groups=group_sizes(claim, better.data_hash, questions),
        clusters=() if claim.by is not None else better.clusters,
    )
    margin = None if claim.kind == "better" else claim.margin
    return Claimed(claim.text, claim.kind, claim.better, claim.worse, margin, design, note)


def designs_of_plan(plan: Plan) -> dict[str, Design]:
    """The design of each condition."""
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
            samples=samples_of(metric, drawn["sampling"]["n"]) * draws(trained, greedy, metric, seeds[run.condition]),
            seeds=seeds[run.condition] if trained else 1,
            metric=metric,
            data_hash=drawn["questions"],
            greedy=greedy,
            trained=(trained, trained),
        )
    return found


def samples_of(metric: str, samples: int) -> int:
    """A search gives one value for each question, however many samples it may draw."""
    from nsd.reports.judge.metrics import is_search

    return 1 if is_search(metric) else samples


def draws(trained: bool, greedy: bool, metric: str, seeds: int) -> int:
    """How many times an arm's seeds sample each question of one model: seeds that train nothing draw again, or not."""
    from nsd.plugins.metrics import averages

    return 1 if trained or greedy or not averages(metric) else seeds


def designs_of_experiment(connection: duckdb.DuckDBPyConnection, name: str) -> tuple[dict[str, Design], Hypotheses]:
    """Designs and hypotheses of an experiment that ran. Raises InputError with the nearest names."""
    from nsd.reports.judge.power import Design

    questions = dict(connection.execute("SELECT eval_digest, questions FROM eval_info").fetchall())
    found = {}
    for condition, arm in condition_arms(connection, name).items():
        run = arm.runs[0]
        seeds = len(arm.observations) if arm.trained else 1
        samples = samples_of(run.metric, run.samples) * draws(
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
