"""From the database to arms: which runs a name means, and one matrix with their values per question.

    arms, skipped = resolve(connection, ["quickstart/oracle/seed1", "quickstart/base/*"])
    values = load_values(connection, arms)

An arm is a name and its runs: one run, or all seeds of a condition. Each run's values are fetched once,
whatever number of pairs is compared afterwards.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.plugins.words import hint
from nsd.reports.judge.metrics import check_metric, turns_on_one_sample, values_sql
from nsd.reports.judge.versions import as_version, current_version, seeds_elsewhere, versions_of

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

GLOB_CHARACTERS = "*?["


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run, or one imported row of counts (`counts` = correct, n; then it has no evaluation).

    `data_order` is the same text for two runs exactly where both were trained on the same examples in the
    same order; None where nothing was trained or it is not known. `weights` is the same text for two runs exactly
    where the same model (or the same recording) answered; `trained`: whether the seed trained it, taken to be so of
    an import. `repeats_itself`: nothing is drawn (temperature 0, a recording), so that asking the same weights again
    gives the same answers. `weightless`: an engine without weights answered.
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
    data_order: str | None
    train_digest: str | None = None
    weights: str | None = None
    trained: bool = True
    repeats_itself: bool = False
    weightless: bool = False


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
            if not held or not (run.repeats_itself or run.eval_digest in {one.eval_digest for one in held}):
                held.append(run)
        return [tuple(mine) for mine in found.values()]

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
        what = "the same weights" if self.trained else "a model that is not trained"
        return f"{self.name}: {len(self.runs)} seeds of {what}, nothing drawn anew, count as {len(self.observations)}"


# What made each stage with every default written out; manifests of scheme 1 have it as their key.
MADE_SQL = """
WITH made AS (SELECT digest, manifest,
    coalesce(json_extract(manifest, '$.settings'), json_extract(manifest, '$.key')) AS key FROM stages)
"""
RUNS_SQL = f"""{MADE_SQL}
SELECT r.run, r.experiment, r.condition, r.seed, r.eval_digest, i.metric, i.data_hash, i.verifier_hash, i.samples,
       c.correct, c.n, r.status, r.reason, r.train_digest,
       json_extract_string(s.key, '$.train_on') || json_extract_string(s.key, '$.seeds.order'),
       json_extract_string(e.key, '$.sampling.temperature'), json_extract(e.key, '$.engine')::TEXT,
       json_extract_string(e.key, '$.engine.use'), json_extract(e.key, '$.model')::TEXT,
       json_extract(s.manifest, '$.sha256')::TEXT
FROM current_runs r
LEFT JOIN eval_info i ON i.eval_digest = r.eval_digest
LEFT JOIN counts c ON c.run = r.run AND r.spec_digest IS NULL
LEFT JOIN made s ON s.digest = r.train_digest
LEFT JOIN made e ON e.digest = r.eval_digest
ORDER BY r.experiment NULLS LAST, r.started_at, r.run
"""


def all_runs(connection: duckdb.DuckDBPyConnection) -> tuple[dict[str, Run], dict[str, str]]:
    """Every run with a result by name, and for those without one the reason in words."""
    finished: dict[str, Run] = {}
    unfinished: dict[str, str] = {}
    for row in connection.execute(RUNS_SQL).fetchall():
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
            order,
            temperature,
            engine,
            engine_name,
            model,
            files,
        ) = row
        if right is None and metric is None:
            unfinished[name] = f"{status}{f': {why}' if why else ''}"
            continue
        counts = None if right is None else (int(right), int(n))
        if counts is not None:
            digest = None
        recorded = model == "null"  # an engine that loads no weights stands for them itself
        about = (digest, metric or "accuracy", data, verifier, samples or 1, counts, order, train)
        finished[name] = Run(
            *(name, experiment, condition, seed, *about),
            weights=_weights(name, experiment, condition, train, model, engine if recorded else None, files),
            trained=experiment is None or (train is not None and not recorded),
            repeats_itself=draws_nothing(engine_name, temperature),
            weightless=recorded and engine is not None,
        )
    return _said_again(connection, finished), unfinished


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
    its seeds) or an experiment (one arm per condition). Raises InputError for a name that fits nothing, with
    the nearest ones, for a named run without a result, and for fewer than `at_least` arms.
    """
    finished, unfinished = all_runs(connection)
    conditions = _conditions(finished.values())
    arms: dict[str, Arm] = {}
    skipped: list[str] = []
    for experiment in sorted({name.rpartition("/")[0] for name in conditions}):
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
            found = [arm for name, arm in conditions.items() if name.rpartition("/")[0] == pattern]
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
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        if run.experiment is not None:
            grouped.setdefault(f"{run.experiment}/{run.condition}", []).append(run)
    return {name: Arm(name, tuple(sorted(mine, key=lambda run: run.seed or 0))) for name, mine in grouped.items()}


