"""The way to SkyPilot. It lives in a Python of its own: it cannot be installed beside nsd's training packages.

    sky = SkyPilot.find()             # NSD_SKY, this Python, or `sky` on PATH; a MissingSky says what to install
    sky.check()                       # {"version": ..., "clouds": [...]}
    sky.ask("offers", task=task)

`find` looks for: the setting NSD_SKY (a virtual environment, its Python, or its `sky`), SkyPilot in the running
Python (an installation of nsd[sky]), `sky` on PATH. A process of that Python, running sky_side.py, answers (side.py).
Limits: tried with VERSIONS; another version is refused, since parts of its interface are private.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nsd.plugins.errors import InputError, NsdError
from nsd.runner.launch import side

SETTING = "NSD_SKY"
VERSIONS = ("0.14",)
WANTED = "skypilot>=0.14,<0.15"  # as nsd's extra `sky` has it; the extra is no name to give to an index
INSTALL = f"python -m venv sky-env && sky-env/bin/pip install '{WANTED}'  and  export NSD_SKY=sky-env"


class SkyError(NsdError):
    """SkyPilot refused or failed; the message is its own, shortened."""


class NoMachine(InputError):
    """Nothing that can be rented fits the resources."""


def python_of_skypilot() -> str:
    """The Python that has SkyPilot. Raises InputError with the line that installs it where there is none."""
    return SkyPilot.find().python


@dataclass(frozen=True)
class SkyPilot:
    """SkyPilot by the Python it is installed in."""

    python: str

    @classmethod
    def find(cls) -> SkyPilot:
        """Raises InputError with the line that installs it where there is none."""
        setting = os.environ.get(SETTING)
        if setting:
            return cls(_python_of(Path(setting).expanduser()))
        if find_spec("sky") is not None:
            return cls(sys.executable)
        command = shutil.which("sky")
        if command is not None:
            return cls(_python_of(Path(command)))
        raise InputError(f"nsd launch needs SkyPilot, in a Python of its own: {INSTALL}")

    def check(self) -> dict[str, Any]:
        """Version and enabled clouds. Raises InputError for a version this was not made for, or no cloud at all."""
        facts = self.ask("check", versions=VERSIONS)
        for what in ("version", "server"):
            if not facts[what].startswith(VERSIONS):
                raise InputError(
                    f"the SkyPilot {'server' if what == 'server' else 'in ' + self.python} has version {facts[what]}; "
                    f"nsd launch is made for {' and '.join(VERSIONS)}: pip install '{WANTED}' in its Python"
                )
        if not facts["clouds"]:
            raise InputError(
                "SkyPilot can use no cloud here: set one up and run `sky check` (it says what each cloud lacks)"
            )
        return facts

    def reach(self, cluster: str) -> None:
        """Have SkyPilot write the ssh configuration of a cluster: its `status` command does, and nothing else that
        is public.
        """
        command = [str(Path(self.python).with_name("sky")), "status", cluster]
        subprocess.run(command, capture_output=True, env=_environment(), timeout=300, check=False)

    def ask(self, action: str, on_line: Callable[[str], None] | None = None, **request: Any) -> dict[str, Any]:
        """Have SkyPilot do one thing. Its output goes to `on_line`, line by line, or nowhere.

        Raises NoMachine, InputError or SkyError with SkyPilot's reason in a sentence.
        """
        answer, printed = side.ask(self.python, _environment(), {"do": action, **request}, on_line)
        if answer is None:
            last = next((line for line in reversed(printed) if line.strip()), "nothing was said")
            raise SkyError(f"SkyPilot ({self.python}) ended without an answer: {plain(last)}")
        if "ok" in answer:
            found: dict[str, Any] = answer["ok"]
            return found
        raise _as_error(answer, self.python)


def _environment() -> dict[str, str]:
    return {**os.environ, "SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "PYTHONUNBUFFERED": "1"}


def _python_of(place: Path) -> str:
    """The Python of a virtual environment, of its `sky` command, or itself."""
    candidates = [place / "bin" / "python", place.parent / "python"] if place.is_dir() else [place.parent / "python"]
    if place.name.startswith("python") and place.is_file():
        candidates.insert(0, place)
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate)
    if place.is_file():  # a `sky` that was linked to: its first line names the Python
        first = place.read_bytes().split(b"\n", 1)[0].decode("utf-8", "replace")
        if first.startswith("#!") and Path(first[2:].split()[0]).is_file():
            return first[2:].split()[0]
    raise InputError(f"{SETTING}={place}: there is no Python there; {INSTALL}")


def _as_error(answer: dict[str, Any], python: str) -> NsdError:
    kinds, message = answer.get("kinds", []), plain(answer["message"])
    if "ModuleNotFoundError" in kinds or "ImportError" in kinds:
        return InputError(f"{python} has no SkyPilot ({message}): {INSTALL}")
    if "ResourcesUnavailableError" in kinds or "ResourcesMismatchError" in kinds:
        return NoMachine(f"no machine fits: {message}")
    if "NoCloudAccessError" in kinds:
        return InputError(f"SkyPilot can use no cloud here: {message}")
    if any(kind.startswith(("ApiServerConnection", "APIVersion")) for kind in kinds):
        return InputError(f"SkyPilot's API server does not answer: {message}; `sky api info` says where it should be")
    if "KeyboardInterrupt" in kinds or answer["error"] == "KeyboardInterrupt":
        return SkyError("interrupted")
    return SkyError(f"SkyPilot: {message or answer['error']}")


def plain(text: str) -> str:
    """One line without terminal colours, at most 400 characters."""
    flat = " ".join(without_colours(text).split())
    return flat if len(flat) <= 400 else flat[:397] + "..."


def without_colours(text: str) -> str:
    """The text without terminal control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
