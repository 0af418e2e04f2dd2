"""The TRL arguments that machines with GPUs would get, made where there is none. Run as a script, it prints them.

Only what torch says of CUDA is made up, and the process group, which is torch's own for such purposes ("fake": no
process is on the other side). The decision, the plugins, TRL's and transformers' config classes and accelerate's state
are the real ones. Nothing is put on a device: the model's place and type are noted, and it is loaded on the processor.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any
from unittest.mock import patch

import training_job
from nsd.plugins.api import ModelRef
from nsd.plugins.models import EMBEDDED, load_model, type_held
from nsd.plugins.trainers import _setup
from nsd.runner.spec.load import load_spec
from nsd.runner.work.device import Decision, Facts, decide
from nsd.runner.work.jobs import worker_environment
from nsd.runner.work.machine import parse_smi
from nsd.runner.work.ready import processes_of
from support import REPOSITORY


def machine(name: str = "", memory: int = 0, capability: str = "", count: int = 1) -> Facts:
    """What a machine with so many GPUs of a kind reports."""
    listed = "".join(
        f"{name}, {memory}, 580.95.05, GPU-{n}, {capability}, [N/A]\n" for n in range(count if name else 0)
    )
    driver, gpus = parse_smi(listed)
    return Facts("Linux", torch="2.13.0+cu130", torch_cuda="13.0", driver=driver, gpus=gpus)


HERE = {  # with the number of machines
    "one L4": (machine("NVIDIA L4", 23034, "8.9"), 1),
    "one RTX 4090": (machine("NVIDIA GeForce RTX 4090", 24564, "8.9"), 1),
    "two RTX 4090": (machine("NVIDIA GeForce RTX 4090", 24564, "8.9", count=2), 1),
    "one A100": (machine("NVIDIA A100-SXM4-80GB", 81251, "8.0"), 1),
    "four H100": (machine("NVIDIA H100 80GB HBM3", 81559, "9.0", count=4), 1),
    "two machines of one L4": (machine("NVIDIA L4", 23034, "8.9"), 2),
    "one T4": (machine("Tesla T4", 15360, "7.5"), 1),
    "no GPU": (machine(), 1),
}
SPECS = ("v1_sft", "v4_grpo")
TOLD = (
    *("bf16", "fp16", "use_cpu", "n_gpu", "world_size", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("activation_checkpointing", "optim", "average_tokens_across_devices", "ddp_backend", "ddp_timeout", "fsdp"),
    *("ddp_find_unused_parameters", "deepspeed", "dataloader_pin_memory", "dataloader_num_workers", "tf32"),
    *("torch_compile", "torch_empty_cache_steps", "full_determinism", "use_liger_kernel"),
)
OF_GRPO = ("num_generations", "steps_per_generation", "generation_batch_size", "use_vllm", "model_init_kwargs")


class Built(Exception):
    """Stops a training when everything for it has been made."""


@contextmanager
def faked(decision: Decision, processes: int, world: int) -> Iterator[None]:
    """The first of a machine's processes, of `world` on all, as torch and the environment would have it."""
    import torch
    from accelerate.state import AcceleratorState
    from torch.testing._internal.distributed.fake_pg import FakeStore

    gpus = decision.gpus[:processes]
    variables = worker_environment(gpus=decision.ids[:processes] if gpus else None)
    told = {name: variables[name] for name in ("ACCELERATE_USE_CPU",) if name in variables}
    if world > 1:
        told |= {"WORLD_SIZE": str(world), "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": str(processes)}
    says = {
        "is_available": lambda: bool(gpus),
        "device_count": lambda: len(gpus),
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=0: gpus[0].name,
        "get_device_capability": lambda device=0: gpus[0].capability,
        "is_bf16_supported": lambda including_emulation=True: including_emulation or gpus[0].capability >= (8, 0),
        "empty_cache": lambda: None,
    }
    with patch.multiple(torch.cuda, **says), patch.dict(os.environ, told):
        if world > 1:
            torch.distributed.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
        try:
            yield
        finally:
            if world > 1:
                torch.distributed.destroy_process_group()
            AcceleratorState._reset_state(reset_partial_state=True)


def arguments_of(facts: Facts, nodes: int, spec: str, folder: Path) -> dict[str, Any]:
    """What a training of a spec is told on a machine, or on several of the kind."""
    arms = load_spec(REPOSITORY / "specs" / "gsm8k" / f"{spec}.yaml").conditions
    arm = arms["baseline"]
    assert arm.trainer is not None
    decision = decide(facts)
    trainer = arm.trainer.make()
    processes = processes_of(trainer, decision, None, nodes)
    start = ModelRef(str(EMBEDDED / "wordmath-1m"), dtype=arm.model.dtype, device=decision.told)
    placed: dict[str, Any] = {}

    def load(ref: ModelRef, device: str, trainable: bool) -> Any:
        placed.update(place=device, weights=type_held(ref, device.partition(":")[0], trainable))
        return load_model(ref, device="cpu", trainable=trainable)

    def build(_: Any, **parts: Any) -> Any:
        placed["args"] = parts["args"]
        raise Built

    made = training_job.job(folder, start, training_job.Events(), device=decision.told)
    with (
        faked(decision, processes, processes * nodes),
        patch.object(_setup, "load_model", load),
        patch.object(_setup, "build", build),
    ):
        try:
            trainer.train(made)
        except Built:
            args = placed.pop("args")
        told = TOLD + (OF_GRPO if spec == "v4_grpo" else ())
        return {
            "processes": f"{processes} on each of {nodes} machines" if nodes > 1 else processes,
            **placed,
            **{name: plain(getattr(args, name)) for name in told},
        }


def plain(value: Any) -> Any:
    """As it reads in JSON."""
    value = value.value if isinstance(value, Enum) else value
    return value if value is None or isinstance(value, bool | int | float | dict) else str(value)


def main() -> None:
    """Print every machine's arguments as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: {spec: arguments_of(facts, nodes, spec, Path(folder)) for spec in SPECS}
            for name, (facts, nodes) in HERE.items()
        }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
