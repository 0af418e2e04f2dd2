"""How long the pending stages of a plan take on an accelerator, and how much of its memory.

    found = Estimator(plan, workspace).on("L4:1")
    found.hours, found.sentence(), found.fitting()

A model first (docs/estimates.md has it with its sources), then what was measured: where finished stages did the same
kind of work (plugin and base model) on the same card, the median ratio of their seconds, and of their memory, to what
the model says of them multiplies its figures.

- A decoding step takes the longest of: Python and kernel launches, LAYER_SECONDS a layer, which no faster card helps;
  reading weights, cache and logits at MEMORY_SHARE of the card's bandwidth; 2 FLOPs per parameter and row at
  COMPUTE_SHARE of its rate.
- Rows fill TOKEN_SHARE of their limit on average, and the longest of any few fills it. Where one ends another takes its
  place, so a drawing takes its rows' tokens divided by the rows at once; only its last rows wait for their longest.
- Several GPUs draw a share of the completions each; a training shares its steps.
- An optimizer step takes the longer of 6 FLOPs per parameter and token (Kaplan et al. 2020; 4 with LoRA, 2 more for
  each further forward pass) at COMPUTE_SHARE, and the launches of its passes; then the optimizer's reading.

What is chosen, and not from a data sheet: LAYER_SECONDS, so that the two ranges known by hand for one L4 come out
(specs/gsm8k/v1_sft.yaml 35 to 50 minutes, v4_grpo.yaml 6.5 to 8 hours; transformers without compilation is known to
take about a millisecond a layer); COMPUTE_SHARE and MEMORY_SHARE, which are usual of eager PyTorch; START_SECONDS and
OVERHEAD_HOURS. Without measurements it is good to a factor of two or three.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nsd.plugins.model_shape import BYTES, ModelShape, shape_of
from nsd.runner.launch.cards import Card, card_key, card_of
from nsd.runner.launch.memory import GIB, advice, drawn_at_once, fits, memory_of, type_on, with_overhead
from nsd.runner.launch.workload import TOKEN_SHARE, Drawing, Training, Work, work_done, work_of
from nsd.runner.plan.jobs import ModelJob, ToDiscover, ToSample, ToTrain
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.plan.relatives import siblings, there_already
from nsd.runner.plan.saving import expected
from nsd.runner.store.workspace import Workspace, canonical_json
from nsd.runner.work.device import split_accelerator
from nsd.runner.work.drawing import drawers, is_shared

LAYER_SECONDS = 0.0012  # Python and launches of a layer's forward pass; a backward pass has twice as many
CPU_LAYER_SECONDS = 0.0003  # there is nothing to launch
COMPUTE_SHARE, MEMORY_SHARE = 0.25, 0.5  # of the data sheet's rates
LOGIT_PASSES = 20  # over a step's float32 logits, counted in hf_sampling.choose and confidence.token_confidence
REMOTE_TOKENS = 1000.0  # a second, of an engine that loads no weights here: a server, a replay
START_SECONDS = 20.0  # on a GPU: loading weights, preparing rows
OVERHEAD_HOURS = 0.15  # provisioning and setup of a fresh machine
STORED_SECONDS = 1.0  # votes and verdicts over stored samples
MAIN_BASE_GIB = 3.0  # Python, torch and its libraries, the questions


@dataclass(frozen=True)
class StageEstimate:
    """Seconds of one stage and where the figure comes from; None where the card is not known.

    `allocated` and `needed` are bytes of GPU memory (None: not known, or no GPU); `fields` are what makes it fit and
    `then` the bytes needed with them, where it does not fit and something does.
    """

    title: str
    digest: str
    seconds: float | None
    source: str
    allocated: float | None = None
    needed: float | None = None
    fits: bool = True
    fields: tuple[str, ...] = ()
    then: float | None = None

    @property
    def memory_gib(self) -> float | None:
        """What the card must have."""
        return None if self.needed is None else self.needed / GIB


@dataclass(frozen=True)
class Estimate:
    """Pending stages on `accelerator` ("CPU" where none is asked for); `card` is None where it is not in the table."""

    accelerator: str
    stages: list[StageEstimate]
    card: Card | None
    guessed: tuple[str, ...] = ()  # models whose sizes are known by their names alone

    @property
    def hours(self) -> float | None:
        """One machine for all stages, with the time to get it ready; 0 where nothing is pending, None for unknown."""
        seconds = [stage.seconds for stage in self.stages]
        if any(one is None for one in seconds):
            return None
        return sum(one or 0.0 for one in seconds) / 3600 + OVERHEAD_HOURS if seconds else 0.0

    @property
    def largest(self) -> StageEstimate | None:
        """The stage that takes most memory."""
        found = [stage for stage in self.stages if stage.needed is not None]
        return max(found, key=lambda stage: stage.needed or 0.0, default=None)

    @property
    def fit(self) -> bool | None:
        """Whether every stage fits in the card's memory; None where that is not known."""
        return None if self.largest is None else all(stage.fits for stage in self.stages)

    def sentence(self) -> str:
        """The estimate of time with its sources."""
        if not self.stages:
            return "every stage is finished: nothing to launch"
        hours = self.hours
        if hours is None:
            return (
                f"nothing is estimated for {self.accelerator}, which is not in the table of cards "
                "(docs/estimates.md) and has finished no such stage"
            )
        return f"about {hours:.1f} h on {self.accelerator} for {len(self.stages)} stages ({self.how})"

    @property
    def how(self) -> str:
        """Where the figures come from."""
        measured = sum("earlier" in stage.source for stage in self.stages)
        guessed = f"; of {', '.join(self.guessed)} the name alone is known, no config.json" if self.guessed else ""
        if measured == len(self.stages):
            return "from earlier runs"
        if measured:
            how = f"{measured} of {len(self.stages)} stages from earlier runs, the others from a throughput model"
            return how + guessed
        return f"from a throughput model, good to a factor of two or three{guessed}"

    def fitting(self) -> str | None:
        """Whether the stages fit in the card's memory, and what makes them fit; None where that is not known."""
        most = self.largest
        if most is None or self.card is None or not self.card.memory:
            return None
        there = f"{self.card.memory:.1f} GiB"
        need = f"{most.memory_gib or 0:.1f}"
        if self.fit:
            return f"fits: at most {need} of {there} ({most.title})"
        bad = [stage for stage in self.stages if not stage.fits]
        words = f"does not fit: {most.title} needs {need} of {there}"
        words += "" if len(bad) == 1 else f", {len(bad)} stages are too large"
        hopeless = next((stage for stage in bad if not stage.fields), None)
        if hopeless is not None:
            return f"{words}; no field makes {hopeless.title} fit: take a larger card or a smaller model"
        hardest: dict[str, StageEstimate] = {}  # of each kind of stage; what makes it fit does so for the others
        for stage in sorted(bad, key=lambda one: (len(one.fields), one.needed or 0.0)):
            hardest[stage.title.partition(" ")[0]] = stage
        for stage in hardest.values():
            words += f"; with {', '.join(stage.fields)} {stage.title} needs {(stage.then or 0) / GIB:.1f}"
        return words


