"""Events of a worker: what is written and read again, and what is none."""

from __future__ import annotations

import pytest

from nsd.runner.work.events import Event, Told


def test_an_event_is_written_without_what_it_does_not_have() -> None:
    event = Event(Told.PROGRESS, done=0, total=8, unit="steps", metrics={"loss": 0.5})
    assert event.to_json() == {"event": "progress", "done": 0, "total": 8, "unit": "steps", "metrics": {"loss": 0.5}}
    assert Event.from_json(event.to_json()) == event


def test_fields_of_another_version_are_passed_over() -> None:
    assert Event.from_json({"event": "gone", "mood": "fine"}) == Event(Told.GONE)


@pytest.mark.parametrize("found", [{}, {"event": "unheard of"}, {"event": None}, []])
def test_what_is_no_event_is_an_error(found: object) -> None:
    with pytest.raises(ValueError):
        Event.from_json(found)  # type: ignore[arg-type]


def test_which_events_end_a_job() -> None:
    assert {one for one in Told if Event(one).ends} == {Told.FINISHED, Told.FAILED, Told.INTERRUPTED, Told.GONE}
