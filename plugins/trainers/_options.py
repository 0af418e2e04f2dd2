"""Config fields that every trainer on TRL takes, and the check of `trainer.trl`. Imports nothing heavy.

`trainer.trl` hands any further field to the TRL config class. A name that TRL does not have is an error here,
with the nearest right name; a field that nsd sets itself is refused with the name of the nsd field to use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from nsd.plugins.api import OutputNeutral, PluginConfig
from nsd.plugins.words import hint


def comes_out_even(rows: int, micro: int | None, processes: int) -> bool:
    """Whether each process has the same number of a step's rows, and its micro batches are full."""
    local, rest = divmod(rows, processes)
    return rest == 0 and local > 0 and (micro is None or local % min(micro, local) == 0)


def unfit(config: TrlTrainerConfig, processes: int | None, lora: bool) -> str | None:
    """Why a training by this config cannot be had with so many processes, None for any number, or with an adapter."""
    if config.fsdp and lora:
        return "trainer.fsdp does not go with model.lora: an adapter's training fits on one GPU; leave out one of them"
    if config.fsdp and processes == 1:
        return (
            "trainer.fsdp spreads a training over several processes, and it would have one here: more GPUs, or on "
            "processors resources.processes: 2, or leave it out"
        )
    return None


LrScheduler = Literal[
    "linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt"
]

_EVALUATION = "evaluation is a stage of its own: use the spec's `eval` block"
_CHECKPOINT = "nsd writes and resumes checkpoints itself: use trainer.save_every"
_LOGGING = "nsd records every curve itself: use trainer.log_every"
_UPLOAD = "nsd uploads nothing"
_MODEL = "use the spec's `model` block"
_PRECISION = "use trainer.mixed_precision and the model block's dtype"
_PLACE = "there is nothing to choose"

# TRL fields that nsd sets, each with what to use instead.
REFUSED: dict[str, str] = {
    "output_dir": "nsd decides where a stage writes",
    "per_device_train_batch_size": "use trainer.micro_batch_size",
    "auto_find_batch_size": "it changes the batch behind your back: lower trainer.micro_batch_size",
    "learning_rate": "use trainer.learning_rate",
    "lr_scheduler_type": "use trainer.lr_scheduler",
    "warmup_steps": "use trainer.warmup_steps or trainer.warmup_ratio",
    "weight_decay": "use trainer.weight_decay",
    "max_grad_norm": "use trainer.max_grad_norm",
    "bf16": _PRECISION,
    "fp16": _PRECISION,
    "bf16_full_eval": _EVALUATION,
    "fp16_full_eval": _EVALUATION,
    "activation_checkpointing": "use trainer.gradient_checkpointing",
    "gradient_checkpointing": "use trainer.gradient_checkpointing",
    "logging_strategy": _LOGGING,
    "logging_steps": _LOGGING,
    "logging_first_step": _LOGGING,
    "logging_nan_inf_filter": _LOGGING,
    "disable_tqdm": _LOGGING,
    "report_to": "use the spec's `track` list",
    "run_name": "nsd names a run experiment/condition/seedN",
    "eval_strategy": _EVALUATION,
    "eval_steps": _EVALUATION,
    "eval_delay": _EVALUATION,
    "eval_on_start": _EVALUATION,
    "do_eval": _EVALUATION,
    "do_predict": _EVALUATION,
    "eval_packing": _EVALUATION,
    "num_generations_eval": _EVALUATION,
    "load_best_model_at_end": _EVALUATION,
    "metric_for_best_model": _EVALUATION,
    "greater_is_better": _EVALUATION,
    "save_only_model": _CHECKPOINT,
    "save_strategy": _CHECKPOINT,
    "save_steps": _CHECKPOINT,
    "save_on_each_node": _CHECKPOINT,
    "save_total_limit": _CHECKPOINT,
    "enable_jit_checkpoint": _CHECKPOINT,
    "ignore_data_skip": _CHECKPOINT,
    "restore_callback_states_from_checkpoint": _CHECKPOINT,
    "resume_from_checkpoint": _CHECKPOINT,
    "push_to_hub": _UPLOAD,
    "hub_token": _UPLOAD,
    "hub_private_repo": _UPLOAD,
    "hub_model_id": _UPLOAD,
    "hub_strategy": _UPLOAD,
    "hub_always_push": _UPLOAD,
    "hub_revision": _UPLOAD,
    "log_completions_hub_repo": _UPLOAD,
    "seed": "use the spec's `seeds`",
    "data_seed": "use the spec's `seeds`",
    "ddp_timeout": "use trainer.ddp_timeout",
    "fsdp": "use trainer.fsdp",
    "fsdp_config": "use trainer.fsdp",
    "deepspeed": "it is not tested: use trainer.fsdp",
    "use_cpu": _PLACE,
    "local_rank": _PLACE,
    "do_train": _PLACE,
    "remove_unused_columns": _PLACE,
    "dataloader_drop_last": "nsd counts the steps of an epoch with its last, smaller batch",
    "train_sampling_strategy": "its order comes from the global random state, so a resumed run would see other batches",
    "model_init_kwargs": _MODEL,
    "trust_remote_code": _MODEL,
    "sync_ref_model": "the moved reference model is in no checkpoint, so a resumed run would get another one",
}


