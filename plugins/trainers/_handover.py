"""Weights on their way from a training to a vLLM that draws its rollouts: written to files, an adapter merged.

    with room_for(model) as folder:
        write_weights(model, folder / "step-3")

Files are what vLLM can be asked to read, and what a print of the weights is known of (engines/vllm_side/nsd_vllm.py).
They lie in main memory (/dev/shm) where there is room for two copies.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from nsd.plugins.trainers._rollouts import bare

IN_MEMORY = Path("/dev/shm")


def new_folder(model: Any) -> tempfile.TemporaryDirectory[str]:
    """A folder for the weights of a model; it goes when it is let go of."""
    size = sum(one.numel() * one.element_size() for one in bare(model).parameters())
    roomy = IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > 3 * size
    return tempfile.TemporaryDirectory(prefix="nsd-rollouts-", dir=IN_MEMORY if roomy else None)


def write_weights(model: Any, folder: Path) -> None:
    """Write a model as `from_pretrained` and vLLM read it, an adapter added to the weights that it is on."""
    inner = bare(model)
    inner.save_pretrained(folder, state_dict=_weights(model))


def named_weights(model: Any) -> dict[str, Any]:
    """The same weights by name, a head that is the embedding left out."""
    tied = bool(bare(model).config.get_text_config().tie_word_embeddings)
    return {name: value for name, value in _weights(model).items() if not (tied and name == "lm_head.weight")}


def _weights(model: Any) -> dict[str, Any]:
    """What a file of the model holds. The model stays as it is: to add an adapter and take it away again would round
    the weights.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    inner = bare(model)
    deltas = {
        f"{name}.weight": module.get_delta_weight(adapter)
        for name, module in inner.named_modules()
        if isinstance(module, LoraLayer)
        for adapter in module.active_adapters
    }
    found = {}
    with torch.no_grad():
        for name, value in inner.state_dict().items():
            if "lora_" not in name:
                plain = name.replace(".base_layer.", ".")
                found[plain] = value + deltas[plain].to(value.dtype) if plain in deltas else value
    return found