def measured_by(arm: Arm, metric: str) -> Arm:
    """The same arm, its runs carrying the metric's name. Raises InputError for a metric there is not."""
    check_metric(metric)
    if arm.counts_only:
        raise InputError(f"{arm.name} is known by its counts alone: {metric} cannot be computed from them")
    return Arm(arm.name, tuple(replace(run, metric=metric) for run in arm.runs))


# --------------------------------------------------------------------------- values per question


@dataclass(frozen=True)
class Values:
    """Values of evaluations: `matrix` [evaluations, questions] in [0, 1] (not for `tokens`), 0 where `present` is
    false.

    `row` gives an evaluation's line. `lost` is, per evaluation, the share of its value that answers cut at the
    token limit or ended by an error could still have earned; `truncated` and `failed` their shares of samples.
    `clusters` [questions] numbers the groups that questions come in, if they do.
    """

    matrix: Floats
    present: NDArray[np.bool_]
    row: dict[str, int]
    truncated: dict[str, float]
    failed: dict[str, float]
    lost: dict[str, float]
    clusters: NDArray[np.int64] | None = None

    @cached_property
    def binary(self) -> NDArray[np.bool_]:
        """Per evaluation, whether every value is 0 or 1."""
        found: NDArray[np.bool_] = ((self.matrix == 0) | (self.matrix == 1)).all(axis=1)
        return found

    @cached_property
    def _counts(self) -> tuple[Floats, Floats, Floats]:
        """For all pairs at once, over shared questions: how many, right in the first, right in both."""
        right, present = self.matrix, self.present.astype(self.matrix.dtype)
        return present @ present.T, right @ present.T, right @ right.T

    def table(self, a: int, b: int) -> tuple[int, int, int, int]:
        """Paired counts of two binary rows over their shared questions: both right, only a, only b, neither."""
        shared, right, both_right = self._counts
        n, both = int(shared[a, b]), int(both_right[a, b])
        a_only, b_only = int(right[a, b]) - both, int(right[b, a]) - both
        return both, a_only, b_only, n - both - a_only - b_only


def load_values(
    connection: duckdb.DuckDBPyConnection,
    arms: Sequence[Arm],
    groups: Mapping[str, str] | None = None,
    metric: str | None = None,
) -> Values:
    """Fetch the values of every evaluation of these arms, one after another, each question a column.

    `groups` gives each question id its group, where questions are not independent. `metric` computes the values
    from the stored samples instead (metrics.py). Memory is 9 bytes an evaluation and question, and the ids
    of two evaluations.
    """
    import numpy as np

    digests = list(dict.fromkeys(run.eval_digest for arm in arms for run in arm.runs if run.eval_digest is not None))
    columns = _Columns()
    found: list[tuple[NDArray[np.int32] | None, Floats]] = []
    source = values_sql(connection, metric, digests)
    # Cast and zero for no value are DuckDB's work, and numbers pass by DLPack: pyarrow's own ways import pandas.
    query = f"SELECT question_id, coalesce(value, 0)::DOUBLE AS value FROM ({source}) WHERE eval_digest = ?"
    for digest in digests:
        rows = connection.sql(query, params=[digest]).to_arrow_table()
        numbers = columns.numbers(rows["question_id"].combine_chunks())
        values: Any = np.from_dlpack(rows["value"].combine_chunks())
        found.append((numbers, values))
    shape = (len(digests), len(columns))
    matrix, present = np.zeros(shape), np.zeros(shape, dtype=bool)
    for line, (numbers, values) in enumerate(found):
        where = slice(len(values)) if numbers is None else numbers
        matrix[line, where], present[line, where] = values, True
    found.clear()
    clusters = None if groups is None else _clusters(columns, groups)
    sizes = dict(zip(digests, present.sum(axis=1).tolist(), strict=True))
    truncated, failed, lost = _attrition(connection, sizes, metric)
    return Values(matrix, present, {digest: i for i, digest in enumerate(digests)}, truncated, failed, lost, clusters)


