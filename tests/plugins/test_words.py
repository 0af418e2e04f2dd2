"""What is said about a name that is not there."""

from __future__ import annotations

from nsd.plugins.words import did_you_mean, hint, nearest


def test_the_likest_come_first_and_upper_case_is_no_difference() -> None:
    assert nearest("STUDNT", ["oracle", "students", "Student"], most=3) == ["Student", "students"]


def test_one_name_is_suggested_unless_more_are_asked_for() -> None:
    names = ["student", "students"]
    assert did_you_mean("studnt", names) == "did you mean 'student'?"
    assert did_you_mean("studnt", names, most=2) == "did you mean 'student' or 'students'?"


def test_where_none_is_near_the_other_end_is_said() -> None:
    assert did_you_mean("zzz", ["student"]) == ""
    assert hint("zzz", ["student"], "; `nsd runs` lists them") == "; `nsd runs` lists them"
    assert hint("studnt", ["student"], "; `nsd runs` lists them") == "; did you mean 'student'?"
