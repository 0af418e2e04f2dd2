"""The log of experiments: what was asked, what came out, what it cost, and what people decided about it.

    for entry in log_entries(workspace):                # every version of every experiment, oldest first
        print("\n".join(lines_of(entry)))

One entry for each version of a spec that was run, smoke runs, failures and negative results included; one for each
imported file; notes under what they are about. Verdicts are judged as that version declared its claims, on the
results that version has.

Limits: a stage shared by several entries is in the cost of each, and in what was spent for the first; a stage that
never finished or was thrown away is in neither. What `answer` cannot judge is said in words.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.reports.judge.log_results import KeptResults, Key, LogArm, LogClaim, Results
from nsd.runner.store.notes import nearest, read_notes
from nsd.runner.store.shapes import ExperimentRecord, Manifest, Note
from nsd.runner.store.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

    from nsd.reports.judge.comparison import Comparison
    from nsd.reports.judge.cost import TotalCost
    from nsd.reports.judge.subgroups import ByField


@dataclass(frozen=True)
class LogEntry:
    """One version of an experiment, one imported file (`kind` import), or a note whose run is gone (`kind` note).

    `date`: when its last run ended, else when it was recorded (ISO 8601). `runs`: names by state, one of done, failed
    and pending. `failures`: run and reason. `verdicts` and `late` as in answer.py. `cost`: all stages behind the runs;
    `spent`: those among them that no entry before this one needed. `notes`: run, written_at, text.
    """

    kind: str
    date: str
    recorded_at: str
    experiment: str
    spec_digest: str | None
    question: str | None
    smoke: bool
    runs: dict[str, str]
    failures: dict[str, str]
    arms: list[LogArm]
    verdicts: list[LogClaim]
    late: list[LogClaim]
    remarks: list[str]
    cost: TotalCost | None
    spent: TotalCost | None
    notes: list[Note] = field(default_factory=list)

    @property
    def best(self) -> LogArm | None:
        """The arm with the highest mean among those measured like the first; None without a result."""
        alike = [arm for arm in self.arms if arm.metric == self.arms[0].metric and not arm.beside]
        return max(alike, key=lambda arm: arm.mean, default=None)

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are in which state."""
        states = list(self.runs.values())
        return {state: states.count(state) for state in ("done", "imported", "failed", "pending") if state in states}

    def result(self) -> str:
        """The outcome in a few words: the best arm, and how many claims hold, are refuted or undecided."""
        if self.best is None:
            return "no result yet" if self.kind == "experiment" else ""
        arms = [arm for arm in self.arms if not arm.beside]
        many = f" of {len(arms)}" if len(arms) > 1 else ""
        parts = [
            f"best{many}: {self.best.condition} {self.best.mean:.4f} {self.best.metric} on {self.best.n} questions"
        ]
        for claims, what in ((self.verdicts, "declared"), (self.late, "late")):
            states = [{True: "hold", False: "refuted", None: "undecided"}[one.holds] for one in claims]
            said = [f"{states.count(state)} {state}" for state in ("hold", "refuted", "undecided") if state in states]
            if said:
                parts.append(f"{len(claims)} {what} claim{'' if len(claims) == 1 else 's'}: {', '.join(said)}")
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Plain data under stable names."""
        return {
            **{name: value for name, value in vars(self).items() if name not in _AS_OBJECTS},
            "counts": self.counts,
            "result": self.result(),
            "arms": [vars(arm) for arm in self.arms],
            "notes": [note.to_json() for note in self.notes],
            "claims": [one.to_json() for one in (*self.verdicts, *self.late)],
            "cost": None if self.cost is None else self.cost.to_json(),
            "spent": None if self.spent is None else self.spent.to_json(),
        }


_AS_OBJECTS = ("arms", "verdicts", "late", "cost", "spent")


# --------------------------------------------------------------------------- entries


@dataclass(frozen=True)
class Log:
    """Entries, oldest first, and how many more there are before them.

    `judged`: what was judged for it and can be kept, under the digests `causes` of what it was judged on;
    `comparisons` are what was looked at for that, differences by a field of the questions among them.
    """

    entries: list[LogEntry]
    older: int
    judged: dict[Key, Results]
    causes: dict[str, str]
    comparisons: list[Comparison | ByField]


def log_entries(workspace: Workspace, pattern: str = "*") -> list[LogEntry]:
    """Every entry whose experiment is like the pattern, oldest first, with its notes. Raises as `newest_entries`."""
    return newest_entries(workspace, pattern, None).entries


def newest_entries(workspace: Workspace, pattern: str, most: int | None) -> Log:
    """So many of them at most, the newest. Only these are judged.

    Raises InputError where nothing was run here, or nothing is like the pattern (with the nearest names).
    """
    from nsd.runner.store.index import Store

    records = workspace.records()
    imports = _import_groups(workspace)
    notes = read_notes(workspace)
    names = [*(record.experiment for record in records), *imports]
    with Store(workspace).read() as connection:
        entries = [_experiment_entry(record) for record in records if fnmatch.fnmatchcase(record.experiment, pattern)]
        entries += [
            _import_entry(name, manifests) for name, manifests in imports.items() if fnmatch.fnmatchcase(name, pattern)
        ]
        known = {name for record in records for name in [record.experiment, *(run.run for run in record.runs)]}
        known |= {run.run for manifests in imports.values() for manifest in manifests for run in manifest.imported}
        entries = _with_notes(entries, notes)
        entries += [_orphan(note) for note in notes if note.run not in known and fnmatch.fnmatchcase(note.run, pattern)]
        if not entries:
            raise InputError(f"no experiment is like {pattern!r}{nearest(pattern, names)}")
        entries.sort(key=lambda entry: (entry.date, entry.experiment))
        shown = _with_costs(connection, records, entries[-(most or 0) :])
        judging = _Judging(connection, workspace, {entry.experiment for entry in shown if entry.kind == "experiment"})
        told = [judging.with_results(entry) for entry in shown]
        return Log(told, len(entries) - len(shown), judging.judged, judging.causes, judging.comparisons)


def _with_costs(
    connection: duckdb.DuckDBPyConnection, records: Sequence[ExperimentRecord], entries: Sequence[LogEntry]
) -> list[LogEntry]:
    """The entries with the cost of all stages behind them, and of those that no earlier record needed.

    `records` are all, oldest first. Of those that are not shown only the names of their stages are looked up.
    """
    from nsd.reports.judge.cost import behind, costs_of, read_causes, total

    causes = read_causes(connection)
    wanted = {(entry.experiment, entry.spec_digest) for entry in entries}
    seen: set[str] = set()
    of_each: dict[tuple[str, str | None], tuple[list[str], list[str]]] = {}  # all stages behind it, the new ones
    for record in records:
        ends = [end for run in record.runs for end in (run.label_digest, run.train_digest, run.eval_digest)]
        ends += [repeat.eval_digest for run in record.runs for repeat in run.repeats]
        stages = behind([digest for digest in ends if digest is not None], causes)
        if (key := (record.experiment, record.spec_digest)) in wanted:
            of_each[key] = stages, [digest for digest in stages if digest not in seen]
        seen.update(stages)
    every = {"": {digest for stages, _ in of_each.values() for digest in stages}}
    known = {stage.digest: stage for stage in costs_of(connection, every, causes=causes)}
    found = {key: tuple(total([known[one] for one in some]) for some in both) for key, both in of_each.items()}
    of = [(entry, *found.get((entry.experiment, str(entry.spec_digest)), (None, None))) for entry in entries]
    return [replace(entry, cost=cost, spent=spent) for entry, cost, spent in of]


class _Judging:
    """Gives entries their results: those that are kept, where they still hold."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, workspace: Workspace, experiments: Collection[str]
    ) -> None:
        self._connection, self._workspace = connection, workspace
        self._kept = KeptResults(workspace, connection, experiments)
        self._grouped: dict[str, bool] = {}
        self.causes = self._kept.causes
        self.judged: dict[Key, Results] = {}
        self.comparisons: list[Comparison | ByField] = []

    def with_results(self, entry: LogEntry) -> LogEntry:
        """An entry with its arms and, of an experiment, what is to be said of its claims."""
        if entry.kind == "import":
            return replace(entry, arms=_imported_arms(self._connection, list(entry.runs)))
        if entry.spec_digest is None:
            return entry
        found = self._kept.of(entry.experiment, entry.spec_digest)
        return replace(entry, **vars(found or self._judge(entry.experiment, entry.spec_digest)))

    def _judge(self, experiment: str, spec_digest: str) -> Results:
        from nsd.reports.judge.answer import answer
        from nsd.reports.judge.versions import as_version

        connection, workspace = self._connection, self._workspace
        with as_version(connection, experiment, spec_digest):
            arms = _arms(connection, experiment)
            try:
                found = answer(connection, experiment, spec_digest, pairs=False, alone=True, workspace=workspace)
            except InputError as error:  # one experiment that cannot be judged must not hide the others
                return Results(arms, remarks=[str(error)])
        self.comparisons += [*found.judged(), *found.interactions()]
        verdicts, late = ([LogClaim.of(one) for one in said] for said in (found.verdicts, found.late))
        results = Results(arms, verdicts, late)
        if not self._of_groups(experiment):
            self.judged[experiment, spec_digest] = results
        return results

    def _of_groups(self, experiment: str) -> bool:
        """Whether any version of the experiment claims something of groups of questions; read once for all of them."""
        from nsd.reports.judge.versions import versions_of

        if experiment not in self._grouped:
            versions = versions_of(self._connection, experiment)
            self._grouped[experiment] = any(claim.by for one in versions for claim in one.hypotheses.claims)
        return self._grouped[experiment]


