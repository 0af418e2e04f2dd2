"""Full fine-tuning of what is too large for one GPU: FSDP 2 through accelerate, and what is refused in its place.

Weights, gradients and the optimizer's state are spread over the processes, layer by layer (torch's `fully_shard` at
the model's `_no_split_modules`), and gathered where a layer is computed. Under mixed precision accelerate holds the
weights in float32. Checkpoints and results are written whole, in the format of one process.

accelerate 1.15 takes FSDP for listed kinds of devices alone and leaves a run on processors plain DDP without a word.
Here its state is told of FSDP there too, so that the same code runs on processors (gloo), where it is tested; and every
training in which a weight turns out not to be spread stops (`check`). On GPUs it has not been run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from nsd.plugins.errors import InputError, StageFailed

# What accelerate reads when it joins the processes: with whole state dicts, collectives on main memory are needed too.
VARIABLES = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}


def fields(gradient_checkpointing: bool) -> dict[str, Any]:
    """The TRL fields of a training that is spread. Recomputing is FSDP's own: the model's would gather layers twice."""
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "state_dict_type": "FULL_STATE_DICT",
            "reshard_after_forward": True,
            "activation_checkpointing": gradient_checkpointing,
        },
        "activation_checkpointing": False,
    }


def announce() -> None:
    """Tell accelerate, before it joins the processes."""
    os.environ.update(VARIABLES)


def refuse_others(wanted: bool, environment: Mapping[str, str] = os.environ) -> None:
    """Raise InputError where the environment asks accelerate for what the spec does not, or has not been tried."""
    others = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}
    if not wanted and environment.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes"):
        raise InputError(
            "ACCELERATE_USE_FSDP asks for FSDP, and the spec does not: unset it, or set trainer.fsdp: true"
        )
    for name, what in others.items():
        if environment.get(name, "").lower() in ("1", "true", "yes"):
            raise InputError(
                f"{name} asks for {what}, which is not tested with nsd: unset it; trainer.fsdp: true spreads a training"
            )


def take_effect(trainer: Any) -> None:
    """Have a trainer's accelerate use FSDP on processors, as it does by itself on GPUs."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state = trainer.accelerator.state
    if state.distributed_type == DistributedType.FSDP:
        return
    plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
    # As AcceleratorState itself ends: the facts of both states are one for the whole process.
    state.__dict__.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    trainer.is_fsdp_enabled = True


def check(model: Any) -> None:
    """Raise StageFailed unless every weight is spread over the processes."""
    from torch.distributed.tensor import DTensor

    whole = [name for name, parameter in model.named_parameters() if not isinstance(parameter, DTensor)]
    if whole:
        raise StageFailed(
            f"trainer.fsdp was asked for, and {len(whole)} weights are not spread over the processes (such as "
            f"{whole[0]}): accelerate did not take it up; leave trainer.fsdp out"
        )
    # Every process must compute as many steps of a generation as the longest of all: transformers asks for this mark.
    model._is_fsdp_managed_module = True


def held_here(parameters: Iterable[Any]) -> int:
    """How many numbers of these weights this process holds."""
    return sum(parameter.to_local().numel() for parameter in parameters)


def whole_weights(trainer: Any) -> dict[str, Any]:
    """All weights, gathered to main memory. Every process must call it; only the first one gets them.

    Tied weights are one tensor again, so that saving leaves them out as it does of a model in one process.
    """
    found: dict[str, Any] = trainer.accelerator.get_state_dict(trainer.model)
    for tied, source in trainer.accelerator.unwrap_model(trainer.model).all_tied_weights_keys.items():
        if tied in found and source in found:
            found[tied] = found[source]
    return found
