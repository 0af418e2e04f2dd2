"""Runs a TRL trainer as an nsd stage: reports, checkpoints that survive a kill, stopping, saving.

A plugin builds its TRL trainer (`_setup.py`) from a class that `resumable` made and hands it to `run`. The same job
again, after a kill at any moment, then ends in bit-identical weights (same machine, same number of threads and
processes). Under several processes only the first reports and writes.

The seeds: `init` draws LoRA's first weights, `order` shuffles the examples, `rollout` drives everything after that
(generation, dropout). On a GPU the kernels' own non-determinism remains (set `trl: {full_determinism: true}`).
Limits: DeepSpeed is refused (plugins/trainers/_sharding.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nsd.plugins.api import TrainJob
from nsd.plugins.errors import Interrupted, ResumeRefused, StageFailed
from nsd.plugins.trainers import _checkpoints, _saving, _sharding
from nsd.plugins.trainers._checkpoints import Marker
from nsd.plugins.trainers._run import Run
from nsd.plugins.trainers._setup import SMALLER, hf_seed, say_where_it_stands_after
from nsd.plugins.trainers._validation import Watch

CONTINUE, SAVE, STOP, FAIL = range(4)
MAX_POINTS = 2000
ENDLESS = 10**9  # steps of a training that something else ends
# Of a checkpoint; transformers resumes without most of them and does not say so. FSDP has other endings.
NEEDED = ("trainer_state.json", "optimizer*", "scheduler.pt", "rng_state*", "*model*")

# --------------------------------------------------------------------------- training


def resumable(base: Any) -> Any:
    """A subclass of a TRL trainer whose checkpoints count only when whole, and which sends no telemetry."""

    class Resumable(base):  # type: ignore[misc]  # a class of TRL's, which has no types
        nsd_run: Run

        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            if self.args.fsdp:
                _sharding.take_effect(self)

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            run = self.nsd_run
            scheduler = super().create_scheduler(run.schedule_steps, optimizer)
            if run.amount is not None:
                scheduler.lr_lambdas = [_by_share(run, by_step) for by_step in scheduler.lr_lambdas]
            return scheduler

        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            # A spread model's checkpoint has its weights in a file of FSDP's own, from which alone it is resumed.
            if not (self.args.fsdp and _internal_call):
                super().save_model(output_dir, _internal_call)

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            started = time.monotonic()
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                folder = Path(self.args.output_dir)
                step = self.state.global_step
                micro = self.args.per_device_train_batch_size
                processes = self.accelerator.num_processes
                run = self.nsd_run
                marker = Marker(step, tokens_seen(self), processes, micro, run.generated, run.seconds)
                _checkpoints.finish(folder / f"{_checkpoints.PREFIX}{step}", marker, NEEDED)
                _checkpoints.clean(folder)
                if run.watch is not None:
                    run.watch.tidy()
            self.nsd_run.cadence.saved(time.monotonic() - started)

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            pass

        def _send_telemetry(self) -> None:
            pass

    Resumable.__name__ = base.__name__
    return Resumable


def _by_share(run: Run, by_step: Callable[[float], float]) -> Callable[[int], float]:
    return lambda step: by_step(run.scheduled())


def tokens_seen(trainer: Any) -> int:
    """Tokens trained on, prompts included (SFT), or sampled, prompts included (GRPO)."""
    return max(int(getattr(trainer, "_total_train_tokens", 0)), int(trainer.state.num_input_tokens_seen))


def run(trainer: Any, state: Run, tokenizer: Any) -> None:
    """Train to the end, from the newest whole checkpoint if there is one.

    Raises Interrupted after saving where a stop was asked for, StageFailed with the reason for a loss that is no
    number, for too little GPU memory and for a health watch told to stop.
    """
    import torch

    job = state.job
    trainer.nsd_run = state
    job.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    trainer.args.max_steps = state.schedule_steps if state.amount is None else ENDLESS
    foreseen = state.schedule_steps if state.stop_at is None else state.stop_at
    trainer.args.logging_steps = state.config.log_every or max(1, math.ceil(foreseen / MAX_POINTS))
    if trainer.is_world_process_zero():
        _checkpoints.clean(job.checkpoint_dir)
    trainer.accelerator.wait_for_everyone()
    checkpoints = _checkpoints.whole(job.checkpoint_dir)
    path = None
    if checkpoints:
        path, marker = checkpoints[-1]
        _restore(trainer, state, marker)
    if job.validation is not None:
        state.watch = Watch(trainer, tokenizer, job, job.validation)
        state.watch.resume(checkpoints[-1][1].step if checkpoints else None)
    trainer.add_callback(_callback(trainer, state))
    # Everything random from here on is the rollout stream (TRL seeds here too, with its one seed). A resumed run
    # overwrites it with the state in the checkpoint.
    _seed_rollouts(job)
    try:
        trainer.train(resume_from_checkpoint=None if path is None else str(path))
    except torch.OutOfMemoryError as error:
        if state.stepping:
            what = f" in the optimizer, which keeps two numbers for each trained weight: {SMALLER}"
        else:
            what = (
                f": lower trainer.micro_batch_size (now {trainer.args.per_device_train_batch_size}; the result stays "
                "the same) or set trainer.gradient_checkpointing: true"
            )
        raise StageFailed(f"the GPU ran out of memory{what} ({str(error).splitlines()[0]})") from error
    if state.interrupted:
        of = "" if state.total is None else f" of {state.total}"
        raise Interrupted(f"stopped at step {trainer.state.global_step}{of}; the checkpoint is saved")


def _seed_rollouts(job: TrainJob) -> None:
    from accelerate.utils import set_seed

    set_seed(hf_seed(job.seeds.rollout), device_specific=True)


def _restore(trainer: Any, state: Run, marker: Marker) -> None:
    state.restore(marker)
    if state.spent or (state.stop_at is not None and marker.step >= state.stop_at):
        end = "before its budget is spent" if state.spent else f"at step {state.stop_at}"
        raise ResumeRefused(
            f"{state.job.checkpoint_dir} holds a checkpoint of step {marker.step}, but this job ends {end}: it belongs "
            "to another job"
        )
    if hasattr(trainer, "_total_train_tokens"):
        trainer._total_train_tokens = marker.tokens
    for name, was, now in (
        ("number of processes", marker.world_size, trainer.accelerator.num_processes),
        ("micro batch", marker.micro_batch_size, trainer.args.per_device_train_batch_size),
    ):
        if was != now and trainer.is_world_process_zero():
            state.job.warn(
                f"resumed with another {name} ({now}, was {was}): equal to an uninterrupted run only up to rounding"
                + (" and other random draws" if name == "number of processes" else ""),
                "trainer.micro_batch_size" if name == "micro batch" else "resources",
            )


def _callback(trainer: Any, run: Run) -> Any:
    from transformers import TrainerCallback

    job = run.job

    def observe(step: int, metrics: Mapping[str, float], replayed: bool) -> None:
        if run.observe is not None:
            run.fail_reason = run.observe(step, metrics, replayed) or run.fail_reason

    class Callback(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if run.config.fsdp:
                _sharding.check(trainer.model)
            optimizer = kwargs["optimizer"]
            if not any(parameter.requires_grad for group in optimizer.param_groups for parameter in group["params"]):
                raise StageFailed("the optimizer holds no trainable parameter: nothing would be learned")
            if state.is_world_process_zero and state.global_step:
                for entry in state.log_history:
                    if "loss" in entry:
                        observe(int(entry["step"]), numbers(entry), True)
            self._measure(state.global_step)

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            if trainer.accelerator.num_processes > 1:
                say_where_it_stands_after(run.config.ddp_timeout)
            run.begin_step()

        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            run.stepping = True
            if run.nothing_counts is not None and run.nothing_counts():
                # Without gradients an optimizer leaves a weight alone; with gradients of 0 momentum and decay move it.
                trainer.model.zero_grad(set_to_none=True)

        def on_optimizer_step(self, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
            run.stepping = False
            run.lap()
            run.learn(state.global_step + 1)
            if job.budget.seconds is not None:  # the next learning rate depends on them
                run.seconds = _of_first(trainer, run.seconds)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            step = state.global_step
            between = step % run.boundary == 0  # two sampled batches
            if run.after_batch is not None and between:
                run.after_batch()
            run.lap()
            ended = run.stop_at is not None and step >= run.stop_at
            if between and run.amount is not None and not ended:
                ended = bool(_agree(trainer, int(run.spent)))
            self._measure(step, ended)
            if ended:
                control.should_log = True
                control.should_training_stop = True
                return
            if not between:
                return
            decision = _agree(trainer, self._wanted(state))
            if decision == FAIL:
                raise StageFailed(run.fail_reason or "another process reported an unhealthy run")
            control.should_save = decision in (SAVE, STOP)
            if decision == STOP:
                run.interrupted = True
                control.should_training_stop = True

        def _measure(self, step: int, ended: bool = False) -> None:
            if run.watch is None or not run.watch.due(step, ended):
                return
            if trainer.accelerator.num_processes > 1:
                say_where_it_stands_after(run.config.ddp_timeout)
            job.report(step, run.total, run.watch.measure(step))

        def _wanted(self, state: Any) -> int:
            if not state.is_world_process_zero:
                return CONTINUE
            if run.fail_reason is not None:
                return FAIL
            if job.should_stop():
                return STOP
            return SAVE if run.cadence.due(state.global_step, lambda: _cost(trainer)) else CONTINUE

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs is None or "loss" not in logs:
                return
            step = state.global_step
            metrics = numbers(logs)
            if state.is_world_process_zero:
                job.report(step, run.total, metrics)
                observe(step, metrics, False)
            for name in ("loss", "grad_norm"):
                if not math.isfinite(metrics.get(name, 0.0)):
                    raise StageFailed(
                        f"{name} is {metrics[name]} at step {step}: training has diverged; lower "
                        f"trainer.learning_rate (now {run.config.learning_rate:g}) or trainer.max_grad_norm "
                        f"(now {run.config.max_grad_norm:g})"
                    )

    return Callback()


def _cost(trainer: Any) -> float:
    """Seconds that the first checkpoint will take, estimated."""
    adapter = hasattr(trainer.accelerator.unwrap_model(trainer.model), "peft_config")
    size = _checkpoints.size_of(trainer.model.parameters(), trainer.optimizer, adapter)
    return _checkpoints.seconds_to_write(Path(trainer.args.output_dir), size)


def _agree(trainer: Any, decision: int) -> int:
    """The first process's decision, on every process."""
    return int(_of_first(trainer, decision))


