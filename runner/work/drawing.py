"""Completions: what a sample stage draws, and what it takes from another that drew from the same streams.

Completions are kept in shards as they come. A killed drawing loses the batch in flight. Where several processes draw
(runner/work/team.py), each has the questions of its share, and what is on disk counts whoever drew it. Over Ray
(runner/work/drawing_over.py) the stage's own process keeps what actors draw.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from nsd.plugins.api import Completion, Device, Engine, ModelRef, Question
from nsd.plugins.errors import Interrupted, StageFailed
from nsd.plugins.large import keys_of, picked
from nsd.runner.plan.jobs import ModelJob, PluginJob, StageJob, ToSample
from nsd.runner.plan.relatives import relatives, same_streams
from nsd.runner.store import provenance, tables
from nsd.runner.store.stored import stored_questions
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.blocks import Kept, Taking, Texts
from nsd.runner.work.context import Context
from nsd.runner.work.drawing_over import Drawer, in_blocks
from nsd.runner.work.drawn import drawn
from nsd.runner.work.failures import Failing
from nsd.runner.work.jobs import make_plugin
from nsd.runner.work.ray_pipeline import spread, through
from nsd.runner.work.rounds import Wanted
from nsd.runner.work.spending import versions_of
from nsd.runner.work.stopped import begun
from nsd.runner.work.team import OnShare


def model_ref(model: ModelJob, workspace: Workspace, device: Device | None = None) -> ModelRef:
    """The model of a job: the spec's own, or what a train stage left."""
    base = ModelRef(path=model.path, revision=model.revision, dtype=model.dtype, device=device)
    if model.train is None:
        return base
    folder = workspace.folder("train", model.train) / "model"
    if (folder / "adapter_config.json").is_file():
        return replace(base, adapter=str(folder))
    return replace(base, path=str(folder), revision=None)


AT_ONCE = 16  # blocks of questions that Ray is given together: its actors load the model for each time
FIRST_ROUNDS = 4  # after which it is guessed how many more a limit in tokens holds


def draw(work: ToSample, context: Context, kept: Kept) -> None:
    """Draw the completions that a stage wants and that are not there.

    Shards on disk are not drawn again, but for the completions in them that failed: another attempt may do better.
    """
    wanted = Wanted.of_stage(work)
    total, before = len(kept.questions) * work.sampling.n, kept.count()
    context.progress(before, total, "completions", resumed=before)
    if any(wanted.lacks(kept.questions_of(block), kept.of(block).held) for block in kept.blocks):
        told = _Sum(context, before, total)
        job_path, team = context.partial / "job.json", context.team
        if context.over is not None and is_shared(work):
            draw_over(work, context, kept, told)
        else:
            with team.drawing(job_path, context.processes, told, context.should_stop):
                draw_share(work, context, kept, told)
        if context.processes > 1:
            kept.forget()


def completed(work: ToSample, context: Context, kept: Kept, facts: Tally) -> Iterator[Completion]:
    """The completions that a stage wants, in question order then sample order; `facts` are told what it drew itself.

    At their end, where at least half failed, raises StageFailed; below that, the count and the commonest reason are a
    warning.
    """
    wanted = Wanted.of_stage(work)

    def chosen() -> Iterator[Completion]:
        for block in kept.blocks:
            here = kept.of(block)
            completions = wanted.chosen(kept.questions_of(block), here.all)
            # Between votes a round may have drawn what none asked for.
            own = completions if work.asking is None else here.drawn.values()
            for item in own:
                if work.asking is not None or (item.question_id, item.sample) not in here.others:
                    facts.add(item)
            yield from completions

    counting = Failing()
    for item in chosen():
        counting.add(item)
        yield item
    if (failed := counting.found()) is not None:
        if failed.most:
            raise StageFailed(failed.sentence())
        context.warn(f"{failed.sentence()}; a failed completion scores 0 and has no vote")


