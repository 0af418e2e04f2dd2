"""`nsd launch SPEC`: what it will take and cost, a question, and then the jobs that do it.

A **cluster** job has a machine of its own that goes down when the results are home. A **managed** job is brought
back by SkyPilot after a preemption and continues from the store, so it needs one. `--parallel N` spreads the arms over
N managed jobs; stages that several of them need are made once, by a job that goes first.

A run that costs too much is ended from outside the training process: the machine's own `timeout` stops it at the
deadline that `max_hours` and `max_usd` give, and the machine goes down when idle, whether or not anybody looks.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nsd.plugins.errors import InputError, Interrupted
from nsd.plugins.screen import console, table
from nsd.runner.launch.along import Along, files_of
from nsd.runner.launch.answers import Offer
from nsd.runner.launch.beside import beside
from nsd.runner.launch.bridge import SkyPilot
from nsd.runner.launch.estimate import OVERHEAD_HOURS, Estimate, Estimator
from nsd.runner.launch.follow import Answering, follow
from nsd.runner.launch.home import from_store, push_finished
from nsd.runner.launch.jobs import start_ready
from nsd.runner.launch.launches import Job, Launch, Launches, job_name, plan_of
from nsd.runner.launch.launches import Options as Options  # `nsd launch` makes them
from nsd.runner.launch.task import Wanted, task_for, write
from nsd.runner.launch.wheel import check_installation, own_wheel
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.store.bucket import Bucket
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import Outcome
from nsd.runner.work.record import Record

LONG_HOURS = 2.0  # from here on a job is managed, where a store lets it be
SHARING = ("slurm", "kubernetes", "ssh")  # where a folder can be the same one on both sides
SHOWN = 6  # files that are named before a launch
KEEP_SECONDS = 7200.0  # how long a machine without a store waits for its results to be fetched,
KEEP_SHARE = 0.2  # and at most which share of its budget that is


def launch(workspace: Workspace, spec: Path, options: Options, answer: Answering) -> int:
    """Launch a spec and, unless detached, follow it home. Returns the exit code.

    Raises InputError for what cannot be launched, before anything is started.
    """
    plan = plan_of(spec, options)
    along = files_of(spec, plan, options.send)
    needed = ""
    if not options.environment:
        check_installation()
        needed = beside(plan)
    if options.parallel < 1:
        raise InputError(f"--parallel {options.parallel}: one job or more")
    bucket = Bucket.open(options.store) if options.store else None
    workspace.create()
    _keep_at_home(workspace)
    if bucket is not None:
        from_store(bucket, workspace, plan)
    pending = _to_run(plan, workspace, bucket)
    screen = console()
    if plan.known and not pending:
        screen.print(f"all {len(plan.stages)} stages of {plan.name} are finished; nothing to launch")
        return _show(workspace, plan, answer)

    sky = SkyPilot.find()
    sky.check()
    wanted = replace(_wanted(plan, options), beside=needed)
    estimator = Estimator(plan, workspace, pending) if plan.known else None
    wanted = replace(wanted, main_memory=0 if estimator is None else estimator.main_memory_gib(wanted.gpus))
    best, rows = _offers(sky, wanted, estimator, task_for(wanted, "nsd", along.spec, workspace.root, {}))
    price = best.usd_per_hour * wanted.resources.nodes or None
    if wanted.resources.nodes > 1 and bucket is None:
        raise InputError(
            f"{wanted.resources.nodes} machines need a store that all can reach: --store s3://bucket/folder"
        )
    check_store(options.store, best.cloud)
    check_elsewhere(along, best.cloud)
    guess = None if estimator is None else estimator.on(best.gpu)
    if guess is not None:
        jobs = _jobs(plan, [stage.digest for stage in pending], options.parallel, guess)
        hours, dollars = _totals(jobs, guess, price)
        about = "; ".join(
            filter(None, (f"{len(plan.stages)} stages, {len(pending)} to run", guess.sentence(), guess.fitting()))
        )
    else:
        if options.parallel > 1:
            raise InputError(f"--parallel needs a plan: {plan.notes[0]}")
        jobs, hours, dollars, about = [Job("all", "cluster", "sky.yaml")], None, None, plan.notes[0]
    managed = _managed(options, wanted, None if guess is None else guess.hours, bool(bucket), len(jobs))

    screen.print(f"{plan.name}: {about}")
    screen.print(_table_of(rows, best))
    place = " ".join(filter(None, (best.cloud, best.region, best.machine)))
    cost = "at a price SkyPilot does not know" if price is None else f"at ${price:.2f} an hour"
    cost = cost if dollars is None else f"about ${dollars:.2f} {cost}"
    time_ = "for an unknown time" if hours is None else f"about {hours:.1f} h"
    kind = f"{len(jobs)} {'managed ' if managed else ''}job{'' if len(jobs) == 1 else 's'}"
    screen.print(f"{kind} on {place}: {time_}, {cost}")
    limit = _budget(wanted, price, hours, dollars, len(jobs))
    keep = 0.0 if bucket else KEEP_SECONDS if limit is None else min(KEEP_SECONDS, limit * KEEP_SHARE)
    deadline = None if limit is None else limit - keep
    if deadline is not None and hours is not None and hours * 3600 > deadline:
        raise InputError(
            f"the estimate of {hours:.1f} h leaves too little of the budget for fetching the results: "
            "name a --store, which needs none, or raise the budget; nothing was launched"
        )
    if deadline is not None:
        screen.print(f"stopped at the latest {deadline / 3600:.1f} h after the launch; what is done by then is kept")
    if keep:
        screen.print(f"without a store, the machine waits {keep / 60:.0f} min at the end for its results to be fetched")
    screen.print(_sent(along, options))
    if options.dry_run:
        screen.print("dry run: nothing was launched")
        return 0
    _confirm(options)

    if bucket is not None and (sent := push_finished(bucket, workspace, plan)):
        screen.print(f"{sent} stages finished here were sent to the store")
    # The claims go on record before any machine can have a result.
    Record(plan, workspace, Store(workspace)).save()
    launches = Launches(workspace)
    found = launches.create(
        plan.name,
        spec=_named(spec),
        spec_digest=plan.spec_digest,
        options=options,
        store=options.store,
        place=place,
        usd_per_hour=price,
        max_usd=wanted.resources.max_usd,
        deadline=None if deadline is None else time.time() + deadline,
        jobs=jobs,
    )
    # A dearer machine than the one the deadline was computed for would spend more than the cap.
    at_most = None if price is None or wanted.resources.max_usd is None else best.usd_per_hour
    _write_tasks(launches, found, replace(wanted, managed=managed, usd_per_hour=at_most), along, options, keep)
    launches.save(found)
    screen.print(f"launch {found.identity}: {launches.path(found)}")
    try:
        start_ready(sky, launches, found)
    except KeyboardInterrupt:
        screen.print(f"SkyPilot goes on making the machine ready. nsd launch status | pull | cancel {found.identity}")
        return Interrupted.exit_code
    if options.detach:
        screen.print(f"detached; nsd launch status | logs | pull | cancel {found.identity}")
        return 0
    return follow(sky, workspace, launches, found, plan, answer)


def _to_run(plan: Plan, workspace: Workspace, bucket: Bucket | None) -> list[Stage]:
    """The stages that a machine will have to make: without a store it has nothing but the spec."""
    pending = plan.pending(workspace)
    if bucket is None:
        return list(plan.stages.values()) if pending else []
    return [
        stage
        for stage in pending
        if not (workspace.is_whole(stage.kind, stage.digest) and bucket.has_weights(stage.digest))
    ]


def check_store(store: str | None, cloud: str) -> None:
    """Raises InputError for a folder of this machine as the store of a machine that cannot see it."""
    if store and store.startswith("file://") and cloud.lower() not in SHARING:
        raise InputError(
            f"--store {store}: a machine of {cloud} does not see this folder; use a bucket (s3://..., gs://...). "
            "Folders are for clusters that share a file system with this machine"
        )


def check_elsewhere(along: Along, cloud: str) -> None:
    """Raises InputError for files that are named by absolute paths, which a machine elsewhere does not have."""
    if along.elsewhere and cloud.lower() not in SHARING:
        more = f" (and {len(along.elsewhere) - 1} more)" if len(along.elsewhere) > 1 else ""
        raise InputError(
            f"{along.elsewhere[0]}{more} is named by an absolute path, and a machine of {cloud} would look for it "
            "there: name it relative to the file that names it, then it is sent along"
        )


def _sent(along: Along, options: Options) -> str:
    """What goes to the machine, in a sentence."""
    names = along.names
    files = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    nsd = "" if options.environment else "; nsd itself goes along"
    there = f"; looked for there: {', '.join(along.elsewhere)}" if along.elsewhere else ""
    return f"sent to the machine: {files} ({_amount(along.size)}){nsd}{there}"


def _amount(size: int) -> str:
    """Bytes for a person."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"


