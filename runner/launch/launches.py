"""The record of launches: a folder each under the workspace, so that any later command can go on with one.

    launches/ID/launch.json    what was launched, where, at which price, and what became of it
    launches/ID/*.yaml         the exact tasks; `sky launch` on one of them does the same run
    launches/ID/files          what went to the machine: the spec, the files that it names, and nsd itself;
                               `nsd gc` deletes it once the launch is over

No secret is ever in any of them. Limits: one writer at a time is assumed for one launch.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from nsd.plugins.durable import write_atomically
from nsd.plugins.errors import InputError, MissingExtra
from nsd.runner.launch.unplanned import learn_from, unplanned
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.shapes import Broken, read_object
from nsd.runner.store.workspace import Workspace, now

STARTING = "STARTING"
OVER = ("SUCCEEDED", "FAILED", "CANCELLED", "GONE")


@dataclass(frozen=True)
class Options:
    """Flags of `nsd launch`, None where the spec decides."""

    infra: str | None = None
    gpus: str | None = None
    spot: bool | None = None
    max_usd: float | None = None
    max_hours: float | None = None
    store: str | None = None
    environment: str | None = None
    managed: bool | None = None
    parallel: int = 1
    detach: bool = False
    yes: bool = False
    only: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    smoke: bool = False
    send: tuple[str, ...] = ()
    weights: bool = False
    dry_run: bool = False

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Flags that another version had are left out."""
        known = {one.name for one in fields(cls)}
        given: dict[str, Any] = {name: value for name, value in found.items() if name in known}
        given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        return cls(**given)


@dataclass
class Job:
    """One job: on a cluster of its own, or managed by SkyPilot. `stages` [] means the whole spec."""

    name: str
    kind: str  # cluster or managed
    task_file: str
    stages: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)  # names of jobs that must have succeeded
    sky_job: int | None = None
    status: str = "WAITING"
    recoveries: int = 0
    reason: str | None = None
    setup_failed: bool = False  # its machine could not be made ready, so nothing ran

    @property
    def asked(self) -> bool:
        """Whether SkyPilot was asked for it; `sky_job` is known a while later."""
        return self.sky_job is not None or self.status == STARTING

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in OVER


