"""Verdicts at any look: nothing is marked, p and interval hold at each, and what cannot be so judged is refused."""

from __future__ import annotations

import json
import math

import pytest

from nsd.plugins.errors import InputError
from nsd.reports import stats
from nsd.reports.judge.answer import Answer, answer
from nsd.reports.judge.anytime import _named
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.looks import look_entries
from nsd.reports.judge.verdict import Verdict
from nsd.reports.stats.anytime import anytime_one_sided_p, anytime_p, fixed_alpha, information_ratio
from nsd.reports.text.answer import answer_json, answer_markdown
from nsd.reports.text.render import render
from toy_answers import AFTER, BEFORE, RESULTS, claim, record
from toy_results import Results, table_runs
from toy_results import refusal as refused

TABLE = (110, 10, 40, 40)  # base .60, tuned .75 of 200 questions
RATIO = information_ratio(math.sqrt((50 / 200 - (30 / 200) ** 2) / 200))


@pytest.fixture
def results() -> Results:
    results = Results()
    table_runs(results, "s/base/seed1", "s/tuned/seed1", *TABLE)
    finish(results)
    return results


def finish(results: Results) -> None:
    results.connection.execute(
        "INSERT INTO stages(digest, kind, ended_at, manifest) SELECT eval_digest, 'eval', ?, '{}' FROM runs "
        "WHERE eval_digest NOT IN (SELECT digest FROM stages)",
        [RESULTS],
    )


def more_seeds(results: Results, seeds: tuple[int, ...]) -> None:
    """The same two conditions trained again, each seed with results of its own."""
    for seed in seeds:
        results.add(f"s/base/seed{seed}", [1.0] * (118 + seed) + [0.0] * (82 - seed))
        results.add(f"s/tuned/seed{seed}", [1.0] * (146 + 2 * seed) + [0.0] * (54 - 2 * seed))
    finish(results)


def look(results: Results) -> None:
    """Look once, as `nsd compare` does, and remember it."""
    for one in look_entries(answer(results.connection, "s").comparisons()):
        entry = one.to_json()
        evidence = json.dumps({"evidence": entry["evidence"], "train": entry["train"]})
        results.connection.execute(
            "INSERT INTO looks(looked_at, experiment, a, b, metric, evidence, n, p, verdict, command) "
            "VALUES (?,'s',?,?,?,?,?,?,?,'compare')",
            [AFTER, entry["a"], entry["b"], entry["metric"], evidence, entry["n"], entry["p"], entry["verdict"]],
        )


def judged(results: Results, *claims: dict[str, object], **rules: object) -> Answer:
    record(results, BEFORE, list(claims) or [claim("tuned", "base")], looks="any", **rules)
    return answer(results.connection, "s")


# --------------------------------------------------------------------------- what is said


