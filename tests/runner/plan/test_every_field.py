"""Every field of every config: flipping it changes exactly the stages it must, in every condition and seed.

The fields come from the Config classes. A field that is marked output-neutral changes no stage; for any other one a
flip value is given here, and what it changes follows from the block it is in. A field without a value fails the test
until one is given.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from nsd.plugins.api import LoraConfig, OutputNeutral, Prompt
from nsd.plugins.registry import BUILT_IN, find
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.errors import SpecErrors
from nsd.runner.spec.load import load_spec
from nsd.runner.spec.merge import PARTS
from nsd.runner.spec.model import (
    ConditionConfig,
    HypothesesConfig,
    Match,
    ModelSpec,
    Resources,
    TopConfig,
    ValidationConfig,
)
from thinned import thinned

ROWS = Path(__file__).parents[1] / "golden" / "rows"
Changes = dict[str, set[str]]  # condition -> kinds of its stages

# `teacher` labels for `student`, `base` for `pupil`: what changes the one that labels reaches the other.
SPEC: dict[str, Any] = {
    "name": "toy",
    "model": "builtin:wordmath-1m",
    "data": {"use": "wordmath", "train": 60, "test": 20, "split": {"labeled": 8, "unlabeled": 6, "test": 5}},
    "labeler": {"use": "consensus", "k": 4},
    "trainer": {"use": "sft", "batch_size": 4},
    "seeds": [1, 2],
    "conditions": {
        "base": {"train_on": []},
        "pupil": {"train_on": ["pseudo"], "label_with": "base"},
        "teacher": {"train_on": ["labeled"]},
        "student": {"train_on": ["labeled", "pseudo"], "label_with": "teacher"},
        "rl": {"train_on": ["labeled"], "trainer": {"use": "grpo", "prompts_per_step": 4}},
    },
}
DRAWN = {"sample", "score"}
SEARCHED = {"discover", "score"}
ALL = {"label", "train", *DRAWN}
TRAINED = {"train", *DRAWN}


@cache
def plan_of(text: str) -> Plan:
    folder = Path(cache_folder[0])
    path = folder / "toy.yaml"
    path.write_text(text)
    return build_plan(load_spec(path))


cache_folder: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    cache_folder[:] = [str(tmp_path_factory.mktemp("fields"))]
    yield
    plan_of.cache_clear()


def planned(spec: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    """Digests by (condition/seed, kind of stage)."""
    found: dict[tuple[str, str], set[str]] = {}
    for stage in plan_of(json.dumps(spec)).stages.values():
        for user in stage.used_by:
            found.setdefault((user, stage.kind), set()).add(stage.digest)
    return found


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Changes]:
    """What differs, by seed."""
    old, new = planned(before), planned(after)
    found: dict[str, Changes] = {f"seed{seed}": {} for seed in before["seeds"]}
    for user, kind in {**old, **new}:
        condition, _, seed = user.partition("/")
        if old.get((user, kind)) != new.get((user, kind)):
            found[seed].setdefault(condition, set()).add(kind)
    return found


def with_block(condition: str, key: str, block: Any) -> dict[str, Any]:
    """The spec with a block of one condition replaced."""
    spec: dict[str, Any] = json.loads(json.dumps(SPEC))
    spec["conditions"][condition][key] = block
    if block.get("use") == "discovery":
        spec["conditions"][condition]["verifier"] = "steps"  # turns need feedback
    if block.get("use") == "best_within":
        spec |= {"validation": {"questions": 2, "every": 2}, "match": {"by": "generated_tokens", "amount": 900}}
    if block.get("use") == "noisy_oracle":
        del spec["conditions"][condition]["label_with"]
    if block.get("use") in ("livecodebench", "code_puzzles"):  # whose own verifier has no answers to vote on
        spec["conditions"][condition]["verifier"] = "numeric"
    return spec


def leaves(model: type[BaseModel], way: tuple[str, ...] = (), neutral: bool = False) -> Iterator[tuple[str, bool]]:
    """Every field at any depth, dotted, and whether it is output-neutral."""
    for name, info in model.model_fields.items():
        marked = neutral or any(isinstance(mark, OutputNeutral) or mark is OutputNeutral for mark in info.metadata)
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from leaves(inner, (*way, name), marked)
        else:
            yield ".".join((*way, name)), marked


def put(block: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """A copy of the block with a dotted field set."""
    copy: dict[str, Any] = json.loads(json.dumps(block))
    *way, last = name.split(".")
    inner = copy
    for step in way:
        inner = inner.setdefault(step, {})
    inner[last] = value
    return copy


# --------------------------------------------------------------------------- blocks

# Where each plugin stands for the test, with the fields it cannot do without.
WHERE: dict[str, dict[str, Any]] = {
    "engine replay": {"use": "replay", "path": str(ROWS / "said.jsonl")},
    "engine openai": {"use": "openai", "base_url": "http://127.0.0.1:8000/v1", "model": "toy"},
}
SAMPLED = {"temperature": 0.3, "top_p": 0.9, "top_k": 20, "max_tokens": 99, "stop": ["\n\n"]}
# Fields that must be given besides, on both sides, for one to be allowed.
BESIDES = {
    ("labeler consensus", "stop_confidence"): {"stop_vote": "adaptive"},
    ("labeler consensus", "stop_window"): {"stop_vote": "esc"},
    ("trainer grpo", "fsdp"): {"rollout": "trl"},
    ("engine openai", "max_dollars"): {"prices": {"prompt": 1.0, "completion": 2.0}},
    ("trainer sdpo", "full_logit_distillation"): {"alpha": 1.0},
    ("protocol discovery", "feedback_tokens"): {"by": "multi_turn"},
    ("protocol discovery", "trainer"): {"by": "training", "trainer": {"use": "sdpo"}},
}
# Those that no value but the default is allowed of.
FIXED = {(f"trainer {name}", "fsdp") for name in ("rloo", "ppo", "ttrl", "sdpo", "pcsd")}
# Values for plugin fields: kind and name, then field.
TRAINING = {
    "learning_rate": 1e-3,
    "lr_scheduler": "cosine",
    "warmup_steps": 3,
    "warmup_ratio": 0.1,
    "weight_decay": 0.1,
    "max_grad_norm": 0.3,
    "mixed_precision": "no",
    "gradient_checkpointing": True,
    "fsdp": True,
    "ddp_timeout": 60,
    "log_every": 3,
}
ON_ROLLOUTS = {
    **TRAINING,
    "micro_batch_size": 1,
    "save_every": 4,
    "steps": 7,
    "prompts_per_step": 2,
    "num_generations": 6,
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 20,
    "max_tokens": 99,
    "num_iterations": 2,
    "steps_per_generation": 2,
    "rollout": "vllm",
    "rollout_memory": 0.5,
    "health.window": 9,
    "health.zero_std_fraction": 0.5,
    "health.kl_min": 1e-5,
    "health.kl_max": 3.0,
    "health.clipped_ratio_max": 0.4,
    "health.clipped_ratio_rise": 0.3,
    "health.min_length": 3.0,
    "health.reward_drop": 0.4,
    "health.shrink": 0.3,
    "health.stop": True,
}
REWARDED = {**ON_ROLLOUTS, "rewards": ["finished"]}
VALUES: dict[str, dict[str, Any]] = {
    "engine replay": {
        "path": "OTHER",
        "fields.question": "said",
        "fields.id": "why",
        "fields.completion": "said",
        "fields.sample": "n",
        "fields.finish": "why",
        "fields.tokens": "n",
        "missing": "empty",
    },
    "engine openai": {
        "base_url": "http://127.0.0.1:9000/v1",
        "model": "other",
        "api_key_env": "TOY_KEY",
        "send_seed": False,
        "extra_body": {"min_p": 0.0},
        "limit_field": "max_completion_tokens",
        "reasoning": "keep",
        "logprobs": True,
        "concurrency": 3,
        "timeout": 9.0,
        "retries": 3,
        "max_wait": 9.0,
        "requests_per_minute": 60,
        "tokens_per_minute": 9000,
        "prices": {"prompt": 1.0, "completion": 2.0},
        "max_dollars": 3.0,
    },
    "engine vllm": {
        "memory_share": 0.5,
        "cache_gib": 3.0,
        "rows": 3,
        "context": 300,
        "tensor_parallel": 2,
        "eager": True,
        "confidences": False,
    },
    "engine hf": {
        "batch_size": 3,
        "device": "cpu",
        "attention": "eager",
        "dtype": "bfloat16",
        "static_cache": True,
        "compile": True,
    },
    "verifier numeric": {},
    "verifier math": {"cpu_seconds": 9},
    "verifier choice": {},
    "verifier final_answer": {},
    "verifier steps": {},
    "verifier tool_calls": {"inputs": "merged"},
    "verifier code": {
        "tests": "train",
        "tests_seed": 3,
        "seconds": 2.0,
        "memory_mb": 256,
        "timeouts": 1,
        "sandbox": "process",
    },
    "labeler consensus": {
        "k": 5,
        "temperature": 0.8,
        "top_p": 0.9,
        "top_k": 20,
        "max_tokens": 99,
        "stop": ["\n\n"],
        "threshold": 0.6,
        "target": "shortest",
        "stop_vote": "exact",
        "stop_confidence": 0.9,
        "stop_window": 3,
    },
    "labeler noisy_oracle": {"accuracy": 0.5},
    "labeler unfiltered": {"temperature": 0.8, "top_p": 0.9, "top_k": 20, "max_tokens": 99, "stop": ["\n\n"]},
    "protocol accuracy": SAMPLED,
    "protocol avg_at_k": {**SAMPLED, "k": 5},
    "protocol best_within": {**SAMPLED, "k": 5},
    "protocol discovery": {
        **SAMPLED,
        "by": "multi_turn",
        "samples": 32,
        "batch": 16,
        "feedback_tokens": 99,
        "questions": ["FIRST"],
        "trainer": {"use": "grpo"},
    },
    "protocol maj_at_k": {**SAMPLED, "k": 5, "generated_tokens": 900},
    "protocol pass_at_k": {**SAMPLED, "k": 5, "n": 9},
    "trainer sft": {
        **TRAINING,
        "micro_batch_size": 2,
        "save_every": 3,
        "epochs": 3.0,
        "batch_size": 5,
        "max_length": 99,
        "loss": "full",
        "group_by_length": True,
        "trl": {"adam_beta1": 0.8},
    },
    "trainer grpo": {
        **REWARDED,
        "loss_type": "grpo",
        "beta": 0.1,
        "epsilon": 0.1,
        "scale_rewards": "none",
        "rollout": "trl",
        "trl": {"adam_beta1": 0.8},
    },
    "trainer rloo": {**REWARDED, "baseline": "none", "beta": 0.1, "epsilon": 0.1},
    "trainer ppo": {
        **REWARDED,
        "beta": 0.1,
        "epsilon": 0.1,
        "value_clip": 0.1,
        "value_weight": 0.2,
        "value_learning_rate": 1e-3,
        "value_trains_trunk": False,
        "gamma": 0.9,
        "lam": 0.9,
    },
    "trainer ttrl": {**ON_ROLLOUTS, "n_votes": 48, "beta": 0.1, "epsilon": 0.1, "scale_rewards": False},
    "trainer sdpo": {
        **REWARDED,
        "full_logit_distillation": False,
        "alpha": 0.25,
        "distillation_topk": 7,
        "distillation_add_tail": False,
        "entry_clip": 0.1,
        "is_clip": 3.0,
        "teacher_regularization": "trust-region",
        "teacher_update_rate": 0.1,
        "success_reward_threshold": 0.5,
        "dont_reprompt_on_self_success": False,
        "remove_thinking_from_demonstration": False,
        "include_environment_feedback": False,
        "environment_feedback_only_without_solution": False,
        "max_reprompt_len": 99,
        "reprompt_truncation": "left",
        "templates.reprompt": "{prompt}{feedback}{solution}",
        "templates.solution": "Right: {successful_previous_attempt}",
        "templates.feedback": "Wrong: {feedback_raw}",
        "distillation_weight": 0.5,
        "epsilon": 0.1,
        "epsilon_high": 0.1,
    },
    "trainer pcsd": {
        **ON_ROLLOUTS,
        "privileged": "other_question",
        "divergence": "jsd",
        "topk": 7,
        "add_tail": False,
        "entry_clip": 0.1,
        "is_clip": 2.0,
        "teacher": "ema",
        "teacher_update_rate": 0.1,
        "max_teacher_len": 99,
        "truncation": "left",
    },
    "reward correct": {"weight": 2.0},
    "reward finished": {"weight": 2.0, "bonus": 0.2},
    "reward format": {"weight": 2.0, "pattern": "####"},
    "reward random": {"weight": 2.0, "probability": 0.25},
    "reward cluster_share": {"weight": 2.0},
    "reward self_certainty": {"weight": 2.0},
    "reward one_answer": {"weight": 2.0, "once": 0.2, "several": -0.2, "marker": "="},
}
# What a block changes, by the condition that overrides it.
KEYS = {"engine": "engine", "verifier": "verifier", "labeler": "labeler", "protocol": "eval", "trainer": "trainer"}
EFFECTS: dict[str, dict[str, Changes]] = {
    "engine": {
        "base": {"base": DRAWN, "pupil": ALL},
        "pupil": {"pupil": DRAWN},
        "teacher": {"teacher": DRAWN, "student": ALL},
    },
    "verifier": {
        "base": {"base": {"score"}},
        "teacher": {"teacher": {"score"}},  # its training only imitates texts
        "student": {"student": {"label", *TRAINED}},
        "rl": {"rl": TRAINED},
    },
    "labeler": {"pupil": {"pupil": {"label", *TRAINED}}, "student": {"student": {"label", *TRAINED}}},
    "protocol": {"base": {"base": DRAWN}, "student": {"student": DRAWN}},
    "trainer": {"teacher": {"teacher": TRAINED, "student": ALL}, "student": {"student": TRAINED}},
}
DRAWS = {"k", "temperature", "top_p", "top_k", "max_tokens", "stop"}


def block_cases() -> Iterator[tuple[str, str, bool]]:
    """(kind and name, field, neutral) of every built-in plugin but the datasets, which have a table of their own."""
    for kind, names in BUILT_IN.items():
        for name in names if kind != "dataset" else ():
            for field, neutral in leaves(find(kind, name).Config):
                if (f"{kind} {name}", field) not in FIXED:
                    yield f"{kind} {name}", field, neutral


def places_of(plugin: str) -> dict[str, Changes]:
    kind, _, name = plugin.partition(" ")
    if name in ("replay", "openai"):  # an arm that trains cannot have it
        return {"base": EFFECTS["engine"]["base"]}
    if name == "best_within":  # validation measures by it too
        return {"base": {"base": DRAWN}, "student": {"student": TRAINED}}
    if name == "discovery":
        return {"base": {"base": SEARCHED}, "student": {"student": SEARCHED}}
    if not getattr(find(kind, name), "votes", True):  # an arm that labels by votes cannot have it
        return {place: effect for place, effect in EFFECTS[kind].items() if place != "student"}
    if kind == "reward" or (kind == "trainer" and name != "sft"):
        return {"rl": {"rl": TRAINED}}
    return EFFECTS[kind]


@pytest.mark.parametrize(("plugin", "field", "neutral"), thinned(block_cases()), ids=lambda value: str(value))
def test_a_field_of_a_plugin_changes_exactly_the_stages_it_must(
    plugin: str, field: str, neutral: bool, tmp_path: Path
) -> None:
    kind, _, name = plugin.partition(" ")
    assert field in VALUES[plugin], f"give {field} of the {plugin} a value in VALUES that is not its default"
    value = VALUES[plugin][field]
    if value == "OTHER":
        value = str(tmp_path / "moved.jsonl")
        Path(value).write_bytes((ROWS / "said.jsonl").read_bytes())
    if value == ["FIRST"]:
        stages = plan_of(json.dumps(SPEC)).data.values()
        value = [next(questions[0].id for questions in stages if len(questions) == SPEC["data"]["split"]["test"])]
    for condition, effect in places_of(plugin).items():
        if kind == "reward":
            rewards = [{"use": name}, "correct"]
            block = {"use": "grpo", "prompts_per_step": 4, "rewards": rewards}
            other = {**block, "rewards": [put({"use": name}, field, value), "correct"]}
            key = "trainer"
        else:
            block = {**WHERE.get(plugin, {"use": name}), **BESIDES.get((plugin, field), {})}
            other, key = put(block, field, value), KEYS[kind]
        expected: Changes = {} if neutral else effect
        if plugin in ("labeler consensus", "labeler unfiltered") and (field in DRAWS or field.startswith("stop_")):
            expected = {condition: ALL}
        found = changed(with_block(condition, key, block), with_block(condition, key, other))
        assert found == {"seed1": expected, "seed2": expected}, condition


@pytest.mark.parametrize(("plugin", "field"), sorted(FIXED))
def test_a_field_that_is_fixed_is_refused_with_another_value(plugin: str, field: str) -> None:
    block = {"use": plugin.partition(" ")[2], field: VALUES[plugin][field]}
    with pytest.raises(SpecErrors, match=f"trainer.{field} does not go with {block['use']}"):
        plan_of(json.dumps(with_block("rl", "trainer", block)))


def test_a_train_verifier_changes_rewards_and_votes_and_no_evaluation_of_others() -> None:
    expected: Changes = {"rl": TRAINED}
    found = changed(SPEC, with_block("rl", "train_verifier", {"use": "math"}))
    assert found == {"seed1": expected, "seed2": expected}
    voted: Changes = {**expected, "student": {"label", *TRAINED}, "pupil": {"label", *TRAINED}}
    assert changed(SPEC, {**SPEC, "train_verifier": {"use": "math"}}) == {"seed1": voted, "seed2": voted}


def test_a_train_verifier_equal_to_the_verifier_changes_nothing() -> None:
    assert changed(SPEC, with_block("rl", "train_verifier", {"use": "numeric"})) == {"seed1": {}, "seed2": {}}


def test_values_are_for_fields_that_exist() -> None:
    there: dict[str, set[str]] = {}
    for plugin, field, _ in block_cases():
        there.setdefault(plugin, set()).add(field)
    for plugin, field in FIXED:
        there[plugin].add(field)
    assert not [(name, key) for name, values in VALUES.items() for key in values if key not in there.get(name, ())]


# --------------------------------------------------------------------------- data

OWN = {"use": "jsonl", "train": str(ROWS / "own.jsonl"), "fields": {"question": "q", "answer": "a"}}
# Value, and which questions it changes: `truth` are the hidden answers of the unlabeled ones alone, `shown` what a
# trainer sees of the unlabeled ones.
DATASETS: dict[str, dict[str, tuple[Any, set[str]]]] = {
    "wordmath": {
        "seed": (9, {"labeled", "unlabeled", "test"}),
        "train": (50, {"labeled", "unlabeled"}),
        "test": (19, {"test"}),
        "steps": ([1.0, 1.0, 0.0, 0.0], {"labeled", "unlabeled", "test"}),
    },
    "gsm8k": {
        "path": (str(ROWS / "gsm8k_moved"), set()),
        "missing_answer": ("drop", set()),  # no answer is missing there
        "unlabeled_from": (OWN, {"unlabeled"}),
    },
    "math": {
        "path": (str(ROWS / "math_moved"), set()),
        "test": (str(ROWS / "numina.jsonl"), {"test"}),
        "levels": ([1, 2, 3], {"labeled", "unlabeled", "test"}),
        "types": (["Algebra"], set()),  # all of them are
        "missing_answer": ("drop", set()),
        "unlabeled_from": (OWN, {"unlabeled"}),
    },
    "numinamath": {
        "path": (str(ROWS / "numina_moved.jsonl"), set()),
        "split.test": (2, {"labeled", "unlabeled", "test"}),  # its test rows are cut from train
        "sources": (["orca_math"], {"labeled", "unlabeled", "test"}),
        "answers": ("number", {"labeled", "unlabeled", "test"}),
        "missing_answer": ("drop", {"labeled", "unlabeled", "test"}),
        "unlabeled_from": (OWN, {"unlabeled"}),
    },
    "sciknoweval": {
        "path": (str(ROWS / "science_moved"), set()),
        "subject": ("chemistry", set()),  # the folder has none for a subject
        "levels": (["L1", "L3"], {"labeled", "unlabeled", "test"}),
        "missing_answer": ("drop", set()),
        "unlabeled_from": (OWN, {"unlabeled"}),
    },
    "tooluse": {
        "path": (str(ROWS / "calls_moved"), set()),
        "missing_answer": ("drop", set()),
        "unlabeled_from": (OWN, {"unlabeled"}),
    },
    "livecodebench": {
        "path": (str(ROWS / "code_moved"), set()),
        "split.test": (2, {"labeled", "unlabeled", "test"}),  # its test rows are cut from train
        "files": (["test5.jsonl"], {"labeled", "unlabeled", "test"}),
        "start": ("2025-02-04", {"labeled", "unlabeled", "test"}),
        "end": ("2025-04-10", {"labeled", "unlabeled", "test"}),
        "tests": ("all", {"labeled", "unlabeled", "test"}),
        "rows": ([8, 7, 6, 5, 4, 3], {"labeled", "unlabeled", "test"}),
    },
    "code_puzzles": {
        "seed": (9, {"labeled", "unlabeled", "test"}),
        "train": (50, {"labeled", "unlabeled"}),
        "test": (19, {"test"}),
        "levels": ([0.0, 1.0, 1.0], {"labeled", "unlabeled", "test"}),
        "plain": (1.0, {"labeled", "unlabeled", "test"}),
        "examples": (1, {"labeled", "unlabeled", "test"}),
    },
    "jsonl": {
        "split.labeled": (1, {"labeled"}),  # it has a pool of unlabeled questions
        "train": ("5 rows of own.jsonl", {"labeled"}),
        "test": ("2 rows of own_test.jsonl", {"test"}),
        "unlabeled": ("3 rows of own_unlabeled.jsonl", {"unlabeled"}),
        "fields.question": ("n", {"labeled", "unlabeled", "test"}),
        "fields.answer": ("n", {"labeled", "test", "truth"}),
        "fields.solution": ("n", {"labeled", "test", "truth"}),
        "fields.context": (None, {"labeled"}),
        "fields.id": ("n", {"labeled", "test", "truth"}),
        "fields.side_files": ({"tests": "t"}, {"labeled", "test"}),
        "shown": (["context"], {"shown"}),
        "missing_answer": ("drop", set()),
    },
}
SPLIT = {
    "split.labeled": (1, {"labeled", "unlabeled"}),
    "split.unlabeled": (1, {"unlabeled"}),
    "split.test": (2, {"test"}),
    "split.seed": (7, {"labeled", "unlabeled", "test"}),
}
NEED_THE_HUB = {
    *("gsm8k subset", "gsm8k revision", "math revision", "numinamath revision"),
    *("sciknoweval revision", "tooluse revision", "livecodebench revision"),
    *("jsonl hub", "jsonl subset", "jsonl revision", "jsonl unlabeled_from"),  # the last: not beside `unlabeled`
}
START = {
    "wordmath": {"train": 60, "test": 20},
    "gsm8k": {"path": str(ROWS / "gsm8k")},
    "math": {"path": str(ROWS / "math")},
    "numinamath": {"path": str(ROWS / "numina.jsonl")},
    "sciknoweval": {"path": str(ROWS / "science")},
    "tooluse": {"path": str(ROWS / "calls")},
    "livecodebench": {"path": str(ROWS / "code")},
    "code_puzzles": {"train": 60, "test": 20},
    "jsonl": {
        "train": str(ROWS / "own.jsonl"),
        "test": str(ROWS / "own_test.jsonl"),
        "unlabeled": str(ROWS / "own_unlabeled.jsonl"),
        "fields": {"question": "q", "answer": "a", "solution": "s", "context": "c"},
    },
}


def data_cases() -> Iterator[tuple[str, str]]:
    for name in BUILT_IN["dataset"]:
        for field, neutral in leaves(find("dataset", name).Config):
            assert not neutral, f"{name}.{field}: what questions there are is never output-neutral"
            if f"{name} {field}" not in NEED_THE_HUB:
                yield name, field


@pytest.mark.parametrize(("name", "field"), thinned(data_cases()))
def test_a_field_of_a_dataset_changes_the_stages_of_the_questions_it_changes(
    name: str, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where a side file's sha256 is kept
    table = {**SPLIT, **DATASETS[name]}
    assert field in table, f"give {field} of the dataset {name} a value in DATASETS that is not its default"
    value, questions = table[field]
    if "_moved" in str(value):
        place = Path(START[name]["path"])
        value = str(tmp_path / f"moved{place.suffix}")
        (shutil.copytree if place.is_dir() else shutil.copyfile)(place, value)
    elif " rows of " in str(value):
        count, _, file = value.partition(" rows of ")
        value = str(tmp_path / file)
        Path(value).write_text("".join((ROWS / file).read_text().splitlines(keepends=True)[: int(count)]))
    block = {"use": name, "split": {"labeled": 2, "unlabeled": 2, "test": 1}, **START[name]}
    found = changed(with_block("student", "data", block), with_block("student", "data", put(block, field, value)))
    expected: set[str] = set()
    for pool, kinds in {
        "labeled": TRAINED,
        "unlabeled": ALL,
        "truth": {"label", *TRAINED},
        "shown": TRAINED,
        "test": DRAWN,
    }.items():
        expected |= kinds if pool in questions else set()
    assert found == dict.fromkeys(("seed1", "seed2"), {"student": expected} if expected else {})


# --------------------------------------------------------------------------- model and prompt

REACHES: dict[str, Changes] = {
    "base": {"base": DRAWN, "pupil": ALL},
    "teacher": {"teacher": TRAINED, "student": ALL},
}
MODEL: dict[str, Any] = {
    "path": "org/other",
    "revision": "a-tag",
    "dtype": "bfloat16",
    "train_dtype": "float32",
    "lora": {"rank": 4},
    "chat": True,
}
LORA: dict[str, Any] = {"rank": 5, "alpha": 5.0, "targets": ["q_proj"], "dropout": 0.5}
PROMPT: dict[str, Any] = {
    "template": "{question}?",
    "chat": True,
    "system": "Be brief.",
    "separator": "+",
    "chat_template_kwargs": {"enable_thinking": False},
}


@pytest.mark.parametrize("field", ModelSpec.model_fields)
@pytest.mark.parametrize("condition", REACHES)
def test_a_field_of_the_model_changes_what_its_weights_reach(condition: str, field: str) -> None:
    # A hub id, for only that has a revision. Whether two arms may start from other weights is not the question here.
    start = {"path": "org/model"}
    expected = REACHES[condition]
    if field in ("lora", "train_dtype") and condition == "base":
        expected = {}  # it trains nothing
    found = changed(
        with_block(condition, "model", start), with_block(condition, "model", put(start, field, MODEL[field]))
    )
    assert found == {"seed1": expected, "seed2": expected}


def test_training_in_the_type_of_sampling_is_what_no_train_dtype_is() -> None:
    start = {"path": "org/model", "dtype": "float32"}
    other = with_block("teacher", "model", {**start, "train_dtype": "float32"})
    assert changed(with_block("teacher", "model", start), other) == {"seed1": {}, "seed2": {}}


@pytest.mark.parametrize("field", LoraConfig.model_fields)
def test_a_field_of_lora_changes_what_its_weights_reach(field: str) -> None:
    start = {"path": "org/model", "lora": {"rank": 4}}
    other = put(start, f"lora.{field}", LORA[field])
    for condition, expected in (("base", {}), ("teacher", REACHES["teacher"])):
        found = changed(with_block(condition, "model", start), with_block(condition, "model", other))
        assert found == {"seed1": expected, "seed2": expected}


@pytest.mark.parametrize("field", Prompt.model_fields)
def test_a_field_of_the_prompt_changes_what_is_asked_and_what_is_trained_on(field: str) -> None:
    start = {"chat": True} if field in ("system", "chat_template_kwargs") else {}
    other = put(start, field, PROMPT[field])
    asked: dict[str, Changes] = {**REACHES, "student": {"student": TRAINED}}
    for condition, expected in asked.items():
        if field == "separator" and condition == "base":
            expected = {}  # it stands between prompt and target, so only where something is trained
        found = changed(with_block(condition, "prompt", start), with_block(condition, "prompt", other))
        assert found == {"seed1": expected, "seed2": expected}, condition


# --------------------------------------------------------------------------- conditions and the whole spec


def with_fields(condition: str, **fields: Any) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(json.dumps(SPEC))
    spec["conditions"][condition].update(fields)
    return spec


CONDITION: dict[str, tuple[dict[str, Any], Changes]] = {
    "train_on": ({"train_on": ["pseudo"]}, {"student": TRAINED}),
    "label_with": ({"label_with": "base"}, {"student": ALL}),
    "label_on": ({"train_on": ["pseudo"], "label_on": "labeled"}, {"student": ALL}),
    "init": ({"init": "teacher"}, {"student": TRAINED}),
    "rounds": ({"rounds": 2}, {"student": ALL, "student@round1": DRAWN}),
}


@pytest.mark.parametrize("field", ConditionConfig.model_fields)
def test_a_field_of_a_condition_changes_that_arm(field: str) -> None:
    fields, expected = CONDITION[field]
    found = changed(SPEC, with_fields("student", **fields))
    assert found == {"seed1": expected, "seed2": expected}


def test_a_second_round_keeps_the_first() -> None:
    before, after = planned(SPEC), planned(with_fields("student", rounds=2))
    for kind in ("label", "train"):
        assert before["student/seed1", kind] < after["student/seed1", kind]
    # The model of the first round was the last one: its completions for the test questions are now that round's.
    assert (
        before["student/seed1", "sample"] < after["student/seed1", "sample"] | after["student@round1/seed1", "sample"]
    )


def test_a_seed_of_its_own_changes_everything_that_draws_and_nothing_of_the_other_seed() -> None:
    one, other = planned({**SPEC, "seeds": [1, 2]}), planned({**SPEC, "seeds": [1, 3]})
    assert all(other[user, kind] == digests for (user, kind), digests in one.items() if user.endswith("/seed1"))
    for (user, kind), digests in one.items():
        if user.endswith("/seed2"):
            assert not digests & other[user.replace("seed2", "seed3"), kind]
            assert not digests & one[user.replace("seed2", "seed1"), kind]


TOP: dict[str, Any] = {
    "name": "other",
    "question": "Why?",
    "track": ["wandb"],
    "seeds": [1, 2],  # other seeds are tested above
    "resources": {"max_hours": 2.0},
    "match": {"by": "epochs"},  # its fields are tested below
}
RESOURCES: dict[str, Any] = {
    "accelerators": "L4:1",
    "cpus": 8,
    "memory": "32+",
    "use_spot": True,
    "max_hours": 2.0,
    "max_usd": 3.0,
    "regions": ["us-east-1"],
    "infra": "aws",
    "disk_size": 100,
    "image_id": "docker:x",
    "device": "cpu",
    "processes": 2,
    "sampling_processes": 2,
    "nodes": 2,
    "over": "ray",
}


@pytest.mark.parametrize("field", [*TopConfig.model_fields, *(f"resources.{name}" for name in Resources.model_fields)])
def test_names_places_and_machines_change_no_stage(field: str) -> None:
    _, _, inner = field.partition(".")
    after = {**SPEC, "resources": {inner: RESOURCES[inner]}} if inner else {**SPEC, field: TOP[field]}
    assert changed(SPEC, after) == {"seed1": {}, "seed2": {}}


HYPOTHESES: dict[str, Any] = {
    "alpha": 0.01,
    "detect": 0.02,
    "correction": "none",
    "looks": "any",
    "claims": ["student > base"],
}


@pytest.mark.parametrize("field", HypothesesConfig.model_fields)
def test_how_claims_are_judged_changes_no_stage(field: str) -> None:
    assert changed(SPEC, {**SPEC, "hypotheses": {field: HYPOTHESES[field]}}) == {"seed1": {}, "seed2": {}}


@pytest.mark.parametrize("field", Match.model_fields)
def test_a_matched_budget_changes_the_trainings_it_is_for(field: str) -> None:
    start: dict[str, Any] = {"by": "steps", "to": "student"}
    other = {"by": {"by": "epochs"}, "to": {"by": "steps", "to": "teacher"}, "amount": {"by": "steps", "amount": 7}}
    expected: Changes = {"teacher": TRAINED, "student": ALL, "pupil": TRAINED}
    if field != "to":
        expected = {**expected, "rl": TRAINED}  # grpo has a peer group, and so a budget, of its own
    found = changed({**SPEC, "match": start}, {**SPEC, "match": other[field]})
    assert found == {"seed1": expected, "seed2": expected}


BUDGETS = ({"by": "generated_tokens", "amount": 900}, {"by": "seconds", "amount": 9}, {"by": "seconds", "amount": 2.5})


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_a_budget_that_is_an_amount_changes_every_training_and_so_does_another_amount(budget: dict[str, Any]) -> None:
    every: Changes = {"teacher": TRAINED, "student": ALL, "pupil": TRAINED, "rl": TRAINED}
    for before in ({}, {"match": {**budget, "amount": 10}}):
        found = changed({**SPEC, **before}, {**SPEC, "match": budget})
        assert found == {"seed1": every, "seed2": every}


VALIDATION: dict[str, Any] = {"questions": 3, "every": 2, "keep": "last"}
TAKEN = {"questions": 2, "every": 1}


@pytest.mark.parametrize("field", [None, *ValidationConfig.model_fields, "protocol"])
def test_what_watches_a_training_changes_every_training(field: str | None) -> None:
    fields = {**VALIDATION, "protocol": {"use": "accuracy", "max_tokens": 9}}
    before, after = {"validation": TAKEN}, {"validation": {**TAKEN, field: fields[field]} if field else None}
    every: Changes = {"teacher": TRAINED, "student": ALL, "pupil": TRAINED, "rl": TRAINED}
    assert changed({**SPEC, **before}, {**SPEC, **after}) == {"seed1": every, "seed2": every}


def test_a_protocol_of_validation_that_is_the_evaluation_is_what_no_protocol_is() -> None:
    evaluation = {"use": "avg_at_k", "k": 2, "max_tokens": 9}
    spec = {**SPEC, "eval": evaluation, "validation": TAKEN}
    found = changed(spec, {**spec, "validation": {**TAKEN, "protocol": evaluation}})
    assert found == {"seed1": {}, "seed2": {}}


OTHER = {"use": "accuracy", "max_tokens": 9, "data": {"seed": 9, "split": {"labeled": 0, "unlabeled": 0, "test": 4}}}
CHANGED: dict[str, tuple[Any, set[str]]] = {  # a part of an evaluation, and what another value changes of it
    "use": ("maj_at_k", DRAWN),
    "max_tokens": (10, DRAWN),
    "data": ({"seed": 10, "split": {"labeled": 0, "unlabeled": 0, "test": 4}}, DRAWN),
    "verifier": ("math", {"score"}),
    "prompt": ({"template": "Q: {question}"}, DRAWN),
}


@pytest.mark.parametrize("part", [*CHANGED, None])
def test_a_part_of_an_evaluation_changes_what_it_measures_alone(part: str | None) -> None:
    """`part` None: there is another evaluation, or none."""
    arms = [f"{name}@retention" for name in SPEC["conditions"]]
    value, kinds = CHANGED.get(str(part), (None, DRAWN))
    before = {"main": "accuracy"} if part is None else {"main": "accuracy", "retention": OTHER}
    after = {"main": "accuracy", "retention": OTHER if part is None else {**OTHER, part: value}}
    every: Changes = dict.fromkeys(arms, kinds)
    assert changed({**SPEC, "evals": before}, {**SPEC, "evals": after}) == {"seed1": every, "seed2": every}


def test_every_part_of_an_evaluation_is_in_the_table() -> None:
    assert {"use", *PARTS} <= set(CHANGED)


def test_every_model_of_the_language_is_in_a_table() -> None:
    """What is generated above covers these classes; a new one belongs here too."""
    tables = {ModelSpec: MODEL, LoraConfig: LORA, Prompt: PROMPT, ConditionConfig: CONDITION, TopConfig: TOP}
    for model, table in {**tables, Resources: RESOURCES, ValidationConfig: VALIDATION}.items():
        assert set(model.model_fields) == set(table), model.__name__
