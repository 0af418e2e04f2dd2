"""When a request may be sent: limits by the minute, pauses that a server asks for, and waits between tries."""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MINUTE = 60.0
FIRST_WAIT = 0.5  # seconds before the second try
LONGEST_WAIT = 60.0  # seconds between tries, where the server names none


def backoff(tries: int) -> float:
    """Seconds to wait after so many tries: doubled from try to try, and between half of that and all of it."""
    return random.uniform(0.5, 1.0) * float(min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(tries - 1, 20)))


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header names, as a number or as a date (RFC 9110, 10.2.3); None for anything else."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if seconds == seconds and seconds != float("inf") else None


@dataclass(slots=True)
class Sent:
    """A request that was sent at a moment; `tokens` are guessed until `settle` is told."""

    at: float
    tokens: int


@dataclass(slots=True)
class Record:
    """What was sent to one server in the last minute, and until when it wants nothing. All who ask it share this.

    Times are those of `Pace`'s clock.
    """

    sent: deque[Sent] = field(default_factory=deque)
    held_until: float = 0.0


@functools.cache
def record_of(base_url: str, model: str, key: str | None) -> Record:
    """This process's record of a served model: stages, rounds of a vote and engines' blocks come and go beside it."""
    return Record()


class Pace:
    """Lets requests through so that no minute, wherever it begins, has more requests or tokens than allowed.

    A single request with more tokens than a minute may have is let through alone. `clock` counts seconds, and `sleep`
    waits for so many. What was sent under the same `record` before counts.
    """

    def __init__(
        self,
        requests: int | None,
        tokens: int | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        record: Record | None = None,
    ) -> None:
        self._requests, self._tokens = requests, tokens
        self._clock, self._sleep = clock, sleep
        self._record = Record() if record is None else record
        self._turn = asyncio.Lock()
        self._closed = False

    async def turn(self, tokens: int) -> Sent:
        """Wait until a request of so many tokens may be sent; those who wait go in the order in which they came."""
        async with self._turn:
            while not self._closed and (delay := self._delay(tokens)) > 0:
                await self._sleep(delay)
            sent = Sent(self._clock(), tokens)
            if self._requests is not None or self._tokens is not None:
                self._record.sent.append(sent)
            return sent

    def settle(self, sent: Sent, tokens: int) -> None:
        """Tell how many tokens a request really had."""
        sent.tokens = tokens

    def hold(self, seconds: float) -> None:
        """Let nothing through for so long, because the server said so."""
        self._record.held_until = max(self._record.held_until, self._clock() + seconds)

    def close(self) -> None:
        """Let nobody wait any more: what they wait for is over."""
        self._closed = True

    def _delay(self, tokens: int) -> float:
        now = self._clock()
        while self._record.sent and self._record.sent[0].at + MINUTE <= now:
            self._record.sent.popleft()
        delay = self._record.held_until - now
        if self._requests is not None and len(self._record.sent) >= self._requests:
            delay = max(delay, self._record.sent[len(self._record.sent) - self._requests].at + MINUTE - now)
        if self._tokens is not None:
            over = sum(one.tokens for one in self._record.sent) + tokens - self._tokens
            for one in self._record.sent:
                if over <= 0:
                    break
                over -= one.tokens
                delay = max(delay, one.at + MINUTE - now)
        return delay
