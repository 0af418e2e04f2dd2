"""The family of declared claims is what was ever declared: nothing that happens later makes it smaller."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsd.reports.judge.answer import Answer, answer
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.hypotheses import family_adjusted
from nsd.reports.judge.versions import said_by
from nsd.reports.page.data import Family
from nsd.reports.text.answer import answer_csv
from nsd.runner.store.shapes import Claim, Hypotheses
from toy_results import Results, table_runs

RESULTS = "2026-01-01 12:00"


def claim(better: str, worse: str = "base", kind: str = "better", margin: float | None = None) -> dict[str, Any]:
    return {
        "text": f"{better} > {worse} {margin or ''}",
        "kind": kind,
        "better": better,
        "worse": worse,
        "margin": margin,
    }


def declare(results: Results, digest: str, at: str, *claims: dict[str, Any], **rules: Any) -> None:
    block = {"alpha": 0.05, "correction": "holm", "looks": None, "claims": list(claims), **rules}
    results.connection.execute(
        "INSERT INTO experiments VALUES ('s', ?, 'Why?', '', '{}', ?, ?, ?)", [digest, json.dumps(block), at, at]
    )


def finish(results: Results) -> None:
    results.connection.execute(
        "INSERT INTO stages(digest, kind, ended_at, manifest) SELECT eval_digest, 'eval', ?, '{}' FROM runs "
        "WHERE status = 'done' AND eval_digest NOT IN (SELECT digest FROM stages)",
        [RESULTS],
    )
    results.connection.execute("UPDATE stages SET folder = digest")


@pytest.fixture
def results() -> Results:
    """tuned is .65 where base is .60: p = .007 alone, .022 as one of three."""
    results = Results()
    table_runs(results, "s/base/seed1", "s/tuned/seed1", 118, 2, 12, 68)
    return results


def adjusted(found: Answer, name: str = "tuned") -> tuple[float, float]:
    (one,) = [one.comparison for one in found.verdicts if one.claim.startswith(name)]
    assert one is not None and one.p is not None and one.p_adjusted is not None
    return one.p, one.p_adjusted


def test_an_unfinished_and_a_failed_claim_count_as_p_one(results: Results) -> None:
    results.add("s/failed/seed1", None, status="failed")
    declare(results, "v", "2026-01-01 10:00", claim("tuned"), claim("failed"), claim("later"))
    finish(results)
    found = answer(results.connection, "s")
    p, p_adjusted = adjusted(found)
    assert found.primary_family == 3 and p_adjusted == pytest.approx(3 * p)
    assert [one.family for one in found.verdicts] == [3, 3, 3] and found.unfinished == 2
    assert "(family of 3: 2 without a result)" in found.headline()


def test_an_adjusted_p_never_rises_when_another_claim_is_finished(results: Results) -> None:
    declare(results, "v", "2026-01-01 10:00", claim("tuned"), claim("second"), claim("third"))
    finish(results)
    seen = [adjusted(answer(results.connection, "s"))[1]]
    for name, right in (("second", 121), ("third", 160)):
        results.add(f"s/{name}/seed1", [1.0] * right + [0.0] * (200 - right))
        finish(results)
        seen.append(adjusted(answer(results.connection, "s"))[1])
    assert seen == sorted(seen, reverse=True) and seen[0] > seen[-1]


def test_what_any_version_declared_counts_once(results: Results) -> None:
    declare(results, "v1", "2026-01-01 08:00", claim("tuned"), claim("gone"))
    declare(results, "v2", "2026-01-01 09:00", claim("tuned"), claim("gone"), claim("gone too"))
    declare(results, "v3", "2026-01-01 10:00", claim("tuned"), alpha=0.01)  # other rules: the same claim
    finish(results)
    found = answer(results.connection, "s", "v3")
    assert found.primary_family == 3 and [one.split(" >")[0] for one in found.dropped] == ["gone", "gone too"]


def test_another_margin_is_another_claim() -> None:
    narrow, wide = claim("a", kind="not_worse_by", margin=0.02), claim("a", kind="not_worse_by", margin=0.05)
    assert said_by(Claim(**narrow)) != said_by(Claim(**wide)) != said_by(Claim(**claim("a")))
    assert said_by(Claim(**claim("a"))) == said_by(Claim(**{**claim("a"), "text": "put otherwise"}))


def test_loosening_a_margin_leaves_the_first_try_in_the_family(results: Results) -> None:
    declare(results, "v1", "2026-01-01 09:00", claim("tuned", kind="not_worse_by", margin=0.01))
    declare(results, "v2", "2026-01-01 10:00", claim("tuned", kind="not_worse_by", margin=0.05))
    finish(results)
    assert answer(results.connection, "s", "v2").primary_family == 2


def test_claims_of_a_spec_file_not_run_yet_count(results: Results) -> None:
    declare(results, "v", "2026-01-01 10:00", claim("tuned"))
    finish(results)
    edited = {"alpha": 0.05, "correction": "holm", "looks": None, "claims": [claim("tuned"), claim("new")]}
    found = answer(results.connection, "s", hypotheses=Hypotheses(**edited))
    p, p_adjusted = adjusted(found)
    assert found.primary_family == 2 and p_adjusted == pytest.approx(2 * p)


def test_a_late_claim_counts_for_the_others_but_is_judged_apart(results: Results) -> None:
    results.add("s/third/seed1", [1.0] * 118 + [0.0] * 82)
    declare(results, "v1", "2026-01-01 10:00", claim("tuned"))
    declare(results, "v2", "2026-01-02 10:00", claim("tuned"), claim("third"))
    finish(results)
    found = answer(results.connection, "s", "v2")
    assert found.primary_family == 2 and len(found.late) == 1 and found.late[0].correction == "bh"
    assert "(family of 2: 1 written late)" in found.headline()


def test_six_null_claims_finishing_in_turn() -> None:
    """Some decision is shown in 9 % of experiments if the family is what is finished, in under 5 % as declared."""
    generator = np.random.default_rng(0)
    simulations, shown = 2_000, {"finished": 0, "declared": 0}
    noise = generator.normal(size=(simulations, 7))
    z = (noise[:, 1:] - 0.5 * noise[:, :1]) / np.sqrt(1.25)  # all against one baseline
    p_values = 2 * (1 - _normal(np.abs(z)))
    for row in p_values.tolist():
        turns = [[p if place < done else None for place, p in enumerate(row)] for done in range(1, 7)]
        finished = [family_adjusted([p for p in turn if p is not None], "holm") for turn in turns]
        declared = [family_adjusted(turn, "holm") for turn in turns]
        for name, each in (("finished", finished), ("declared", declared)):
            shown[name] += any(p is not None and p < 0.05 for turn in each for p in turn)
    assert 0.075 < shown["finished"] / simulations < 0.135
    assert 0.025 < shown["declared"] / simulations < 0.055


def _normal(x: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    from scipy.special import ndtr

    found: np.ndarray[Any, np.dtype[np.float64]] = ndtr(x)
    return found


def test_the_family_of_a_report_is_the_same(results: Results, tmp_path: Path) -> None:
    from nsd.reports.page.data import collect_experiment
    from nsd.runner.store.workspace import Workspace

    declare(results, "v", "2026-01-01 10:00", claim("tuned"), claim("later"))
    finish(results)
    data = collect_experiment(results.connection, Workspace(tmp_path), "s")
    assert data.families[0] == Family("declared claims", 2, "holm", 0.05)


def test_an_exploratory_claim_without_a_result_counts_too(results: Results) -> None:
    declare(results, "v", "2026-01-01 10:00", claim("tuned"), claim("failed"))
    finish(results)
    found = answer(results.connection, "s", metric="maj@1")
    (one, other) = found.late
    assert one.comparison is not None and one.comparison.p is not None and other.comparison is None
    assert one.comparison.p_adjusted == pytest.approx(2 * one.comparison.p) and one.family == 2
    assert found.headline().startswith("Of 2 claims, judged by maj@1 instead (exploratory), for these weights,")


def test_a_claim_without_a_result_has_its_family_in_csv_too(results: Results) -> None:
    declare(results, "v", "2026-01-01 10:00", claim("tuned"), claim("failed"))
    finish(results)
    rows = csv.DictReader(io.StringIO(answer_csv(answer(results.connection, "s"))))
    assert [(row["verdict"], row["family"]) for row in rows] == [("BETTER", "2"), ("UNRESOLVED", "2")]


def test_a_seed_without_a_result_is_named_where_others_of_its_condition_have_one(results: Results) -> None:
    results.add("s/tuned/seed2", None, status="failed")
    results.connection.execute("UPDATE runs SET reason = '9 of 9 completions failed' WHERE run = 's/tuned/seed2'")
    declare(results, "v", "2026-01-01 10:00", claim("tuned"))
    finish(results)
    why = "failed: 9 of 9 completions failed"
    assert (
        f"tuned: no result of seed 2 ({why}), so what is said of it is said of the other seeds"
        in answer(results.connection, "s").notes
    )
    for names in (["s"], ["s/base", "s/tuned"]):
        (one,) = compare_runs(results.connection, names)
        assert f"s/tuned/seed2 has no result yet ({why})" in one.note
    (alone,) = compare_runs(results.connection, ["s/base/seed1", "s/tuned/seed1"])
    assert "passed over" not in alone.note
