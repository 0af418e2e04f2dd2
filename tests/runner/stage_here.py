"""A stage of a plan done in the test's own process: what a worker does, without starting one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nsd.runner.plan.model import Plan, Stage
from nsd.runner.store import provenance
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.context import Context
from nsd.runner.work.jobs import job_of, write_data
from nsd.runner.work.stages import run_stage


def do(plan: Plan, stage: Stage, workspace: Workspace, should_stop: Callable[[], bool] = lambda: False) -> Any:
    """Do it and keep it; returns what its manifest says of it. Whatever it raises leaves it half done."""
    write_data(plan, workspace)
    with workspace.lock(stage.kind, stage.digest) as partial:
        facts = run_stage(job_of(plan, stage, workspace), Context(workspace, partial, lambda event: None, should_stop))
        known = {"kind": stage.kind, "digest": stage.digest, "key": stage.key, "settings": stage.settings}
        known |= {"inputs": stage.inputs, "packages": provenance.packages(), **facts}
        workspace.commit(stage.kind, stage.digest, Manifest.model_validate(known))
    return facts
