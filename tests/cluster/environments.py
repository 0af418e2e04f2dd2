"""A ready environment on the node, for `nsd launch --environment`, as a cluster keeps one for its users.

It takes its packages from the environment of the caller, where Python and permissions allow that; else they are
installed, which takes a minute or more.
"""

from __future__ import annotations

import pwd
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def make(folder: Path, user: str, uv: Path) -> Path:
    """Make it in `folder`, or find it there; `user` is who will run its Python."""
    if (folder / "bin/nsd").exists():
        return folder
    subprocess.run([str(uv), "venv", "--quiet", "--python", "/usr/bin/python3", str(folder)], check=True)
    python = folder / "bin/python"
    (site,) = folder.glob("lib/python*/site-packages")
    packages = Path(sys.prefix) / "lib" / site.parent.name / "site-packages"
    (site / "borrowed.pth").write_text(f"import site; site.addsitedir({str(packages)!r})\n")
    account = pwd.getpwnam(user)
    tried = subprocess.run(
        [str(python), "-c", "import torch, trl, nsd.runner.cli"],
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        cwd="/",
        env={"HOME": "/nonexistent"},
        capture_output=True,
        check=False,
    )
    if tried.returncode:
        (site / "borrowed.pth").unlink()
        install = [str(uv), "pip", "install", "--quiet", "--python", str(python), "-c", "constraints.txt"]
        subprocess.run([*install, "torch"], cwd=REPOSITORY, check=True)
        subprocess.run([*install, ".[train,math]"], cwd=REPOSITORY, check=True)
    (folder / "bin/nsd").write_text(f"#!{python}\nfrom nsd.runner.cli.app import main\nmain()\n")
    (folder / "bin/nsd").chmod(0o755)
    return folder