def _experiment_entry(record: ExperimentRecord) -> LogEntry:
    runs = record.runs
    ended = [run.ended_at for run in runs if run.ended_at]
    return LogEntry(
        kind="experiment",
        date=max(ended, default=record.recorded_at),
        recorded_at=record.recorded_at,
        experiment=record.experiment,
        spec_digest=record.spec_digest,
        question=record.question,
        smoke=record.experiment != getattr(record.resolved, "name", record.experiment),
        runs={run.run: run.status for run in runs},
        failures={run.run: run.reason or "" for run in runs if run.status == "failed"},
        arms=[],
        verdicts=[],
        late=[],
        remarks=[],
        cost=None,
        spent=None,
    )


def _arms(connection: duckdb.DuckDBPyConnection, experiment: str) -> list[LogArm]:
    from nsd.reports.judge.arms import summarise_arms

    names = connection.execute(
        "SELECT run FROM current_runs WHERE experiment = ? ORDER BY place", [experiment]
    ).fetchall()
    return [
        LogArm(arm.condition, str(arm.metric), arm.mean, arm.n, max(1, len(arm.seeds)), arm.beside)
        for arm in summarise_arms(connection, [name for (name,) in names], level=None)
        if arm.mean is not None
    ]


def _import_groups(workspace: Workspace) -> dict[str, list[Manifest]]:
    """Import manifests by the name their entry goes under."""
    groups: dict[str, list[Manifest]] = {}
    for manifest in workspace.manifests("import"):
        groups.setdefault(f"import of {manifest.source_file}", []).append(manifest)
    return groups


