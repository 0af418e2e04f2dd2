"""Many requests at a time to one server, each tried again until it has an answer: the inside of the `openai` engine.

`Asking` runs in a thread of its own, where an event loop keeps so many requests in flight. Whoever takes the
completions says how many were taken, and no more is asked before: a slow reader slows the asking.

A try ends as `openai_tries` says. An answer is a completion. A refusal of the prompt is a failed completion, and the
prompt's other samples are not asked. What may pass is tried again, and is a failed completion when the tries are spent.
Anything else ends the asking: what is in flight is waited for and kept, nothing is tried again, and then the reason is
raised.
"""

from __future__ import annotations

import asyncio
import hashlib
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nsd.plugins.api import Completion, Request, Sampling, StopReason
from nsd.plugins.engines.openai_bodies import (
    Answer,
    Form,
    Tokens,
    body_of,
    likely_prompt_tokens,
    most_prompt_tokens,
)
from nsd.plugins.engines.openai_pace import Pace, Record, backoff
from nsd.plugins.engines.openai_server import Server
from nsd.plugins.engines.openai_tries import Again, Failed, Tried, Tries, Wanted
from nsd.plugins.errors import BudgetSpent, NsdError, StageFailed
from nsd.plugins.metering import Meter, Usage
from nsd.plugins.seeds import stream

if TYPE_CHECKING:
    import httpx2

