"""Which device a run uses, with how many processes and in which number types: a decision from what the machine reports.

    decide(facts, device="auto")                     # Decision("cuda", 4, "bfloat16", "bf16", ...)
    decide(facts, device="auto", wanted=("L4", 1))   # an accelerator was asked for: no CPU instead of it

A pure function, so that the report of any machine can be tried. An NVIDIA GPU that is there and cannot be used is an
error, never a silent CPU: a training that takes an hour there takes weeks here. The facts are read by
`runner/work/machine.py`.

Sources: the least driver of each CUDA, NVIDIA's table of minor version compatibility (CUDA 11 450, 12 525, 13 580);
the oldest GPUs of each build, PyTorch's support matrix of releases 2.8 to 2.11 (RELEASE.md). bfloat16 has units from
compute capability 8.0 on; below it torch emulates it, which is slow and no different in range, so it does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from nsd.plugins.api import Device
from nsd.plugins.errors import InputError
from nsd.plugins.extras import install_command
from nsd.runner.plan.model import Stage

LEAST_DRIVER = {11: 450, 12: 525, 13: 580}  # CUDA's major version -> the driver's
BF16_FROM, FP16_FROM = (8, 0), (7, 0)  # compute capabilities with units for it
WAY_OUT = "or write `resources: {device: cpu}` to run on the processor"

Settle = Callable[[Sequence[Stage]], "Decision | None"]  # of the stages that are owed: where they compute
Wanted = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver reports it. `capability` is its compute capability, None where an old driver cannot say."""

    name: str
    memory_mib: int
    capability: tuple[int, int] | None
    uuid: str = ""
    mig: tuple[str, ...] | None = None  # ids of its MIG instances where it is cut into such; None where it is not


@dataclass(frozen=True)
class Facts:
    """What a machine reports. `torch_cuda`: the CUDA that the installed torch was built for, None for a CPU build."""

    system: str
    architecture: str = "x86_64"
    torch: str | None = None
    torch_cuda: str | None = None
    torch_hip: str | None = None
    driver: str | None = None
    driver_error: str | None = None  # what nvidia-smi said instead
    gpus: tuple[Gpu, ...] = ()
    nodes: tuple[str, ...] = ()  # device files: /dev/nvidia0, ..., /dev/dxg
    visible: str | None = None  # CUDA_VISIBLE_DEVICES

    @property
    def has_nvidia(self) -> bool:
        """Whether anything says that an NVIDIA GPU is there."""
        return bool(self.gpus or self.driver or any(node.startswith("/dev/nvidia") for node in self.nodes))


@dataclass(frozen=True)
class Decision:
    """`processes` train and `drawing` draw completions. `dtype` is the half precision that the device has units for
    ("float32" where none), `mixed` the mixed precision of a training. `gpus` are those that are used, `ids` how
    CUDA_VISIBLE_DEVICES names them. `why` is for a person.
    """

    device: Literal["cpu", "cuda"]
    processes: int
    dtype: Literal["bfloat16", "float16", "float32"]
    mixed: Literal["bf16", "fp16", "no"]
    gpus: tuple[Gpu, ...]
    ids: tuple[str, ...]
    why: str
    drawing: int = 1

    @property
    def beside(self) -> tuple[str, ...]:
        """The GPUs of the processes that draw beside the first one; "" for one that computes on the processor."""
        return self.ids[1 : self.drawing] if self.device == "cuda" else ("",) * (self.drawing - 1)

    @property
    def told(self) -> Device:
        """What a stage is told of it."""
        return Device(self.device, self.dtype)


