"""What the commands print of plans, runs and stages. Reads the plan, the store or the manifests; computes nothing.

`--json` output is the same facts under stable names; tables are for people and may change.
"""

from __future__ import annotations

import fnmatch
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.plugins.screen import console, print_json, table
from nsd.plugins.words import did_you_mean, duration
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Broken, read_object
from nsd.runner.store.workspace import Workspace

if TYPE_CHECKING:
    from nsd.reports.judge.power import Power
    from nsd.runner.plan.build import Plan
    from nsd.runner.work.execute import Outcome


# --------------------------------------------------------------------------- plan


def plan_json(plan: Plan, workspace: Workspace, power: Power) -> dict[str, Any]:
    """Every stage with condition, kind, digest, cached, and why it is not cached; and what the plan can detect."""
    from nsd.runner.plan.changes import changed_fields, made_before_code, made_under_another_scheme, of_this_scheme

    pending = {stage.digest for stage in plan.pending(workspace)}
    manifests: dict[str, list[dict[str, Any]]] = {}
    others = []
    for manifest in workspace.manifests() if pending else ():
        if of_this_scheme(manifest):
            manifests.setdefault(manifest["kind"], []).append(manifest)
        else:
            others.append(manifest)
    stages = []
    for stage in plan.stages.values():
        cached = stage.digest not in pending
        changed = None
        if not cached:
            changed = changed_fields(stage.settings, manifests.get(stage.kind, ()))
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


def print_outcome(
    plan: Plan, workspace: Workspace, outcome: Outcome, as_json: bool = False, wide: bool = False
) -> None:
    """The end of a run: the answer, or what went wrong and where it is written."""
    from nsd.reports.judge.looks import look_entries
    from nsd.reports.text.summary import print_summary, summary_json
    from nsd.runner.store.looks import record_looks

    screen = console()
    experiment = plan.experiment
    hypotheses = experiment.hypotheses.to_json() if experiment.hypotheses else None
    if as_json:
        with Store(workspace).read() as connection:
            summary = summary_json(connection, plan.name, plan.spec_digest, hypotheses)
        print_json({**summary, **outcome_json(plan, outcome)})
        return
    if outcome.interrupted:
        screen.print("interrupted: everything finished is kept, and the same command continues")
        return
    with Store(workspace).read() as connection:
        found = print_summary(connection, screen, plan.name, plan.spec_digest, hypotheses, experiment.question, wide)
    record_looks(workspace, "run", look_entries(found.judged()))
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


# --------------------------------------------------------------------------- runs and stages


RUNS_SQL = """
SELECT r.run, r.experiment, r.condition, r.seed, r.status, r.reason, i.metric,
       coalesce(v.mean, c.correct / c.n) AS mean, coalesce(v.n, c.n) AS n,
       r.spec_digest, r.eval_digest, r.train_digest, r.label_digest, r.started_at, r.ended_at,
       t.seconds AS train_seconds, t.gpu_seconds AS train_gpu_seconds,
       -- of its own training and evaluation; what else made it (a teacher, its samples) is in nsd report and log
       coalesce(t.seconds * (t.manifest->>'$.cost.usd_per_hour')::DOUBLE / 3600, 0)
       + coalesce(d.seconds * (d.manifest->>'$.cost.usd_per_hour')::DOUBLE / 3600, 0)
       + e.seconds * (e.manifest->>'$.cost.usd_per_hour')::DOUBLE / 3600 AS usd
FROM runs r
LEFT JOIN eval_info i USING (eval_digest)
LEFT JOIN (SELECT eval_digest, avg(value) AS mean, count(*) AS n FROM eval_values GROUP BY 1) v USING (eval_digest)
LEFT JOIN counts c ON c.run = r.run
LEFT JOIN stages t ON t.digest = r.train_digest
LEFT JOIN stages e ON e.digest = r.eval_digest
LEFT JOIN stages d ON d.digest = e.manifest->>'$.inputs.samples'
ORDER BY r.experiment NULLS LAST, r.seed, r.started_at, r.run
"""


def run_rows(workspace: Workspace, pattern: str = "*") -> list[dict[str, Any]]:
    """Every run whose name, experiment or condition (`experiment/condition`) is like the pattern, as dictionaries."""
    with Store(workspace).read() as connection:
        cursor = connection.execute(RUNS_SQL)
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [row for row in rows if any(fnmatch.fnmatchcase(name, pattern) for name in _ways_to_name(row))]