def _imported_arms(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> list[LogArm]:
    rows = connection.execute(
        "SELECT r.run, coalesce(i.metric, 'accuracy'), coalesce(v.mean, c.correct / c.n), coalesce(v.n, c.n), 1 "
        "FROM runs r LEFT JOIN eval_info i USING (eval_digest) LEFT JOIN counts c ON c.run = r.run "
        "LEFT JOIN (SELECT eval_digest, avg(value) AS mean, count(*) AS n FROM eval_values GROUP BY 1) v "
        "USING (eval_digest) WHERE r.spec_digest IS NULL AND r.run IN (SELECT unnest(?::TEXT[])) "
        "ORDER BY list_position(?::TEXT[], r.run)",
        [runs, runs],
    ).fetchall()
    return [LogArm(*row) for row in rows if row[2] is not None]


def _import_entry(name: str, manifests: Sequence[Manifest]) -> LogEntry:
    runs = [run.run for manifest in manifests for run in manifest.imported]
    return LogEntry(
        kind="import",
        date=max(manifest.ended_at or "" for manifest in manifests),
        recorded_at=min(manifest.started_at or "" for manifest in manifests),
        experiment=name,
        spec_digest=None,
        question=None,
        smoke=False,
        runs=dict.fromkeys(runs, "imported"),
        failures={},
        arms=[],
        verdicts=[],
        late=[],
        remarks=[],
        cost=None,
        spent=None,
    )


def _with_notes(entries: list[LogEntry], notes: Sequence[Note]) -> list[LogEntry]:
    """Each note goes to the version that was the newest with its run when it was written."""
    held: dict[int, list[Note]] = {}
    for note in notes:
        about = [
            (entry.recorded_at, number)
            for number, entry in enumerate(entries)
            if note.run == entry.experiment or note.run in entry.runs
        ]
        if about:
            before = [pair for pair in about if pair[0] <= note.written_at]
            held.setdefault(max(before)[1] if before else min(about)[1], []).append(note)
    return [replace(entry, notes=held.get(number, [])) for number, entry in enumerate(entries)]


def _orphan(note: Note) -> LogEntry:
    date = note.written_at
    remarks = ["nothing is recorded under this name any more"]
    empty: dict[str, Any] = {"runs": {}, "failures": {}, "arms": [], "verdicts": [], "late": [], "remarks": remarks}
    return LogEntry("note", date, date, note.run, None, None, False, **empty, cost=None, spent=None, notes=[note])
