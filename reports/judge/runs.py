"""From the database to arms: which runs a name means.

    arms, skipped = resolve(connection, ["quickstart/oracle/seed1", "quickstart/base/*"])
    values = load_values(connection, arms)      # of nsd.reports.judge.values

An arm is a name and its runs: one run, or all seeds of a condition. Each run's values are fetched once,
whatever number of pairs is compared afterwards.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.plugins.words import hint
from nsd.reports.judge.metrics import SEARCH, check_metric
from nsd.reports.judge.versions import as_version, current_version, seeds_elsewhere, versions_of
from nsd.runner.store.alike import unmistakable

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

GLOB_CHARACTERS = "*?["


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run, or one imported row of counts (`counts` = correct, n; then it has no evaluation).

    `weights` is the same text for two runs exactly where the same model (or the same recording) answered; `trained`:
    whether the seed trained it, taken to be so of an import. `repeats_itself`: nothing is drawn (temperature 0, a
    recording), so that asking the same weights again gives the same answers. `weightless`: an engine without weights
    answered. `same_as`: of an import whose answers are those of another run too (one file under two names or seeds,
    as a rule) the evaluation that stands for all of them. `measurement`: which of its spec's named evaluations it is
    of; `beside`: whether that is another one than the first.
    """

    name: str
    experiment: str | None
    condition: str | None
    seed: int | None
    eval_digest: str | None
    metric: str
    data_hash: str | None
    verifier_hash: str | None
    samples: int
    counts: tuple[int, int] | None
    train_digest: str | None = None
    weights: str | None = None
    trained: bool = True
    repeats_itself: bool = False
    weightless: bool = False
    same_as: str | None = None
    measurement: str | None = None
    beside: bool = False

    @property
    def answers(self) -> str | None:
        """The evaluation that its answers are of, whatever name it has them under; None where only counts are known."""
        return self.same_as or self.eval_digest


@dataclass(frozen=True, slots=True)
class Arm:
    """What is compared: runs that differ in nothing but the seed.

    A seed that changed nothing is no observation. Runs of the same weights are one: where nothing is drawn the first
    stands for all (`copies` are the others), else each is more samples of every question.
    """

    name: str
    runs: tuple[Run, ...]

    @property
    def counts_only(self) -> bool:
        """Whether nothing is known per question."""
        return any(run.eval_digest is None for run in self.runs)

    @property
    def observations(self) -> list[tuple[Run, ...]]:
        """The distinct weights, each with the runs that drew from it, in order."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            held = found.setdefault(run.weights or run.name, [])
            if not held or not (run.repeats_itself or run.answers in {one.answers for one in held}):
                held.append(run)
        return [tuple(mine) for mine in found.values()]

    @property
    def measurement(self) -> str | None:
        """Which of its spec's named evaluations it is of."""
        return self.runs[0].measurement

    @property
    def beside(self) -> bool:
        """Whether that is another one than the first."""
        return self.runs[0].beside

    @property
    def copies(self) -> list[Run]:
        """Runs that repeat another one to the letter."""
        kept = {run.name for draws in self.observations for run in draws}
        return [run for run in self.runs if run.name not in kept]

    @property
    def trained(self) -> bool:
        """Whether a seed of this arm trains anything."""
        return any(run.trained for run in self.runs)

    @property
    def seeds(self) -> list[int]:
        """Training seeds, where known, in order: one of each distinct weights, none where nothing was trained."""
        first = [draws[0].seed for draws in self.observations if draws[0].trained]
        return sorted(seed for seed in first if seed is not None)

    @property
    def copies_note(self) -> str:
        """What is said of runs that are no observation of their own, "" where there are none."""
        if not self.copies:
            return ""
        if self.runs[0].experiment is None:
            left = len(self.observations)
            held = "the same answer to every question" if left == 1 else f"{left} different sets of answers"
            return f"{self.name}: {len(self.runs)} imported seeds have {held}, and count as {left}"
        what = "the same weights" if self.trained else "a model that is not trained"
        return f"{self.name}: {len(self.runs)} seeds of {what}, nothing drawn anew, count as {len(self.observations)}"


