"""What nsd decides of a machine's report, over machines that people have: a table on record.

NSD_UPDATE_GOLDEN=1 pytest tests/runner/work/test_device.py      # write it anew, then read its diff
"""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.errors import InputError
from nsd.runner.work.device import Facts, capabilities, decide
from nsd.runner.work.machine import FIELDS, device_files, parse_build, parse_smi, read_facts

GOLDEN = Path(__file__).parents[1] / "golden" / "devices.json"
CPU_BUILD = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"
CUDA_13 = "__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"
CUDA_128 = "__version__ = '2.11.0+cu128'\ncuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n"
CUDA_126 = "__version__ = '2.13.0+cu126'\ncuda: Optional[str] = '12.6'\nhip: Optional[str] = None\n"
CUDA_118 = "__version__ = '2.4.1+cu118'\ncuda: Optional[str] = '11.8'\nhip: Optional[str] = None\n"
ROCM = "__version__ = '2.13.0+rocm7.0'\ncuda: Optional[str] = None\nhip: Optional[str] = '7.0.51831'\n"


def smi(name: str, memory: int, driver: str, capability: str, mig: str = "[N/A]", count: int = 1) -> str:
    """What nvidia-smi lists of `count` GPUs of a kind."""
    rows = (f"{name}, {memory}, {driver}, GPU-{name[-4:].strip()}{n}, {capability}, {mig}" for n in range(count))
    return "\n".join(rows) + "\n"


L4 = smi("NVIDIA L4", 23034, "580.95.05", "8.9")
H100 = smi("NVIDIA H100 80GB HBM3", 81559, "580.95.05", "9.0", "Disabled", 4)
A100_CUT = smi("NVIDIA A100-SXM4-40GB", 40960, "570.86.15", "8.0", "Enabled")
INSTANCES = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-40GB0)
  MIG 3g.20gb     Device  0: (UUID: MIG-aaaa-1)
  MIG 3g.20gb     Device  1: (UUID: MIG-bbbb-2)
"""


@dataclass
class Machine:
    """A machine's report as its tools print it, and what was asked of nsd there."""

    smi: str = ""
    torch: str = CUDA_13
    instances: str = ""
    nodes: tuple[str, ...] = ()
    error: str | None = None
    visible: str | None = None
    system: str = "Linux"
    ask: tuple[tuple[str, Any], ...] = ()

    def facts(self) -> Facts:
        driver, gpus = parse_smi(self.smi, self.instances)
        build = parse_build(self.torch)
        return Facts(
            self.system,
            "arm64" if self.system == "Darwin" else "x86_64",
            build.get("__version__"),
            build.get("cuda"),
            build.get("hip"),
            driver,
            self.error,
            gpus,
            self.nodes,
            self.visible,
        )

    def decided(self) -> dict[str, Any]:
        try:
            found = decide(self.facts(), **dict(self.ask))
        except InputError as error:
            return {"error": str(error).replace(sys.executable, "PYTHON")}
        return {
            "device": found.device,
            "processes": found.processes,
            "dtype": found.dtype,
            "mixed": found.mixed,
            "gpus": [gpu.name for gpu in found.gpus],
            "ids": list(found.ids),
            "why": found.why,
        }


