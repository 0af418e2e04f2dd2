"""Every error nsd raises on purpose, so that a caller can tell "fix your input" from "the work failed".

The command line turns these into one clear message and an exit code; anything else is a bug.
Limits: no error here carries a secret or a model output; messages are for people.
"""

from __future__ import annotations


class NsdError(Exception):
    """Base of all deliberate errors. `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(NsdError, ValueError):
    """The input (a spec, a flag, a data file) is wrong. The message names the place and the way out."""

    exit_code = 2


class MissingExtra(InputError, ImportError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package {package!r}: install it with  {install_command(extra, package)}")


def install_command(extra: str, package: str = "") -> str:
    """One command that puts the packages of an extra into this Python, wherever nsd itself came from.

    The packages are named one by one: nobody answers for what an index has under the name nsd.
    """
    import re
    import shlex
    import sys
    from importlib import metadata

    try:
        wanted = metadata.requires("nsd") or []
    except metadata.PackageNotFoundError:
        wanted = []
    of_extra = [text.partition(";") for text in wanted if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", text)]
    names = [name.strip() for name, _, _ in of_extra] or [package]
    return f"{shlex.quote(sys.executable)} -m pip install {' '.join(shlex.quote(name) for name in names)}"


class StageFailed(NsdError, RuntimeError):
    """A stage could not be finished; the message has the reason and the place of the log."""


class Interrupted(NsdError):
    """A signal asked for a stop; everything so far is saved and the same command continues."""

    exit_code = 75


class ResumeRefused(InputError):
    """A half-done stage was started under a different configuration; the message names the fields."""
