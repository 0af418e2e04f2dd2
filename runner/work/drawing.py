"""Completions: what a sample stage draws, and what it takes from another that drew from the same streams.

Completions are kept in shards as they come. A killed drawing loses the batch in flight.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nsd.plugins.api import Completion, Device, Engine, ModelRef, Request
from nsd.plugins.errors import Interrupted, StageFailed
from nsd.runner.plan.jobs import ModelJob, PluginJob, ToSample
from nsd.runner.plan.relatives import relatives
from nsd.runner.store import provenance, tables
from nsd.runner.store.shapes import Broken
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.context import Context
from nsd.runner.work.failures import failures
from nsd.runner.work.jobs import make_plugin


def model_ref(model: ModelJob, workspace: Workspace, device: Device | None = None) -> ModelRef:
    """The model of a job: the spec's own, or what a train stage left."""
    base = ModelRef(path=model.path, revision=model.revision, dtype=model.dtype, device=device)
    if model.train is None:
        return base
    folder = workspace.folder("train", model.train) / "model"
    if (folder / "adapter_config.json").is_file():
        return replace(base, adapter=str(folder))
    return replace(base, path=str(folder), revision=None)


Place = tuple[str, int]  # question id and sample number


def draw(work: ToSample, context: Context, others: Mapping[Place, Completion]) -> list[Completion]:
    """All completions of a stage, in question order then sample order; `others` are there already.

    Shards on disk are not drawn again, but for the completions in them that failed: another attempt may do better.
    Raises StageFailed where at least half failed; below that, the count and the commonest reason are a warning.
    """
    questions = context.questions(work.questions)
    prompt, sampling = work.prompt, work.sampling
    shards = context.partial / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    drawn = {key: item for path in sorted(shards.glob("*.parquet")) for key, item in _read(path).items()}
    held = {**others} | {key: item for key, item in drawn.items() if not item.failed}
    total = len(questions) * sampling.n
    context.progress(len(held), total, "completions", resumed=len(held))
    if len(held) < total:
        engine = _engine(work.engine, context)
        ref = model_ref(work.model, context.workspace, context.device) if work.model is not None else None
        given = prompt.chat_template_kwargs
        asked = [Request(one.id, prompt.render(one), _first(one.id, others), given) for one in questions]
        requests = [request for request in asked if request.first < sampling.n]
        number = max((int(path.stem) for path in shards.glob("*.parquet") if path.stem.isdecimal()), default=-1) + 1
        tokens, started = 0, time.monotonic()
        for batch in engine.generate(ref, requests, sampling, work.seed, frozenset(held)):
            tables.write_completions(shards / f"{number:06d}.parquet", batch)
            number += 1
            held |= {(item.question_id, item.sample): item for item in batch}
            tokens += sum(item.tokens for item in batch)
            rate = tokens / max(time.monotonic() - started, 1e-9)
            context.progress(len(held), total, "completions", tokens_per_second=round(rate))
            if context.should_stop():
                raise Interrupted("stopped after a shard")
    missing = [(q.id, s) for q in questions for s in range(sampling.n) if (q.id, s) not in held]
    if missing:
        raise StageFailed(f"the engine returned no completion for {len(missing)} of {total} requests")
    completions = [held[question.id, sample] for question in questions for sample in range(sampling.n)]
    if (failed := failures(completions)) is not None:
        if failed.most:
            raise StageFailed(failed.sentence())
        context.warn(f"{failed.sentence()}; a failed completion scores 0 and has no vote")
    return completions


def take(work: ToSample, settings: Mapping[str, Any], context: Context) -> dict[str, dict[Place, Completion]]:
    """Completions that other finished stages drew from the streams of this one, by stage.

    What was taken when the stage began is kept, in `taken/NUMBER-DIGEST.parquet`: a continued stage cuts its batches
    as it did at first. Nothing is taken from a stage that was made with another version of torch and the like.
    """
    folder = context.partial / "taken"
    if not folder.is_dir() and not any(context.partial.glob("shards/*")):
        _choose(work, settings, context)
    found: dict[str, dict[Place, Completion]] = {}
    for path in sorted(folder.glob("*.parquet")):
        if items := _read(path):
            found[path.stem.partition("-")[2]] = items
    return found


def _choose(work: ToSample, settings: Mapping[str, Any], context: Context) -> None:
    n, versions = work.sampling.n, provenance.shaping(provenance.packages())
    texts = {question.id: question.text for question in context.questions(work.questions)}
    seen: set[Place] = set()
    for number, manifest in enumerate(relatives(settings, context.workspace.manifests("sample"))):
        if provenance.shaping(manifest.packages) != versions:
            continue
        theirs = texts
        if manifest.made_of["questions"] != settings["questions"]:
            theirs = {one.id: one.text for one in tables.held_questions(context.workspace, manifest.data_hash or "")}
        useful = [
            one
            for one in tables.read_completions(manifest.folder / "samples.parquet")
            if one.sample < n and not one.failed and (one.question_id, one.sample) not in seen
            if one.question_id in texts and texts[one.question_id] == theirs.get(one.question_id)
        ]
        if useful:
            seen |= {(one.question_id, one.sample) for one in useful}
            path = context.partial / "taken" / f"{number:06d}-{manifest.digest}.parquet"
            path.parent.mkdir(exist_ok=True)
            tables.write_completions(path, useful)


def _first(question_id: str, others: Mapping[Place, Completion]) -> int:
    """The first sample of a question that no other stage drew."""
    return next(sample for sample in itertools.count() if (question_id, sample) not in others)


def _read(path: Path) -> dict[Place, Completion]:
    try:
        return {(item.question_id, item.sample): item for item in tables.read_completions(path)}
    except Broken as broken:  # its completions are owed again
        path.replace(path.with_name(f"{path.name}.broken"))
        print(f"{broken}; kept as {path.name}.broken, and drawn again")
        return {}


def _engine(block: PluginJob, context: Context) -> Engine:
    """The engine of a stage, kept from an earlier one where it is the same."""
    key = repr(block)
    for other, loaded in context.engines.items():
        if other != key:  # one loaded model at a time on a device
            loaded.close()
    if key not in context.engines:
        context.engines[key] = make_plugin(block, Engine)
    return context.engines[key]


def generation_facts(completions: Sequence[Completion]) -> dict[str, Any]:
    """Counts a report wants of any stage that draws completions."""
    reasons = [str(item.stop_reason) for item in completions]
    return {
        "completions": len(completions),
        "tokens": sum(item.tokens for item in completions),
        "stop_reasons": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
    }


def run_sample(work: ToSample, settings: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Completions of the unlabeled or the test questions. `settings` is the stage's key, written out."""
    taken = take(work, settings, context)
    others = {place: item for items in taken.values() for place, item in items.items()}
    completions = draw(work, context, others)
    tables.write_completions(context.artifact / "samples.parquet", completions)
    drawn = [item for item in completions if (item.question_id, item.sample) not in others]
    shared = {digest: len(items) for digest, items in taken.items()}
    return {"data_hash": work.questions, "generation": generation_facts(drawn), "shared": shared}


def stored_completions(digest: str, context: Context) -> list[Completion]:
    """What a sample stage drew. Raises StageFailed where most of it failed."""
    path = context.workspace.folder("sample", digest) / "samples.parquet"
    completions = tables.read_completions(path)
    # Samples that an earlier version of nsd kept although most of them had failed.
    if (failed := failures(completions)) is not None and failed.most:
        raise StageFailed(f"{failed.sentence()}; remove {path.parent} to have them drawn again")
    return completions