def _named(spec: Path) -> str:
    """A spec by a name that later commands can use: relative to the current folder where it is below that."""
    there, here = spec.absolute(), Path.cwd()
    return there.relative_to(here).as_posix() if there.is_relative_to(here) else str(there)


def _keep_at_home(workspace: Workspace) -> None:
    """Have SkyPilot leave a workspace where it is: whoever runs `sky launch sky.yaml` sends the folder around it."""
    for name in (".gitignore", ".skyignore"):  # it reads the second where the project has one, else the first
        path = workspace.root / name
        if not path.exists():
            path.write_text("*\n", encoding="utf-8")


def _wanted(plan: Plan, options: Options) -> Wanted:
    wanted = Wanted.of(
        plan.experiment.resources,
        infra=options.infra,
        accelerators=options.gpus,
        use_spot=options.spot,
        max_usd=options.max_usd,
        max_hours=options.max_hours,
    )
    for name in ("max_usd", "max_hours"):
        value = getattr(wanted.resources, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"--{name.replace('_', '-')} {value:g}: a number above 0")
    return wanted


@dataclass(frozen=True)
class _Priced:
    """An offer with the hours and dollars of the whole work on it, None for unknown."""

    offer: Offer
    hours: float | None
    usd: float | None


def _offers(
    sky: SkyPilot, wanted: Wanted, estimator: Estimator | None, task: dict[str, Any]
) -> tuple[Offer, list[_Priced]]:
    """SkyPilot's choice, and every candidate, the cheapest first."""
    found = sky.ask("offers", task=task)
    rows = []
    for offer in map(Offer.from_json, found["offers"]):
        hours = None if estimator is None else estimator.on(offer.gpu).hours
        price = offer.usd_per_hour * wanted.resources.nodes
        rows.append(_Priced(offer, hours, price * hours if price and hours is not None else None))
    rows.sort(key=lambda row: (row.offer.usd_per_hour, row.offer.cloud, str(row.offer.region)))
    return Offer.from_json(found["best"]), rows