def decide(
    facts: Facts,
    device: Wanted = "auto",
    processes: int | None = None,
    wanted: tuple[str, int] | None = None,
    sampling_processes: int | None = None,
) -> Decision:
    """The device in force. `wanted` is the accelerator that the spec asks for, with its number.

    `processes` None uses every GPU there is, `sampling_processes` None those of the training; on a processor both are
    then one. Raises InputError, with versions and the way out, where what was asked for cannot be had.
    """
    if device == "mps" or (device == "auto" and facts.system == "Darwin"):
        return _apple(device, processes, sampling_processes)
    if device == "cpu":
        return _cpu(processes, sampling_processes, "the spec says device: cpu")
    if facts.visible is not None and not _chosen(facts.visible):
        if device == "cuda" or wanted is not None:
            raise InputError(f"CUDA_VISIBLE_DEVICES={facts.visible!r} hides every GPU: unset it, {WAY_OUT}")
        return _cpu(processes, sampling_processes, f"CUDA_VISIBLE_DEVICES={facts.visible!r} hides every GPU")
    if not facts.has_nvidia:
        if device == "cuda" or wanted is not None:
            what = "device: cuda" if wanted is None else f"accelerators: {wanted[0]}:{wanted[1]}"
            where = " (WSL2: /dev/dxg is there, the driver is not)" if "/dev/dxg" in facts.nodes else ""
            raise InputError(
                f"the spec asks for {what}, and no NVIDIA GPU is here{where}: `nsd launch` runs it on a machine that "
                f"has one, {WAY_OUT}"
            )
        amd = f"; torch {facts.torch} is a build for AMD's GPUs, which are not tested" if facts.torch_hip else ""
        return _cpu(processes, sampling_processes, f"there is no NVIDIA GPU{amd}")
    _check_torch(facts)
    gpus, ids = _visible(facts)
    _check_capabilities(facts, gpus)
    if wanted is not None and len(gpus) < wanted[1]:
        raise InputError(
            f"the spec asks for {wanted[0]}:{wanted[1]}, and {_count(gpus)} can be used here: change "
            f"resources.accelerators, {WAY_OUT}"
        )
    for field, asked in {"processes": processes, "sampling_processes": sampling_processes}.items():
        if asked is not None and asked > len(gpus):
            raise InputError(
                f"resources.{field} is {asked}, and {_count(gpus)} can be used here: each process needs its own"
            )
    number = len(gpus) if processes is None else processes
    drawing = number if sampling_processes is None else sampling_processes
    most = max(number, drawing)
    dtype, mixed = _types(gpus)
    names = " and ".join(dict.fromkeys(gpu.name for gpu in gpus))
    less = "" if dtype == "bfloat16" else f"; without units for bfloat16: {_instead(dtype)}"
    used = _count(gpus) if most == len(gpus) else f"{most} of {_count(gpus)}"
    why = f"{used} ({names}), driver {facts.driver}, torch {facts.torch}{less}"
    return Decision("cuda", number, dtype, mixed, gpus[:most], ids[:most], why, drawing)


def split_accelerator(accelerator: str | None) -> tuple[str | None, int]:
    """("L4", 2) of "L4:2". Raises InputError for a count that is no number."""
    if accelerator is None:
        return None, 1
    name, _, count = accelerator.partition(":")
    try:
        return name, max(1, int(float(count))) if count else 1
    except (ValueError, OverflowError):
        raise InputError(f"accelerator {accelerator!r}: write a name and a number, such as L4:1") from None


def _cpu(processes: int | None, drawing: int | None, why: str) -> Decision:
    return Decision("cpu", processes or 1, "float32", "no", (), (), why, drawing or 1)


def _apple(device: Wanted, processes: int | None, drawing: int | None) -> Decision:
    if device == "mps":
        raise InputError("device: mps is not tested and not taken: leave it out (a Mac then runs on its processor)")
    return _cpu(processes, drawing, "a Mac runs on its processor: mps is not tested")


def _chosen(visible: str) -> list[str]:
    """The entries of CUDA_VISIBLE_DEVICES that count: CUDA reads up to the first that is none."""
    found: list[str] = []
    for entry in (part.strip() for part in visible.split(",")):
        if entry in ("", "-1") or entry == "NoDevFiles":
            break
        found.append(entry)
    return found


def _check_torch(facts: Facts) -> None:
    there = f"driver {facts.driver}" if facts.driver else "its driver does not answer"
    if facts.driver is None:
        said = f" (nvidia-smi: {facts.driver_error})" if facts.driver_error else " (there is no nvidia-smi)"
        raise InputError(
            f"an NVIDIA GPU is here and {there}{said}: install or start the driver; in a container start it with the "
            f"GPUs (docker run --gpus all), {WAY_OUT}"
        )
    if facts.torch is None:
        raise InputError(
            f"an NVIDIA GPU is here ({there}), and torch is not installed: {install_command('train', 'torch')}"
        )
    if facts.torch_cuda is None:
        build = f"for ROCm {facts.torch_hip}" if facts.torch_hip else "for CPUs"
        raise InputError(
            f"an NVIDIA GPU is here ({there}), and torch {facts.torch} is a build {build}: install a build for CUDA "
            f"{_newest_cuda(facts.driver)} or older, {WAY_OUT}"
        )
    cuda = int(facts.torch_cuda.partition(".")[0])
    least = LEAST_DRIVER.get(cuda, max(LEAST_DRIVER.values()))
    if _major(facts.driver) < least:
        raise InputError(
            f"torch {facts.torch} is built for CUDA {facts.torch_cuda}, which needs driver {least} or newer, and the "
            f"driver here is {facts.driver}: update the driver, install a torch build for CUDA "
            f"{_newest_cuda(facts.driver)}, {WAY_OUT}"
        )


