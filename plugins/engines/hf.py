"""The `hf` engine: completions from a transformers model in this process, on a GPU or a laptop.

    engine: {use: hf}                                  # device, batch size: found by itself
    engine: {use: hf, batch_size: 16, device: cuda:1}  # neither changes what comes out

Each completion is drawn from its own random stream (`stream(seed, question id, sample number)`, see
hf_sampling.py), so a completion depends neither on the rows beside it nor on the order of the questions, up to rounding
in the model (below). A row that has ended gives its place to the next one (hf_decode.py); shards are cut from the
prompts sorted by length and question id, and one is handed out when all its rows, and the shards before it, are
written. What all prompts begin with is run through the model once. Only what the
spec says shapes the distribution: temperature, top_p, top_k. A checkpoint's own sampling defaults (the
generation_config of Qwen2.5's Instruct models has a repetition penalty, a top_k and a top_p, which plain `generate`
applies unasked) are NOT applied; only its end tokens are taken, and where the prompt is a chat also the token by which
the model's template ends a turn. A stop string ends a completion too, however many
tokens it spans (hf_stops.py). Each completion comes with how sure the model was of it, before temperature, top_k and
top_p (plugins/confidence.py).

Rounding: a matrix product of another shape is summed in another order, so logits differ in their last bits between
batches, and a token changes where a random number falls that close to a boundary; from there the text is another
sample of the same distribution. Measured on a CPU with the embedded model (temperature 1, 34 tokens a text, batches
of 1, 7 and 64 prompts x 8): in float32 no text of 768, none of 8,000 (264,000 tokens) between batch 7, batch 64 and
two shards; in bfloat16 about 2 % of 512 to 768 texts (5e-4 per token), so long bfloat16 texts do differ when the batch
size changes, or when a run is resumed, since other rows then stand beside them. At one batch size an uninterrupted run
repeats.

A prompt the model cannot take (longer than its context, empty, tokens it has no embedding for) and a row whose
logits stop being finite numbers give a completion with stop reason ERROR; a completion that meets the end of the
context first ends with LENGTH. Where the rows at once do not fit in memory, those not written yet begin again, half as
many at once.

`dtype`, `static_cache` and `compile` change texts in the same way, so they are in the digest where they are given. With
a static cache every step reads all columns of buffers that have room for the longest text, which costs more the shorter
texts are; texts of the embedded model stay the same in float32. `compile` runs steps of one token by torch.compile, on
a static cache: it needs a C++ compiler (checked before a run begins), and pays where a model draws for long after the
compilation. All three are refilled as ever, and take any combination; a static cache takes the models of hf_mask.py
with full attention in every layer, and no other.

Limits: one device (no tensor parallelism: of several GPUs each draws a share of the questions,
runner/work/team.py); decoder models whose state is a transformers DynamicCache; no chunked prefill. The
attention of every row spans as many tokens as the longest row's at that time. A model with sliding windows,
convolutions or linear attention is not refilled: a batch of it waits for its longest completion. Paths that only a GPU
takes (bfloat16 and torch.compile on CUDA, batch size from its memory, CUDA's own out-of-memory error) are written to
the documented behaviour and not measured here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from nsd.plugins.api import (
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
from nsd.plugins.engines.asking import AskedPrompt, all_done, check, ends_of, refused, tokenize
from nsd.plugins.engines.hf_rows import Loaded, Row, drawn, facts, free_memory, in_shards, texts_of
from nsd.plugins.errors import InputError
from nsd.plugins.growing import refused_while_asked
from nsd.plugins.registry import plugin

if TYPE_CHECKING:  # what only a drawing needs is imported by it: a spec that names `hf` is read quickly
    from nsd.plugins.engines.hf_decode import Decoded
    from nsd.plugins.engines.hf_sizes import BatchShape


@dataclass(frozen=True)
class _Held:
    key: tuple[Any, ...]
    loaded: Loaded


# The last model loaded, shared by all engines of a process: an evaluation after a labelling with the same weights
# loads nothing, and two engines never hold two models.
_last: _Held | None = None


@plugin("engine", "hf")
class HfEngine(Engine):
    """Transformers model with a decode loop of its own. `notes` says how the last call was run."""

    class Config(PluginConfig):
        batch_size: Annotated[int | None, OutputNeutral()] = Field(
            default=None, ge=1, description="Prompts per batch; null: by the device's memory."
        )
        device: Annotated[str | None, OutputNeutral()] = Field(
            default=None, description="cpu, cuda, cuda:1, mps; null: the best there is."
        )
        attention: Annotated[str | None, OutputNeutral()] = Field(
            default=None, description="A transformers attention implementation: sdpa, eager, flash_attention_2."
        )
        dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
            default=None, description="The type of the weights while they draw; null: that of `model`."
        )
        static_cache: bool = Field(
            default=False, description="Keys and values in buffers of one size, all of which every step reads."
        )
        compile: bool = Field(
            default=False, description="torch.compile for steps of one token; brings a static cache with it."
        )

    config: Config
    extra = "train"
    grows = True

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.notes: dict[str, Any] = {}

    def ready(self) -> None:
        """Raise InputError where `compile` is asked for and there is nothing to compile with."""
        if self.config.compile:
            from nsd.plugins.engines.hf_compile import check_compiler

            check_compiler()

    def generate(
        self,
        model: ModelRef | None,
        requests: Sequence[Request],
        sampling: Sampling,
        seed: int,
        done: AbstractSet[tuple[str, int]] = frozenset(),
    ) -> Iterator[list[Completion]]:
        """See Engine.generate. The longest prompts come first, so that a lack of memory shows at the start.

        Raises InputError for bad sampling values, repeated question ids, a model that cannot be loaded or has no
        chat template where the prompt is a chat; StageFailed where not even one row fits in memory.
        """
        check(requests, sampling, "hf")
        if model is None:
            raise InputError("engine hf needs a model")
        if all_done(requests, sampling, done):
            return
        loaded = ends_of(self._load(model), requests)
        prompts, why = tokenize(requests, loaded)
        if errors := refused(why, sampling.n, done):
            yield errors
        prompts.sort(key=lambda prompt: (-len(prompt.ids), prompt.question_id))
        from nsd.plugins.engines.hf_prefill import common_beginning

        self.notes = {"device": str(loaded.model.device), "out_of_memory_at_rows": []}
        for shape, shards in self._shards(loaded, prompts, sampling):
            owed = ([row for row in shard if (row[0].question_id, row[1]) not in done] for shard in shards)
            refused_rows = self.notes["out_of_memory_at_rows"]
            shared = common_beginning([prompt.ids for prompt in prompts])
            for rows, decoded in in_shards(loaded, owed, sampling, seed, shape.rows(sampling), refused_rows, shared):
                texts = texts_of(loaded, decoded)
                yield [
                    _completion(prompt.question_id, sample, *cut_at_stop(text, sampling.stop), one)
                    for (prompt, sample), text, one in zip(rows, texts, decoded, strict=True)
                ]

    def generate_growing(
        self,
        model: ModelRef | None,
        requests: Sequence[Request],
        sampling: Sampling,
        seed: int,
        samples: GrowingSamples,
    ) -> Iterator[list[Completion]]:
        """See Engine.generate_growing; raises as `generate` does. The longest prompts come first."""
        from nsd.plugins.engines.hf_growing import Growing
        from nsd.plugins.engines.hf_prefill import common_beginning
        from nsd.plugins.engines.hf_sizes import batch_shape

        check(requests, sampling, "hf")
        if model is None:
            raise InputError("engine hf needs a model")
        loaded = ends_of(self._load(model), requests)
        prompts, why = tokenize(requests, loaded)
        if errors := list(refused_while_asked(why, samples)):
            yield errors
        if not prompts:
            return
        prompts.sort(key=lambda prompt: (-len(prompt.ids), prompt.question_id))
        widest = len(prompts[0].ids)
        shape = batch_shape(loaded.model, sampling, widest, self.config.batch_size)
        slots = shape.prompts * shape.samples
        self.notes = {"device": str(loaded.model.device), "out_of_memory_at_rows": []}
        self.notes |= {"prompts_per_batch": shape.prompts, "samples_per_batch": shape.samples}

        def complete(row: Row, text: str, decoded: Decoded) -> Completion:
            return _completion(row[0].question_id, row[1], *cut_at_stop(text, sampling.stop), decoded)

        work = Growing(loaded, prompts, samples, sampling, seed, slots, complete)
        shared = common_beginning([prompt.ids for prompt in prompts])
        yield from drawn(loaded, work, sampling, slots, self.notes["out_of_memory_at_rows"], shared, widest)

    def _shards(
        self, loaded: Loaded, prompts: Sequence[AskedPrompt], sampling: Sampling
    ) -> Iterator[tuple[BatchShape, Iterator[list[Row]]]]:
        """Cut (prompt, sample) rows into shards, the same however many of them are done already.

        Prompts of which as many samples are wanted go together.
        """
        from nsd.plugins.engines.hf_sizes import batch_shape

        for first in sorted({prompt.first for prompt in prompts if prompt.first < sampling.n}):
            alike = [prompt for prompt in prompts if prompt.first == first]
            wanted = replace(sampling, n=sampling.n - first)
            shape = batch_shape(loaded.model, wanted, len(alike[0].ids), self.config.batch_size)
            self.notes |= {"prompts_per_batch": shape.prompts, "samples_per_batch": shape.samples}
            yield shape, _cut(alike, shape, range(first, sampling.n))

    def close(self) -> None:
        """Free the model that this process holds."""
        global _last
        _last = None
        free_memory()

    def _load(self, ref: ModelRef) -> Loaded:
        global _last
        from nsd.plugins import models

        config = self.config
        if config.dtype is not None:
            ref = replace(ref, dtype=config.dtype)
        key = (ref, config.device, config.attention, config.static_cache, config.compile, models.stamp(ref))
        if _last is None or _last.key != key:
            self.close()  # before loading: two models may not fit
            self.ready()
            model, tokenizer = models.load_model(ref, config.device, attention=config.attention)
            from nsd.plugins.engines.hf_compile import compiled_steps

            compiled = compiled_steps(model) if config.compile else None
            static = config.static_cache or config.compile
            _last = _Held(key, replace(facts(model, tokenizer), static=static, compiled=compiled))
        return _last.loaded


class OnHeldModel(HfEngine):
    """The same on a model that somebody else holds, as it is now: a training's own. It loads and frees nothing."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self._held = facts(model, tokenizer)

    def _load(self, ref: ModelRef) -> Loaded:
        return self._held

    def close(self) -> None:
        """Leave the model to whoever holds it."""


def _cut(prompts: Sequence[AskedPrompt], shape: BatchShape, samples: range) -> Iterator[list[Row]]:
    for start in range(0, len(prompts), shape.prompts):
        for sample in range(samples.start, samples.stop, shape.samples):
            chunk = range(sample, min(sample + shape.samples, samples.stop))
            yield [(prompt, number) for prompt in prompts[start : start + shape.prompts] for number in chunk]


# --------------------------------------------------------------------------- completions


def _completion(question: str, sample: int, text: str, stopped: bool, decoded: Decoded) -> Completion:
    if decoded.failed:
        reason = "the model's logits are not finite numbers (it has diverged)"
        return Completion(question, sample, text, len(decoded.tokens), StopReason.ERROR, reason)
    stop = StopReason.STOP if decoded.ended or stopped else StopReason.LENGTH
    return Completion(question, sample, text, len(decoded.tokens), stop, confidence=decoded.confidence)