WAITING = 4  # completions for each request in flight that may wait to be taken
FEWEST_LOST = 16  # requests in a row without an answer before the server is taken to be gone


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars for a million tokens."""

    prompt: float
    completion: float

    def of(self, tokens: Tokens) -> float:
        """Dollars for so many."""
        return (tokens.prompt * self.prompt + tokens.completion * self.completion) / 1e6


@dataclass(frozen=True, slots=True)
class Limit:
    """What may be spent: `prices` None where nobody knows them, `dollars` None where there is no limit."""

    prices: Prices | None
    dollars: float | None


@dataclass(slots=True)
class Known:
    """What the server said of prompts, as long as one stage asks: rounds of a vote ask for the same ones again.

    By prompt and limit of tokens (`about`): its tokens as the server counted them, and why it refuses it.
    """

    prompt_tokens: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def about(request: Request, sampling: Sampling) -> str:
        """The key of a prompt."""
        said = repr((request.question_id, request.prompt, request.chat_template_kwargs, sampling.max_tokens))
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


class Asking:
    """The requests of one call. Iterating gives completions as they come, None where a while brought none."""

    def __init__(
        self,
        wanted: Iterator[Wanted],
        form: Form,
        sampling: Sampling,
        seed: int,
        server: Server,
        limit: Limit,
        meter: Meter,
        known: Known,
        record: Record,
        grows: bool = False,
    ) -> None:
        """`grows`: more may be wanted than `wanted` has, until `enough` is said."""
        self._grows, self._further = grows, deque[Wanted]()
        self._wanted, self._form, self._sampling, self._seed = wanted, form, sampling, seed
        self._server, self._limit, self._meter, self._known = server, limit, meter, known
        self._tries = Tries(server, form, sampling)
        self._pace = Pace(server.requests_per_minute, server.tokens_per_minute, sleep=self._sleep, record=record)
        self._taken_up: queue.SimpleQueue[Completion | None] = queue.SimpleQueue()
        self._ended: NsdError | None = None  # why no more is asked
        self._broken: BaseException | None = None
        self._held = 0.0  # dollars that the requests in flight may cost at most
        self._lost = 0  # requests in a row that got no answer
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="nsd-openai", daemon=True)

    # ------------------------------------------------------------------ from outside

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def take(self, seconds: float) -> Completion | None:
        """The next completion; None where none came for so long, and at the end, when `running` is false."""
        try:
            found = self._taken_up.get(block=seconds > 0, timeout=seconds)
        except queue.Empty:
            return None
        if found is not None:
            self._loop.call_soon_threadsafe(self._room.release)
        return found

    def ask(self, wanted: Sequence[Wanted]) -> None:
        """Ask for these too, before what was not begun."""
        if wanted and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._want, wanted)

    def enough(self) -> None:
        """Nothing more will be wanted."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._want, ())

    @property
    def running(self) -> bool:
        """Whether more may come."""
        return self._thread.is_alive() or not self._taken_up.empty()

    def finish(self) -> None:
        """Raise what ended the asking, if anything but its end did."""
        self._thread.join()
        self._close_loop()
        if self._broken is not None:
            raise self._broken
        if self._ended is not None:
            raise self._ended

    def stop(self) -> None:
        """Give up what is in flight, at once."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._cancel)
            self._thread.join()
        self._close_loop()

    def _close_loop(self) -> None:
        if not self._loop.is_closed():
            self._loop.close()

    # ------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._room = asyncio.Semaphore(self._server.concurrency * (WAITING + 1))
        self._work = self._loop.create_task(self._ask_all())
        try:
            self._loop.run_until_complete(self._work)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self._broken = error
        finally:
            self._taken_up.put(None)

    def _cancel(self) -> None:
        self._work.cancel()

    async def _ask_all(self) -> None:
        self._closing, self._changed, self._grown = asyncio.Event(), asyncio.Event(), asyncio.Event()
        async with self._server.client() as client, asyncio.TaskGroup() as group:
            for _ in range(self._server.concurrency):
                group.create_task(self._one_after_another(client))

    async def _one_after_another(self, client: httpx2.AsyncClient) -> None:
        while not self._closing.is_set():
            await self._room.acquire()
            wanted = await self._next_wanted()
            completion = None if wanted is None else await self._answered(client, wanted)
            if completion is None:
                self._room.release()
                return
            self._taken_up.put(completion)

    def _want(self, wanted: Sequence[Wanted]) -> None:
        self._further.extend(wanted)
        self._grows = self._grows and bool(wanted)
        self._grown.set()

    async def _next_wanted(self) -> Wanted | None:
        """What is asked for next, None where nothing will be."""
        while not self._closing.is_set():
            if (wanted := self._further.popleft() if self._further else next(self._wanted, None)) is not None:
                return wanted
            if not self._grows:
                return None
            self._grown.clear()
            await self._grown.wait()
        return None

    async def _answered(self, client: httpx2.AsyncClient, wanted: Wanted) -> Completion | None:
        """A sample's completion, None where the asking ends before there is one."""
        question = wanted.request.question_id
        seed = stream(self._seed, question, wanted.sample)
        body = body_of(self._form, wanted.request, self._sampling, seed)
        about = Known.about(wanted.request, self._sampling)
        reason = ""
        for tries in range(1, self._server.retries + 2):
            if about in self._known.refused:
                return _failed(wanted, self._known.refused[about])
            if not await self._afford(wanted):
                return None
            found = await self._try(client, wanted, body, tries)
            if isinstance(found, Answer):
                self._lost = 0
                return found.completion
            if isinstance(found, Failed):
                self._lost = 0
                self._known.refused[about] = found.reason
                return _failed(wanted, found.reason)
            if self._closing.is_set():
                return None
            assert found is not None  # without a reason nothing ends but the asking
            reason = found.reason
            self._hold(found)
            if tries <= self._server.retries:
                await self._sleep(max(found.after or 0.0, backoff(tries)))
        return None if self._closing.is_set() else self._given_up(wanted, reason)

    def _given_up(self, wanted: Wanted, reason: str) -> Completion | None:
        self._lost += 1
        tries = self._server.retries + 1
        if self._lost >= max(FEWEST_LOST, 2 * self._server.concurrency):
            self._end(
                StageFailed(
                    f"{self._lost} requests in a row got no answer from {self._server.name} in {tries} tries each "
                    f"({reason}); what came before is kept, and the same command continues"
                )
            )
        return _failed(wanted, f"no answer in {tries} tries: {reason}")

    def _hold(self, found: Again) -> None:
        """Let all wait, those of later calls too, where the server asks one to."""
        if found.after is not None and found.after > self._server.max_wait:
            self._end(
                StageFailed(
                    f"{self._server.name} asks to wait {found.after:.0f} s ({found.reason}), and engine.max_wait "
                    f"is {self._server.max_wait:g}; what came before is kept, and the same command continues"
                )
            )
        elif found.after is not None:
            self._pace.hold(found.after)

    async def _sleep(self, seconds: float) -> None:
        """Wait so long, or until the asking ends."""
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return
        # Those who wait for their turn come to look whether there is one.
        await asyncio.sleep(0)

    def _end(self, error: NsdError) -> None:
        """Ask nothing more, for this reason; the first one counts."""
        if self._ended is None:
            self._ended = error
        self._closing.set()
        self._changed.set()
        self._grown.set()
        self._pace.close()

    # ------------------------------------------------------------------ money

    def _most(self, wanted: Wanted) -> Tokens:
        """The most that a request can take: what its prompt took before, else a token for each byte."""
        about = Known.about(wanted.request, self._sampling)
        prompt = self._known.prompt_tokens.get(about) or most_prompt_tokens(wanted.request.prompt)
        return Tokens(prompt, self._sampling.max_tokens)

    def _dollars(self, tokens: Tokens) -> float:
        return 0.0 if self._limit.prices is None else self._limit.prices.of(tokens)

    async def _afford(self, wanted: Wanted) -> bool:
        """Wait until a request cannot pass the limit; False where it must, or the asking ends."""
        if self._limit.dollars is None:
            return not self._closing.is_set()
        while not self._closing.is_set():
            most = self._dollars(self._most(wanted))
            if self._meter.usd_at_most + self._held + most <= self._limit.dollars + 1e-12:
                return True
            if self._held <= 1e-12:  # nothing is in flight whose answer could cost less than feared
                spent, limit = self._meter.usd_at_most, self._limit.dollars
                self._end(
                    BudgetSpent(
                        f"${spent:.4f} of engine.max_dollars {limit:g} is spent, and the next request may cost "
                        f"${most:.4f}: raise max_dollars, and the same command continues"
                    )
                )
                return False
            self._changed.clear()
            await self._changed.wait()
        return False

    # ------------------------------------------------------------------ a try

    async def _try(
        self, client: httpx2.AsyncClient, wanted: Wanted, body: dict[str, Any], tries: int
    ) -> Answer | Again | Failed | None:
        """Send one request, within what `_afford` allowed; None where the asking ends before or by it."""
        about = Known.about(wanted.request, self._sampling)
        most = self._most(wanted)
        self._held += self._dollars(most)
        try:
            likely = self._known.prompt_tokens.get(about) or likely_prompt_tokens(wanted.request.prompt)
            turn = await self._pace.turn(likely + self._sampling.max_tokens)
            if self._closing.is_set():
                return None
            tried = Tried(None, unknown=True)  # what is given up on the way may have been billed
            self._meter.send(self._dollars(most))
            try:
                tried = await self._tries.send(client, wanted, body)
            finally:
                self._count(tried, tries, most)
            if tried.ends is not None:
                self._end(tried.ends)
            if tried.tokens is not None:
                self._known.prompt_tokens[about] = tried.tokens.prompt
                self._pace.settle(turn, tried.tokens.prompt + tried.tokens.completion)
            return tried.found
        finally:
            self._held -= self._dollars(most)
            self._changed.set()

    def _count(self, tried: Tried, tries: int, most: Tokens) -> None:
        tokens, priced = tried.tokens, self._limit.prices is not None
        by = tried.found.answered_by if isinstance(tried.found, Answer) else None
        usd = self._dollars(tokens or Tokens(0, 0)) if priced else None
        self._meter.add(
            Usage(
                requests=1,
                retries=int(tries > 1),
                prompt_tokens=0 if tokens is None else tokens.prompt,
                completion_tokens=0 if tokens is None else tokens.completion,
                usd=usd,
                unknown=int(tried.unknown),
                unknown_usd=self._dollars(most) if tried.unknown else 0.0,
                answered_by=() if by is None else (by,),
            ),
            landed=self._dollars(most),
        )


def _failed(wanted: Wanted, reason: str) -> Completion:
    return Completion(wanted.request.question_id, wanted.sample, "", 0, StopReason.ERROR, reason)
