"""How much of a GPU's memory a stage takes at most: what it holds all along, and the largest of its phases.

    memory = memory_of(work, shape, "bfloat16", CARDS["L4"])
    memory.allocated, memory.needed          # bytes that torch allocates; with what it does not count
    advice(work, shape, "bfloat16", card)    # ["trainer.micro_batch_size: 2"] where it does not fit

With FSDP each of the processes holds its share of them, in float32 under mixed precision, and gathers what it computes.

All along: weights; AdamW's two moments, in the type of what is trained (Loshchilov and Hutter 2019; torch makes them
like the parameter); GRPO's reference model. In the phases:

- training: gradients; per token and layer what the backward pass needs (`activation_bytes`), or with gradient
  checkpointing the layers' inputs and one layer (Chen et al. 2016); the head. TRL 1.16 never holds the logits of a
  batch, rows x tokens x vocabulary: it computes them in tiles of 4,096 tokens x 32,768 entries and adds the head's
  gradient up in float32, so the head costs a tile and vocabulary x hidden x 4 bytes, whatever the batch.
- generation, in GRPO and in the `hf` engine: the key-value cache, and one step's logits, rows x vocabulary, in
  float32 with the copies that sampling makes (plugins/engines/hf_sizes.py, the very functions the engine calls).

`activation_bytes` counts the tensors that transformers' layers save (two RMSNorms with their float32 copies,
projections, rotations, repeated keys and values, a gated MLP). Against what torch's `saved_tensors_hooks` saw of real
models (Qwen2, Qwen3, Llama, OLMo-2; bfloat16, float32, mixed; tests/runner/launch/test_memory.py) it is within 15 %.

Limits: scaled-dot-product attention (no rows x tokens x tokens); the longest rows of a stage are taken to meet in one
batch; fragmentation and the driver's own memory are SLACK and CONTEXT, which no measurement here stands behind. A
trainer that asks TRL for label smoothing or a loss of its own does hold whole logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from nsd.plugins.api import Device, LoraConfig
from nsd.plugins.engines.hf_sizes import Held, bytes_per_row, rows_at_once
from nsd.plugins.model_shape import BYTES, ModelShape
from nsd.runner.launch.cards import Card
from nsd.runner.launch.workload import Drawing, Training, Work

GIB = 2.0**30
CONTEXT = 0.6 * GIB  # CUDA's context, cuBLAS' workspaces
SLACK = 1.08  # blocks that the allocator keeps and cannot use
TILE_TOKENS, TILE_ENTRIES = 4096, 32768  # trl.kernels.chunked_logprob and trl.trainer.utils of TRL 1.16
NORMED_QUERIES = ("qwen3", "olmo2")


@dataclass(frozen=True)
class Memory:
    """Bytes by what takes them: `held` all along, and those of each phase, of which the largest counts."""

    held: Mapping[str, float]
    phases: Mapping[str, Mapping[str, float]]

    @property
    def allocated(self) -> float:
        """What torch's `max_memory_allocated` will say, in bytes."""
        return sum(self.held.values()) + max((sum(one.values()) for one in self.phases.values()), default=0.0)

    @property
    def needed(self) -> float:
        """What the card must have, in bytes."""
        return with_overhead(self.allocated)


def with_overhead(allocated: float) -> float:
    """Memory that the card must have for what torch allocates, in bytes."""
    return allocated * SLACK + CONTEXT


def type_on(card: Card, dtype: str, shape: ModelShape, trainable: bool) -> str:
    """The type of weights on a card; `dtype` is the spec's."""
    own = shape.dtype if dtype == "auto" else dtype
    return Device("cuda", card.half).type_in_force(own, trainable)


def memory_of(work: Work, shape: ModelShape, dtype: str, card: Card, processes: int = 1) -> Memory:
    """The memory of one device of a stage's `processes`."""
    if isinstance(work, Drawing):
        size = BYTES[type_on(card, dtype, shape, trainable=False)]
        return _of_drawing(work.shared(processes), shape, size, card)
    size = BYTES[type_on(card, dtype, shape, trainable=True)]
    return _of_training(work, shape, size, card, processes)


def drawn_at_once(work: Drawing, shape: ModelShape, size: int, card: Card) -> int:
    """Rows that the `hf` engine decodes at once on a card."""
    if work.batch_size is not None:
        return int(max(1, min(work.batch_size * work.samples, work.rows)))
    kind, memory = ("cuda", card.memory * GIB) if card.memory else ("cpu", 8 * GIB)
    held = Held(kind, memory, shape.parameters * size, shape.parameters, size)
    return int(max(1, min(rows_at_once(shape, held, work.longest, work.limit, work.samples), work.rows)))


def _of_drawing(work: Drawing, shape: ModelShape, size: int, card: Card) -> Memory:
    rows = drawn_at_once(work, shape, size, card)
    cache = rows * shape.cache_elements * size * (work.longest + work.limit)
    rest = rows * bytes_per_row(shape, size, work.longest, work.limit, work.samples) - cache
    return Memory(
        {"weights": shape.parameters * size},
        {"generation": {"cache": cache, "logits and prefill": rest}},
    )


