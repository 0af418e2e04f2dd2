"""Runs the real `nsd` against a SkyPilot client of the fixtures, in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from cluster.conftest import PYTHON
from cluster.one_machine.client import Client
from e2e import command_line
from e2e.command_line import TINY_SPEC
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.runner.launch.wheel import own_wheel
from support import PATIENCE, wait_until

CANARY = "canary-5b1f0c9d"
JUDGE = """\
from nsd import Verifier, plugin

from words import last


@plugin("verifier", "judge")
class Judge(Verifier):
    def extract(self, completion):
        return last(completion)
"""
WORDS = """\
def last(text):
    return text.split("####")[-1].strip() or None
"""
OWN_SPEC = TINY_SPEC.replace(
    "data: {use: wordmath, split:",
    "data: {use: jsonl, train: rows.jsonl, fields: {solution: solution}, split:",
).replace(
    "labeler:",
    'prompt: {template: "{question}\\n", separator: ""}\nverifier: {use: "./judge.py:Judge"}\nlabeler:',
)


def environment(client: Client, **more: str) -> dict[str, str]:
    """What nsd is started with: the client's environment, the way to SkyPilot, one thread, and a secret."""
    return {
        **client.environment,
        "NSD_SKY": str(PYTHON.parents[1]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_TOKEN": CANARY,
        "COLUMNS": "200",
        **more,
    }


class Command:
    """A running `nsd ...`, output and errors together; a thread collects what it prints."""

    def __init__(
        self, folder: Path, environment: dict[str, str], *arguments: str, python: str = sys.executable
    ) -> None:
        self.process = subprocess.Popen(
            [python, "-m", "nsd.runner.cli", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    @property
    def printed(self) -> str:
        """Everything so far."""
        return "".join(self.lines)

    def wait_for(self, text: str) -> None:
        """Return when it has printed `text`; fails when it ends or takes too long before."""
        self.until(lambda: text in self.printed)

    def until(self, true: Callable[[], bool], pause: float = 0.2) -> None:
        """Return when the condition holds; fails when the command ends or takes too long before."""

        def holds() -> bool:
            ended = self.process.poll() is not None
            holding = true()
            assert holding or not ended, self.printed
            return holding

        wait_until(holds, 3 * PATIENCE, pause)

    def end(self, code: int = 0) -> str:
        """Wait for its end, check exit code, no traceback and no secret, and return what it printed."""
        self.process.wait(4 * PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.returncode == code, f"exit {self.process.returncode}\n{self.printed}"
        assert "Traceback" not in self.printed and CANARY not in self.printed, self.printed
        return self.printed

    def kill(self) -> None:
        """End it outright; its children are left to themselves."""
        self.process.kill()
        self.process.wait()

    def leaves_nothing(self) -> bool:
        """Wait until no process of its session is there any more; what it asked of others may take a moment to end."""
        return wait_until(lambda: not self.left())

    def left(self) -> list[str]:
        """Command lines of the processes of its session that are still there."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.process.pid and state != "Z":  # ended, and not yet waited for: not running
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        return found


def nsd(folder: Path, environment: dict[str, str], *arguments: str, code: int = 0, python: str = sys.executable) -> str:
    """Run `nsd ...` to its end and return what it printed."""
    return Command(folder, environment, *arguments, python=python).end(code)


def project(folder: Path, spec: str) -> Path:
    """A folder with spec.yaml."""
    folder.mkdir()
    (folder / "spec.yaml").write_text(spec)
    return folder


def own_project(folder: Path) -> Path:
    """A folder with OWN_SPEC, its data file, its plugin file and what that imports, and a secret that nothing names."""
    project(folder, OWN_SPEC)
    pools = Wordmath(Wordmath.Config(train=120, test=0)).pools()
    rows = [{"question": one.text, "answer": one.answer, "solution": one.solution} for one in pools.train]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "judge.py").write_text(JUDGE)
    (folder / "words.py").write_text(WORDS)
    (folder / ".env").write_text(f"PASSWORD={CANARY}\n")
    return folder


def installed(folder: Path) -> str:
    """The Python of an environment in which nsd is installed from a wheel; what it needs is borrowed."""
    wheel = own_wheel(folder / "wheel")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    # Plain folders: the .pth files in them, by which nsd may be installed there to be edited, are not read.
    (site / "borrowed.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([sys.executable, "-m", "pip", "--python", folder / "venv", *install, wheel.path], check=True)
    return str(folder / "venv/bin/python")


def local_run(folder: Path, spec: str) -> Path:
    """The workspace of a run of this spec on this machine."""
    command_line.nsd(project(folder, spec), "run", "spec.yaml")
    return folder / "nsd-workspace"


def results(workspace: Path) -> dict[str, str]:
    """Hashes of labels, scores and completions; weights stay on the rented machine unless asked for."""
    found = command_line.results(workspace)
    return {name: value for name, value in found.items() if not name.endswith(".safetensors")}
