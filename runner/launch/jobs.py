"""The jobs of a launch: starting those whose turn it is, asking how they are, ending them."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import yaml

from nsd.plugins.errors import NsdError
from nsd.runner.launch.answers import JobState, Whereabouts
from nsd.runner.launch.bridge import SkyPilot, plain
from nsd.runner.launch.launches import STARTING, Job, Launch, Launches, job_name
from nsd.runner.launch.task import secrets_here
from nsd.runner.store.workspace import now

FAILED_SETUP = "FAILED_SETUP"  # SkyPilot's word for a job whose machine could not be made ready
IDLE_MINUTES = 5  # after which a machine with nothing to do goes down


def start_ready(sky: SkyPilot, launches: Launches, found: Launch) -> list[Job]:
    """Start every job whose turn it is, once, and none after the deadline. Returns those started.

    A job that was asked for by a command that was then interrupted is looked for before it is asked for again.
    """
    done = {job.name for job in found.jobs if job.status == "SUCCEEDED"}
    started = []
    for job in found.jobs:
        if job.sky_job is not None or job.over or not set(job.after) <= done:
            continue
        if job.asked:
            there = find(sky, found, job)
            job.sky_job = there.job
            launches.save(found)
            if there.coming or job.sky_job is not None:
                continue
        if found.deadline is not None and time.time() > found.deadline:
            job.status, job.reason = "CANCELLED", "the time of this launch is over"
            launches.save(found)
            continue
        task = yaml.safe_load((launches.path(found) / job.task_file).read_text(encoding="utf-8"))
        name = job_name(found, job)
        request: dict[str, Any] = {"task": task, "secrets": secrets_here()}
        job.status = STARTING
        launches.save(found)  # before the machine is asked for: whoever is interrupted now can still cancel it
        try:
            if job.kind == "managed":
                answer = sky.ask("jobs_launch", name=name, **request)
            else:
                answer = sky.ask("launch", cluster=name, idle_minutes=IDLE_MINUTES, **request)
        except NsdError as error:
            _give_up(sky, launches, found, job, str(error))
            raise
        job.sky_job = int(answer["job"])
        launches.save(found)
        started.append(job)
    return started


def _give_up(sky: SkyPilot, launches: Launches, found: Launch, job: Job, reason: str) -> None:
    """Write down that a job could not be started, unless its machine is there: then it can still be cancelled."""
    coming = False
    with contextlib.suppress(NsdError):
        there = find(sky, found, job)
        job.sky_job, coming = there.job, there.coming
    if job.sky_job is None and not coming:
        job.status, job.reason = "FAILED", reason
        _note_end(found)
    launches.save(found)


def _note_end(found: Launch) -> None:
    if all(job.over for job in found.jobs):
        found.stopped_at = found.stopped_at or now()


def find(sky: SkyPilot, found: Launch, job: Job) -> Whereabouts:
    """Where a job is that was asked for."""
    return Whereabouts.from_json(sky.ask("jobs_find" if job.kind == "managed" else "find", name=job_name(found, job)))


def refresh(sky: SkyPilot, launches: Launches, found: Launch, screen: Any = None) -> None:
    """Bring the status of every job up to date, and say what changed."""
    for job in found.jobs:
        if job.sky_job is None and job.asked:
            job.sky_job = find(sky, found, job).job
    started = [job for job in found.jobs if job.sky_job is not None and not job.over]
    managed = [job for job in started if job.kind == "managed"]
    asked = sky.ask("jobs_state", jobs=[job.sky_job for job in managed])["jobs"] if managed else {}
    states = {number: JobState.from_json(one) for number, one in asked.items()}
    for job in started:
        before = (job.status, job.recoveries)
        if job.kind == "managed":
            state = states.get(str(job.sky_job))
            if state is None:
                continue
            status = state.status
            job.recoveries, job.reason = state.recoveries, plain(state.reason or "") or None
        else:
            status = sky.ask("state", cluster=job_name(found, job), job=job.sky_job)["status"]
        job.status, job.setup_failed = word_of(status), status == FAILED_SETUP
        if screen is not None and before != (job.status, job.recoveries):
            more = f", taken away and brought back {job.recoveries} times" if job.recoveries else ""
            screen.print(f"job {job.name}: {job.status}{more}")
    failed = {job.name for job in found.jobs if job.over and job.status != "SUCCEEDED"}
    for job in found.jobs:
        if job.sky_job is None and failed & set(job.after):
            job.status, job.reason = "CANCELLED", "a job it needs failed"
    _note_end(found)
    launches.save(found)


def cancel(sky: SkyPilot, launches: Launches, found: Launch) -> None:
    """End every job; results that are in the store or here stay."""
    for job in found.jobs:
        if job.asked and not job.over:
            if job.kind == "managed":
                job.sky_job = job.sky_job or find(sky, found, job).job
                if job.sky_job is not None:
                    sky.ask("jobs_cancel", job=job.sky_job)
            else:
                sky.ask("down", cluster=job_name(found, job))
    for job in found.jobs:
        if not job.over:
            job.status = "CANCELLED"
    found.stopped_at = found.stopped_at or now()
    found.ended_at = found.ended_at or now()
    launches.save(found)


def word_of(status: str | None) -> str:
    """SkyPilot's status, its kinds of failure as FAILED and an absent job as GONE."""
    if status is None:
        return "GONE"
    return "FAILED" if status.startswith("FAILED") else status
