"""`trainer.trl`: what may stand there is known without torch, and what may not is said plainly."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from nsd.plugins.registry import find
from nsd.plugins.trainers import _options, _trl_fields, grpo, sft


def config(kind: str) -> Any:
    return find("trainer", kind).Config


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_tables_are_the_installed_fields(kind: str) -> None:
    import trl

    installed = {f.name for f in dataclasses.fields(trl.SFTConfig if kind == "sft" else trl.GRPOConfig)}
    table = _trl_fields.SFT if kind == "sft" else _trl_fields.GRPO
    assert installed - table == set(), "TRL has new fields"
    assert table - installed == set(), "TRL has lost fields"


@pytest.mark.parametrize(("known", "own"), [(_trl_fields.SFT, sft._OWN), (_trl_fields.GRPO, grpo._OWN)])
def test_every_refused_field_exists(known: frozenset[str], own: dict[str, str]) -> None:
    assert set(own) <= known
    assert set(_options.REFUSED) <= _trl_fields.SFT | _trl_fields.GRPO


def test_unknown_field_names_the_nearest_one_and_its_place() -> None:
    with pytest.raises(ValidationError) as caught:
        config("sft").model_validate({"trl": {"adam_beta_1": 0.8, "packing": True}})
    [error] = caught.value.errors()
    assert error["loc"][:2] == ("trl", "adam_beta_1")
    assert error["msg"] == "TRL's SFTConfig has no field 'adam_beta_1'; did you mean 'adam_beta1'?"


def test_a_field_of_the_other_trainer_is_unknown() -> None:
    with pytest.raises(ValidationError, match="TRL's SFTConfig has no field 'epsilon_high'"):
        config("sft").model_validate({"trl": {"epsilon_high": 0.28}})
    assert config("grpo").model_validate({"rewards": ["./mine.py:R"], "trl": {"epsilon_high": 0.28}}).trl == {
        "epsilon_high": 0.28
    }


@pytest.mark.parametrize(
    ("kind", "name", "way"),
    [
        ("sft", "output_dir", "nsd decides where a stage writes"),
        ("sft", "seed", "use the spec's `seeds`"),
        ("sft", "num_train_epochs", "use trainer.epochs"),
        ("sft", "report_to", "use the spec's `track` list"),
        ("grpo", "num_train_epochs", "use trainer.steps"),
        ("grpo", "max_completion_length", "use trainer.max_tokens"),
        ("grpo", "generation_batch_size", "use trainer.steps_per_generation"),
    ],
)
def test_fields_that_nsd_sets_are_refused_with_the_way_out(kind: str, name: str, way: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(kind).model_validate(
            {"rewards": ["./r.py:R"], "trl": {name: 1}} if kind == "grpo" else {"trl": {name: 1}}
        )
    assert caught.value.errors()[0]["msg"] == f"nsd sets '{name}' itself: {way}"


def test_every_fault_is_reported_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        config("sft").model_validate({"epochs": 0, "trl": {"nope": 1, "seed": 2}, "lerning_rate": 1})
    assert {error["loc"][:2] for error in caught.value.errors()} == {
        ("epochs",),
        ("trl", "nope"),
        ("trl", "seed"),
        ("lerning_rate",),
    }


def test_schema_lists_the_allowed_fields() -> None:
    listed = config("grpo").model_json_schema()["properties"]["trl"]
    assert listed["additionalProperties"] is False
    assert "epsilon_high" in listed["properties"]
    assert "output_dir" not in listed["properties"]


def test_configs_survive_a_round_trip_and_load_nothing_heavy() -> None:
    code = """
import sys
from nsd.plugins.registry import find
for kind, block in (("sft", {"trl": {"adam_beta1": 0.8}}), ("grpo", {"rewards": ["./r.py:R"]})):
    Config = find("trainer", kind).Config
    made = Config.model_validate(block)
    assert Config.model_validate(made.model_dump(mode="json")) == made
    Config.model_json_schema()
heavy = {"torch", "transformers", "trl", "datasets", "peft", "accelerate", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
