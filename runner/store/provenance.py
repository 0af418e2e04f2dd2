"""The origin of a number: code, packages, machine and times, as recorded in every manifest.

Limits: the git state is that of the working directory's repository, and its diff is cut at 1 MB.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from nsd.plugins.api import Device
from nsd.runner.store.shapes import Machine

PACKAGES = ("nsd", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "math-verify", "vllm")
SHAPING = ("torch", "transformers", "trl", "peft")
DIFF_LIMIT = 1_000_000


@functools.cache
def packages() -> dict[str, str]:
    """Versions of the packages that shape results, those installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def shaping(packages: Mapping[str, str]) -> dict[str, str]:
    """Those that a half-done stage must be continued with."""
    return {name: version for name, version in packages.items() if name in SHAPING}


@functools.cache
def git_state() -> dict[str, str | None]:
    """Commit and uncommitted diff of the working directory's repository; Nones outside one."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    diff = git("diff", "HEAD") if commit else None
    return {"commit": commit.strip() if commit else None, "diff": diff[:DIFF_LIMIT] if diff else None}


def machine(device: Device | None = None) -> Machine:
    """Host, processor count, the device in force and, where torch is loaded already, GPUs and threads.

    Of a stage that used a GPU also the most memory that torch allocated on it, in bytes.
    """
    facts: dict[str, Any] = {
        "host": platform.node(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
    if device:
        facts["device"] = device.kind
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["torch_threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            facts["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
            if peak := max((torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())), default=0):
                facts["gpu_peak_bytes"] = int(peak)
    return Machine(**facts)


def forget_peak() -> None:
    """Measure the most memory that torch allocates on a GPU from now on; nothing where torch is not loaded."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)


def gpu_count() -> int:
    """GPUs this process can see, 0 where torch is not loaded."""
    torch = sys.modules.get("torch")
    # Asked from a thread beside the work, which may be importing torch just now.
    if torch is None or getattr(torch.__spec__, "_initializing", False):
        return 0
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def machines() -> int:
    """How many machines share this process's work."""
    try:
        return max(1, int(os.environ.get("WORLD_SIZE", "1")) // int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
    except (ValueError, ZeroDivisionError):
        return 1


def usd_per_hour() -> float | None:
    """What an hour of this launch's machines costs, all of them, where nsd launch said so; None elsewhere."""
    said = os.environ.get("NSD_USD_PER_HOUR")
    try:
        return float(said) if said else None
    except ValueError:
        return None
