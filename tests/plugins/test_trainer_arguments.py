"""Every field of a trainer and of LoRA arrives in the real TRL and peft configs that the trainers build."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import training_job
from nsd.plugins.api import LoraConfig, ModelRef
from nsd.plugins.errors import StageFailed
from nsd.plugins.models import EMBEDDED
from nsd.plugins.registry import find
from nsd.plugins.trainers import _setup

MODEL = EMBEDDED / "wordmath-1m"
# Field -> a value that is not its default, and what TRL's config then holds.
SHARED: dict[str, tuple[Any, dict[str, Any]]] = {
    "learning_rate": (3e-3, {"learning_rate": 3e-3}),
    "lr_scheduler": ("cosine", {"lr_scheduler_type": "cosine"}),
    "warmup_steps": (3, {"warmup_steps": 3}),
    "warmup_ratio": (0.25, {"warmup_steps": 0.25}),
    "weight_decay": (0.5, {"weight_decay": 0.5}),
    "max_grad_norm": (0.25, {"max_grad_norm": 0.25}),
    "gradient_checkpointing": (True, {"activation_checkpointing": True}),
    "ddp_timeout": (60, {"ddp_timeout": 60}),
}
SFT: dict[str, tuple[Any, dict[str, Any]]] = {
    **SHARED,
    "batch_size": (6, {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 1}),
    "micro_batch_size": (2, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}),
    "max_length": (33, {"max_length": 33}),
    "loss": ("full", {"completion_only_loss": False}),
    "trl": ({"adam_beta2": 0.5}, {"adam_beta2": 0.5}),
}
GRPO: dict[str, tuple[Any, dict[str, Any]]] = {
    **SHARED,
    "prompts_per_step": (3, {"per_device_train_batch_size": 24}),
    "num_generations": (2, {"num_generations": 2, "per_device_train_batch_size": 2}),
    "micro_batch_size": (4, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}),
    "temperature": (0.5, {"temperature": 0.5}),
    "top_p": (0.5, {"top_p": 0.5}),
    "top_k": (7, {"top_k": 7}),
    "max_tokens": (9, {"max_completion_length": 9}),
    "loss_type": ("dapo", {"loss_type": "dapo"}),
    "beta": (0.5, {"beta": 0.5}),
    "num_iterations": (2, {"num_iterations": 2}),
    "steps_per_generation": (2, {"steps_per_generation": 2, "generation_batch_size": 16}),
    "epsilon": (0.5, {"epsilon": 0.5}),
    "scale_rewards": ("none", {"scale_rewards": "none"}),
    "rewards": (
        [{"use": "correct", "weight": 2.0}, {"use": "finished", "weight": 0.5}],
        {"reward_weights": [2.0, 0.5]},
    ),
    "trl": ({"adam_beta2": 0.5}, {"adam_beta2": 0.5}),
}
# Fields that TRL is told elsewhere: the length of the run, the callback's grain, the watch, the sampler's; bf16 on a
# GPU alone, and fsdp in several processes alone (test_sharding.py).
NOT_IN_ARGUMENTS = {
    "sft": {"epochs", "save_every", "log_every", "mixed_precision", "fsdp", "group_by_length"},
    "grpo": {"steps", "save_every", "log_every", "mixed_precision", "fsdp", "health", "rollout", "rollout_memory"},
}


class Built(Exception):
    """Stops a training when everything for it has been made."""


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the last trainer was made of; nothing is trained."""
    found: dict[str, Any] = {}

    def build(trainer_class: Any, **given: Any) -> Any:
        found.clear()
        found.update(given)
        raise Built

    monkeypatch.setattr(_setup, "build", build)
    return found


def built(parts: dict[str, Any], kind: str, config: dict[str, Any], folder: Path, **changes: Any) -> dict[str, Any]:
    start = changes.pop("model", ModelRef(str(MODEL)))
    with pytest.raises(Built):
        training_job.train(kind, config, training_job.job(folder, start, training_job.Events(), **changes))
    return parts


@pytest.mark.parametrize(("kind", "table"), [("sft", SFT), ("grpo", GRPO)])
def test_every_field_of_the_config_has_its_place(kind: str, table: dict[str, Any]) -> None:
    fields = set(find("trainer", kind).Config.model_fields)
    assert fields == set(table) | NOT_IN_ARGUMENTS[kind], "say where a new field arrives"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "table"), [("sft", SFT), ("grpo", GRPO)])
def test_each_field_arrives_in_trls_config_and_is_not_there_without_it(
    kind: str, table: dict[str, tuple[Any, dict[str, Any]]], parts: dict[str, Any], tmp_path: Path
) -> None:
    plain = built(parts, kind, {}, tmp_path)["args"]
    for field, (value, expected) in table.items():
        args = built(parts, kind, {field: value}, tmp_path)["args"]
        arrived = {name: getattr(args, name) for name in expected}
        assert arrived == expected, field
        assert arrived != {name: getattr(plain, name) for name in expected}, f"{field} is the default anyway"


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_a_field_beside_others_changes_nothing_else(kind: str, parts: dict[str, Any], tmp_path: Path) -> None:
    plain = built(parts, kind, {}, tmp_path)["args"].to_dict()
    other = built(parts, kind, {"weight_decay": 0.5}, tmp_path)["args"].to_dict()
    assert {name for name in plain if plain[name] != other[name]} == {"weight_decay"}


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_the_seeds_and_the_place_arrive(kind: str, parts: dict[str, Any], tmp_path: Path) -> None:
    args = built(parts, kind, {}, tmp_path, run_name="toy/arm/seed1")["args"]
    assert (args.seed, args.data_seed, args.run_name) == (11, 12, "toy/arm/seed1")
    assert args.output_dir == str(tmp_path / "checkpoints") and str(args.save_strategy) == "SaveStrategy.NO"
    assert args.report_to == []