MEASURED = 2000  # finished stages, the newest, that an estimate learns from


class Estimator:
    """Estimates of a plan's stages (by default the pending ones) on any accelerator; the workspace is read once."""

    def __init__(self, plan: Plan, workspace: Workspace, pending: Iterable[Stage] | None = None) -> None:
        pending = plan.pending(workspace) if pending is None else pending
        self._plan = plan
        self._workspace = workspace
        self._manifests = list(workspace.manifests(newest=MEASURED))
        self._names = workspace.stage_names()
        self._work = [(stage, self._left(stage, work_of(stage, plan))) for stage in pending]
        self._keys = {manifest.digest: manifest.made_of for manifest in self._manifests}
        self._keys |= {stage.digest: stage.settings for stage in plan.stages.values()}
        self._shapes: dict[tuple[str, str | None], ModelShape] = {}
        self._guessed: list[str] = []

    def _left(self, stage: Stage, work: Work | None) -> Work | None:
        """Without the samples that can be taken from other stages, or that no vote is expected to ask for."""
        if not isinstance(work, Drawing):
            return work
        alike = self._workspace.finished("sample", siblings(stage.key), self._names)
        left = 1 - there_already(stage.settings, alike) / stage.settings["sampling"]["n"]
        saving = expected(stage, self._manifests)
        return replace(work, rows=work.rows * min(left, 1.0 if saving is None else saving.share))

    def _model(self, stage: Stage) -> tuple[ModelShape | None, str]:
        """Shape and number type of a stage's model; (None, "") where its engine loads none."""
        job = stage.job
        if not isinstance(job, ToTrain | ToSample | ToDiscover) or job.model is None:
            return None, ""
        own = None if isinstance(job, ToSample) else job.train_dtype
        if not isinstance(job, ToTrain) and job.engine is not None:
            own = job.engine.config.get("dtype")  # a field of `hf`, which is for drawing alone
        return self._shape(job.model), own or job.model.dtype

    def _shape(self, model: ModelJob) -> ModelShape:
        key = model.path, model.revision
        if key not in self._shapes:
            self._shapes[key], source = shape_of(*key)
            if source == "name":
                self._guessed.append(key[0])
        return self._shapes[key]

    def main_memory_gib(self, gpus: int = 1) -> int:
        """Main memory that a machine with so many GPUs should have for the stage that takes most, in GiB.

        Twice the weights, in the type held there: once for what is merged there or taken from the GPU for a checkpoint,
        once for the files that are read. With FSDP every process loads them, and one gathers a checkpoint; of processes
        that draw from an adapter each merges it there.
        """
        most = 0.0
        for stage, work in self._work:
            shape, dtype = self._model(stage)
            if shape is not None:
                copies = 1 + self._loading(stage, work, gpus)
                most = max(most, copies * shape.parameters * BYTES.get(shape.dtype if dtype == "auto" else dtype, 4))
        return math.ceil(most / GIB + MAIN_BASE_GIB)

    def _loading(self, stage: Stage, work: Work | None, gpus: int) -> int:
        """Processes that hold a stage's weights in main memory at the same time, on a machine with so many GPUs."""
        if isinstance(work, Training):
            return max(1, gpus) if work.fsdp else 1
        job = stage.job
        if work is None or not isinstance(job, ToSample) or job.model is None:
            return 1
        if not self._leaves_adapter(job.model.train):
            return 1
        return drawers(job, max(1, min(gpus, self._processes(work, stage, gpus))))  # on one machine

    def _leaves_adapter(self, train: str | None) -> bool:
        """Whether a training leaves an adapter alone: one that starts from an adapter merges its own with it."""
        stage = None if train is None else self._plan.stages.get(train)
        job = None if stage is None else stage.job
        return isinstance(job, ToTrain) and job.lora is not None and not self._leaves_adapter(job.model.train)

    def on(self, accelerator: str | None) -> Estimate:
        """Estimate for an accelerator such as "L4:1", None for a machine without one."""
        name, count = split_accelerator(accelerator)
        card = card_of(name)
        seen = self._measured(name)
        found = []
        for stage, work in self._work:
            if work is None:
                found.append(
                    StageEstimate(stage.title, stage.digest, STORED_SECONDS, "votes and verdicts over stored samples")
                )
            else:
                found.append(self._estimate(stage, work, card, count, seen))
        return Estimate(accelerator or "CPU", found, card, tuple(self._guessed))

    def _estimate(self, stage: Stage, work: Work, card: Card | None, count: int, seen: _Seen) -> StageEstimate:
        shape, dtype = self._model(stage)
        earlier = seen.get(_kind_of(stage.settings, self._keys), [])
        if card is None and shape is not None:
            return StageEstimate(stage.title, stage.digest, None, "this card is not known")
        work = _readable(work, shape)
        processes = self._processes(work, stage, count)
        seconds = seconds_of(work, shape, dtype, card, processes) * _median([one.seconds for one in earlier])
        seconds += start_seconds(card) if shape is not None else 0.0
        source = f"{len(earlier)} earlier stages of the kind" if earlier else "throughput model"
        if shape is None or card is None or not card.memory:
            return StageEstimate(stage.title, stage.digest, seconds, source)
        used = _median([one.memory for one in earlier if one.memory is not None])
        allocated = memory_of(work, shape, dtype, card, processes).allocated * used
        needed = with_overhead(allocated)
        well = fits(needed, card)
        way = None if well else advice(work, shape, dtype, card, processes, used)
        fields, then = way if way is not None else ((), None)
        return StageEstimate(stage.title, stage.digest, seconds, source, allocated, needed, well, tuple(fields), then)

    def _processes(self, work: Work, stage: Stage, count: int) -> int:
        """GPUs that work on a stage, of `count`."""
        if isinstance(stage.job, ToDiscover):
            return 1
        resources = self._plan.experiment.resources
        asked = resources.processes
        if isinstance(work, Drawing):
            if not isinstance(stage.job, ToSample) or stage.job.model is None:
                return 1
            asked = resources.sampling_processes or asked
            if resources.over is not None and is_shared(stage.job):
                return min(count, asked or count) * resources.nodes
        return min(count, asked or count)

    def _measured(self, name: str | None) -> _Seen:
        """Of finished stages on this kind of card (or without one) what they took, by what the model says of them."""
        card, seen = card_of(name), defaultdict(list)
        shapes = {
            _kind_of(stage.settings, self._keys): self._model(stage) for stage, work in self._work if work is not None
        }
        for manifest in self._manifests:
            gpus = manifest.machine.gpus
            same = bool(gpus) and name is not None and card_key(gpus[0]) == card_key(name)
            if not (same or (name is None and not gpus)) or not manifest.seconds:
                continue
            try:
                kind, work = _kind_of(manifest.made_of, self._keys), work_done(manifest, self._plan)
                if work is None or kind not in shapes:
                    continue
                shape, dtype = shapes[kind]
                work = _readable(work, shape)
                if card is None and shape is not None:
                    continue
                processes = int(manifest.to_json().get("processes", 1))
                modelled = seconds_of(work, shape, dtype, card, processes)
                peak = manifest.machine.gpu_peak_bytes
                memory = None
                if peak and shape is not None and card is not None and card.memory:
                    memory = peak / memory_of(work, shape, dtype, card, processes).allocated
            except (LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError):
                continue  # of another version, or of no use
            start = start_seconds(card) if shape is not None else 0.0
            seen[kind].append(_Ratio(max(manifest.seconds - start, manifest.seconds / 10) / modelled, memory))
        return seen


