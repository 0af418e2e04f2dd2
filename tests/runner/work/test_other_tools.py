"""Files of lm-evaluation-harness, inspect and openai/evals: what is read of them, and that nsd measures the same."""

from __future__ import annotations

import json
import os
import random
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from nsd.plugins.api import question_id
from nsd.plugins.errors import InputError
from nsd.runner.cli.app import app
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.imports.formats import Fields, read_format
from nsd.runner.work.imports.inspect_logs import read_inspect
from nsd.runner.work.imports.reading import read_import
from nsd.runner.work.imports.run import ImportedRun

FILES = Path(__file__).parent / "other_tools"
LM_EVAL, DRAWN = FILES / "samples_words.jsonl", FILES / "samples_words_sampled.jsonl"
EVAL, LOG, EPOCHS = FILES / "inspect_words.eval", FILES / "inspect_words.json", FILES / "inspect_epochs.eval"
OPENAI = FILES / "openai_evals.jsonl"
STRICT = {"filter": ["strict-match"]}


def one(path: Path, **options: Any) -> ImportedRun:
    (run,) = read_import(path, name="run", **options)
    return run


def sample(number: int, epoch: int = 1, **others: Any) -> dict[str, Any]:
    """A sample of an inspect log."""
    scores = {"match": {"value": "C"}}
    output = {"completion": "4", "choices": [{"stop_reason": "stop"}]}
    return {
        "id": number,
        "epoch": epoch,
        "input": f"q{number}",
        "target": "4",
        "scores": scores,
        "output": output,
    } | others


def log(folder: Path, *samples: Any, status: str = "success", **about: Any) -> Path:
    """An inspect log as JSON."""
    path = folder / "log.json"
    path.write_text(json.dumps({"version": 2, "status": status, "eval": about, "samples": samples}, indent=1))
    return path


def events(folder: Path, *found: tuple[str, str, dict[str, Any]]) -> Path:
    """A log of openai/evals with these (sample id, type, data)."""
    path = folder / "log.jsonl"
    lines: list[dict[str, Any]] = [{"spec": {"run_id": "r", "eval_name": "e"}}]
    for number, (identifier, kind, data) in enumerate(found):
        lines.append({"run_id": "r", "event_id": number, "sample_id": identifier, "type": kind, "data": data})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


# --------------------------------------------------------------------------- the same numbers as nsd's own

SPEC = """
name: own
model: builtin:wordmath-1m
data: {use: jsonl, train: train.jsonl, test: test.jsonl}
prompt: {template: "{question}\\n"}
verifier: numeric
engine: hf
resources: {device: cpu}
eval: {use: accuracy, temperature: 0, max_tokens: 64}
conditions: {base: {train_on: []}}
seeds: [1]
"""


