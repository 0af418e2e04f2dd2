"""`nsd doctor`: each thing that it looks at, in each state."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nsd.plugins.errors import InputError
from nsd.plugins.registry import find
from nsd.runner.cli import doctor
from nsd.runner.cli.app import app
from nsd.runner.cli.doctor import State, bucket, c_compiler, device, memory, packages, place, sandboxes, torch_sees
from nsd.runner.spec.model import Resources
from nsd.runner.work.device import Decision, Facts, Gpu

L4 = Gpu("NVIDIA L4", 23034, (8, 9), "GPU-1")


def test_it_looks_at_everything_and_ends_well_where_nothing_stands_in_the_way(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--json", "-w", str(tmp_path / "w")])
    findings = {one["what"]: one for one in json.loads(done.stdout)["findings"]}
    assert done.exit_code == 0
    assert {"nsd", "train", "math", "device", "processor", "memory", "workspace", "SkyPilot"} <= findings.keys()
    assert findings["train"]["state"] == "works" and "torch 2." in findings["train"]["said"]
    assert not (tmp_path / "w").exists(), "looking leaves nothing behind"


def test_what_stands_in_the_way_of_a_spec_is_marked_and_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        "name: x\nmodel: builtin:wordmath-1m\ndata: {use: wordmath}\nconditions: {base: {train_on: []}}\n"
        "resources: {accelerators: L4:1}\n"
    )
    done = CliRunner().invoke(app, ["doctor", str(tmp_path / "spec.yaml"), "-w", str(tmp_path)])
    assert done.exit_code == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("!!")]
    assert "the spec asks for accelerators: L4:1, and no NVIDIA GPU is here" in line


def test_what_the_rollouts_of_a_spec_lack_is_said_as_a_run_would_say_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSD_VLLM", sys.executable)
    (tmp_path / "spec.yaml").write_text(
        "name: x\nmodel: builtin:wordmath-1m\ndata: {use: wordmath, split: {labeled: 8, test: 4}}\n"
        "resources: {device: cpu}\n"
        "conditions: {rl: {train_on: [labeled], trainer: {use: rloo, steps: 1, rollout: vllm}}}\n"
    )
    done = CliRunner().invoke(app, ["doctor", str(tmp_path / "spec.yaml"), "-w", str(tmp_path), "--json"])
    (found,) = [one for one in json.loads(done.stdout)["findings"] if one["what"] == "condition rl"]
    assert done.exit_code == 1 and found["state"] == "broken"
    assert found["said"].startswith(f"trainer.rollout: vllm: {sys.executable} has no vLLM. ")
    assert found["said"].endswith("makes an environment for it; one that you have is named by NSD_VLLM=FOLDER")


def test_a_vllm_engine_without_a_vllm_is_found_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSD_VLLM", sys.executable)
    with pytest.raises(InputError, match=r"^engine vllm: .* has no vLLM"):
        find("engine", "vllm")().ready()


def test_an_extra_that_the_installed_nsd_does_not_know_is_not_called_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requirements", lambda extra: [])
    assert packages("ray").state is State.MISSING


def test_a_missing_extra_names_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "missing", lambda extra: "trl")
    found = packages("train")
    assert found.state is State.MISSING and found.said.startswith("no trl: needed for training")
    assert found.way_out.startswith(f"{sys.executable} -m pip install ") and "'trl<1.17,>=1.16'" in found.way_out


def test_a_driver_that_is_too_old_stands_in_the_way() -> None:
    facts = Facts("Linux", torch="2.13.0+cu130", torch_cuda="13.0", driver="550.1", gpus=(L4,))
    decision, found = device(facts, Resources())
    assert decision is None and found.state is State.BROKEN and "needs driver 580 or newer" in found.said


@pytest.mark.slow
def test_a_gpu_that_torch_does_not_open_stands_in_the_way() -> None:
    decision = Decision("cuda", 1, "bfloat16", "bf16", (L4,), ("0",), "as told")
    found = torch_sees(decision)  # here is none, so torch opens none
    assert found.state is State.BROKEN and found.what == "torch on the GPU"


@pytest.mark.parametrize(("there", "state"), [("/bin/gcc", State.WORKS), (None, State.MISSING)])
def test_a_compiler_may_be_left_out(there: str | None, state: State) -> None:
    assert c_compiler(there).state is state


def test_each_kind_of_sandbox_is_tried_and_what_it_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(kind: str) -> frozenset[str]:
        if kind == "bubblewrap":
            raise InputError("setting up uid map: Permission denied")
        return frozenset({"time", "files"})

    monkeypatch.setattr("nsd.plugins.sandbox.guarantees", tried)
    bubblewrap, landlock = sandboxes()
    assert bubblewrap.state is State.MISSING and "setting up uid map" in bubblewrap.said
    assert "pip install" in bubblewrap.way_out
    assert landlock.said == "holds files, time; not network, environment, processes, memory"


def test_memory_is_read_where_linux_says_it(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       25165824 kB\nMemFree: 1 kB\nMemAvailable:   20971520 kB\n")
    assert memory(tmp_path / "meminfo").said == "24 GiB, 20 free"
    assert memory(tmp_path / "none").state is State.MISSING


def test_a_workspace_that_cannot_be_written_stands_in_the_way(tmp_path: Path) -> None:
    assert place(tmp_path / "deep" / "w").state is State.WORKS
    assert place(Path("/proc/nsd-workspace")).state is State.BROKEN
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_asked(tmp_path: Path) -> None:
    assert bucket(f"file://{tmp_path}").said.endswith("0 finished stages")
    assert bucket("ftp://nowhere").state is State.BROKEN
