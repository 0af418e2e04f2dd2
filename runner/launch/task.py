"""From a spec's `resources` to the SkyPilot task that runs it: sky.yaml with its blanks filled in.

    task = task_for(wanted, "nsd-x", spec="specs/quickstart.yaml", workdir=folder / "files", envs={...})
    write(task, folder / "sky.yaml")       # `sky launch` on that file alone does the same run

Secrets are named in a task, their values are not: they are read from the environment when it is launched.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from nsd.plugins.durable import write_atomically
from nsd.plugins.errors import InputError
from nsd.runner.spec.model import Resources
from nsd.runner.work.device import split_accelerator

SECRETS = ("HF_TOKEN", "WANDB_API_KEY")
TEMPLATE = Path(__file__).with_name("sky.yaml")
LEAST_BESIDE_A_GPU = 16  # GB: what SkyPilot takes by itself on Kubernetes
NO_SPOT = ("slurm", "kubernetes", "k8s", "ssh")


@dataclass(frozen=True)
class Wanted:
    """The spec's resources with the command line's changes."""

    resources: Resources
    managed: bool = False
    usd_per_hour: float | None = None  # no machine that costs more
    beside: str = ""  # what its setup makes beside nsd ("vllm")
    main_memory: int = 0  # GB that loading its models takes; the spec's own `memory` counts instead

    @classmethod
    def of(cls, resources: Resources, **changes: Any) -> Wanted:
        """`changes` are fields of Resources, None for "as the spec says"; `managed` beside them."""
        managed = bool(changes.pop("managed", False))
        given = {name: value for name, value in changes.items() if value is not None}
        return cls(resources.model_copy(update=given), managed)

    @property
    def accelerators(self) -> list[str]:
        """Acceptable ones, [] for none."""
        found = self.resources.accelerators
        return [] if found is None else [found] if isinstance(found, str) else list(found)

    @property
    def gpus(self) -> int:
        """The most GPUs that a machine of an acceptable kind has."""
        return max((split_accelerator(one)[1] for one in self.accelerators), default=1)

    @property
    def can_be_spot(self) -> bool:
        """Whether the place has such machines at all."""
        return not (self.resources.infra or "").startswith(NO_SPOT)

    def with_accelerator(self, accelerator: str) -> Wanted:
        """The same with one accelerator."""
        return replace(self, resources=self.resources.model_copy(update={"accelerators": accelerator}))


def task_for(wanted: Wanted, name: str, spec: str, workdir: Path, envs: Mapping[str, str]) -> dict[str, Any]:
    """The task as SkyPilot reads it. Raises InputError for environment variables the template does not know."""
    task: dict[str, Any] = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    unknown = set(envs) - set(task["envs"])
    if unknown:
        raise InputError(f"sky.yaml has no variable {', '.join(sorted(unknown))}")
    task["name"] = name
    task["workdir"] = str(workdir)
    task["envs"] = {**task["envs"], **envs, "SPEC": spec}
    task["resources"] = resources_of(wanted)
    if wanted.resources.nodes > 1:
        task["num_nodes"] = wanted.resources.nodes
    return task


def resources_of(wanted: Wanted) -> dict[str, Any]:
    """`resources:` of the task."""
    asked = wanted.resources
    found: dict[str, Any] = {}
    accelerators = wanted.accelerators
    if accelerators:
        # As a mapping SkyPilot takes the cheapest of them; as a list it would try them in order.
        pairs = [one.partition(":") for one in accelerators]
        counts = {gpu: _count(count) for gpu, _, count in pairs}
        found["accelerators"] = counts if len(counts) > 1 else accelerators[0]
        # Less is nowhere given beside a GPU, and on Kubernetes asking for less would get less.
        if wanted.main_memory > LEAST_BESIDE_A_GPU:
            found["memory"] = f"{wanted.main_memory}+"
    else:
        found["cpus"], found["memory"] = "2+", f"{max(4, wanted.main_memory)}+"
    for field in ("cpus", "memory", "disk_size", "image_id"):
        if (value := getattr(asked, field)) is not None:
            found[field] = value
    if asked.use_spot and wanted.can_be_spot:
        found["use_spot"] = True
    if asked.infra is not None:
        found["infra"] = asked.infra
    if asked.regions:
        if asked.infra and "/" not in asked.infra:
            places = [{"infra": f"{asked.infra}/{region}"} for region in asked.regions]
        elif asked.infra:
            raise InputError(f"resources: infra {asked.infra!r} names a place already; leave out regions, or the place")
        else:
            places = [{"region": region} for region in asked.regions]
        found.pop("infra", None)
        found.update(places[0] if len(places) == 1 else {"any_of": places})
    if wanted.usd_per_hour is not None:
        found["max_hourly_cost"] = math.ceil(wanted.usd_per_hour * 100) / 100
    if wanted.managed:
        found["job_recovery"] = {"strategy": "FAILOVER"}
    return found


def _count(count: str) -> float | int:
    number = float(count) if count else 1.0
    return int(number) if number == int(number) else number


def secrets_here() -> dict[str, str]:
    """Secrets that the environment of this command has."""
    return {name: value for name in SECRETS if (value := os.environ.get(name))}


def write(task: Mapping[str, Any], path: Path) -> None:
    """Save a task for `sky launch`; multi-line scripts stay readable."""

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    named = [name for name, value in secrets_here().items() if value]
    flags = "".join(f" --secret {name}" for name in named)
    head = f"# Launch this file alone for the same run:  sky launch {path.name}{flags}\n"
    write_atomically(path, head + yaml.dump(dict(task), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120))
