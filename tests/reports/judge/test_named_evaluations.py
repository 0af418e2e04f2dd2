"""Specs that name their evaluations: what a claim on one of them speaks of, and which runs a name means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nsd.plugins.errors import InputError
from nsd.reports.judge.answer import answer
from nsd.reports.judge.runs import resolve
from nsd.reports.judge.versions import versions_of
from nsd.runner.store.shapes import Claim
from toy_answers import BEFORE, RESULTS, claim, texts
from toy_results import Results

EARLIER = "2026-01-01 09:00"
MAIN, HARD = {"name": "main", "k": 1}, {"name": "hard", "k": 8}
SPOKEN_OF = Claim(**claim("tuned", "base"))


def version(results: Results, digest: str, at: str, *claims: dict[str, Any], **said: Any) -> None:
    """A version of a spec whose conditions base and tuned both say this."""
    resolved = {"conditions": dict.fromkeys(("base", "tuned"), said)}
    block = {"alpha": 0.05, "correction": "holm", "claims": list(claims)}
    results.connection.execute(
        "INSERT INTO experiments VALUES ('s', ?, 'Does it help?', '', ?, ?, ?, ?)",
        [digest, json.dumps(resolved), json.dumps(block), at, at],
    )


@pytest.mark.parametrize(
    ("before", "after", "alike"),
    [
        ({"evals": [MAIN, HARD]}, {"evals": [MAIN, HARD]}, True),
        ({"evals": [MAIN, HARD]}, {"evals": [MAIN]}, True),
        ({"evals": [MAIN]}, {"evals": [{**MAIN, "name": "first"}]}, True),  # the same under another name
        ({"evals": [MAIN, HARD]}, {"evals": [HARD, MAIN]}, False),
        ({"evals": [MAIN], "data": "easy"}, {"evals": [MAIN], "data": "hard"}, False),
        ({"evals": [MAIN], "prompt": "a"}, {"evals": [MAIN], "prompt": "b"}, False),
        ({"evals": [MAIN], "verifier": "exact"}, {"evals": [MAIN], "verifier": "numeric"}, False),
        ({"evals": [MAIN], "trainer": "sft"}, {"evals": [MAIN], "trainer": "grpo"}, True),
        ({"eval": "accuracy"}, {"evals": [MAIN]}, False),
        ({"evals": [{"name": "main", "protocol": "accuracy"}]}, {"eval": "accuracy"}, True),
        ({"eval": "accuracy"}, {"eval": "avg_at_k"}, True),  # one evaluation without a name: it has its own results
    ],
)
def test_a_claim_speaks_of_the_same_measurement_where_its_sides_are_measured_alike(
    before: dict[str, Any], after: dict[str, Any], alike: bool
) -> None:
    results = Results()
    version(results, "old", EARLIER, **before)
    version(results, "new", BEFORE, **after)
    old, new = versions_of(results.connection, "s")
    assert (old.measures_as(new, SPOKEN_OF), new.measures_as(old, SPOKEN_OF)) == (alike, alike)


@pytest.mark.parametrize(("first", "late"), [(MAIN, False), (HARD, True)])
def test_a_claim_is_on_record_since_a_version_that_measured_it_in_the_same_way(
    first: dict[str, Any], late: bool
) -> None:
    results = Results()
    for name, right in (("base", 10), ("tuned", 16)):
        results.add(f"s/{name}/seed1", [1.0] * right + [0.0] * (20 - right))
    results.connection.execute(
        "INSERT INTO stages(digest, kind, ended_at, manifest) SELECT eval_digest, 'eval', ?, '{}' FROM runs", [RESULTS]
    )
    version(results, "spec", BEFORE, claim("tuned", "base"), evals=[first])
    version(results, "later", "2026-01-03 09:00", claim("tuned", "base"), evals=[MAIN])
    assert texts(answer(results.connection, "s")) == (([], ["tuned > base"]) if late else (["tuned > base"], []))


@pytest.fixture
def measured_twice() -> Results:
    """`base` and `tuned`, each measured by `main` and beside it by `hard`."""
    results = Results()
    for name in ("base", "tuned"):
        for run in (f"s/{name}/seed1", f"s/{name}@hard/seed1"):
            results.add(run, [1.0, 0.0, 1.0])
    results.connection.execute("UPDATE runs SET measurement = 'main', beside = false")
    results.connection.execute("UPDATE runs SET measurement = 'hard', beside = true WHERE contains(run, '@')")
    return results


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("s", ["s/base", "s/tuned"]),
        ("s/*", ["s/base/seed1", "s/tuned/seed1"]),
        ("s/*@*", ["s/base@hard/seed1", "s/tuned@hard/seed1"]),
        ("s/*@hard/seed?", ["s/base@hard/seed1", "s/tuned@hard/seed1"]),
    ],
)
def test_runs_of_another_evaluation_are_meant_by_an_at_sign_alone(
    measured_twice: Results, pattern: str, names: list[str]
) -> None:
    arms, skipped = resolve(measured_twice.connection, [pattern])
    assert ([arm.name for arm in arms], skipped) == (names, [])


def test_a_glob_that_fits_runs_of_another_evaluation_alone_needs_the_at_sign(measured_twice: Results) -> None:
    with pytest.raises(InputError, match="no run or experiment is named"):
        resolve(measured_twice.connection, ["s/*hard*"])