def _table_of(rows: Sequence[_Priced], best: Offer) -> Any:
    shown = table("", "cloud", "region", "machine", "GPUs", "spot", "$/h", "hours", "$", right=("$/h", "hours", "$"))
    for row in rows[:12]:
        one = row.offer
        price = f"{one.usd_per_hour:.2f}" if one.usd_per_hour else "unknown"
        cells = [one.cloud, one.region or "any", one.machine or "", one.gpu or "none"]
        hours = "" if row.hours is None else f"{row.hours:.1f}"
        dollars = "" if row.usd is None else f"{row.usd:.2f}"
        shown.add_row("*" if one.may_be(best) else "", *cells, "spot" if one.spot else "", price, hours, dollars)
    return shown


def _managed(options: Options, wanted: Wanted, hours: float | None, has_store: bool, jobs: int) -> bool:
    """Whether SkyPilot shall look after the jobs, which take `hours` (None: nobody knows).

    Raises InputError where that needs a store and there is none.
    """
    spot = wanted.resources.use_spot and wanted.can_be_spot
    asked = options.managed or jobs > 1 or spot
    if asked and not has_store:
        why = "--parallel" if jobs > 1 else "spot machines" if spot and not options.managed else "a managed job"
        raise InputError(
            f"{why}: a machine that is taken away takes its disk along, and several cannot share one; name a place "
            "that stays with --store s3://bucket/folder (gs://..., or file:///shared/folder on a cluster)"
        )
    if options.managed is False:
        if jobs > 1:
            raise InputError("--parallel needs managed jobs; leave out --no-managed")
        return False
    return bool(asked or (has_store and (hours is None or hours > LONG_HOURS)))


def _budget(wanted: Wanted, price: float | None, hours: float | None, dollars: float | None, jobs: int) -> float | None:
    """Seconds after which the run is stopped, None for never. Raises InputError where the budget cannot be kept."""
    asked = wanted.resources
    limits = []
    if asked.max_usd is not None:
        if price is None:
            raise InputError(
                f"max_usd {asked.max_usd:g}: SkyPilot knows no price of this place, so a dollar cap cannot be kept; "
                "leave it out (--max-usd applies to this launch only) and set max_hours instead"
            )
        if dollars is not None and dollars > asked.max_usd:
            raise InputError(
                f"the estimate of ${dollars:.2f} is above max_usd {asked.max_usd:g}: raise it, take fewer arms "
                "(--only) or a cheaper machine; nothing was launched"
            )
        limits.append(asked.max_usd / price / jobs * 3600)
    if asked.max_hours is not None:
        if hours is not None and hours > asked.max_hours:
            raise InputError(
                f"the estimate of {hours:.1f} h is above max_hours {asked.max_hours:g}: raise it, take fewer arms "
                "(--only), a faster machine or --parallel; nothing was launched"
            )
        limits.append(asked.max_hours * 3600)
    return min(limits) if limits else None