# What made a stage with every default written out; manifests of scheme 1 have it as their key.
KEY_SQL = "coalesce(json_extract(manifest, '$.settings'), json_extract(manifest, '$.key'))"
# Manifests are long, so they are read once and of the wanted stages alone: the planner would else read them all first.
RUNS_SQL = f"""
WITH mine AS MATERIALIZED (
    SELECT r.*, i.metric, i.data_hash, i.verifier_hash, i.samples
    FROM current_runs r LEFT JOIN eval_info i ON i.eval_digest = r.eval_digest
    WHERE coalesce($everything OR r.experiment = $experiment OR list_contains($data::TEXT[], i.data_hash), false)
    AND (NOT $trained OR r.train_digest IS NOT NULL OR starts_with(i.metric, '{SEARCH}'))
),
made AS (SELECT digest, {KEY_SQL} AS key FROM stages SEMI JOIN mine ON mine.eval_digest = stages.digest),
told AS (
    SELECT digest, json_extract(key, ['$.sampling.temperature', '$.engine', '$.engine.use', '$.model', '$.by']) AS said
    FROM made
),
trained AS (
    SELECT digest, json_extract(manifest, '$.sha256')::TEXT AS files
    FROM stages SEMI JOIN mine ON mine.train_digest = stages.digest
)
SELECT r.run, r.experiment, r.condition, r.seed, r.eval_digest, r.metric, r.data_hash, r.verifier_hash, r.samples,
       c.correct, c.n, r.status, r.reason, r.train_digest,
       e.said[1]->>'$', e.said[2]::TEXT, e.said[3]->>'$', e.said[4]::TEXT, s.files, e.said[5]->>'$',
       r.measurement, coalesce(r.beside, false)
FROM mine r
LEFT JOIN counts c ON c.run = r.run AND r.spec_digest IS NULL
LEFT JOIN trained s ON s.digest = r.train_digest
LEFT JOIN told e ON e.digest = r.eval_digest
ORDER BY r.experiment NULLS LAST, r.started_at, r.run
"""


def made_sql(wanted: str) -> str:
    """What follows WITH: `made`, the digest and `KEY_SQL` of the stages whose digests the query `wanted` gives."""
    held = f"SELECT digest, manifest FROM stages WHERE digest IN ({wanted})"
    return f"held AS MATERIALIZED ({held}), made AS (SELECT digest, {KEY_SQL} AS key FROM held)"


def all_runs(connection: duckdb.DuckDBPyConnection) -> tuple[dict[str, Run], dict[str, str]]:
    """Every run with a result by name, and for those without one the reason in words."""
    return _runs(connection, {**NO_RUNS, "everything": True})


def runs_of(connection: duckdb.DuckDBPyConnection, experiment: str) -> dict[str, Run]:
    """The runs with a result of an experiment, by name."""
    return _runs(connection, {**NO_RUNS, "experiment": experiment})[0]


def runs_on(connection: duckdb.DuckDBPyConnection, data: Iterable[str], trained: bool = False) -> dict[str, Run]:
    """The runs with a result on questions of these content hashes, by name; all that are `trained`, and few others."""
    return _runs(connection, {**NO_RUNS, "data": list(data), "trained": trained})[0]


NO_RUNS: dict[str, Any] = {"everything": False, "experiment": None, "data": [], "trained": False}


def _runs(connection: duckdb.DuckDBPyConnection, wanted: dict[str, Any]) -> tuple[dict[str, Run], dict[str, str]]:
    finished: dict[str, Run] = {}
    unfinished: dict[str, str] = {}
    for row in connection.execute(RUNS_SQL, wanted).fetchall():
        (
            name,
            experiment,
            condition,
            seed,
            digest,
            metric,
            data,
            verifier,
            samples,
            right,
            n,
            status,
            why,
            train,
            temperature,
            engine,
            engine_name,
            model,
            files,
            searched_by,
            measurement,
            beside,
        ) = row
        if right is None and metric is None:
            unfinished[name] = f"{status}{f': {why}' if why else ''}"
            continue
        counts = None if right is None else (int(right), int(n))
        if counts is not None:
            digest = None
        learned = searched_by == "training"  # each search had weights of its own
        recorded = model == "null"  # an engine that loads no weights stands for them itself
        about = (digest, metric or "accuracy", data, verifier, samples or 1, counts, train)
        finished[name] = Run(
            *(name, experiment, condition, seed, *about),
            weights=f"searched {digest}"
            if learned
            else _weights(name, experiment, condition, train, model, engine if recorded else None, files),
            trained=experiment is None or (train is not None and not recorded) or learned,
            repeats_itself=draws_nothing(engine_name, temperature),
            weightless=recorded and engine is not None,
            measurement=measurement,
            beside=beside,
        )
    return _imported_again(connection, _said_again(connection, finished)), unfinished


