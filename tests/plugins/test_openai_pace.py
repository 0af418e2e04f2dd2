"""Limits by the minute and waits between tries, on a clock that is moved by hand."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from nsd.plugins.engines.openai_pace import Pace, backoff, retry_after

NOW = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def sent_at(requests: int | None, tokens: int | None, sizes: list[int], settled: int | None = None) -> list[float]:
    """When requests of these sizes are let through, in seconds from the first; each then really has `settled`."""
    clock = Clock()

    async def send() -> list[float]:
        pace = Pace(requests, tokens, clock, clock.sleep)
        found = []
        for size in sizes:
            sent = await pace.turn(size)
            found.append(clock.now - 100)
            if settled is not None:
                pace.settle(sent, settled)
            clock.now += 1
        return found

    return asyncio.run(send())


def test_without_limits_nothing_waits() -> None:
    assert sent_at(None, None, [9] * 4) == [0, 1, 2, 3]


def test_no_minute_has_more_requests_than_allowed() -> None:
    assert sent_at(3, None, [9] * 8) == [0, 1, 2, 60, 61, 62, 120, 121]


def test_no_minute_has_more_tokens_than_allowed() -> None:
    assert sent_at(None, 100, [40, 40, 40, 60]) == [0, 1, 60, 61]


def test_a_request_above_the_limit_goes_alone() -> None:
    assert sent_at(None, 100, [40, 500, 40]) == [0, 60, 120]


def test_what_a_request_really_had_makes_room() -> None:
    assert sent_at(None, 100, [60] * 4, settled=10) == [0, 1, 2, 3]


def test_a_pause_holds_everything() -> None:
    clock = Clock()

    async def send() -> float:
        pace = Pace(None, None, clock, clock.sleep)
        pace.hold(30)
        pace.hold(5)
        await pace.turn(1)
        return clock.now

    assert asyncio.run(send()) == 130


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7),
        ("0.5", 0.5),
        ("-3", 0),
        ("Thu, 26 Nov 2026 12:00:20 GMT", 20),
        ("Thu, 26 Nov 2026 11:59:00 GMT", 0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


def test_waits_double_up_to_a_minute_with_half_of_it_by_chance() -> None:
    for tries, most in ((1, 0.5), (2, 1), (5, 8), (8, 60), (500, 60)):
        waits = [backoff(tries) for _ in range(50)]
        assert all(most / 2 <= one <= most for one in waits)
        assert len(set(waits)) > 1
