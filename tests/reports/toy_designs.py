"""Designs and results whose power is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nsd.reports.judge.power import Claimed, ClaimPower, Design, power_of
from toy_results import Results


def one(design: Design, claim: Claimed | None = None, **options: Any) -> ClaimPower:
    """The power of one claim, by default of any two conditions."""
    if claim is None:
        return power_of([], design=design, **options).overall
    return power_of([claim], **options).claims[0]


def alternating(n: int, right: int) -> list[float]:
    return [1.0] * right + [0.0] * (n - right)


def add_samples(results: Results, run: str, samples: Sequence[Sequence[int]]) -> str:
    """A run of avg@K from the outcomes of each question's samples."""
    k = len(samples[0])
    results.add(run, [sum(outcomes) / k for outcomes in samples], samples=k, metric=f"avg@{k}")
    results.connection.execute("DELETE FROM eval_samples WHERE eval_digest = ?", [f"eval-{run}"])
    rows = [
        (f"eval-{run}", f"q{i}", j, float(right), bool(right), "1", "stop", 9)
        for i, outcomes in enumerate(samples)
        for j, right in enumerate(outcomes)
    ]
    results.connection.executemany("INSERT INTO eval_samples VALUES (?,?,?,?,?,?,?,?)", rows)
    return run


def undecided_against_decided(results: Results) -> Claimed:
    """100 questions, two samples: a is right in one of two, b in both of half of them and in none of the others.

    Differences are +-.5: variance .25 * 100 / 99. One sample within a question: .5 in a, 0 in b. So w^2 = .002525.
    """
    add_samples(results, "toy/a/seed1", [[1, 0]] * 100)
    add_samples(results, "toy/b/seed1", [[1, 1]] * 50 + [[0, 0]] * 50)
    return Claimed("b > a", "better", "b", "a", design=Design(100, samples=2, metric="avg@2"))
