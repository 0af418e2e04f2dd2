"""Overrides, `extends` and sweeps: what a condition is after everything is merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd.runner.spec.errors import Position, Source, SpecErrors
from nsd.runner.spec.load import load_spec
from nsd.runner.spec.merge import merge
from nsd.runner.spec.model import Experiment
from nsd.runner.spec.yaml import Item

BASE = """
name: family
model: {path: Qwen/Qwen2.5-0.5B-Instruct, revision: abc, dtype: float32, lora: {rank: 8}}
data: {use: wordmath, split: {labeled: 100, unlabeled: 200, test: 50}}
labeler: {use: consensus, k: 8, threshold: 0.5}
trainer: {use: sft, epochs: 3}
conditions:
  baseline: {train_on: [labeled]}
  noisy: {train_on: [labeled, pseudo], label_with: baseline}
"""


def load(folder: Path, text: str, name: str = "spec.yaml") -> Experiment:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return load_spec(path, run_files=True)


def errors_of(folder: Path, text: str) -> str:
    with pytest.raises(SpecErrors) as caught:
        load(folder, text)
    return str(caught.value)


def config(experiment: Experiment, condition: str, block: str) -> Any:
    return getattr(experiment.conditions[condition], block).config


# --------------------------------------------------------------------------- overrides


def test_an_override_changes_single_fields(tmp_path: Path) -> None:
    text = BASE + "  strict: {train_on: [pseudo], label_with: baseline, labeler: {threshold: 0.9}}\n"
    experiment = load(tmp_path, text)
    assert config(experiment, "strict", "labeler").threshold == 0.9
    assert config(experiment, "strict", "labeler").k == 8
    assert config(experiment, "noisy", "labeler").threshold == 0.5


CLASH = "  odd: {train_on: [pseudo], label_with: baseline, labeler: {stop_vote: exact, target: random}}\n"
UNPACKED = "  odd: {train_on: [labeled], trainer: {group_by_length: true, trl: {packing: true}}}\n"
ENDLESS = "  odd: {train_on: [labeled], trainer: {trl: {packing: true}, max_length: null}}\n"
UNCUT = "  odd: {train_on: [labeled], trainer: {max_length: 64, trl: {padding_free: true}}}\n"


@pytest.mark.parametrize(
    ("arm", "key"), [(CLASH, "target"), (UNPACKED, "trl"), (ENDLESS, "max_length"), (UNCUT, "trl")]
)
def test_fields_of_an_override_that_do_not_go_together_are_shown_there(tmp_path: Path, arm: str, key: str) -> None:
    line, column = BASE.count("\n") + 1, arm.index(f"{key}:") + 1
    assert f"spec.yaml:{line}:{column}: " in errors_of(tmp_path, BASE + arm)


def test_a_field_that_does_not_go_with_an_inherited_one_is_shown_where_it_is_set(tmp_path: Path) -> None:
    load(tmp_path, BASE.replace("threshold: 0.5", "threshold: 0.5, target: random"), "parent.yaml")
    child = "extends: parent.yaml\nname: child\nlabeler: {stop_vote: exact}\n"
    assert "spec.yaml:3:11: " in errors_of(tmp_path, child)


def test_an_override_reaches_nested_fields(tmp_path: Path) -> None:
    experiment = load(tmp_path, BASE + "  few: {train_on: [labeled], data: {split: {labeled: 7}}}\n")
    split = config(experiment, "few", "data").split
    assert (split.labeled, split.unlabeled, split.test) == (7, 200, 50)


def test_another_plugin_drops_the_fields_of_the_old_one(tmp_path: Path) -> None:
    experiment = load(tmp_path, BASE + "  rl: {train_on: [labeled], trainer: {use: grpo, steps: 5}}\n")
    assert experiment.conditions["rl"].trainer.use == "grpo"
    assert config(experiment, "rl", "trainer").steps == 5


def test_a_model_name_swaps_the_weights_only(tmp_path: Path) -> None:
    experiment = load(tmp_path, BASE + "  other: {train_on: [labeled], model: Qwen/Qwen3-0.6B}\n")
    model = experiment.conditions["other"].model
    assert (model.path, model.revision, model.dtype, model.lora.rank) == ("Qwen/Qwen3-0.6B", None, "float32", 8)
    assert experiment.conditions["noisy"].model.revision == "abc"


def test_null_takes_lora_away(tmp_path: Path) -> None:
    experiment = load(tmp_path, BASE + "  full: {train_on: [labeled], model: {lora: null}}\n")
    assert experiment.conditions["full"].model.lora is None


def test_the_dataset_gives_verifier_and_prompt(tmp_path: Path) -> None:
    experiment = load(tmp_path, BASE + "  math: {train_on: [labeled], data: {use: math, split: {labeled: 5}}}\n")
    assert experiment.conditions["noisy"].verifier.use == "numeric"
    assert experiment.conditions["math"].verifier.use == "math"
    assert experiment.conditions["math"].prompt != experiment.conditions["noisy"].prompt


def test_a_partial_prompt_changes_single_fields(tmp_path: Path) -> None:
    default = load(tmp_path, BASE).conditions["noisy"].prompt
    chat = load(tmp_path, "prompt: {chat: on}\n" + BASE).conditions["noisy"].prompt
    assert chat.chat is True
    assert chat.template == default.template


def test_the_models_chat_field_decides(tmp_path: Path) -> None:
    text = BASE + "  chatty: {train_on: [labeled], model: {chat: yes}}\n"
    experiment = load(tmp_path, "prompt: {chat: off}\n" + text)
    assert experiment.conditions["chatty"].prompt.chat is True
    assert experiment.conditions["noisy"].prompt.chat is False


def test_short_forms_are_the_long_ones(tmp_path: Path) -> None:
    short = "eval: accuracy\nseed: 7\nmatch: steps\ntrack: wandb\nhypotheses: [noisy > baseline]\n"
    long = (
        "eval: {use: accuracy}\nseeds: [7]\nmatch: {by: steps}\ntrack: [wandb]\n"
        "hypotheses: {claims: [{compare: [noisy, baseline], better: true}]}\n"
    )
    assert load(tmp_path, short + BASE).resolved == load(tmp_path, long + BASE).resolved


def test_what_a_condition_does_not_use_is_not_in_it(tmp_path: Path) -> None:
    experiment = load(tmp_path, BASE + "  base: {train_on: []}\n")
    assert experiment.conditions["base"].trainer is None
    assert experiment.conditions["baseline"].labeler is None


# --------------------------------------------------------------------------- extends


def test_a_child_overrides_adds_and_takes_away(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE + "hypotheses: [noisy > baseline]\nquestion: Why?\n")
    child = """
