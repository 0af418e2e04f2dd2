"""The `vllm` engine: completions from vLLM, in a process with an environment of its own.

    engine: {use: vllm}                                    # one GPU, or the CPU build
    engine: {use: vllm, tensor_parallel: 2, memory_share: 0.85}

    python -m nsd.plugins.engines.vllm_environment         # makes the environment, once

One process serves every stage that draws: it is started by the first, is given the weights or the LoRA adapter of the
next, and sleeps while something trains. Weights are put into the running engine only where it can be proven that they
answer: the engine throws its own away, and then the products of the matrices in its memory with two fixed vectors must
be those of the files. Where that cannot be proven (quantised weights, several GPUs, another shape) a new process loads
them.
An adapter is named by the digest of its files, because vLLM takes two adapters of one name for the same.

Each completion is a request of its own, with the seed of its question and sample (`stream`): vLLM's own n=K gives the
samples of a prompt neighbouring seeds, of which a repeat would draw most again. The prompt's cache is shared all the
same. Of the spec only temperature, top_p and top_k shape the distribution, as in `hf`.

Texts are not those of `hf`, and not bit for bit the same between two batches: vLLM's sums depend on what else is in
the batch. They are samples of the same distribution.

Limits: confidences cost time (`confidences: false` leaves them out, and with them weighted votes). Rows whose logits
are no finite numbers are not told from others. Paths that only a GPU takes (tensor parallelism, sleep, several
processes with a GPU each) are written to the documented behaviour and not measured here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from nsd.plugins.api import (
    Answered,
    Completion,
    Engine,
    GrowingSamples,
    ModelRef,
    OutputNeutral,
    PluginConfig,
    Request,
    Sampling,
    StopReason,
)
from nsd.plugins.data import cut_at_stop
from nsd.plugins.engines.asking import (
    Asked,
    AskedPrompt,
    all_done,
    asked_of,
    check,
    decoded_texts,
    ends_of,
    refused,
    tokenize,
)
from nsd.plugins.engines.vllm_process import (
    Again,
    VllmAdapter,
    VllmDrawn,
    VllmLoaded,
    VllmProcess,
    VllmRow,
    VllmSampling,
    find_python,
)
from nsd.plugins.errors import InputError, StageFailed
from nsd.plugins.growing import refused_while_asked
from nsd.plugins.registry import plugin
from nsd.plugins.seeds import stream

if TYPE_CHECKING:
    from nsd.plugins.api import Confidence

SLICE = 20_000  # questions whose prompts are given to vLLM at once
SHARD_SECONDS = 2.0  # that a finished completion waits for others, where rows are asked for in between
LENGTHS = 256  # tokens: a context is a multiple of it, so that stages of like length share a process
READ_AT_ONCE = 4096  # tokens of prompts in a step, on a CPU
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as the largest rank of adapters


# The process that runs, shared by all engines of this process: two would not fit on a device.
_running: VllmProcess | None = None


@plugin("engine", "vllm")
class VllmEngine(Engine):
    """vLLM in a process of its own. `loaded` says what answered the last call."""

    class Config(PluginConfig):
        memory_share: Annotated[float, OutputNeutral()] = Field(
            default=0.9, gt=0, le=1, description="Share of a GPU's memory that vLLM takes."
        )
        cache_gib: Annotated[float, OutputNeutral()] = Field(
            default=2.0, ge=1, description="GiB of cache for prompts and completions; of the CPU build alone."
        )
        rows: Annotated[int | None, OutputNeutral()] = Field(
            default=None, ge=1, description="Completions that run at once; null: vLLM's own choice."
        )
        context: Annotated[int | None, OutputNeutral()] = Field(
            default=None, ge=1, description="Tokens of prompt and completion together; null: what a stage needs."
        )
        tensor_parallel: Annotated[int, OutputNeutral()] = Field(
            default=1, ge=1, description="GPUs that share each layer. 1: of several GPUs each draws a share."
        )
        eager: Annotated[bool | None, OutputNeutral()] = Field(
            default=None, description="Without compilation and CUDA graphs: slower, quicker to start; null: on a CPU."
        )
        confidences: bool = Field(default=True, description="Store how sure the model was of each completion.")

    config: Config
    grows = True

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.loaded: VllmLoaded | None = None
        self._known: tuple[tuple[ModelRef, tuple[tuple[str, int, int], ...]], Asked] | None = None

    @property
    def uses_every_gpu(self) -> bool:
        """With tensor parallelism: shares of the questions are for engines that take a GPU each."""
        return self.config.tensor_parallel > 1

    def answered(self) -> Answered | None:
        """vLLM's version, and what can be said of the weights that it used."""
        there = self.loaded
        return None if there is None else Answered(there.versions, there.weights, there.known)

    def beside(self) -> str | None:
        """See Plugin.beside."""
        return "vllm"

    def ready(self) -> None:
        """Raise InputError where no vLLM of a version that fits is to be had."""
        from nsd.plugins.engines.vllm_versions import check_there

        check_there("engine vllm")

    def generate(
        self,
        model: ModelRef | None,
        requests: Sequence[Request],
        sampling: Sampling,
        seed: int,
        done: AbstractSet[tuple[str, int]] = frozenset(),
    ) -> Iterator[list[Completion]]:
        """See Engine.generate. Blocks come as rows end, not in the order of the requests.

        Raises InputError for bad sampling values, repeated question ids, a model that cannot be had, and where there
        is no vLLM; StageFailed where vLLM fails.
        """
        check(requests, sampling, "vllm")
        if model is None:
            raise InputError("engine vllm needs a model")
        if all_done(requests, sampling, done):
            return
        there = ends_of(self._asked_of(model), requests)
        prompts, why = tokenize(requests, there)
        if errors := refused(why, sampling.n, done):
            yield errors

        def rows_of(prompt: AskedPrompt) -> Iterator[int]:
            samples = range(prompt.first, sampling.n)
            return (sample for sample in samples if (prompt.question_id, sample) not in done)

        for block in self._blocks(model, there, prompts, sampling, seed, rows_of):
            yield _completions(there, block, sampling)

    def generate_growing(
        self,
        model: ModelRef | None,
        requests: Sequence[Request],
        sampling: Sampling,
        seed: int,
        samples: GrowingSamples,
    ) -> Iterator[list[Completion]]:
        """See Engine.generate_growing; raises as `generate` does."""
        check(requests, sampling, "vllm")
        if model is None:
            raise InputError("engine vllm needs a model")
        there = ends_of(self._asked_of(model), requests)
        prompts, why = tokenize(requests, there)
        if errors := list(refused_while_asked(why, samples)):
            yield errors
        by_id = {prompt.question_id: prompt for prompt in prompts}
        made: list[Completion] = []

        def further(block: Sequence[VllmDrawn]) -> list[VllmRow]:
            completions = _completions(there, block, sampling)
            made.extend(completions)
            wanted = ((by_id[one.question_id], sample) for one in completions for sample in samples.further(one))
            return [_row(prompt, sample, there, sampling, seed) for prompt, sample in wanted]

        def rows_of(prompt: AskedPrompt) -> Sequence[int]:
            return samples.first(prompt.question_id)

        handed_out = time.monotonic()
        for _ in self._blocks(model, there, prompts, sampling, seed, rows_of, further):
            if time.monotonic() - handed_out > SHARD_SECONDS:
                yield made
                made, handed_out = [], time.monotonic()
        if made:
            yield made

    def _blocks(
        self,
        model: ModelRef,
        there: Asked,
        prompts: list[AskedPrompt],
        sampling: Sampling,
        seed: int,
        rows_of: Callable[[AskedPrompt], Iterable[int]],
        further: Callable[[Sequence[VllmDrawn]], Sequence[VllmRow]] | None = None,
    ) -> Iterator[list[VllmDrawn]]:
        """What becomes of the samples `rows_of` prompts, the longest first."""
        if not prompts:
            return
        prompts.sort(key=lambda prompt: (-len(prompt.ids), prompt.question_id))
        running = self._load(model, there, len(prompts[0].ids) + sampling.max_tokens)
        asked = VllmSampling(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            stop=list(sampling.stop),
            stop_token_ids=there.end_ids,
            confidences=self.config.confidences,
        )
        adapter = None if model.adapter is None else _adapter(model.adapter)
        whole = False
        try:
            for start in range(0, len(prompts), SLICE):
                part = prompts[start : start + SLICE]
                rows = [_row(one, sample, there, sampling, seed) for one in part for sample in rows_of(one)]
                ids = {one.question_id: one.ids for one in part}
                if rows:
                    yield from running.draw(ids, rows, asked, adapter, further)
            whole = True
        finally:
            if not whole:  # rows may still be drawn that nobody waits for
                self.end()

    def close(self) -> None:
        """Give back the device's memory: vLLM sleeps where it can, else its process ends."""
        if _running is not None and not (_running.alive and _running.sleep()):
            self.end()

    def _asked_of(self, model: ModelRef) -> Asked:
        """What is to be known of a model to ask it, without its weights; kept for the calls that follow."""
        from nsd.plugins import models

        key = (model, models.stamp(model))
        if self._known is None or self._known[0] != key:
            tokenizer = models.load_tokenizer(model)
            config, generation_config = models.load_configs(model)
            vocabulary = int(config.get_text_config().vocab_size)
            self._known = (key, asked_of(config, generation_config, tokenizer, vocabulary))
        return self._known[1]

    @staticmethod
    def running() -> VllmProcess:
        """The process that was asked last. Raises InputError where there is none."""
        if _running is None:
            raise InputError("engine vllm: nothing was drawn yet")
        return _running

    @staticmethod
    def end() -> None:
        """End the process, whatever it holds."""
        global _running
        if _running is not None:
            _running.end()
            _running = None

    def _load(self, model: ModelRef, there: Asked, tokens: int) -> VllmProcess:
        """The running process with these weights in it, another one where it has other arguments or cannot."""
        from nsd.plugins import models

        global _running
        weights = models.resolve(model.path)
        wanted = self._options(model, there, tokens)
        if _running is not None:
            options = _both(_running.options, wanted)
            if options is None or not _running.alive:
                self.end()
        for _ in range(2):
            if _running is None:
                _running, options = VllmProcess(find_python(), self.config.cache_gib), wanted
            assert options is not None
            try:
                self.loaded = _running.load(options, weights, repr(models.stamp(replace(model, adapter=None))))
            except Again:
                self.end()
                continue
            except BaseException:
                self.end()
                raise
            return _running
        raise StageFailed("engine vllm: a new process could not load the model either; the stage's log says more")

    def _options(self, model: ModelRef, there: Asked, tokens: int) -> dict[str, Any]:
        """vLLM's arguments for a stage."""
        from nsd.plugins import models

        kind = model.device.kind if model.device is not None else models.default_device()
        context = self.config.context or -(-tokens // LENGTHS) * LENGTHS
        options: dict[str, Any] = {
            "dtype": models.type_held(model, kind, trainable=False),
            "max_model_len": context if there.context is None else min(context, there.context),
            "tensor_parallel_size": self.config.tensor_parallel,
            "enable_prefix_caching": True,
            "enforce_eager": kind == "cpu" if self.config.eager is None else self.config.eager,
            "seed": 0,
        }
        if kind == "cpu":
            # A prompt that is read in parts draws a token for each part, and takes all but the last back by winding its
            # generator back: a generator of the CPU has no such thing, and vLLM 0.32 dies of it.
            options |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(context, READ_AT_ONCE)}
        else:
            options |= {"gpu_memory_utilization": self.config.memory_share, "enable_sleep_mode": True}
        if self.config.rows is not None:
            options["max_num_seqs"] = self.config.rows
        if model.revision is not None:
            options["revision"] = model.revision
        if model.adapter is not None:
            rank = _rank(model.adapter)
            options |= {"enable_lora": True, "max_lora_rank": next(one for one in RANKS if one >= rank)}
        return options


