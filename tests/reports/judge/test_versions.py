"""One answer, one set of runs: those that the version of the spec asked for, whatever else was run under its name."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from rich.console import Console

from nsd.reports.judge.answer import answer
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.cost import costs
from nsd.reports.judge.noise import noise_floor
from nsd.reports.judge.versions import as_version, current_version, versions_of
from nsd.reports.text.summary import print_summary, summary_json
from nsd.runner.store.filling import insert_record
from nsd.runner.store.shapes import ExperimentRecord, Hypotheses
from toy_results import Results

FIRST, SECOND, AGAIN = "2026-01-01T09:00:00+00:00", "2026-01-02T09:00:00+00:00", "2026-01-03T09:00:00+00:00"
CLAIM = {"text": "tuned > base", "kind": "better", "better": "tuned", "worse": "base", "margin": None}
HYPOTHESES = {"alpha": 0.05, "correction": "holm", "looks": None, "claims": [CLAIM]}


def record(
    results: Results,
    digest: str,
    seeds: Sequence[int],
    recorded_at: str,
    run_at: str | None = None,
    evaluations: Mapping[str, str] | None = None,
    settings: str = "same",
) -> None:
    """A version of the spec with these seeds; `evaluations` by run where they are not those under the run's name."""
    runs = []
    for seed in seeds:
        for condition in ("base", "tuned"):
            run = f"s/{condition}/seed{seed}"
            evaluation = (evaluations or {}).get(run, f"eval-{run}")
            row = {"run": run, "condition": condition, "seed": seed, "eval_digest": evaluation, "label_digest": None}
            row |= {"train_digest": f"train-{evaluation}", "status": "done", "needs": []}
            again = [{"repeat": 1, "eval_digest": f"repeat-{evaluation}"}] if condition == "base" else []
            runs.append({**row, "repeats": again})
    content = {
        "experiment": "s",
        "spec_digest": digest,
        "question": "Why?",
        "spec_yaml": "",
        "recorded_at": recorded_at,
    }
    content |= {"resolved": {"conditions": {"base": {"trainer": settings}, "tuned": {}}, "seeds": list(seeds)}}
    content |= {"hypotheses": HYPOTHESES, "runs": runs} | ({"run_at": run_at} if run_at else {})
    made = ExperimentRecord.model_construct(**content)  # unchecked: the toy's digests hold slashes, as none on disk may
    made._json = content
    insert_record(results.connection, made)


@pytest.fixture
def results() -> Results:
    """Seeds [42], then [42, 43], then [42] again; every evaluation took 60 s and was repeated once."""
    results = Results()
    for run, right in (("base/seed42", 50), ("tuned/seed42", 62), ("base/seed43", 52), ("tuned/seed43", 90)):
        results.add(f"s/{run}", [1.0] * right + [0.0] * (100 - right))
        results.connection.execute(
            "INSERT INTO stages(digest, kind, seconds, ended_at, manifest) VALUES (?, 'eval', 60, '2026-01-02', '{}')",
            [f"eval-s/{run}"],
        )
    results.connection.execute("DELETE FROM runs")  # the evaluations stay, each version brings its own runs
    record(results, "aaaaaaaa1", [42], FIRST)
    record(results, "bbbbbbbb2", [42, 43], SECOND)
    record(results, "aaaaaaaa1", [42], FIRST, AGAIN)
    return results


def test_arms_and_claims_come_from_the_seeds_of_the_version_asked_for(results: Results) -> None:
    for digest, seeds, about in (
        ("aaaaaaaa1", [42], "this checkpoint (seed 42)"),
        ("bbbbbbbb2", [42, 43], "this recipe (2 training seeds)"),
    ):
        found = summary_json(results.connection, "s", digest, Hypotheses(**HYPOTHESES))
        assert [arm["seeds"] for arm in found["arms"]] == [seeds, seeds]
        (verdict,) = found["verdicts"]
        assert verdict["about"] == about and tuple(verdict["comparison"]["seeds"]) == (len(seeds),) * 2
        assert verdict["comparison"]["mean_b"] == pytest.approx(found["arms"][1]["mean"])
        assert found["runs"] == [run for arm in found["arms"] for run in arm["runs"]] and found["seeds"] == seeds


def test_an_experiment_by_name_is_the_version_last_run(results: Results) -> None:
    found = answer(results.connection, "s")
    assert (found.spec_digest, found.seeds) == ("aaaaaaaa1", [42])
    assert found.runs_line() == "From 2 runs: seed 42, version aaaaaaaa of the spec."
    (pair,) = compare_runs(results.connection, ["s"])
    (by_condition,) = compare_runs(results.connection, ["s/base", "s/tuned"])
    for one in (pair, by_condition):
        assert one.seeds == (1, 1) and one.mean_b == pytest.approx(0.62) and "not in this answer: seed 43" in one.note
    (named,) = compare_runs(results.connection, ["s/base/seed43", "s/tuned/seed43"])  # a run's own name is that run
    assert named.mean_b == pytest.approx(0.90) and "not in this answer" not in named.note


