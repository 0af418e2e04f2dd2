"""Blocks of a stage's work through Ray Data: actors that keep an engine or a verifier, each block's result as it comes.

    actors = spread(members, over, blocks=40)
    for number, result in through(Drawer, (work, ref), blocks, actors, should_stop): ...

Ray Data gives an actor its next blocks when it has done one, holds back where results are not taken, starts an actor
again that died (its process or its machine), and gives its blocks to it or to another. Results come in any order. The
caller keeps them, so what it has kept is nobody's to lose.

Limits: a block goes through whole or not at all; an actor is started again RESTARTS times. Where as many actors as
there are GPUs run and a machine goes away, the blocks that its actors had wait until another GPU is free.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from nsd.plugins.errors import Interrupted, StageFailed
from nsd.runner.work.ray_machines import Member, Over

RESTARTS = 3  # of one actor; then whatever kills it is no accident
AHEAD = 2  # blocks that an actor has: the one at work, and the next
LOOK_SECONDS = 0.2

Block = TypeVar("Block", contravariant=True)
Result = TypeVar("Result", covariant=True)


class Does(Protocol[Block, Result]):
    """What an actor keeps: made once in its process."""

    def do(self, block: Block) -> Result:
        """The result of one block. What it raises is raised to the caller of `through`, as a StageFailed."""


@dataclass(frozen=True)
class Actors:
    """How many, and what each has to itself."""

    count: int
    cpus: int
    gpus: int = 0


def spread(members: Sequence[Member], over: Over, every_gpu: bool = False) -> Actors:
    """The actors that draw: one a GPU, one a machine for an engine that spreads by itself, else `over.each` a machine.

    >>> spread([Member(8, 0), Member(8, 0)], Over(each=2, gpus=0))
    Actors(count=4, cpus=4, gpus=0)
    >>> spread([Member(16, 4), Member(16, 4)], Over(each=4, gpus=4))
    Actors(count=8, cpus=1, gpus=1)
    """
    if not over.gpus:
        return Actors(over.each * len(members), max(1, min(one.cpus for one in members) // over.each))
    having = [min(one.gpus, over.each) for one in members if one.gpus] or [over.gpus]
    return Actors(len(having), 1, min(having)) if every_gpu else Actors(sum(having), 1, 1)


def spread_scoring(members: Sequence[Member], every_core: bool) -> Actors:
    """The actors that score: one a core, or one a machine for a verifier that uses every core by itself."""
    if every_core:
        return Actors(len(members), min(one.cpus for one in members))
    return Actors(sum(one.cpus for one in members), 1)


def through(
    does: Callable[..., Does[Block, Result]],
    given: tuple[Any, ...],
    blocks: Sequence[Block],
    actors: Actors,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[int, Result]]:
    """The number of each block with its result, as they are done. Ray must be connected (ray_machines.Connection).

    Raises Interrupted where `should_stop` says so, with the blocks under way lost, and StageFailed where an actor
    keeps dying or raised.
    """
    found: queue.Queue[tuple[int, Result] | BaseException | None] = queue.Queue(maxsize=AHEAD)
    left = threading.Event()

    def fetch() -> None:
        # A thread of its own: whoever waits for a result must hear of a stop meanwhile.
        try:
            with contextlib.closing(_results(does, given, blocks, actors)) as results:
                for result in results:
                    while not left.is_set():
                        with contextlib.suppress(queue.Full):
                            found.put(result, timeout=LOOK_SECONDS)
                            break
                    if left.is_set():
                        return
            last: BaseException | None = None
        except BaseException as error:
            last = error
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                found.put(last, timeout=LOOK_SECONDS)
                return

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    try:
        while True:
            if should_stop():
                raise Interrupted("stopped; the blocks under way are drawn again")
            try:
                one = found.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if one is None:
                return
            if isinstance(one, BaseException):
                raise _failure(one) from one
            yield one
    finally:
        left.set()


def _failure(error: BaseException) -> StageFailed:
    from ray.exceptions import ActorDiedError, RayTaskError

    if isinstance(error, ActorDiedError):
        return StageFailed(
            f"a process that Ray started died {RESTARTS + 1} times, most often because the machine ran out of memory; "
            "what was done is kept, and the same command continues there"
        )
    if isinstance(error, RayTaskError) and error.cause is not None:
        while error.__cause__ is not None:
            error = error.__cause__
        return StageFailed(f"{type(error).__name__}: {error}")
    return StageFailed(f"Ray could not go on: {type(error).__name__}: {error}")


def _results(
    does: Callable[..., Does[Block, Result]], given: tuple[Any, ...], blocks: Sequence[Block], actors: Actors
) -> Generator[tuple[int, Result], None, None]:
    import ray.data

    settings = ray.data.DataContext.get_current()
    settings.enable_progress_bars = settings.print_on_execution_start = False
    rows = [{"number": number, "block": pickle.dumps(block)} for number, block in enumerate(blocks)]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Actor,
        fn_constructor_args=(pickle.dumps((does, given)),),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(actors.count, len(rows)), max_tasks_in_flight_per_actor=AHEAD),
        num_cpus=actors.cpus,
        num_gpus=actors.gpus or None,
        ray_remote_args_fn=_bounded,
    )
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for row in batch.to_pylist():
            yield row["number"], pickle.loads(row["result"])


def _bounded() -> dict[str, Any]:
    return {"max_restarts": RESTARTS}


class _Actor:
    """What Ray Data keeps in a process of its own. The work is made with the first block, whose error that is then."""

    def __init__(self, made_of: bytes) -> None:
        self._made_of = made_of
        self._does: Does[Any, Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        if self._does is None:
            does, given = pickle.loads(self._made_of)
            self._does = does(*given)
        results = [pickle.dumps(self._does.do(pickle.loads(block))) for block in batch["block"]]
        return {"number": list(batch["number"]), "result": results}
