"""What SkyPilot answers, read; and what a launch's file may hold of another version."""

from __future__ import annotations

from typing import Any

import pytest

from nsd.runner.launch.answers import JobState, Offer, Whereabouts
from nsd.runner.launch.launches import Options


def offer(**changes: Any) -> Offer:
    facts = {"cloud": "AWS", "region": "us-east-1", "machine": "g6.xlarge", "spot": False, "usd_per_hour": 0.8}
    return Offer.from_json({**facts, "accelerators": {"L4": 1}, **changes})


def test_the_gpu_is_named_as_a_spec_names_it() -> None:
    assert [offer(accelerators=one).gpu for one in ({"L4": 1}, {"A100": 8.0}, None)] == ["L4:1", "A100:8", None]


@pytest.mark.parametrize(
    ("best", "may_be"),
    [({}, True), ({"region": None}, True), ({"region": "eu-west-1"}, False), ({"spot": True}, False)],
)
def test_the_chosen_machine_is_found_among_the_offers(best: dict[str, Any], may_be: bool) -> None:
    assert offer().may_be(offer(**best)) is may_be


def test_how_a_job_is_and_where() -> None:
    state = {"status": "RUNNING", "recoveries": 2, "reason": None, "cluster": "c"}
    assert JobState.from_json(state) == JobState("RUNNING", 2, None)
    assert Whereabouts.from_json({"job": None, "coming": True}) == Whereabouts(None, True)


def test_flags_of_another_version_are_left_out() -> None:
    assert Options.from_json({"only": ["a"], "seeds": [1, 2], "to_the_moon": True}) == Options(
        only=("a",), seeds=(1, 2)
    )
