"""Writes the weights of a training as safetensors, at its end or in its middle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nsd.plugins.api import TrainJob
from nsd.plugins.models import own_type
from nsd.plugins.trainers import _sharding


def adapter_only(job: TrainJob) -> bool:
    """Whether a training leaves an adapter alone: one that started from a plain model.

    On top of a merged start it is merged too, so that the artifact does not need the intermediate weights.
    """
    return job.lora is not None and job.model.adapter is None


def write(trainer: Any, tokenizer: Any, job: TrainJob, folder: Path, merge: bool = True) -> None:
    """Write the weights as they are to a folder. Every process must call it; the first one writes.

    Merging an adapter takes the model apart: `merge` false leaves it an adapter, and the training can go on. Weights
    are saved in the type in which they were trained, and the config beside them names the type of the start, in which
    they are to be loaded (plugins/models.py).
    """
    trainer.accelerator.wait_for_everyone()
    gathered = {"state_dict": _sharding.whole_weights(trainer)} if trainer.args.fsdp else {}
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        alone = adapter_only(job) or (job.lora is not None and not merge)
        if job.lora is not None and not alone:
            model = model.merge_and_unload()
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder, safe_serialization=True, **gathered)
        if not alone:
            tokenizer.save_pretrained(folder)
            _say_own_type(job, folder)
    trainer.accelerator.wait_for_everyone()


def load_adapter(trainer: Any, folder: Path) -> None:
    """Give the model, on the first process, the adapter that `write` left in a folder."""
    if not trainer.is_world_process_zero():
        return
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    model = trainer.accelerator.unwrap_model(trainer.model)
    set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))


def _say_own_type(job: TrainJob, folder: Path) -> None:
    """Write the start's own type into the saved config, where the training held its weights in another."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    own = own_type(job.model)
    if own is not None and config.get("dtype") not in (None, own):
        path.write_text(json.dumps({**config, "dtype": own}, indent=2) + "\n", encoding="utf-8")