def trl_field(class_name: str, known: frozenset[str], refused: dict[str, str]) -> Callable[[str], str]:
    """Return a check of one key of `trainer.trl`: known to TRL and not set by nsd itself."""

    def check(name: str) -> str:
        if name in refused:
            context = {"name": name, "way": refused[name]}
            raise PydanticCustomError("trl_field_refused", "nsd sets '{name}' itself: {way}", context)
        if name not in known:
            context = {"name": name, "class_name": class_name, "hint": hint(name, sorted(known - set(refused)))}
            raise PydanticCustomError("trl_field_unknown", "TRL's {class_name} has no field '{name}'{hint}", context)
        return name

    return check


def trl_fields_type(class_name: str, known: frozenset[str], own: dict[str, str]) -> Any:
    """The type of a config's `trl` field: a mapping whose keys are checked, with a schema that lists them."""
    refused = REFUSED | own
    allowed = sorted(known - set(refused))
    schema = {"type": "object", "properties": {name: {} for name in allowed}, "additionalProperties": False}
    key = Annotated[str, AfterValidator(trl_field(class_name, known, refused))]
    return Annotated[dict[key, Any], WithJsonSchema(schema)]


class TrlTrainerConfig(PluginConfig):
    """Fields of every trainer on TRL. Those marked OutputNeutral change no computed quantity, only rounding."""

    learning_rate: float = Field(gt=0)
    lr_scheduler: LrScheduler = Field(default="linear", description="TRL's default is linear, to 0 at the last step.")
    warmup_steps: int = Field(default=0, ge=0)
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1, description="Share of all steps; instead of warmup_steps.")
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    mixed_precision: Literal["bf16", "no"] = Field(
        default="bf16", description="Compute in bfloat16 where the GPU has it; weights keep the model's dtype."
    )
    micro_batch_size: Annotated[int | None, OutputNeutral()] = Field(
        default=None, ge=1, description="Rows in memory at once on each device; the gradient is accumulated."
    )
    gradient_checkpointing: Annotated[bool, OutputNeutral()] = Field(
        default=False, description="Less memory, about 20 % slower."
    )
    fsdp: bool = Field(
        default=False,
        description="Spread weights, gradients and optimizer over the GPUs (FSDP 2), for models too large for one.",
    )
    save_every: Annotated[int | None, OutputNeutral()] = Field(
        default=None, ge=1, description="Steps between checkpoints; by default timed so that they cost under 5 %."
    )
    ddp_timeout: Annotated[int, OutputNeutral()] = Field(
        default=1800,
        ge=1,
        description="Seconds that a process waits for the others before the training fails and names who did not come.",
    )
    log_every: Annotated[int | None, OutputNeutral()] = Field(
        default=None, ge=1, description="Steps between points of the curves; by default every step up to 2000 steps."
    )

    @model_validator(mode="after")
    def _one_warmup(self) -> TrlTrainerConfig:
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("set warmup_steps or warmup_ratio, not both")
        return self
