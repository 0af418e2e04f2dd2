"""Compute matching (`match:` in a spec): every trained arm gets the same budget, an amount or that of one of them.

The arm that sets the budget is `match.to`, else the one with the most data among those with the same trainer.
Steps are counted before the run, with a pseudo-label for every unlabeled question; tokens are counted in the
worker, on the training texts of the reference arm, with the start model's tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nsd.plugins.api import Question, Splits, Trainer
from nsd.plugins.errors import InputError
from nsd.runner.plan.jobs import BudgetJob, TokensOf
from nsd.runner.plan.keys import block_job, block_key
from nsd.runner.spec.model import Condition, Experiment
from nsd.runner.spec.sources import pool_of


def example_count(condition: Condition, splits: Splits) -> int:
    """Training examples of a condition, a pseudo-label for every question that is labeled assumed."""
    return sum(len(getattr(splits, pool_of(source, condition.label_on))) for source in condition.train_on)


def budget(
    experiment: Experiment,
    condition: Condition,
    splits_of: Callable[[Condition], Splits],
    hash_of: Callable[[Sequence[Question]], str],
) -> tuple[dict[str, Any], BudgetJob]:
    """(what enters the train stage's key, what the worker gets), both saying nothing for `match: epochs`.

    Raises InputError where the wanted budget cannot be known.
    """
    match = experiment.match
    if match.by == "epochs":
        return {}, BudgetJob()
    if match.amount is not None:
        if match.by == "tokens":
            _check_texts(experiment, condition)
        return {match.by: match.amount}, _amount(match.by, match.amount)
    reference = _reference(experiment, condition, splits_of)
    assert reference.trainer is not None
    trainer = reference.trainer.make()
    assert isinstance(trainer, Trainer)
    splits = splits_of(reference)
    if match.by == "steps":
        steps = trainer.planned_steps(example_count(reference, splits))
        if steps is None:
            raise InputError(
                f"{experiment.path}: match: steps needs to know the steps of {reference.name!r} before the run, and "
                "its trainer (with packing?) cannot tell; use match: tokens"
            )
        return {"steps": steps}, BudgetJob(steps=steps)
    _check_texts(experiment, reference)
    if "pseudo" in reference.train_on:
        raise InputError(
            f"{experiment.path}: match: tokens needs an arm whose training texts are known before the run; "
            f"{reference.name!r} trains on pseudo-labels. Name another: match: {{by: tokens, to: CONDITION}}"
        )
    data = [hash_of(getattr(splits, source)) for source in reference.train_on]
    key = {"tokens": {"data": data, "trainer": block_key(reference.trainer)}}
    return key, BudgetJob(tokens_of=TokensOf(tuple(data), block_job(reference.trainer)))


def _amount(by: str, amount: float) -> BudgetJob:
    match by:
        case "steps":
            return BudgetJob(steps=int(amount))
        case "tokens":
            return BudgetJob(tokens=int(amount))
        case "generated_tokens":
            return BudgetJob(generated_tokens=int(amount))
    return BudgetJob(seconds=float(amount))


def _check_texts(experiment: Experiment, condition: Condition) -> None:
    assert condition.trainer is not None
    if not condition.trainer.cls.needs_targets:
        raise InputError(
            f"{experiment.path}: match: tokens counts the tokens of training texts, which the trainer "
            f"{condition.trainer.use!r} does not have; use match: steps or match: generated_tokens"
        )


def _reference(experiment: Experiment, condition: Condition, splits_of: Callable[[Condition], Splits]) -> Condition:
    match = experiment.match
    assert condition.trainer is not None
    peers = [
        other
        for other in experiment.conditions.values()
        if other.train_on and other.trainer is not None and other.trainer.use == condition.trainer.use
    ]
    if match.to is not None and any(other.name == match.to for other in peers):
        return experiment.conditions[match.to]
    if match.by == "tokens":
        peers = [other for other in peers if "pseudo" not in other.train_on] or peers
    return max(peers, key=lambda other: example_count(other, splits_of(other)))