@pytest.mark.slow
def test_every_question_has_the_value_that_nsd_itself_measures(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_bytes((FILES / "questions.jsonl").read_bytes())
    (tmp_path / "train.jsonl").write_text('{"question": "What is 1 + 1?", "answer": "2"}\n')
    (tmp_path / "spec.yaml").write_text(SPEC)
    ran = CliRunner().invoke(app, ["run", str(tmp_path / "spec.yaml"), "-w", str(tmp_path / "ws")])
    assert ran.exit_code == 0, ran.output
    (manifest,) = Workspace(tmp_path / "ws").manifests("score")
    own = {row["question_id"]: row["value"] for row in tables.read(manifest.folder / "values.parquet")}
    ways = [
        one(LM_EVAL, id_field="doc.question", id_is_text=True, where=STRICT),
        one(LM_EVAL, id_field="doc.question", id_is_text=True, where={"filter": ["flexible-extract"]}),
        one(LM_EVAL, id_field="doc.question", id_is_text=True, where=STRICT, verifier="numeric"),
        one(EVAL, id_field="input", id_is_text=True, score="match"),
        one(EVAL, id_field="input", id_is_text=True, score="pattern"),
        one(EVAL, id_field="input", id_is_text=True, verifier="numeric"),
        one(OPENAI, id_field="prompt", id_is_text=True),
    ]
    assert [dict(way.values) for way in ways] == [own] * len(ways) and sum(own.values()) == 18


def test_what_nsd_reads_anew_has_the_hash_of_its_own_verifier() -> None:
    from nsd.plugins.registry import find
    from nsd.runner.plan.keys import plugin_key
    from nsd.runner.spec.digest import digest_config
    from nsd.runner.store.workspace import digest_of

    numeric = find("verifier", "numeric")()
    wanted = digest_of(plugin_key(numeric, digest_config(numeric.config), "verifier", "numeric"))
    assert one(LM_EVAL, where=STRICT, verifier="numeric").metadata["verifier_hash"] == wanted


@pytest.mark.slow
@pytest.mark.skipif("NSD_TOOLS_PYTHON" not in os.environ, reason="NSD_TOOLS_PYTHON names no Python with these tools")
def test_files_made_anew_say_the_same(tmp_path: Path) -> None:
    command = [os.environ["NSD_TOOLS_PYTHON"], str(FILES / "make.py"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=1700)
    for name, options in ((LM_EVAL, {"where": STRICT}), (EVAL, {"score": "match"}), (OPENAI, {})):
        assert one(tmp_path / name.name, **options).values == one(name, **options).values
    assert len(one(tmp_path / EPOCHS.name, score="graded").samples) == 36


# --------------------------------------------------------------------------- lm-evaluation-harness


def test_several_filters_are_never_mixed() -> None:
    with pytest.raises(InputError) as error:
        one(LM_EVAL)
    assert str(error.value) == (
        f"{LM_EVAL} holds the same answers as several filters read them: strict-match (40 lines), flexible-extract "
        "(40 lines). Choose one: --where filter=strict-match"
    )


def test_a_filter_is_not_mixed_where_the_fields_are_given_by_hand() -> None:
    with pytest.raises(InputError, match="several filters"):
        one(LM_EVAL, id_field="doc_id", correct="exact_match")


def test_one_filter_gives_one_value_a_question() -> None:
    run = one(LM_EVAL, where=STRICT)
    assert run.describe() == "run: 0.4500 on 40 questions, exact_match of lm-eval, 40 lines left out by --where"
    assert (run.pairing, len(run.texts), run.eval_info()["samples"]) == ("hashed:64", 40, 1)


def test_each_filter_of_drawn_answers_has_its_own_verdicts() -> None:
    values = [dict(one(DRAWN, where={"filter": [name]}).values) for name in ("first", "maj@3")]
    lines = [json.loads(line) for line in DRAWN.read_text().splitlines()]
    for found, name in zip(values, ("first", "maj@3"), strict=True):
        assert found == {str(row["doc_id"]): row["exact_match"] for row in lines if row["filter"] == name}


def test_all_drawn_answers_are_judged_before_any_filter() -> None:
    run = one(DRAWN, where={"filter": ["first"]}, verifier="numeric")
    row = json.loads(DRAWN.read_text().splitlines()[3])
    right = [text.rpartition("#### ")[2] == row["target"] for text in row["resps"][0]]
    assert run.eval_info()["samples"] == 3 and dict(run.values)["3"] == sum(right) / 3


def harness(folder: Path, *rows: dict[str, Any]) -> Path:
    """A file of lm-eval with these differences from a plain line."""
    path = folder / "samples.jsonl"
    plain = {"doc_id": 0, "doc": {}, "target": "4", "resps": [["4"]], "filter": "none", "metrics": ["exact_match"]}
    plain |= {"exact_match": 1.0}
    path.write_text("".join(json.dumps(plain | row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("options", [{}, {"verifier": "numeric"}])
def test_two_files_in_one_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """Two models under the same doc_id and filter, with nothing to tell them by."""
    path = harness(tmp_path, {}, {"doc_id": 1}, {"exact_match": 0.0}, {"doc_id": 1})
    with pytest.raises(InputError, match=r"samples\.jsonl:3: doc_id 0 stands here and on line 1, and no field tells"):
        one(path, **options)
    assert one(path, samples=2, **options).eval_info()["samples"] == 2


def test_an_array_of_lm_eval_is_known_too(tmp_path: Path) -> None:
    path = harness(tmp_path, {}, {"exact_match": 0.0})
    path.write_text(json.dumps([json.loads(line) for line in path.read_text().splitlines()]))
    with pytest.raises(InputError, match=r"item 2: doc_id 0 stands here and on item 1"):
        one(path, id_field="doc_id", correct="exact_match")


def test_two_models_in_a_nested_field_are_named(tmp_path: Path) -> None:
    path = harness(tmp_path, *({"doc_id": i, "meta": {"model": m}} for m in "ab" for i in range(3)))
    with pytest.raises(InputError, match=r"differ in 'meta\.model' \(a, b\)"):
        one(path)
    assert one(path, where={"meta.model": ["b"]}).eval_info()["samples"] == 1


@pytest.mark.parametrize("options", [{}, {"score": "f1"}, {"correct": "f1"}])
def test_gold_and_prediction_are_no_samples(tmp_path: Path, options: dict[str, Any]) -> None:
    """lm-eval keeps the pair of which it makes an f1 of the whole file."""
    with pytest.raises(
        InputError, match=r"samples\.jsonl:1: the metric 'f1' is a list, of which lm-eval makes one number"
    ):
        one(harness(tmp_path, {"metrics": ["f1"], "f1": [1, 0]}), **options)


def test_of_a_metric_and_a_pair_the_metric_is_taken(tmp_path: Path) -> None:
    assert one(harness(tmp_path, {"metrics": ["acc", "f1"], "acc": 1.0, "f1": [1, 0]})).metadata["field"] == "acc"


def test_a_target_that_is_a_solution_states_its_answer(tmp_path: Path) -> None:
    """gsm8k's targets are worked solutions."""
    run = one(harness(tmp_path, {"target": "2 + 2 = <<2+2=4>>4\n#### 4", "exact_match": 0.0}), verifier="numeric")
    assert run.values == [("0", 1.0)]


def test_several_metrics_ask_for_one(tmp_path: Path) -> None:
    row = {"doc_id": 0, "resps": [], "metrics": ["acc", "acc_norm"], "acc": 1.0, "acc_norm": 0.0}
    (path := tmp_path / "samples_x.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=r"several metrics: acc, acc_norm\. Choose the one to import: --score acc$"):
        one(path)
    assert one(path, score="acc_norm").values == [("0", 0.0)]


def test_a_metric_that_is_no_number_is_wrong_and_counted(tmp_path: Path) -> None:
    rows = [{"doc_id": i, "resps": [], "metrics": ["f1"], "f1": f1} for i, f1 in enumerate([0.25, float("nan"), None])]
    (path := tmp_path / "samples_x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = one(path)
    assert run.values == [("0", 0.25), ("1", 0.0), ("2", 0.0)] and run.metadata["missing_answers"] == 2
    assert run.eval_info()["metric"] == "score"


# --------------------------------------------------------------------------- inspect


def test_a_zip_of_zstd_and_json_hold_the_same() -> None:
    of_zip, of_json = dict(one(EVAL, score="match").values), dict(one(LOG, score="match").values)
    assert len(of_json) == 12 and of_json.items() <= of_zip.items()


def test_several_scorers_ask_for_one() -> None:
    with pytest.raises(InputError) as error:
        one(EPOCHS)
    assert str(error.value) == (
        f"{EPOCHS} has several scores: graded, parts.right, parts.formed. Choose one: --score graded"
    )


def test_a_score_that_is_not_there_gets_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no score 'parts\.rigth'; did you mean 'parts\.right'"):
        one(EPOCHS, score="parts.rigth")


def test_epochs_are_samples_and_their_mean_is_what_inspect_says() -> None:
    run = one(EPOCHS, score="graded")
    with zipfile.ZipFile(EPOCHS) as archive:
        assert {info.compress_type for info in archive.infolist()} == {93}
    assert {question: sum(s["question_id"] == question for s in run.samples) for question, _ in run.values} == (
        dict.fromkeys([f"w{i:02}" for i in range(12)], 3)
    )
    assert run.eval_info()["mean"] == pytest.approx(17.5 / 36)


def test_a_value_of_a_scorer_of_several_is_taken_by_its_name() -> None:
    right, formed = one(EPOCHS, score="parts.right"), one(EPOCHS, score="parts.formed")
    assert right.eval_info()["metric"] == "accuracy" and right.eval_info()["mean"] == pytest.approx(16 / 36)
    assert all(value >= 0.5 for _, value in formed.values)


@pytest.mark.parametrize(
    ("value", "score", "missing"),
    [("C", 1.0, 0), ("I", 0.0, 0), ("P", 0.5, 0), ("N", 0.0, 1), (True, 1.0, 0), (0.25, 0.25, 0)],
)
def test_letters_and_numbers_are_scores(tmp_path: Path, value: Any, score: float, missing: int) -> None:
    run = one(log(tmp_path, sample(1, scores={"match": {"value": value}})))
    assert run.values == [("1", score)] and run.metadata["missing_answers"] == missing


def test_a_failed_sample_is_wrong_and_said_to_have_failed(tmp_path: Path) -> None:
    run = one(log(tmp_path, sample(1), sample(2), sample(3, error={"message": "no"}, scores=None)))
    assert dict(run.values)["3"] == 0.0 and run.metadata["failed_completions"] == 1


def test_a_log_that_was_broken_off_says_what_it_lacks(tmp_path: Path) -> None:
    run = one(log(tmp_path, sample(1), status="cancelled", dataset={"sample_ids": [1, 2, 3]}))
    assert run.metadata["absent_questions"] == 2 and "INCOMPLETE: 2 questions" in run.describe()


def test_questions_stand_in_the_order_of_the_dataset_in_whichever_they_ended(tmp_path: Path) -> None:
    run = one(log(tmp_path, sample(3), sample(1), sample(2), dataset={"sample_ids": [1, 2, 3]}))
    assert [question for question, _ in run.values] == ["1", "2", "3"]


def test_a_log_without_samples_says_its_status(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no samples .*its status is error"):
        one(log(tmp_path, status="error"))


def test_a_zip_that_was_cut_off_is_named(tmp_path: Path) -> None:
    (path := tmp_path / "cut.eval").write_bytes(EVAL.read_bytes()[:50_000])
    with pytest.raises(InputError, match=r"cut\.eval: not a whole zip file .*still being written"):
        one(path)


def test_a_zip_of_something_else_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.eval", "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(InputError, match=r"x\.eval: a zip file, and no log of inspect"):
        one(tmp_path / "x.eval")


def test_a_zip_as_older_inspects_wrote_it_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "old.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps({"version": 2, "status": "success", "eval": {}}))
        archive.writestr("samples/1_epoch_1.json", json.dumps(sample(1)))
    assert one(tmp_path / "old.eval").values == [("1", 1.0)]


def test_a_prompt_of_messages_is_their_texts(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Why?"}]},
    ]
    table = read_inspect(log(tmp_path, sample(1, input=messages))).table
    assert table.head["input"] == "Be brief.\nWhy?"


def test_a_log_that_did_not_end_well_is_called_unfinished(tmp_path: Path) -> None:
    run = one(log(tmp_path, sample(1), sample(2, invalidation={"author": "me"}), status="cancelled"))
    assert "UNFINISHED: the log's status is 'cancelled', 1 samples are marked invalid in the log" in run.describe()


@pytest.mark.parametrize(("stated", "said"), [(0.5, False), (0.75, True)])
def test_a_mean_that_the_tool_states_otherwise_is_told(tmp_path: Path, stated: float, said: bool) -> None:
    path = log(tmp_path, sample(1), sample(2, scores={"match": {"value": "I"}}))
    whole = json.loads(path.read_text())
    score = {"name": "match", "scorer": "match", "reducer": None, "metrics": {"accuracy": {"value": stated}}}
    path.write_text(json.dumps(whole | {"results": {"scores": [score]}}, indent=1))
    assert ("inspect itself states 0.7500" in one(path).describe()) is said


def test_what_the_real_files_state_is_what_is_imported() -> None:
    """The mean in a file's own report, where it has one, is the mean of the run: nothing is said."""
    for path, score in ((EVAL, "match"), (LOG, "pattern"), (EPOCHS, "graded"), (EPOCHS, "parts.right")):
        found = read_format(path, None, Fields(score=score), {})
        assert found.stated is not None and "itself states" not in one(path, score=score).describe()
    assert read_format(OPENAI, None, Fields(), {}).stated == 0.45


# --------------------------------------------------------------------------- openai/evals


def test_a_graders_text_is_not_judged_in_place_of_the_answer(tmp_path: Path) -> None:
    calls = [
        ("a", "sampling", {"prompt": prompt, "sampled": [text]}) for prompt, text in (("q", "4"), ("4?", "yes, 5"))
    ]
    path = events(tmp_path, *calls, ("a", "match", {"correct": True, "expected": "5"}))
    with pytest.raises(InputError, match=r"log\.jsonl:4: 2 texts were drawn for one verdict"):
        one(path, verifier="numeric")
    run = one(path)
    assert run.values == [("a", 1.0)] and run.texts == {"a": question_id("q")}


def test_a_metric_with_two_values_for_a_sample_is_refused(tmp_path: Path) -> None:
    path = events(tmp_path, ("a", "metrics", {"f1": 0.5, "em": 1}), ("a", "metrics", {"f1": 1.0, "em": 1}))
    with pytest.raises(InputError, match=r"sample 'a' has the metric 'f1' twice, with two values"):
        one(path, score="f1")
    assert one(path, score="em").values == [("a", 1.0)]


def test_a_report_that_says_otherwise_is_told(tmp_path: Path) -> None:
    path = events(tmp_path, ("a", "match", {"correct": True}), ("b", "match", {"correct": False}))
    with path.open("a") as file:
        file.write('{"final_report": {"accuracy": 1.0}}\n')
    assert "openai-evals itself states 1.0000" in one(path).describe()


def test_mixed_events_become_one_verdict_a_sample() -> None:
    run = one(OPENAI)
    assert run.describe() == "run: 0.4500 on 40 questions, correct of openai-evals"
    assert run.pairing == "checked" and len(run.samples) == 40


def test_metrics_are_taken_by_their_name(tmp_path: Path) -> None:
    path = events(tmp_path, ("a", "metrics", {"f1": 0.5, "em": 0}), ("b", "metrics", {"f1": 1, "em": 1}))
    assert one(path, score="f1").values == [("a", 0.5), ("b", 1.0)]
    with pytest.raises(InputError, match=r"no event `match` and several metrics: f1, em\. Choose one: --score f1"):
        one(path)


def test_a_sample_that_was_drawn_and_not_judged_is_wrong_and_counted(tmp_path: Path) -> None:
    drawn = {"prompt": "q", "sampled": ["4"]}
    run = one(
        events(tmp_path, ("a", "match", {"correct": True}), ("b", "sampling", drawn), ("a", "sampling", drawn)),
        text="sample_id",
    )
    assert run.values == [("a", 1.0), ("b", 0.0)] and run.metadata["missing_answers"] == 1


def test_a_sample_that_raised_has_failed(tmp_path: Path) -> None:
    right = [(name, "match", {"correct": True}) for name in "abc"]
    run = one(events(tmp_path, *right, ("d", "error", {"type": "ValueError", "message": "x"})))
    assert run.metadata["failed_completions"] == 1 and dict(run.values)["d"] == 0.0


def test_a_log_without_a_verdict_says_how_to_judge_it(tmp_path: Path) -> None:
    path = events(tmp_path, ("a", "sampling", {"prompt": "q", "sampled": ["4"]}))
    with pytest.raises(InputError, match="judge what was sampled by --gold FIELD and --verifier NAME"):
        one(path)


def test_a_log_without_samples_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no event of a sample \(match, metrics, sampling\)"):
        one(events(tmp_path))


# --------------------------------------------------------------------------- hostile files

KEYS = ["doc_id", "resps", "metrics", "filter", "id", "epoch", "scores", "output", "choices", "sample_id", "type"]
KEYS += ["data", "correct", "prompt", "match", "value", "eval", "samples", "dataset", "sample_ids", "input", "content"]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(["C", "match", "sampling", "", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=20,
)
ROW = st.dictionaries(st.sampled_from(KEYS), ANY_JSON, max_size=8)
HYPOTHESIS = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def imported_or_refused(path: Path, **options: Any) -> None:
    try:
        runs = read_import(path, name="run", **options)
    except InputError as error:
        assert str(path) in str(error)
        return
    assert all(0 <= value <= 1 for run in runs for _, value in run.values)


@pytest.mark.slow
@HYPOTHESIS
@given(st.lists(ROW, min_size=1, max_size=4), st.sampled_from(["lm-eval", "openai-evals"]), st.booleans())
def test_any_lines_are_imported_or_refused_in_words(tmp_path: Path, rows: list[Any], source: str, judge: bool) -> None:
    (path := tmp_path / "any.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    imported_or_refused(path, source=source, **({"verifier": "numeric"} if judge else {}))


@pytest.mark.slow
@HYPOTHESIS
@given(st.lists(ROW | st.builds(lambda row: sample(1) | row, ROW), max_size=3), ANY_JSON, st.booleans())
def test_any_log_is_imported_or_refused_in_words(tmp_path: Path, rows: list[Any], about: Any, judge: bool) -> None:
    (path := tmp_path / "any.json").write_text(json.dumps({"eval": about, "samples": rows}))
    imported_or_refused(path, source="inspect", **({"verifier": "numeric"} if judge else {"score": "match"}))


@pytest.mark.slow
def test_a_damaged_zip_is_refused_in_words_wherever_it_is_damaged(tmp_path: Path) -> None:
    whole, draw = EVAL.read_bytes(), random.Random(5)
    values = one(EVAL, score="match").values
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[draw.randrange(4, len(whole))] ^= 1 << draw.randrange(8)
        (path := tmp_path / "damaged.eval").write_bytes(damaged)
        try:
            run = one(path, score="match")
            # A part that is not read, or the name of a sample, which is then said to lack.
            assert run.values == values or "INCOMPLETE: 1 questions" in run.describe()
        except InputError as error:
            assert str(path) in str(error)


def test_a_first_line_of_any_length_tells_the_tool(tmp_path: Path) -> None:
    row = {"prompt": "x" * 100_000, "doc_id": 0, "resps": [], "metrics": ["acc"], "acc": 1}
    (path := tmp_path / "samples_x.jsonl").write_text(json.dumps(row) + "\n")
    assert one(path).metadata["format"] == "lm-eval"


# --------------------------------------------------------------------------- which tool


def test_an_unknown_tool_gets_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"no format 'lmeval': one of lm-eval, inspect, openai-evals; did you mean 'lm-eval'"
    ):
        one(LM_EVAL, source="lmeval")


def test_a_plain_file_is_not_taken_for_a_tools(tmp_path: Path) -> None:
    (path := tmp_path / "x.jsonl").write_text('{"id": 1, "ok": 1, "eval": "x", "status": "y", "version": 1}\n')
    assert "format" not in one(path, id_field="id", correct="ok").metadata


def test_the_text_of_a_question_makes_its_id() -> None:
    first = json.loads((FILES / "questions.jsonl").read_text().splitlines()[0])["question"]
    run = one(LM_EVAL, where=STRICT, id_field="doc.question", id_is_text=True)
    assert run.values[0] == (question_id(first), 0.0) and run.pairing == "text" and not run.texts


def test_two_runs_in_one_log_are_told_apart(tmp_path: Path) -> None:
    found = events(tmp_path, ("s.1", "match", {"correct": True}), ("s.2", "match", {"correct": False}))
    both = tmp_path / "both.jsonl"
    other = [json.loads(line) | {"run_id": "other"} for line in found.read_text().splitlines()]
    both.write_text(found.read_text() + "".join(json.dumps(row) + "\n" for row in other))
    with pytest.raises(InputError, match="differ in 'run_id'"):
        one(both)
    assert dict(one(both, where={"run_id": ["other"]}).values) == {"s.1": 1.0, "s.2": 0.0}


def test_a_sample_without_the_score_that_is_chosen_is_wrong_and_counted(tmp_path: Path) -> None:
    other = {"scores": {"elsewhere": {"value": "C"}}}
    path = log(tmp_path, sample(1), sample(2, **other), sample(1, 2), sample(2, 2))
    found = one(path, score="match")
    assert dict(found.values) == {"1": 1.0, "2": 0.5} and found.metadata["missing_answers"] == 1


@pytest.mark.parametrize("choices", [["x"], [None], [3]])
def test_choices_of_another_shape_say_nothing_of_the_end(tmp_path: Path, choices: list[Any]) -> None:
    path = log(tmp_path, sample(1, output={"choices": choices, "completion": "18"}))
    assert dict(one(path, score="match").values) == {"1": 1.0}


@pytest.mark.parametrize(("about", "said"), [({"epoch": "9" * 5000}, "epoch"), ({"epoch": 10**20}, "epoch")])
def test_a_number_beyond_every_sample_is_refused(tmp_path: Path, about: dict[str, Any], said: str) -> None:
    path = log(tmp_path, sample(1) | about)
    with pytest.raises(InputError, match=said):
        one(path, score="match")
