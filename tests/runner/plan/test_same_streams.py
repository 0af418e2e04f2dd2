"""Which sample stages draw from the same random streams, and how much one of them leaves to draw."""

from __future__ import annotations

from typing import Any

import pytest

from nsd.runner.plan.relatives import relatives, same_streams, there_already
from nsd.runner.store.shapes import Manifest


def settings(n: int, questions: str = "q1", **more: Any) -> dict[str, Any]:
    return {"model": "m", "sampling": {"n": n, "temperature": 0.7}, "questions": questions, "seed": 3, **more}


def stage(digest: str, of: dict[str, Any] | None, kind: str = "sample") -> Manifest:
    return Manifest(kind=kind, digest=digest, key={}, settings=of)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (settings(8), True),
        (settings(2, "q2"), True),
        (settings(8, generated_tokens=100), True),
        (settings(8, rounds={"labeler": "consensus"}), True),
        (settings(8, seed=4), False),
        (settings(8, model="other"), False),
        (settings(8) | {"sampling": {"n": 8, "temperature": 0.8}}, False),
    ],
)
def test_streams_follow_from_all_but_how_much_is_drawn_and_of_what(other: dict[str, Any], same: bool) -> None:
    assert same_streams(settings(8), other) is same


def test_relatives_are_sample_stages_with_settings_the_largest_first_and_then_by_digest() -> None:
    held = [
        *(stage("b", settings(4)), stage("a", settings(4)), stage("c", settings(16))),
        *(stage("t", settings(32), kind="train"), stage("old", None), stage("far", settings(64, seed=9))),
    ]
    assert [one.digest for one in relatives(settings(8), held)] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("held", "count"),
    [
        ([], 0),
        ([settings(4)], 4),
        ([settings(4), settings(6)], 6),
        ([settings(32)], 8),
        ([settings(32, "q2")], 0),
        ([settings(32, generated_tokens=100)], 0),
        ([settings(32, rounds={"labeler": "consensus"}), settings(2)], 2),
    ],
)
def test_what_the_same_questions_have_already_need_not_be_drawn(held: list[dict[str, Any]], count: int) -> None:
    manifests = [stage(f"d{number}", one) for number, one in enumerate(held)]
    assert there_already(settings(8), manifests) == count


def test_within_a_limit_in_tokens_nobody_knows_what_is_there() -> None:
    wanted = settings(8, generated_tokens=100)
    assert there_already(wanted, [stage("d", settings(8))]) == 0
