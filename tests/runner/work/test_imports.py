"""What an import keeps in a workspace: names that are taken, runs of several seeds, texts that must agree to pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nsd.plugins.errors import InputError
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.runs import all_runs, resolve
from nsd.runner.cli.app import app
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.imports.storing import NameTaken, import_file
from toy_workspace import finish, record

RIGHT = (1, 0, 0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 0, 1)  # C(20, 12) ways: no coincidence


def rows(*right: int, **fields: list[Any]) -> list[dict[str, Any]]:
    """A line for each question, with these other fields."""
    return [{"id": i, "ok": ok, **{name: of[i] for name, of in fields.items()}} for i, ok in enumerate(right)]


def bring(workspace: Workspace, lines: list[dict[str, Any]], name: str, **options: Any) -> list[str]:
    path = workspace.root.parent / "results.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    replace = options.pop("replace", False)
    options = {"name": name, "id_field": "id", "correct": "ok", **options}
    return import_file(workspace, path, options, lambda _: replace)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


def means(workspace: Workspace) -> dict[str, float]:
    with Store(workspace).read() as connection:
        sql = "SELECT r.run, avg(v.value) FROM current_runs r JOIN eval_values v USING (eval_digest) GROUP BY 1"
        return dict(connection.execute(sql).fetchall())


# --------------------------------------------------------------------------- names


def test_a_name_that_is_taken_is_refused_and_nothing_is_kept(workspace: Workspace) -> None:
    bring(workspace, rows(1, 0), "mine")
    with pytest.raises(NameTaken) as error:
        bring(workspace, rows(1, 1), "mine")
    assert str(error.value) == "mine: imported before, with other results. Give another --name, or --replace them"
    assert means(workspace) == {"mine": 0.5}


def test_the_same_file_again_changes_nothing_and_asks_nothing(workspace: Workspace) -> None:
    first = bring(workspace, rows(1, 0), "mine")
    assert bring(workspace, rows(1, 0), "mine") == first and len(list(workspace.manifests("import"))) == 1


def test_a_replaced_import_is_gone_from_disk_and_index(workspace: Workspace) -> None:
    bring(workspace, rows(1, 0), "mine")
    bring(workspace, rows(1, 1), "mine", replace=True)
    bring(workspace, rows(0, 0), "mine", replace=True)
    bring(workspace, rows(1, 1), "mine", replace=True)
    assert means(workspace) == {"mine": 1.0} and len(list(workspace.manifests("import"))) == 1
    Store(workspace).rebuild()
    assert means(workspace) == {"mine": 1.0}


def test_the_name_of_a_run_of_nsd_cannot_be_taken(workspace: Workspace) -> None:
    workspace.create()
    finish(workspace, "good", [1.0, 0.0])
    record(workspace, "toy", {"good": "good"})
    with pytest.raises(NameTaken, match="toy/good/seed1 is a name of the experiment toy: give another --name"):
        bring(workspace, rows(1, 1), "toy/good/seed1", replace=True)


@pytest.mark.parametrize("name", ["toy", "toy/good", "toy/good/seed2", "toy/other/seed1"])
def test_no_name_stands_before_the_arms_of_an_experiment(workspace: Workspace, name: str) -> None:
    workspace.create()
    finish(workspace, "good", [1.0, 0.0])
    record(workspace, "toy", {"good": "good"})
    with pytest.raises(NameTaken, match="is a name of the experiment toy"):
        bring(workspace, rows(1, 1), name, replace=True)
    bring(workspace, rows(1, 1), "toys")


def test_without_a_terminal_a_taken_name_ends_with_code_2(workspace: Workspace, tmp_path: Path) -> None:
    bring(workspace, rows(1, 0), "mine")
    (tmp_path / "other.jsonl").write_text('{"id": 0, "ok": 1}\n')
    words = ["import", str(tmp_path / "other.jsonl"), "--name", "mine", "--id", "id", "--correct", "ok"]
    words += ["-w", str(workspace.root)]
    with pytest.raises(NameTaken):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert CliRunner().invoke(app, [*words, "--replace"]).output.startswith("mine: 1.0000 on 1 questions")


def test_at_a_terminal_it_is_asked(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nsd.runner.cli.importing import print_import

    bring(workspace, rows(1, 0), "mine")
    (tmp_path / "other.jsonl").write_text('{"id": 0, "ok": 1}\n')
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda text: asked.append(text) or len(asked) > 1)
    options = {"name": "mine", "id_field": "id", "correct": "ok"}
    with pytest.raises(NameTaken):
        print_import(workspace, tmp_path / "other.jsonl", options, (), False)
    print_import(workspace, tmp_path / "other.jsonl", options, (), False)
    assert asked == ["mine: imported before, with other results. Replace?"] * 2 and means(workspace) == {"mine": 1.0}


@pytest.mark.parametrize("text", ["filter", "=strict", ""])
def test_a_condition_that_is_none_says_how_one_looks(text: str) -> None:
    from nsd.runner.cli.importing import conditions

    with pytest.raises(InputError, match="FIELD=VALUE, such as --where filter=strict-match"):
        conditions([text])


def test_a_value_may_hold_an_equals_sign_and_a_field_several_values() -> None:
    from nsd.runner.cli.importing import conditions

    assert conditions(["a=b=c", "a=d", "e="]) == {"a": ["b=c", "d"], "e": [""]}


# --------------------------------------------------------------------------- seeds


def test_runs_of_several_seeds_are_one_arm(workspace: Workspace) -> None:
    for seed, right in ((1, (1, 1, 0, 0)), (2, (1, 1, 1, 0)), (0, (1, 0, 1, 0))):
        bring(workspace, rows(*right), "mine", seed=seed)
        bring(workspace, rows(*right[::-1]), "other", seed=seed)
    with Store(workspace).read() as connection:
        assert {run.name: run.seed for run in all_runs(connection)[0].values() if run.condition == "mine"} == (
            {"mine/seed0": 0, "mine/seed1": 1, "mine/seed2": 2}
        )
        (found,) = compare_runs(connection, ["mine", "other"])
    assert (found.a, found.b, found.seeds, found.claim) == ("mine", "other", (3, 3), "recipe")
    assert found.mean_a == pytest.approx(7 / 12)


def names(workspace: Workspace) -> list[str]:
    return sorted(run.run for manifest in workspace.manifests("import") for run in manifest.imported)


def models(**right: int) -> list[dict[str, Any]]:
    return [{"id": 0, "ok": right}]


def test_a_replaced_file_leaves_no_run_of_the_old_one(workspace: Workspace) -> None:
    bring(workspace, models(a=1, b=0, c=1), "all", correct="ok.*")
    with pytest.raises(NameTaken, match=r"^all/c: imported before, under the same name"):
        bring(workspace, models(a=1, b=0), "all", correct="ok.*")
    bring(workspace, models(a=1, b=0), "all", correct="ok.*", replace=True)
    assert names(workspace) == ["all/a", "all/b"] and means(workspace) == {"all/a": 1.0, "all/b": 0.0}


def test_a_file_beside_another_leaves_it_alone(workspace: Workspace) -> None:
    bring(workspace, models(a=1, b=0), "all", correct="ok.*")
    bring(workspace, models(c=1, d=0), "all", correct="ok.*")
    assert names(workspace) == ["all/a", "all/b", "all/c", "all/d"]


@pytest.mark.parametrize(("first", "second"), [({}, {"seed": 1}), ({"seed": 1}, {})])
def test_an_arm_of_seeds_and_a_run_have_no_name_in_common(
    workspace: Workspace, first: dict[str, int], second: dict[str, int]
) -> None:
    bring(workspace, rows(1, 0), "lm", **first)
    with pytest.raises(NameTaken, match=r"imported before, under the same name"):
        bring(workspace, rows(1, 1), "lm", **second)
    bring(workspace, rows(1, 1), "lm", replace=True, **second)
    assert len(names(workspace)) == 1


def test_one_file_under_two_seeds_is_told(workspace: Workspace) -> None:
    assert len(bring(workspace, rows(1, 0), "lm", seed=1)) == 2
    said = bring(workspace, rows(1, 0), "lm", seed=2)
    assert said[1].startswith("lm/seed2 has the results of lm/seed1, line for line: one file imported twice?")
    assert not any("line for line" in line for line in bring(workspace, rows(0, 1), "lm", seed=3))


def test_one_file_under_two_names_is_told(workspace: Workspace) -> None:
    bring(workspace, rows(*RIGHT), "one")
    said = bring(workspace, rows(*RIGHT), "two")
    assert said[1] == "two has the results of one, line for line: one file imported twice? They count as one"
    assert not any("line for line" in line for line in bring(workspace, rows(*RIGHT[::-1]), "three"))


def test_one_training_under_two_seeds_is_one_observation(workspace: Workspace) -> None:
    for seed in (1, 2):
        bring(workspace, rows(*RIGHT), "dup", seed=seed)
    bring(workspace, rows(*RIGHT[::-1]), "dup", seed=3)
    bring(workspace, rows(*[1] * 20), "other")
    with Store(workspace).read() as connection:
        arms, _ = resolve(connection, ["dup", "other"])
        (found,) = compare_runs(connection, ["dup", "other"])
    assert [len(arm.observations) for arm in arms] == [2, 1]
    assert "dup: 3 imported seeds have 2 different sets of answers, and count as 2" in found.note


def test_one_training_under_two_seeds_carries_no_claim_about_a_recipe(workspace: Workspace) -> None:
    for seed in (1, 2):
        bring(workspace, rows(*RIGHT), "dup", seed=seed)
        bring(workspace, rows(*RIGHT[seed:], *RIGHT[:seed]), "two", seed=seed)
    with Store(workspace).read() as connection:
        (found,) = compare_runs(connection, ["dup", "two"])
        assert found.claim == "checkpoint" and "same answer to every question, and count as 1" in found.note
        with pytest.raises(InputError, match="dup has 1"):
            compare_runs(connection, ["dup", "two"], claim="recipe")


@pytest.mark.parametrize("backwards", [False, True])
def test_one_file_under_two_names_compares_nothing(workspace: Workspace, backwards: bool) -> None:
    lines = rows(*RIGHT)
    bring(workspace, lines, "one")
    bring(workspace, lines[::-1] if backwards else lines, "two")
    with Store(workspace).read() as connection:
        (found,) = compare_runs(connection, ["one", "two"], margin=0.3)
    assert (found.verdict, found.test) == ("UNRESOLVED", "the same evaluation twice")
    assert "with the same answer to every question: nothing was compared" in found.note


@pytest.mark.parametrize("right", [[1] * 200, [0] * 200, [1] * 199 + [0], [1, 0] * 5])
def test_equal_results_that_chance_gives_too_are_two_evaluations(workspace: Workspace, right: list[int]) -> None:
    for name in ("one", "two"):
        bring(workspace, rows(*right), name)
    with Store(workspace).read() as connection:
        (found,) = compare_runs(connection, ["one", "two"])
    assert found.test == "McNemar mid-p"


def test_a_seed_that_no_column_holds_is_refused_and_leaves_nothing(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="--seed 9999999999999999999: a whole number of at most 18 digits"):
        bring(workspace, rows(1, 0), "mine", seed=9_999_999_999_999_999_999)
    assert not workspace.root.exists()


def test_no_experiment_is_run_under_the_name_of_an_import(workspace: Workspace, tmp_path: Path) -> None:
    bring(workspace, rows(1, 0), "toy/base/seed1")
    spec = tmp_path / "toy.yaml"
    spec.write_text(
        "name: toy\nmodel: builtin:wordmath-1m\ndata: {use: wordmath, train: 4, test: 4, split: {test: 4}}\n"
        "conditions: {base: {train_on: []}}\n"
    )
    with pytest.raises(NameTaken, match=r"^toy/base/seed1 is the name of an import \(results\.jsonl\)"):
        CliRunner().invoke(app, ["run", str(spec), "-w", str(workspace.root)], catch_exceptions=False)
    assert not list(workspace.records())


# --------------------------------------------------------------------------- pairing


HASHES = [f"{number:064x}" for number in (1, 2)]


def test_texts_and_hashes_of_texts_are_not_held_against_each_other(workspace: Workspace) -> None:
    """One file imported twice: by its texts, and by the hashes that the tool made of them."""
    lines = rows(1, 0, text=["a?", "b?"], sha=HASHES)
    said = bring(workspace, lines, "one", text="text") + bring(workspace, lines, "two", text="sha")
    assert said[1] == said[3] == "pairing: by id; runs whose question texts differ are not compared"
    with Store(workspace).read() as connection:
        (found,) = compare_runs(connection, ["one", "two"])
    assert found.n == 2 and "one and two have texts of other kinds" in found.note


def test_hashes_that_differ_are_refused(workspace: Workspace) -> None:
    bring(workspace, rows(1, 0, sha=HASHES), "one", text="sha")
    bring(workspace, rows(1, 0, sha=HASHES[::-1]), "two", text="sha")
    with Store(workspace).read() as connection, pytest.raises(InputError, match="different texts of 2 questions"):
        compare_runs(connection, ["one", "two"])


def test_nothing_is_said_of_pairing_where_there_are_counts_alone(workspace: Workspace) -> None:
    bring(workspace, rows(*[1, 0] * 20), "one")
    (path := workspace.root.parent / "counts.csv").write_text("condition,correct,n\npaper,30,40\n")
    import_file(workspace, path, {"counts": True})
    with Store(workspace).read() as connection:
        (found,) = compare_runs(connection, ["one", "paper"])
    assert "pair" not in found.note.replace("unpaired", "")


def test_ids_that_agree_with_texts_that_do_not_are_refused(workspace: Workspace) -> None:
    bring(workspace, rows(1, 0, 1, text=["a?", "b?", "c?"]), "one", text="text")
    bring(workspace, rows(1, 1, 1, text=["a?", "B?", "c?"]), "two", text="text")
    with Store(workspace).read() as connection, pytest.raises(InputError) as error:
        compare_runs(connection, ["one", "two"])
    assert "one and two were measured with different texts of 1 question with the same id ('1')" in str(error.value)


def test_force_compares_them_and_says_so(workspace: Workspace) -> None:
    bring(workspace, rows(1, 0, text=["a?", "b?"]), "one", text="text")
    bring(workspace, rows(1, 1, text=["a?", "B?"]), "two", text="text")
    with Store(workspace).read() as connection:
        (found,) = compare_runs(connection, ["one", "two"], force=True)
    assert "FORCED in spite of different texts of 1 question" in found.note


def test_texts_that_agree_pair_though_one_file_has_more(workspace: Workspace) -> None:
    bring(workspace, rows(1, 0, 1, text=["a?", "b?", "c?"]), "one", text="text")
    bring(workspace, rows(1, 1, text=["a?", "b? "]), "two", text="text")
    with Store(workspace).read() as connection:
        (found,) = compare_runs(connection, ["one", "two"])
    assert found.n == 2 and "ids alone" not in found.note


def test_another_pair_is_not_held_up_by_texts_that_differ_elsewhere(workspace: Workspace) -> None:
    for name, text in (("one", "a?"), ("two", "a?"), ("three", "A?")):
        bring(workspace, rows(1, text=[text]), name, text="text")
    with Store(workspace).read() as connection:
        assert [found.forced for found in compare_runs(connection, ["one", "two", "three"], force=True)] == [
            *(False, True, True)
        ]


def test_without_a_text_the_output_says_that_pairing_rests_on_ids_alone(workspace: Workspace) -> None:
    bring(workspace, rows(1, 0), "one")
    bring(workspace, rows(1, 1, text=["a?", "b?"]), "two", text="text")
    with Store(workspace).read() as connection:
        (found,) = compare_runs(connection, ["one", "two"])
    assert "pairing rests on ids alone: no question text is known of one" in found.note


def test_ids_of_a_file_and_texts_have_nothing_in_common_and_the_way_out_is_said(workspace: Workspace) -> None:
    bring(workspace, rows(1, 0, text=["a?", "b?"]), "one", text="text")
    bring(workspace, rows(1, 0, text=["a?", "b?"]), "two", id_field="text", id_is_text=True)
    way_out = r"no question in common.*import it by the text \(--id FIELD --id-is-text\) to pair them"
    with Store(workspace).read() as connection, pytest.raises(InputError, match=way_out):
        compare_runs(connection, ["one", "two"])


def test_a_grade_is_not_compared_with_right_or_wrong(workspace: Workspace) -> None:
    bring(workspace, rows(1, 0), "one")
    bring(workspace, rows(1, 0, f1=[0.5, 0.5]), "two", correct=None, score="f1")
    with (
        Store(workspace).read() as connection,
        pytest.raises(InputError, match=r"different metrics \(accuracy, score\)"),
    ):
        compare_runs(connection, ["one", "two"])
