"""Which claims are confirmatory: on record before their results, judged by the rules recorded then."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nsd.plugins.errors import InputError
from nsd.reports import stats
from nsd.reports.judge.answer import answer
from nsd.reports.judge.looks import look_entries
from nsd.reports.judge.versions import versions_of
from nsd.reports.text.answer import answer_csv, answer_json, answer_markdown
from nsd.runner.store.shapes import Hypotheses
from toy_answers import AFTER, BEFORE, RESULTS, claim, record, texts
from toy_results import Results, table_runs


@pytest.fixture
def results() -> Results:
    """base .60, tuned .75, third .65 on the same 200 questions, all evaluated at RESULTS."""
    results = Results()
    table_runs(results, "s/base/seed1", "s/tuned/seed1", 110, 10, 40, 40)
    results.add("s/third/seed1", [1.0] * 115 + [0.0] * 5 + [1.0] * 15 + [0.0] * 65)
    finish(results)
    return results


def finish(results: Results) -> None:
    results.connection.execute(
        "INSERT INTO stages(digest, kind, ended_at, manifest) SELECT eval_digest, 'eval', ?, '{}' FROM runs "
        "WHERE eval_digest NOT IN (SELECT digest FROM stages)",
        [RESULTS],
    )


def test_a_claim_on_record_before_its_results_is_primary_and_all_else_exploratory(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")])
    found = answer(results.connection, "s")
    assert texts(found) == (["tuned > base"], []) and found.verdicts[0].mark == ""
    assert [(one.a, one.b) for one in found.exploratory] == [("s/base", "s/third"), ("s/tuned", "s/third")]
    assert (found.primary_family, found.exploratory_family) == (1, 2)
    assert [one.p_adjusted for one in found.exploratory] == stats.adjust([one.p for one in found.exploratory], "bh")


def test_one_condition_alone_shows_no_difference_of_anything() -> None:
    results = Results()
    results.add("s/base/seed1", [1.0, 0.0])
    said = "No hypothesis was declared in the spec; of 0 exploratory comparisons 0 show a difference."
    assert answer(results.connection, "s").headline() == said


def test_a_difference_in_tokens_may_be_above_one(results: Results) -> None:
    assert answer(results.connection, "s", metric="tokens", detect=50.0).exploratory
    with pytest.raises(InputError, match="detect 50"):
        answer(results.connection, "s", detect=50.0)


def test_a_claim_written_after_its_results_is_marked_and_counts_in_both_families(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")], "old")
    record(results, AFTER, [claim("tuned", "base"), claim("third", "base")], "new")
    found = answer(results.connection, "s")
    assert texts(found) == (["tuned > base"], ["third > base"])
    assert found.primary_family == 2 and found.exploratory_family == 2
    assert found.late[0].mark == "EXPLORATORY: recorded 2026-01-02 09:00, after its results existed (2026-01-01 12:00)"


def test_a_claim_in_a_file_that_was_never_run_is_on_no_record(results: Results) -> None:
    block = record(results, BEFORE, [claim("tuned", "base")])
    edited = {**block, "claims": [*block["claims"], claim("third", "base")]}
    found = answer(results.connection, "s", hypotheses=Hypotheses(**edited))
    assert found.late[0].mark.startswith("EXPLORATORY: on no record")
    assert "not yet on record" in found.notes[0]


def test_loosening_the_level_afterwards_marks_every_claim(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")], "old")
    record(results, AFTER, [claim("tuned", "base")], "new", alpha=0.2)
    found = answer(results.connection, "s")
    assert texts(found) == ([], ["tuned > base"])
    assert "the rules (alpha, correction, looks) were changed then" in found.late[0].mark


def test_a_claim_dropped_after_its_result_still_counts_in_the_family(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base"), claim("third", "base")], "old")
    record(results, AFTER, [claim("tuned", "base")], "new")
    found = answer(results.connection, "s")
    assert found.dropped == ["third > base"] and found.primary_family == 2
    (verdict,) = found.verdicts
    assert verdict.comparison is not None and verdict.comparison.p is not None
    assert verdict.comparison.p_adjusted == pytest.approx(2 * verdict.comparison.p)


def test_a_claim_dropped_before_any_result_still_counts(results: Results) -> None:
    record(results, "2026-01-01 09:00", [claim("tuned", "base"), claim("third", "base")], "old")
    record(results, BEFORE, [claim("tuned", "base")], "new")
    found = answer(results.connection, "s")
    assert found.dropped == ["third > base"] and found.primary_family == 2


def test_other_settings_under_the_same_name_are_said(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")], "old", settings="first try")
    record(results, BEFORE, [claim("tuned", "base")], "new", settings="second try")
    assert "2 versions of this experiment" in answer(results.connection, "s").notes[0]


SERVED = {"use": "openai", "model": "m", "concurrency": 4, "prices": {"prompt": 1.0, "completion": 2.0}}


@pytest.mark.parametrize(
    ("block", "before", "after", "versions"),
    [
        ("engine", SERVED, {**SERVED, "max_dollars": 9.0, "prices": None, "concurrency": 99}, 1),
        ("engine", {"use": "hf", "batch_size": 2}, {"use": "hf", "batch_size": None}, 1),
        ("trainer", {"use": "sft", "save_every": 2}, {"use": "sft", "save_every": 3}, 1),
        ("engine", SERVED, {**SERVED, "model": "n"}, 2),
        ("engine", SERVED, {**SERVED, "logprobs": True}, 2),
        ("engine", {"use": "replay", "path": "a"}, {"use": "replay", "path": "b"}, 2),
        ("trainer", {"use": "sft", "learning_rate": 2}, {"use": "sft", "learning_rate": 3}, 2),
        ("engine", {"use": "gone", "concurrency": 2}, {"use": "gone", "concurrency": 3}, 2),
    ],
)
def test_what_changes_no_output_makes_no_other_version(
    results: Results, block: str, before: Any, after: Any, versions: int
) -> None:
    for digest, said in (("old", before), ("new", after)):
        record(results, BEFORE, [], digest, settings=said, field=block)
    assert (
        len({one.rest for one in versions_of(results.connection, "s") if one.spec_digest in ("old", "new")}) == versions
    )


def test_a_claim_judged_by_another_metric_is_exploratory(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")])
    found = answer(results.connection, "s", metric="accuracy")
    assert texts(found) == ([], ["tuned > base"]) and "instead of the metric of the spec" in found.late[0].mark


# --------------------------------------------------------------------------- looks


def look(results: Results) -> None:
    """Look once, as `nsd compare` does, and remember it."""
    for one in look_entries(answer(results.connection, "s").comparisons()):
        entry = one.to_json()
        evidence = json.dumps({"evidence": entry["evidence"], "train": entry["train"]})
        results.connection.execute(
            "INSERT INTO looks(looked_at, experiment, a, b, metric, evidence, n, p, verdict, command) "
            "VALUES (?,?,?,?,?,?,?,?,?,'compare')",
            [AFTER, "s", entry["a"], entry["b"], entry["metric"], evidence, entry["n"], entry["p"], entry["verdict"]],
        )


def more_seeds(results: Results) -> None:
    for seed, (base, tuned) in ((2, (118, 148)), (3, (122, 152))):
        results.add(f"s/base/seed{seed}", [1.0] * base + [0.0] * (200 - base))
        results.add(f"s/tuned/seed{seed}", [1.0] * tuned + [0.0] * (200 - tuned))
    finish(results)


def test_looking_twice_at_the_same_data_is_one_look(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")])
    look(results)
    assert answer(results.connection, "s").verdicts[0].mark == ""


def test_an_unplanned_second_look_at_grown_data_is_exploratory(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")])
    look(results)
    more_seeds(results)
    (verdict,) = answer(results.connection, "s").verdicts
    assert verdict.mark == "EXPLORATORY: look 2 at growing data, and none was planned (hypotheses.looks)"


def test_a_planned_look_is_tested_at_its_share_of_alpha(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")], looks=3)
    look(results)
    more_seeds(results)
    (verdict,) = answer(results.connection, "s").verdicts
    assert verdict.mark == "" and "look 2 of 3 planned, each tested at 0.05 / 3" in verdict.note
    assert verdict.comparison is not None and verdict.comparison.p is not None
    assert verdict.comparison.p_adjusted == pytest.approx(min(1, 3 * verdict.comparison.p))


# --------------------------------------------------------------------------- words


def test_the_headline_counts_what_was_declared(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base"), claim("third", "nowhere"), claim("base", "tuned")])
    assert answer(results.connection, "s").headline() == (
        "Of 3 declared claims (family of 3: 1 without a result), for these weights, on questions like these: 1 holds "
        "(tuned > base); 1 is refuted (base > tuned); 1 is not decided (third > nowhere). For this recipe, trained "
        "again, on questions like these: nothing, with one trained model an arm."
    )


def test_every_format_holds_both_families_and_their_sizes(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")], "old")
    record(results, AFTER, [claim("tuned", "base"), claim("third", "base")], "new")
    found = answer(results.connection, "s")
    text = answer_markdown(found)
    assert "a family of 2: 1 written late; p adjusted by Holm" in text
    assert "a family of 2 (1 late claim among them)" in text
    facts = json.loads(answer_json(found))
    assert len(facts["comparisons"]) == 3 and facts["late"][0]["mark"].startswith("EXPLORATORY")
    assert [line.split(",")[0] for line in answer_csv(found).splitlines()[1:]] == ["declared", "late", "exploratory"]


def test_an_unknown_experiment_is_an_error(results: Results) -> None:
    with pytest.raises(InputError, match="no experiment 'nothing' has been run here"):
        answer(results.connection, "nothing")


def test_a_recipe_claim_with_one_seed_is_refused_with_the_seeds_it_needs(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")])
    with pytest.raises(InputError, match=r"needs training seeds.*9 seeds per arm"):
        answer(results.connection, "s", claim="recipe")


def test_a_metric_that_is_neither_good_nor_bad_judges_no_claim(results: Results) -> None:
    """More tokens must not make `tuned > base` hold, nor is a margin of accuracy one of tokens."""
    record(results, BEFORE, [claim("tuned", "base"), claim("third", "base", "not_worse_by", 0.02)])
    results.connection.execute(
        "UPDATE eval_samples SET tokens = 20 + length(question_id) WHERE eval_digest LIKE '%tuned%'"
    )
    found = answer(results.connection, "s", metric="tokens")
    assert found.verdicts == found.late == [] and len(found.exploratory) == 3
    assert {one.verdict for one in found.exploratory} == {"HIGHER", "LOWER", "UNRESOLVED"}
    assert "no claim of the spec is judged by it" in found.headline()


def test_other_pairs_may_be_left_out_where_no_late_claim_needs_them(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")], "old")
    whole, short = answer(results.connection, "s"), answer(results.connection, "s", pairs=False)
    assert short.exploratory == [] and short.verdicts == whole.verdicts
    record(results, AFTER, [claim("tuned", "base"), claim("third", "base")], "new")
    assert answer(results.connection, "s", pairs=False).late == answer(results.connection, "s").late != []


def test_as_data_it_has_its_headline(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")])
    found = answer(results.connection, "s")
    assert found.to_json()["headline"] == found.headline()
