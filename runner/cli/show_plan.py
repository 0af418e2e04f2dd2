"""`nsd plan`: the stages of a spec, what is finished already, why the rest is not, and what the plan can detect.

For the accelerators that the spec, or --gpus, asks for it also says how long the stages to run take there and whether
they fit in its memory (runner/launch/estimate.py).

`--json` output is the same facts under stable names; the table is for people and may change.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nsd.plugins.screen import console, print_json, table
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace

COMPARED = 100  # finished stages of a kind, the newest, that a stage to run is held against

if TYPE_CHECKING:
    from nsd.reports.judge.power import Power
    from nsd.runner.launch.estimate import Estimate
    from nsd.runner.plan.model import Plan


def plan_json(plan: Plan, workspace: Workspace, power: Power, estimates: Sequence[Estimate] = ()) -> dict[str, Any]:
    """Every stage with condition, kind, digest, cached, and why it is not cached; and what the plan can detect.

    `estimates` are of the stages to run; a stage's seconds and memory are those of the first.
    """
    from nsd.runner.plan.changes import Nearest, made_before_code, made_under_another_scheme, of_this_scheme
    from nsd.runner.plan.relatives import siblings, there_already
    from nsd.runner.plan.saving import expected
    from nsd.runner.work.asked import notes_on_served

    owed = plan.pending(workspace)
    pending = {stage.digest for stage in owed}
    manifests: dict[str, list[Manifest]] = {}
    others = []
    # An `eval` stage drew and scored in one, under an earlier scheme.
    kinds = sorted({stage.kind for stage in owed} | {"eval"}) if owed else []
    for manifest in (one for kind in kinds for one in workspace.manifests(kind, newest=COMPARED)):
        if of_this_scheme(manifest):
            manifests.setdefault(manifest.kind, []).append(manifest)
        else:
            others.append(manifest)
    nearest = {kind: Nearest(manifests.get(kind, ())) for kind in kinds}
    names = workspace.stage_names() if owed else frozenset()
    stages = []
    guesses = {one.digest: one for one in estimates[0].stages} if estimates else {}
    for stage in plan.stages.values():
        guess = guesses.get(stage.digest)
        cached = stage.digest not in pending
        changed = there = None
        if not cached:
            changed = nearest[stage.kind].changed(stage.settings)
            if stage.kind == "sample":
                there = there_already(stage.settings, workspace.finished("sample", siblings(stage.key), names))
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
                "estimated_seconds": None if guess is None else guess.seconds,
                "memory_gib": None if guess is None else guess.memory_gib,
            }
        )
    owed = [stage for stage in plan.stages.values() if stage.digest in pending]
    before = [
        made_under_another_scheme([(stage.kind, stage.used_by) for stage in owed], others),
        made_before_code([(stage.kind, stage.key) for stage in owed], manifests),
    ]
    savings = [expected(stage, manifests.get("label", ())) for stage in owed]
    before += [saving.sentence() for saving in savings if saving is not None]
    return {
        "experiment": plan.name,
        "spec_digest": plan.spec_digest,
        "runs": [run.run for run in plan.runs],
        "stages": stages,
        "notes": [
            *plan.notes,
            *(sentence for sentence in before if sentence is not None),
            *notes_on_served(plan, owed),
        ],
        "estimates": [{**_estimate_json(one), "evals": hours_by_evaluation(plan, one)} for one in estimates],
        "power": power.to_json(),
    }


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    largest, card = estimate.largest, estimate.card
    return {
        "accelerator": estimate.accelerator,
        "hours": estimate.hours,
        "memory_gib": None if largest is None else largest.memory_gib,
        "card_gib": None if card is None else card.memory,
        "fits": estimate.fit,
        "said": "; ".join(filter(None, (estimate.sentence(), estimate.fitting()))),
    }


def hours_by_evaluation(plan: Plan, estimate: Estimate) -> dict[str, float]:
    """Hours that drawing and judging take for each named evaluation, a stage that two share in both."""
    seconds = {one.digest: one.seconds or 0.0 for one in estimate.stages}
    mine: dict[str, set[str]] = {}
    for run in plan.runs:
        if run.measurement is not None:
            causes = {run.eval_digest, *plan.stages[run.eval_digest].inputs.values()}
            measuring = {digest for digest in causes if plan.stages[digest].kind != "train"}
            mine.setdefault(run.measurement, set()).update(measuring)
    return {name: sum(seconds.get(one, 0.0) for one in digests) / 3600 for name, digests in mine.items()}


def estimates_of(plan: Plan, workspace: Workspace, gpus: str | None = None) -> list[Estimate]:
    """Estimates of the stages to run on every accelerator of the spec, or of `gpus` ("L4:1,H100:1")."""
    asked = plan.experiment.resources.accelerators
    names = [asked] if isinstance(asked, str) else list(asked or ())
    names = names if gpus is None else [name.strip() for name in gpus.split(",") if name.strip()]
    if not names:
        return []
    from nsd.runner.launch.estimate import Estimator

    estimator = Estimator(plan, workspace)
    return [estimator.on(name) for name in names]


def print_plan(plan: Plan, workspace: Workspace, as_json: bool, gpus: str | None = None) -> None:
    """The plan, as a table or JSON. Raises InputError for accelerators that are written wrongly."""
    from nsd.runner.cli.show_power import plan_power, power_lines

    power = plan_power(plan, workspace)
    estimates = estimates_of(plan, workspace, gpus)
    facts = plan_json(plan, workspace, power, estimates)
    if as_json:
        print_json(facts)
        return
    columns = ["stage", "for", "size", *(["GiB"] if estimates else []), "digest", "state"]
    shown = table(*columns, right=("GiB",), title=f"{plan.name}: {len(plan.runs)} runs")
    for alike in _together(facts["stages"]):
        stage = alike[0]
        more = len(stage["used_by"]) - 1
        users = stage["used_by"][0] + (f" +{more}" if more else "")
        users += f", repeat {stage['repeat']}" if stage["repeat"] else ""
        state = "finished" if stage["cached"] else "to run" + _why(stage["changed_since_nearest"])
        if there := stage["samples_there"]:
            state = f"to run: {there} of {plan.stages[stage['digest']].settings['sampling']['n']} samples are there"
        memory = stage["memory_gib"]
        cells = ["" if memory is None else f"{memory:.1f}"] if estimates else []
        size, digest = stage["size"], stage["digest"][:8]
        if len(alike) > 1:
            size, digest = f"{len(alike)} questions, {_beside_question(stage)}", f"{digest} ..."
        shown.add_row(stage["kind"], users, size, *cells, digest, state)
    screen = console()
    screen.print(shown)
    for note in facts["notes"]:
        screen.print(f"note: {note}")
    waiting = sum(not stage["cached"] for stage in facts["stages"])
    screen.print(f"{len(facts['stages'])} stages: {len(facts['stages']) - waiting} finished, {waiting} to run")
    for line in power_lines(power):
        screen.print(line)
    if estimates and waiting:
        _print_estimates(plan, estimates)


def _together(stages: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The stages, searches of one arm's questions that stand alike as one."""
    same = ("kind", "used_by", "repeat", "cached", "changed_since_nearest")

    def alike(one: tuple[int, dict[str, Any]]) -> object:
        number, stage = one
        return [_beside_question(stage), *map(stage.get, same)] if stage["kind"] == "discover" else number

    return [[stage for _, stage in group] for _, group in itertools.groupby(enumerate(stages), alike)]


