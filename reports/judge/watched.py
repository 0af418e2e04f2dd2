"""What validation says of a training: which weights were kept, whether it learned, gamed its reward, or collapsed.

    watched(values, questions, rewards, kept)       # one training
    collect_watched(connection, digests, names)     # those of a report

Validation is of questions that no arm trains on, drawn from the same streams each time. Its noise is taken as that of
two independent shares of correct answers, which is too much rather than too little for the same questions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

CERTAIN = 2.0  # standard errors of a difference that counts
RISE = 0.1  # of the training reward, from the first to the last third of the steps: less is no rise
FEWEST = 10  # steps in a third: fewer tell no rise from questions that happen to be easier
RISE_P_VALUE = 0.005
PREFIX = "validation/"


@dataclass(frozen=True)
class Watched:
    """A training under validation.

    `values` are (step, mean over the validation questions). `kept` is "best" or "last", `kept_step` the step of the
    weights that were kept. `collapse` is the first measured step from which the value stayed below the best one by more
    than noise, to the end; None where it did not. `says` is what came of it, in words.
    """

    metric: str
    values: list[tuple[int, float]]
    questions: int
    kept: str
    kept_step: int
    best_step: int
    best: float
    last: float
    collapse: int | None
    says: str


@dataclass(frozen=True)
class WatchedTraining:
    """The same with its training's name and seed, the share of rollouts that were masked, and the divergence's name.

    `masked` is None for a training that masks none, `divergence` for one without a teacher.
    """

    name: str
    seed: int | None
    watched: Watched | None
    masked: float | None
    divergence: str | None
    tokens: int | None


def noise(a: float, b: float, questions: int) -> float:
    """Standard error of the difference of two shares of as many questions; at least that of one question."""
    return math.sqrt(max(a * (1 - a) + b * (1 - b), 1 / questions) / questions)


def collapse_of(values: Sequence[tuple[int, float]], questions: int) -> int | None:
    """The first step after the best from which all values lie below it by more than noise; None where the end does not.

    `values` are in order of steps.
    """
    best_step, best = max(values, key=lambda point: (point[1], -point[0]))
    found = None
    for step, value in reversed([point for point in values if point[0] > best_step]):
        if best - value <= CERTAIN * noise(best, value, questions):
            break
        found = step
    return found


def watched(
    metric: str,
    values: Sequence[tuple[int, float]],
    questions: int,
    kept: str,
    kept_step: int,
    rewards: Sequence[float] = (),
) -> Watched:
    """What a training came to, by its validation (in order of steps) and its mean reward at each step."""
    best_step, best = max(values, key=lambda point: (point[1], -point[0]))
    start, last = values[0][1], values[-1][1]
    collapse = collapse_of(values, questions)
    rose = _rise(rewards)
    gained = best - start > CERTAIN * noise(best, start, questions)
    if collapse is not None:
        says = f"collapsed at step {collapse}: from {best:.3f} to {last:.3f}"
        if rose:
            says += f", while its reward rose by {rose:.2f}"
    elif gained:
        says = f"learned: {start:.3f} at the start, {best:.3f} at step {best_step}"
    elif rose:
        says = f"its reward rose by {rose:.2f} and validation did not beyond noise: it may game the reward"
    else:
        says = "no change beyond the noise of so few questions"
    return Watched(metric, list(values), questions, kept, kept_step, best_step, best, last, collapse, says)


def _rise(rewards: Sequence[float]) -> float:
    """By how much the mean reward rose from the first to the last third of the steps; 0 where noise can do that.

    By size and by ranks (Mann-Whitney, one-sided), because rewards of single steps are skewed.
    """
    third = len(rewards) // 3
    if third < FEWEST:
        return 0.0
    first, last = rewards[:third], rewards[-third:]
    rose = sum(last) / third - sum(first) / third
    if rose <= RISE:
        return 0.0
    from scipy.stats import mannwhitneyu

    certain = mannwhitneyu(last, first, alternative="greater", method="asymptotic").pvalue < RISE_P_VALUE
    return rose if certain else 0.0


def collect_watched(
    connection: duckdb.DuckDBPyConnection, trainings: Mapping[str, tuple[str, int | None]]
) -> list[WatchedTraining]:
    """Trainings that were watched by validation or that mask rollouts, of those in `trainings` (digest: name, seed)."""
    manifests = connection.execute(
        "SELECT digest, manifest FROM stages WHERE digest IN (SELECT unnest(?::TEXT[]))", [list(trainings)]
    ).fetchall()
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for digest, metric, step, value in connection.execute(
        "SELECT train_digest, metric, step, value FROM curves WHERE train_digest IN (SELECT unnest(?::TEXT[])) AND "
        "(starts_with(metric, ?) OR metric IN ('reward', 'self_distillation/reprompt_sample_fraction')) "
        "AND value IS NOT NULL AND isfinite(value) ORDER BY step",
        [list(trainings), PREFIX],
    ).fetchall():
        curves.setdefault(digest, {}).setdefault(metric, []).append((int(step), float(value)))
    told = {digest: json.loads(text) for digest, text in manifests}
    found = []
    for digest, (name, seed) in trainings.items():
        mine, manifest = curves.get(digest, {}), told.get(digest) or {}
        said = (manifest.get("training") or {}).get("notes") or {}
        notes = said.get("validation")
        read = [value for _, value in mine.get("self_distillation/reprompt_sample_fraction", [])]
        seen = None
        if notes and (values := mine.get(PREFIX + str(notes["metric"]))):
            rewards = [value for _, value in mine.get("reward", [])]
            seen = watched(
                str(notes["metric"]),
                values,
                int(notes.get("questions") or 1),
                str(notes["kept"]),
                int(notes["kept_step"]),
                rewards,
            )
        if seen is not None or read:
            masked = 1 - sum(read) / len(read) if read else None
            tokens = notes.get("tokens") if notes else None
            found.append(WatchedTraining(name, seed, seen, masked, said.get("divergence"), tokens))
    return sorted(found, key=lambda one: (one.name, one.seed if one.seed is not None else -1))
