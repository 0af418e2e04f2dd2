"""The arms of an experiment with their seeds: means, intervals, what is unfinished, what was warned of.

arms = summarise_arms(connection, "quickstart")
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from nsd.reports import stats
from nsd.reports.judge.metrics import UNITS
from nsd.reports.judge.runs import Arm, Run, all_runs, measured_by, run_names
from nsd.reports.judge.values import Values, load_values
from nsd.reports.judge.versions import as_version, current_version, versions_of

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    from nsd.reports.judge.values import Floats


DONE = "done"


@dataclass(frozen=True)
class ArmSummary:
    """One condition over all its seeds. Without a result `mean` is None and `status` says why.

    `seeds` are training seeds, `seed_means` has a value for each distinct model, `samples` counts those of a question
    over all draws of one, `copies` the runs that repeat another to the letter and count for nothing. `measurement`
    names the evaluation where the spec names several, `beside` says that it is not the first.
    """

    condition: str
    runs: list[str]
    metric: str | None
    mean: float | None
    ci: tuple[float, float] | None
    interval: str | None
    n: int
    samples: int
    seeds: list[int]
    seed_means: list[float]
    truncated: float | None
    failed: float | None
    status: str
    copies: int = 0
    measurement: str | None = None
    beside: bool = False

    @property
    def finished(self) -> bool:
        """Whether every run has a result."""
        return self.status == DONE


@contextlib.contextmanager
def version_runs(
    connection: duckdb.DuckDBPyConnection, experiment: str, spec_digest: str | None
) -> Iterator[list[str]]:
    """The names of a version's runs, in the order of its conditions; inside, everything is read of these alone."""
    current = current_version(versions_of(connection, experiment), spec_digest)
    with as_version(connection, experiment, current.spec_digest if current else None):
        yield run_names(connection, experiment, current.conditions if current else ())


def summarise_arms(
    connection: duckdb.DuckDBPyConnection, runs: Sequence[str], level: float | None = 0.95, metric: str | None = None
) -> list[ArmSummary]:
    """One summary per condition of the named runs, in the order of first naming; by another `metric` where given.

    Without a `level` it has no interval.
    """
    finished, unfinished = all_runs(connection)
    sql = "SELECT run, condition, measurement, coalesce(beside, false) FROM current_runs"
    named = connection.execute(sql).fetchall()
    places = {run: (condition or run) for run, condition, *_ in named}
    measured = {condition or run: (measurement, beside) for run, condition, measurement, beside in named}
    grouped: dict[str, list[str]] = {}
    for run in runs:
        grouped.setdefault(places.get(run, run), []).append(run)
    arms = {
        condition: Arm(condition, tuple(finished[run] for run in names if run in finished))
        for condition, names in grouped.items()
    }
    if metric is not None:
        arms = {condition: measured_by(arm, metric) for condition, arm in arms.items()}
    values = load_values(connection, [arm for arm in arms.values() if arm.runs], metric=metric)
    found = [_arm(arms[condition], names, unfinished, values, level) for condition, names in grouped.items()]
    of = [measured.get(arm.condition, (None, False)) for arm in found]
    return [replace(arm, measurement=name, beside=beside) for arm, (name, beside) in zip(found, of, strict=True)]


def by_measurement(arms: Sequence[ArmSummary]) -> tuple[list[ArmSummary], dict[str, list[ArmSummary]]]:
    """The arms as the first evaluation of their spec measures them, and by name those of each other one."""
    others: dict[str, list[ArmSummary]] = {}
    for arm in arms:
        if arm.beside:
            others.setdefault(str(arm.measurement), []).append(arm)
    return [arm for arm in arms if not arm.beside], others


