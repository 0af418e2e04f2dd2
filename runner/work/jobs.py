"""What workers are given: data and job files, plugins, and an environment."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from nsd.plugins.api import Device, Plugin, SideFile
from nsd.plugins.durable import write_atomically
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.registry import code, find
from nsd.plugins.side_files import BrokenSideFile
from nsd.runner.plan.jobs import PluginJob, StageJob, ToSample
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.store import provenance, tables
from nsd.runner.store.shapes import Broken
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.cores import openmp_settings
from nsd.runner.work.ray_machines import Over

PARENT_VARIABLE = "NSD_PARENT_PID"


def write_data(plan: Plan, workspace: Workspace) -> None:
    """Write the questions of every split, for the workers to read."""
    for content_hash, questions in plan.data.items():
        path = workspace.data_file(content_hash)
        if not tables.looks_whole(path):
            if path.is_dir():
                workspace.set_aside(path, Broken(path, "it is no file"), "it is written again")
            tables.write_questions(path, questions)


def write_side_files(
    plan: Plan, stages: Iterable[Stage], workspace: Workspace, fetch: Callable[[SideFile], bool] = lambda side: False
) -> None:
    """Copy what the questions of these stages carry in side files, for the workers to read.

    Raises InputError where a file is no longer what the plan found there and `fetch` cannot bring it from elsewhere.
    A stage that draws completions needs none.
    """
    jobs = [stage.job for stage in stages if stage.job is not None and stage.kind != "sample"]
    hashes = {content_hash for job in jobs for content_hash in job.data}
    questions = (question for content_hash in sorted(hashes) for question in plan.data[content_hash])
    for side in {side.sha256: side for question in questions for side in question.side_files.values()}.values():
        if workspace.has_side_file(side):
            continue
        try:
            workspace.keep_side_file(side)
        except BrokenSideFile as broken:
            if not fetch(side):
                raise InputError(
                    f"{side.path} has changed since this run was planned ({broken.reason}); run the spec again"
                ) from None


@dataclass(frozen=True)
class Asker:
    """A stage that asks a served model."""

    kind: str
    digest: str


@dataclass(frozen=True)
class Job:
    """A stage as its worker meets it: what there is to do, and what the manifest says of it besides.

    `key` is what the digest was made of, `settings` the same with every default written out.
    """

    kind: str
    digest: str
    work: StageJob
    key: dict[str, Any]
    settings: dict[str, Any]
    inputs: dict[str, str]  # role -> digest of the stage it comes from
    used_by: tuple[str, ...]  # "condition/seedN"
    experiment: str
    workspace: str
    device: Device | None
    git_commit: str | None
    over: Over | None = None  # how the stage uses Ray
    askers: tuple[Asker, ...] = ()  # the other stages of the plan that ask by the same block of a served engine

    def to_json(self) -> dict[str, Any]:
        """The fields, JSON-able; `from_json` reads them."""
        found: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Job:
        """What `to_json` wrote."""
        return _adapter().validate_python(found)


@functools.cache
def _adapter() -> TypeAdapter[Job]:
    return TypeAdapter(Job)


def job_of(
    plan: Plan, stage: Stage, workspace: Workspace, device: Device | None = None, over: Over | None = None
) -> Job:
    """The job of a stage in this workspace."""
    assert stage.job is not None  # no stage is owed whose plan is not known
    return Job(
        kind=stage.kind,
        digest=stage.digest,
        work=stage.job,
        key=stage.key,
        settings=stage.settings,
        inputs=stage.inputs,
        used_by=tuple(stage.used_by),
        experiment=plan.name,
        workspace=str(workspace.root),
        device=device,
        git_commit=provenance.git_state()["commit"],
        over=over,
        askers=tuple(_askers(plan, stage)),
    )


def asked_engine(stage: Stage) -> PluginJob | None:
    """The engine by which a stage asks a served model, None where it asks none."""
    return stage.job.engine if isinstance(stage.job, ToSample) and stage.job.served else None


def _askers(plan: Plan, stage: Stage) -> Iterator[Asker]:
    if (block := asked_engine(stage)) is not None:
        for other in plan.stages.values():
            if other.digest != stage.digest and asked_engine(other) == block:
                yield Asker(other.kind, other.digest)


def write_job(
    plan: Plan, stage: Stage, workspace: Workspace, device: Device | None = None, over: Over | None = None
) -> Path:
    """Write what the worker reads. The path of an earlier attempt is reused with the same content."""
    path = workspace.partial(stage.kind, stage.digest) / "job.json"
    write_atomically(path, json.dumps(job_of(plan, stage, workspace, device, over).to_json(), indent=1))
    return path


Made = TypeVar("Made", bound=Plugin)


def make_plugin(block: PluginJob, base: type[Made]) -> Made:
    """The plugin of a job, of this kind, with its config validated again.

    Raises StageFailed where a third party's code is no longer what the stage was planned with.
    """
    for planned in block.code:
        if code(planned.kind, planned.use) != planned.code:
            raise StageFailed(f"the {planned.kind} {planned.use} has changed since this run began; run the spec again")
    cls = find(block.kind, block.use)
    made = cls(cls.Config.model_validate(block.config))
    assert isinstance(made, base)  # the plan took it for this kind
    return made


def worker_environment(alone: bool = False, gpus: Sequence[str] | None = None) -> dict[str, str]:
    """What a worker process is started with; `alone` says that no other process shares its stage.

    `gpus` names those that it may see, as CUDA_VISIBLE_DEVICES does: with more than one, torch would spread a training
    over them by itself. None leaves them as they are.
    """
    environment = {
        **os.environ,
        **openmp_settings(os.environ, alone),
        PARENT_VARIABLE: str(os.getpid()),
        "TOKENIZERS_PARALLELISM": "false",
        # `python -m` puts the current folder in front of everything else that can be imported; what lies there is a
        # stranger's. Said in the environment, for accelerate starts further processes by itself.
        "PYTHONSAFEPATH": "1",
    }
    if gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        # Memory in segments that grow: completions of growing length would leave holes of every size.
        environment.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    has_gpu = bool(gpus) if gpus is not None else _has_gpu()
    return environment if has_gpu else {**environment, "ACCELERATE_USE_CPU": "true"}


def _has_gpu() -> bool:
    # Asking torch would load it; the driver's device files tell as well.
    return Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists()
