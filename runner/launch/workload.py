"""What a stage makes a device do, in rows and tokens: of a stage to come, and of a finished one by its manifest.

    work_of(stage, plan)      # Drawing(...), Training(...), or None for votes and verdicts

Lengths of prompts and solutions are those of the plan's own texts, at CHARACTERS_PER_TOKEN; completions have their
limit, of which the longest fills all and the mean TOKEN_SHARE. A finished stage of another plan, whose texts are not at
hand, counts with PROMPT_TOKENS and TRAINING_TOKENS.

Limits: what a trainer does is read from its config's usual fields (num_generations, steps_per_generation,
num_iterations, max_tokens, beta, batch_size, max_length, epochs).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nsd.plugins.api import LoraConfig, Prompt, Question, Trainer
from nsd.runner.plan.jobs import SourceJob, ToDiscover, ToSample, ToTrain
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.store.shapes import Manifest
from nsd.runner.work.jobs import make_plugin

CHARACTERS_PER_TOKEN = 3.0  # mathematics with digits and LaTeX; English prose has about 4.4
TOKEN_SHARE = 0.6  # of max_tokens that a completion fills
TEMPLATE_TOKENS = 8  # that a chat template puts around a message
PROMPT_TOKENS, TRAINING_TOKENS, COMPLETION_TOKENS = 120, 300, 256


@dataclass(frozen=True)
class Drawing:
    """Completions: `rows` of at most `limit` tokens after `prompts` prompts of `prompt` tokens, `longest` at most.

    `samples` is how many rows a prompt has, `batch_size` how many prompts go together (None: what memory allows).
    """

    rows: float
    prompts: float
    samples: int
    prompt: float
    longest: int
    limit: int
    batch_size: int | None = None

    def within(self, context: int | None) -> Drawing:
        """With prompts that leave room for a completion in what a model reads at most; None is no bound."""
        return self if context is None else replace(self, longest=min(self.longest, max(1, context - self.limit)))

    def shared(self, processes: int) -> Drawing:
        """What the busiest of so many processes draws: it is they who are waited for."""
        if processes == 1:
            return self
        prompts = math.ceil(self.prompts / processes)
        return replace(self, prompts=prompts, rows=self.rows * prompts / self.prompts if self.prompts else 0.0)


@dataclass(frozen=True)
class Training:
    """Optimizer `steps` of `rows` rows over all processes, `tokens` in a row with its padding, `longest` at most.

    `learned` tokens of a row are in the loss. `micro` rows are in memory at once on a device (None: all of its).
    `drawing` is one sampled batch, `generations` how many there are; `reference` says that a forward pass of the start
    model is made too, `old` one of the model as it was when it sampled; `averaged` that a teacher is held, the moving
    average of the weights in force.
    """

    steps: float
    rows: int
    tokens: float
    longest: int
    learned: int
    micro: int | None = None
    checkpointing: bool = False
    lora: LoraConfig | None = None
    mixed: bool = True
    drawing: Drawing | None = None
    generations: float = 0.0
    reference: bool = False
    old: bool = False
    averaged: bool = False
    fsdp: bool = False  # weights, gradients and moments are spread over the processes

    def at_once(self, processes: int) -> int:
        """Rows in memory at once on each of so many devices."""
        mine = max(1, math.ceil(self.rows / processes))
        return mine if self.micro is None else max(1, min(self.micro, mine))


Work = Drawing | Training


def work_of(stage: Stage, plan: Plan) -> Work | None:
    """What a stage does; None for votes and verdicts over stored samples."""
    job = stage.job
    if isinstance(job, ToSample):
        lengths = _lengths(job.prompt, plan.data[job.questions])
        samples = job.sampling.n if job.sampling.temperature > 0 else 1
        if job.generated_tokens is not None:
            rounds = job.generated_tokens / max(1.0, len(lengths) * job.sampling.max_tokens * TOKEN_SHARE)
            samples = max(1, min(samples, round(rounds)))
        batch = job.engine.config.get("batch_size")
        return Drawing(
            rows=len(lengths) * samples,
            prompts=len(lengths),
            samples=samples,
            prompt=_mean(lengths),
            longest=max(lengths, default=PROMPT_TOKENS),
            limit=job.sampling.max_tokens,
            batch_size=batch if isinstance(batch, int) else None,
        )
    if isinstance(job, ToDiscover):
        return _search(job, _lengths(job.prompt, plan.data[job.questions]), job.search.samples)
    if not isinstance(job, ToTrain):
        return None
    trainer = make_plugin(job.trainer, Trainer)
    prompts, targets = [], []
    for source in job.train_on:
        questions = plan.data[source.data]
        prompts += _lengths(job.prompt, questions)
        targets += _targets(source, questions, plan)
    steps = job.budget.steps or trainer.planned_steps(len(prompts))
    if job.max_steps_cap:
        steps = job.max_steps_cap if steps is None else min(steps, job.max_steps_cap)
    return _training(trainer.config.model_dump(), steps, prompts, targets, job.lora)


def _search(job: ToDiscover, lengths: list[int], samples: int) -> Work:
    """A search of so many samples: one to come is taken to spend its budget."""
    search = job.search
    batches = math.ceil(samples / search.batch)
    if job.trainer is not None:
        config = job.trainer.config
        return _training(config, batches * int(config.get("num_iterations", 1)), lengths, [], job.lora)
    return Drawing(
        rows=samples,
        prompts=batches,
        samples=search.batch,
        prompt=_mean(lengths),
        longest=max([*lengths, search.feedback_tokens]),
        limit=job.sampling.max_tokens,
        batch_size=1,
    )


def work_done(manifest: Manifest, plan: Plan) -> Work | None:
    """What a finished stage did. Raises LookupError, TypeError or ValueError for one that does not say enough."""
    if (same := plan.stages.get(manifest.digest)) is not None and not manifest.shared:
        if isinstance(same.job, ToDiscover) and manifest.discovery is not None:  # it ends with the first right sample
            drawn = int(manifest.discovery.to_json()["samples"])
            return _search(same.job, _lengths(same.job.prompt, plan.data[same.job.questions]), drawn)
        return work_of(same, plan)
    settings = manifest.made_of
    free = manifest.to_json().get("machine", {}).get("neutral") or {}
    if manifest.generation is not None and manifest.generation.completions:
        sampling, rows = settings["sampling"], manifest.generation.completions
        each = int(manifest.generation.to_json().get("rounds") or sampling["n"])
        samples = each if sampling["temperature"] > 0 else 1
        prompts, limit = rows / each, int(sampling["max_tokens"])
        batch = free.get("batch_size")
        return Drawing(prompts * samples, prompts, samples, PROMPT_TOKENS, 2 * PROMPT_TOKENS, limit, batch)
    if manifest.training is None:
        return None
    training = manifest.training.to_json()
    config = {**settings["trainer"]["config"], **free}
    examples = sum(training["examples"].values())
    target = TRAINING_TOKENS - PROMPT_TOKENS
    lora = LoraConfig.model_validate(settings["lora"]) if settings.get("lora") else None
    return _training(config, int(training["steps"]), [PROMPT_TOKENS] * examples, [target] * examples, lora)


def _training(
    config: Mapping[str, Any], steps: float | None, prompts: list[int], targets: list[int], lora: LoraConfig | None
) -> Training:
    mixed = config.get("mixed_precision", "bf16") != "no"
    micro, checkpointing = config.get("micro_batch_size"), bool(config.get("gradient_checkpointing"))
    fsdp = config.get("fsdp") is True
    prompt, longest = _mean(prompts), max(prompts, default=PROMPT_TOKENS)
    if group := config.get("num_generations"):
        limit = int(config.get("max_tokens", COMPLETION_TOKENS))
        rows = int(config.get("prompts_per_step", 1)) * int(group)
        drawn = int(config.get("prompts_per_step", 1)) * int(config.get("n_votes", group))
        feeds, again = int(config.get("steps_per_generation", 1)), int(config.get("num_iterations", 1))
        drawing = Drawing(drawn * feeds, drawn * feeds, 1, prompt, longest, limit)
        return Training(
            steps=steps or 0,
            rows=rows,
            tokens=prompt + limit,
            longest=longest + limit,
            learned=limit,
            micro=micro,
            checkpointing=checkpointing,
            lora=lora,
            mixed=mixed,
            drawing=drawing,
            generations=math.ceil((steps or 0) / (feeds * again)),
            reference=float(config.get("beta", 0)) > 0 or _teaches(config),
            averaged="ema" in (config.get("teacher_regularization"), config.get("teacher")),
            old=feeds * again > 1,
            fsdp=fsdp,
        )
    limit_length = config.get("max_length") or 10**9
    whole = [min(a + b, limit_length) for a, b in zip(prompts, targets, strict=True)]
    batch = int(config.get("batch_size") or 8)
    if steps is None:
        steps = math.ceil(float(config.get("epochs", 1)) * len(whole) / batch)
    completion_only = config.get("loss") == "completion"
    learned = min(max(targets, default=0), limit_length) if completion_only else max(whole, default=TRAINING_TOKENS)
    return Training(
        steps=steps,
        rows=min(batch, max(1, len(whole))),
        tokens=_mean(whole),
        longest=max(whole, default=TRAINING_TOKENS),
        learned=learned,
        micro=micro,
        checkpointing=checkpointing,
        lora=lora,
        mixed=mixed,
        fsdp=fsdp,
    )


def _teaches(config: Mapping[str, Any]) -> bool:
    """Whether a self-distillation has a teacher of its own beside the model that learns."""
    return bool(config.get("teacher_regularization", "none") != "none" or config.get("teacher", "current") != "current")


def _targets(source: SourceJob, questions: Iterable[Question], plan: Plan) -> list[int]:
    """Tokens of the text that each example ends with: its solution, or what a model will have written."""
    if source.labels is not None:
        samples = plan.stages[source.labels].inputs.get("samples")
        drawn = None if samples is None else plan.stages[samples].job
        if isinstance(drawn, ToSample):
            return [round(drawn.sampling.max_tokens * TOKEN_SHARE)] * len(list(questions))
    return [tokens_of(question.solution or "") for question in questions]


def _lengths(prompt: Prompt, questions: Iterable[Question]) -> list[int]:
    """Tokens of each question's prompt."""
    found = []
    for question in questions:
        rendered = prompt.render(question)
        if isinstance(rendered, str):
            found.append(tokens_of(rendered))
        else:
            found.append(sum(tokens_of(str(one["content"])) + TEMPLATE_TOKENS for one in rendered))
    return found


def tokens_of(text: str) -> int:
    """About how many tokens a text has."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def _mean(lengths: list[int]) -> float:
    return sum(lengths) / len(lengths) if lengths else float(PROMPT_TOKENS)
