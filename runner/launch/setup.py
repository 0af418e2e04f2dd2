"""A machine that could not be made ready: which line of all that its setup printed says why.

note_setup(sky, launches, found, job)      # job.reason is that line; nsd launch logs has the rest
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

from nsd.plugins.errors import NsdError
from nsd.runner.launch.bridge import SkyPilot, plain, without_colours
from nsd.runner.launch.launches import Job, Launch, Launches, job_name

SENTENCE = "nsd: the setup failed: "  # sky.yaml's setup says it last
_PREFIX = re.compile(r"^\([^)]*pid=\d+[^)]*\) ?")
_FOLLOWS = re.compile(r"srun: |slurmstepd|✓ Job finished|ERROR: Job \d+'s setup failed|[├└]── ")  # of any failure
_TELLING = re.compile(r"error|fatal|not found|no such|denied|killed", re.IGNORECASE)


def clean(line: str) -> str:
    """A line of a job as the job printed it."""
    return _PREFIX.sub("", without_colours(line)).rstrip()


def note_setup(sky: SkyPilot, launches: Launches, found: Launch, job: Job) -> None:
    """Write down why the setup of a job's machine failed, and keep what it printed, for the machine goes."""
    printed = launches.path(found) / f"{job.name}.log"
    if not printed.is_file():
        lines: list[str] = []
        request = {"cluster": job_name(found, job)} if job.kind == "cluster" else {}
        with contextlib.suppress(NsdError):  # the machine may be gone; its status is known all the same
            action = "follow" if job.kind == "cluster" else "jobs_follow"
            sky.ask(action, on_line=lambda line: lines.append(clean(line)), job=job.sky_job, **request)
        printed.write_text("".join(f"{line}\n" for line in lines if line), encoding="utf-8")
    job.reason = reason_in(printed.read_text(encoding="utf-8").splitlines()) or job.reason or "it ended without a word"
    launches.save(found)


def reason_in(lines: Sequence[str]) -> str | None:
    """The line that matters: what nsd's own setup said, else the last that tells of an error, else the last."""
    lines = [line for line in lines if not _FOLLOWS.match(line)]
    said = [line.partition(SENTENCE)[2] for line in lines if SENTENCE in line]
    telling = [line for line in lines if _TELLING.search(line)]
    found = said or telling or [line for line in lines if line.strip()]
    return plain(found[-1]) if found else None


def the_machine(found: Launch, job: Job) -> str:
    """How a person knows the machine of a job."""
    return "the machine" if len(found.jobs) == 1 else f"the machine of job {job.name}"
