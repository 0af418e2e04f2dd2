"""How many prompts and samples the `hf` engine decodes at once, where the person does not say.

The answer rests on what does not change between two runs on one machine (total memory, the model's size, the
sampling), not on what happens to be free: a resumed run then meets the same batches. What still does not fit is
halved by the engine. The bounds are measured for small models on two cores (benchmarks/generation.py); for
accelerators they are estimates of memory and a cap.

`nsd plan` estimates with the same functions (runner/launch/memory.py), before there is a model.

The estimates count the key-value cache, the logits and the prefill's widest activations. The peak of a process was
measured on a CPU, with 16 and with 64 rows (Qwen3 with shared heads and GPT-2, 8 layers, float32, vocabularies of 2,000
to 150,000, prompts of 32 to 1,024 tokens, completions of 16 to 512): a row more took .53 to 1.01 of its estimate, the
least where logits are most of it.

Limits: a full cache in every layer is assumed; for other designs the estimates are rough.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from nsd.plugins.api import Sampling
from nsd.plugins.model_shape import ModelShape, read_shape

ROWS_ON_CPU = 256  # from 64 to 1024 rows the embedded model's rate is the same within noise: the rest is shard size
ROWS_ON_ACCELERATOR = 1024
# A batch is a shard, and a killed run loses the shard in flight: on a CPU keep it to about a minute or two.
MULTIPLICATIONS_PER_CPU_BATCH = 5e12
# In the model's type, in float32, and the copy that becomes weights: 10 to 12; then the logarithm of a sum, 4, or top-p
# over the sorted vocabulary, 12.
BYTES_PER_LOGIT = 24
CACHE_GROWS = 1.2  # one layer's cache is held twice while it grows
ROOM = 64  # columns of the cache beside a row's own: a move of the window costs a copy of it, so it must be rare
SHARE_OF_MEMORY = {"cpu": 0.25, "mps": 0.25, "cuda": 0.5}  # of what the weights leave


@dataclass(frozen=True)
class BatchShape:
    """A batch is `prompts` prompts with `samples` samples each."""

    prompts: int
    samples: int

    def rows(self, sampling: Sampling) -> int:
        """Rows that are written at once. Greedy samples of a prompt are one."""
        return self.prompts if sampling.temperature == 0 else self.prompts * self.samples


def batch_shape(model: Any, sampling: Sampling, longest_prompt: int, batch_size: int | None) -> BatchShape:
    """The shape of every batch. `batch_size` prompts if given; `longest_prompt` in tokens."""
    if batch_size is not None:
        return BatchShape(batch_size, sampling.n)
    rows = _rows(model, sampling, longest_prompt)
    if sampling.temperature == 0:  # the samples of a prompt are one row
        return BatchShape(rows, sampling.n)
    samples = min(sampling.n, rows)
    return BatchShape(max(1, rows // samples), samples)


def _rows(model: Any, sampling: Sampling, longest_prompt: int) -> int:
    size = next(model.parameters()).element_size()
    return rows_at_once(
        shape_of_loaded(model),
        Held(
            model.device.type,
            _total_memory(model.device),
            weights=sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
            parameters=model.num_parameters(),
            size=size,
        ),
        longest_prompt,
        sampling.max_tokens,
        1 if sampling.temperature == 0 else sampling.n,
    )


@dataclass(frozen=True)
class Held:
    """A device ("cpu", "cuda", "mps") of `memory` bytes with a model on it: `weights` in bytes, `size` of a number."""

    kind: str
    memory: float
    weights: float
    parameters: float
    size: int


def rows_at_once(shape: ModelShape, held: Held, prompt: int, completion: int, samples: int = 1) -> int:
    """Rows of a batch, where prompts are at most so long and completions too, in tokens, and so many share a prompt."""
    memory = max(0.0, held.memory - held.weights) * SHARE_OF_MEMORY.get(held.kind, 0.25)
    bounds = [ROWS_ON_CPU if held.kind == "cpu" else ROWS_ON_ACCELERATOR]
    bounds.append(int(memory / bytes_per_row(shape, held.size, prompt, completion, samples)))
    if held.kind == "cpu":
        bounds.append(int(MULTIPLICATIONS_PER_CPU_BATCH / (held.parameters * max(1, completion + prompt))))
    return max(1, min(bounds))


def bytes_per_row(shape: ModelShape, size: int, prompt: int, completion: int, samples: int = 1) -> float:
    """Bytes that a row takes at most while it is decoded: its cache, its logits, its share of the prefill.

    The `samples` of a prompt share one prefill.
    """
    cache = shape.cache_elements * size * (prompt + completion + ROOM)
    logits = shape.vocabulary * BYTES_PER_LOGIT
    prefill = prompt * (4 * shape.intermediate * size + prompt * 4)
    return float(cache * CACHE_GROWS + logits + prefill / samples)


def shape_of_loaded(model: Any) -> ModelShape:
    """The shape of a model that is loaded."""
    config = model.config.get_text_config()
    return read_shape(lambda name: getattr(config, name, None))


def _total_memory(device: Any) -> int:
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