def _arm(arm: Arm, names: list[str], unfinished: Mapping[str, str], values: Values, level: float | None) -> ArmSummary:
    waiting = [f"{name}: {unfinished.get(name, 'not run')}" for name in names if name not in {r.name for r in arm.runs}]
    status = "; ".join(waiting) or DONE
    if not arm.runs:
        return ArmSummary(arm.name, names, None, None, None, None, 0, 0, [], [], None, None, status)
    first = arm.runs[0]
    truncated, failed = (_mean_of(shares, arm) for shares in (values.truncated, values.failed))
    if first.counts is not None:
        right, n = first.counts
        interval, means = None if level is None else stats.exact_binomial(right, n, level), [right / n]
    else:
        per_question = [_per_question(draws, values) for draws in arm.observations]
        means, n = [float(found.mean()) for found in per_question if len(found)], len(per_question[0])
        interval = None if level is None else arm_interval(_shared(arm, values), level, first.metric)
    return ArmSummary(
        condition=arm.name,
        runs=[run.name for run in arm.runs],
        metric=first.metric,
        mean=sum(means) / len(means) if means else None,
        ci=None if interval is None else (interval.low, interval.high),
        interval=None if interval is None else interval.name,
        n=n,
        samples=sum(run.samples for run in arm.observations[0]),
        seeds=arm.seeds,
        seed_means=means,
        truncated=truncated,
        failed=failed,
        status=status,
        copies=len(arm.copies),
    )


def _per_question(draws: Sequence[Run], values: Values) -> Floats:
    """Values of the questions that every draw from the same weights answered, their mean over the draws."""
    rows = [values.row[str(run.eval_digest)] for run in draws]
    found: Floats = values.matrix[rows][:, values.present[rows].all(axis=0)].mean(axis=0)
    return found


def _shared(arm: Arm, values: Values) -> Floats:
    """[weights, questions]: values of the questions that every run of the arm answered."""
    import numpy as np

    rows = [[values.row[str(run.eval_digest)] for run in draws] for draws in arm.observations]
    shared = values.present[[row for draws in rows for row in draws]].all(axis=0)
    return np.stack([values.matrix[draws][:, shared].mean(axis=0) for draws in rows])


def arm_interval(
    block: Floats, level: float, metric: str, clusters: NDArray[np.int64] | None = None
) -> stats.Interval | None:
    """Interval of one arm's mean from its values [weights, questions]; None where there are too few.

    Several trained weights: over seeds and questions (`stats.seeds_interval`). Else over questions: exact for
    right-or-wrong values, the bounded mean for others, t for a metric without a largest value. Questions in `clusters`
    [questions] count by groups: CR2 or the bounded mean of groups, whichever is wider; None where they are too few.
    """
    bounds = None if metric in UNITS else (0.0, 1.0)
    if len(block) > 1:
        return stats.seeds_interval(block, level, bounds, clusters)
    row = block[0]
    if clusters is not None:
        of_groups = stats.cluster_limits(row, clusters, bounds, lopsided=True)
        return None if isinstance(of_groups, stats.Result) else stats.interval_of(of_groups, level, bounds)
    if bounds is not None and ((row == 0) | (row == 1)).all():
        return stats.exact_binomial(round(float(row.sum())), len(row), level)
    if len(row) < 2:
        return None
    if bounds is not None:
        return _bounded_interval(row.tobytes(), level)
    limits = stats.mean_limits(row, None)
    return None if limits is None else stats.interval_of(limits, level)


@lru_cache(maxsize=1024)  # the same arm stands in many pairs
def _bounded_interval(row: bytes, level: float) -> stats.Interval:
    import numpy as np

    return stats.interval_of(stats.BoundedMean(np.frombuffer(row), 0.0, 1.0), level, (0.0, 1.0))


def _mean_of(shares: Mapping[str, float], arm: Arm) -> float | None:
    known = [shares[str(run.eval_digest)] for run in arm.runs if run.eval_digest in shares]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class RunWarning:
    """A warning of a stage behind a run; `step` of its first sight, `field` of the spec that it is about."""

    run: str
    step: int | None
    text: str
    field: str | None


def warnings_of(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> list[RunWarning]:
    """What the stages of a run warned about, each text once a run with the step of its first sight."""
    rows = connection.execute(
        # What a training warned of is said of the first evaluation's run alone.
        "WITH behind AS (SELECT run, unnest(list_concat(CASE WHEN coalesce(beside, false) THEN [eval_digest] "
        "ELSE [train_digest, label_digest, eval_digest] END, "
        "json_extract_string(manifest, '$.inputs.*'))) AS digest "
        "FROM current_runs LEFT JOIN stages ON digest = eval_digest WHERE run IN (SELECT unnest(?::TEXT[]))) "
        "SELECT run, min(step), text, any_value(field) FROM behind JOIN events USING (digest) "
        "GROUP BY run, text ORDER BY run, 2",
        [list(runs)],
    ).fetchall()
    return [RunWarning(*row) for row in rows]
