"""The helper that tests wait with."""

from __future__ import annotations

import pytest

from support import wait_until


def test_the_state_that_was_waited_for_is_returned() -> None:
    states = iter([0, None, "", "here"])
    assert wait_until(lambda: next(states), pause=0) == "here"


def test_a_deadline_that_is_over_still_allows_one_look() -> None:
    assert wait_until(lambda: "here", deadline=-1) == "here"
    with pytest.raises(pytest.fail.Exception, match=r"after 0 s still \[\]: .*lambda: \[\]"):
        wait_until(lambda: [], deadline=0)


def test_a_condition_that_cannot_come_true_fails_by_itself() -> None:
    def ended() -> bool:
        raise AssertionError("the process ended")

    with pytest.raises(AssertionError, match="the process ended"):
        wait_until(ended)
