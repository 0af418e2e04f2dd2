"""Which purchase reaches a wanted difference for the least money: more questions, samples, training seeds, or a mix.

    prices = prices_of(connection, "quickstart")         # from the stages on record, None where there are none
    cheapest, *others = purchases(asked, prices)         # Purchase(questions=4000, samples=1, seeds=3, extra=12.5)

A training seed costs what the stages behind a trained model cost on average, and its evaluation; a completion what the
evaluations cost for each. In dollars where every stage has a price, else in hours. Without prices the purchases are
counts, in no order of cost.

Limits: prices are averages over the experiment's arms; a stage that seeds share is split evenly among them. Mixes try
powers of two of samples and up to MOST_SEEDS seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nsd.reports.judge.cost import StageCost, costs_of, read_causes, total
from nsd.reports.judge.designs import Asked

if TYPE_CHECKING:
    import duckdb

MOST_SEEDS = 64
SEEDS_TRIED = (*range(2, 13), 16, 24, 32, 48, MOST_SEEDS)


@dataclass(frozen=True)
class Prices:
    """`training`: of one training of one arm; `completion`: of one completion, judged. `unit`: "$" or "h"."""

    training: float
    completion: float
    unit: str

    def show(self, amount: float) -> str:
        """An amount in words: $12.50, 3.2 h."""
        if self.unit == "$":
            return f"${amount:,.2f}"
        return f"{amount:,.1f} h" if amount >= 0.1 else f"{amount * 60:.1f} min"


@dataclass(frozen=True)
class Purchase:
    """A design that reaches what is wanted. `what`: of what it has more (questions, samples, seeds, or a mix of them);
    `groups`: how many the questions come in, where the test counts groups. `extra`: what it costs beyond the present
    one, None where no price is known.
    """

    what: str
    questions: int
    samples: int
    seeds: int
    extra: float | None
    groups: int | None = None


def prices_of(connection: duckdb.DuckDBPyConnection, experiment: str) -> Prices | None:
    """Average prices of an experiment's stages; None where no evaluation with completions is on record."""
    rows = connection.execute(
        "SELECT run, train_digest, label_digest, eval_digest FROM current_runs WHERE experiment = ? ORDER BY run",
        [experiment],
    ).fetchall()
    held = read_causes(connection)
    made = {run: [digest for digest in (train, label) if digest] for run, train, label, _ in rows if train}
    measured = {run: [digest] for run, *_, digest in rows if digest}
    training = costs_of(connection, made, causes=held)
    known = {stage.digest for stage in training}
    evaluation = [stage for stage in costs_of(connection, measured, causes=held) if stage.digest not in known]
    completions = total(evaluation).completions
    if not completions:
        return None
    unit = "$" if all(stage.dollars is not None for stage in (*training, *evaluation)) else "h"
    models = {train for _, train, _, _ in rows if train}  # runs that are measured several ways share one
    each = _amount(training, unit) / len(models) if models else 0.0
    return Prices(each, _amount(evaluation, unit) / completions, unit)


def _amount(stages: Sequence[StageCost], unit: str) -> float:
    sums = total(stages)
    return (sums.dollars or 0.0) if unit == "$" else sums.seconds / 3600


def purchases(asked: Asked, prices: Prices | None, most_questions: int | None = None) -> list[Purchase]:
    """What reaches the wanted difference, the cheapest first where prices are known; [] where nothing does.

    The present design alone where it is enough. `most_questions`: no more can be had.
    """
    design = asked.claim.design
    now = (design.questions, design.samples, design.seeds)
    there = len(design.clusters) or None
    if asked.chance(asked.model()) >= asked.power:
        return [Purchase("nothing", *now, None if prices is None else 0.0, there)]
    found = []
    for what in asked.purchases:
        count = asked.least(what, most=_most(asked, what, most_questions))
        if count is not None:
            bought = {**dict(zip(("questions", "samples", "seeds"), now, strict=True)), what: count}
            if what == "groups":
                bought["questions"] = _questions_of(asked, bought.pop("groups"))
            one = _priced(asked, prices, what, tuple(bought.values()))
            found.append(replace(one, groups=count if what == "groups" else there))
    if prices is None:
        return found
    found.sort(key=lambda one: one.extra or 0.0)
    if (mix := _mix(asked, prices, most_questions, found[0].extra if found else None)) is not None:
        found.insert(0, mix)
    return found


def _questions_of(asked: Asked, groups: int) -> int:
    """How many questions so many groups like these have."""
    design = asked.claim.design
    return math.ceil(groups * design.questions / len(design.clusters))


def _most(asked: Asked, what: str, questions: int | None) -> int | None:
    """The most of something where there are so many questions."""
    design = asked.claim.design
    if questions is None or what not in ("groups", "questions"):
        return None
    return questions if what == "questions" else max(1, questions * len(design.clusters) // design.questions)


def cost_of(asked: Asked, prices: Prices, questions: int, samples: int, seeds: int) -> float:
    """The price of a whole design: trainings of its trained arms, and the completions of both."""
    trained = sum(asked.claim.design.trained)
    runs = trained * seeds + (2 - trained)
    return trained * seeds * prices.training + runs * questions * samples * prices.completion


def _priced(asked: Asked, prices: Prices | None, what: str, after: tuple[int, ...]) -> Purchase:
    design = asked.claim.design
    extra = None
    if prices is not None:
        extra = cost_of(asked, prices, *after) - cost_of(asked, prices, design.questions, design.samples, design.seeds)
    return Purchase(what, after[0], after[1], after[2], extra)


def _mix(asked: Asked, prices: Prices, most_questions: int | None, below: float | None) -> Purchase | None:
    """The cheapest design with more of two or three; None where none is cheaper than `below`."""
    design, best = asked.claim.design, None
    seeds = [design.seeds]
    if "seeds" in asked.purchases:
        seeds += [count for count in SEEDS_TRIED if count > design.seeds]
    samples = [design.samples << step for step in range(6)] if "samples" in asked.purchases else [design.samples]
    for s in seeds:
        for k in samples:
            least = _priced(asked, prices, "a mix", (design.questions, k, s))
            if below is not None and least.extra is not None and least.extra >= below:
                break  # more samples cost more still
            here = _with(asked, k, s)
            what = "groups" if design.clusters else "questions"
            least_count = here.least(what, most=_most(asked, what, most_questions))
            if least_count is None:
                continue
            groups = max(least_count, len(design.clusters)) if design.clusters else None
            count = least_count if groups is None else _questions_of(asked, groups)
            one = replace(_priced(asked, prices, "a mix", (max(count, design.questions), k, s)), groups=groups)
            if one.extra is not None and (below is None or one.extra < below):
                best, below = one, one.extra
    return best


def _with(asked: Asked, samples: int, seeds: int) -> Asked:
    """The same asked of another design."""
    changed = replace(asked.claim, design=replace(asked.claim.design, samples=samples, seeds=seeds))
    return replace(asked, claim=changed)