MACHINES = {
    "laptop without a GPU": Machine(torch=CPU_BUILD),
    "laptop without a GPU, L4 asked for": Machine(torch=CPU_BUILD, ask=(("wanted", ("L4", 1)),)),
    "laptop without a GPU, device: cuda": Machine(torch=CPU_BUILD, ask=(("device", "cuda"),)),
    "one L4": Machine(L4),
    "one L4, device: cpu": Machine(L4, ask=(("device", "cpu"),)),
    "one L4, CPU build of torch": Machine(L4, CPU_BUILD),
    "one L4, no torch": Machine(L4, ""),
    "one L4, ROCm build of torch": Machine(L4, ROCM),
    "L4, driver 470, CUDA 13": Machine(smi("NVIDIA L4", 23034, "470.256.02", "8.9")),
    "L4, driver 550, CUDA 13": Machine(smi("NVIDIA L4", 23034, "550.163.01", "8.9")),
    "L4, driver 550, CUDA 12.8": Machine(smi("NVIDIA L4", 23034, "550.163.01", "8.9"), CUDA_128),
    "A100, driver 470, CUDA 11.8": Machine(
        "NVIDIA A100-SXM4-80GB, 81251, 470.256.02, GPU-1, 8.0, Disabled\n", CUDA_118, nodes=("/dev/nvidia0",)
    ),
    "A100, driver 470, fields of old": Machine("NVIDIA A100-SXM4-80GB, 81251, 470.256.02, GPU-1\n", CUDA_118),
    "T4": Machine(smi("Tesla T4", 15360, "580.95.05", "7.5")),
    "V100, CUDA 13": Machine(smi("Tesla V100-SXM2-16GB", 16384, "580.95.05", "7.0")),
    "V100, CUDA 12.6": Machine(smi("Tesla V100-SXM2-16GB", 16384, "580.95.05", "7.0"), CUDA_126),
    "P100, CUDA 12.6": Machine(smi("Tesla P100-PCIE-16GB", 16384, "535.230.02", "6.0"), CUDA_126),
    "RTX 2080 Ti": Machine(smi("NVIDIA GeForce RTX 2080 Ti", 11264, "580.95.05", "7.5")),
    "two RTX 4090": Machine(smi("NVIDIA GeForce RTX 4090", 24564, "580.95.05", "8.9", count=2)),
    "two RTX 4090, one process": Machine(
        smi("NVIDIA GeForce RTX 4090", 24564, "580.95.05", "8.9", count=2), ask=(("processes", 1),)
    ),
    "two RTX 4090, three processes": Machine(
        smi("NVIDIA GeForce RTX 4090", 24564, "580.95.05", "8.9", count=2), ask=(("processes", 3),)
    ),
    "an RTX 4090 beside a T4": Machine(
        smi("NVIDIA GeForce RTX 4090", 24564, "580.95.05", "8.9") + smi("Tesla T4", 15360, "580.95.05", "7.5")
    ),
    "four H100": Machine(H100),
    "four H100, eight asked for": Machine(H100, ask=(("wanted", ("H100", 8)),)),
    "Slurm step with one card of four": Machine(H100, visible="2"),
    "CUDA_VISIBLE_DEVICES by id": Machine(H100, visible="GPU-HBM33,GPU-HBM31"),
    "CUDA_VISIBLE_DEVICES names no card": Machine(H100, visible="7"),
    "CUDA_VISIBLE_DEVICES stops at -1": Machine(H100, visible="1,-1,2"),
    "CUDA_VISIBLE_DEVICES hides all": Machine(H100, visible=""),
    "CUDA_VISIBLE_DEVICES hides all, H100 asked for": Machine(H100, visible="-1", ask=(("wanted", ("H100", 1)),)),
    "container with card 3 only": Machine(
        smi("NVIDIA A10G", 23028, "570.86.15", "8.6"), CUDA_128, nodes=("/dev/nvidia3",)
    ),
    "container without the driver": Machine(nodes=("/dev/nvidia0", "/dev/nvidia1")),
    "driver that does not answer": Machine(
        nodes=("/dev/nvidia0",),
        error="Failed to initialize NVML: Driver/library version mismatch NVML library version: 580.95",
    ),
    "WSL2 with the driver": Machine(smi("NVIDIA GeForce RTX 4090", 24564, "581.29", "8.9"), nodes=("/dev/dxg",)),
    "WSL2 without a GPU": Machine(nodes=("/dev/dxg",)),
    "WSL2 without a GPU, L4 asked for": Machine(nodes=("/dev/dxg",), ask=(("wanted", ("L4", 1)),)),
    "MIG with two instances": Machine(A100_CUT, CUDA_128, INSTANCES),
    "MIG, the second instance": Machine(A100_CUT, CUDA_128, INSTANCES, visible="MIG-bbbb-2"),
    "MIG without an instance": Machine(A100_CUT, CUDA_128, "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-40GB0)\n"),
    "GH200": Machine(smi("NVIDIA GH200 480GB", 97871, "580.95.05", "9.0")),
    "Blackwell with CUDA 12.6": Machine(smi("NVIDIA B200", 183359, "580.95.05", "10.0"), CUDA_126),
    "a Mac": Machine(torch="__version__ = '2.13.0'\ncuda: Optional[str] = None\n", system="Darwin"),
    "a Mac, device: mps": Machine(system="Darwin", ask=(("device", "mps"),)),
    "AMD": Machine(torch=ROCM),
}


