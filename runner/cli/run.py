"""`nsd run`: a plan executed, with a store kept in step where one is named, and the answer printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from nsd.plugins.errors import InputError
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.store.workspace import Workspace

STORE_VARIABLE = "NSD_STORE"
JOB_VARIABLE = "NSD_JOB"  # set by nsd launch: under which name this job leaves word of its end


def run_plan(
    plan: Plan, workspace: Workspace, stages: Sequence[str], store: str | None, as_json: bool, wide: bool = False
) -> int:
    """Execute, print the outcome, and return the exit code. `stages` are digests or their beginnings."""
    from nsd.runner.cli.show_outcome import outcome_json, print_outcome
    from nsd.runner.store.bucket import Bucket
    from nsd.runner.store.shapes import Word
    from nsd.runner.work.device import Decision
    from nsd.runner.work.execute import execute
    from nsd.runner.work.nodes import Nodes, take_part
    from nsd.runner.work.ready import make_ready
    from nsd.runner.work.sync import Sync, leave_word

    uri = store or os.environ.get(STORE_VARIABLE)
    bucket = Bucket.open(uri) if uri else None
    sync = Sync(bucket, workspace, plan) if bucket is not None else None
    only = full_digests(plan, stages) if stages else None
    nodes = Nodes.here()
    if nodes is not None and sync is None:
        raise InputError(
            f"{len(nodes.addresses)} machines need a store that all can reach: --store or {STORE_VARIABLE}"
        )

    def settle(pending: Sequence[Stage]) -> Decision | None:
        decision = make_ready(plan, pending, 1 if nodes is None else len(nodes.addresses))
        if decision is not None:
            print(f"device: {decision.device}, {decision.why}", file=sys.stderr)
        return decision

    if nodes is not None and sync is not None and nodes.rank > 0:
        return take_part(plan, workspace, sync, nodes, only, settle)
    for note in plan.notes:  # what a person should know of the data, before the hours that it may cost
        print(f"note: {note}", file=sys.stderr)
    outcome = execute(plan, workspace, sync, only, ends_process=True, settle=settle)
    if job := os.environ.get(JOB_VARIABLE):
        facts = {**outcome_json(plan, outcome), "exit_code": outcome.exit_code}
        leave_word(workspace, bucket, job, Word.from_json(facts, workspace.outcome_path(job)))
    if stages and not as_json:
        print(f"{outcome.done} stages run, {outcome.cached} finished before, {len(outcome.failures)} failed")
        for failure in outcome.failures:
            print(f"FAILED {failure.stage.title}: {failure.reason}\n  log: {failure.log}")
    else:
        print_outcome(plan, workspace, outcome, as_json, wide)
    return outcome.exit_code


def full_digests(plan: Plan, beginnings: Sequence[str]) -> list[str]:
    """The one stage that each beginning names. Raises InputError where it names none or several."""
    found = []
    for beginning in beginnings:
        matching = [digest for digest in plan.stages if digest.startswith(beginning)]
        if len(matching) != 1 or not beginning:
            how_many = "no stage" if not matching else f"{len(matching)} stages"
            raise InputError(f"--stage {beginning}: {how_many} of {plan.name} begins so; nsd plan lists them")
        found.append(matching[0])
    return found
