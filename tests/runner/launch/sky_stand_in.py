"""A SkyPilot without machines, for tests of what `nsd launch` asks of it. tests/cluster has the real one.

nsd's own sky_side.py runs in a process of its own, as ever; the `sky` that it imports there is stand_in/sky.py, and
`rsync` and `ssh` reach a folder instead of a machine.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nsd.runner.cli.app import main
from nsd.runner.launch.launches import Launch, Launches
from nsd.runner.launch.wheel import Wheel, own_wheel
from nsd.runner.store.workspace import Workspace

FOLDER = Path(__file__).parent / "stand_in"
CANARY = "canary-9c41d7"
NOW = 4_000_000_000.0  # when a launch begins, to itself: its deadline is exact, and not over for who follows
SPEC = """\
name: tiny
question: Does what goes out hold what it must?
model: builtin:wordmath-1m
data: {use: wordmath, train: 60, test: 20, split: {labeled: 8, unlabeled: 8, test: 8}}
labeler: {use: consensus, k: 2, max_tokens: 8}
trainer: {use: sft, epochs: 1, batch_size: 8}
eval: {use: accuracy, max_tokens: 8}
seeds: [7]
conditions:
  base: {train_on: []}
  baseline: {train_on: [labeled]}
  student: {train_on: [labeled, pseudo], label_with: baseline}
  other: {train_on: [pseudo], label_with: baseline}
hypotheses: [student > baseline]
"""
CHEAP = {"cloud": "Slurm", "region": "here", "machine": "m1", "accelerators": {"L4": 1}, "spot": False}
DEAR = CHEAP | {"machine": "m9", "usd_per_hour": 9.0}
RSYNC = """#!/bin/sh
printf '%s\\n' "$*" >> "$STAND_IN/rsync.log"
[ -e "$STAND_IN/no-rsync" ] && { echo "rsync: connection refused" >&2; exit 12; }
for last; do :; done
cp -r "$STAND_IN/machine/nsd-workspace/." "$last"
"""
SSH = """#!/bin/sh
for last; do :; done
cd "$STAND_IN/machine" && exec sh -c "$last"
"""


@cache
def _wheel_and_beside() -> tuple[Wheel, dict[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        wheel = own_wheel(Path(folder))
        return wheel, {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def wheel_made_once(folder: Path) -> Wheel:
    """What `own_wheel` writes there, packed once for all tests of a process: packing takes most of a launch here."""
    wheel, files = _wheel_and_beside()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return Wheel(folder / wheel.path.name, wheel.sha256)


class World:
    """What the stand-in says and was asked, and `nsd` as a person calls it in `folder`, in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.state, self._patch = folder / "project", folder / "state", monkeypatch
        self.folder.mkdir()
        (self.state / "machine" / "nsd-workspace").mkdir(parents=True)
        self.store = f"file://{folder / 'store'}"
        scripts = {
            "env/bin/python": f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n',
            "env/bin/sky": '#!/bin/sh\necho "$*" >> "$STAND_IN/sky.log"\n',
            "bin/rsync": RSYNC,
            "bin/ssh": SSH,
        }
        for name, text in scripts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        self.says()
        self.spec("")
        monkeypatch.chdir(self.folder)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        monkeypatch.setenv("PYTHONPATH", str(FOLDER))
        monkeypatch.setenv("STAND_IN", str(self.state))
        monkeypatch.setenv("NSD_SKY", str(folder / "env"))
        monkeypatch.setenv("NSD_DEBUG", "1")
        monkeypatch.setenv("HF_TOKEN", CANARY)
        monkeypatch.delenv("WANDB_API_KEY", raising=False)
        monkeypatch.setattr("nsd.runner.launch.follow.POLL_SECONDS", 0.0)
        monkeypatch.setattr("nsd.runner.launch.launching.own_wheel", wheel_made_once)
        monkeypatch.setattr("nsd.runner.launch.launching.time", SimpleNamespace(time=lambda: NOW))

    def spec(self, resources: str) -> None:
        """The spec of the project, with these `resources`."""
        (self.folder / "spec.yaml").write_text(SPEC + (f"resources: {resources}\n" if resources else ""))

    def says(self, answers: dict[str, list[Any]] | None = None, price: float = 1.0, **world: Any) -> None:
        """What there is from now on: machines at `price` and at 9 dollars an hour, and the answers of functions."""
        (self.state / "calls.jsonl").unlink(missing_ok=True)
        facts = {"version": "0.14.1", "server": "0.14.1", "clouds": ["Slurm"], "answers": answers or {}}
        facts["offers"] = [DEAR, CHEAP | {"usd_per_hour": price}]
        (self.state / "world.json").write_text(json.dumps(facts | world))

    def nsd(self, *arguments: str) -> int:
        """Run a command; its exit code."""
        self._patch.setattr(sys, "argv", ["nsd", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
            sys.exit(0)
        return int(end.value.code or 0)

    def launch(self, *flags: str, store: bool = True) -> int:
        """`nsd launch spec.yaml --yes`, with a store unless told otherwise."""
        where = ("--store", self.store) if store else ()
        return self.nsd("launch", "spec.yaml", "--yes", *where, *flags)

    def asked(self, name: str) -> list[dict[str, Any]]:
        """The calls of this name so far."""
        path = self.state / "calls.jsonl"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in calls if call["call"] == name]

    def side(self) -> Path:
        """The newest side process, in /proc; it is there while the process is."""
        return Path("/proc") / (self.state / "pid").read_text()

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.folder / "nsd-workspace")

    @property
    def launches(self) -> Launches:
        return Launches(self.workspace)

    def last(self) -> Launch:
        """The launch as it is written down."""
        return self.launches.find(None)

    def machines(self) -> int:
        """How many machines and jobs were asked for."""
        return len(self.asked("launch")) + len(self.asked("jobs.launch"))