# --------------------------------------------------------------------------- what is asked


def _both(running: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The running process's arguments where they do for what is wanted too, else None."""
    at_least = ("max_model_len", "max_num_batched_tokens", "enable_lora", "max_lora_rank")
    if any(running.get(name, 0) < wanted.get(name, 0) for name in at_least):
        return None
    alike = {name: value for name, value in running.items() if name not in at_least}
    return running if alike == {name: value for name, value in wanted.items() if name not in at_least} else None


def _row(prompt: AskedPrompt, sample: int, there: Asked, sampling: Sampling, seed: int) -> VllmRow:
    room = sampling.max_tokens if there.context is None else there.context - len(prompt.ids)
    own = stream(seed, prompt.question_id, sample)
    return VllmRow(prompt.question_id, sample, own, min(sampling.max_tokens, room))


def _adapter(path: str) -> VllmAdapter:
    from nsd.plugins import models

    return VllmAdapter(models.folder_hash(Path(path)), path)


def _rank(path: str) -> int:
    import json

    listed = json.loads((Path(path) / "adapter_config.json").read_text(encoding="utf-8"))
    rank = max([int(listed["r"]), *map(int, (listed.get("rank_pattern") or {}).values())])
    if rank > max(RANKS):
        raise InputError(f"engine vllm: it takes adapters of rank {max(RANKS)} at most, not {rank}; use engine hf")
    return rank


# --------------------------------------------------------------------------- what came


def _completions(there: Asked, block: Sequence[VllmDrawn], sampling: Sampling) -> list[Completion]:
    ends = set(there.end_ids)
    ended = [bool(one.tokens) and one.tokens[-1] in ends for one in block]
    texts = decoded_texts(
        there.tokenizer, [one.tokens[:-1] if end else one.tokens for one, end in zip(block, ended, strict=True)]
    )
    found = []
    for one, end, text in zip(block, ended, texts, strict=True):
        text, stopped = cut_at_stop(text, sampling.stop)
        reason = StopReason.STOP if end or stopped else StopReason.LENGTH
        error = None
        if one.reason not in ("stop", "length"):
            reason, error = StopReason.ERROR, f"vLLM ended it by {one.reason!r}"
        found.append(
            Completion(one.question_id, one.sample, text, len(one.tokens), reason, error, confidence=_confidence(one))
        )
    return found


def _confidence(one: VllmDrawn) -> Confidence | None:
    if not one.logprobs:
        return None
    import numpy

    from nsd.plugins.confidence import summary

    return summary(numpy.asarray(one.logprobs), numpy.asarray(one.confidences))