def test_an_unplanned_look_at_grown_data_marks_nothing(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")], looks="any")
    look(results)
    more_seeds(results, (2, 3))
    (verdict,) = answer(results.connection, "s").verdicts
    assert verdict.mark == "" and verdict.about == "this recipe (3 training seeds)"


def test_the_p_of_a_claim_is_the_anytime_valid_p_of_its_test(results: Results) -> None:
    (verdict,) = judged(results).verdicts
    assert verdict.comparison is not None and verdict.holds
    assert verdict.comparison.p == pytest.approx(anytime_p(float(stats.mcnemar(10, 40).p or 0), RATIO))
    assert verdict.comparison.p_adjusted == verdict.comparison.p


def test_the_interval_is_that_of_the_table_at_the_level_of_any_look(results: Results) -> None:
    (found,) = compare_runs(results.connection, ["s/base", "s/tuned"], looks="any", alpha=0.01)
    wanted = stats.newcombe_paired(*TABLE, level=1 - fixed_alpha(0.01, RATIO))
    assert wanted is not None and found.ci == pytest.approx((wanted.low, wanted.high))
    assert (found.level, found.interval) == (pytest.approx(0.99), "Newcombe paired, any look")


def test_what_a_single_look_decides_may_stay_open_at_any_look() -> None:
    results = Results()
    table_runs(results, "a", "b", 150, 10, 24, 16)
    (once,) = compare_runs(results.connection, ["a", "b"])
    (ever,) = compare_runs(results.connection, ["a", "b"], looks="any")
    assert (once.verdict, ever.verdict) == (Verdict.BETTER, Verdict.UNRESOLVED)


def test_holm_corrects_the_anytime_valid_p_of_the_family(results: Results) -> None:
    results.add("s/third/seed1", [1.0] * 115 + [0.0] * 5 + [1.0] * 15 + [0.0] * 65)
    finish(results)
    found = judged(results, claim("tuned", "base"), claim("third", "base")).verdicts
    p = [one.comparison.p for one in found if one.comparison is not None]
    assert [one.comparison.p_adjusted for one in found if one.comparison is not None] == stats.adjust(p, "holm")
    assert p[1] == pytest.approx(1.0) or p[1] > float(stats.mcnemar(5, 15).p or 0)


def test_a_claim_within_a_margin_is_judged_by_the_one_sided_mixture(results: Results) -> None:
    (verdict,) = judged(results, claim("tuned", "base", "not_worse_by", 0.02)).verdicts
    once = stats.margin_test_paired(10, 40, 200, 0.02, both_sides=False)
    assert verdict.comparison is not None and once.p is not None
    assert verdict.comparison.p == pytest.approx(anytime_one_sided_p(once.p, RATIO))
    assert verdict.verdict is Verdict.NOT_WORSE and verdict.comparison.level == pytest.approx(0.9)


def test_what_this_look_can_find_is_less_than_a_single_one_could(results: Results) -> None:
    (once,) = compare_runs(results.connection, ["s/base", "s/tuned"])
    (ever,) = compare_runs(results.connection, ["s/base", "s/tuned"], looks="any")
    assert once.detectable is not None and ever.detectable is not None
    model = stats.PairedShares(200, 50 / 200)
    assert ever.detectable == pytest.approx(stats.detectable(model, fixed_alpha(0.05, RATIO), 0.8))
    assert ever.detectable > 1.2 * once.detectable


def test_pairs_that_no_claim_names_are_judged_as_before(results: Results) -> None:
    results.add("s/third/seed1", [1.0] * 115 + [0.0] * 5 + [1.0] * 15 + [0.0] * 65)
    finish(results)
    assert {one.test for one in judged(results).exploratory} == {"McNemar mid-p"}


def test_identical_answers_show_nothing_and_stay_possible(results: Results) -> None:
    results = Results()
    results.add("a", [1.0, 0.0] * 20)
    results.add("b", [1.0, 0.0] * 20)
    (found,) = compare_runs(results.connection, ["a", "b"], looks="any")
    assert found.p == 1.0 and found.verdict is Verdict.UNRESOLVED
    assert found.ci is not None and found.ci[0] < 0 < found.ci[1]


# --------------------------------------------------------------------------- who says it


def test_the_headline_names_the_method(results: Results) -> None:
    assert "(family of 1, valid at any look)" in judged(results).headline()


def test_json_and_markdown_name_the_method(results: Results) -> None:
    found = judged(results)
    data = json.loads(answer_json(found))
    assert data["looks"] == "any" and data["comparisons"][0]["test"] == "McNemar mid-p, any look"
    assert "McNemar mid-p, any look" in answer_markdown(found)


def test_the_price_in_width_is_told(results: Results) -> None:
    # r = .01 / (.2275 / 200) = 8.79; z^2 = (1 + 1/r) (log(1 + r) + 2 log 20) = 9.21; 3.035 / 1.960 = 1.55
    (verdict,) = judged(results).verdicts
    assert (
        "valid at any look (normal mixture): the interval is about 1.5 times as wide as for one look alone"
        in verdict.note
    )


def test_the_table_on_the_screen_names_the_method(results: Results) -> None:
    from io import StringIO

    from rich.console import Console

    screen = Console(file=StringIO(), width=80)
    render(compare_runs(results.connection, ["s/base", "s/tuned"], looks="any"), "table", screen)
    assert isinstance(screen.file, StringIO) and "any look" in screen.file.getvalue()


# --------------------------------------------------------------------------- what is refused


def refusal(results: Results, *runs: str, **asked: object) -> str:
    return refused(results, *runs, looks="any", **asked)


def test_counts_are_refused() -> None:
    results = Results()
    results.add_counts("paper", 70, 100)
    results.add_counts("ours", 80, 100)
    assert refusal(results, "paper", "ours") == (
        "paper and ours cannot be judged at any look: only counts are known, and counts do not say how they grew: "
        "import the values of each question, or judge once"
    )


def test_questions_in_groups_are_judged_by_the_standard_error_of_their_groups(results: Results) -> None:
    groups = {f"q{i}": str(i % 20) for i in range(200)}
    (once,) = compare_runs(results.connection, ["s/base", "s/tuned"], groups=groups)
    (ever,) = compare_runs(results.connection, ["s/base", "s/tuned"], groups=groups, looks="any")
    differences = [0.0] * 110 + [-1.0] * 10 + [1.0] * 40 + [0.0] * 40
    error = stats.cluster_t(differences, [i % 20 for i in range(200)]).standard_error
    assert once.p is not None and error is not None
    assert ever.p == pytest.approx(anytime_p(once.p, information_ratio(error)))


def test_two_training_seeds_are_too_few_for_a_recipe(results: Results) -> None:
    more_seeds(results, (2,))
    assert refusal(results, "s/base", "s/tuned") == (
        "s/base and s/tuned cannot be judged at any look: 2 training seeds are too few (at least 3): add some to the "
        "spec, or ask about these checkpoints (--claim checkpoint)"
    )


def test_a_metric_without_a_largest_value_is_refused(results: Results) -> None:
    assert refusal(results, "s/base", "s/tuned", metric="tokens") == (
        "s/base and s/tuned cannot be judged at any look: tokens have no largest value, so no effect to look for can "
        "be named beforehand: judge them once"
    )


def test_a_number_of_looks_is_the_business_of_a_spec(results: Results) -> None:
    with pytest.raises(InputError) as caught:
        compare_runs(results.connection, ["s/base", "s/tuned"], looks="3")
    assert str(caught.value) == "looks '3': only 'any' can be asked for here; a spec plans a number of them"


def test_a_claim_that_cannot_be_so_judged_stays_open_and_keeps_its_place(results: Results) -> None:
    more_seeds(results, (2,))
    found = judged(results, claim("tuned", "base"), claim("nowhere", "base"))
    assert found.verdicts[0].verdict is Verdict.UNRESOLVED and found.primary_family == 2
    assert found.verdicts[0].note.startswith("no verdict at any look: 2 training seeds are too few")


def test_without_a_shared_question_nothing_is_tested_at_any_look() -> None:
    results = Results()
    results.add("a", {"q0": 1.0})
    results.add("b", {"q1": 1.0})
    results.add("c", {"q0": 0.0})
    pairs = compare_runs(results.connection, ["a", "b", "c"], looks="any")
    (found,) = [one for one in pairs if {one.a, one.b} == {"a", "b"}]
    assert (found.p, found.ci, found.test) == (None, None, "none")


@pytest.mark.parametrize("bounded", [True, False])
def test_a_look_without_an_end_on_one_side_has_an_interval_only_where_differences_have_bounds(bounded: bool) -> None:
    interval = stats.Interval(-math.inf, 0.3, 0.95, "t")
    found = _named(stats.Result("t", None, 0.2, 0.1, interval), 0.4, 0.9, "look", bounded)
    expected = stats.Interval(-1.0, 0.3, 0.9, "t, any look") if bounded else None
    assert found == stats.Result("t, any look", None, 0.4, 0.1, expected, note="look")
