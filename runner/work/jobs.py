"""What workers are given: data and job files, plugins, and an environment."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nsd.plugins.api import Device, Plugin, SideFile
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.registry import code, find
from nsd.plugins.side_files import BrokenSideFile
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.store import provenance, tables
from nsd.runner.store.workspace import Workspace, write_atomically
from nsd.runner.work.cores import openmp_settings

PARENT_VARIABLE = "NSD_PARENT_PID"


def write_data(plan: Plan, workspace: Workspace) -> None:
    """Write the questions of every split, for the workers to read."""
    for content_hash, questions in plan.data.items():
        path = workspace.data_file(content_hash)
        if not tables.looks_whole(path):
            tables.write_questions(path, questions)


def write_side_files(
    plan: Plan, stages: Iterable[Stage], workspace: Workspace, fetch: Callable[[SideFile], bool] = lambda side: False
) -> None:
    """Copy what the questions of these stages carry in side files, for the workers to read.

    Raises InputError where a file is no longer what the plan found there and `fetch` cannot bring it from elsewhere.
    A stage that draws completions needs none.
    """
    hashes = {content_hash for stage in stages if stage.kind != "sample" for content_hash in _data_of(stage)}
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


def _data_of(stage: Stage) -> Iterator[str]:
    """Content hashes of the questions that a stage reads."""
    if "questions" in stage.job:
        yield stage.job["questions"]
    for source in stage.job.get("train_on", ()):
        yield source["data"]


def write_job(plan: Plan, stage: Stage, workspace: Workspace, device: Device | None = None) -> Path:
    """Write what the worker reads. The path of an earlier attempt is reused with the same content."""
    job = {
        **stage.job,
        "kind": stage.kind,
        "digest": stage.digest,
        "key": stage.key,
        "settings": stage.settings,
        "inputs": stage.inputs,
        "used_by": stage.used_by,
        "experiment": plan.name,
        "workspace": str(workspace.root),
        "device": asdict(device) if device is not None else None,
        "git_commit": provenance.git_state()["commit"],
    }
    path = workspace.partial(stage.kind, stage.digest) / "job.json"
    write_atomically(path, json.dumps(job, indent=1))
    return path


def make_plugin(block: Mapping[str, Any]) -> Plugin:
    """The plugin of a job's block, with its config validated again.

    Raises StageFailed where a third party's code is no longer what the stage was planned with.
    """
    for planned in block.get("code", ()):
        now = code(planned["kind"], planned["use"])
        if now is None or now.to_json() != planned["code"]:
            raise StageFailed(
                f"the {planned['kind']} {planned['use']} has changed since this run began; run the spec again"
            )
    cls = find(block["kind"], block["use"])
    return cls(cls.Config.model_validate(block["config"]))


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