def _readable(work: Work, shape: ModelShape | None) -> Work:
    return work.within(shape.context) if shape is not None and isinstance(work, Drawing) else work


@dataclass(frozen=True)
class _Ratio:
    """Measured by modelled."""

    seconds: float
    memory: float | None


_Seen = Mapping[tuple[str, str, str], list[_Ratio]]


def _median(ratios: list[float]) -> float:
    return statistics.median(ratios) if ratios else 1.0


# --------------------------------------------------------------------------- the model


def seconds_of(work: Work, shape: ModelShape | None, dtype: str, card: Card | None, processes: int = 1) -> float:
    """Seconds of a stage's work on so many of a card; without a shape, of an engine that loads no weights."""
    if shape is None or card is None:
        assert isinstance(work, Drawing)
        return work.rows * work.limit * TOKEN_SHARE / REMOTE_TOKENS
    if isinstance(work, Drawing):
        work = work.shared(processes)
        size = BYTES[type_on(card, dtype, shape, trainable=False)]
        at_once = drawn_at_once(work, shape, size, card)
        return _decoding(work, shape, size, card, at_once, LOGIT_PASSES)
    size = BYTES[type_on(card, dtype, shape, trainable=True)]
    seconds = work.steps * _optimizer_step(work, shape, size, card, processes)
    if work.drawing is not None:
        rows = math.ceil(work.drawing.rows / processes)
        one = replace(work.drawing, rows=rows, prompts=rows)
        seconds += work.generations * _decoding(one, shape, size, card, rows, LOGIT_PASSES)
    return seconds


