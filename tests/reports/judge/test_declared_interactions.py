"""Interactions that a spec declares: judged in the family of its claims, shown everywhere, remembered as looks."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import Question
from nsd.reports.judge.answer import Answer, answer
from nsd.reports.judge.looks import look_entries, look_number
from nsd.reports.judge.subgroups import by_field, pairs_of_names
from nsd.reports.judge.verdict import Verdict
from nsd.reports.text.answer import answer_csv, answer_markdown
from nsd.runner.cli.by_field import print_by_field
from nsd.runner.cli.report import print_report
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.looks import read_looks
from nsd.runner.store.shapes import Hypotheses
from report_workspace import DATA, Written

# 20 easy questions, of which b alone has 10 right that a has not; 20 hard ones, on which both are alike.
A = [False] * 10 + [True] * 10 + [True, False] * 10
B = [True] * 20 + [True, False] * 10
BY_LEVEL = {"text": "b against a differs by level", "kind": "interaction", "better": "b", "worse": "a", "by": "level"}
PLAIN = {"text": "b > a", "kind": "better", "better": "b", "worse": "a", "margin": None}


def written(folder: Path, *claims: dict[str, Any], groups: int = 2, **options: Any) -> Written:
    found = Written(folder, {"a": A, "b": B}, more_claims=claims, **options)
    questions = [
        Question(id=f"q{i}", text="x" * (i + 1), answer=str(i), meta={"level": i * groups // 40}) for i in range(40)
    ]
    tables.write_questions(found.workspace.data / f"{DATA}.parquet", questions)
    return found


def judged(made: Written, hypotheses: Hypotheses | None = None) -> Answer:
    with Store(made.workspace).read() as connection:
        return answer(connection, "toy", hypotheses=hypotheses, workspace=made.workspace)


def explored(made: Written) -> float:
    with Store(made.workspace).read() as connection:
        (one,) = by_field(connection, made.workspace, pairs_of_names(connection, ["toy/a", "toy/b"]), "level")
    assert one.p is not None
    return one.p


def test_it_is_judged_by_the_same_test_in_the_family_of_the_claims(tmp_path: Path) -> None:
    made = written(tmp_path, BY_LEVEL, PLAIN)
    first, second = judged(made).verdicts
    p = explored(made)
    assert first.by is not None and second.comparison is not None and second.comparison.p is not None
    assert first.by.p == p and first.family == 2
    larger = p >= second.comparison.p
    assert first.by.p_adjusted == pytest.approx(max(p, 2 * second.comparison.p) if larger else 2 * p)
    assert (first.verdict, first.holds, first.mark) == (Verdict.DIFFERS, True, "")
    assert not first.by.exploratory and "the difference differs by level" in first.note


def test_effects_that_are_alike_stay_open(tmp_path: Path) -> None:
    made = written(tmp_path, {**BY_LEVEL, "by": "length"})
    (verdict,) = judged(written(tmp_path / "other", BY_LEVEL, groups=1)).verdicts
    assert (verdict.verdict, verdict.holds) == (Verdict.UNRESOLVED, None)
    assert "fewer than two groups of 10 questions" in verdict.note
    (verdict,) = judged(made).verdicts
    assert verdict.by is not None and [group.n for group in verdict.by.groups] == [14, 13, 13]


def test_the_headline_names_what_it_is_about(tmp_path: Path) -> None:
    found = judged(written(tmp_path, BY_LEVEL))
    assert found.headline() == (
        "Of 1 declared claim (family of 1), for these models as they are, on questions like these: 1 holds "
        "(b against a differs by level)."
    )


def test_one_that_is_written_late_is_exploratory(tmp_path: Path) -> None:
    made = written(tmp_path)
    found = judged(made, Hypotheses.from_json({"claims": [BY_LEVEL]}, "here"))
    assert not found.verdicts and found.late[0].mark.startswith("EXPLORATORY: on no record")
    assert found.late[0].by is not None and found.late[0].by.exploratory


def test_the_pair_itself_stays_exploratory(tmp_path: Path) -> None:
    found = judged(written(tmp_path, BY_LEVEL))
    assert [(one.a, one.b) for one in found.exploratory] == [("toy/a", "toy/b")]


def test_an_unknown_field_leaves_the_claim_open_and_says_why(tmp_path: Path) -> None:
    (verdict,) = judged(written(tmp_path, {**BY_LEVEL, "by": "levle"})).verdicts
    assert verdict.verdict is Verdict.UNRESOLVED and "no question has a field 'levle'" in verdict.note
    assert verdict.about == "these weights"


def test_any_look_has_no_such_test(tmp_path: Path) -> None:
    (verdict,) = judged(written(tmp_path, BY_LEVEL, looks="any")).verdicts
    assert verdict.verdict is Verdict.UNRESOLVED and verdict.note.startswith("no verdict at any look")


def test_a_planned_look_is_tested_at_its_part_of_alpha(tmp_path: Path) -> None:
    once, thrice = (judged(written(tmp_path / str(n), BY_LEVEL, looks=n)).verdicts[0].by for n in (1, 3))
    assert once is not None and thrice is not None and once.p_adjusted is not None
    assert thrice.p_adjusted == pytest.approx(3 * once.p_adjusted)


@pytest.mark.slow
def test_every_output_shows_it_and_none_calls_it_exploratory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = written(tmp_path, BY_LEVEL)
    found = judged(made)
    assert "b against a differs by level | DIFFERS |" in answer_markdown(found)
    (row, _) = csv.DictReader(io.StringIO(answer_csv(found)))
    assert (row["in_family"], row["verdict"], row["n"]) == ("declared", "DIFFERS", "40") and float(row["p"]) < 0.05
    print_report(made.workspace, ["toy"], html=tmp_path / "page.html", output="json")
    facts = json.loads(capsys.readouterr().out)
    assert facts["answer"]["verdicts"][0]["by"]["field"] == "level" and not facts["by_field"][0]["exploratory"]
    page = (tmp_path / "page.html").read_text()
    assert "DIFFERS" in page and "declared beforehand: the interaction of toy/b against toy/a" in page
    assert "groups of questions that no claim names" not in page
    print_report(made.workspace, ["toy"])
    assert "differs by level | DIFFERS |" in capsys.readouterr().out


def test_looking_by_a_field_is_a_recorded_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = written(tmp_path)
    print_by_field(made.workspace, ["toy/a", "toy/b"], "level", "table")
    print_by_field(made.workspace, ["toy/a", "toy/b"], "level", "table")
    print_by_field(made.workspace, ["toy/a", "toy/b"], "length", "json")
    assert [(look.by, look.n, look.command) for look in read_looks(made.workspace)] == [
        ("level", 40, "compare"),
        ("length", 40, "compare"),
    ]
    with Store(made.workspace).read() as connection:
        assert connection.execute("SELECT json_extract_string(evidence, '$.by') FROM looks ORDER BY 1").fetchall() == [
            ("length",),
            ("level",),
        ]


def test_a_look_by_a_field_counts_for_the_pair_and_for_that_field(tmp_path: Path) -> None:
    (one,) = judged(written(tmp_path, BY_LEVEL)).interactions()
    (pair,) = judged(written(tmp_path / "plain", PLAIN)).judged()
    earlier = [
        look.changed(evidence={"a": ["older"], "b": ["older"]}, n=20, train={"a": ["untrained"], "b": ["untrained"]})
        for look in look_entries([one])
    ]
    assert look_number(earlier, one) == 2 and look_number(earlier, pair) == 2
    other = [look.changed(by="length") for look in earlier]
    assert look_number(other, one) == 1 and look_number(other, pair) == 2


def test_a_record_of_claims_without_a_field_is_as_it_was() -> None:
    from nsd.runner.spec.model import Claim

    assert Claim("a > b", "better", "a", "b").to_json() == {
        "text": "a > b",
        "kind": "better",
        "better": "a",
        "worse": "b",
        "margin": None,
    }
