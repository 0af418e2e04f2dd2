"""`nsd plan`: the stages of a spec, what is finished already, why the rest is not, and what the plan can detect.

`--json` output is the same facts under stable names; the table is for people and may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsd.plugins.screen import console, print_json, table
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace

if TYPE_CHECKING:
    from nsd.reports.judge.power import Power
    from nsd.runner.plan.model import Plan


def plan_json(plan: Plan, workspace: Workspace, power: Power) -> dict[str, Any]:
    """Every stage with condition, kind, digest, cached, and why it is not cached; and what the plan can detect."""
    from nsd.runner.plan.changes import changed_fields, made_before_code, made_under_another_scheme, of_this_scheme
    from nsd.runner.plan.relatives import there_already

    pending = {stage.digest for stage in plan.pending(workspace)}
    manifests: dict[str, list[Manifest]] = {}
    others = []
    for manifest in workspace.manifests() if pending else ():
        if of_this_scheme(manifest):
            manifests.setdefault(manifest.kind, []).append(manifest)
        else:
            others.append(manifest)
    stages = []
    for stage in plan.stages.values():
        cached = stage.digest not in pending
        changed = there = None
        if not cached:
            changed = changed_fields(stage.settings, manifests.get(stage.kind, ()))
            if stage.kind == "sample":
                there = there_already(stage.settings, manifests.get("sample", ()))
        condition, _, seed = stage.used_by[0].rpartition("/seed")
        stages.append(
            {
                "condition": condition,
                "seed": int(seed),
                "kind": stage.kind,
                "digest": stage.digest,
                "cached": cached,
                "used_by": stage.used_by,
                "inputs": stage.inputs,
                "size": stage.size,
                "repeat": stage.repeat,
                "samples_there": there,
                "changed_since_nearest": changed,
            }
        )
    owed = [stage for stage in plan.stages.values() if stage.digest in pending]
    before = [
        made_under_another_scheme([(stage.kind, stage.used_by) for stage in owed], others),
        made_before_code([(stage.kind, stage.key) for stage in owed], manifests),
    ]
    return {
        "experiment": plan.name,
        "spec_digest": plan.spec_digest,
        "runs": [run.run for run in plan.runs],
        "stages": stages,
        "notes": [*plan.notes, *(sentence for sentence in before if sentence is not None)],
        "power": power.to_json(),
    }


def print_plan(plan: Plan, workspace: Workspace, as_json: bool) -> None:
    """The plan, as a table or JSON."""
    from nsd.runner.cli.show_power import plan_power, power_lines

    power = plan_power(plan, workspace)
    facts = plan_json(plan, workspace, power)
    if as_json:
        print_json(facts)
        return
    shown = table("stage", "for", "size", "digest", "state", title=f"{plan.name}: {len(plan.runs)} runs")
    for stage in facts["stages"]:
        more = len(stage["used_by"]) - 1
        users = stage["used_by"][0] + (f" +{more}" if more else "")
        users += f", repeat {stage['repeat']}" if stage["repeat"] else ""
        state = "finished" if stage["cached"] else "to run" + _why(stage["changed_since_nearest"])
        if there := stage["samples_there"]:
            state = f"to run: {there} of {plan.stages[stage['digest']].job['sampling']['n']} samples are there"
        shown.add_row(stage["kind"], users, stage["size"], stage["digest"][:8], state)
    screen = console()
    screen.print(shown)
    for note in facts["notes"]:
        screen.print(f"note: {note}")
    waiting = sum(not stage["cached"] for stage in facts["stages"])
    screen.print(f"{len(facts['stages'])} stages: {len(facts['stages']) - waiting} finished, {waiting} to run")
    for line in power_lines(power):
        screen.print(line)


def _why(changed: list[str] | None) -> str:
    if not changed:
        return ""
    shown = [entry if len(entry) < 90 else entry[:87] + "..." for entry in changed[:3]]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return "; differs from the nearest finished one in " + ", ".join(shown) + more
