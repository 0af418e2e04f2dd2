"""The needs of a TRL trainer before it runs: the TRL config, the start weights, LoRA, the share of each process.

Under `accelerate launch` every process builds the same; only the first one writes and warns. Note that accelerate
1.15 starts one process under `--cpu` whatever `--num_processes` says: use `--multi_gpu` with ACCELERATE_USE_CPU=true.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from nsd.plugins.api import LoraConfig, ModelRef, TrainJob
from nsd.plugins.chat import turn_end
from nsd.plugins.errors import InputError, MissingExtra, StageFailed
from nsd.plugins.models import load_model, type_held
from nsd.plugins.trainers import _sharding
from nsd.plugins.trainers._options import TrlTrainerConfig, unfit

if TYPE_CHECKING:
    from pathlib import Path


# What makes a training hold less at all times, for a person whose GPU is too small.
SMALLER = "model.lora trains few weights, model.train_dtype: bfloat16 halves what is held of each"


def require() -> None:
    """Raise MissingExtra where a package that training needs is not installed."""
    for package in ("torch", "transformers", "trl", "peft", "datasets", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "train")


def world_size() -> int:
    """How many processes `accelerate launch` or torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first_process() -> bool:
    """Whether this is the process that reports and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def quiet_elsewhere(job: TrainJob) -> TrainJob:
    """The job as it is on the first process, without reports and warnings on the others."""
    if first_process():
        return job
    return replace(job, report=lambda step, total, metrics: None, warn=lambda text, field: None)


def hf_seed(seed: int) -> int:
    """Fold a seed into what numpy and the per-process offset of accelerate take."""
    return seed % 2**31


def split_batch(rows: int, micro: int | None, batch_field: str) -> tuple[int, int]:
    """Return (rows per device at once, accumulation steps) for `rows` rows a step over all processes.

    Raises InputError where the rows cannot be shared out evenly.
    """
    processes = world_size()
    if rows % processes:
        raise InputError(
            f"{batch_field} gives {rows} rows a step, which {processes} processes cannot share evenly: "
            f"choose a multiple of {processes}"
        )
    local = rows // processes
    micro = local if micro is None else min(micro, local)
    if local % micro:
        raise InputError(
            f"trainer.micro_batch_size {micro} does not divide the {local} rows that each process has in a step "
            f"({batch_field})"
        )
    return micro, local // micro


def arguments(args_class: Any, job: TrainJob, config: TrlTrainerConfig, trl: Mapping[str, Any], **own: Any) -> Any:
    """Build a TRL config: what nsd always sets, the trainer's `own` fields, and `trainer.trl`.

    Raises InputError with TRL's words where TRL refuses a value, MissingExtra for an absent tracker.
    """
    import torch

    _sharding.refuse_others(config.fsdp)
    if (reason := unfit(config, world_size(), job.lora is not None)) is not None:
        raise InputError(reason)
    if config.fsdp and job.validation is not None:
        raise InputError(
            "validation does not go with trainer.fsdp: nsd's decode loop does not draw from spread weights; leave out "
            "one of them"
        )
    on_gpu = torch.cuda.is_available() if job.device is None else job.device.kind == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise StageFailed("the run began on a GPU, and torch finds none in this process: nsd doctor says what is there")
    if job.device is None:
        half = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        half = job.device.half == "bfloat16"
    mixed = config.mixed_precision == "bf16" and on_gpu
    fields: dict[str, Any] = {
        "output_dir": str(job.checkpoint_dir),
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.lr_scheduler,
        "warmup_steps": config.warmup_ratio or config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "activation_checkpointing": config.gradient_checkpointing,
        # Checkpoints are asked for by the callback below, so that they can follow the clock.
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": _trackers(job),
        "run_name": job.run_name or None,
        "seed": hf_seed(job.seeds.init),
        "data_seed": hf_seed(job.seeds.order),
        "ddp_timeout": config.ddp_timeout,
        "use_cpu": not on_gpu,
        "bf16": mixed and half,
        # Without units for bfloat16; a GPU that has none for float16 either trains in float32.
        "fp16": mixed and not half and job.device is not None and job.device.half == "float16",
    }
    if config.fsdp:
        fields |= _sharding.fields(config.gradient_checkpointing)
        _sharding.announce()
    if world_size() > 1:
        say_where_it_stands_after(config.ddp_timeout)
        if not on_gpu:
            _join(config.ddp_timeout)
    try:
        return args_class(**(fields | own | dict(trl)))
    except (TypeError, ValueError) as error:
        raise InputError(f"trainer: TRL's {args_class.__name__} refuses these values: {error}") from error


def say_where_it_stands_after(seconds: int) -> None:
    """Write where each thread of this process stands into its log, unless asked again within so many seconds.

    Asked at every step, so that the log of a process that hangs, which is killed in the end, says where.
    """
    faulthandler.dump_traceback_later(seconds, file=2)


def _join(timeout: int) -> None:
    """Join the processes on CPUs, which then wait this long for one another: transformers says so to GPUs alone."""
    from accelerate import PartialState

    PartialState(cpu=True, timeout=timedelta(seconds=timeout))


def _trackers(job: TrainJob) -> list[str]:
    for tracker in job.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise MissingExtra(tracker, "track")
    if "tensorboard" in job.trackers:
        # The callback reads its folder from here; beside the weights, never among them.
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(job.output_dir.parent / "trackers" / "tensorboard")
    return list(job.trackers)


def load_start(job: TrainJob, args: Any) -> tuple[Any, Any, ModelRef]:
    """Load the start weights for training with these TRL arguments: (model, tokenizer, where they are).

    What is to be spread over several GPUs is loaded to main memory, and goes from there layer by layer.

    A start with an adapter is merged and written to `checkpoint_dir/start` first, because GRPO loads its
    reference model from the path once more: what is trained and what is compared with must be the same weights.
    """
    start, device = job.model, args.device
    if start.adapter is not None:
        folder = job.checkpoint_dir / "start"
        if first_process() and not folder.is_dir():
            _merge_to(start, folder, device.type)
        wait_for_all()
        start = replace(start, path=str(folder), adapter=None, revision=None)
    model, tokenizer = load_model(start, device="cpu" if args.fsdp else str(device), trainable=True)
    if job.prompt.chat and (end := turn_end(tokenizer, job.prompt.chat_template_kwargs)) is not None:
        listed = model.generation_config.eos_token_id
        ends = listed if isinstance(listed, list) else [] if listed is None else [listed]
        if end not in ends:  # rollouts end there, and so does what is drawn from the trained model
            model.generation_config.eos_token_id = [*ends, end]
    return model, tokenizer, start


def _merge_to(start: ModelRef, folder: Path, kind: str) -> None:
    """Write the start with its adapter merged, in the type that a training on this kind of device holds it in.

    So the weights are rounded once, and a base in bfloat16 gives a start in bfloat16, which is merged on a CPU.
    """
    held = type_held(start, kind, trainable=True)
    model, tokenizer = load_model(replace(start, dtype=held, train_dtype=None, device=None), device="cpu")
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    temporary.rename(folder)


def wait_for_all() -> None:
    """Wait until every process of the training is here."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def reference_options(job: TrainJob, args: Any) -> dict[str, Any] | None:
    """How TRL loads GRPO's reference model from the start's path: its revision, and the whole of it on this device.

    Left to itself TRL lets accelerate spread the reference over whatever has room, main memory among it, where every
    step then waits for it. Where the weights are spread over several GPUs the reference is too, from main memory.
    """
    revision = None if job.model.adapter is not None else job.model.revision
    options = {} if revision is None else {"revision": revision}
    place = {} if args.device.type == "cpu" else {"device_map": None if args.fsdp else str(args.device)}
    return (options | place) or None