def _said_again(connection: duckdb.DuckDBPyConnection, runs: dict[str, Run]) -> dict[str, Run]:
    """The runs, those of an engine without weights repeating themselves where all of its seeds gave the same answers.

    Only its author knows whether such an engine asks somebody anew or reads a recording: what it gave shows it.
    """
    groups: dict[tuple[str | None, ...], list[Run]] = {}
    for run in runs.values():
        if not run.repeats_itself and run.weightless:
            groups.setdefault((run.experiment, run.condition, run.weights, run.data_hash), []).append(run)
    several = [group for group in groups.values() if len({run.eval_digest for run in group}) > 1]
    if not several:
        return runs
    said = dict(
        connection.execute(
            "SELECT eval_digest, md5(string_agg(concat_ws('|', question_id, sample, stop_reason, tokens, score, "
            "md5(coalesce(answer, ''))), ';' ORDER BY question_id, sample)) "
            "FROM eval_samples WHERE eval_digest IN (SELECT unnest(?::TEXT[])) GROUP BY 1",
            [[run.eval_digest for group in several for run in group]],
        ).fetchall()
    )
    again = [group for group in several if len({said.get(str(run.eval_digest)) for run in group}) == 1]
    return {**runs, **{run.name: replace(run, repeats_itself=True) for group in again for run in group}}


def _imported_again(connection: duckdb.DuckDBPyConnection, runs: dict[str, Run]) -> dict[str, Run]:
    """The runs, those of an import with the answers of another run being of one evaluation with it.

    Told by question, score and normal form of every sample; where only right and wrong were recorded, by these. Few
    results, or nearly all of them alike, say nothing of who gave them (`alike.unmistakable`).
    """
    alike = connection.execute(
        "WITH sizes AS (SELECT questions, samples FROM eval_info GROUP BY 1, 2 "
        "HAVING count(*) > 1 AND bool_or(protocol = 'imported')), "
        "held AS (SELECT eval_digest, any_value(protocol) AS protocol, count(*) AS n, "
        "count(*) FILTER (score >= 0.5) AS high, count(DISTINCT score) AS scores, "
        "sum(hash(question_id, score, answer)) AS content "
        "FROM eval_samples JOIN eval_info USING (eval_digest) SEMI JOIN sizes USING (questions, samples) GROUP BY 1) "
        "SELECT n, high, scores, list(eval_digest ORDER BY protocol = 'imported', eval_digest) FROM held "
        "GROUP BY n, high, scores, content HAVING count(*) > 1 AND bool_or(protocol = 'imported')"
    ).fetchall()
    first = {digest: same[0] for *counts, same in alike if unmistakable(*counts) for digest in same}
    again = {
        name: replace(run, same_as=stands, weights=f"answers {stands}")
        for name, run in runs.items()
        if run.experiment is None and (stands := first.get(str(run.eval_digest))) is not None
    }
    return {**runs, **again}


def draws_nothing(engine: str | None, temperature: str | float | None) -> bool:
    """Whether an evaluation repeated with another seed gives the same answers: greedy, or read from a recording."""
    return engine == "replay" or (temperature is not None and float(temperature) == 0)


def _weights(
    run: str,
    experiment: str | None,
    condition: str | None,
    train: str | None,
    model: str | None,
    engine: str | None,
    files: str | None,
) -> str:
    """What answered: an engine without weights, a training's outcome, what every seed starts from, or an import's own.

    A training's outcome is the model that it left (`files`: sha256 by name), so that seeds which changed nothing left
    one model; where that is not on record it is the stage.
    """
    if engine is not None:
        return f"engine {engine}"
    if train is not None:
        left = {name: digest for name, digest in json.loads(files or "{}").items() if name.startswith("model/")}
        return json.dumps(left, sort_keys=True) if left else train
    if experiment is None:
        return f"run {run}"
    return f"untrained {model or f'{experiment}/{condition}'}"


