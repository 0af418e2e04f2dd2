"""Searches in the database: what arms solved, which test claims get, what is said of how they were trained."""

from __future__ import annotations

import json

import pytest

from nsd.plugins.errors import InputError
from nsd.reports.judge.arms import summarise_arms
from nsd.reports.judge.hypotheses import ClaimVerdict
from nsd.reports.judge.runs import condition_arms
from nsd.reports.judge.searched import SearchCell, collect_searches
from nsd.reports.judge.trainings import training_notes
from nsd.reports.judge.values import load_values
from toy_results import Results, verdicts

BUDGET = 8


def add(
    results: Results, run: str, first: list[int | None], by: str = "sampling", cut: tuple[int, int] | None = None
) -> None:
    """A run whose search of question i had its first right sample as number first[i] (None: none of 8).

    `cut` names a question and a sample number that was cut at the token limit.
    """
    results.add(run, None, trained=False)
    values = [0.0 if n is None else (BUDGET + 1 - n) / BUDGET for n in first]
    digest, execute = f"eval-{run}", results.connection.execute
    execute(
        "INSERT INTO eval_info VALUES (?, 'discovery@8', 'discovery', 'data', 'steps', ?, ?)",
        [digest, len(first), BUDGET],
    )
    key = {"sampling": {"temperature": 1.0}, "engine": {"use": "hf"}, "model": {"base": "m"}, "by": by}
    execute(
        "INSERT INTO stages(digest, kind, manifest) VALUES (?, 'score', ?)", [digest, json.dumps({"settings": key})]
    )
    for place, (n, value) in enumerate(zip(first, values, strict=True)):
        execute("INSERT INTO eval_values VALUES (?, ?, ?)", [digest, f"q{place}", value])
        for sample in range(n or BUDGET):
            reason = "length" if cut == (place, sample + 1) else "stop"
            row = [digest, f"q{place}", sample, float(sample + 1 == n), sample + 1 == n, reason]
            execute("INSERT INTO eval_samples VALUES (?, ?, ?, ?, ?, '1', ?, 9)", row)


def judged(results: Results) -> ClaimVerdict:
    claim = {"text": "sdpo > sampling", "kind": "better", "better": "sdpo", "worse": "sampling", "margin": None}
    (found,) = verdicts(results, {"alpha": 0.05, "correction": "holm", "claims": [claim]})
    return found


@pytest.fixture
def results() -> Results:
    results = Results()
    add(results, "s/sampling/seed1", [3, None, 8, None, 5, 6, 7, None])
    add(results, "s/sdpo/seed1", [1, None, 2, 4, 5, 2, 3, None], by="training")
    return results


def test_the_first_right_sample_of_each_question_and_the_samples_of_an_unsolved_one(results: Results) -> None:
    sampling, sdpo = collect_searches(results.connection, ["s/sampling/seed1", "s/sdpo/seed1"]).arms
    assert sampling.cells["q0"] == SearchCell(True, 3)
    assert sampling.cells["q1"] == SearchCell(False, 8)
    assert (sampling.solved, sdpo.solved) == (5, 6)
    assert [point.share for point in sdpo.curve][:4] == pytest.approx([1 / 8, 3 / 8, 4 / 8, 5 / 8])


def test_questions_that_most_solved_and_soonest_come_first_and_level_ones_by_id(results: Results) -> None:
    found = collect_searches(results.connection, ["s/sampling/seed1", "s/sdpo/seed1"])
    # Both solved q0 in 4 samples together, q5 in 8, q2, q4 and q6 in 10; one solved q3; none q1 and q7.
    assert found.questions == ["q0", "q5", "q2", "q4", "q6", "q3", "q1", "q7"]


def test_a_curve_is_read_at_powers_of_four_and_at_the_budget(results: Results) -> None:
    assert collect_searches(results.connection, ["s/sampling/seed1"]).marks == [1, 4, 8]


def test_a_right_text_that_ended_by_an_error_solves_nothing(results: Results) -> None:
    results.connection.execute("UPDATE eval_samples SET stop_reason = 'error' WHERE correct")
    (arm,) = collect_searches(results.connection, ["s/sampling/seed1"]).arms
    assert arm.solved == 0