def _of_training(work: Training, shape: ModelShape, size: int, card: Card, processes: int) -> Memory:
    lora = work.lora
    trained = shape.parameters if lora is None else shape.adapter_parameters(lora.rank, _targets(lora))
    trained_size = size if lora is None else max(4, size)  # peft makes an adapter of a half-precision model in float32
    compute = 2 if work.mixed and card.half != "float32" else size
    spread = processes if work.fsdp else 1
    if work.fsdp and compute < 4:
        size = trained_size = 4  # accelerate holds them in float32 then
    held = {"weights": shape.parameters * size / spread, "moments": 2 * trained * trained_size / spread}
    if lora is not None:
        held["adapter"] = trained * trained_size
    if work.averaged:  # with an adapter too, merged; where the weights are halves it is moved in float32
        held["teacher"] = shape.parameters * (size + 4 * (size < 4))
    elif work.reference and lora is None:
        held["reference"] = shape.parameters * size / spread
    gradients = trained * trained_size * (2 if processes > 1 else 1)  # DDP's buckets are as large
    if work.fsdp:
        gradients = trained * trained_size / spread
        # Of what is spread two layers at a time are whole, and the embedding with the head.
        held["gathered"] = compute * (2 * shape.layer_parameters + shape.vocabulary * shape.hidden * (2 - shape.tied))
    rows = work.at_once(processes)
    tokens = float(rows * work.longest)
    layer = activation_bytes(shape, compute, weights=size)
    backward = compute * (3 * shape.intermediate + 4 * shape.hidden)
    if work.checkpointing:
        activations = tokens * (shape.layers * shape.hidden * size + layer + backward)
    else:
        activations = tokens * (shape.layers * layer + backward)
    learned = float(rows * work.learned)
    head = min(learned, TILE_TOKENS) * TILE_ENTRIES * compute + learned * shape.hidden * 4
    if lora is None:
        head += shape.vocabulary * shape.hidden * (4 + size)
        if compute < size and not work.fsdp:
            head += shape.parameters * compute  # autocast keeps its half-precision copies of the weights till the end
    accumulates = work.at_once(processes) * processes < work.rows
    phases: dict[str, dict[str, float]] = {
        "backward": {"activations": activations, "head": head, **({"gradients": gradients} if accumulates else {})},
        "step": {"gradients": gradients},
    }
    if work.fsdp and work.reference:
        phases["reference"] = {"gathered whole": shape.parameters * compute}  # TRL spreads it as one piece
    if work.drawing is not None:
        drawn = work.drawing.rows / processes
        width = work.drawing.longest + work.drawing.limit
        cache = drawn * shape.cache_elements * size * width
        rest = drawn * bytes_per_row(shape, size, work.drawing.longest, work.drawing.limit) - cache
        phases["generation"] = {"cache": cache, "logits and prefill": rest}
        held["log-probabilities"] = drawn * width * 4 * (1 + work.reference + work.old)
    return Memory(held, phases)


def activation_bytes(shape: ModelShape, compute: int, weights: int) -> float:
    """Bytes that a layer keeps of a token for the backward pass, where it computes and has weights in such sizes."""
    hidden, query, key = shape.hidden, shape.query, shape.key
    found = compute * (4 * hidden + 6 * query + 3 * key + 4 * shape.intermediate) + 8 * hidden
    if weights > compute:  # the normalised rows are kept in the weights' type too
        found += 8 * hidden
    if shape.kind in NORMED_QUERIES:
        found += 4 * (query + key)
    return float(found)


def _targets(lora: LoraConfig) -> str | tuple[str, ...]:
    return lora.targets if isinstance(lora.targets, str) else tuple(lora.targets)


# --------------------------------------------------------------------------- what would make it fit


def fits(needed: float, card: Card) -> bool:
    """Whether so many bytes are there; a device without a known limit takes everything."""
    return not card.memory or needed <= card.memory * GIB


def advice(
    work: Work, shape: ModelShape, dtype: str, card: Card, processes: int = 1, ratio: float = 1.0
) -> tuple[list[str], float] | None:
    """The fields that make a stage fit, the least change first, and the bytes needed then; None where none does.

    `ratio` is what was measured by what was estimated of work of the kind.
    """
    for fields, changed in _changes(work, processes):
        needed = with_overhead(memory_of(changed, shape, dtype, card, processes).allocated * ratio)
        if fits(needed, card):
            return fields, needed
    return None


def _changes(work: Work, processes: int) -> Iterator[tuple[list[str], Work]]:
    if isinstance(work, Drawing):
        size = work.batch_size or 2
        while size > 1:
            size //= 2
            yield [f"engine.batch_size: {size}"], replace(work, batch_size=size)
        yield [f"max_tokens: {work.limit // 2}"], replace(work, limit=work.limit // 2, batch_size=1)
        return
    rows = work.at_once(processes)
    sizes = [n for n in range(rows, 0, -1) if rows % n == 0]
    # What changes no result first: rows at once, then recomputing; an adapter instead of every weight only then.
    for lora in [work.lora] if work.lora is not None else [None, LoraConfig(rank=16)]:
        for checkpointing in [True] if work.checkpointing else [False, True]:
            for micro in sizes:
                fields = [f"model.lora: {{rank: {lora.rank}}}"] if lora is not None and work.lora is None else []
                fields += ["trainer.gradient_checkpointing: true"] if checkpointing > work.checkpointing else []
                fields += [f"trainer.micro_batch_size: {micro}"] if micro < rows else []
                changed = replace(work, lora=lora, checkpointing=checkpointing, micro=micro)
                if fields:
                    yield fields, changed
    if work.drawing is not None:
        half = work.drawing.limit // 2
        shorter = replace(work.drawing, limit=half)
        yield (
            [*fields, f"trainer.max_tokens: {half}"],
            replace(changed, longest=work.longest - half, learned=half, drawing=shorter),
        )
