"""What this machine reports of its GPUs, its driver and its torch; torch is not imported for it.

    facts = read_facts()         # for nsd.runner.work.device.decide

`nvidia-smi` is asked, device files are looked at, and the build of torch is read from its files. Limits: of a driver
that does not know a field that is asked for, names and memory alone are read.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from nsd.runner.work.device import Facts, Gpu

SMI_SECONDS = 30.0  # a driver that wakes many GPUs takes its time
FIELDS = ("name", "memory.total", "driver_version", "uuid", "compute_cap", "mig.mode.current")
OLD_FIELDS = FIELDS[:4]
_BUILD = re.compile(r"^(__version__|cuda|hip)\b[^=\n]*=\s*(?:'([^']*)'|None)", re.MULTILINE)
_MIG = re.compile(r"\(UUID: (MIG-[^)]*)\)")
_GPU = re.compile(r"^GPU \d+:.*\(UUID: (GPU-[^)]*)\)")


def read_facts(environment: Mapping[str, str] = os.environ) -> Facts:
    """The facts of this machine."""
    listed, error = _smi([f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"])
    if listed is None and error is not None and "not a valid field" in error:
        listed, error = _smi([f"--query-gpu={','.join(OLD_FIELDS)}", "--format=csv,noheader,nounits"])
    instances, _ = _smi(["-L"]) if listed and "Enabled" in listed else (None, None)
    driver, gpus = parse_smi(listed or "", instances or "")
    build = parse_build(_torch_version_file())
    return Facts(
        system=platform.system(),
        architecture=platform.machine(),
        torch=build.get("__version__"),
        torch_cuda=build.get("cuda"),
        torch_hip=build.get("hip"),
        driver=driver,
        driver_error=error if driver is None else None,
        gpus=gpus,
        nodes=device_files(Path("/dev")),
        visible=environment.get("CUDA_VISIBLE_DEVICES"),
    )


def parse_smi(listed: str, instances: str = "") -> tuple[str | None, tuple[Gpu, ...]]:
    """Driver and GPUs of what nvidia-smi lists: FIELDS, or OLD_FIELDS, a line for each GPU; `instances` is `-L`."""
    driver, gpus = None, []
    mig = _instances(instances)
    for line in listed.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) < len(OLD_FIELDS):
            continue
        name, memory, driver, uuid, *more = parts
        capability = _capability(more[0]) if more else None
        cut = len(more) > 1 and more[1] == "Enabled"
        size = int(float(memory)) if memory.replace(".", "").isdecimal() else 0
        gpus.append(Gpu(name, size, capability, uuid, tuple(mig.get(uuid, ())) if cut else None))
    return driver, tuple(gpus)


def parse_build(text: str) -> dict[str, str]:
    """`__version__`, `cuda` and `hip` of the text of torch.version, those that are no None."""
    return {name: value for name, value in _BUILD.findall(text) if value}


def device_files(folder: Path) -> tuple[str, ...]:
    """The device files that say an NVIDIA GPU is there, or Windows' behind WSL2."""
    names = sorted(path.name for pattern in ("nvidia[0-9]*", "dxg") for path in folder.glob(pattern))
    return tuple(f"/dev/{name}" for name in names)


def compiler() -> str | None:
    """The C compiler that Triton would take, None where there is none."""
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _instances(listed: str) -> dict[str, list[str]]:
    """The MIG instances of each GPU, by its id."""
    found: dict[str, list[str]] = {}
    for line in listed.splitlines():
        if whole := _GPU.match(line):
            found[whole[1]] = []
        elif found and (one := _MIG.search(line)):
            found[next(reversed(found))].append(one[1])
    return found


def _capability(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def _smi(arguments: Sequence[str]) -> tuple[str | None, str | None]:
    """What nvidia-smi prints, or why it does not; (None, None) where there is none."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=SMI_SECONDS)
    except FileNotFoundError:
        return None, None
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if done.returncode != 0:
        said = " ".join((done.stdout + " " + done.stderr).split())
        return None, said or f"exit code {done.returncode}"
    return done.stdout, None


def _torch_version_file() -> str:
    spec = importlib.util.find_spec("torch")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    for place in places:
        try:
            return (Path(place) / "version.py").read_text(encoding="utf-8")
        except OSError:
            continue
    return ""
