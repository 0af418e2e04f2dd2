"""Stays with a launch until it is over: progress, results as they come, and the answer at the end.

Nothing is lost when following stops: the jobs go on, and `nsd launch pull` takes the results later.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nsd.plugins.errors import NsdError
from nsd.plugins.screen import console, table
from nsd.runner.launch import home
from nsd.runner.launch.bridge import SkyError, SkyPilot
from nsd.runner.launch.jobs import cancel, refresh, start_ready
from nsd.runner.launch.launches import Launch, Launches, job_name, plan_as_launched
from nsd.runner.launch.setup import clean, note_setup, the_machine
from nsd.runner.plan.model import Plan
from nsd.runner.store.bucket import Bucket, BucketError
from nsd.runner.store.workspace import Workspace, now
from nsd.runner.work.execute import Failure, Outcome
from nsd.runner.work.sync import read_words

Answering = Callable[[Plan, Workspace, Outcome], None]  # prints what a launch has come to; the command brings it

POLL_SECONDS = 15.0
WAITING_LINE = "nsd: waiting for the results to be fetched"
FETCH_ATTEMPTS = 3
SILENT_POLLS = 20


def follow(
    sky: SkyPilot, workspace: Workspace, launches: Launches, found: Launch, plan: Plan, answer: Answering
) -> int:
    """Follow to the end. Returns the exit code: 0 all done, 1 something failed or is missing."""
    screen = console(stderr=True)
    before = {digest for digest, stage in plan.stages.items() if workspace.is_whole(stage.kind, digest)}
    try:
        if any(job.kind == "managed" for job in found.jobs):
            _follow_managed(sky, workspace, launches, found, plan, screen)
        else:
            _follow_cluster(sky, workspace, launches, found, plan, screen)
    except KeyboardInterrupt:
        screen.print(f"no longer following; the work goes on. nsd launch status | pull | cancel {found.identity}")
        return 75
    return finish(workspace, launches, found, plan, before, answer)


def finish(
    workspace: Workspace, launches: Launches, found: Launch, plan: Plan, before: set[str], answer: Answering
) -> int:
    """Index what came, print the answer, and say what is missing."""
    names = [job_name(found, job) for job in found.jobs]
    if found.store:
        bucket = Bucket.open(found.store)
        home.from_store(bucket, workspace, plan, weights=found.options.weights)
        words = home.words_from_store(bucket, workspace, names)
    else:
        words = read_words(workspace, names)
    failures = [failure for word in words for failure in word.failures]
    home.index(workspace, plan, failures)
    if all(job.over for job in found.jobs) and found.ended_at is None:
        found.ended_at = now()
    launches.save(found)
    whole = {digest for digest, stage in plan.stages.items() if workspace.is_whole(stage.kind, digest)}
    outcome = Outcome(done=len(whole - before), cached=len(before))
    outcome.failures = [
        Failure(plan.stages[one.stage], one.reason, one.log) for one in failures if one.stage in plan.stages
    ]
    screen = console()
    broken = [job for job in found.jobs if job.setup_failed]
    nothing_ran = bool(broken or not plan.stages) and not outcome.done and not outcome.failures
    if not nothing_ran:
        answer(plan, workspace, outcome)
    for failure in failures:
        for line in failure.log_end[-10:]:
            screen.print(f"    {line}")
    missing = len(plan.stages) - len(whole)
    for job in found.jobs:
        if job.setup_failed:
            screen.print(f"{the_machine(found, job)} could not be set up: {job.reason}")
        elif job.status != "SUCCEEDED":
            why = f": {job.reason}" if job.reason else ""
            screen.print(f"job {job.name}: {job.status}{why}; nsd launch logs {found.identity} has what it printed")
    if broken and nothing_ran:
        screen.print(f"nothing ran; nsd launch logs {found.identity} has all that the setup printed")
    elif missing:
        how = "goes on from here" if found.store else "makes them all again (with --store it would go on from here)"
        screen.print(f"{missing} of {len(plan.stages)} stages are not finished; nsd launch {found.spec} {how}")
    cost = "" if found.usd is None else f", at most ${found.usd:.2f}"
    screen.print(f"launched on {found.place}: {found.hours * 60:.0f} min{cost}")
    return 1 if missing or outcome.failures or not plan.stages else 0


# --------------------------------------------------------------------------- a machine of its own


class _NotFetched(Exception):
    """Ends the following of a job that waits in vain."""


def _follow_cluster(
    sky: SkyPilot, workspace: Workspace, launches: Launches, found: Launch, plan: Plan, screen: Any
) -> None:
    (job,) = found.jobs
    cluster = job_name(found, job)
    printed = launches.path(found) / f"{job.name}.log"  # the machine's own is gone with the machine

    def on_line(line: str) -> None:
        if not line.strip():
            return
        text = clean(line)
        screen.print(text)
        with printed.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
        weights = found.options.weights
        if text == WAITING_LINE and not fetch_and_release(sky, workspace, plan, cluster, screen, weights):
            raise _NotFetched

    # A machine whose results could not be fetched goes on waiting for them; nobody need watch it wait.
    with contextlib.suppress(_NotFetched):
        while True:
            printed.unlink(missing_ok=True)
            sky.ask("follow", on_line=on_line, cluster=cluster, job=job.sky_job)
            refresh(sky, launches, found)
            if job.over:
                break
            screen.print(f"the connection to {cluster} ended, the job has not ({job.status}); following on")
            time.sleep(POLL_SECONDS)
    refresh(sky, launches, found)
    if job.setup_failed:
        note_setup(sky, launches, found, job)
    if job.setup_failed or (found.store and job.over) or workspace.outcome_path(cluster).is_file():
        sky.ask("down", cluster=cluster)
        screen.print(f"the machine {cluster} is gone")
    else:
        screen.print(f"the results of {cluster} are not here; it stays a while: nsd launch pull {found.identity}")


def fetch_and_release(
    sky: SkyPilot, workspace: Workspace, plan: Plan, cluster: str, screen: Any, weights: bool
) -> bool:
    """Copy the results and tell the machine that it need not wait any longer. False where that did not work."""
    sky.reach(cluster)
    for attempt in range(1, FETCH_ATTEMPTS + 1):
        try:
            fetched = home.from_machine(workspace, plan, cluster, weights)
        except home.FetchError as error:
            screen.print(f"{error} (attempt {attempt} of {FETCH_ATTEMPTS})")
            time.sleep(5 * attempt)
            continue
        screen.print(f"fetched {len(fetched)} stages")
        return home.on_machine(cluster, "touch nsd-fetched").returncode == 0
    return False


# --------------------------------------------------------------------------- jobs that SkyPilot looks after


def _follow_managed(
    sky: SkyPilot, workspace: Workspace, launches: Launches, found: Launch, plan: Plan, screen: Any
) -> None:
    bucket = Bucket.open(str(found.store))
    silent = 0
    while True:
        try:
            refresh(sky, launches, found, screen)
            for title in home.from_store(bucket, workspace, plan):
                screen.print(f"done: {title}")
            silent = 0
        except (SkyError, BucketError) as error:  # away for a while; whoever follows is not what the jobs depend on
            silent += 1
            if silent > SILENT_POLLS:
                raise
            screen.print(f"{error}; asking again")
            time.sleep(POLL_SECONDS)
            continue
        if all(job.over for job in found.jobs):
            for job in found.jobs:
                if job.setup_failed:
                    note_setup(sky, launches, found, job)
            return
        if found.deadline is not None and time.time() > found.deadline + 600:
            # The machine's own timeout should have ended it; this is for a machine that hangs.
            screen.print("past the deadline: cancelling")
            cancel(sky, launches, found)
            return
        for job in start_ready(sky, launches, found):
            screen.print(f"job {job.name}: started")
        time.sleep(POLL_SECONDS)


# --------------------------------------------------------------------------- later commands


def status(workspace: Workspace, identity: str | None) -> None:
    """Print the launches, or one with its jobs."""
    launches = Launches(workspace)
    chosen = [launches.find(identity)] if identity else launches.all()
    if not chosen:
        launches.find(None)
    sky: SkyPilot | None = None
    shown = table("launch", "job", "status", "recovered", "place", "hours", "at most $", right=("hours", "at most $"))
    for found in chosen:
        if not all(job.over for job in found.jobs):
            sky = sky or SkyPilot.find()
            refresh(sky, launches, found)
        for job in found.jobs:
            cells = [found.identity, job.name, job.status, str(job.recoveries or ""), found.place]
            dollars = "" if found.usd is None else f"{found.usd:.2f}"
            shown.add_row(*cells, f"{found.hours:.1f}", dollars)
    console().print(shown)


def logs(workspace: Workspace, identity: str | None) -> None:
    """Print what the jobs of a launch printed so far, and go on until they end."""
    launches = Launches(workspace)
    found = launches.find(identity)
    sky = SkyPilot.find()
    for job in found.jobs:
        if job.sky_job is None:
            print(f"==> {job.name}: not started")
            continue
        print(f"==> {job.name}")
        if job.kind == "managed":
            sky.ask("jobs_follow", on_line=lambda line: print(clean(line)), job=job.sky_job)
        elif job.over and (printed := launches.path(found) / f"{job.name}.log").is_file():
            print(printed.read_text(encoding="utf-8"), end="")
        else:
            cluster = job_name(found, job)
            sky.ask("follow", on_line=lambda line: print(clean(line)), cluster=cluster, job=job.sky_job)


def pull(workspace: Workspace, identity: str | None, weights: bool, answer: Answering) -> int:
    """Take home what is there, index it and print the answer. Starts jobs whose turn has come."""
    launches = Launches(workspace)
    found = launches.find(identity)
    plan = plan_as_launched(workspace, found)
    before = {digest for digest, stage in plan.stages.items() if workspace.is_whole(stage.kind, digest)}
    weights = weights or found.options.weights
    found.options = replace(found.options, weights=weights)
    screen = console(stderr=True)
    for note in () if plan.known else plan.notes:
        screen.print(note)
    if found.ended_at is None:
        sky = SkyPilot.find()
        refresh(sky, launches, found, screen)
        if found.store:
            start_ready(sky, launches, found)
        for job in found.jobs:
            cluster = job_name(found, job)
            if job.kind == "managed" or job.status == "GONE":
                continue
            if job.setup_failed:
                note_setup(sky, launches, found, job)
                ended = True
            elif found.store:
                ended = job.over
            else:
                sky.reach(cluster)
                try:
                    screen.print(f"fetched {len(home.from_machine(workspace, plan, cluster, weights))} stages")
                    ended = home.on_machine(cluster, "test -e nsd-finished && touch nsd-fetched").returncode == 0
                except home.FetchError as error:
                    screen.print(str(error))
                    continue
                if ended:
                    job.status = "SUCCEEDED" if not _failed(workspace, cluster) else "FAILED"
            if ended:
                sky.ask("down", cluster=cluster)
                screen.print(f"the machine {cluster} is gone")
    return finish(workspace, launches, found, plan, before, answer)


def _failed(workspace: Workspace, cluster: str) -> bool:
    words = read_words(workspace, [cluster])
    return any(word.exit_code != 0 for word in words) or not words


def cancel_launch(workspace: Workspace, identity: str | None) -> None:
    """`nsd launch cancel`."""
    launches = Launches(workspace)
    found = launches.find(identity)
    if all(job.over for job in found.jobs):
        raise NsdError(f"{found.identity} is over already")
    sky, screen = SkyPilot.find(), console()
    for job in () if found.store else found.jobs:
        if job.asked and not job.over:  # what the machine has is gone with it
            screen.print(_last_fetch(sky, workspace, found, job_name(found, job)))
    cancel(sky, launches, found)
    taken = f"; nsd launch pull {found.identity} takes what was finished" if found.store else ""
    screen.print(f"{found.identity} is cancelled{taken}")


def _last_fetch(sky: SkyPilot, workspace: Workspace, found: Launch, cluster: str) -> str:
    """Take home what a machine has that is about to go, and say what came."""
    plan = plan_as_launched(workspace, found)
    sky.reach(cluster)
    try:
        fetched = home.from_machine(workspace, plan, cluster, found.options.weights)
    except home.FetchError as error:
        return f"nothing was fetched: {error}"
    home.index(workspace, plan, [])
    return f"fetched {len(fetched)} stages; nsd runs lists what is finished"