def _beside_question(stage: dict[str, Any]) -> str:
    """What a search's size says beside the question's id, which may hold a comma."""
    return str(stage["size"]).rpartition(", ")[2]


def _print_estimates(plan: Plan, estimates: Sequence[Estimate]) -> None:
    screen = console()
    shown = table("what is to run, on", "hours", "GiB needed", "of", "", right=("hours", "GiB needed", "of"))
    for one in estimates:
        largest, card = one.largest, one.card
        hours = "unknown" if one.hours is None else f"{one.hours:.1f}"
        memory = "" if largest is None else f"{largest.memory_gib or 0:.1f}"
        there = "" if card is None or not card.memory else f"{card.memory:.1f}"
        fit = {True: "fits", False: "does not fit", None: ""}[one.fit]
        shown.add_row(one.accelerator, hours, memory, there, fit)
    screen.print(shown)
    for one in estimates:
        if one.hours is None:
            screen.print(one.sentence())
        elif not one.fit and (said := one.fitting()) is not None:
            screen.print(f"{one.accelerator}: {said}")
        if one.hours is not None and (evals := hours_by_evaluation(plan, one)):
            screen.print(f"{one.accelerator}: {', '.join(f'{name} {hours:.2f} h' for name, hours in evals.items())}")
    for how in dict.fromkeys(one.how for one in estimates if one.hours is not None):
        screen.print(f"estimated {how}")


def _why(changed: list[str] | None) -> str:
    if not changed:
        return ""
    shown = [entry if len(entry) < 90 else entry[:87] + "..." for entry in changed[:3]]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return "; differs from the nearest finished one in " + ", ".join(shown) + more
