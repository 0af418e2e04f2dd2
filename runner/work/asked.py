"""What a person should know of a served model before it is paid: how much the stages to run may ask of it."""

from __future__ import annotations

from collections.abc import Iterable

from nsd.plugins.api import Engine, Usage
from nsd.runner.plan.jobs import PluginJob, ToSample
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.work.jobs import asked_engine, make_plugin


def notes_on_served(plan: Plan, stages: Iterable[Stage]) -> list[str]:
    """A sentence for each engine by which these stages ask: requests, tokens, and dollars where it has prices.

    Prompts are taken at four characters a token and answers at their limit; samples that are there already from
    another stage are counted as if they were not.
    """
    found: list[tuple[PluginJob, Usage]] = []
    for stage in stages:
        job = stage.job
        if not isinstance(job, ToSample) or (block := asked_engine(stage)) is None:
            continue
        prompts = [job.prompt.render(question) for question in plan.data[job.questions]]
        most = make_plugin(block, Engine).at_most(prompts, job.sampling.n, job.sampling.max_tokens)
        if most is not None:
            before = next((usage for other, usage in found if other == block), Usage())
            found = [(other, usage) for other, usage in found if other != block] + [(block, before + most)]
    return [_sentence(block, usage) for block, usage in found]


def _sentence(block: PluginJob, most: Usage) -> str:
    name, limit = block.config.get("model", block.use), block.config.get("max_dollars")
    asked = (
        f"{name} (engine {block.use}): {most.requests:,} requests, about {most.prompt_tokens:,} prompt tokens and at "
        f"most {most.completion_tokens:,} generated ones"
    )
    if most.usd is None:
        return f"{asked}; engine.prices would say what they cost"
    capped = "" if limit is None else f"; max_dollars stops it at ${limit:.2f}"
    return f"{asked}: at most about ${most.usd:.2f}{capped}"
