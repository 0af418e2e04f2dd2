"""What is asked of a verdict: what it shows, how it reads the other way round, how it is written."""

from __future__ import annotations

import json

import pytest

from nsd.reports.judge.verdict import Verdict


@pytest.mark.parametrize(
    ("verdict", "direction", "resolved", "turned"),
    [
        (Verdict.BETTER, 1, True, Verdict.WORSE),
        (Verdict.WORSE, -1, True, Verdict.BETTER),
        (Verdict.HIGHER, 1, True, Verdict.LOWER),
        (Verdict.LOWER, -1, True, Verdict.HIGHER),
        (Verdict.EQUIVALENT, 0, True, Verdict.EQUIVALENT),
        (Verdict.NOT_WORSE, 0, True, Verdict.NOT_WORSE),
        (Verdict.DIFFERS, 0, True, Verdict.DIFFERS),
        (Verdict.UNRESOLVED, 0, False, Verdict.UNRESOLVED),
    ],
)
def test_what_a_verdict_shows(verdict: Verdict, direction: int, resolved: bool, turned: Verdict) -> None:
    assert (verdict.direction, verdict.resolved, verdict.turned) == (direction, resolved, turned)
    assert verdict.apart == (direction != 0)


def test_every_verdict_has_mark_marker_words_and_colour() -> None:
    for verdict in Verdict:
        assert verdict.mark and verdict.marker and verdict.words
        assert verdict.colour in ("better", "worse", "same", "unsure")


def test_a_neutral_metric_knows_no_better() -> None:
    assert [one.as_neutral for one in (Verdict.BETTER, Verdict.WORSE)] == [Verdict.HIGHER, Verdict.LOWER]
    assert [one for one in Verdict if one.neutral] == [Verdict.HIGHER, Verdict.LOWER]


def test_a_verdict_is_written_as_its_text() -> None:
    assert json.dumps([Verdict.NOT_WORSE]) == '["NOT WORSE"]' and f"{Verdict.NOT_WORSE}" == "NOT WORSE"


def test_a_verdict_has_a_sign_a_marker_and_a_colour_of_its_own_kind() -> None:
    assert {one.value: (one.mark, one.marker, one.colour, one.style) for one in Verdict} == {
        "BETTER": ("▲", "^", "better", "green"),
        "WORSE": ("▼", "v", "worse", "red"),
        "HIGHER": ("▲", "^", "better", ""),
        "LOWER": ("▼", "v", "worse", ""),
        "EQUIVALENT": ("■", "s", "same", ""),
        "NOT WORSE": ("◆", "D", "same", ""),
        "DIFFERS": ("◇", "d", "same", ""),
        "UNRESOLVED": ("○", "o", "unsure", ""),
    }


def test_a_verdict_that_shows_no_difference_is_itself_for_a_neutral_metric() -> None:
    assert [one for one in Verdict if one.as_neutral is one] == list(Verdict)[2:]
