"""`gradient_checkpointing` saves memory and changes nothing else: with LoRA too, whose inputs ask for no gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import LoraConfig
from nsd.plugins.trainers import _setup
from tiny_model import make_tiny_model
from training_job import Events, job, train

GRPO = {"steps": 1, "num_generations": 4, "max_tokens": 6, "rewards": ["test_share_of_vowels"]}
CONFIGS: dict[str, dict[str, Any]] = {"sft": {"epochs": 0.3}, "grpo": GRPO}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the gradients of the last training were before its first step, and how often a layer was computed."""
    found: dict[str, Any] = {}
    inner = _setup.build

    def build(*args: Any, **parts: Any) -> Any:
        from transformers import TrainerCallback

        trainer = inner(*args, **parts)
        found.clear()
        found["layers"] = 0

        def count(*_: Any) -> None:
            import torch

            found["layers"] += torch.is_grad_enabled()

        layer = next(module for name, module in trainer.model.named_modules() if name.endswith("layers.0.self_attn"))
        layer.register_forward_hook(count)

        class Callback(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
            def on_pre_optimizer_step(self, *_: Any, model: Any = None, **__: Any) -> None:
                found.update({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})

        trainer.add_callback(Callback())
        return trainer

    monkeypatch.setattr(_setup, "build", build)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["full", "lora"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_recomputing_gives_the_gradients_that_keeping_gives(
    kind: str, lora: LoraConfig | None, model: Path, tmp_path: Path, gradients: dict[str, Any]
) -> None:
    import torch

    train(kind, CONFIGS[kind], job(tmp_path / "kept", model, Events(), lora=lora))
    kept = dict(gradients)
    config = CONFIGS[kind] | {"gradient_checkpointing": True}
    train(kind, config, job(tmp_path / "again", model, Events(), lora=lora))
    assert gradients.pop("layers") == 2 * kept.pop("layers"), "each layer is computed once more in the backward pass"
    assert set(gradients) == set(kept) and len(kept) >= 4
    assert all(torch.equal(gradients[name], kept[name]) for name in kept)
    # LoRA's second matrix starts at zero, so the first one has no gradient yet.
    moving = [name for name in kept if lora is None or "lora_B" in name]
    assert moving and all(kept[name].abs().max() > 0 for name in moving)