def test_every_machine_gets_what_is_on_record() -> None:
    found = {name: machine.decided() for name, machine in MACHINES.items()}
    if os.environ.get("NSD_UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MACHINES)
def test_a_gpu_that_cannot_be_used_is_never_a_silent_cpu(name: str) -> None:
    machine = MACHINES[name]
    found = machine.decided()
    if machine.facts().has_nvidia and found.get("device") == "cpu":
        assert machine.visible is not None or ("device", "cpu") in machine.ask
    if "error" in found:
        assert (
            "device: cpu" in found["error"]
            or "leave it out" in found["error"]
            or "pip install" in found["error"]
            or "resources.processes" in found["error"]
        )


@pytest.mark.parametrize(
    ("asked", "trains", "draws", "ids"),
    [
        ({}, 4, 4, "0 1 2 3"),
        ({"processes": 2}, 2, 2, "0 1"),
        ({"sampling_processes": 1}, 4, 1, "0 1 2 3"),
        ({"processes": 1, "sampling_processes": 3}, 1, 3, "0 1 2"),
    ],
)
def test_every_gpu_that_trains_draws_too_unless_asked_otherwise(
    asked: dict[str, int], trains: int, draws: int, ids: str
) -> None:
    found = decide(Machine(H100).facts(), **asked)  # type: ignore[arg-type]
    assert (found.processes, found.drawing, " ".join(found.ids)) == (trains, draws, ids)
    assert list(found.beside) == ids.split()[1:draws]
    assert len(found.gpus) == len(found.ids)


def test_on_a_processor_one_process_draws_unless_asked_otherwise() -> None:
    facts = Machine(torch=CPU_BUILD).facts()
    assert decide(facts, processes=3).beside == ()
    assert decide(facts, sampling_processes=3).beside == ("", "")


def test_more_processes_than_gpus_are_refused_with_the_field() -> None:
    with pytest.raises(InputError, match=r"resources\.sampling_processes is 5, and 4 GPUs can be used"):
        decide(Machine(H100).facts(), sampling_processes=5)


@pytest.mark.parametrize(
    ("cuda", "found"),
    [
        ("11.8", ((5, 0), 9)),
        ("12.6", ((5, 0), 9)),
        ("12.8", ((7, 5), 12)),
        ("13.0", ((7, 5), 12)),
        ("13", ((7, 5), 12)),
    ],
)
def test_the_gpus_that_a_build_has_code_for(cuda: str, found: tuple[tuple[int, int], int]) -> None:
    assert capabilities(cuda) == found


def test_device_files_of_a_container(tmp_path: Path) -> None:
    for name in ("nvidia3", "nvidiactl", "nvidia-uvm", "dxg", "null"):
        (tmp_path / name).touch()
    assert device_files(tmp_path) == ("/dev/dxg", "/dev/nvidia3")


def program(folder: Path, text: str) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!{sys.executable}\nimport sys\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_an_old_driver_is_asked_again_for_what_it_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(
        tmp_path,
        "if 'compute_cap' in sys.argv[1]:\n"
        "    sys.exit('Field \"compute_cap\" is not a valid field to query.')\n"
        "print('Tesla T4, 15109, 450.51.06, GPU-1')",
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = read_facts({})
    assert facts.driver == "450.51.06" and [gpu.name for gpu in facts.gpus] == ["Tesla T4"]
    assert facts.gpus[0].capability is None and facts.visible is None


def test_what_nvidia_smi_says_instead_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "print('NVIDIA-SMI has failed because it could not communicate with the driver.'); sys.exit(9)")
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = read_facts({"CUDA_VISIBLE_DEVICES": "1"})
    assert facts.driver is None and "could not communicate" in str(facts.driver_error) and facts.visible == "1"


def test_this_machine_reports_its_torch_without_importing_it(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys; from nsd.runner.work.machine import read_facts; print(read_facts().torch, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    import torch

    assert found == [torch.__version__, "False"]


def test_fields_are_asked_for_in_the_order_in_which_they_are_read() -> None:
    values = dict(zip(FIELDS, ("NVIDIA L4", "23034", "580.95.05", "GPU-1", "8.9", "[N/A]"), strict=True))
    driver, (gpu,) = parse_smi(", ".join(values[name] for name in FIELDS))
    assert (driver, gpu.name, gpu.memory_mib, gpu.capability, gpu.uuid) == (
        "580.95.05",
        "NVIDIA L4",
        23034,
        (8, 9),
        "GPU-1",
    )
    assert gpu.mig is None
