"""How many prompts and samples the `hf` engine decodes at once, where the person does not say.

The answer rests on what does not change between two runs on one machine (total memory, the model's size, the
sampling), not on what happens to be free: a resumed run then meets the same batches. What still does not fit is
halved by the engine. The bounds are measured for small models on two cores (benchmarks/generation.py); for
accelerators they are estimates of memory and a cap.

Limits: the estimates count the key-value cache, the logits and the prefill's widest activations, and assume
multi-head attention with a full cache in every layer; for other designs they are rough.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from nsd.plugins.api import Sampling

ROWS_ON_CPU = 256  # from 64 to 1024 rows the embedded model's rate is the same within noise: the rest is shard size
ROWS_ON_ACCELERATOR = 1024
# A batch is a shard, and a killed run loses the shard in flight: on a CPU keep it to about a minute or two.
MULTIPLICATIONS_PER_CPU_BATCH = 5e12
SHARE_OF_MEMORY = {"cpu": 0.25, "mps": 0.25, "cuda": 0.5}  # of what the weights leave


@dataclass(frozen=True)
class BatchShape:
    """A batch is `prompts` prompts with `samples` samples each."""

    prompts: int
    samples: int


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
    kind = model.device.type
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    memory = max(0, _total_memory(model.device) - weights) * SHARE_OF_MEMORY.get(kind, 0.25)
    bounds = [ROWS_ON_CPU if kind == "cpu" else ROWS_ON_ACCELERATOR]
    bounds.append(int(memory / _bytes_per_row(model, longest_prompt, sampling.max_tokens)))
    if kind == "cpu":
        tokens = sampling.max_tokens + longest_prompt
        bounds.append(int(MULTIPLICATIONS_PER_CPU_BATCH / (model.num_parameters() * max(1, tokens))))
    return max(1, min(bounds))


def _bytes_per_row(model: Any, prompt: int, completion: int) -> float:
    config = model.config.get_text_config()
    size = next(model.parameters()).element_size()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = 2 * config.num_hidden_layers * heads * head * size * (prompt + completion)
    logits = config.vocab_size * 24  # in the model's type, float32, scaled, weights, filters' copies
    widest = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    prefill = prompt * (4 * widest * size + prompt * 4)
    return float(cache * 1.2 + logits + prefill)  # one layer's cache is held twice while it grows


def _total_memory(device: Any) -> int:
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