def test_a_claim_on_one_search_of_each_is_a_sign_test_paired_by_question(results: Results) -> None:
    # sdpo is ahead on q0, q2, q3, q5, q6; q4 is level and q1, q7 are solved by none: 5 of 5 have a mid-p of 1/32.
    one = judged(results).comparison
    assert one is not None
    assert one.test == "sign test on samples to the solution (mid-p)"
    assert one.p == pytest.approx(1 / 32)
    assert "sdpo solved 5 with fewer samples, or alone, and sampling 0; 3 say nothing" in one.note


def test_a_claim_on_searches_speaks_of_one_search(results: Results) -> None:
    assert judged(results).about == "one search of each question by each (seed 1)"


def test_several_seeds_of_a_search_that_trains_speak_of_the_recipe(results: Results) -> None:
    add(results, "s/sdpo/seed2", [2, None, 2, 5, 5, 1, 3, None], by="training")
    add(results, "s/sampling/seed2", [8, 7, None, None, 6, 6, 8, None])
    found = judged(results)
    assert found.about.startswith("this recipe (2 training seeds")
    assert found.comparison is not None and "two-level" in found.comparison.test


def test_an_arm_that_trained_while_it_was_measured_is_said_to_have(results: Results) -> None:
    notes = training_notes(results.connection, condition_arms(results.connection, "s"))
    assert notes == {"sdpo": ["trained on the test questions with the verifier's verdicts, on each alone"]}


def test_a_sample_that_was_cut_could_have_ended_the_search_there() -> None:
    results = Results()
    add(results, "s/a/seed1", [None, 7], cut=(0, 3))
    add(results, "s/b/seed1", [None, 7], cut=(1, 2))
    arms = condition_arms(results.connection, "s")
    lost = load_values(results.connection, list(arms.values())).lost
    # The third of 8 samples leaves 6/8 where nothing was left; the second leaves 7/8 where the seventh left 2/8.
    assert lost == {"eval-s/a/seed1": pytest.approx(6 / 8 / 2), "eval-s/b/seed1": pytest.approx(5 / 8 / 2)}


def test_another_metric_of_samples_that_a_search_chose_to_end_is_refused(results: Results) -> None:
    arms = list(condition_arms(results.connection, "s").values())
    with pytest.raises(InputError, match=r"ends with the first right sample.*discovery@8"):
        load_values(results.connection, arms, metric="pass@1")
    assert load_values(results.connection, arms, metric="tokens").matrix.shape == (2, 8)


def test_an_arm_of_searches_has_an_interval_over_questions(results: Results) -> None:
    (arm,) = summarise_arms(results.connection, ["s/sampling/seed1"])
    assert arm.mean == pytest.approx(sum((6, 0, 1, 0, 4, 3, 2, 0)) / 8 / 8)
    assert arm.interval == "bounded mean" and arm.ci is not None and arm.ci[0] >= 0


def test_a_cell_shows_the_first_right_sample_or_how_many_were_in_vain() -> None:
    assert (SearchCell(True, 3).text, SearchCell(False, 8).text) == ("3", "> 8")


def test_a_curve_is_level_between_its_points(results: Results) -> None:
    (arm,) = collect_searches(results.connection, ["s/sampling/seed1"]).arms
    # Its first right samples are 3, 5, 6, 7 and 8.
    assert [arm.within(n).share for n in (2, 3, 4, 5, 8, 100)] == pytest.approx([0, 1 / 8, 1 / 8, 2 / 8, 5 / 8, 5 / 8])


def test_searches_are_named_by_their_seed_only_where_a_condition_has_several(results: Results) -> None:
    runs = ["s/sampling/seed1", "s/sdpo/seed1"]
    found = collect_searches(results.connection, runs)
    assert not found.several and list(map(found.name, found.arms)) == ["sampling", "sdpo"]
    add(results, "s/sdpo/seed2", [2, None, 2, 5, 5, 1, 3, None])
    found = collect_searches(results.connection, [*runs, "s/sdpo/seed2"])
    assert found.several
    assert list(map(found.name, found.arms)) == ["sampling, seed 1", "sdpo, seed 1", "sdpo, seed 2"]