class _Columns:
    """Numbers question ids in the order of first sight."""

    def __init__(self) -> None:
        self.ids: Any = None  # a pyarrow array

    def __len__(self) -> int:
        return 0 if self.ids is None else len(self.ids)

    def numbers(self, ids: Any) -> NDArray[np.int32] | None:
        """The column of each id of a pyarrow array; None where they are the first ones, in order.

        Evaluations of one test set hold the same ids in the same order, and comparing them whole is many times
        quicker than looking each one up.
        """
        import numpy as np
        import pyarrow
        import pyarrow.compute

        if self.ids is None:
            self.ids = ids
        if self.ids[: len(ids)].equals(ids):
            return None
        found = pyarrow.compute.index_in(ids, value_set=self.ids)
        if found.null_count:
            self.ids = pyarrow.concat_arrays([self.ids, ids.filter(found.is_null())])
            found = pyarrow.compute.index_in(ids, value_set=self.ids)
        return np.from_dlpack(found).astype(np.int32, copy=False)


def _clusters(columns: _Columns, groups: Mapping[str, str]) -> NDArray[np.int64]:
    """The number of each question's group, in the order of the matrix's columns."""
    import numpy as np

    ids = [] if columns.ids is None else columns.ids.to_pylist()
    if absent := [question for question in ids if question not in groups]:
        raise InputError(f"{len(absent)} of {len(ids)} questions have no group, among them {absent[0]!r}")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups.values()))}
    return np.array([numbers[groups[question]] for question in ids], dtype=np.int64)


def _attrition(
    connection: duckdb.DuckDBPyConnection, sizes: Mapping[str, int], metric: str | None
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Shares truncated and failed, and what they could have earned. `sizes`: questions of each evaluation."""
    rows = connection.execute(
        "SELECT eval_digest, avg((stop_reason = 'length')::INT), avg((stop_reason = 'error')::INT) FROM eval_samples "
        "WHERE eval_digest IN (SELECT unnest(?::TEXT[])) AND stop_reason IS NOT NULL GROUP BY 1",
        [list(sizes)],
    ).fetchall()
    truncated = {digest: float(cut) for digest, cut, _ in rows}
    failed = {digest: float(error) for digest, _, error in rows}
    touched = [digest for digest, cut, error in rows if cut or error]
    # A mean over samples can gain a lost sample's share; a vote or a pass@k can gain its whole question. Only the few
    # questions that lost a sample are grouped; all others could gain nothing.
    by_question = connection.execute(
        "WITH hit AS (SELECT DISTINCT eval_digest, question_id FROM eval_samples"
        "  WHERE stop_reason IN ('length', 'error') AND eval_digest IN (SELECT unnest(?::TEXT[]))) "
        "SELECT eval_digest, sum(part), sum(whole) FROM ("
        "  SELECT s.eval_digest, s.question_id,"
        "         avg((s.stop_reason IN ('length', 'error') AND NOT s.correct)::INT) AS part,"
        "         max(CASE WHEN s.stop_reason IN ('length', 'error') THEN 1 - v.value ELSE 0 END) AS whole"
        "  FROM eval_samples s SEMI JOIN hit USING (eval_digest, question_id)"
        "  JOIN eval_values v USING (eval_digest, question_id)"
        "  WHERE s.eval_digest IN (SELECT unnest(?::TEXT[])) GROUP BY 1, 2) GROUP BY 1",
        [touched, touched],
    ).fetchall()
    if metric in ("tokens", "truncated", "failed"):
        return truncated, failed, {}  # nothing was lost: these are measured on what came, as it came
    own = dict(connection.execute("SELECT eval_digest, metric FROM eval_info").fetchall())
    lost = {
        digest: float(whole if turns_on_one_sample(metric or str(own.get(digest))) else part) / sizes[digest]
        for digest, part, whole in by_question
    }
    return truncated, failed, lost
