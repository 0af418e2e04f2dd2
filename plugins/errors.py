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
        from nsd.plugins.extras import install_command

        super().__init__(f"this needs the package {package!r}: install it with  {install_command(extra, package)}")


class StageFailed(NsdError, RuntimeError):
    """A stage could not be finished; the message has the reason and the place of the log."""


class Interrupted(NsdError):
    """A signal asked for a stop; everything so far is saved and the same command continues."""

    exit_code = 75


class BudgetSpent(Interrupted):
    """What may be spent on a served model is spent; everything so far is saved, and more money continues it."""


class ResumeRefused(InputError):
    """A half-done stage was started under a different configuration; the message names the fields."""
