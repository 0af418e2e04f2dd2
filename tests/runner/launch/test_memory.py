"""Memory by hand, for half a billion parameters, and activations against what torch saves for real models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nsd.plugins.api import LoraConfig
from nsd.plugins.engines.hf_sizes import shape_of_loaded
from nsd.plugins.model_shape import BYTES, KNOWN
from nsd.runner.launch.cards import CARDS, CPU
from nsd.runner.launch.memory import CONTEXT, SLACK, activation_bytes, advice, fits, memory_of, type_on
from nsd.runner.launch.workload import Drawing, Training

GB = 1e9
HALF_B = KNOWN["qwen2.5-0.5b"]
L4 = CARDS["L4"]
SFT = Training(steps=100, rows=4, tokens=200, longest=400, learned=400)
GROUP = Drawing(rows=8, prompts=8, samples=1, prompt=100, longest=200, limit=256)
GRPO = Training(100, 8, 356, 456, 256, drawing=GROUP, generations=100, reference=True)
LORA = LoraConfig(rank=8)


def test_full_fine_tuning_by_hand() -> None:
    """494 M parameters in bfloat16: .988 GB of weights, twice that of moments, once of gradients."""
    memory = memory_of(SFT, HALF_B, "bfloat16", L4)
    assert memory.held["weights"] == pytest.approx(0.988 * GB, rel=1e-3)
    assert memory.held["moments"] == pytest.approx(1.976 * GB, rel=1e-3)
    assert memory.phases["step"]["gradients"] == pytest.approx(0.988 * GB, rel=1e-3)
    # A token keeps in a layer 2 x (4 x 896 + 6 x 896 + 3 x 128 + 4 x 4864) + 8 x 896 = 64,768 bytes; 1,600 tokens x 24
    # layers are 2.487 GB; one layer's gradients, 2 x (3 x 4864 + 4 x 896) bytes a token, .058 GB.
    assert memory.phases["backward"]["activations"] == pytest.approx((2.487 + 0.058) * GB, rel=1e-3)
    # A tile of 1,600 x 32,768 in bfloat16, the head's gradient of 151,936 x 896 in float32 and bfloat16, the rows'.
    assert memory.phases["backward"]["head"] == pytest.approx((0.1049 + 0.5445 + 0.2723 + 0.0057) * GB, rel=1e-3)
    assert memory.allocated == pytest.approx((0.988 + 1.976 + 2.545 + 0.927) * GB, rel=1e-3)
    assert memory.needed == pytest.approx(memory.allocated * SLACK + CONTEXT)


def test_lora_by_hand() -> None:
    """Rank 8 beside seven linear layers of 24: 4.4 M parameters, in float32; the weights have no gradient."""
    memory = memory_of(replace(SFT, lora=LORA), HALF_B, "bfloat16", L4)
    # 8 x 24 x (2 x 1792 of q and o, 2 x 1024 of k and v, 3 x 5760 of the MLP)
    adapter = 8 * 24 * (2 * 1792 + 2 * 1024 + 3 * 5760)
    assert memory.held["adapter"] == 4 * adapter and memory.held["moments"] == 8 * adapter
    assert memory.phases["step"]["gradients"] == 4 * adapter
    assert memory.phases["backward"]["head"] == pytest.approx((0.1049 + 0.0057) * GB, rel=1e-2)  # it is frozen
    full = memory_of(SFT, HALF_B, "bfloat16", L4)
    assert full.allocated - memory.allocated == pytest.approx((1.976 + 0.817 - 12 * adapter / GB) * GB, rel=1e-2)


def test_float32_weights_have_float32_moments_and_half_precision_copies() -> None:
    memory = memory_of(SFT, HALF_B, "float32", L4)
    assert (memory.held["weights"], memory.held["moments"]) == pytest.approx((1.976 * GB, 3.952 * GB), rel=1e-3)
    half = memory_of(SFT, HALF_B, "bfloat16", L4).phases["backward"]["head"]
    # The head's own gradient takes 4 bytes a number instead of 2, and every weight has a copy of 2.
    assert memory.phases["backward"]["head"] - half == pytest.approx((0.2723 + 0.988) * GB, rel=1e-3)


def test_gradient_checkpointing_keeps_one_layer() -> None:
    memory = memory_of(replace(SFT, checkpointing=True), HALF_B, "bfloat16", L4)
    # Inputs of 24 layers, 1,792 bytes a token each; one layer's 64,768 and its gradients' 36,352.
    assert memory.phases["backward"]["activations"] == 1600 * (24 * 1792 + 64768 + 36352)


def test_activations_grow_with_the_rows_in_memory_at_once() -> None:
    one = memory_of(replace(SFT, micro=1), HALF_B, "bfloat16", L4).phases["backward"]
    assert 4 * one["activations"] == memory_of(SFT, HALF_B, "bfloat16", L4).phases["backward"]["activations"]
    assert one["gradients"] == pytest.approx(0.988 * GB, rel=1e-3)  # they are there while the next rows come


def test_the_reference_model_and_the_generation_of_grpo() -> None:
    memory = memory_of(GRPO, HALF_B, "bfloat16", L4)
    assert memory.held["reference"] == pytest.approx(0.988 * GB, rel=1e-3)
    assert memory.phases["generation"]["cache"] == 8 * 456 * 12288
    # 8 rows: logits of 151,936 x 24 bytes; 200 x (4 x 4864 x 2 + 800) of the prefill; 64 columns of room in the cache,
    # and a fifth of it all again.
    rest = 8 * (151936 * 24 + 200 * (4 * 4864 * 2 + 800)) + 8 * (1.2 * (456 + 64) - 456) * 12288
    assert memory.phases["generation"]["logits and prefill"] == pytest.approx(rest)
    assert memory.held["log-probabilities"] == 8 * 456 * 4 * 2
    for none in (replace(GRPO, reference=False), replace(GRPO, lora=LORA)):
        assert "reference" not in memory_of(none, HALF_B, "bfloat16", L4).held


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize(("dtype", "gb"), [("bfloat16", 3 * 0.988), ("float32", 2 * 0.988)])
def test_an_averaged_teacher_is_a_whole_model_with_an_adapter_too(
    lora: LoraConfig | None, dtype: str, gb: float
) -> None:
    memory = memory_of(replace(GRPO, averaged=True, lora=lora), HALF_B, dtype, L4)
    assert memory.held["teacher"] == pytest.approx(gb * GB, rel=1e-3)  # halves come with float32 to move them in
    assert "reference" not in memory.held


def test_a_sampling_takes_weights_cache_and_a_steps_logits() -> None:
    drawn = Drawing(rows=64, prompts=8, samples=8, prompt=100, longest=200, limit=256)
    memory = memory_of(drawn, HALF_B, "bfloat16", L4)
    assert memory.held == {"weights": pytest.approx(0.988 * GB, rel=1e-3)}
    assert memory.phases["generation"]["cache"] == 64 * 456 * 12288
    few = memory_of(replace(drawn, batch_size=1), HALF_B, "bfloat16", L4)
    assert few.phases["generation"]["cache"] == 8 * 456 * 12288


def test_a_sampling_of_very_many_rows_takes_half_of_what_the_weights_leave() -> None:
    drawn = Drawing(rows=1e6, prompts=1e5, samples=10, prompt=1000, longest=2000, limit=2048)
    memory = memory_of(drawn, KNOWN["qwen2.5-7b"], "bfloat16", L4)
    left = 22.5 * 2**30 - memory.held["weights"]
    assert sum(memory.phases["generation"].values()) == pytest.approx(0.5 * left, rel=0.1)


@pytest.mark.parametrize(
    ("card", "trained", "drawn"),
    [("L4", "bfloat16", "bfloat16"), ("T4", "float32", "float16"), ("P100", "float32", "float32")],
)
def test_the_type_in_force_is_the_cards(card: str, trained: str, drawn: str) -> None:
    assert type_on(CARDS[card], "bfloat16", HALF_B, True) == trained
    assert type_on(CARDS[card], "auto", HALF_B, False) == drawn


def test_several_processes_share_rows_and_not_weights() -> None:
    one, two = (memory_of(SFT, HALF_B, "bfloat16", L4, count) for count in (1, 2))
    assert two.phases["backward"]["activations"] == one.phases["backward"]["activations"] / 2
    assert two.held == one.held and two.phases["step"]["gradients"] == 2 * one.phases["step"]["gradients"]


# --------------------------------------------------------------------------- what makes it fit


def test_fsdp_spreads_all_but_what_is_computed_with() -> None:
    """A quarter each of 494 M weights, gradients and two moments in float32; two layers and the embedding in bfloat16.

    A layer of Qwen2.5 0.5B has 14,912,384 parameters, the tied embedding 151,936 x 896.
    """
    memory = memory_of(replace(SFT, fsdp=True), HALF_B, "bfloat16", CARDS["H100"], processes=4)
    assert memory.held["weights"] == pytest.approx(0.494 * GB, rel=1e-3)
    assert memory.held["moments"] == pytest.approx(0.988 * GB, rel=1e-3)
    assert memory.phases["step"]["gradients"] == pytest.approx(0.494 * GB, rel=1e-3)
    assert memory.held["gathered"] == 2 * (2 * 14_912_384 + 151_936 * 896)


def test_an_8b_model_is_fine_tuned_whole_on_four_h100_by_fsdp_alone() -> None:
    eight = replace(SFT, rows=8, micro=1, checkpointing=True)
    shape, h100 = KNOWN["llama-3.1-8b"], CARDS["H100"]
    assert not fits(memory_of(eight, shape, "bfloat16", h100, processes=4).needed, h100)
    assert fits(memory_of(replace(eight, fsdp=True), shape, "bfloat16", h100, processes=4).needed, h100)


def test_the_least_change_that_fits_is_named_first() -> None:
    long = replace(SFT, rows=16, longest=1000)  # 16 rows x 1.55 MB x 1,000 tokens: 25 GB
    found = advice(long, HALF_B, "bfloat16", L4)
    assert found is not None and found[0] == ["trainer.micro_batch_size: 8"] and fits(found[1], L4)


def test_longer_rows_ask_for_checkpointing() -> None:
    found = advice(replace(SFT, rows=1, longest=16000), HALF_B, "bfloat16", L4)
    assert found is not None and found[0] == ["trainer.gradient_checkpointing: true"]


def test_an_8b_model_on_an_l4_asks_for_lora_and_on_a_t4_for_another_card() -> None:
    found = advice(SFT, KNOWN["qwen3-8b"], "bfloat16", L4)
    assert found is not None and found[0][0] == "model.lora: {rank: 16}"
    assert advice(SFT, KNOWN["qwen3-8b"], "bfloat16", CARDS["T4"]) is None


def test_a_batch_that_was_chosen_too_large_is_told_a_smaller_one() -> None:
    drawn = Drawing(rows=32000, prompts=4000, samples=8, prompt=100, longest=200, limit=256, batch_size=1024)
    found = advice(drawn, HALF_B, "bfloat16", L4)
    # 8 rows of 12.9 MB to a prompt.
    assert found is not None and found[0] == ["engine.batch_size: 128"]


def test_everything_fits_where_no_limit_is_known() -> None:
    assert fits(1e15, CPU)


# --------------------------------------------------------------------------- activations of real models

SIZES: dict[str, Any] = {
    **{"vocab_size": 300, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1},
}
ROWS, TOKENS = 4, 96


def saved_bytes(model: Any, mixed: bool) -> float:
    """Bytes that autograd keeps of one forward pass through the layers, parameters not counted."""
    import torch

    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, tuple[int, Any]] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    ids = torch.randint(0, 300, (ROWS, TOKENS))
    mask = torch.ones_like(ids)
    mask[0, :20] = 0
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed),
    ):
        held = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    assert held.last_hidden_state.requires_grad
    return float(sum(size for size, _ in kept.values()))


@pytest.mark.parametrize("kind", ["Qwen2", "Qwen3", "Llama", "Olmo2"])
@pytest.mark.parametrize(("dtype", "mixed"), [("bfloat16", True), ("float32", False), ("float32", True)])
def test_activations_are_what_torch_keeps_of_a_real_model(kind: str, dtype: str, mixed: bool) -> None:
    import torch
    import transformers

    config = getattr(transformers, f"{kind}Config")(**SIZES)
    model = transformers.AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype)).train()
    shape = shape_of_loaded(model)
    found = saved_bytes(model, mixed)
    compute = 2 if mixed else BYTES[dtype]
    if mixed and dtype == "float32":  # autocast's copies of the weights are counted with the head
        found -= 2 * shape.layers * shape.layer_parameters
    expected = ROWS * TOKENS * shape.layers * activation_bytes(shape, compute, BYTES[dtype])
    assert expected == pytest.approx(found, rel=0.15)


def test_trl_keeps_no_logits_of_a_batch() -> None:
    """Why the head costs a tile: the largest tensor that is kept is far below rows x tokens x vocabulary."""
    import torch
    import transformers
    from trl.trainer.utils import add_fused_lm_head

    vocabulary = 20_000
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.Qwen2Config(**{**SIZES, "vocab_size": vocabulary})
    )
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    sizes = [0]

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        sizes.append(0 if storage.data_ptr() in weights else storage.nbytes())
        return tensor

    ids = torch.randint(0, vocabulary, (ROWS, TOKENS))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = model(input_ids=ids, labels=ids, fused_lm_head=True)
    assert found.log_probs.requires_grad and max(sizes) < 4 * ROWS * TOKENS * vocabulary / 20
