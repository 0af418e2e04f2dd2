"""Before a run begins: packages that are missing, and a device that cannot be had, are said at once."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from nsd.plugins.api import Device, Trainer
from nsd.plugins.errors import InputError, MissingExtra
from nsd.plugins.extras import install_command, missing, requirements
from nsd.plugins.trainers._options import comes_out_even
from nsd.runner.cli.app import app
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.errors import SpecErrors
from nsd.runner.spec.load import load_spec
from nsd.runner.spec.model import Resources
from nsd.runner.work import machine, ready
from nsd.runner.work.device import Decision, Gpu
from nsd.runner.work.execute import _Workers
from nsd.runner.work.jobs import worker_environment
from nsd.runner.work.ready import (
    check_packages,
    compiler_note,
    computes,
    make_ready,
    processes_of,
    wanted_accelerator,
)

SPEC = """\
name: toy
model: builtin:wordmath-1m
data:
  {use: jsonl, train: train.jsonl, test: test.jsonl, fields: {question: q, answer: a, solution: s}, split: {labeled: 6}}
verifier: numeric
trainer: {use: sft, epochs: 1, batch_size: 6}
conditions: {base: {train_on: []}, taught: {train_on: [labeled]}}
"""
L4 = Gpu("NVIDIA L4", 23034, (8, 9))


def on(gpus: int) -> Decision:
    return Decision("cuda", gpus, "bfloat16", "bf16", (L4,) * gpus, tuple(map(str, range(gpus))), "as told")


def plan_of(folder: Path, more: str = "") -> Plan:
    for name in ("train", "test"):
        row = {"q": f"{name}?", "a": "1", "s": "#### 1"}
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({**row, "q": f"{name} {i}?"}) for i in range(6)))
    (folder / "toy.yaml").write_text(SPEC + more)
    return build_plan(load_spec(folder / "toy.yaml"))


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, driver: str = "580.95.05", count: int = 1) -> None:
    """A machine whose driver reports GPUs, though there are none: what it says is all that a decision sees."""
    path = folder / "bin" / "nvidia-smi"
    path.parent.mkdir()
    lines = "".join(f"NVIDIA L4, 23034, {driver}, GPU-{n}, 8.9, [N/A]\\n" for n in range(count))
    path.write_text(f"#!{sys.executable}\nprint({lines!r}.replace(chr(92) + 'n', chr(10)), end='')\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(path.parent))


# --------------------------------------------------------------------------- packages


def test_the_packages_of_an_extra_are_those_of_the_metadata() -> None:
    assert {"torch>=2.9", "safetensors>=0.5"} <= set(requirements("train")) and requirements("nothing") == []
    assert missing("train") is None


def test_a_missing_package_is_installed_by_one_command_without_nsd_in_it() -> None:
    command = install_command("sky")
    assert command == f"{sys.executable} -m pip install 'skypilot<0.15,>=0.14'"
    assert "nsd" not in command.removeprefix(sys.executable)
    assert missing("sky") == "skypilot"


def test_a_run_without_torch_refuses_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_of(tmp_path)
    monkeypatch.setattr(ready, "missing", lambda extra: "torch" if extra == "train" else None)
    words = ["run", str(tmp_path / "toy.yaml"), "-w", str(tmp_path / "w")]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, MissingExtra) and "package 'torch'" in str(done.exception)
    assert not list((tmp_path / "w").glob("partial/*/job.json"))


def test_only_extras_of_plugins_that_are_owed_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ready, "missing", asked.append)
    stages = list(plan_of(tmp_path).stages.values())
    check_packages([stage for stage in stages if stage.kind == "score"])
    assert asked == []
    check_packages(stages)
    assert asked == ["train"]
    monkeypatch.setattr(ready, "missing", lambda extra: "trl")
    with pytest.raises(MissingExtra, match="'trl'"):
        check_packages(stages)


# --------------------------------------------------------------------------- the device


def test_scoring_needs_no_device(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "resources: {accelerators: L4:1}\n")
    assert {stage.kind for stage in plan.stages.values() if computes(stage)} == {"train", "sample"}
    assert make_ready(plan, [stage for stage in plan.stages.values() if stage.kind == "score"]) is None


def test_an_accelerator_that_is_asked_for_is_not_replaced_by_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = plan_of(tmp_path, "resources: {accelerators: L4:1}\n")
    with pytest.raises(InputError, match="asks for accelerators: L4:1, and no NVIDIA GPU is here"):
        make_ready(plan, plan.stages.values())
    plan = plan_of(tmp_path, "resources: {accelerators: L4:1, device: cpu}\n")
    found = make_ready(plan, plan.stages.values())
    assert found is not None and found.device == "cpu"


def test_a_gpu_with_a_cpu_build_of_torch_ends_the_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_of(tmp_path)
    nvidia_smi(tmp_path, monkeypatch)
    done = CliRunner().invoke(app, ["run", str(tmp_path / "toy.yaml"), "-w", str(tmp_path / "w")])
    assert isinstance(done.exception, InputError) and not list((tmp_path / "w").glob("partial/*/job.json"))
    said = str(done.exception)
    assert "an NVIDIA GPU is here (driver 580.95.05), and torch" in said and "is a build for CPUs" in said


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, None),
        ("L4:1", ("L4", 1)),
        ("H100", ("H100", 1)),
        (["A100:2", "L4:1"], ("L4", 1)),
        ("L4:0.5", ("L4", 1)),
        ([], None),
    ],
)
def test_the_accelerator_that_is_wanted(asked: Any, found: tuple[str, int] | None) -> None:
    assert wanted_accelerator(Resources(accelerators=asked)) == found


class Rows(Trainer):
    name: ClassVar[str] = "rows"

    def rows_per_step(self) -> int:
        return 6


@pytest.mark.parametrize(
    ("gpus", "asked", "machines", "found"),
    [(1, None, 1, 1), (2, None, 1, 2), (4, None, 1, 3), (3, 2, 1, 2), (4, None, 2, 3), (1, 3, 2, 3)],
)
def test_a_training_takes_as_many_gpus_as_share_its_rows(
    gpus: int, asked: int | None, machines: int, found: int
) -> None:
    assert processes_of(Rows(), on(gpus), asked, machines) == found


def test_processes_that_cannot_share_a_step_are_refused_with_the_spec(tmp_path: Path) -> None:
    with pytest.raises(
        SpecErrors, match="4 processes cannot share the 6 rows that a step of 'taught' has evenly"
    ) as told:
        plan_of(tmp_path, "resources: {processes: 2, nodes: 2}\n")
    assert told.value.errors[0].line == 8
    assert plan_of(tmp_path, "resources: {processes: 3, nodes: 2}\n").stages


SPREAD = "conditions: {base: {train_on: []}, taught: {train_on: [labeled], trainer: {fsdp: true}"


def spread(folder: Path, lora: str = "", more: str = "") -> Plan:
    plan_of(folder)
    text = (folder / "toy.yaml").read_text().replace(SPEC.splitlines()[-1], f"{SPREAD}{lora}}}}}\n{more}")
    (folder / "toy.yaml").write_text(text)
    return build_plan(load_spec(folder / "toy.yaml"))


def test_a_training_to_be_spread_is_refused_where_it_would_have_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = spread(tmp_path)
    monkeypatch.setattr(ready, "decide", lambda *_: on(1))
    with pytest.raises(InputError, match=r"train taught.*trainer\.fsdp spreads a training over several processes"):
        make_ready(plan, plan.stages.values())
    monkeypatch.setattr(ready, "decide", lambda *_: on(2))
    make_ready(plan, plan.stages.values())
    assert [s.job.processes for s in plan.stages.values() if s.kind == "train"] == [2]


def test_a_training_to_be_spread_is_refused_with_an_adapter_by_the_spec(tmp_path: Path) -> None:
    with pytest.raises(SpecErrors, match=r"condition 'taught': trainer\.fsdp does not go with model\.lora"):
        spread(tmp_path, ", model: {lora: {rank: 2}}")


@pytest.mark.parametrize(
    ("rows", "micro", "processes", "even"),
    [(6, None, 2, True), (6, 2, 3, True), (6, 2, 2, False), (6, 4, 2, True), (6, None, 7, False), (12, 4, 2, False)],
)
def test_rows_and_micro_batches_come_out_even(rows: int, micro: int | None, processes: int, even: bool) -> None:
    assert comes_out_even(rows, micro, processes) is even


# --------------------------------------------------------------------------- what workers are told


def test_a_worker_sees_the_gpus_that_it_uses_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    assert worker_environment(gpus=["2", "3"])["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert "ACCELERATE_USE_CPU" not in worker_environment(gpus=["2"])
    hidden = worker_environment(gpus=())
    assert (hidden["CUDA_VISIBLE_DEVICES"], hidden["ACCELERATE_USE_CPU"]) == ("", "true")
    workers = _Workers(False, on(4))
    assert workers._gpus(1) == ("0",) and workers._gpus(3) == ("0", "1", "2")
    assert _Workers(False, None)._gpus(2) is None


@pytest.mark.parametrize(
    ("half", "dtype", "drawing", "training"),
    [
        ("bfloat16", "bfloat16", "bfloat16", "bfloat16"),
        ("bfloat16", "float16", "float16", "float16"),
        ("float16", "bfloat16", "float16", "float32"),
        ("float16", "float32", "float32", "float32"),
        ("float32", "bfloat16", "float32", "float32"),
    ],
)
def test_types_in_force_without_units_for_bfloat16(half: Any, dtype: str, drawing: str, training: str) -> None:
    device = Device("cuda", half)
    assert (device.type_in_force(dtype, False), device.type_in_force(dtype, True)) == (drawing, training)


@pytest.mark.slow
def test_a_model_is_loaded_in_the_type_in_force_and_a_manifest_names_the_device(tmp_path: Path) -> None:
    plan_of(tmp_path)
    words = ["run", str(tmp_path / "toy.yaml"), "-w", str(tmp_path / "w"), "--only", "base"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "device: cpu, there is no NVIDIA GPU" in done.output
    (manifest,) = (tmp_path / "w").glob("artifacts/sample-*/manifest.json")
    assert json.loads(manifest.read_text())["machine"]["device"] == "cpu"


# --------------------------------------------------------------------------- the setup of a machine


def ready_said(folder: Path) -> str:
    """What `nsd ready` prints, or the error that it ends with."""
    done = CliRunner().invoke(app, ["ready", str(folder / "toy.yaml")])
    return done.output if done.exception is None else str(done.exception)


def test_a_machine_is_asked_before_there_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "toy.yaml").write_text(SPEC)
    assert ready_said(tmp_path) == "ready: cpu, there is no NVIDIA GPU\n"
    (tmp_path / "toy.yaml").write_text(SPEC + "resources: {accelerators: L4:1}\n")
    assert "asks for accelerators: L4:1, and no NVIDIA GPU is here" in ready_said(tmp_path)
    monkeypatch.setattr(ready, "missing", lambda extra: "trl" if extra == "train" else None)
    assert "package 'trl'" in ready_said(tmp_path)


def test_a_machine_whose_torch_its_driver_cannot_run_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy.yaml").write_text(SPEC)
    nvidia_smi(tmp_path, monkeypatch, driver="535.183.06")
    monkeypatch.setattr(
        machine, "_torch_version_file", lambda: "__version__ = '2.13.0'\ncuda: str = '13.0'\nhip = None\n"
    )
    said = ready_said(tmp_path)
    assert "torch 2.13.0 is built for CUDA 13.0, which needs driver 580 or newer" in said and "535.183.06" in said


def test_without_a_compiler_a_gpu_has_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert "there is no C compiler (cc, gcc or clang) here" in (compiler_note(on(1)) or "")
    assert compiler_note(None) is None and compiler_note(Decision("cpu", 1, "float32", "no", (), (), "")) is None
    (tmp_path / "gcc").write_text("#!/bin/sh\n")
    (tmp_path / "gcc").chmod(0o755)
    assert compiler_note(on(1)) is None
