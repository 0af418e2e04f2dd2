"""A decoding step reads nothing back from the device, and its prebuilt mask changes no bit of what is drawn.

Without a GPU the proof is a device without values: on `meta` tensors have shapes alone, and whatever asks one for a
number fails there as it would wait on a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nsd.plugins import models
from nsd.plugins.api import ModelRef, Sampling
from nsd.plugins.engines import hf_decode, hf_mask
from nsd.plugins.engines.hf_decode import UNIFORM_BLOCK, Batch, Rows, Ways, decode
from nsd.plugins.engines.hf_prefill import Queue, Wanted
from thinned import thinned
from tiny_model import make_tiny_model

SAMPLINGS = {
    "greedy": Sampling(1, 0.0, 40),
    "temperature": Sampling(1, 0.7, 40),
    "top_k": Sampling(1, 1.0, 40, top_k=5),
    "top_p": Sampling(1, 1.0, 40, top_p=0.9),
    "both": Sampling(1, 1.0, 40, top_k=5, top_p=0.9),
}
PADDED, EVEN = [[5, 6, 7, 8], [9, 10]], [[5, 6, 7], [9, 10, 11]]


def tiny(kind: str, attention: str = "sdpa", dtype: Any = torch.float32) -> Any:
    """A random model of a kind, in eval mode; torch's generator is left as it was."""
    import transformers as t

    size = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    size |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    size |= {"initializer_range": 0.2}
    config = {
        "llama": t.LlamaConfig,
        "mistral": t.MistralConfig,
        "olmo2": t.Olmo2Config,
        "qwen2": t.Qwen2Config,
        "qwen3": t.Qwen3Config,
    }[kind](**size, **({"sliding_window": None} if kind == "mistral" else {}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = t.AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    return model.eval()


def begun(model: Any, prompts: list[list[int]], sampling: Sampling) -> Batch:
    """A batch after its prompts, three samples each."""
    wanted = [
        Wanted(3 * index + sample, str(index), prompt, 1 + 3 * index + sample, 40)
        for index, prompt in enumerate(prompts)
        for sample in range(3)
    ]
    queue = Queue(model, wanted, 0)
    group = queue.take(6)
    assert group is not None
    return Batch(model, queue, group, Ways(sampling, [1, 2], 6, 40), 0)


def without_values(batch: Batch) -> None:
    """Move all that a step works on to a device that has no values."""
    batch.model.to("meta")
    for holder in (batch, batch.memory, *batch.memory.cache.layers):
        for name, value in vars(holder).items():
            if isinstance(value, torch.Tensor):
                setattr(holder, name, value.to("meta"))


def steps(batch: Batch, count: int) -> None:
    for _ in range(count):
        batch.forward()
        batch.draw()


@pytest.mark.slow
@pytest.mark.parametrize("sampling", thinned(SAMPLINGS.values()), ids=SAMPLINGS)
@pytest.mark.parametrize("prompts", thinned([PADDED, EVEN]), ids=["padded", "even"])
def test_a_step_reads_nothing_back_to_the_host(prompts: list[list[int]], sampling: Sampling) -> None:
    with torch.inference_mode():
        batch = begun(tiny("qwen3"), prompts, sampling)
        without_values(batch)
        steps(batch, UNIFORM_BLOCK + 2)  # with the step that draws another block of random numbers
    assert batch.logits.device.type == batch.written.device.type == "meta"


@pytest.mark.parametrize("kind", sorted(hf_mask.MODELS))
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_model_that_takes_the_prebuilt_mask_reads_nothing_back(kind: str, attention: str) -> None:
    with torch.inference_mode():
        batch = begun(tiny(kind, attention), PADDED, SAMPLINGS["temperature"])
        without_values(batch)
        steps(batch, 3)


def test_the_plain_mask_is_read_back_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the prebuilt one is for; and that this file would notice."""
    monkeypatch.setattr(hf_mask, "MODELS", frozenset())
    with torch.inference_mode():
        batch = begun(tiny("qwen3"), PADDED, SAMPLINGS["temperature"])
        without_values(batch)
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            steps(batch, 1)


@pytest.mark.parametrize("prompts", [PADDED, EVEN], ids=["padded", "even"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", thinned(sorted(hf_mask.MODELS)))
def test_the_prebuilt_mask_changes_no_bit(
    kind: str, attention: str, dtype: Any, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_decode, "takes_quick_steps", lambda model: False)  # it sums in another order
    model = tiny(kind, attention, dtype)
    rows = Rows(prompts, [0, 0, 0, 1, 1, 1], range(1, 7), [40] * 6)
    found = []
    for taken in (hf_mask.MODELS, frozenset[str]()):
        monkeypatch.setattr(hf_mask, "MODELS", taken)
        drawn = decode(model, rows, SAMPLINGS["temperature"], [1, 2], 0)
        found.append([(one.tokens, one.ended, one.confidence) for one in drawn])
    assert found[0] == found[1]
    assert len({len(tokens) for tokens, *_ in found[0]}) > 1, "rows leave the batch at different steps"


def test_a_model_with_a_sliding_window_gets_the_plain_mask() -> None:
    import transformers as t

    config = t.MistralConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=4,
    )
    with torch.inference_mode():
        batch = begun(t.AutoModelForCausalLM.from_config(config).eval(), PADDED, SAMPLINGS["temperature"])
    assert batch.memory.mask().tolist() == [[1, 1, 1, 1, 1]] * 3 + [[0, 0, 1, 1, 1]] * 3


def test_the_mask_of_padded_rows_by_hand() -> None:
    nothing = float("-inf")
    with torch.inference_mode():
        batch = begun(tiny("llama"), PADDED, SAMPLINGS["temperature"])
        assert batch.memory.mask().tolist() == [[[[0.0] * 5]]] * 3 + [[[[nothing, nothing, 0.0, 0.0, 0.0]]]] * 3
        assert batch.memory.mask().stride(0) % hf_mask.ALIGNED == 0
        batch.memory.select(torch.tensor([0, 2]), [0, 2])
        assert batch.memory.mask() is None, "whoever is left has no padding"


def test_a_model_as_it_is_loaded_takes_the_prebuilt_mask(tmp_path: Path) -> None:
    model, _ = models.load_model(ModelRef(str(make_tiny_model(tmp_path))), device="cpu")
    with torch.inference_mode():
        batch = begun(model, PADDED, SAMPLINGS["temperature"])
    assert batch.memory.mask().ndim == 4