@pytest.mark.parametrize(("wanted", "gpu", "bf16"), [("bf16", True, True), ("no", True, False), ("bf16", False, False)])
def test_mixed_precision_is_used_where_a_gpu_has_it(
    wanted: str, gpu: bool, bf16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu)
    config = find("trainer", "sft").Config.model_validate({"mixed_precision": wanted})
    made = training_job.job(tmp_path, MODEL, training_job.Events())
    fields = _setup.arguments(dict, made, config, {})
    assert (fields["bf16"], fields["use_cpu"]) == (bf16, not gpu)


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_every_field_of_lora_arrives_in_pefts_config(kind: str, parts: dict[str, Any], tmp_path: Path) -> None:
    lora = LoraConfig(rank=3, alpha=5.5, targets=["q_proj", "o_proj"], dropout=0.25)
    assert set(LoraConfig.model_fields) == {"rank", "alpha", "targets", "dropout"}, "say where a new field arrives"
    found = built(parts, kind, {}, tmp_path, lora=lora)["peft_config"]
    assert (found.r, found.lora_alpha, found.target_modules, found.lora_dropout) == (3, 5.5, {"q_proj", "o_proj"}, 0.25)
    assert found.task_type == "CAUSAL_LM"
    assert built(parts, kind, {}, tmp_path)["peft_config"] is None
    every = built(parts, kind, {}, tmp_path, lora=LoraConfig(rank=1))["peft_config"]
    assert (every.target_modules, every.lora_alpha, every.lora_dropout) == ("all-linear", 32, 0.0)


def test_the_reference_model_of_grpo_has_the_models_revision(parts: dict[str, Any], tmp_path: Path) -> None:
    start = ModelRef(str(MODEL), revision="a-tag")
    assert built(parts, "grpo", {}, tmp_path, model=start)["args"].model_init_kwargs == {"revision": "a-tag"}
    assert built(parts, "grpo", {}, tmp_path)["args"].model_init_kwargs is None


def test_the_reference_model_of_grpo_goes_to_the_gpu_whole(tmp_path: Path) -> None:
    import torch

    made = training_job.job(tmp_path, ModelRef(str(MODEL), revision="a-tag"), training_job.Events())
    args = SimpleNamespace(device=torch.device("cuda:1"), fsdp=None)
    assert _setup.reference_options(made, args) == {"revision": "a-tag", "device_map": "cuda:1"}
    args.fsdp = True
    assert _setup.reference_options(made, args) == {"revision": "a-tag", "device_map": None}


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ("_get_per_token_logps_and_entropies", r"lower trainer\.micro_batch_size \(now 2; the result stays the same\)"),
        ("reference", r"beside the model that is trained: trainer\.beta: 0 needs no reference model"),
        ("optimizer", r"in the optimizer, which keeps two numbers for each trained weight: model\.lora trains few"),
    ],
)
@pytest.mark.slow
def test_out_of_memory_names_what_was_too_much_and_the_field(
    moment: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import trl.trainer.grpo_trainer as trl_grpo

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    if moment == "reference":
        monkeypatch.setattr(trl_grpo, "create_model_from_path", full)
    elif moment == "optimizer":
        monkeypatch.setattr(torch.optim.AdamW, "step", full)
    else:
        monkeypatch.setattr(trl_grpo.GRPOTrainer, moment, full)
    config = {"steps": 1, "num_generations": 2, "max_tokens": 4, "rewards": ["test_share_of_vowels"]}
    with pytest.raises(StageFailed, match=rf"out of memory.*{said}.*2\.00 GiB"):
        training_job.train("grpo", config, training_job.job(tmp_path, MODEL, training_job.Events()))


def test_grpo_asks_the_rewards_that_are_named_in_their_order(parts: dict[str, Any], tmp_path: Path) -> None:
    config = {"rewards": [{"use": "finished", "bonus": 0.5}, "correct", "finished"]}
    functions = built(parts, "grpo", config, tmp_path)["reward_funcs"]
    assert [function.__name__ for function in functions] == ["finished", "correct", "finished_2"]


def test_sft_trains_on_what_the_loss_says(parts: dict[str, Any], tmp_path: Path) -> None:
    row = built(parts, "sft", {}, tmp_path, count=1)["train_dataset"][0]
    assert row == {"prompt": "Add: 0+0?", "completion": " that makes 0"}
    row = built(parts, "sft", {"loss": "full"}, tmp_path, count=1)["train_dataset"][0]
    assert row == {"text": "Add: 0+0? that makes 0"}
