"""Verdicts on completions: in this process while that is quick, over the cores where it takes long.

    scored = Scoring(block, folder, progress, should_stop).of(completions, questions)

Verdicts are kept in shards in `folder` as they come, so that a killed or stopped scoring loses at most the last
`KEEP_SECONDS`; what lies there is not scored again. Each process makes a verifier of its own (`math` then has a helper
process in each). How many processes there are changes no verdict and not their order.

Over Ray what would take this machine long is given in blocks to an actor for each core of the
cluster. Questions with side files are scored here, where the files are.

Limits: a process of this machine that dies fails the stage, with everything before it kept.
"""

from __future__ import annotations

import concurrent.futures
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.connection import wait as wait_for
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from nsd.plugins.api import Completion, Question, Score, Scored, Verifier
from nsd.plugins.cores import usable_cores
from nsd.plugins.errors import Interrupted, StageFailed
from nsd.runner.plan.jobs import PluginJob
from nsd.runner.store import tables
from nsd.runner.store.shapes import Broken
from nsd.runner.work.jobs import make_plugin
from nsd.runner.work.ray_machines import Connection, Over
from nsd.runner.work.ray_pipeline import spread_scoring, through

CHUNK = 16  # completions given to a process at a time
ALONE_SECONDS = 2.0  # a process takes about a second to start: what ends before this is not worth one
OVER_RAY_SECONDS = 60.0  # of all cores here: actors take some ten seconds to start
BLOCK, BLOCKS_EACH = 2048, 4  # completions of a block at most, blocks of an actor at least
KEEP_SECONDS = 2.0
LOOK_SECONDS = 0.2  # between looks at whether to stop

FAILED = Score(score=0.0, correct=False, answer=None)

Item = tuple[Completion, Question]


@dataclass
class Scoring:
    """One stage's verdicts: the verifier's block, where shards lie, whom to tell, and whether to stop.

    `progress(done, resumed)` is called as verdicts come. `processes` None leaves it to the time that scoring takes.
    """

    block: PluginJob
    folder: Path
    progress: Callable[[int, int], None]
    should_stop: Callable[[], bool]
    processes: int | None = None
    over: Over | None = None
    ray: Connection = field(default_factory=Connection)
    _held: dict[tuple[str, int], Score] = field(default_factory=dict)
    _fresh: list[tuple[str, int]] = field(default_factory=list)
    _resumed: int = 0
    _number: int = 0
    _kept_at: float = 0.0
    _far: bool = False  # whether what is left is worth other machines

    def of(self, completions: Sequence[Completion], questions: Mapping[str, Question]) -> list[Scored]:
        """The completions with their verdicts, in order. `questions` are by id.

        Raises Interrupted where it was asked to stop, StageFailed where a process died, and what the verifier raises.
        """
        self._read()
        owed = [(one, questions[one.question_id]) for one in completions if _key(one) not in self._held]
        self._resumed = len(completions) - len(owed)
        self._kept_at = time.monotonic()
        self.progress(self._resumed, self._resumed)
        try:
            chunks = [owed[start : start + CHUNK] for start in range(0, len(owed), CHUNK)]
            left = self._alone(chunks)
            if left and self._far and not any(question.side_files for chunk in left for _, question in chunk):
                self._over_ray(left)
            elif left:
                self._together(left)
        finally:
            self._keep()
        return [Scored(one, self._held[_key(one)]) for one in completions]

    # ------------------------------------------------------------------ the work

    def _alone(self, chunks: list[list[Item]]) -> list[list[Item]]:
        """Score here; returns what other processes are to do, where the rest would take this one long."""
        if self.processes is not None and self.processes > 1:
            return chunks
        verifier = make_plugin(self.block, Verifier)
        cores = 1 if self.processes is not None or verifier.uses_every_core else usable_cores()
        began = time.monotonic()
        for done, chunk in enumerate(chunks, 1):
            for item, score in zip(chunk, verdicts(verifier, chunk), strict=True):
                self._add(item, score)
                self._look()
            spent = time.monotonic() - began
            left = len(chunks) - done
            self._far = self.over is not None and spent / done * left > OVER_RAY_SECONDS * cores
            if (cores > 1 or self._far) and spent > ALONE_SECONDS and spent / done * left > ALONE_SECONDS:
                return chunks[done:]
        return []

    def _over_ray(self, chunks: list[list[Item]]) -> None:
        assert self.over is not None
        verifier = make_plugin(self.block, Verifier)
        actors = spread_scoring(self.ray.open(self.over), verifier.uses_every_core)
        items = [item for chunk in chunks for item in chunk]
        each = min(BLOCK, max(CHUNK, math.ceil(len(items) / (BLOCKS_EACH * actors.count))))
        blocks = [items[start : start + each] for start in range(0, len(items), each)]
        for number, found in through(Judge, (self.block,), blocks, actors, self.should_stop):
            self._take(blocks[number], found)

    def _together(self, chunks: list[list[Item]]) -> None:
        # Started anew and not forked: this process may hold a model and its threads.
        start = multiprocessing.get_context("spawn")
        stop = start.Event()
        count = min(self.processes or usable_cores(), len(chunks))
        waiting: dict[concurrent.futures.Future[list[Score] | None], list[Item]] = {}
        owed = list(reversed(chunks))
        pool = concurrent.futures.ProcessPoolExecutor(count, start, _begin, (self.block, stop))
        try:
            while owed or waiting:
                while owed and len(waiting) < 4 * count:
                    chunk = owed.pop()
                    waiting[pool.submit(_verdicts, chunk)] = chunk
                ended, _ = concurrent.futures.wait(waiting, LOOK_SECONDS, concurrent.futures.FIRST_COMPLETED)
                for future in ended:
                    self._take(waiting.pop(future), future.result())
                if self.should_stop() and not stop.is_set():
                    stop.set()  # each process leaves off after the completion that it is at
                    owed.clear()
        except BrokenProcessPool as error:
            raise StageFailed(
                "a process that scores completions died, most often because the machine ran out of memory; what was "
                "scored is kept, and the same command continues there"
            ) from error
        finally:
            stopped = stop.is_set()
            stop.set()
            pool.shutdown(cancel_futures=True)
        if stopped:
            raise Interrupted("stopped while scoring")

    def _take(self, chunk: list[Item], found: list[Score] | None) -> None:
        if found is None:  # met again here, where it is raised as what it is
            verifier = make_plugin(self.block, Verifier)
            found = list(verdicts(verifier, chunk))
        for item, score in zip(chunk, found, strict=False):  # a process that was stopped gives the first ones alone
            self._add(item, score)
        self._tell()

    def _look(self) -> None:
        self._tell()
        if self.should_stop():
            raise Interrupted("stopped while scoring")

    def _tell(self) -> None:
        if time.monotonic() - self._kept_at >= KEEP_SECONDS:
            self._keep()
            self.progress(len(self._held), self._resumed)

    # ------------------------------------------------------------------ what is kept

    def _add(self, item: Item, score: Score) -> None:
        self._held[_key(item[0])] = score
        self._fresh.append(_key(item[0]))

    def _read(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder.glob("*.parquet")):
            self._number = max(self._number, int(path.stem) + 1) if path.stem.isdecimal() else self._number
            try:
                self._held |= tables.read_scores(path)
            except Broken as broken:  # its completions are scored again
                path.replace(path.with_name(f"{path.name}.broken"))
                print(f"{broken}; kept as {path.name}.broken, and scored again")

    def _keep(self) -> None:
        if self._fresh:
            path = self.folder / f"{self._number:06d}.parquet"
            tables.write_scores(path, {key: self._held[key] for key in self._fresh})
            self._number += 1
            self._fresh = []
        self._kept_at = time.monotonic()