def _ways_to_name(row: dict[str, Any]) -> list[str]:
    if row["experiment"] is None:
        return [row["run"]]
    return [row["run"], row["experiment"], f"{row['experiment']}/{row['condition']}"]


def print_runs(workspace: Workspace, pattern: str, as_json: bool) -> None:
    """The list of runs."""
    rows = run_rows(workspace, pattern)
    if as_json:
        print_json({"runs": rows})
        return
    if not rows:
        raise InputError(f"no run is like {pattern!r}; `nsd runs` lists them all")

    priced = any(row["usd"] is not None for row in rows)
    columns = ["run", "status", "metric", "value", "n", "train time", *(["$"] if priced else []), "ended"]
    shown = table(*columns, right=("value", "n", "train time", "$"))

    for row in rows:
        status = row["status"] + (f": {row['reason'][:60]}" if row["reason"] else "")
        value = "" if row["mean"] is None else f"{row['mean']:.4f}"
        spent = "" if row["train_seconds"] is None else duration(row["train_seconds"])
        ended = "" if row["ended_at"] is None else f"{row['ended_at']:%Y-%m-%d %H:%M}"
        cost = ["" if row["usd"] is None else f"{row['usd']:.2f}"] if priced else []
        shown.add_row(row["run"], status, row["metric"] or "", value, str(row["n"] or ""), spent, *cost, ended)
    console().print(shown)


def find_run(workspace: Workspace, name: str) -> dict[str, Any]:
    """The run of this name. Raises InputError with the nearest names."""
    rows = run_rows(workspace)
    for row in rows:
        if row["run"] == name:
            return row
    raise InputError(f"no run {name!r}{did_you_mean(name, [row['run'] for row in rows], '; `nsd runs` lists them')}")


def stage_chain(manifests: dict[str, dict[str, Any]], digest: str | None) -> list[dict[str, Any]]:
    """Manifests of a finished stage and of everything it came from, causes first; [] where it is not finished."""
    chain: dict[str, dict[str, Any]] = {}
    met: set[str] = set()  # a manifest may name itself among its causes

    def visit(wanted: str) -> None:
        if wanted not in met and wanted in manifests:
            met.add(wanted)
            for cause in manifests[wanted].get("inputs", {}).values():
                visit(cause)
            chain[wanted] = manifests[wanted]

    if digest is not None:
        visit(digest)
    return list(chain.values())


