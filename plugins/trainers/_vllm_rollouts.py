"""Rollouts of a training by vLLM: beside the training (`rollout: vllm`), or a server (`rollout: vllm://host:port`).

Before the rollouts of a step are drawn, vLLM is given the weights as they are, and has to prove that it uses them: it
first throws its own away, and the print of what it then holds must be that of the files (vllm_side/nsd_vllm.py).
Several releases of vLLM went on answering by older weights. A rollout's random stream is that of nsd's own decode loop:
`stream(stream(seed, step), question, sample)`. Its text is not: vLLM's sums depend on what else is in the batch, so a
training that was interrupted does not continue to the letter.

A training is on policy up to vLLM's rounding: losses take the log-probabilities of the model that learns, and nothing
corrects the difference.

Limits: an adapter is merged for the hand-over; every process of a training writes the weights for its own vLLM, and a
server is given them by one. Untested on a GPU.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nsd.plugins.api import Sampling, TrainJob
from nsd.plugins.engines.vllm_process import (
    Again,
    VllmDrawn,
    VllmProcess,
    VllmRow,
    VllmSampling,
    find_python,
)
from nsd.plugins.errors import StageFailed
from nsd.plugins.seeds import stream
from nsd.plugins.trainers._handover import new_folder, write_weights
from nsd.plugins.trainers._rollout_config import NOT_EXACT
from nsd.plugins.trainers._rollouts import Asked, Drawer, Drawn, bare

LENGTHS = 64  # tokens: a context is a multiple of it
READ_AT_ONCE = 4096  # tokens of prompts in a step, on a CPU
CACHE_GIB = 2.0  # of the CPU build
SMALL_GIB = 64.0  # a card with less has no room for two models: vLLM sleeps while it learns
# What says to a process that it is one of several; vLLM would take itself for one of them.
OF_SEVERAL = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE"),
)


class Vllm(Protocol):
    """A vLLM that draws for a training."""

    def take(self, folder: Path, step: int) -> None:
        """Have the weights of a folder, and prove it. Raises StageFailed where it cannot."""

    def draw(self, asked: Sequence[Asked], rows: Sequence[VllmRow], sampling: VllmSampling) -> list[VllmDrawn]:
        """Draw all rows, in any order. Raises StageFailed where vLLM fails."""

    def rest(self) -> bool:
        """Give memory back until the next step, where it is short; whether the weights went with it."""

    def end(self) -> None:
        """Let go of it."""

    version: str  # vLLM's
    weights: list[float] | None  # the print of those that it used last
    processes: int  # that were started for it


@dataclass(frozen=True, slots=True)
class Place:
    """Where a training computes: the kind of device, the number of a GPU among those that are seen, and its memory."""

    kind: str
    number: int = 0
    gib: float | None = None

    @classmethod
    def of(cls, device: Any) -> Place:
        """That of a torch device."""
        if device.type != "cuda":
            return cls(device.type)
        import torch

        number = torch.cuda.current_device() if device.index is None else device.index
        return cls("cuda", number, torch.cuda.get_device_properties(number).total_memory / 2**30)

    @property
    def small(self) -> bool:
        """Whether vLLM has to sleep while the model learns."""
        return self.gib is not None and self.gib < SMALL_GIB


def longest_prompt(job: TrainJob, tokenizer: Any) -> int:
    """Tokens of the longest prompt that may be drawn from."""
    from nsd.plugins.chat import prompt_ids

    given = job.prompt.chat_template_kwargs
    return max((len(prompt_ids(tokenizer, example.prompt, given)) for example in job.examples), default=1)


def context_of(job: TrainJob, tokenizer: Any, max_tokens: int, most: int | None) -> int:
    """Tokens of the longest prompt and a completion, in whole blocks; `most` is what the model reads."""
    wanted = -(-(longest_prompt(job, tokenizer) + max_tokens) // LENGTHS) * LENGTHS
    return wanted if most is None else min(wanted, most)


class Beside:
    """A vLLM in a process of its own, on the device of the training."""

    def __init__(self, options: dict[str, Any], place: Place) -> None:
        self._options, self._place = options, place
        self._process: VllmProcess | None = None
        self.version = "?"
        self.weights: list[float] | None = None
        self.processes = 0

    def take(self, folder: Path, step: int) -> None:
        """Put the weights into the running process, or start one with them."""
        try:
            found = self._started().load(self._options, str(folder), f"step {step}")
        except Again:
            self.end()
            found = self._started().load(self._options, str(folder), f"step {step}")
        self.version, self.weights = found.versions["vllm"], found.weights
        if not found.known:
            raise StageFailed(
                "trainer.rollout: vLLM holds these weights in a form that cannot be compared with the training's, so "
                "nobody could say which answer: leave rollout out"
            )

    def draw(self, asked: Sequence[Asked], rows: Sequence[VllmRow], sampling: VllmSampling) -> list[VllmDrawn]:
        """Draw all rows."""
        prompts = {one.question_id: one.ids for one in asked}
        return [one for block in self._started().draw(prompts, rows, sampling, None) for one in block]

    def rest(self) -> bool:
        """Sleep on a small card."""
        return self._place.small and self._process is not None and self._process.sleep()

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _started(self) -> VllmProcess:
        if self._process is None:
            more = {}
            if self._place.kind == "cuda":
                seen = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
                more["CUDA_VISIBLE_DEVICES"] = seen[self._place.number] if seen else str(self._place.number)
            self.processes += 1
            self._process = VllmProcess(find_python(), CACHE_GIB, OF_SEVERAL, more)
        return self._process


class VllmDrawer(Drawer):
    """Draws from a vLLM that is given the weights before each sampled batch."""

    def __init__(
        self, model: Any, tokenizer: Any, job: TrainJob, sampling: Sampling, seed: int, config: Any, device: Any
    ) -> None:
        super().__init__(model, tokenizer, job.prompt, sampling, seed)
        self._model, self._where = model, config.rollout
        self._folder = new_folder(model)
        self._handed: int | None = None  # the step whose weights it has
        self.handovers = 0
        context = context_of(job, tokenizer, sampling.max_tokens, self.loaded.context)
        self._vllm: Vllm
        job.warn(NOT_EXACT, "trainer.rollout")
        if config.rollout == "vllm":
            place = Place.of(device)
            tokenizer.save_pretrained(self._folder.name)
            bare(model).config.save_pretrained(self._folder.name)  # vLLM looks for it beside a tokenizer
            options = options_of(job, place, context, config.rollout_memory)
            self._vllm = Beside(options | {"tokenizer": self._folder.name}, place)
        else:
            from nsd.plugins.trainers._vllm_server import Served

            self._vllm = Served(config.rollout, context)

    def _drawn(self, asked: Sequence[Asked], step: int) -> list[Drawn]:
        if self._handed != step:
            self._hand_over(step)
        seed, loaded = stream(self.seed, step), self.loaded
        most = self.sampling.max_tokens
        rows = [
            VllmRow(
                one.question_id,
                one.sample,
                stream(seed, one.question_id, one.sample),
                most if loaded.context is None else min(most, loaded.context - len(one.ids)),
            )
            for one in asked
        ]
        wanted = VllmSampling(
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            top_k=self.sampling.top_k,
            stop=[],
            stop_token_ids=loaded.end_ids,
            confidences=False,
        )
        found = {(one.question_id, one.sample): one for one in self._vllm.draw(asked, rows, wanted)}
        if self._vllm.rest():
            self._handed = None
        made = [found[one.question_id, one.sample] for one in asked]
        if bad := next((one for one in made if one.reason not in ("stop", "length") or not one.tokens), None):
            raise StageFailed(
                f"vLLM ended a rollout of question {bad.question_id} by {bad.reason!r} after {len(bad.tokens)} tokens "
                f"before step {step + 1}"
            )
        from nsd.plugins.engines.asking import decoded_texts

        ends = set(loaded.end_ids)
        ended = [one.tokens[-1] in ends for one in made]
        kept = [one.tokens[:-1] if end else one.tokens for one, end in zip(made, ended, strict=True)]
        texts = decoded_texts(loaded.tokenizer, kept)
        return [
            Drawn(one, text, drawn.tokens, end) for one, text, drawn, end in zip(asked, texts, made, ended, strict=True)
        ]

    def _hand_over(self, step: int) -> None:
        folder = Path(self._folder.name) / f"step-{step}"
        write_weights(self._model, folder)
        self._vllm.take(folder, step)
        shutil.rmtree(folder)
        self._handed, self.handovers = step, self.handovers + 1

    def end(self) -> None:
        """End a vLLM of our own, and remove the weights that were handed over."""
        self._vllm.end()
        self._folder.cleanup()

    def notes(self) -> dict[str, Any]:
        """What drew, how often it was given weights, and that such a training does not continue to the letter."""
        where = "beside" if self._where == "vllm" else "server"
        vllm = self._vllm
        told = {"vllm": vllm.version, "where": where, "handovers": self.handovers, "processes": vllm.processes}
        return {"rollouts_by": told | {"weights": vllm.weights, "resume_exact": False}}


def options_of(job: TrainJob, place: Place, context: int, memory: float) -> dict[str, Any]:
    """vLLM's arguments beside a training."""
    from nsd.plugins import models

    options: dict[str, Any] = {
        "dtype": models.type_held(job.model, place.kind, trainable=False),
        "max_model_len": context,
        "enable_prefix_caching": True,
        "enforce_eager": place.kind == "cpu",
        "seed": 0,
    }
    if place.kind == "cpu":  # as in the `vllm` engine: a prompt that is read in parts ends its CPU build
        return options | {"enable_chunked_prefill": False, "max_num_batched_tokens": max(context, READ_AT_ONCE)}
    return options | {"gpu_memory_utilization": memory, "enable_sleep_mode": place.small}
