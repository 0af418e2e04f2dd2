"""Launches as they are written down, and what SkyPilot says of their jobs."""

from __future__ import annotations

from typing import Any

from nsd.runner.launch.launches import Job, Launch, Options
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from sky_stand_in import World


def launch_of(world: World, *jobs: Job, **changes: Any) -> Launch:
    """A launch with these jobs, written down; their task files are there."""
    facts: dict[str, Any] = {
        "spec": str(world.folder / "spec.yaml"),
        "spec_digest": "d",
        "options": Options(),
        "store": world.store,
        "place": "here",
        "usd_per_hour": 2.0,
        "max_usd": None,
        "deadline": None,
        "jobs": list(jobs),
    }
    world.workspace.create()
    found = world.launches.create("tiny", **(facts | changes))
    for job in jobs:
        (world.launches.path(found) / job.task_file).write_text("{name: t, resources: {}}")
    world.launches.save(found)
    return found


def managed(name: str = "all", number: int | None = None, after: tuple[str, ...] = (), **more: Any) -> Job:
    return Job(name, "managed", f"{name}.yaml", after=list(after), sky_job=number, **more)


def cluster(number: int | None = None, **more: Any) -> Job:
    return Job("all", "cluster", "sky.yaml", sky_job=number, **more)


def row(number: int, status: str, **more: Any) -> dict[str, Any]:
    return {"job_id": number, "status": status, **more}


def plan_of(world: World) -> Plan:
    return build_plan(load_spec(world.folder / "spec.yaml"), pin=True)