def find_stages(workspace: Workspace, name: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """A run and its finished stages, or the stage whose digest starts with `name`."""
    manifests = {manifest["digest"]: manifest for manifest in workspace.manifests()}
    by_digest = [m for digest, m in manifests.items() if len(name) >= 4 and digest.startswith(name)]
    if by_digest:
        return None, by_digest
    row = find_run(workspace, name)
    chain = [m for key in ("label_digest", "train_digest", "eval_digest") for m in stage_chain(manifests, row[key])]
    return row, list({manifest["digest"]: manifest for manifest in chain}.values())


def print_run(workspace: Workspace, name: str, as_json: bool) -> None:
    """A run with the stages that made it, or one stage."""
    row, stages = find_stages(workspace, name)
    if as_json:
        print_json({"run": row, "stages": stages})
        return
    screen = console()
    if row is not None:
        value = "no result yet" if row["mean"] is None else f"{row['metric'] or 'share correct'} {row['mean']:.4f}"
        n = f" on {row['n']} questions" if row["n"] else ""
        screen.print(f"{row['run']}: {row['status']}, {value}{n}" + (f"; {row['reason']}" if row["reason"] else ""))
    for manifest in stages:
        _print_stage(screen, manifest)


def _print_stage(screen: Any, manifest: dict[str, Any]) -> None:

    spent = duration(manifest.get("seconds") or 0)
    what = f"{manifest['kind']} {manifest['digest'][:8]} ({manifest.get('plugin')})"
    screen.print(f"\n{what}, {spent}, ended {manifest.get('ended_at')}")
    machine = manifest.get("machine", {})
    hardware = ", ".join(map(str, machine.get("gpus") or [])) or f"{machine.get('cpus', '?')} CPUs"
    versions = " ".join(f"{key} {value}" for key, value in manifest.get("packages", {}).items())
    facts: list[tuple[str, Any]] = [
        ("inputs", manifest.get("inputs")),
        ("result", manifest.get("eval") or manifest.get("labels") or manifest.get("training")),
        ("generation", manifest.get("generation")),
        ("on", f"{machine.get('host', '?')}, {hardware}"),
        ("commit", manifest.get("git_commit")),
        ("packages", versions),
        ("plugins", "; ".join(third_party_plugins(manifest["key"]))),
        ("files", manifest["folder"]),
    ]
    for label, fact in facts:
        if fact:
            screen.print(f"  {label:<10} {json.dumps(fact, ensure_ascii=False) if isinstance(fact, dict) else fact}")
    for key, value in manifest.get("key", {}).items():
        screen.print(f"  key.{key:<12} {json.dumps(value, ensure_ascii=False)}", soft_wrap=True)
    for event in manifest.get("events", []):
        screen.print(f"  warning at step {event.get('step')}: {event['text']} [{event.get('field') or ''}]")


def third_party_plugins(key: dict[str, Any]) -> list[str]:
    """Plugins in a stage's key that are not nsd's own: each with the distribution and version it came with."""
    found: list[str] = []
    for value in key.values():
        if not isinstance(value, dict):
            continue
        if isinstance(its_code := value.get("code"), dict) and "use" in value:
            words = [its_code[name] for name in ("distribution", "distribution_version") if name in its_code]
            found.append(f"{value['use']} of {' '.join(words)}" if words else f"{value['use']}, a file")
        found += third_party_plugins(value)
    return list(dict.fromkeys(found))


def print_logs(workspace: Workspace, name: str, lines: int, kind: str | None) -> None:
    """The last lines of the logs of a run's stages, of those under way or failed too."""
    paths: dict[str, Path] = {}
    for partial in sorted(workspace.partials.glob("[!.]*/log.txt")):
        users = _users_of(partial.with_name("job.json"))
        if name in users or (len(name) >= 4 and partial.parent.name.partition("-")[2].startswith(name)):
            paths[f"{partial.parent.name} (not finished)"] = partial
    try:
        _, stages = find_stages(workspace, name)
    except InputError:
        if not paths:
            raise
        stages = []
    for manifest in stages:
        paths[f"{manifest['kind']}-{manifest['digest']}"] = Path(manifest["folder"]) / "log.txt"
    for title, path in paths.items():
        if (kind is None or title.startswith(f"{kind}-")) and path.exists():
            print(f"==> {title}: {path}")
            print("\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]))


def _users_of(job_path: Path) -> list[str]:
    """The runs that a stage under way is for; [] where its job cannot be read, which the next run writes again."""
    try:
        job = read_object(job_path)
        return [f"{job['experiment']}/{user}" for user in job["used_by"]]
    except (Broken, KeyError, TypeError):
        return []


def print_plugins(kind: str | None, as_json: bool) -> None:
    """What a spec can name, with fields and defaults."""
    from nsd.plugins import registry
    from nsd.plugins.api import KINDS

    if kind is not None and kind not in KINDS:
        raise InputError(f"no kind of plugin {kind!r}: one of {', '.join(KINDS)}")
    found: list[dict[str, Any]] = []
    for plugin_kind, name, cls in registry.all_plugins():
        if kind in (None, plugin_kind):
            summary = str(cls.__doc__ or "").strip().split("\n")[0]
            schema = cls.Config.model_json_schema()
            found.append(
                {"kind": plugin_kind, "name": name, "version": cls.version, "about": summary, "config": schema}
            )
    broken = [one for one in registry.left_out() if kind is None or one.name.partition(".")[0] in (kind, "?")]
    if as_json:
        print_json({"plugins": found, "left_out": [asdict(one) for one in broken]})
        return
    screen = console()
    for one in broken:
        screen.print(f"left out: {one.name} of {one.distribution}: {one.reason}", soft_wrap=True, markup=False)
    for entry in found:
        screen.print(f"{entry['kind']} {entry['name']}: {entry['about']}")
        required = entry["config"].get("required", [])
        for name, field in entry["config"].get("properties", {}).items():
            default = "required" if name in required else f"default {json.dumps(field.get('default'))}"
            screen.print(f"    {name} ({default}) {field.get('description', '')}".rstrip(), soft_wrap=True)
