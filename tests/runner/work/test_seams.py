"""What every kind of plugin is really given, from a spec through plan, executor and worker.

One spec with spies (spies.py) at every seam; the truth of unlabeled and test questions holds the word HIDDEN.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import spies
from nsd.plugins.api import question_id
from nsd.plugins.seeds import stream
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import Outcome, execute
from nsd.runner.work.nodes import training_command

SPEC = """\
name: seams
model: {path: FOLDER/model, dtype: float32, train_dtype: bfloat16,
  lora: {rank: 3, alpha: 5, targets: [q_proj], dropout: 0.25}}
data: {use: jsonl, train: FOLDER/labeled.jsonl, unlabeled: FOLDER/unlabeled.jsonl, test: FOLDER/test.jsonl,
  fields: {question: q, answer: a, solution: s, context: c, id: i},
  split: {labeled: 2, unlabeled: 5, test: 3, seed: 7}}
prompt: {template: "Ask: {question} {x}!", chat: true, system: "Be brief.", separator: "~"}
verifier: {use: "./spies.py:SpyVerifier", mark: here}
engine: {use: "./spies.py:SpyEngine", tone: 4}
labeler: {use: "./spies.py:SpyLabeler", k: 3, temperature: 0.7, top_p: 0.9, top_k: 11, max_tokens: 12, threshold: 0.6,
  target: shortest}
trainer: {use: "./spies.py:SpyTrainer", epochs: 2}
eval: {use: "./spies.py:SpyProtocol", k: 2, temperature: 0.3, top_p: 0.8, top_k: 5, max_tokens: 9}
match: {by: steps}
seeds: [5]
track: [tensorboard]
conditions:
  base: {train_on: []}
  teacher: {train_on: [labeled]}
  student: {train_on: [pseudo, labeled], label_with: teacher, init: teacher, rounds: 2}
  oracle: {train_on: [labeled, unlabeled], prompt: {chat: false, system: null}}
"""
# Of each unlabeled question: its samples. True answers are 10 to 14.
TEXTS = {
    "unlabeled 0": ["a long way to #### 10", "so #### 10", "#### 99"],
    "unlabeled 1": ["#### 55", "it is #### 55.0", "#### 55"],
    "unlabeled 2": ["#### 1", "#### 2", "#### 12"],
    "unlabeled 3": ["none", "no", "nothing"],
    "unlabeled 4": ["FAILED #### 14", "then #### 8", "and so #### 8"],
    "test 0": ["#### 20", "#### 20"],
    "test 1": ["#### 21", "#### 0"],
    "test 2": ["FAILED #### 22", "none"],
}
# What the vote keeps at 0.6 of K = 3: two of three agree. The failed sample of question 4 stays in the denominator.
KEPT = {
    "unlabeled 0": ("10", "so #### 10"),
    "unlabeled 1": ("55", "#### 55"),
    "unlabeled 4": ("8", "then #### 8"),
}
SAMPLING = {"n": 3, "temperature": 0.7, "max_tokens": 12, "top_p": 0.9, "top_k": 11, "stop": []}
EVAL = {"n": 2, "temperature": 0.3, "max_tokens": 9, "top_p": 0.8, "top_k": 5, "stop": []}


class Seen:
    """What the spies wrote down, the plan, and the outcomes of the crashed and the second call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text("{}")
        (folder / "model" / "model.safetensors").write_bytes(b"weights")
        shutil.copy(Path(spies.__file__), folder / "spies.py")
        (folder / "texts.json").write_text(json.dumps(TEXTS))
        hidden = "HIDDEN"
        for split, count, first, mark in (("labeled", 2, 0, ""), ("unlabeled", 5, 10, hidden), ("test", 3, 20, hidden)):
            rows = [
                {"q": f"{split} {n}", "a": f"{mark}{first + n}", "s": f"{mark} way #### {first + n}"}
                | {"c": f"{mark} context {n}", "i": f"{mark} id {n}"}
                for n in range(count)
            ]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.plan = self.plan_of(SPEC)
        self.workspace = Workspace(folder / "workspace")
        self.outcomes: list[Outcome] = [execute(self.plan, self.workspace) for _ in range(2)]
        self.notes = self.read()

    def plan_of(self, text: str, **options: Any) -> Plan:
        (self.folder / "seams.yaml").write_text(text.replace("FOLDER", str(self.folder)))
        return build_plan(load_spec(self.folder / "seams.yaml", run_files=True), **options)

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "seen.jsonl").read_text().splitlines()]

    def of(self, seam: str) -> list[dict[str, Any]]:
        return [one for one in self.notes if one["seam"] == seam]

    def trained(self, run: str) -> list[dict[str, Any]]:
        return [one for one in self.of("trainer") if one["run_name"] == f"seams/{run}/seed5"]

    def train_digest(self, run: str) -> str:
        (found,) = [one.train_digest for one in self.plan.runs if one.run == f"seams/{run}/seed5"]
        assert found is not None
        return found

    def adapted(self, run: str) -> dict[str, Any]:
        """The model reference of a trained arm: the spec's model with the stage's adapter."""
        adapter = self.workspace.folder("train", self.train_digest(run)) / "model"
        return {
            "path": str(self.folder / "model"),
            "revision": None,
            "dtype": "float32",
            "adapter": str(adapter),
            "device": None,
            "train_dtype": None,  # to sample; a training has the spec's
        }


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return Seen(tmp_path_factory.mktemp("seams"))


