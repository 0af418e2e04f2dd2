"""Runs a Python file of the tests as a user that is not root, also where the interpreter lies in root's own folder."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

NOBODY = 65534


def why_not() -> str | None:
    """Why this machine cannot do it; None where it can."""
    if os.getuid() != 0:
        return "these tests run as an ordinary user already"
    for tool in ("unshare", "mount", "setpriv"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "root may make no mount name space here"


def run_as_nobody(script: Path, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a file by the interpreter of the tests. `home` is made for the user, in a folder that it can pass."""
    home.mkdir(parents=True, exist_ok=True)
    os.chown(home, NOBODY, NOBODY)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "NSD_TOKEN": "a secret of this user"}
    who = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    command = [*who, "env", "-i", *(f"{name}={value}" for name, value in environment.items())]
    command += [sys.executable, str(script), *arguments]
    inner = f"{_opened(Path(sys.base_prefix).resolve(), home)} exec {shlex.join(command)}"
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", inner], capture_output=True, text=True, cwd=home, timeout=600, check=False
    )


def _opened(prefix: Path, home: Path) -> str:
    """Shell commands that put the interpreter alone in the place of a folder that is closed to others."""
    closed = next((one for one in reversed(prefix.parents) if not one.stat().st_mode & 0o001), None)
    if closed is None:
        return ""
    held = home / "python"
    return (
        f"mkdir -p {held}; mount --bind {prefix} {held}; mount -t tmpfs -o mode=755 none {closed}; "
        f"mkdir -p {prefix}; mount --bind {held} {prefix}; umount {held};"
    )
