"""A copy of the checkout with an interpreter whose every process, at any depth, imports the copy."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from py_compile import PycInvalidationMode

ROOT = Path(__file__).resolve().parents[2]


def tracked(root: Path = ROOT) -> list[Path]:
    """Files of the checkout, committed or new, that git does not ignore; relative to it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout
    return sorted(
        Path(os.fsdecode(name))
        for name in listed.split(b"\0")
        if name and ((path := root / os.fsdecode(name)).is_file() or path.is_symlink())
    )


class Copy:
    """`root` holds the files, `python` imports them. The data beside the checkout are linked beside the copy."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "nsd"
        for path in tracked():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, self.root / path, follow_symlinks=False)
        if (ROOT.parent / "shared").is_dir():
            (folder / "shared").symlink_to(ROOT.parent / "shared")
        self.python = self._interpreter(folder / "venv")
        # By hash: a mutated file can have the size and the second of the one it replaces, and stale bytecode would run.
        for package in ("runner", "plugins", "reports"):
            compileall.compile_dir(self.root / package, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)

    def _interpreter(self, folder: Path) -> Path:
        venv.create(folder, symlinks=True)
        paths = sysconfig.get_paths()
        stdlib = {Path(paths["stdlib"]), Path(paths["platstdlib"]), Path(paths["stdlib"]) / "lib-dynload"}
        packages = [
            path
            for path in map(Path, sys.path)
            if path.is_dir() and path not in stdlib and path.resolve() not in {ROOT, Path(__file__).parent, Path.cwd()}
        ]
        site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        # Hypothesis takes its constants from every module that lies in no folder of this name.
        links = [folder / f"packages{number}" / "site-packages" for number in range(len(packages))]
        for link, target in zip(links, packages, strict=True):
            link.parent.mkdir()
            link.symlink_to(target)
        # A path file within a listed folder (the editable installation of the checkout) is not followed.
        lines = [str(self.root), *map(str, links), COVERAGE_IN_EVERY_PROCESS]
        (site / "copy.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder / "bin" / "python"


COVERAGE_IN_EVERY_PROCESS = (
    "import os; os.environ.get('COVERAGE_PROCESS_START') and __import__('coverage').process_startup()"
)


def environment() -> dict[str, str]:
    """For a process of the copy: nothing that would put another folder in front of it."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
