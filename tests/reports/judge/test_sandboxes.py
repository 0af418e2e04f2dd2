"""What is said of the sandboxes that programs ran in, and of the further numbers of their verdicts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nsd.plugins.sandbox import GUARANTEES
from nsd.reports.judge.runs import condition_arms
from nsd.reports.judge.sandboxes import sandbox_notes
from toy_results import Results


@pytest.fixture
def results() -> Results:
    results = Results()
    for run in ("s/a/seed1", "s/a/seed2", "s/b/seed1"):
        results.add(run, [1.0, 0.0])
    return results


def say(results: Results, digest: str, manifest: dict[str, Any]) -> None:
    results.connection.execute(
        "INSERT INTO stages(digest, kind, manifest) VALUES (?, 'eval', ?)", [digest, json.dumps(manifest)]
    )


def notes(results: Results) -> list[str]:
    return sandbox_notes(results.connection, condition_arms(results.connection, "s"))


def test_arms_whose_stages_ran_no_program_have_no_note(results: Results) -> None:
    say(results, "eval-s/a/seed1", {"eval": {}})
    assert notes(results) == []


def test_a_sandbox_is_said_to_have_held_what_it_held_everywhere(results: Results) -> None:
    say(results, "eval-s/a/seed1", {"sandbox": {"kind": "walls", "guarantees": ["time", "network", "memory"]}})
    say(results, "train-s/b/seed1", {"sandbox": {"kind": "walls", "guarantees": ["network", "files", "time"]}})
    say(results, "eval-s/b/seed1", {"sandbox": {"kind": "bare\nground", "guarantees": []}})
    say(results, "eval-s/a/seed2", {"sandbox": {"kind": "unsaid", "guarantees": None}})
    assert notes(results) == [
        r"programs ran in bare\nground, which held: nothing; NOT held: network, files, environment, processes, memory, "
        "time",
        "programs ran in walls, which held: network, time; NOT held: files, environment, processes, memory",
    ]


def test_a_sandbox_that_held_everything_lacks_nothing(results: Results) -> None:
    say(results, "eval-s/a/seed1", {"sandbox": {"kind": "walls", "guarantees": list(GUARANTEES)}})
    assert notes(results) == [f"programs ran in walls, which held: {', '.join(GUARANTEES)}"]


def test_further_numbers_of_verdicts_are_means_over_the_runs_of_each_arm(results: Results) -> None:
    say(results, "eval-s/a/seed1", {"eval": {"numbers": {"speed": 1500, "passed": 0.25, "kind": "text"}}})
    say(results, "eval-s/a/seed2", {"eval": {"numbers": {"speed": 0.5, "passed": 1.0}}})
    say(results, "eval-s/b/seed1", {"eval": {"numbers": {"passed": 0}}})
    assert notes(results) == [
        "passed, which is not the score: a 62.5%, b 0.0%",
        "speed, which is not the score: a 750.2",
    ]
