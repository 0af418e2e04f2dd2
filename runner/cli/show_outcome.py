"""How a run ended: the answer, or what went wrong and where it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsd.plugins.screen import console, print_json
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Hypotheses
from nsd.runner.store.workspace import Workspace

if TYPE_CHECKING:
    from nsd.runner.plan.model import Plan
    from nsd.runner.work.execute import Outcome


def print_outcome(
    plan: Plan, workspace: Workspace, outcome: Outcome, as_json: bool = False, wide: bool = False
) -> None:
    """The end of a run: the answer, or what went wrong and where it is written."""
    from nsd.reports.judge.answer import answer
    from nsd.reports.judge.looks import look_entries
    from nsd.reports.text.summary import print_summary, summary_json
    from nsd.runner.store.looks import record_looks

    screen = console()
    experiment = plan.experiment
    hypotheses = Hypotheses(**experiment.hypotheses.to_json()) if experiment.hypotheses else None
    if as_json:
        with Store(workspace).read() as connection:
            summary = summary_json(connection, plan.name, plan.spec_digest, hypotheses, workspace)
            judged = answer(
                connection, plan.name, plan.spec_digest, hypotheses=hypotheses, pairs=False, workspace=workspace
            )
        print_json({**summary, **outcome_json(plan, outcome)})
        record_looks(workspace, "run", look_entries([*judged.judged(), *judged.interactions()]))
        return
    if outcome.interrupted:
        why = outcome.stopped_by
        screen.print(
            f"stopped: {why}" if why else "interrupted: everything finished is kept, and the same command continues"
        )
        return
    with Store(workspace).read() as connection:
        found = print_summary(
            connection, screen, plan.name, plan.spec_digest, hypotheses, experiment.question, wide, workspace
        )
    record_looks(workspace, "run", look_entries([*found.judged(), *found.interactions()]))
    if not outcome.done and not outcome.failures:
        screen.print(f"all {outcome.cached} stages were finished already; nothing ran")
    for failure in outcome.failures:
        screen.print(f"FAILED {failure.stage.title}: {failure.reason}")
        screen.print(f"  log: {failure.log}")
    if outcome.skipped:
        screen.print(f"not run, for want of a failed stage: {', '.join(stage.title for stage in outcome.skipped)}")


def outcome_json(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """What a run came to, as plain data."""
    return {
        "spec_digest": plan.spec_digest,
        "stages_run": outcome.done,
        "stages_cached": outcome.cached,
        "interrupted": outcome.interrupted,
        **({} if outcome.stopped_by is None else {"stopped_by": outcome.stopped_by}),
        "failures": [
            {
                "stage": f.stage.digest,
                "kind": f.stage.kind,
                "used_by": f.stage.used_by,
                "reason": f.reason,
                "log": f.log,
            }
            for f in outcome.failures
        ],
        "skipped": [stage.digest for stage in outcome.skipped],
    }