def test_seeds_that_are_not_shown_are_said(results: Results) -> None:
    said = "not in this answer: seed 43, run under version bbbbbbbb of this spec"
    assert said in answer(results.connection, "s", "aaaaaaaa1").notes
    assert not any("not in this answer" in note for note in answer(results.connection, "s", "bbbbbbbb2").notes)


def test_what_is_printed_names_its_runs_and_shows_no_others(results: Results) -> None:
    screen = Console(file=io.StringIO(), width=100)
    print_summary(results.connection, screen, "s", "aaaaaaaa1", Hypotheses(**HYPOTHESES))
    assert isinstance(screen.file, io.StringIO)
    text = screen.file.getvalue()
    assert "From 2 runs: seed 42, version aaaaaaaa of the spec." in text and "not in this answer: seed 43" in text
    assert "0.6200" in text and "0.7600" not in text and "+0.1200" in text


def test_a_version_keeps_its_own_numbers_when_another_reuses_its_run_names(results: Results) -> None:
    """The same run under other settings: the index keeps the last one under the name, the version keeps its own."""
    results.add("s/other/seed1", [1.0] * 99 + [0.0])
    changed = {"s/tuned/seed42": "eval-s/other/seed1"}
    record(results, "cccccccc3", [42], "2026-01-04T09:00:00+00:00", evaluations=changed, settings="new")
    means = {
        digest: summary_json(results.connection, "s", digest, Hypotheses(**HYPOTHESES))["arms"][1]["mean"]
        for digest in ("aaaaaaaa1", "cccccccc3")
    }
    assert means == {"aaaaaaaa1": pytest.approx(0.62), "cccccccc3": pytest.approx(0.99)}


def test_cost_and_repeats_are_those_of_the_version(results: Results) -> None:
    results.connection.execute(
        "INSERT INTO eval_info SELECT 'repeat-' || eval_digest, metric, protocol, data_hash, verifier_hash, questions, "
        "samples FROM eval_info WHERE eval_digest LIKE '%base%'"
    )
    results.connection.execute(
        "INSERT INTO eval_values SELECT 'repeat-' || eval_digest, question_id, 1 FROM eval_values"
    )
    for digest, seeds in (("aaaaaaaa1", 1), ("bbbbbbbb2", 2)):
        with as_version(results.connection, "s", digest):
            assert len(costs(results.connection, "s")) == 2 * seeds
            found = noise_floor(results.connection, ["s/base/seed42", "s/base/seed43"])
            assert [one.run for one in found] == [f"s/base/seed{seed}" for seed in (42, 43)[:seeds]]
    assert len(noise_floor(results.connection, ["s/base/seed42", "s/base/seed43"])) == 2  # outside, all is as before


def test_a_spec_not_run_yet_is_answered_by_the_last_version_and_says_so(results: Results) -> None:
    found = answer(results.connection, "s", "not-on-record", hypotheses=Hypotheses(**HYPOTHESES))
    assert found.notes[0] == "this version of the spec has not been run: the runs are those of version aaaaaaaa"


def test_a_claim_declared_after_results_under_other_seeds_is_late(results: Results) -> None:
    """Results of seeds 42 and 43 are known; a version with seed 44 alone and a new claim comes afterwards."""
    for condition in ("base", "tuned"):
        results.add(f"s/{condition}/seed44", [1.0, 0.0])
        results.connection.execute(
            "INSERT INTO stages(digest, kind, ended_at, manifest) VALUES (?, 'eval', '2026-01-06', '{}')",
            [f"eval-s/{condition}/seed44"],
        )
    record(results, "dddddddd4", [44], "2026-01-05T09:00:00+00:00")
    claims = [{**CLAIM, "text": "base > tuned", "better": "base", "worse": "tuned"}]
    results.connection.execute(
        "UPDATE experiments SET hypotheses = ? WHERE spec_digest = 'dddddddd4'",
        ['{"alpha": 0.05, "claims": [{"text": "base > tuned", "kind": "better", "better": "base", "worse": "tuned"}]}'],
    )
    found = answer(results.connection, "s", "dddddddd4", hypotheses=Hypotheses(alpha=0.05, claims=claims))
    assert [one.claim for one in found.late] == ["base > tuned"] and found.verdicts == []


def test_the_last_run_version_is_the_current_one(results: Results) -> None:
    versions: list[Any] = versions_of(results.connection, "s")
    assert [one.spec_digest for one in versions] == ["aaaaaaaa1", "bbbbbbbb2"]
    current, asked = current_version(versions), current_version(versions, "bbbbbbbb2")
    assert current is not None and current.spec_digest == "aaaaaaaa1"
    assert asked is not None and asked.spec_digest == "bbbbbbbb2" and current_version([]) is None