def prompt(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Ask: {text} {{x}}!"}]


@pytest.mark.slow
def test_the_run_came_to_its_end_at_the_second_call(seen: Seen) -> None:
    first, second = seen.outcomes
    assert [failure.reason for failure in first.failures] == ["RuntimeError: the engine broke down"]
    assert second.exit_code == 0, [failure.reason for failure in second.failures]


# --------------------------------------------------------------------------- hidden truth


def test_hidden_truth_reaches_only_who_may_know_it(seen: Seen) -> None:
    allowed = {"verifier"}  # it judges test answers
    for one in seen.notes:
        if one["seam"] == "trainer":
            one = {**one, "examples": [e for e in one["examples"] if e["source"] != "unlabeled"]}
        assert one["seam"] in allowed or "HIDDEN" not in json.dumps(one), one
    (oracle,) = seen.trained("oracle")
    truths = [e["answer"] for e in oracle["examples"] if e["source"] == "unlabeled"]
    assert sorted(truths) == [f"HIDDEN{n}" for n in range(10, 15)], "the oracle is trained on the truth"


def test_the_text_of_a_failed_completion_reaches_nobody(seen: Seen) -> None:
    assert "FAILED" not in json.dumps([one for one in seen.notes if one["seam"] != "engine"])


# --------------------------------------------------------------------------- the engine


def calls(seen: Seen, split: str) -> list[dict[str, Any]]:
    return [one for one in seen.of("engine") if one["requests"][0]["question_id"] in ids(split)]


def ids(split: str) -> list[str]:
    return [question_id(text) for text in TEXTS if text.startswith(split)]


def test_prompts_are_rendered_from_the_question_alone(seen: Seen) -> None:
    for split in ("unlabeled", "test"):
        expected = {question_id(text): prompt(text) for text in TEXTS if text.startswith(split)}
        chats = [one for one in calls(seen, split) if not isinstance(one["requests"][0]["prompt"], str)]
        assert len(chats) == {"unlabeled": 2, "test": 5}[split]
        for one in chats:
            assert {request["question_id"]: request["prompt"] for request in one["requests"]} == expected
    (plain,) = [one for one in calls(seen, "test") if isinstance(one["requests"][0]["prompt"], str)]
    assert {request["prompt"] for request in plain["requests"]} == {f"Ask: test {n} {{x}}!" for n in range(3)}


def test_every_sampling_field_arrives(seen: Seen) -> None:
    assert {json.dumps(one["sampling"]) for one in calls(seen, "unlabeled")} == {json.dumps(SAMPLING)}
    assert {json.dumps(one["sampling"]) for one in calls(seen, "test")} == {json.dumps(EVAL)}
    assert all(one["config"] == {"tone": 4} for one in seen.of("engine"))


def test_each_use_of_an_engine_has_its_own_stream(seen: Seen) -> None:
    assert [one["seed"] for one in calls(seen, "unlabeled")] == [stream(5, "rollout", 1), stream(5, "rollout", 2)]
    assert {one["seed"] for one in calls(seen, "test")} == {stream(5, "eval")}


def test_each_model_is_the_one_that_the_arm_is_about(seen: Seen) -> None:
    base = {**seen.adapted("teacher"), "adapter": None}
    sampled = [one["model"] for one in calls(seen, "unlabeled")]
    assert sampled == [seen.adapted("teacher"), seen.adapted("student@round1")]
    evaluated = [one["model"] for one in calls(seen, "test") if one["done"] == []]
    arms = [seen.adapted(run) for run in ("teacher", "student@round1", "student", "oracle")]
    assert sorted(map(str, evaluated)) == sorted(map(str, [base, *arms]))


def test_a_resumed_call_is_told_what_is_done_and_asked_for_everything(seen: Seen) -> None:
    first, second = (one for one in calls(seen, "test") if one["model"]["adapter"] is None)
    whole = {key: value for key, value in first.items() if key != "done"}
    assert whole == {key: value for key, value in second.items() if key != "done"}
    asked = first["requests"][0]["question_id"]
    failed = asked == question_id("test 2")
    assert (first["done"], second["done"]) == ([], [[asked, n] for n in ((1,) if failed else (0, 1))])
    assert all(one["done"] == [] for one in seen.of("engine") if one != second)


# --------------------------------------------------------------------------- labels


def test_the_labeler_votes_over_all_samples_of_the_bare_questions(seen: Seen) -> None:
    first, second = seen.of("labeler")
    assert (first["seed"], second["seed"]) == (stream(5, "label", 1), stream(5, "label", 2))
    for one in (first, second):
        assert {q["id"]: q["text"] for q in one["questions"]} == {question_id(t): t for t in TEXTS if t[0] == "u"}
        assert all(q["answer"] is q["solution"] is q["context"] is None and q["meta"] == {} for q in one["questions"])
        for text, texts in TEXTS.items():
            if text.startswith("unlabeled"):
                drawn = one["samples"][question_id(text)]
                assert [(d["sample"], d["text"]) for d in drawn] == [
                    (n, "" if said.startswith("FAILED") else said) for n, said in enumerate(texts)
                ]
        assert (one["config"]["k"], one["config"]["threshold"], one["config"]["target"]) == (3, 0.6, "shortest")
        assert one["verifier"] == {"mark": "here"}


def test_what_is_stored_of_a_vote(seen: Seen) -> None:
    digest = next(run.label_digest for run in seen.plan.runs if run.condition == "student")
    assert digest is not None
    rows = {row["question_id"]: row for row in tables.read(seen.workspace.folder("label", digest) / "labels.parquet")}
    fields = ("label", "votes", "k", "kept", "correct")
    found = {text: tuple(rows[question_id(text)][name] for name in fields) for text in TEXTS if text[0] == "u"}
    assert found == {
        "unlabeled 0": ("10", 2, 3, True, True),
        "unlabeled 1": ("55", 3, 3, True, False),
        "unlabeled 2": ("1", 1, 3, False, False),
        "unlabeled 3": (None, 0, 3, False, False),  # no label is not right
        "unlabeled 4": ("8", 2, 3, True, False),
    }
    assert rows[question_id("unlabeled 0")]["confidence"] == pytest.approx(2 / 3)
    assert json.loads(rows[question_id("unlabeled 2")]["tally"]) == {"1": 1, "2": 1, "12": 1}


# --------------------------------------------------------------------------- training


def test_examples_come_in_the_order_of_the_sources_and_only_what_was_kept(seen: Seen) -> None:
    for one in seen.trained("student@round1") + seen.trained("student"):
        assert [example["source"] for example in one["examples"]] == ["pseudo"] * 3 + ["labeled"] * 2
        pseudo = {e["question"]["text"]: e for e in one["examples"] if e["source"] == "pseudo"}
        assert {text: (e["answer"], e["target"]) for text, e in pseudo.items()} == KEPT
        for text, example in pseudo.items():
            label, target = KEPT[text]
            bare = {"id": question_id(text), "text": text, "answer": label, "solution": target}
            assert example["question"] == {**bare, "context": None, "meta": {}, "place": None}
            assert example["prompt"] == prompt(text)
    assert len(seen.trained("student@round1") + seen.trained("student")) == 2


def test_labeled_examples_are_the_rows_of_the_data(seen: Seen) -> None:
    (teacher,) = seen.trained("teacher")
    found = {example["question"]["text"]: example for example in teacher["examples"]}
    assert set(found) == {"labeled 0", "labeled 1"}
    for number in range(2):
        example = found[f"labeled {number}"]
        assert (example["answer"], example["target"]) == (str(number), f" way #### {number}")
        assert example["question"]["context"] == f" context {number}"
        assert example["question"]["meta"] == {"id": f" id {number}"}
    (oracle,) = seen.trained("oracle")
    assert [example["source"] for example in oracle["examples"]] == ["labeled"] * 2 + ["unlabeled"] * 5
    assert {example["prompt"] for example in oracle["examples"]} >= {"Ask: labeled 0 {x}!", "Ask: unlabeled 4 {x}!"}


def test_a_training_has_three_streams_of_its_round(seen: Seen) -> None:
    rounds = {"teacher": 1, "student@round1": 1, "student": 2, "oracle": 1}
    for run, number in rounds.items():
        (one,) = [t for t in seen.of("trainer") if t["output"].startswith(str(partial(seen, run)))]
        assert one["seeds"] == {name: stream(5, name, number) % 2**31 for name in ("init", "order", "rollout")}
        assert len(set(one["seeds"].values())) == 3


def partial(seen: Seen, run: str) -> Path:
    return seen.workspace.partial("train", seen.train_digest(run))


def test_the_rest_of_a_training_job(seen: Seen) -> None:
    base = {**seen.adapted("teacher"), "adapter": None}
    starts = {run: seen.adapted("teacher") for run in ("student@round1",)}
    starts |= {"student": seen.adapted("student@round1"), "teacher": base, "oracle": base}
    assert len(seen.of("trainer")) == 4
    for run, start in starts.items():
        (one,) = [t for t in seen.of("trainer") if t["output"].startswith(str(partial(seen, run)))]
        assert one["model"] == {**start, "train_dtype": "bfloat16"}
        assert one["lora"] == {"rank": 3, "alpha": 5.0, "targets": ["q_proj"], "dropout": 0.25}
        chat = {"chat": False, "system": None} if run == "oracle" else {"chat": True, "system": "Be brief."}
        rest = {"separator": "~", "chat_template_kwargs": None}
        assert one["prompt"] == {"template": "Ask: {question} {x}!", **rest, **chat}
        assert one["verifier"] == ["SpyVerifier", {"mark": "here"}]
        # Matched to the largest arm: 7 questions twice.
        assert {name: value for name, value in one["budget"].items() if value is not None} == {"steps": 14}
        assert one["output"] == str(partial(seen, run) / "artifact" / "model")
        assert one["checkpoints"] == str(partial(seen, run) / "checkpoints")
        assert (one["trackers"], one["cap"], one["stop"]) == (["tensorboard"], None, False)
        assert one["config"] == {"epochs": 2.0}


def test_what_a_trainer_says_is_kept(seen: Seen) -> None:
    manifest = seen.workspace.manifest("train", seen.train_digest("student")).to_json()
    assert manifest["training"] == {
        "steps": 2,
        "examples_seen": 5,
        "tokens_seen": 3,
        "adapter_only": False,
        "notes": {"said": "so"},
        "examples": {"labeled": 2, "pseudo": 3},
    }
    assert manifest["events"] == [{"step": 1, "text": "mind the gap", "field": "trainer.epochs"}]


# --------------------------------------------------------------------------- verdicts


def test_the_verifier_judges_each_finished_completion_against_its_whole_question(seen: Seen) -> None:
    judged = {(one["completion"], one["question"]["text"]) for one in seen.of("verifier")}
    finished = {(text, q) for q, texts in TEXTS.items() for text in texts if q[0] == "t" and "FAILED" not in text}
    assert judged == finished
    for one in seen.of("verifier"):
        number = int(one["question"]["text"][-1])
        assert one["question"]["answer"] == f"HIDDEN{20 + number}"
        assert one["question"]["solution"] == f"HIDDEN way #### {20 + number}"
        assert (one["question"]["context"], one["question"]["meta"]) == (
            f"HIDDEN context {number}",
            {"id": f"HIDDEN id {number}"},
        )
        assert one["config"] == {"mark": "here"}


WRITTEN, JUDGED = ("text", "stop_reason"), ("correct", "answer")


def test_the_protocol_gets_every_sample_in_order_with_its_verdict(seen: Seen) -> None:
    expected = {
        "test 0": [("#### 20", "stop", True, "20"), ("#### 20", "stop", True, "20")],
        "test 1": [("#### 21", "stop", True, "21"), ("#### 0", "stop", False, "0")],
        "test 2": [("", "error", False, None), ("none", "stop", False, None)],
    }
    by_id = {question_id(text): found for text, found in expected.items()}
    assert len(seen.of("protocol")) == 15
    for one in seen.of("protocol"):
        completions = [item["completion"] for item in one["scored"]]
        (asked,) = {completion["question_id"] for completion in completions}
        assert [completion["sample"] for completion in completions] == [0, 1]
        found = [(*map(item["completion"].get, WRITTEN), *map(item["score"].get, JUDGED)) for item in one["scored"]]
        assert found == by_id[asked]
        assert one["verifier"] == {"mark": "here"}
    for run in seen.plan.runs:
        assert seen.workspace.manifest("score", run.eval_digest).to_json()["eval"]["mean"] == pytest.approx(
            (1 + 0.5 + 0) / 3
        )


# --------------------------------------------------------------------------- other budgets, more processes


@pytest.mark.slow
def test_a_smoke_run_caps_steps_and_nothing_else(seen: Seen) -> None:
    plan = seen.plan_of(SPEC, only=["teacher"], smoke=True)
    trains = [digest for digest, stage in plan.stages.items() if stage.kind == "train"]
    assert execute(plan, seen.workspace, only=trains).exit_code == 0
    one, whole = seen.read()[-1], seen.trained("teacher")[0]
    assert (one["cap"], one["run_name"]) == (2, "seams-smoke/teacher/seed5")
    for field in ("examples", "seeds", "budget", "lora", "model", "prompt", "config"):
        assert one[field] == whole[field], field


@pytest.mark.slow
def test_matched_tokens_are_those_of_the_training_texts(seen: Seen) -> None:
    from nsd.plugins.api import ModelRef
    from nsd.plugins.models import load_tokenizer, resolve

    text = SPEC.replace("{by: steps}", "{by: tokens, to: teacher}").replace("FOLDER/model", "builtin:wordmath-1m")
    text = text.replace('chat: true, system: "Be brief.", ', "")
    plan = seen.plan_of(text, only=["teacher"])
    trains = [digest for digest, stage in plan.stages.items() if stage.kind == "train"]
    assert execute(plan, seen.workspace, only=trains).exit_code == 0
    tokenizer = load_tokenizer(ModelRef(resolve("builtin:wordmath-1m")))
    texts = [f"Ask: labeled {number} {{x}}!~ way #### {number}" for number in range(2)]
    tokens = 2 * sum(len(tokenizer(text)["input_ids"]) + 1 for text in texts)
    budget = seen.read()[-1]["budget"]
    assert {name: value for name, value in budget.items() if value is not None} == {"tokens": tokens}


def test_processes_reach_what_starts_them(seen: Seen) -> None:
    plan = seen.plan_of(SPEC + "resources: {processes: 3}\n")
    assert plan.stages.keys() == seen.plan.stages.keys()
    for stage in plan.stages.values():
        if stage.kind == "train":
            command = training_command(stage, Path("job.json"), "events")
            assert command[command.index("--num_processes") + 1] == "3"