def verdicts(verifier: Verifier, chunk: Sequence[Item]) -> Iterator[Score]:
    """A verifier's scores of some completions, in order; 0 for one that failed, whose text is not looked at.

    One at a time, so that a stop waits for one alone, but where the verifier has a way of its own for many.
    """
    if type(verifier).score_many is Verifier.score_many:
        yield from (Scored.judge(completion, question, verifier).score for completion, question in chunk)
        return
    read = [(one.text, question) for one, question in chunk if not one.failed]
    scores = verifier.score_many(read)
    if len(scores) != len(read):
        raise StageFailed(f"the verifier {verifier.name} gave {len(scores)} verdicts on {len(read)} completions")
    given = iter(scores)
    yield from (FAILED if completion.failed else next(given) for completion, _ in chunk)


def _key(completion: Completion) -> tuple[str, int]:
    return completion.question_id, completion.sample


# --------------------------------------------------------------------------- in the other processes

_here: dict[str, Any] = {}


def _begin(block: PluginJob, stop: Event) -> None:
    # Whoever stops a run may stop every process of it: this one is told by the one that started it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _here["verifier"], _here["stop"] = make_plugin(block, Verifier), stop


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os._exit(1)


class Judge:
    """The same of a process that Ray keeps, on whichever machine."""

    def __init__(self, block: PluginJob) -> None:
        self._verifier = make_plugin(block, Verifier)

    def do(self, chunk: Sequence[Item]) -> list[Score] | None:
        """Verdicts on a block; None after any error."""
        try:
            return list(verdicts(self._verifier, chunk))
        except Exception:
            return None


def _verdicts(chunk: Sequence[Item]) -> list[Score] | None:
    """Verdicts on the first completions of a chunk, on all of them unless told to stop; None after any error."""
    try:
        return list(_until_stopped(chunk))
    except Exception:
        return None


def _until_stopped(chunk: Sequence[Item]) -> Iterator[Score]:
    for score in verdicts(_here["verifier"], chunk):
        yield score
        if _here["stop"].is_set():
            return
