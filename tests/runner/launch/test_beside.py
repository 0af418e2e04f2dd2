"""What a machine's setup must bring beside nsd, told before a machine is paid."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsd.plugins.errors import InputError
from nsd.runner.launch.beside import beside
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec

SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 8, test: 4}}
engine: ENGINE
eval: accuracy
conditions:
  base: {train_on: []}
  rl: {train_on: [labeled], trainer: {use: TRAINER, steps: 1, rollout: "ROLLOUT"}}
"""


@pytest.mark.parametrize(
    ("engine", "trainer", "rollout", "wanted"),
    [
        ("hf", "rloo", "hf", ""),
        ("vllm", "rloo", "hf", "vllm"),
        ("hf", "rloo", "vllm", "vllm"),
        ("hf", "sdpo", "vllm://127.0.0.1:8000", ""),
        ("hf", "grpo", "trl", ""),
    ],
)
def test_vllm_is_brought_where_something_draws_by_it(
    tmp_path: Path, engine: str, trainer: str, rollout: str, wanted: str
) -> None:
    assert beside(planned(tmp_path, engine, trainer, rollout)) == wanted


def test_what_a_setup_cannot_bring_is_refused_but_not_where_its_arm_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        beside(planned(tmp_path, "hf", "grpo", "vllm"))
    assert str(error.value) == (
        "the spec needs a vLLM of 0.22.0 to 0.31.0 in nsd's own environment (trainer grpo, rollout: vllm), which a "
        "launch does not install: --environment FOLDER names an environment on the machine that has it"
    )
    assert beside(planned(tmp_path, "hf", "grpo", "vllm", "base")) == ""


def planned(folder: Path, engine: str, trainer: str, rollout: str, *only: str) -> Plan:
    text = SPEC.replace("ENGINE", engine).replace("TRAINER", trainer).replace("ROLLOUT", rollout)
    (folder / "spec.yaml").write_text(text)
    return build_plan(load_spec(folder / "spec.yaml"), only=only)
