"""Counts of parameters, adapters and cache, held against real models and the published totals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.model_shape import KNOWN, ModelShape, read_shape, shape_of
from tiny_model import make_tiny_model

# As the hub's model cards give them, of the safetensors without a tied head's copy.
PUBLISHED = {
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "allenai/OLMo-2-0425-1B": 1_484_916_736,
    "allenai/OLMo-2-1124-7B-Instruct": 7_298_617_344,
}
SIZES: dict[str, Any] = {
    **{"vocab_size": 259, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1},
}


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize(("model", "parameters"), PUBLISHED.items())
def test_a_known_model_has_the_parameters_that_are_published(model: str, parameters: int) -> None:
    shape, source = shape_of(model)
    assert (shape.parameters, source) == (parameters, "table")


def configs() -> dict[str, Any]:
    import transformers as t

    return {
        "qwen2": lambda: t.Qwen2Config(**SIZES, tie_word_embeddings=True),
        "qwen3": lambda: t.Qwen3Config(**SIZES, head_dim=24, tie_word_embeddings=False),
        "llama": lambda: t.LlamaConfig(**SIZES, tie_word_embeddings=False),
        "olmo2": lambda: t.Olmo2Config(**SIZES, tie_word_embeddings=True),
    }


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama", "olmo2"])
def test_parameters_are_those_of_a_real_model(kind: str) -> None:
    import transformers as t

    model = t.AutoModelForCausalLM.from_config(configs()[kind]())
    shape = read_shape(lambda name: getattr(model.config, name, None))
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_an_adapter_has_the_parameters_that_peft_gives_it() -> None:
    import peft
    import transformers as t

    model = t.AutoModelForCausalLM.from_config(configs()["qwen3"]())
    shape = read_shape(lambda name: getattr(model.config, name, None))
    for targets in ("all-linear", ["q_proj", "down_proj"]):
        lora = peft.LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
        wrapped = peft.get_peft_model(t.AutoModelForCausalLM.from_config(model.config), lora)
        trained = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
        chosen = targets if isinstance(targets, str) else tuple(targets)
        assert shape.adapter_parameters(4, chosen) == trained


def test_a_local_folder_is_read_from_its_config(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    shape, source = shape_of(str(folder))
    # Embedding 259 x 64 and a norm; two layers of 2 x 64 x 64 + 2 x 64 x 32 + 3 x 64 x 128 + 2 x 64 + 2 x 32.
    assert (shape.parameters, source, shape.dtype) == (16576 + 64 + 2 * 37056, "config.json", "float32")
    assert shape.cache_elements == 2 * 2 * 1 * 32


def test_a_model_in_the_hub_cache_is_read_from_its_config(tmp_path: Path) -> None:
    place, commit = tmp_path / "hub" / "models--some--model-7B", "0" * 40
    (place / "snapshots" / commit).mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    config = {"model_type": "llama", **SIZES, "torch_dtype": "float16", "tie_word_embeddings": True}
    (place / "snapshots" / commit / "config.json").write_text(json.dumps(config))
    shape, source = shape_of("some/model-7B")
    assert (shape.layers, shape.dtype, source) == (3, "float16", "config.json") and shape.parameters < 1e6


def test_a_model_of_another_kind_counts_by_the_size_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "experts-30B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_moe", **SIZES}))
    assert shape_of(str(folder))[0].parameters == 30e9


@pytest.mark.parametrize(
    ("model", "parameters"), [("x/Foo-13B", 13e9), ("builtin:other-1m", 1e6), ("x/Bar-3-8b", 8e9), ("gpt2", 1e9)]
)
def test_else_the_size_is_in_the_name(model: str, parameters: float) -> None:
    assert shape_of(model) == (shape_of(model)[0], "name") and shape_of(model)[0].parameters == parameters


def test_the_cache_of_half_a_billion_parameters_by_hand() -> None:
    """24 layers x 2 heads x 64 x (keys and values): 6,144 numbers, 12 KiB in bfloat16, a token."""
    shape: ModelShape = KNOWN["qwen2.5-0.5b"]
    assert shape.cache_elements == 24 * 2 * 64 * 2 == 6144
