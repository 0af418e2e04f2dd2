"""The record of an experiment on disk: written before its first result, updated as its runs finish."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nsd.plugins.durable import write_atomically
from nsd.runner.plan.model import Plan, PlannedRun
from nsd.runner.store import provenance
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import ExperimentRecord, RepeatRecord, RunRecord
from nsd.runner.store.workspace import Workspace, now


class Record:
    """The experiment record on disk: written before the first result, updated as runs finish."""

    def __init__(self, plan: Plan, workspace: Workspace, store: Store) -> None:
        self.plan, self.workspace, self.store = plan, workspace, store
        self.path = workspace.record_path(plan.name, plan.spec_digest)
        experiment = plan.experiment
        hypotheses = experiment.hypotheses
        fields: dict[str, Any] = {
            "experiment": plan.name,
            "spec_digest": plan.spec_digest,
            "question": experiment.question,
            "spec_path": experiment.path.name,
            "spec_yaml": experiment.text,
            "resolved": json.loads(json.dumps(experiment.resolved, default=str)),
            "hypotheses": hypotheses.to_json() if hypotheses else None,
            "recorded_at": now(),
            "git": provenance.git_state(),
            "packages": provenance.packages(),
            "runs": [],
        }
        if (held := workspace.record(plan.name, plan.spec_digest)) is not None:
            fields["recorded_at"] = held.recorded_at
            fields["runs"] = held.runs
            if not plan.known:  # the spec may have changed since; what was recorded under this digest stands
                fields |= held.to_json()
            if _taken_up_since(workspace, held):
                fields["run_at"] = now()
        self.record = ExperimentRecord.from_json(fields, self.path)
        self.known_repeats = _known_repeats(workspace, plan.name)

    def save(self, failed: Mapping[str, str] | None = None) -> None:
        """Bring every run's status up to date, on disk and in the index; touch nothing that did not change.

        `failed` holds reasons by "condition/seedN".
        """
        runs = {run.run: run for run in self.record.runs}
        failed = failed or {}
        for planned in self.plan.runs:
            held = runs.get(planned.run)
            whole = self.workspace.is_whole("score", planned.eval_digest)
            condition = planned.condition.split("@")[0]
            reason = failed.get(f"{planned.condition}/seed{planned.seed}")
            reason = reason or failed.get(f"{condition}/seed{planned.seed}")
            status = "done" if whole else "failed" if reason else "pending"
            if held is not None and held.eval_digest != planned.eval_digest:
                held = None
            needs = self.plan.needs(planned.eval_digest)
            if held is not None and len(held.needs) > len(needs):  # a plan learned from afar knows fewer causes yet
                needs = held.needs
            runs[planned.run] = RunRecord(
                run=planned.run,
                condition=planned.condition,
                seed=planned.seed,
                eval_digest=planned.eval_digest,
                train_digest=planned.train_digest,
                label_digest=planned.label_digest,
                needs=needs,
                repeats=self._repeats(planned),
                status=status,
                reason=None if whole else reason,
                started_at=now() if held is None else held.started_at,
                ended_at=self.workspace.manifest("score", planned.eval_digest).ended_at if whole else None,
                **_measurement(planned),
            )
        self.record = ExperimentRecord.from_json({**self.record.to_json(), "runs": list(runs.values())}, self.path)
        text = json.dumps(self.record.to_json(), indent=1)
        if not self.path.exists() or self.path.read_text(encoding="utf-8") != text:
            write_atomically(self.path, text)
        # Indexed even where the file is unchanged: the database may have been deleted since.
        self.store.index_record(self.record)

    def _repeats(self, planned: PlannedRun) -> list[RepeatRecord]:
        """The repeated evaluations of a run: those planned now, and those that an earlier command asked for."""
        found = dict(self.known_repeats.get((planned.run, planned.eval_digest), {}))
        for number, digest in enumerate(planned.repeats, 1):
            found[number] = RepeatRecord(repeat=number, eval_digest=digest, needs=self.plan.needs(digest))
        return [found[number] for number in sorted(found)]


def _measurement(run: PlannedRun) -> dict[str, Any]:
    """Which evaluation a run is of; nothing where the spec names none, so that its record stays as it is."""
    return {} if run.measurement is None else {"measurement": run.measurement, "beside": run.beside}


def _taken_up_since(workspace: Workspace, held: ExperimentRecord) -> bool:
    """Whether another version of the experiment was run after this one, which is now the current one again."""
    return any(
        record.taken_up_at >= held.taken_up_at
        for record in workspace.records()
        if record.experiment == held.experiment and record.spec_digest != held.spec_digest
    )


def _known_repeats(workspace: Workspace, experiment: str) -> dict[tuple[str, str], dict[int, RepeatRecord]]:
    """Repeats by run and evaluation that any recorded version of an experiment's spec asked for.

    A version that changes nothing of a run (a hypothesis, say) keeps its evaluation, and so its repeats.
    """
    found: dict[tuple[str, str], dict[int, RepeatRecord]] = {}
    for record in workspace.records():
        for run in record.runs if record.experiment == experiment else ():
            known = found.setdefault((run.run, run.eval_digest), {})
            known.update((repeat.repeat, repeat) for repeat in run.repeats)
    return found
