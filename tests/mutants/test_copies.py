"""A fault must reach the processes that tests start, and must never reach the checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .copies import ROOT, Copy, environment

ASK = (
    "import os; from nsd.runner.work import stages;"
    "print(os.path.realpath(stages.__file__), getattr(stages, 'CHANGED', None))"
)
# A worker is started as `python -m ...`, by another process, in a folder of its own.
THROUGH_A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-P', '-c', {ASK!r}], check=True)"


@pytest.mark.slow
def test_a_process_started_by_a_process_imports_the_changed_copy(tmp_path: Path) -> None:
    before = (ROOT / "runner" / "work" / "stages.py").read_bytes()
    copy = Copy(tmp_path / "copy")

    def asked() -> list[str]:
        command = [str(copy.python), "-c", THROUGH_A_CHILD]
        return subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
        ).stdout.split()

    stages = copy.root / "runner" / "work" / "stages.py"
    whole = stages.read_bytes()
    assert asked() == [str(stages), "None"]
    # The same size within the same second: bytecode kept by time and size would hide each change from the next.
    for value in (b"1", b"2"):
        stages.write_bytes(whole + b"\nCHANGED = " + value + b"\n")
        assert asked() == [str(stages), value.decode()]
    stages.write_bytes(whole)
    assert asked() == [str(stages), "None"]
    assert (ROOT / "runner" / "work" / "stages.py").read_bytes() == before
