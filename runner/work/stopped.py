"""Stages that were begun, and that the plan at hand may no longer hold: what they drew and what they spent counts.

A run that stopped, and whose spec then asks for another number of samples, leaves a stage that nobody finishes. Its
samples are of the same streams, and its dollars were spent under the same limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsd.plugins.api import Completion
from nsd.plugins.errors import InputError
from nsd.plugins.registry import find
from nsd.runner.plan.jobs import PluginJob, ToDiscover, ToSample
from nsd.runner.spec.digest import digest_config
from nsd.runner.store import tables
from nsd.runner.store.shapes import Broken, read_object
from nsd.runner.store.workspace import Workspace, canonical_json
from nsd.runner.work.jobs import Asker, Job


@dataclass(frozen=True)
class Begun:
    """A stage that was begun and is not finished: its job and its folder."""

    job: Job
    folder: Path

    def completions(self) -> Iterator[Completion]:
        """What it has drawn, shard by shard; a shard that is broken, or goes as the stage is finished, is left out."""
        for path in sorted((self.folder / "shards").glob("*.parquet")):
            try:
                yield from tables.read_completions(path)
            except (Broken, OSError):
                continue


def begun(workspace: Workspace) -> Iterator[Begun]:
    """Every such stage whose job can be read, by the name of its folder."""
    for path in sorted(workspace.partials.glob("*/job.json")):
        try:
            job = Job.from_json(read_object(path))
        except (Broken, OSError, ValueError, TypeError):
            continue
        if path.parent == workspace.partial(job.kind, job.digest):
            yield Begun(job, path.parent)


def other_askers(job: Job, workspace: Workspace) -> list[Asker]:
    """Stages of the experiment that began to ask by this job's block, whatever its limits, and are not in its plan."""
    mine, known = _block(job), {job.digest, *(one.digest for one in job.askers)}
    if mine is None:
        return []
    stages = (one.job for one in begun(workspace))
    return [
        Asker(one.kind, one.digest)
        for one in stages
        if one.experiment == job.experiment and one.digest not in known and _block(one) == mine
    ]


def _block(job: Job) -> str | None:
    """The engine of a job that asks a served model, without what changes no text; None where it asks none."""
    block = job.work.engine if isinstance(job.work, ToSample | ToDiscover) else None
    return None if block is None else _without_limits(block)


def _without_limits(block: PluginJob) -> str | None:
    try:
        cls = find(block.kind, block.use)
        if not getattr(cls, "served", False):
            return None
        said: Mapping[str, Any] = digest_config(cls.Config.model_validate(block.config), complete=True)
    except (InputError, ValueError):
        return None
    return canonical_json({"use": block.use, **said})
