"""How long the pending stages of a plan will take on an accelerator: from earlier runs, else from a stated model.

    found = Estimator(plan, workspace).on("L4:1")
    found.hours, found.sentence()

Earlier runs count where they did the same kind of work (plugin and base model) on the same kind of GPU; their
seconds per token are taken as they were. Without such runs a throughput model is used and named: training at
TRAIN_SHARE of the GPU's dense bf16 rate (6 FLOPs per parameter and token, Kaplan et al. 2020), generation bound by
reading the weights at MEMORY_SHARE of the memory bandwidth and by STEP_SECONDS per decoding step, BATCH rows at a
time. It is good to a factor of two or three, which is what a budget needs before a first run.

Limits: the makers' data sheets are the source of the rates; counts of tokens assume TOKEN_SHARE of each limit.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nsd.plugins.api import Trainer
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.plan.relatives import there_already
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace, canonical_json
from nsd.runner.work.jobs import make_plugin

# Dense bf16 (fp16 where there is no bf16) TFLOPS and memory bandwidth in GB/s, of the makers' data sheets.
GPUS = {
    "T4": (65.0, 320.0),
    "V100": (125.0, 900.0),
    "L4": (121.0, 300.0),
    "A10G": (70.0, 600.0),
    "A10": (125.0, 600.0),
    "L40S": (362.0, 864.0),
    "A100": (312.0, 1555.0),
    "A100-80GB": (312.0, 2039.0),
    "H100": (989.0, 3350.0),
    "H200": (989.0, 4800.0),
    "B200": (2250.0, 8000.0),
}
CPU = (0.1, 20.0)  # a few cores in fp32
TRAIN_SHARE, MEMORY_SHARE, STEP_SECONDS, BATCH = 0.25, 0.35, 0.025, 64
TOKEN_SHARE = 0.6  # of max_tokens that a completion fills
TRAINING_TOKENS = 300  # of a training text
UNKNOWN_PARAMETERS = 1e9
OVERHEAD_HOURS = 0.15  # provisioning and setup of a fresh machine


@dataclass(frozen=True)
class Work:
    """Tokens that a stage reads for training and writes by generation."""

    trained: float
    generated: float


@dataclass(frozen=True)
class StageEstimate:
    """Seconds of one stage and where the figure comes from."""

    title: str
    digest: str
    seconds: float
    source: str


@dataclass(frozen=True)
class Estimate:
    """Pending stages with their times on `accelerator` ("CPU" where none is asked for)."""

    accelerator: str
    stages: list[StageEstimate]

    @property
    def hours(self) -> float:
        """One machine for all stages, with the time to get it ready; 0 where nothing is pending."""
        return sum(stage.seconds for stage in self.stages) / 3600 + OVERHEAD_HOURS if self.stages else 0.0

    def sentence(self) -> str:
        """The estimate with its sources."""
        if not self.stages:
            return "every stage is finished: nothing to launch"
        measured = sum("earlier" in stage.source for stage in self.stages)
        how = (
            "from earlier runs"
            if measured == len(self.stages)
            else f"{measured} of {len(self.stages)} stages from earlier runs, the others from a throughput model"
            if measured
            else "from a throughput model, good to a factor of two or three"
        )
        return f"about {self.hours:.1f} h on {self.accelerator} for {len(self.stages)} stages ({how})"


class Estimator:
    """Estimates of a plan's stages (by default the pending ones) on any accelerator; the workspace is read once."""

    def __init__(self, plan: Plan, workspace: Workspace, pending: Iterable[Stage] | None = None) -> None:
        pending = plan.pending(workspace) if pending is None else pending
        self._manifests = list(workspace.manifests())
        self._work = [(stage, self._left(stage, work_of(stage, plan))) for stage in pending]
        self._keys = {manifest.digest: manifest.made_of for manifest in self._manifests}
        self._keys |= {stage.digest: stage.settings for stage in plan.stages.values()}

    def _left(self, stage: Stage, work: Work) -> Work:
        """Without the samples that can be taken from other stages."""
        if stage.kind != "sample":
            return work
        left = 1 - there_already(stage.settings, self._manifests) / stage.job["sampling"]["n"]
        return Work(work.trained, work.generated * left)

    def on(self, accelerator: str | None) -> Estimate:
        """Estimate for an accelerator such as "L4:1", None for a machine without one."""
        name, count = split_accelerator(accelerator)
        rates = _Rates(self._manifests, name, self._keys)
        found = [
            StageEstimate(stage.title, stage.digest, *rates.seconds(stage, work, count)) for stage, work in self._work
        ]
        return Estimate(accelerator or "CPU", found)


def split_accelerator(accelerator: str | None) -> tuple[str | None, int]:
    """("L4", 2) of "L4:2"."""
    if accelerator is None:
        return None, 1
    name, _, count = accelerator.partition(":")
    return name, max(1, int(float(count))) if count else 1