def draw_within(work: ToSample, context: Context, kept: Kept) -> tuple[list[Completion], Tally]:
    """Completions of as many rounds over the questions as the stage's tokens seem to hold, `sampling.n` at most.

    After the first rounds it is their mean length that says how many; `rounds_within` says how many really fit. The
    same completions give the same rounds, so a resumed stage draws what an uninterrupted one does.
    """
    assert work.generated_tokens is not None
    rounds = min(FIRST_ROUNDS, work.sampling.n)
    while True:
        some = replace(work, sampling=replace(work.sampling, n=rounds))
        draw(some, context, kept)
        facts = Tally()
        completions = list(completed(some, context, kept, facts))
        spent = sum(item.tokens for item in completions)
        wanted = work.sampling.n if spent == 0 else min(work.sampling.n, work.generated_tokens * rounds // spent)
        if wanted <= rounds:
            return completions, facts
        rounds = wanted


def rounds_within(completions: Sequence[Completion], tokens: int) -> int:
    """How many of the first complete rounds over the questions have at most so many tokens together; 1 at least."""
    spent: dict[int, int] = {}
    for item in completions:
        spent[item.sample] = spent.get(item.sample, 0) + item.tokens
    sums = itertools.accumulate(spent[number] for number in sorted(spent))
    return max(1, sum(total <= tokens for total in sums))


def draw_share(work: ToSample, context: Context, kept: Kept, told: OnShare) -> None:
    """Draw what this process has to draw of a stage and is not in `kept`, to which it is added, shard by shard.

    Where nothing is missing of its share, no engine is made.
    """
    if context.processes > 1:
        mine = share(kept.questions, context.number, context.processes)
        kept = Kept(mine, work.sampling.n, kept.shards, kept.taken)
    ref = model_ref(work.model, context.workspace, context.device) if work.model is not None else None
    shards = Shards(context, told)
    for block in kept.blocks:
        here = kept.of(block)
        engine = partial(engine_of, work.engine, context)
        for batch in drawn(work, kept.questions_of(block), ref, engine, here.others, here.held):
            if batch:
                if work.served:
                    context.keep_account()  # no shard is there whose price is not
                shards.add(batch)
                here.add(batch)
            if context.should_stop() or context.team.broken:
                raise Interrupted("stopped after a shard")


def draw_over(work: ToSample, context: Context, kept: Kept, told: OnShare) -> None:
    """The same through Ray's actors: all that a stage lacks, a shard for each block of questions that an actor draws.

    Raises InputError or StageFailed with what an engine said, what was drawn being kept.
    """
    assert context.over is not None
    members = context.ray.open(context.over)
    actors = spread(members, context.over, work.uses_every_gpu)
    context.computes_with(actors.count, actors.count * actors.gpus)
    ref = model_ref(work.model, context.workspace, context.device) if work.model is not None else None
    given = (work, ref, str(context.workspace.root.resolve()))
    shards = Shards(context, told)
    for start in range(0, len(kept.blocks), AT_ONCE):
        blocks = []
        for block in kept.blocks[start : start + AT_ONCE]:
            here = kept.of(block)
            blocks += in_blocks(work, kept.questions_of(block), here.others, here.held, actors.count)
        for _, found in through(Drawer, given, blocks, actors, context.should_stop) if blocks else ():
            if found.completions:
                shards.add(found.completions)
            found.check()
    kept.forget()


class Shards:
    """The files in which a process keeps what it, or whoever works for it, has drawn of a stage."""

    def __init__(self, context: Context, told: OnShare) -> None:
        self._folder = context.partial / "shards"
        self._who, self._told = context.number, told
        # A file of another process may bear the same number, and never the same name.
        self._mine = f"-{context.number}" if context.number else ""
        stems = (path.stem.partition("-")[0] for path in self._folder.glob("*.parquet"))
        self._number = max((int(stem) for stem in stems if stem.isdecimal()), default=-1) + 1
        self._drawn, self._tokens, self._started = 0, 0, time.monotonic()

    def add(self, batch: Sequence[Completion]) -> None:
        """Keep a batch, and tell how many there are."""
        tables.write_completions(self._folder / f"{self._number:06d}{self._mine}.parquet", batch)
        self._number += 1
        self._drawn += len(batch)
        self._tokens += sum(item.tokens for item in batch)
        self._told(self._who, self._drawn, self._tokens / max(time.monotonic() - self._started, 1e-9))


def share(questions: Sequence[Question], number: int, processes: int) -> Sequence[Question]:
    """The questions that one of several processes draws, whatever their order: dealt out by their ids, their content.

    The shares of all are disjoint and whole, and their sizes differ by one at most.
    """
    import numpy as np

    return picked(questions, np.sort(np.argsort(keys_of(questions), kind="stable")[number::processes]))


def drawers(work: StageJob, there: int) -> int:
    """How many of the processes that are `there` draw the completions of a stage."""
    if not isinstance(work, ToSample) or not is_shared(work):
        return 1
    return 1 if work.uses_every_gpu else there


def is_shared(work: ToSample) -> bool:
    """Whether the drawing can be shared at all."""
    # Within a limit in tokens one draws: how much there is to share shows while it is drawn.
    return work.model is not None and work.generated_tokens is None


class _Sum:
    """Adds up what every process has drawn, and tells it."""

    def __init__(self, context: Context, before: int, total: int) -> None:
        self._context, self._before, self._total = context, before, total
        self._drawn: dict[int, int] = {}
        self._rates: dict[int, float] = {}
        self._lock = threading.Lock()

    def __call__(self, number: int, drawn: int, rate: float) -> None:
        with self._lock:
            self._drawn[number], self._rates[number] = drawn, rate
            done = self._before + sum(self._drawn.values())
            rate = round(sum(self._rates.values()))
            self._context.progress(done, self._total, "completions", tokens_per_second=rate)


def _tells(context: Context) -> OnShare:
    """Tells the process that leads what this one has drawn."""
    return lambda _, drawn, rate: context.progress(drawn, None, "completions", tokens_per_second=rate)


def take(work: ToSample, settings: Mapping[str, Any], context: Context, questions: Sequence[Question]) -> list[Path]:
    """Files of completions that other stages, finished or stopped, drew from the streams of this one.

    What was taken when the stage began is kept, in `taken/NUMBER-DIGEST.parquet`: a continued stage cuts its batches
    as it did at first. Nothing is taken from a stage that was made with another version of torch and the like.
    """
    folder = context.partial / "taken"
    if context.number == 0 and not folder.is_dir() and not any(context.partial.glob("shards/*")):
        _choose(work, settings, context, questions)
    return sorted(folder.glob("*.parquet"))


@dataclass(frozen=True)
class _Source:
    """A stage that drew from the same streams, and the packages it did so with. Its completions are read on demand."""

    digest: str
    questions: str
    data_hash: str
    packages: Mapping[str, str]
    completions: Iterable[Completion]


def _sources(settings: Mapping[str, Any], context: Context) -> Iterator[_Source]:
    """Finished stages, those with most samples first, then stopped ones."""
    for manifest in relatives(settings, context.workspace.manifests("sample")):
        completions = tables.stream_completions(manifest.folder / "samples.parquet")
        data_hash = manifest.data_hash or ""
        yield _Source(manifest.digest, manifest.made_of["questions"], data_hash, manifest.packages, completions)
    for one in begun(context.workspace):
        job, theirs = one.job, one.job.settings
        if one.folder == context.partial or not isinstance(job.work, ToSample) or not same_streams(settings, theirs):
            continue
        packages = versions_of(one.folder)
        yield _Source(job.digest, theirs["questions"], job.work.questions, packages, one.completions())


def _choose(work: ToSample, settings: Mapping[str, Any], context: Context, questions: Sequence[Question]) -> None:
    n, versions = work.sampling.n, provenance.shaping(provenance.packages())
    sources = (one for one in _sources(settings, context) if provenance.shaping(one.packages) == versions)
    number, taking = 0, None
    for source in sources:
        taking = taking or Taking(questions, n)
        theirs = None
        if source.questions != settings["questions"]:
            path = context.workspace.data_file(source.data_hash)
            theirs = Texts(stored_questions(path) if path.is_file() else [])
        for useful in taking.of(source.completions, theirs):
            path = context.partial / "taken" / f"{number:06d}-{source.digest}.parquet"
            path.parent.mkdir(exist_ok=True)
            tables.write_completions(path, useful)
            number += 1


def engine_of(block: PluginJob, context: Context) -> Engine:
    """The engine of a stage, kept from an earlier one where it is the same."""
    key = repr(block)
    for other, loaded in context.engines.items():
        if other != key:  # one loaded model at a time on a device
            loaded.close()
    if key not in context.engines:
        context.engines[key] = make_plugin(block, Engine)
    engine = context.engines[key]
    if engine.served:
        engine.meter, engine.stopping = context.meter, context.should_stop
    return engine


class Tally:
    """Counts what a report wants to know of completions."""

    def __init__(self) -> None:
        self.tokens = 0
        self.reasons: Counter[str] = Counter()

    def add(self, item: Completion) -> None:
        """One more."""
        self.tokens += item.tokens
        self.reasons[str(item.stop_reason)] += 1

    def facts(self) -> dict[str, Any]:
        """How many, their tokens, and how they ended."""
        reasons = dict(sorted(self.reasons.items()))
        return {"completions": self.reasons.total(), "tokens": self.tokens, "stop_reasons": reasons}


def generation_facts(completions: Iterable[Completion]) -> dict[str, Any]:
    """Counts a report wants of any stage that draws completions."""
    tally = Tally()
    for item in completions:
        tally.add(item)
    return tally.facts()


def run_sample(work: ToSample, settings: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Completions of the unlabeled or the test questions. `settings` is the stage's key, written out."""
    questions = context.questions(work.questions)
    taken = take(work, settings, context, questions)
    kept = Kept(questions, work.sampling.n, context.partial / "shards", taken)
    if context.number:
        draw_share(work, context, kept, _tells(context))
        return {}
    target, rounds, tally = context.artifact / "samples.parquet", None, Tally()
    if work.generated_tokens is None:
        draw(work, context, kept)
        tables.write_completions(target, completed(work, context, kept, tally))
    else:
        completions, tally = draw_within(work, context, kept)
        rounds = rounds_within(completions, work.generated_tokens)
        tables.write_completions(target, (item for item in completions if item.sample < rounds))
    facts = tally.facts()
    if work.asking is not None:
        wanted = tables.count(target)
        facts |= {"wanted": wanted, "at_most": len(questions) * work.sampling.n}
        context.progress(wanted, wanted, "completions")
    if rounds is not None:
        facts["rounds"] = rounds
    shared: dict[str, int] = {}
    for path in filter(Path.exists, taken):  # one that could not be read is gone
        digest = path.stem.partition("-")[2]
        shared[digest] = shared.get(digest, 0) + tables.count(path)
    engine = context.engines.get(repr(work.engine))
    answered = None if engine is None else engine.answered()
    told = {} if answered is None else {"answered": asdict(answered)}
    return {"data_hash": work.questions, "generation": facts, "shared": shared, **told}


def stream_stored(digest: str, context: Context) -> Iterator[Completion]:
    """What a sample stage drew, of which little is held. Raises StageFailed where most of it failed."""
    path = context.workspace.folder("sample", digest) / "samples.parquet"
    # Samples that an earlier version of nsd kept although most of them had failed.
    counting = Failing()
    for error in tables.stream_failed(path):
        counting.tell(error)
    if (failed := counting.found()) is not None and failed.most:
        raise StageFailed(f"{failed.sentence()}; remove {path.parent} to have them drawn again")
    return tables.stream_completions(path)


def stored_completions(digest: str, context: Context) -> list[Completion]:
    """The same, all of it."""
    return list(stream_stored(digest, context))