def start_seconds(card: Card | None) -> float:
    """Seconds of a stage before its work begins."""
    return START_SECONDS if card is not None and card.memory else 0.0


def decode_step_seconds(
    shape: ModelShape, size: int, card: Card, rows: float, tokens: float, passes: int = LOGIT_PASSES
) -> float:
    """Seconds of one decoding step of `rows` rows that have `tokens` tokens each; `size` is bytes of a number."""
    read = shape.parameters * size + rows * (tokens * shape.cache_elements * size + shape.vocabulary * 4 * passes)
    return max(
        shape.layers * _layer_seconds(card),
        read / (card.bandwidth * 1e9 * MEMORY_SHARE),
        2 * shape.parameters * rows / (card.tflops * 1e12 * COMPUTE_SHARE),
    )


def decoding_steps(rows: float, at_once: int, limit: int) -> float:
    """Steps in which so many rows of at most `limit` tokens are written, `at_once` at a time.

    Rows that all fit take those of the longest, which fills its limit. Else the places are full until the queue is
    empty, and the last rows need what the longest has more than the mean.
    """
    if rows <= at_once:
        return float(limit) if rows else 0.0
    return rows * limit * TOKEN_SHARE / at_once + limit * (1 - TOKEN_SHARE)


def _decoding(work: Drawing, shape: ModelShape, size: int, card: Card, at_once: int, passes: int) -> float:
    steps = decoding_steps(work.rows, at_once, work.limit)
    written = work.rows * work.limit * TOKEN_SHARE / steps if steps else 0.0  # rows in a step, on average
    step = decode_step_seconds(shape, size, card, written, work.prompt + work.limit / 2, passes)
    prefill = 2 * shape.parameters * work.prompts * work.prompt / (card.tflops * 1e12 * COMPUTE_SHARE)
    return steps * step + prefill


def _optimizer_step(work: Training, shape: ModelShape, size: int, card: Card, processes: int) -> float:
    forward = 1 + work.checkpointing + work.reference + work.old  # the passes beside the backward pass
    flops = 2 * forward + (4 if work.lora is None else 2)  # for weights and rows, or rows alone
    tokens = work.rows * work.tokens / processes
    compute = flops * shape.parameters * tokens / (card.tflops * 1e12 * COMPUTE_SHARE)
    micro_steps = math.ceil(work.rows / processes / work.at_once(processes))
    launches = micro_steps * (forward + 2) * shape.layers * _layer_seconds(card)
    trained = shape.parameters if work.lora is None else shape.adapter_parameters(work.lora.rank)
    read = 7 * trained * (size if work.lora is None else 4)  # weights and two moments both ways, gradients
    return max(compute, launches) + read / (card.bandwidth * 1e9 * MEMORY_SHARE)


def _layer_seconds(card: Card) -> float:
    return LAYER_SECONDS if card.memory else CPU_LAYER_SECONDS


# --------------------------------------------------------------------------- kinds of work

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