def peft_config(lora: LoraConfig | None) -> Any:
    """The peft configuration of a `lora` block, None without one."""
    if lora is None:
        return None
    import peft

    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        lora_dropout=lora.dropout,
        task_type="CAUSAL_LM",
    )


def build(trainer_class: Any, **parts: Any) -> Any:
    """Construct a TRL trainer; what TRL refuses becomes an InputError in its own words.

    StageFailed where the GPU has no room for what a trainer adds to the model: a reference model, a teacher.
    """
    import torch
    from transformers.trainer_callback import PrinterCallback

    try:
        trainer = trainer_class(**parts)
    except torch.OutOfMemoryError as error:
        raise StageFailed(
            "the GPU ran out of memory beside the model that is trained: trainer.beta: 0 needs no reference model, nor "
            "does model.lora; a self-distillation's teacher that is the model itself (teacher_regularization: none, "
            f"teacher: current) needs no copy; {SMALLER} ({str(error).splitlines()[0]})"
        ) from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"trainer: TRL refuses this configuration: {error}") from error
    trainer.remove_callback(PrinterCallback)
    return trainer


# What `full_determinism` writes into the environment (transformers.trainer_utils.enable_full_determinism).
_DETERMINISM = (
    "CUDA_LAUNCH_BLOCKING",
    "CUBLAS_WORKSPACE_CONFIG",
    "ASCEND_LAUNCH_BLOCKING",
    "HCCL_DETERMINISTIC",
    "FLASH_ATTENTION_DETERMINISTIC",
)