extends: base.yaml
name: child
trainer: {epochs: 1}
conditions:
  noisy: {labeler: {k: 4}}
  baseline: {data: {split: {labeled: 9}}}
  more: {train_on: [labeled, unlabeled]}
"""
    experiment = load(tmp_path, child)
    assert (experiment.name, experiment.question) == ("child", None)
    assert list(experiment.conditions) == ["baseline", "noisy", "more"]
    assert config(experiment, "noisy", "trainer").epochs == 1
    assert config(experiment, "noisy", "labeler").k == 4
    assert config(experiment, "baseline", "data").split.labeled == 9
    assert experiment.hypotheses.claims[0].text == "noisy > baseline"
    gone = load(tmp_path, child.replace("{labeler: {k: 4}}", "null") + "hypotheses: null\n")
    assert list(gone.conditions) == ["baseline", "more"]
    assert gone.hypotheses is None


def test_a_chain_is_relative_to_each_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "a" / "middle.yaml").write_text("extends: ../base.yaml\nname: middle\nseeds: [1, 2]\n")
    experiment = load(tmp_path, "extends: ../a/middle.yaml\nname: leaf\n", "b/leaf.yaml")
    assert experiment.seeds == (1, 2)
    assert experiment.text == "extends: ../a/middle.yaml\nname: leaf\n"


def test_an_error_points_at_the_file_that_wrote_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE.replace("epochs: 3", "epochs: -3"))
    with pytest.raises(SpecErrors) as caught:
        load(tmp_path, "extends: base.yaml\nname: child\nconditions:\n  baseline: {trainer: {batch_size: 0}}\n")
    assert {(Path(error.file).name, error.line) for error in caught.value.errors} == {
        ("base.yaml", 6),
        ("spec.yaml", 4),
    }


def test_a_file_plugin_is_found_beside_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.py").write_text(
        "from nsd.plugins.api import PluginConfig, Verifier\nfrom nsd.plugins.registry import plugin\n\n\n"
        "@plugin('verifier', 'mine_of_a_test')\nclass Mine(Verifier):\n"
        "    class Config(PluginConfig):\n        strict: bool = False\n"
    )
    (tmp_path / "a" / "base.yaml").write_text(BASE + "verifier: {use: './mine.py:Mine', strict: true}\n")
    experiment = load(tmp_path, "extends: a/base.yaml\nname: child\n")
    assert experiment.conditions["noisy"].verifier.cls.__name__ == "Mine"
    assert experiment.conditions["noisy"].verifier.make().config.strict is True


def test_a_plugin_whose_check_crashes_is_an_error_of_the_spec(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from nsd.plugins.api import PluginConfig, Verifier\nfrom nsd.plugins.registry import plugin\n"
        "from pydantic import model_validator\n\n\n"
        "@plugin('verifier', 'crashing_of_a_test')\nclass Mine(Verifier):\n"
        "    class Config(PluginConfig):\n        @model_validator(mode='after')\n"
        "        def check(self):\n            return {}['nothing']\n"
    )
    assert "KeyError: 'nothing'" in errors_of(tmp_path, BASE + "verifier: {use: './mine.py:Mine'}\n")


def test_a_file_is_not_run_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('this file ran')\n")
    (tmp_path / "spec.yaml").write_text(BASE + "verifier: {use: './mine.py:Mine', anything: [1]}\n")
    block = load_spec(tmp_path / "spec.yaml").conditions["noisy"].verifier
    assert block.config.model_dump() == {"anything": [1]}
    with pytest.raises(ValueError, match="run only where --run-files says so"):
        block.make()


# --------------------------------------------------------------------------- sweeps


def test_a_sweep_makes_one_condition_a_point_with_readable_names(tmp_path: Path) -> None:
    experiment = load(
        tmp_path,
        BASE + "sweep: {conditions: noisy, grid: {labeler.threshold: [0.5, 0.75], trainer.epochs: [1, 2]}}\n",
    )
    assert list(experiment.conditions) == [
        "baseline",
        "noisy-threshold0.5-epochs1",
        "noisy-threshold0.5-epochs2",
        "noisy-threshold0.75-epochs1",
        "noisy-threshold0.75-epochs2",
    ]
    point = experiment.conditions["noisy-threshold0.75-epochs1"]
    assert (point.labeler.config.threshold, point.labeler.config.k, point.trainer.config.epochs) == (0.75, 8, 1)


@pytest.mark.parametrize(
    ("grid", "names"),
    [
        ("{model: [Qwen/Qwen3-0.6B, ./models/mine]}", ["noisy-Qwen3-0.6B", "noisy-mine"]),
        ("{model: {small: Qwen/Qwen3-0.6B, big: Qwen/Qwen3-8B}}", ["noisy-small", "noisy-big"]),
        ("{trainer.learning_rate: [2e-5, 1e-4]}", ["noisy-learning_rate2e-5", "noisy-learning_rate1e-4"]),
        ("{labeler.target: [first, shortest]}", ["noisy-first", "noisy-shortest"]),
        ("{model.lora: [null]}", ["noisy-lora-none"]),
        ("{prompt.chat: [true, off]}", ["noisy-chat-true", "noisy-chat-false"]),
        ("{train_on: [[pseudo], [labeled, pseudo]]}", ["noisy-pseudo", "noisy-labeled_pseudo"]),
        ("{rounds: [1, 2]}", ["noisy-rounds1", "noisy-rounds2"]),
        ("{trainer: {sft: {epochs: 1}, rl: {use: grpo}}}", ["noisy-sft", "noisy-rl"]),
    ],
)
def test_points_are_named_after_their_values(tmp_path: Path, grid: str, names: list[str]) -> None:
    experiment = load(tmp_path, BASE + f"sweep: {{conditions: noisy, grid: {grid}}}\n")
    assert list(experiment.conditions) == ["baseline", *names]


def test_conditions_swept_together_refer_to_their_own_point(tmp_path: Path) -> None:
    experiment = load(
        tmp_path, BASE + "hypotheses: [noisy > baseline]\nsweep: {grid: {model: {a: Qwen/A, b: Qwen/B}}}\n"
    )
    assert experiment.conditions["noisy-b"].label_with == "baseline-b"
    assert [(claim.better, claim.worse) for claim in experiment.hypotheses.claims] == [
        ("noisy-a", "baseline-a"),
        ("noisy-b", "baseline-b"),
    ]


def test_a_claim_against_a_fixed_condition_spreads_over_the_points(tmp_path: Path) -> None:
    text = BASE + "sweep: {conditions: noisy, grid: {labeler.k: [2, 4]}}\n"
    claims = load(tmp_path, text + "hypotheses: [noisy > baseline, noisy-k4 > noisy-k2]\n").hypotheses.claims
    assert [claim.text for claim in claims] == ["noisy-k2 > baseline", "noisy-k4 > baseline", "noisy-k4 > noisy-k2"]


def test_two_sweeps_do_not_mix(tmp_path: Path) -> None:
    sweeps = (
        "sweep:\n  - {conditions: noisy, grid: {labeler.k: [2, 4]}}\n"
        "  - {conditions: oracle, grid: {trainer.epochs: [1, 2]}}\n"
    )
    text = BASE + "  oracle: {train_on: [labeled, unlabeled]}\n" + sweeps
    assert len(load(tmp_path, text).conditions) == 5
    assert "swept apart" in errors_of(tmp_path, text + "hypotheses: [oracle > noisy]\n")
    assert "swept twice" in errors_of(tmp_path, text.replace("conditions: oracle", "conditions: noisy"))


# --------------------------------------------------------------------------- merging in general

SOURCE = Source(Path("x"), "x", "")
PLACE = Position(SOURCE, 1, 1)


def item_of(value: Any) -> Item:
    if isinstance(value, dict):
        return Item({key: item_of(inner) for key, inner in value.items()}, PLACE)
    return Item(value, PLACE)


# Two overrides of which one replaces a mapping by a scalar do not associate: (map, 1, map) forgets the first map
# from the left and keeps it from the right. So a key is either always a mapping (capital) or always a scalar.
trees = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=3),
    lambda inner: st.tuples(
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=2),
        st.dictionaries(st.sampled_from("XYZ"), inner, max_size=2),
    ).map(lambda pair: {**pair[0], **pair[1]}),
    max_leaves=8,
)


@given(trees, trees, trees)
def test_merging_is_associative(a: Any, b: Any, c: Any) -> None:
    one, two, three = item_of(a), item_of(b), item_of(c)
    assert merge(merge(one, two), three).plain() == merge(one, merge(two, three)).plain()


@given(trees)
def test_merging_with_nothing_or_itself_changes_nothing(a: Any) -> None:
    tree, nothing = item_of(a), item_of({})
    assert merge(tree, nothing).plain() == merge(nothing, tree).plain() == merge(tree, tree).plain() == a


@given(trees, trees)
def test_the_override_is_all_in_the_merged_tree(a: Any, b: Any) -> None:
    def inside(part: Any, whole: Any) -> bool:
        if not isinstance(part, dict):
            return bool(part == whole)
        return all(key in whole and inside(value, whole[key]) for key, value in part.items())

    assert inside(b, merge(item_of(a), item_of(b)).plain())
