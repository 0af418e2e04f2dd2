"""A launch of a spec whose data cannot be read here: an installation of nsd[sky] has no `datasets`.

    plan = unplanned(experiment, smoke=False, why="...")      # no stages yet
    learn(plan, record, manifest_of)                          # what the machine wrote down of its own plan

The machine plans for itself and records its runs before its first stage. This plan learns from that record, and from
the manifests of finished stages, what there is to bring home. Limits: no estimate of time, no `--parallel`.
"""

from __future__ import annotations

from collections.abc import Callable

from nsd.runner.plan.build import spec_digest
from nsd.runner.plan.discovery import QUESTION
from nsd.runner.plan.model import Plan, PlannedRun, Stage
from nsd.runner.spec.model import Experiment
from nsd.runner.store.shapes import ExperimentRecord, Manifest
from nsd.runner.store.workspace import Workspace

ManifestOf = Callable[[str, str], Manifest | None]  # kind and digest to manifest, None where not finished


def unplanned(experiment: Experiment, smoke: bool, why: str) -> Plan:
    """A plan that knows its name and nothing else."""
    name = experiment.name + ("-smoke" if smoke else "")
    return Plan(experiment, name, spec_digest(experiment), {}, [], {}, [why], known=False)


def learn(plan: Plan, record: ExperimentRecord | None, manifest_of: ManifestOf) -> None:
    """Fill in runs and stages, as far as they are known by now. Does nothing to a plan that was made here."""
    if plan.known or record is None:
        return
    plan.runs = [
        PlannedRun(
            *(run.run, run.condition, run.seed, run.eval_digest, run.train_digest, run.label_digest),
            measurement=run.measurement,
            beside=run.beside,
        )
        for run in record.runs
    ]
    for run in plan.runs:
        user = f"{run.condition.split('@')[0]}/seed{run.seed}"
        for kind, digest in (("label", run.label_digest), ("train", run.train_digest), ("score", run.eval_digest)):
            if digest is not None:
                _add(plan, kind, digest, user, manifest_of)


def learn_from(plan: Plan, workspace: Workspace) -> None:
    """The same from the record and the finished stages of a workspace."""
    record = workspace.record(plan.name, plan.spec_digest)
    learn(plan, record, lambda kind, one: workspace.manifest(kind, one) if workspace.is_whole(kind, one) else None)


def _add(plan: Plan, kind: str, digest: str, user: str, manifest_of: ManifestOf) -> None:
    stage = plan.stages.get(digest)
    if stage is None:
        manifest = manifest_of(kind, digest)
        inputs = dict(manifest.inputs) if manifest else {}
        for role, cause in inputs.items():
            _add(plan, _kind_of(kind, role), cause, user, manifest_of)
        stage = Stage(kind, digest, manifest.key.to_json() if manifest else {}, inputs, None, "")
        if manifest:  # what is not finished yet is looked at again: its causes are not known
            plan.stages[digest] = stage
        else:
            plan.stages.setdefault(digest, stage)
    elif not stage.key and (manifest := manifest_of(kind, digest)) is not None:
        del plan.stages[digest]
        _add(plan, kind, digest, user, manifest_of)
        stage = plan.stages[digest]
    if user not in stage.used_by:
        stage.used_by.append(user)


def _kind_of(kind: str, role: str) -> str:
    """The kind of stage that plays this role for one of `kind` (see runner/plan/build.py)."""
    if role == "samples":
        return "sample"
    if role.startswith(QUESTION):
        return "discover"
    return "label" if role == "labels" else "train"
