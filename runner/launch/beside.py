"""What a spec needs on a machine beside nsd, and whether its setup (sky.yaml) can bring it.

beside(plan)     # "vllm" or "", for NSD_BESIDE; raises before a machine is paid
"""

from __future__ import annotations

from collections.abc import Iterator

from nsd.plugins.api import Plugin
from nsd.plugins.errors import InputError
from nsd.plugins.registry import find
from nsd.runner.plan.jobs import PluginJob
from nsd.runner.plan.model import Plan
from nsd.runner.work.jobs import make_plugin

VLLM = "vllm"


def beside(plan: Plan) -> str:
    """What the setup makes beside nsd: "vllm" or nothing. Raises InputError for what it cannot bring."""
    wanted = {what for plugin in _plugins(plan) if (what := plugin.beside()) is not None}
    if unknown := sorted(wanted - {VLLM}):
        raise InputError(
            f"the spec needs {unknown[0]}, which a launch does not install: --environment FOLDER names an environment "
            "on the machine that has it"
        )
    return VLLM if wanted else ""


def _plugins(plan: Plan) -> Iterator[Plugin]:
    if plan.known:
        jobs = [stage.job for stage in plan.stages.values() if stage.job is not None]
        for job_block in (value for job in jobs for value in vars(job).values() if isinstance(value, PluginJob)):
            yield make_plugin(job_block, find(job_block.kind, job_block.use))
        return
    for condition in plan.experiment.conditions.values():
        for block in (condition.engine, condition.trainer):
            if block is not None:
                yield block.make()