@contextmanager
def left_as_found() -> Iterator[None]:
    """A training, after which the process is as it was: its number settings, and the memory that the training held.

    What options of `trainer.trl` set (full_determinism, tf32) holds for the whole process, which goes on with other
    stages. To be left once nothing refers to the trainer any more.
    """
    import torch

    backends = torch.backends
    variables = {name: os.environ.get(name) for name in (*_DETERMINISM, *_sharding.VARIABLES)}
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = backends.cudnn.deterministic, backends.cudnn.benchmark
    places = [backends, backends.cuda.matmul, backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn]
    precisions = [place.fp32_precision for place in places]  # allow_tf32 and float32_matmul_precision show these
    free_memory()  # of a training that failed: its error held the frames in which it stood
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        backends.cudnn.deterministic, backends.cudnn.benchmark = flags
        for place, precision in zip(places, precisions, strict=True):
            place.fp32_precision = precision
        free_memory()


def free_memory() -> None:
    """Give back the GPU memory of what nothing refers to any more.

    Without a GPU the garbage collector has time: a full collection takes as long as several small steps.
    """
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Without the progress bars of `datasets`, which would mix with nsd's own."""
    import datasets

    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not shown:
            datasets.enable_progress_bars()


def warn_of_lost_updates(job: TrainJob, model: Any, learning_rate: float) -> None:
    """Say so where full fine-tuning in half precision would round most updates away.

    An AdamW step moves a weight by about the learning rate; bfloat16 keeps 8 bits, so a weight of size w only
    moves if the step is over about w / 512.
    """
    import torch

    halves = [p for p in model.parameters() if p.requires_grad and p.dtype == torch.bfloat16]
    if not halves or job.lora is not None:
        return
    sample = torch.cat([p.detach().flatten()[:4096].abs().float() for p in halves])
    lost = float((sample / 512 > learning_rate).float().mean())
    if lost > 0.5:
        job.warn(
            f"the weights are bfloat16 and the learning rate is {learning_rate:g}: about {lost:.0%} of the weights are "
            "so large beside one update that it is rounded away; keep them in float32 while training with "
            "model.train_dtype: float32 (bfloat16 is still used to compute and to sample), or take a larger learning "
            "rate, or LoRA",
            "model.train_dtype",
        )