def _of_first(trainer: Any, number: float) -> float:
    """The first process's number, on every process."""
    if trainer.accelerator.num_processes == 1:
        return number
    import torch

    shared = torch.tensor([number], device=trainer.args.device, dtype=torch.float64)
    torch.distributed.broadcast(shared, src=0)
    return float(shared.item())


def numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """The metrics among a log entry's values, without the step counter."""
    return {
        name: float(value)
        for name, value in logs.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }


# --------------------------------------------------------------------------- after training


def save(trainer: Any, tokenizer: Any, job: TrainJob) -> bool:
    """Write the weights that the training leaves to `job.output_dir`; returns whether they are an adapter alone.

    They are the last ones, or those of the best measurement where the validation says so.
    """
    watch = trainer.nsd_run.watch
    if watch is None or not watch.deliver(int(trainer.state.global_step)):
        _saving.write(trainer, tokenizer, job, job.output_dir)
    return _saving.adapter_only(job)


def notes(trainer: Any, state: Run) -> dict[str, Any]:
    """What every trainer puts into its result."""
    parameters = list(trainer.model.parameters())
    spread = {"parameters_here": _sharding.held_here(parameters)} if trainer.args.fsdp else {}
    return {
        "resumed_from": state.resumed_from,
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "parameters": sum(p.numel() for p in parameters),
        "dtype": str(parameters[0].dtype).removeprefix("torch."),
        "device": str(trainer.args.device),
        "processes": trainer.accelerator.num_processes,
        **spread,
        **({} if state.job.budget.seconds is None else {"seconds": state.seconds}),
        **({} if state.watch is None else {"validation": state.watch.notes(int(trainer.state.global_step))}),
    }