def _jobs(plan: Plan, pending: Sequence[str], parallel: int, guess: Estimate) -> list[Job]:
    """One job, or one for shared stages and up to `parallel` for the arms, the longest work spread first."""
    if parallel == 1:
        return [Job("all", "cluster", "sky.yaml")]
    open_stages = set(pending)
    # On a card that nobody knows, stages count alike.
    seconds = {stage.digest: 1.0 if stage.seconds is None else stage.seconds for stage in guess.stages}
    ends = {run.eval_digest for run in plan.runs} & open_stages
    needs = {end: plan.with_causes([end]) & open_stages for end in ends}
    shared = {digest for digest in open_stages if sum(digest in found for found in needs.values()) > 1} - ends
    alone = {end: sum(seconds.get(digest, 0.0) for digest in needs[end] - shared) for end in ends}
    piles: list[list[str]] = [[] for _ in range(min(parallel, len(ends)))]
    loads = [0.0] * len(piles)
    for end in sorted(ends, key=lambda end: (-alone[end], end)):
        lightest = loads.index(min(loads))
        piles[lightest].append(end)
        loads[lightest] += alone[end]
    jobs = [Job("shared", "managed", "sky-shared.yaml", _last_of(plan, shared))] if shared else []
    for number, pile in enumerate(piles, 1):
        after = ["shared"] if shared else []
        jobs.append(Job(f"arms-{number}", "managed", f"sky-arms-{number}.yaml", sorted(pile), after))
    return jobs


def _last_of(plan: Plan, stages: set[str]) -> list[str]:
    """Those of the stages that no other of them needs: asking for these brings the rest."""
    causes = {cause for digest in stages for cause in plan.stages[digest].inputs.values()}
    return sorted(stages - causes)


def _totals(jobs: Sequence[Job], guess: Estimate, price: float | None) -> tuple[float | None, float | None]:
    """Hours from start to end, and dollars of all machines together; None for unknown."""
    if guess.hours is None:
        return None, None
    waves = len({bool(job.after) for job in jobs})
    work = guess.hours - OVERHEAD_HOURS
    arms = max(1, sum(bool(job.after) for job in jobs) or len(jobs))
    hours = work / arms + OVERHEAD_HOURS * waves if len(jobs) > 1 else guess.hours
    machine_hours = work + OVERHEAD_HOURS * len(jobs)
    return hours, None if price is None else machine_hours * price


def _confirm(options: Options) -> None:
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise InputError("nothing was launched: say --yes where nobody can be asked")
    import typer

    if not typer.confirm("launch?"):
        raise InputError("nothing was launched")


def _write_tasks(
    launches: Launches, found: Launch, wanted: Wanted, along: Along, options: Options, keep: float
) -> None:
    files = launches.sent(found)
    along.copy(files)
    # SkyPilot leaves out what git ignores, and this folder is ignored; it asks this file instead where there is one.
    (files / ".skyignore").touch()
    wheel = None if options.environment else own_wheel(files / "nsd-sent")
    common = [f"--only {name}" for name in options.only] + [f"--seed {seed}" for seed in options.seeds]
    common += ["--smoke"] if options.smoke else []
    for job in found.jobs:
        job.kind = "managed" if wanted.managed else "cluster"
        name = job_name(found, job)
        flags = [*common, *(f"--stage {digest}" for digest in job.stages)]
        envs = {
            "NSD_FLAGS": " ".join(flags),
            "NSD_STORE": options.store or "",
            "NSD_PUSH_SECONDS": os.environ.get("NSD_PUSH_SECONDS", ""),
            "NSD_ENVIRONMENT": options.environment or "",
            "NSD_WHEEL": "" if wheel is None else wheel.path.relative_to(files).as_posix(),
            "NSD_SHA256": "" if wheel is None else wheel.sha256,
            "NSD_OVER": wanted.resources.over or "",
            "NSD_BESIDE": wanted.beside,
            "NSD_DEADLINE": "" if found.deadline is None else str(int(found.deadline)),
            "NSD_KEEP_SECONDS": str(int(keep)) if keep else "",
            "NSD_JOB": name,
            "NSD_USD_PER_HOUR": "" if found.usd_per_hour is None else f"{found.usd_per_hour:g}",
        }
        write(task_for(wanted, name, along.spec, files, envs), launches.path(found) / job.task_file)


def _show(workspace: Workspace, plan: Plan, answer: Answering) -> int:
    Record(plan, workspace, Store(workspace)).save()
    answer(plan, workspace, Outcome(cached=len(plan.stages)))
    return 0
