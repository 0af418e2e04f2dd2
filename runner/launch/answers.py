"""What SkyPilot answers (sky_side.py writes it): offers of machines, how jobs are, where a job is.

offer = Offer.from_json(answer["best"])
offer.gpu, offer.usd_per_hour                # "L4:1", 0.7
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Offer:
    """A machine that can be rented; a price of 0 means that SkyPilot knows none. `gpu` as in `resources`: L4:1."""

    cloud: str
    region: str | None
    machine: str | None
    gpu: str | None
    spot: bool
    usd_per_hour: float

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        accelerators = found.get("accelerators") or {}
        gpu = next((f"{name}:{count:g}" for name, count in accelerators.items()), None)
        price = float(found["usd_per_hour"])
        return cls(str(found["cloud"]), found["region"], found["machine"], gpu, bool(found["spot"]), price)

    def may_be(self, other: Offer) -> bool:
        """Whether this is the machine that was chosen; a choice may leave the region open."""
        same = (self.cloud, self.machine, self.spot) == (other.cloud, other.machine, other.spot)
        return same and other.region in (self.region, None)


@dataclass(frozen=True)
class JobState:
    """How a managed job is; `recoveries` counts how often it was brought back."""

    status: str | None
    recoveries: int
    reason: str | None

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        return cls(found["status"], int(found["recoveries"]), found["reason"])


@dataclass(frozen=True)
class Whereabouts:
    """SkyPilot's number of a job, None where it has none, and whether its machine is being made."""

    job: int | None
    coming: bool

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        return cls(None if found["job"] is None else int(found["job"]), bool(found["coming"]))
