"""What single planted faults in plan and stages got past."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsd.plugins.api import Budget, Prompt, PseudoLabel, Question
from nsd.runner.plan.changes import Nearest
from nsd.runner.plan.jobs import SourceJob
from nsd.runner.plan.model import Plan
from nsd.runner.store import tables
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.context import Context
from nsd.runner.work.stages import budget_of, examples_of
from toy_jobs import to_train
from toy_plan import SPEC, plan_of

GRPO = "{use: grpo, steps: 3, prompts_per_step: 2, num_generations: 4, max_tokens: 16}"
WITH_RL = SPEC.replace("resources:", f"  rl: {{train_on: [labeled], trainer: {GRPO}}}\nresources:")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    for name, count in (("train", 20), ("test", 5)):
        rows = [f'{{"q": "{name} {i}?", "a": "{i}", "s": "it is #### {i}"}}\n' for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(rows))
    return tmp_path


def trainings(plan: Plan) -> dict[str, dict[str, object]]:
    return {stage.key["trainer"]["use"]: stage.key for stage in plan.stages.values() if stage.kind == "train"}


def test_the_verifier_counts_where_it_rewards_and_not_where_targets_are_copied(place: Path) -> None:
    keys = trainings(plan_of(place, WITH_RL))
    assert "verifier" in keys["grpo"] and "verifier" not in keys["sft"]


def test_what_a_plugin_adds_to_its_digest_goes_by_the_name_extra(place: Path) -> None:
    trainer = trainings(plan_of(place, WITH_RL))["grpo"]["trainer"]
    assert isinstance(trainer, dict) and list(trainer) == ["use", "version", "config", "extra"]
    assert list(trainer["extra"]) == ["rewards"]


def test_stages_are_named_by_their_first_user_and_how_many_more(place: Path) -> None:
    plan = plan_of(place, SPEC, repeats=1)
    titles = [stage.title for stage in plan.stages.values()]
    assert "sample student/seed1 (+1)" in titles and "score base/seed1" in titles
    assert "train student/seed1" in titles and "score base/seed1, repeat 1" in titles
    assert [stage.repeat for stage in plan.stages.values() if stage.used_by[0] == "base/seed1"] == [None, None, 1, 1]
    assert {stage.repeat for stage in plan.stages.values() if stage.kind not in ("sample", "score")} == {None}


def test_a_run_pins_a_hub_model_to_its_commit_and_a_look_does_not(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = place / "hub" / "models--toy--model" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_CACHE", str(place / "hub"))
    spec = SPEC.replace("path: MODEL", "path: toy/model")
    for pin, revision in ((True, COMMIT), (False, None)):
        stages = plan_of(place, spec, pin=pin).stages.values()
        assert {stage.job.model.revision for stage in stages if hasattr(stage.job, "model")} == {revision}


def test_of_two_stages_equally_near_the_first_is_named() -> None:
    made = [{"k": 1, "seed": 3}, {"k": 2, "seed": 4}, {"k": 5, "seed": 5}]
    held = [Manifest(kind="train", digest="d", settings=one) for one in made]
    assert Nearest(held).changed({"k": 2, "seed": 3}) == ["k: 1 -> 2"]


@pytest.mark.parametrize("order", [["labeled", "pseudo"], ["pseudo", "labeled"]])
def test_a_trainer_is_given_every_source_in_order_and_no_hidden_truth(order: list[str], tmp_path: Path) -> None:
    (workspace := Workspace(tmp_path)).create()
    known = [Question(id="a", text="A?", answer="1", solution="#### 1")]
    hidden = [Question(id=name, text=f"{name}?", answer="TRUTH", solution="TRUTH") for name in ("b", "c")]
    tables.write_questions(workspace.data / "known.parquet", known)
    tables.write_questions(workspace.data / "hidden.parquet", hidden)
    kept = PseudoLabel("b", label="2", target="so #### 2", confidence=1.0, votes=4, k=4, kept=True)
    left = PseudoLabel("c", label="3", target="so #### 3", confidence=0.5, votes=2, k=4, kept=False)
    tables.write_labels(workspace.folder("label", "l1") / "labels.parquet", [(kept, None), (left, None)])
    sources = {
        "labeled": SourceJob("labeled", "known"),
        "pseudo": SourceJob("pseudo", "hidden", labels="l1"),
    }
    job = to_train(*(sources[name] for name in order), prompt=Prompt(template="Q: {question}"))
    context = Context(workspace, tmp_path / "partial", emit=lambda event: None, should_stop=lambda: False)
    found = examples_of(job, context)
    by_source = {
        "labeled": ("a", "Q: A?", "1", "#### 1", "labeled"),
        "pseudo": ("b", "Q: b?", "2", "so #### 2", "pseudo"),
    }
    shown = [(one.question.id, one.prompt, one.answer, one.target, one.source) for one in found]
    assert shown == [by_source[name] for name in order]
    assert "TRUTH" not in repr(found)


@pytest.mark.parametrize("chat", [False, True])
def test_matched_tokens_are_those_of_the_reference_arms_texts_over_its_epochs(
    place: Path, tmp_path: Path, chat: bool
) -> None:
    from nsd.plugins.models import load_tokenizer

    spec = SPEC.replace("{path: MODEL, dtype: float32}", "builtin:wordmath-1m") + "match: {by: tokens, to: baseline}\n"
    plan = plan_of(place, spec.replace("chat: false", "chat: true") if chat else spec)
    (workspace := Workspace(tmp_path / "workspace")).create()
    for content_hash, questions in plan.data.items():
        tables.write_questions(workspace.data / f"{content_hash}.parquet", questions)
    (oracle,) = [one for one in plan.stages.values() if one.kind == "train" and one.used_by == ["oracle/seed1"]]
    context = Context(workspace, tmp_path / "partial", emit=lambda event: None, should_stop=lambda: False)
    (labeled,) = oracle.job.budget.tokens_of.data
    tokenizer = load_tokenizer("builtin:wordmath-1m")
    expected = 0
    for question in plan.data[labeled]:
        text = f"Q: {question.text} A:"
        separator = oracle.job.prompt.separator
        if chat:  # a turn of the embedded model is its content and a line break; no separator stands in a chat
            expected += len(tokenizer(f"{text}\n")["input_ids"]) + len(tokenizer(question.solution)["input_ids"]) + 1
        else:
            expected += len(tokenizer(f"{text}{separator}{question.solution}")["input_ids"]) + 1  # and the end token
    assert len(plan.data[labeled]) == 6
    assert budget_of(oracle.job, context) == Budget(tokens=2 * expected)  # two epochs


@pytest.mark.parametrize(
    ("fields", "said"), [("k: 4, temperature: 0", 1), ("k: 4, top_k: 1", 1), ("k: 1, temperature: 0", 0), ("k: 4", 0)]
)
def test_several_greedy_samples_of_a_question_are_told(fields: str, said: int, place: Path) -> None:
    text = SPEC.replace("{use: accuracy, temperature: 0.1, max_tokens: 16}", f"{{use: avg_at_k, {fields}}}")
    plan = plan_of(place, text)
    told = [note for note in plan.notes if "avg@4 of greedy samples, which are all the same" in note]
    assert len(told) == said and all("base" in note for note in told)
