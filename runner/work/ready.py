"""What a run needs before it begins: the packages that its plugins use, and a device for the stages that compute.

    decision = make_ready(plan, pending)     # raises before a minute is spent; None where nothing computes
    decision = machine_for(experiment)       # the same without a plan, which a machine's setup has no data for yet

A spec may ask for an accelerator (`resources.accelerators`); then there is no processor instead of it, unless
`resources.device` says cpu.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec

from nsd.plugins.api import Engine, Plugin, Trainer, Verifier
from nsd.plugins.errors import InputError, MissingExtra
from nsd.plugins.extras import missing
from nsd.plugins.registry import find
from nsd.runner.plan.jobs import PluginJob, StageJob, ToDiscover, ToSample, ToScore, ToTrain
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.spec.merge import BLOCKS
from nsd.runner.spec.model import Experiment, Resources
from nsd.runner.work.device import Decision, Facts, decide, split_accelerator
from nsd.runner.work.jobs import make_plugin
from nsd.runner.work.machine import compiler, read_facts


def make_ready(plan: Plan, pending: Iterable[Stage], machines: int = 1) -> Decision | None:
    """Check what these stages need, and settle with how many processes each training runs.

    Raises MissingExtra for a package that is not installed, InputError for a device that cannot be had.
    """
    stages = list(pending)
    check_packages(stages)
    if any(isinstance(stage.job, ToSample | ToScore) for stage in stages):
        check_over(plan.experiment.resources)
    check_sandboxes(stages)
    check_engines(stages)
    if not any(computes(stage) for stage in stages):
        return None
    resources = plan.experiment.resources
    decision = settled(read_facts(), resources)
    for stage in stages:
        if isinstance(stage.job, ToTrain):
            trainer = make_plugin(stage.job.trainer, Trainer)
            processes = processes_of(trainer, decision, resources.processes, machines)
            if (reason := trainer.unfit(processes * machines, stage.job.lora is not None)) is not None:
                raise InputError(f"{stage.title}: {reason}")
            trainer.ready(decision.device)
            stage.job = replace(stage.job, processes=processes)
        elif isinstance(stage.job, ToDiscover) and stage.job.trainer is not None:
            make_plugin(stage.job.trainer, Trainer).ready(decision.device)
    return decision


def settled(facts: Facts, resources: Resources) -> Decision:
    """The device in force on a machine for what a spec says. Raises InputError where it cannot be had."""
    asked = wanted_accelerator(resources)
    return decide(facts, resources.device, resources.processes, asked, resources.sampling_processes)


def machine_for(experiment: Experiment) -> Decision | None:
    """What a machine decides for a spec before its data are read: packages and the device; None where none computes.

    Raises as `make_ready` does.
    """
    blocks = [
        block
        for condition in experiment.conditions.values()
        for key in BLOCKS
        if (block := getattr(condition, key)) is not None
    ]
    check_over(experiment.resources)
    _check_extras(block.cls.extra for block in blocks)
    if not any(one.trainer is not None or one.engine.cls.needs_model for one in experiment.conditions.values()):
        return None
    decision = settled(read_facts(), experiment.resources)
    for condition in experiment.conditions.values():
        if condition.trainer is not None:
            condition.trainer.make().ready(decision.device)
        if condition.engine.cls.needs_model:
            condition.engine.make().ready()
    return decision


def compiler_note(decision: Decision | None) -> str | None:
    """What a person should know where kernels may have to be compiled on a GPU and there is no compiler."""
    if decision is None or decision.device != "cuda" or compiler() is not None:
        return None
    return (
        "there is no C compiler (cc, gcc or clang) here: what compiles its kernels by Triton, such as torch.compile, "
        "fails on this machine; nsd's own trainers and engine hf do without"
    )


def check_packages(stages: Iterable[Stage]) -> None:
    """Raise MissingExtra for the first package that a plugin of these stages needs and that is not installed."""
    _check_extras(cls.extra for stage in stages for cls in _plugins(stage.job))


def check_over(resources: Resources) -> None:
    """Raise MissingExtra where the spec spreads its work by a package that is not installed."""
    if resources.over is None:
        return
    _check_extras([resources.over])
    if find_spec(resources.over) is None:  # of an nsd that was not installed nobody knows the extras
        raise MissingExtra(f"{resources.over}[data]", resources.over)


def check_sandboxes(stages: Iterable[Stage]) -> None:
    """Raise InputError where a verifier of these stages runs programs, and this machine has no sandbox for them."""
    seen = []
    for stage in stages:
        blocks = [value for value in vars(stage.job).values() if isinstance(value, PluginJob)] if stage.job else []
        blocks += [stage.job.validation.verifier] if isinstance(stage.job, ToTrain) and stage.job.validation else []
        for block in blocks:
            cls = find(block.kind, block.use)
            if issubclass(cls, Verifier) and cls.sandboxed is not Verifier.sandboxed and block not in seen:
                seen.append(block)
                make_plugin(block, Verifier).sandboxed()


def check_engines(stages: Iterable[Stage]) -> None:
    """Raise InputError where an engine of these stages lacks what it asks with on this machine."""
    jobs = [stage.job for stage in stages if isinstance(stage.job, ToSample | ToDiscover)]
    blocks = [job.engine for job in jobs if job.engine is not None]
    for number, block in enumerate(blocks):
        if block not in blocks[:number]:
            make_plugin(block, Engine).ready()


def _check_extras(extras: Iterable[str | None]) -> None:
    for extra in dict.fromkeys(one for one in extras if one):
        if (package := missing(extra)) is not None:
            raise MissingExtra(package, extra)


def computes(stage: Stage) -> bool:
    """Whether a stage holds a model: it trains one, or draws from one."""
    draws = isinstance(stage.job, ToSample | ToDiscover) and stage.job.model is not None
    return isinstance(stage.job, ToTrain) or draws


def processes_of(trainer: Trainer, decision: Decision, asked: int | None, machines: int = 1) -> int:
    """Processes of a training on each machine: those asked for, else as many of the GPUs as share a step evenly.

    Those asked for do: a spec in which they do not is refused (runner/spec/load.py).
    """
    if asked is not None:
        return asked
    return next(count for count in range(decision.processes, 0, -1) if count == 1 or trainer.shares(count * machines))


def wanted_accelerator(resources: Resources) -> tuple[str, int] | None:
    """The accelerator that a spec asks for, with its number: of several that would do, the fewest."""
    found = resources.accelerators
    if not found:
        return None
    named = map(split_accelerator, [found] if isinstance(found, str) else found)
    return min(((name, count) for name, count in named if name), key=lambda pair: pair[1], default=None)


def _plugins(job: StageJob | None) -> Iterator[type[Plugin]]:
    for value in vars(job).values() if job is not None else ():
        if isinstance(value, PluginJob):
            yield find(value.kind, value.use)