def _major(version: str) -> int:
    digits = version.partition(".")[0]
    return int(digits) if digits.isdecimal() else 0


def _newest_cuda(driver: str) -> int:
    """The newest CUDA that a driver runs."""
    return max((cuda for cuda, least in LEAST_DRIVER.items() if least <= _major(driver)), default=min(LEAST_DRIVER))


def _visible(facts: Facts) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """The GPUs that CUDA will see, in its order, and their names for it. Raises InputError where there is none."""
    usable = [gpu for gpu in facts.gpus if gpu.mig != ()]
    cut = [gpu.name for gpu in facts.gpus if gpu.mig == ()]
    if not usable and cut:
        raise InputError(
            f"MIG is on and {cut[0]} has no instances: make one (nvidia-smi mig -cgi), or turn MIG off, {WAY_OUT}"
        )
    if facts.visible is None:
        whole = [(gpu, str(number)) for number, gpu in enumerate(facts.gpus) if gpu.mig is None]
        # Of a GPU that is cut up CUDA sees one instance, the first.
        found = whole or [(usable[0], usable[0].mig[0] if usable[0].mig else "0")]
    else:
        found = [(_named(entry, usable, facts), entry) for entry in _chosen(facts.visible)]
        if any(gpu.mig is not None for gpu, _ in found):
            found = found[:1]  # CUDA opens a single MIG instance in a process
    return tuple(gpu for gpu, _ in found), tuple(name for _, name in found)


def _named(entry: str, gpus: Sequence[Gpu], facts: Facts) -> Gpu:
    if entry.isdecimal() and int(entry) < len(gpus):
        return gpus[int(entry)]
    for gpu in gpus:
        if entry.startswith("GPU-") and gpu.uuid.startswith(entry):
            return gpu
        if gpu.mig and any(one.startswith(entry) for one in gpu.mig):
            return gpu
    raise InputError(
        f"CUDA_VISIBLE_DEVICES={facts.visible!r} names {entry!r}, and the driver shows {_count(gpus)}: CUDA would see "
        f"none from there on; correct it, {WAY_OUT}"
    )


def _check_capabilities(facts: Facts, gpus: Sequence[Gpu]) -> None:
    assert facts.torch_cuda is not None
    least, newest = capabilities(facts.torch_cuda)
    for gpu in gpus:
        if gpu.capability is not None and gpu.capability[0] > newest:
            raise InputError(
                f"torch {facts.torch} for CUDA {facts.torch_cuda} has no code for {gpu.name} (compute capability "
                f"{gpu.capability[0]}.{gpu.capability[1]}, the newest is {newest}.x): install a torch build for CUDA "
                f"{_newest_cuda(str(facts.driver))}, hide it with CUDA_VISIBLE_DEVICES, {WAY_OUT}"
            )
        if gpu.capability is not None and gpu.capability < least:
            raise InputError(
                f"torch {facts.torch} for CUDA {facts.torch_cuda} has no code for {gpu.name} (compute capability "
                f"{gpu.capability[0]}.{gpu.capability[1]}, the least is {least[0]}.{least[1]}): install a torch build "
                f"for CUDA 12.6, hide it with CUDA_VISIBLE_DEVICES, {WAY_OUT}"
            )


def capabilities(cuda: str) -> tuple[tuple[int, int], int]:
    """The oldest GPUs that torch's builds for a CUDA have code for, and the newest major capability."""
    major, _, minor = cuda.partition(".")
    return ((5, 0), 9) if (int(major), int(minor or 0)) < (12, 8) else ((7, 5), 12)


def _types(
    gpus: Sequence[Gpu],
) -> tuple[Literal["bfloat16", "float16", "float32"], Literal["bf16", "fp16", "no"]]:
    """Of the weakest GPU. One whose capability nobody knows counts as one without units."""
    weakest = min(gpu.capability or (0, 0) for gpu in gpus)
    if weakest >= BF16_FROM:
        return "bfloat16", "bf16"
    return ("float16", "fp16") if weakest >= FP16_FROM else ("float32", "no")


def _instead(dtype: str) -> str:
    return "float16 is used where a spec says bfloat16" if dtype == "float16" else "float32 is used"


def _count(gpus: Sequence[Gpu]) -> str:
    return "no GPU" if not gpus else "1 GPU" if len(gpus) == 1 else f"{len(gpus)} GPUs"
