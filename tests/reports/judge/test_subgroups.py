"""Differences by a field of the questions, against counts done by hand, and what is no field."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import Question
from nsd.plugins.errors import InputError
from nsd.reports.judge.subgroups import ByField, by_field, by_field_notes, pairs_of_experiment, pairs_of_names
from nsd.reports.stats.intervals import newcombe_paired
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from report_workspace import DATA, Written
from toy_results import Results

# 20 easy questions, of which b alone has 10 right that a has not; 20 hard ones, on which both are alike.
A = [False] * 10 + [True] * 10 + [True, False] * 10
B = [True] * 20 + [True, False] * 10


def workspace_with(folder: Path, meta: Any = None, a: list[bool] = A, b: list[bool] = B) -> Written:
    written = Written(folder, {"a": a, "b": b}, claims=[("b", "a")])
    of = meta or (lambda i: {"level": "easy" if i < 20 else "hard"})
    questions = [Question(id=f"q{i}", text="x" * (i + 1), answer=str(i), meta=of(i)) for i in range(len(a))]
    tables.write_questions(written.workspace.data / f"{DATA}.parquet", questions)
    return written


def found(written: Written, field: str = "level", **options: Any) -> ByField:
    with Store(written.workspace).read() as connection:
        pairs = pairs_of_names(connection, ["toy/a", "toy/b"])
        (one,) = by_field(connection, written.workspace, pairs, field, **options)
    return one


def test_each_group_is_the_comparison_of_its_questions(tmp_path: Path) -> None:
    easy, hard = found(workspace_with(tmp_path)).groups
    assert (easy.name, easy.n, easy.mean_a, easy.mean_b, easy.difference) == ("easy", 20, 0.5, 1.0, 0.5)
    assert (hard.name, hard.n, hard.mean_a, hard.mean_b, hard.difference) == ("hard", 20, 0.5, 0.5, 0.0)
    expected = newcombe_paired(10, 0, 10, 0)
    assert expected is not None and easy.ci == pytest.approx((expected.low, expected.high))


def test_the_whole_is_the_mean_over_its_groups(tmp_path: Path) -> None:
    one = found(workspace_with(tmp_path))
    assert one.difference == pytest.approx(0.25) and one.n == 40


def test_an_effect_in_one_group_alone_is_an_interaction(tmp_path: Path) -> None:
    one = found(workspace_with(tmp_path))
    assert one.tested == 2 and one.p is not None and one.p < 0.01
    assert "the difference differs by level" in one.sentence()


def test_the_same_effect_everywhere_is_none(tmp_path: Path) -> None:
    one = found(workspace_with(tmp_path, meta=lambda i: {"level": i % 2}))
    assert one.p is not None and one.p > 0.5
    assert "is not shown to differ by level" in one.sentence()


def test_numbers_stand_in_order_and_questions_without_the_field_last(tmp_path: Path) -> None:
    one = found(workspace_with(tmp_path, meta=lambda i: {"level": (10, 9, 2)[i % 3]} if i < 30 else {}))
    assert [group.name for group in one.groups] == ["2", "9", "10", "(none)"]


def test_length_makes_thirds_by_characters(tmp_path: Path) -> None:
    """Question i has i + 1 characters, so that 40 questions fall into 14, 13 and 13."""
    one = found(workspace_with(tmp_path), "length")
    assert [(group.name, group.n) for group in one.groups] == [("up to 14", 14), ("15 to 27", 13), ("over 27", 13)]


def test_small_groups_are_shown_and_not_tested(tmp_path: Path) -> None:
    one = found(workspace_with(tmp_path, meta=lambda i: {"level": i // 5}))
    assert len(one.groups) == 8 and one.p is None and one.tested == 0
    assert "no interaction with level is tested" in one.sentence()


def test_several_pairs_are_corrected_together(tmp_path: Path) -> None:
    written = workspace_with(tmp_path)
    with Store(written.workspace).read() as connection:
        pair = pairs_of_names(connection, ["toy/a", "toy/b"])[0]
        first, second = by_field(connection, written.workspace, [pair, pair[::-1]], "level")
    assert first.family == second.family == 2
    assert first.p_adjusted == pytest.approx(max(first.p or 0, second.p or 0))


def test_an_unknown_field_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no question has a field 'levle' in its meta, there is level, length.*level"):
        found(workspace_with(tmp_path), "levle")


def test_a_field_of_its_own_for_every_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'number' has 40 values in 40 questions, and at most 20"):
        found(workspace_with(tmp_path, meta=lambda i: {"number": i}), "number")


def test_of_an_experiment_the_pairs_of_its_claims_are_meant(tmp_path: Path) -> None:
    written = workspace_with(tmp_path)
    from nsd.runner.store.shapes import Claim, Hypotheses

    claimed = Hypotheses(claims=[Claim(text="a > b", kind="better", better="a", worse="b")])
    with Store(written.workspace).read() as connection:
        (pair,) = pairs_of_experiment(connection, "toy", None, claimed)
        (every,) = pairs_of_experiment(connection, "toy", None, None)
    assert [arm.name for arm in pair] == ["toy/b", "toy/a"]
    assert [arm.name for arm in every] == ["toy/a", "toy/b"]


@pytest.mark.slow
def test_it_is_marked_exploratory_in_text_json_and_on_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nsd.runner.cli.by_field import print_by_field
    from nsd.runner.cli.report import print_report

    written = workspace_with(tmp_path)
    print_by_field(written.workspace, ["toy/a", "toy/b"], "level", "table")
    said = capsys.readouterr().out
    assert "EXPLORATORY" in said and "interaction over 2 groups" in said
    print_by_field(written.workspace, ["toy/a", "toy/b"], "level", "json")
    facts = json.loads(capsys.readouterr().out)
    assert facts["by_field"][0]["exploratory"] and facts["note"].startswith("EXPLORATORY")
    print_report(written.workspace, ["toy/a", "toy/b"], html=tmp_path / "page.html", by="level")
    page = (tmp_path / "page.html").read_text()
    assert 'id="by-field"' in page and "EXPLORATORY" in page and "level easy" in page


def test_options_that_say_nothing_here_are_refused(tmp_path: Path) -> None:
    from nsd.runner.cli.by_field import print_by_field

    written = workspace_with(tmp_path)
    with pytest.raises(InputError, match="--by has no use for --matrix, --test"):
        print_by_field(written.workspace, ["toy/a", "toy/b"], "level", "table", beside={"test", "matrix"})
    with pytest.raises(InputError, match="no format 'csv' with --by: one of table, json"):
        print_by_field(written.workspace, ["toy/a", "toy/b"], "level", "csv")


def test_runs_of_different_questions_are_no_pair() -> None:
    results = Results()
    results.add("a", [1.0, 0.0], data="one")
    results.add("b", [1.0, 0.0], data="another")
    with pytest.raises(InputError, match=r"a.*b.*data"):
        pairs_of_names(results.connection, ["a", "b"])


def test_what_was_declared_beforehand_is_said_apart_from_what_was_not(tmp_path: Path) -> None:
    one = replace(found(workspace_with(tmp_path)), alpha=0.1)
    declared = replace(one, exploratory=False, family=3, correction="holm")
    said = (
        "declared beforehand: the interaction of toy/b against toy/a, toy/b against toy/a, in the family of 3 claims, "
        "p adjusted by Holm; the groups' own intervals are 90%, each for itself"
    )
    assert by_field_notes([declared, declared]) == [said]
    both = by_field_notes([declared, one])
    assert (
        both[0] == said.replace(" toy/b against toy/a,", "", 1) and both[1].startswith("EXPLORATORY") and len(both) == 2
    )
    assert "90% intervals" in both[1] and by_field_notes([one]) == both[1:]
    assert by_field_notes([]) == [both[1].replace("90%", "95%")]


def test_a_pair_by_a_field_is_told_whole(tmp_path: Path) -> None:
    one = found(workspace_with(tmp_path), alpha=0.1)
    easy = newcombe_paired(10, 0, 10, 0, level=0.9)
    assert easy is not None and one.p is not None
    assert replace(one, groups=[], q=None, p=None, p_adjusted=None) == ByField(
        **{"a": "toy/a", "b": "toy/b", "metric": "accuracy", "field": "level", "n": 40, "difference": 0.25},
        **{"groups": [], "q": None, "p": None, "p_adjusted": None, "tested": 2, "family": 1, "alpha": 0.1},
        about="these models as they are (nothing was trained)",
        evals_a=("00eval00000000000000",),
        evals_b=("01eval00000000000000",),
        trained_a=("untrained",),
        trained_b=("untrained",),
    )
    assert one.p_adjusted == one.p and one.q is not None and one.q > 1
    assert one.groups[0].ci == pytest.approx((easy.low, easy.high))


def test_a_pair_that_could_not_be_tested_is_none_of_the_family(tmp_path: Path) -> None:
    written = workspace_with(tmp_path, meta=lambda i: {"level": i // 5})
    with Store(written.workspace).read() as connection:
        pair = pairs_of_names(connection, ["toy/a", "toy/b"])[0]
        first, second = by_field(connection, written.workspace, [pair, pair[::-1]], "level")
    assert (first.family, first.p_adjusted, second.family, second.p_adjusted) == (0, None, 0, None)


def test_questions_that_are_not_here_have_no_field(tmp_path: Path) -> None:
    written = workspace_with(tmp_path)
    (written.workspace.data / f"{DATA}.parquet").unlink()
    with pytest.raises(InputError) as error:
        found(written)
    assert str(error.value) == "the questions of toy/a/seed1 are not in this workspace, so they have no 'level'"