def work_of(stage: Stage, plan: Plan) -> Work:
    """Tokens of a stage; what a trainer does is read from its config's usual fields."""
    job = stage.job
    if stage.kind == "sample":
        sampling = job["sampling"]
        return Work(0.0, len(plan.data[job["questions"]]) * sampling["n"] * sampling["max_tokens"] * TOKEN_SHARE)
    if stage.kind in ("label", "score"):
        return Work(0.0, 0.0)
    trainer = make_plugin(job["trainer"])
    assert isinstance(trainer, Trainer)
    examples = 0
    for source in job["train_on"]:
        if source["source"] == "pseudo":
            label = plan.stages[source["labels"]]
            examples += len(plan.data[label.job["questions"]])
        else:
            examples += len(plan.data[source["data"]])
    config = trainer.config
    steps = job.get("max_steps_cap") or trainer.planned_steps(examples) or 0
    rollouts = getattr(config, "num_generations", 0) * getattr(config, "prompts_per_step", 1) * steps
    if rollouts:
        tokens = rollouts * getattr(config, "max_tokens", 256) * TOKEN_SHARE
        return Work(tokens, tokens)
    return Work(getattr(config, "epochs", 1) * examples * TRAINING_TOKENS, 0.0)


class _Rates:
    """Seconds per token on one kind of GPU, of earlier runs where there are some."""

    def __init__(self, manifests: Iterable[Manifest], gpu: str | None, keys: Keys) -> None:
        self.gpu = gpu
        self.keys = keys
        self._seen: dict[tuple[str, str, str], list[float]] = {}
        for manifest in manifests:
            gpus = manifest.machine.gpus
            there = bool(gpus) and gpu is not None and _same_gpu(gpu, gpus[0])
            if there or (gpu is None and not gpus):
                try:
                    tokens, kind = _tokens_of(manifest), _kind_of(manifest.made_of, self.keys)
                except (LookupError, TypeError, ValueError, AttributeError):  # of another version, or of no use
                    continue
                if tokens and manifest.seconds:
                    self._seen.setdefault(kind, []).append(manifest.seconds / tokens)

    def seconds(self, stage: Stage, work: Work, gpus: int) -> tuple[float, str]:
        tokens = work.trained or work.generated
        if not tokens:
            return 1.0, "votes and verdicts over stored samples"
        earlier = self._seen.get(_kind_of(stage.settings, self.keys))
        if earlier:
            return statistics.median(earlier) * tokens, f"{len(earlier)} earlier stages of the kind"
        parameters = parameters_of(str(stage.job["model"]["path"]) if stage.job.get("model") else "")
        flops, bandwidth = GPUS.get(self.gpu, GPUS["L4"]) if self.gpu else CPU
        training = 6 * parameters * work.trained / (flops * 1e12 * TRAIN_SHARE) / gpus
        step = max(STEP_SECONDS, 2 * parameters / (bandwidth * 1e9 * MEMORY_SHARE))
        return training + work.generated / BATCH * step, "throughput model"


def _tokens_of(manifest: Manifest) -> float | None:
    """Tokens as `work_of` would have counted them, so that rates and counts agree."""
    if manifest.generation is not None and manifest.generation.completions is not None:
        return float(manifest.generation.completions * manifest.made_of["sampling"]["max_tokens"] * TOKEN_SHARE)
    if manifest.training is None:
        return None
    training = manifest.training.to_json()
    config = manifest.made_of["trainer"]["config"]
    rollouts = config.get("num_generations", 0) * config.get("prompts_per_step", 1) * training.get("steps", 0)
    if rollouts:
        return float(rollouts * config.get("max_tokens", 256) * TOKEN_SHARE)
    return float(config.get("epochs", 1) * sum(training["examples"].values()) * TRAINING_TOKENS)


Keys = Mapping[str, dict[str, Any]]  # settings of stages, by digest


def _kind_of(key: dict[str, Any], keys: Keys) -> tuple[str, str, str]:
    """What makes two stages the same kind of work: kind, plugin, and the base model at the root of both."""
    plugin = key.get("trainer") or key.get("engine") or key.get("labeler") or {}
    kind = "sample" if key["kind"] == "eval" else key["kind"]  # one stage drew and scored, once: it took its drawing
    return kind, str(plugin.get("use")), _base_of(key, keys)


def _base_of(key: dict[str, Any], keys: Keys) -> str:
    model = key.get("start") or key.get("model") or {}
    while (digest := model.get("train")) is not None:
        if digest not in keys:
            return "unknown"
        model = keys[digest].get("start") or {}
    return canonical_json(model.get("base"))


def _same_gpu(wanted: str, name: str) -> bool:
    flat = re.sub(r"[^A-Z0-9]", "", name.upper())
    return re.sub(r"[^A-Z0-9]", "", wanted.upper().removesuffix("-80GB")) in flat


def parameters_of(model: str) -> float:
    """Parameters by the size in a model's name (0.5B, 7b, 1m), else UNKNOWN_PARAMETERS."""
    sizes = re.findall(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([bBmM])(?![A-Za-z0-9])", model)
    if not sizes:
        return UNKNOWN_PARAMETERS
    number, unit = sizes[-1]
    return float(number) * (1e9 if unit in "bB" else 1e6)
