"""Searches in a plan: what their digests are of, and what a smoke run leaves of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsd.runner.plan.build import build_plan
from nsd.runner.plan.jobs import ToDiscover
from nsd.runner.plan.model import Stage
from nsd.runner.spec.load import load_spec

SPEC = """\
name: toy
model: {path: builtin:wordmath-1m, LORA}
data: {use: wordmath, train: 30, test: 20, split: {labeled: 4, test: 3}}
train_verifier: final_answer
eval: {use: discovery, samples: 16, batch: 4, MORE}
conditions: {base: {train_on: []}}
"""
TRAINER = "by: training, trainer: {use: rloo, num_generations: 4, max_tokens: 256}"


def searches(folder: Path, more: str, lora: str = "", smoke: bool = False) -> list[Stage]:
    (folder / "toy.yaml").write_text(SPEC.replace(", MORE", f", {more}" if more else "").replace(", LORA", lora))
    plan = build_plan(load_spec(folder / "toy.yaml"), smoke=smoke)
    return [one for one in plan.stages.values() if one.kind == "discover"]


@pytest.mark.parametrize(("smoke", "samples"), [(False, 16), (True, 8)])
def test_a_smoke_search_has_two_batches(tmp_path: Path, smoke: bool, samples: int) -> None:
    for stage in searches(tmp_path, "", smoke=smoke):
        assert isinstance(stage.job, ToDiscover)
        assert stage.job.search.samples == stage.job.sampling.n == samples
        assert stage.size.endswith(f"up to {samples} samples by sampling")


def test_a_search_by_sampling_is_of_engine_sampling_and_batch_and_trains_nothing(tmp_path: Path) -> None:
    first, *rest = searches(tmp_path, "", lora=", lora: {rank: 3}")
    assert len(rest) == 2 and {"engine", "sampling", "batch"} <= first.key.keys()
    assert not {"trainer", "seeds", "lora", "train_dtype", "train_verifier"} & first.key.keys()
    assert isinstance(first.job, ToDiscover) and first.job.engine is not None and first.job.engine.use == "hf"
    assert (first.job.trainer, first.job.lora, first.job.seeds, first.job.train_verifier) == (None,) * 4


def test_a_search_by_training_is_of_trainer_seeds_and_adapter(tmp_path: Path) -> None:
    first, *_ = searches(tmp_path, TRAINER, lora=", lora: {rank: 3}, train_dtype: float32")
    assert {"trainer", "seeds", "lora", "train_verifier"} <= first.key.keys()
    assert not {"engine", "sampling", "batch"} & first.key.keys()
    assert (first.key["lora"]["rank"], first.key["trainer"]["use"]) == (3, "rloo")
    assert isinstance(first.job, ToDiscover) and first.job.trainer is not None and first.job.train_verifier is not None
    assert first.job.engine is None and first.job.lora is not None and first.job.lora.rank == 3
    assert (first.job.trainer.use, first.job.train_verifier.use) == ("rloo", "final_answer")
    assert first.job.seeds is not None and vars(first.job.seeds) == first.key["seeds"]