@dataclass
class Launch:
    """A launch and its jobs. `usd_per_hour` is of one machine, None where SkyPilot knows no price."""

    identity: str
    spec: str
    experiment: str
    spec_digest: str
    options: Options
    store: str | None
    place: str
    usd_per_hour: float | None
    max_usd: float | None
    deadline: float | None
    started_at: str
    jobs: list[Job]
    stopped_at: str | None = None  # when the last job was seen to be over
    ended_at: str | None = None  # when its results had been taken home, or given up

    @property
    def hours(self) -> float:
        """Since it began, or as long as it took."""
        stopped = self.stopped_at or self.ended_at
        end = datetime.fromisoformat(stopped) if stopped else datetime.now(UTC)
        return (end - datetime.fromisoformat(self.started_at)).total_seconds() / 3600

    @property
    def usd(self) -> float | None:
        """Upper bound of what it has cost: every started job's machine for the whole time."""
        if self.usd_per_hour is None:
            return None
        return self.usd_per_hour * self.hours * sum(job.asked for job in self.jobs)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Raises TypeError, KeyError or ValueError for what is no launch."""
        options = Options.from_json(found["options"])
        launch = cls(**{**found, "options": options, "jobs": [Job(**job) for job in found["jobs"]]})
        datetime.fromisoformat(launch.started_at)
        return launch

    def to_json(self) -> dict[str, Any]:
        """Plain data under the names of the fields."""
        return asdict(self)


class Launches:
    """The launches of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.folder = workspace.root / "launches"

    def create(self, experiment: str, **facts: Any) -> Launch:
        """A new launch with a folder of its own."""
        stamp = datetime.now(UTC).strftime("%m%d-%H%M%S")
        names = itertools.chain([f"{experiment}-{stamp}"], (f"{experiment}-{stamp}-{i}" for i in itertools.count(2)))
        identity = next(name for name in names if not (self.folder / name).exists())  # two in one second
        launch = Launch(identity=identity, experiment=experiment, started_at=now(), **facts)
        self.path(launch).mkdir(parents=True)
        return launch

    def path(self, launch: Launch) -> Path:
        """Its folder."""
        return self.folder / launch.identity

    def sent(self, launch: Launch) -> Path:
        """The copies of what goes to its machines."""
        return self.path(launch) / "files"

    def save(self, launch: Launch) -> None:
        """Write it down."""
        write_atomically(self.path(launch) / "launch.json", json.dumps(launch.to_json(), indent=1))

    def all(self) -> list[Launch]:
        """Oldest first."""
        found = [self._read(path) for path in self.folder.glob("*/launch.json")] if self.folder.is_dir() else []
        return sorted((one for one in found if one is not None), key=lambda launch: launch.started_at)

    def find(self, identity: str | None) -> Launch:
        """The launch of this name (or its beginning), or the last one. Raises InputError where there is none."""
        launches = self.all()
        if not launches:
            raise InputError("nothing was launched from this workspace; nsd launch SPEC does")
        if identity is None:
            return launches[-1]
        matching = [launch for launch in launches if launch.identity.startswith(identity)]
        exact = [launch for launch in matching if launch.identity == identity]
        if len(exact or matching) != 1:
            names = ", ".join(launch.identity for launch in (matching or launches)[-5:])
            raise InputError(f"{len(matching)} launches are named {identity}*: there are {names}")
        return (exact or matching)[0]

    @staticmethod
    def _read(path: Path) -> Launch | None:
        """A launch, None where its file cannot be used: that is said, and the file stays, for a machine may be up."""
        try:
            launch = Launch.from_json(read_object(path))
            if launch.identity != path.parent.name:
                raise Broken(path, f"it is of {launch.identity}")
        except (Broken, TypeError, KeyError, ValueError, AttributeError) as error:
            said = str(error) if isinstance(error, Broken) else f"{path} is broken: {error}"
            print(f"nsd: {said}; `sky status` knows whether its machines are still up", file=sys.stderr)
            return None
        return launch


def unneeded_copies(workspace: Workspace) -> list[tuple[Path, str]]:
    """What was sent with launches that are over, with words for it: no machine will ask for it again."""
    launches = Launches(workspace)
    over = [one for one in launches.all() if one.ended_at is not None and launches.sent(one).is_dir()]
    return [(launches.sent(one), f"what was sent with launch {one.identity}") for one in over]


def job_name(found: Launch, job: Job) -> str:
    """Name of a job, of its cluster, and of the word it leaves."""
    tail = "" if job.name == "all" else f"-{job.name}"
    return re.sub(r"[^a-z0-9-]+", "-", f"nsd-{found.identity}{tail}".lower()).strip("-")


def plan_of(spec: Path, options: Options) -> Plan:
    """The plan of a launch, now or later: the same options give the same stages."""
    experiment = load_spec(spec, run_files=True)
    try:
        return build_plan(experiment, options.only, options.seeds, options.smoke, pin=True)
    except MissingExtra as error:
        return unplanned(experiment, options.smoke, f"the data cannot be read here, so the machine plans: {error}")


def plan_as_launched(workspace: Workspace, found: Launch) -> Plan:
    """The plan of an earlier launch; where its spec has changed since, what was recorded of it."""
    plan = plan_of(Path(found.spec), found.options)
    if plan.spec_digest == found.spec_digest:
        return plan
    changed = unplanned(plan.experiment, False, f"{found.spec} has changed since the launch")
    changed.name, changed.spec_digest = found.experiment, found.spec_digest
    learn_from(changed, workspace)
    return changed
