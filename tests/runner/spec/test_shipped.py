"""The specs that ship: every one loads, and the published study's numbers are exact."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from nsd.runner.spec.load import load_spec
from nsd.runner.spec.model import Condition, Experiment
from support import REPOSITORY, shared_data

SPECS = sorted((REPOSITORY / "specs").rglob("*.yaml"))
STUDY = REPOSITORY / "specs" / "gsm8k"
OPEN = REPOSITORY / "specs" / "open_questions"


def spec_id(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def study(name: str) -> Experiment:
    return load_spec(STUDY / f"{name}.yaml")


def fields(condition: Condition, block: str, *names: str) -> list[Any]:
    return [getattr(getattr(condition, block).config, name) for name in names]


@pytest.mark.parametrize("path", SPECS, ids=spec_id)
def test_a_shipped_spec_is_right(path: Path) -> None:
    experiment = load_spec(path)
    assert experiment.question
    assert experiment.hypotheses is not None
    assert experiment.hypotheses.claims


@pytest.mark.parametrize("path", SPECS, ids=spec_id)
def test_a_shipped_spec_says_what_it_asks_and_how_to_run_it(path: Path) -> None:
    head = path.read_text().split("name:")[0]
    assert f"nsd run {path.relative_to(REPOSITORY)}" in head


def test_no_two_shipped_specs_share_a_name() -> None:
    names = [load_spec(path).name for path in SPECS]
    assert len(names) == len(set(names))


def test_every_planned_spec_of_the_study_is_there() -> None:
    assert {path.stem for path in STUDY.glob("*.yaml")} >= {
        *("v1_sft", "v1_5_filtered", "v2_k32", "v3_qwen3", "v4_grpo", "v5_lora", "v6_rounds", "v7_numinamath"),
    }
    assert {path.stem for path in OPEN.glob("*.yaml")} >= {
        *("label_accuracy", "rl_vs_sft_same_labels", "how_many_high_confidence", "threshold_sweep"),
        "stronger_labeler",
    }


def test_v1_is_the_study() -> None:
    noisy = study("v1_sft").conditions["noisy_student"]
    assert (noisy.model.path, noisy.model.dtype, noisy.model.lora) == ("Qwen/Qwen2.5-0.5B-Instruct", "bfloat16", None)
    assert noisy.prompt.template == (
        "Solve this math problem step by step. End with #### followed by the numerical answer.\n\n"
        "Problem: {question}\n\nSolution:"
    )
    assert (noisy.prompt.chat, noisy.prompt.separator) == (False, " ")
    assert noisy.data.config.split.model_dump() == {"labeled": 1000, "unlabeled": 4000, "test": 500, "seed": 42}  # type: ignore[attr-defined]
    assert fields(noisy, "labeler", "k", "temperature", "max_tokens", "threshold", "target") == [
        8,
        0.7,
        256,
        0,
        "first",
    ]
    assert fields(noisy, "trainer", "epochs", "batch_size", "learning_rate", "loss", "trl") == [2, 4, 2e-5, "full", {}]
    assert fields(noisy, "eval", "temperature", "max_tokens") == [0.1, 256]
    assert (noisy.label_with, noisy.init, noisy.rounds) == ("baseline", "base", 1)


def test_v1_5_keeps_six_of_eight_votes() -> None:
    filtered = study("v1_5_filtered").conditions["filtered"]
    assert fields(filtered, "labeler", "k", "threshold") == [8, 0.75]
    assert filtered.label_with == "baseline"


def test_v4_is_the_study() -> None:
    experiment = study("v4_grpo")
    baseline, noisy = experiment.conditions["baseline"], experiment.conditions["noisy_student"]
    names = ("num_generations", "prompts_per_step", "learning_rate", "temperature", "loss_type", "beta", "max_tokens")
    assert fields(baseline, "trainer", *names) == [8, 1, 1e-5, 0.3, "dr_grpo", 0.04, 256]
    assert fields(baseline, "trainer", "steps") == [500]
    assert fields(noisy, "trainer", "steps") == [2500]
    assert noisy.label_with == "base"
    assert experiment.conditions["base"].train_on == ()
    assert noisy.init == "base"


def test_v2_votes_over_16_and_32() -> None:
    ks = [
        fields(condition, "labeler", "k")[0] for condition in study("v2_k32").conditions.values() if condition.labeler
    ]
    assert sorted(ks) == [16, 16, 32, 32]


def test_v5_has_every_rank_at_ten_times_the_rate() -> None:
    conditions = study("v5_lora").conditions.values()
    found = {(c.trainer.use, c.model.lora.rank, c.trainer.config.learning_rate) for c in conditions if c.model.lora}  # type: ignore[union-attr, attr-defined]
    assert found == {(use, rank, rate) for use, rate in (("sft", 2e-4), ("grpo", 1e-4)) for rank in (8, 4, 1)}
    assert {(c.model.lora.alpha, c.model.lora.targets) for c in conditions if c.model.lora} == {(32, "all-linear")}


def test_students_of_v3_are_labeled_by_their_own_model() -> None:
    experiment = study("v3_qwen3")
    for condition in experiment.conditions.values():
        if condition.label_with:
            assert experiment.conditions[condition.label_with].model == condition.model
    assert {c.model.path for c in experiment.conditions.values()} == {"Qwen/Qwen3-0.6B", "Qwen/Qwen2.5-1.5B-Instruct"}


def test_v7_changes_only_where_the_unlabeled_problems_come_from() -> None:
    conditions = study("v7_numinamath").conditions
    ours, theirs = conditions["filtered"].data.config, conditions["numina_filtered"].data.config
    assert ours.unlabeled_from is None  # type: ignore[attr-defined]
    assert theirs.unlabeled_from["use"] == "numinamath"  # type: ignore[attr-defined]
    assert ours.model_copy(update={"unlabeled_from": None}) == theirs.model_copy(update={"unlabeled_from": None})


def test_rl_and_sft_train_on_the_same_labels() -> None:
    conditions = load_spec(OPEN / "rl_vs_sft_same_labels.yaml").conditions
    sft, grpo = conditions["sft_noisy"], conditions["grpo_noisy"]
    assert (sft.label_with, sft.labeler, sft.data) == (grpo.label_with, grpo.labeler, grpo.data)


def test_the_headers_quote_the_published_counts() -> None:
    rows = list(csv.DictReader(shared_data("published_noisy_student.csv").open()))
    correct = {row["condition"]: row["correct"] for row in rows}
    heads = {
        name: (STUDY / f"{name}.yaml").read_text().split("\nname:")[0]
        for name in ("v1_sft", "v1_5_filtered", "v4_grpo")
    }
    expected = {
        "v1_sft": {
            "base": "base",
            "pseudo_only": "pseudo_only",
            "baseline": "sft_baseline",
            "noisy_student": "sft_noisy_student",
            "oracle": "sft_oracle",
        },
        "v1_5_filtered": {"baseline": "sft_baseline_v1_5", "filtered": "sft_filtered"},
        "v4_grpo": {"baseline": "grpo_baseline", "noisy_student": "grpo_noisy_student"},
    }
    for spec, arms in expected.items():
        for arm, row in arms.items():
            percent = f"{int(correct[row]) / 5:.1f} %"
            assert f"{arm} {correct[row]} ({percent})" in heads[spec], (spec, arm)


def test_discovery_asks_the_published_questions_three_ways_with_as_many_samples() -> None:
    conditions = load_spec(REPOSITORY / "specs" / "discovery" / "lcb_v6.yaml").conditions
    searches = {name: one.eval.make().search() for name, one in conditions.items()}
    assert {name: one and (one.by, one.samples) for name, one in searches.items()} == {
        "best_of_k": ("sampling", 2880),
        "multi_turn": ("multi_turn", 2880),
        "sdpo": ("training", 2880),
    }
    (rows,) = {tuple(fields(one, "data", "rows")[0]) for one in conditions.values()}
    assert rows == (1, 3, 10, 43, 46, 59, 69, 74, 86, 91, 92, 95, 100, 103, 111, 120, 125, 127, 129)
    assert {fields(one, "verifier", "tests")[0] for one in conditions.values()} == {"all"}
    assert fields(conditions["sdpo"], "train_verifier", "tests") == ["train"]
    assert fields(conditions["multi_turn"], "eval", "temperature", "feedback_tokens") == [1.0, 32000]
