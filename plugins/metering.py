"""What a model that somebody else serves was asked, and what that cost: counted by whoever asks, kept by the runner.

meter = Meter(before)              # `before`: what earlier attempts of the stage came to
meter.add(Usage(requests=1, prompt_tokens=90, completion_tokens=40, usd=0.0002))
meter.total                        # of all attempts, read at any moment and from any thread
meter.perhaps                      # with what is in flight, which a kill leaves perhaps paid
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests sent, `retries` of them further tries, and tokens of every answer that told them, used or not.

    `usd` is their price, None where there is none. `unknown` answers told no tokens (cut, timed out, given up): the
    server may have billed them, with at most `unknown_usd`. `answered_by` names the models that answered, as they
    named themselves.
    """

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None
    unknown: int = 0
    unknown_usd: float = 0.0
    answered_by: tuple[str, ...] = ()

    def __add__(self, other: Usage) -> Usage:
        priced = [one.usd for one in (self, other) if one.usd is not None]
        return Usage(
            self.requests + other.requests,
            self.retries + other.retries,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            sum(priced) if priced else None,
            self.unknown + other.unknown,
            self.unknown_usd + other.unknown_usd,
            tuple(sorted({*self.answered_by, *other.answered_by})),
        )

    @property
    def usd_at_most(self) -> float:
        """Dollars with those that are unknown."""
        return (self.usd or 0.0) + self.unknown_usd

    def to_json(self) -> dict[str, Any]:
        """The fields, JSON-able; `from_json` reads them."""
        return {**asdict(self), "answered_by": list(self.answered_by)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Usage:
        """What `to_json` wrote. Raises ValueError or TypeError for anything else."""
        counts = {name: int(found.get(name) or 0) for name in ("requests", "retries", "unknown")}
        tokens = {name: int(found.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")}
        usd = None if found.get("usd") is None else float(found["usd"])
        unknown_usd = float(found.get("unknown_usd") or 0.0)
        if min(*counts.values(), *tokens.values(), usd or 0.0, unknown_usd) < 0:
            raise ValueError("a count below 0")
        answered_by = tuple(str(one) for one in found.get("answered_by") or ())
        return cls(**counts, **tokens, usd=usd, unknown_usd=unknown_usd, answered_by=answered_by)


class Meter:
    """The count of one stage. `elsewhere` are dollars that other stages of the plan spent under the same limit."""

    def __init__(self, before: Usage = Usage(), elsewhere: float = 0.0) -> None:
        self.elsewhere = elsewhere
        self._total = before
        self._flying, self._flying_usd = 0, 0.0
        self._lock = threading.Lock()

    @property
    def total(self) -> Usage:
        """What all attempts of the stage came to."""
        with self._lock:
            return self._total

    @property
    def usd_at_most(self) -> float:
        """Dollars of this stage and of those elsewhere, unknown ones counted at their most."""
        return self.elsewhere + self.total.usd_at_most

    @property
    def perhaps(self) -> Usage:
        """The same with the requests in flight, as answers that told no tokens and cost their most."""
        with self._lock:
            return self._total + Usage(self._flying, unknown=self._flying, unknown_usd=self._flying_usd)

    def send(self, usd: float) -> None:
        """A request is in flight that may cost so much; `add` says that it landed."""
        with self._lock:
            self._flying += 1
            self._flying_usd += usd

    def add(self, usage: Usage, landed: float | None = None) -> None:
        """Count something; `landed` is what `send` was told of it."""
        with self._lock:
            self._total = self._total + usage
            if landed is not None:
                self._flying -= 1
                self._flying_usd = self._flying_usd - landed if self._flying else 0.0