def resolve(
    connection: duckdb.DuckDBPyConnection, patterns: Sequence[str], at_least: int = 2
) -> tuple[list[Arm], list[str]]:
    """Arms that the patterns name, in order and once each, and a line for each run passed over.

    A pattern is a run's name, a glob over run names (one arm per run), `experiment/condition` (one arm of all
    its seeds) or an experiment (one arm per condition, measured by the first of its evaluations); a run of another
    evaluation is meant by a name or glob with an @ alone. Raises InputError for a name that fits nothing, with
    the nearest ones, for a named run without a result, and for fewer than `at_least` arms.
    """
    finished, unfinished = all_runs(connection)
    conditions = _conditions(finished.values())
    arms: dict[str, Arm] = {}
    skipped: list[str] = []
    for experiment in sorted({str(run.experiment) for run in finished.values() if run.experiment is not None}):
        # A condition or an experiment stands for the runs of one version of its spec.
        if any(pattern == experiment or pattern.rpartition("/")[0] == experiment for pattern in patterns):
            mine = condition_arms(connection, experiment)
            conditions = {name: arm for name, arm in conditions.items() if name.rpartition("/")[0] != experiment}
            conditions |= {arm.name: arm for arm in mine.values()}
            current = current_version(versions_of(connection, experiment))
            elsewhere = seeds_elsewhere(connection, experiment, current.spec_digest) if current else None
            named = any(pattern not in finished and pattern.startswith(experiment) for pattern in patterns)
            skipped += [elsewhere.sentence()] if elsewhere is not None and named else []
            with as_version(connection, experiment, current.spec_digest if current else None):
                _, lacking = all_runs(connection)
            of = tuple(f"{pattern}/" for pattern in patterns if pattern not in finished)
            skipped += [f"{name} has no result yet ({why})" for name, why in lacking.items() if name.startswith(of)]
    for pattern in patterns:
        if pattern in finished:
            found = [Arm(pattern, (finished[pattern],))]
        elif pattern in unfinished:
            raise InputError(f"run {pattern!r} has no result to compare ({unfinished[pattern]})")
        elif any(character in pattern for character in GLOB_CHARACTERS):
            matching = [run for name, run in finished.items() if fnmatch.fnmatchcase(name, pattern)]
            matching = [run for run in matching if "@" in pattern or not run.beside]
            found = [Arm(run.name, (run,)) for run in matching]
            for arm in _conditions(matching).values():  # copies would be tests of nothing new in the family
                copies = {run.name for run in arm.copies}
                found = [one for one in found if one.name not in copies]
                skipped += [f"{name} repeats another seed to the letter" for name in sorted(copies)]
            passed = [name for name in unfinished if fnmatch.fnmatchcase(name, pattern)]
            skipped += [f"{name} has no result yet ({unfinished[name]})" for name in passed]
        elif pattern in conditions:
            found = [conditions[pattern]]
        else:
            mine_too = (arm for name, arm in conditions.items() if name.rpartition("/")[0] == pattern)
            found = [arm for arm in mine_too if not arm.beside]
        if not found:
            experiments = [name.rpartition("/")[0] for name in conditions]
            names = [*experiments, *conditions, *finished, *unfinished]
            otherwise = "; `nsd runs` lists them all" if names else ": there are no runs yet"
            raise InputError(f"no run or experiment is named {pattern!r}{hint(pattern, names, otherwise, most=3)}")
        arms.update((arm.name, arm) for arm in found)
    if len(arms) < at_least:
        without = f" ({'; '.join(skipped)})" if skipped else ""
        raise InputError(
            f"{' '.join(patterns)} names {len(arms)} run(s) with a result{without}: name two or more to compare, "
            "`nsd runs` lists them"
        )
    return list(arms.values()), skipped


def condition_arms(connection: duckdb.DuckDBPyConnection, experiment: str) -> dict[str, Arm]:
    """The arms of an experiment by condition, all seeds together: those of the version of its spec that was last run.

    Inside `versions.as_version` those of the version named there.
    """
    current = current_version(versions_of(connection, experiment))
    with as_version(connection, experiment, current.spec_digest if current else None):
        finished, _ = all_runs(connection)
    mine = [run for run in finished.values() if run.experiment == experiment]
    return {str(arm.runs[0].condition): arm for arm in _conditions(mine).values()}


def run_names(connection: duckdb.DuckDBPyConnection, experiment: str, conditions: Sequence[str]) -> list[str]:
    """Run names in the order in which the spec has its conditions, rounds of a condition after it."""
    rows = connection.execute(
        "SELECT run, condition, seed FROM current_runs WHERE experiment = ? ORDER BY started_at NULLS LAST, run",
        [experiment],
    ).fetchall()
    places = {name: place for place, name in enumerate(conditions)}

    def place(row: tuple[str, str, int | None]) -> tuple[int, int]:
        near = [p for name, p in places.items() if row[1] == name or row[1].startswith((f"{name}.", f"{name}@"))]
        return (places.get(row[1], max(near, default=len(places))), row[2] or 0)

    return [row[0] for row in sorted(rows, key=place)]


def _conditions(runs: Iterable[Run]) -> dict[str, Arm]:
    """Arms of several seeds: the conditions of experiments, and what was imported with its training seed."""
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        if run.experiment is not None:
            grouped.setdefault(f"{run.experiment}/{run.condition}", []).append(run)
        elif run.seed is not None:
            grouped.setdefault(str(run.condition), []).append(run)
    return {name: Arm(name, tuple(sorted(mine, key=lambda run: run.seed or 0))) for name, mine in grouped.items()}


def measured_by(arm: Arm, metric: str) -> Arm:
    """The same arm, its runs carrying the metric's name. Raises InputError for a metric there is not."""
    check_metric(metric)
    if arm.counts_only:
        raise InputError(f"{arm.name} is known by its counts alone: {metric} cannot be computed from them")
    return Arm(arm.name, tuple(replace(run, metric=metric) for run in arm.runs))
