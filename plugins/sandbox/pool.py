"""A pool of sandboxes: as many programs at a time as this process has processors.

    box = sandbox("auto")
    ran = box.run(Program("print(input())", "5\\n"))
    many = box.run_many(programs)                # in order

`sandbox(kind)` makes one for each kind and process, when it is first asked for; its helpers end with this process.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nsd.plugins.cores import usable_cores
from nsd.plugins.sandbox import ways
from nsd.plugins.sandbox.ran import Kind, Program, Ran, SandboxFailed

GRACE_SECONDS = 30.0  # a helper that is this late does not answer any more


class Sandbox:
    """Runs programs in sandboxes of one kind ("auto" is none). Safe to use from several threads."""

    def __init__(self, kind: Kind, workers: int | None = None) -> None:
        self.kind: Kind = kind
        self.guarantees: frozenset[str] = frozenset()  # as the probes found; set by `sandbox`
        self.workers = workers or _cores()
        self._settings = ways.settings(kind)
        # Twice as many helpers as run at a time: each prepares its next sandbox while another's program runs. The one
        # that has waited longest is the next.
        self._free: queue.Queue[_Line | None] = queue.Queue()
        self._running = threading.BoundedSemaphore(self.workers)
        for _ in range(2 * self.workers):
            self._free.put(None)  # started when it is wanted

    def run(self, program: Program) -> Ran:
        """Run one program. Raises SandboxFailed where the sandbox itself does not work.

        A helper that ends twice is the sandbox's fault where no program can end it, else the program has failed. A
        sandbox that fails before its program began is made once more.
        """
        with self._running:
            line = self._free.get()
            try:
                found: dict[str, Any] | None = None
                for _ in range(2):
                    if line is None or not line.alive:
                        line = _Line(self._settings)
                    found = line.ask(program)
                    if found is not None and "failed" not in found:
                        break  # what ended before its program began, by whoever's signal, may be tried again
            finally:
                self._free.put(line)
        if found is None:
            assert line is not None
            if self.kind == "bubblewrap" or "processes" in self.guarantees:
                raise SandboxFailed(
                    f"the sandbox ({self.kind}) does not work: its helper ended twice: {line.last_words}"
                )
            found = {"stdout": "", "stderr": "the program ended its sandbox", "exit_code": 137, "stopped": None}
        if (failed := found.get("failed")) is not None:
            raise SandboxFailed(f"the sandbox ({self.kind}) does not work: {failed}")
        return Ran(
            stdout=found["stdout"],
            stderr=found["stderr"],
            exit_code=found["exit_code"],
            timed_out=found["stopped"] == "time",
            guarantees=self.guarantees,
            stopped=found["stopped"],
            cpu_seconds=found.get("cpu_seconds"),
        )

    def run_many(self, programs: Sequence[Program]) -> list[Ran]:
        """Run programs side by side; what came of each, in order. Raises SandboxFailed."""
        with ThreadPoolExecutor(min(self.workers, len(programs)) or 1) as threads:
            return list(threads.map(self.run, programs))

    def close(self) -> None:
        """End the helpers; the next program starts new ones."""
        lines = [self._free.get() for _ in range(2 * self.workers)]
        for line in lines:
            if line is not None:
                line.close()
            self._free.put(None)


class _Line:
    """A helper process, and the line to it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        path = os.pathsep.join(place for place in sys.path if place)
        passed = {name: os.environ[name] for name in ("TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
        self._errors, self._last_words = tempfile.TemporaryFile(), ""  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nsd.plugins.sandbox._helper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": path, **passed},
            start_new_session=True,  # Ctrl-C is for the run, which saves first; this one ends with its input
        )
        found = self._exchange(settings, 0.0)
        if found is None or "failed" in found:
            self.close()
            why = self.last_words if found is None else found["failed"]
            raise SandboxFailed(f"the helper of the sandbox does not start: {why}")
        self.controllers = frozenset[str](found["controllers"])

    @property
    def alive(self) -> bool:
        """Whether it answers; one that ended while nobody asked does not."""
        return self._process.poll() is None

    @property
    def last_words(self) -> str:
        """The last line of its errors, once it has ended."""
        return self._last_words or "it ended"

    def ask(self, program: Program) -> dict[str, Any] | None:
        """What the helper answers, None where it ended."""
        asked = {name: getattr(program, name) for name in Program.__dataclass_fields__}
        return self._exchange(asked, program.seconds)

    def _exchange(self, said: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        assert self._process.stdin is not None and self._process.stdout is not None
        late = threading.Timer(seconds + GRACE_SECONDS, self._process.kill)
        late.daemon = True
        late.start()
        try:
            self._process.stdin.write(json.dumps(said) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
            if isinstance(answer, dict):
                return answer
        except (OSError, ValueError):
            pass
        finally:
            late.cancel()
        self.close()
        return None

    def close(self) -> None:
        """End the helper; it ends what it runs."""
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_SECONDS)
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        if not self._errors.closed:
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - 4096))
            self._last_words = self._errors.read().decode("utf-8", "replace").rstrip().rpartition("\n")[2]
            self._errors.close()


def _cores() -> int:
    """How many processors this process may use; the processes of a training on one machine share them."""
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, usable_cores() // max(1, int(ranks) if ranks.isdecimal() else 1))


_held: dict[Kind, Sandbox] = {}
_lock = threading.Lock()


def held(kind: Kind) -> Sandbox:
    """This process's sandboxes of a kind. Raises InputError where it is not to be had here."""
    with _lock:
        if kind not in _held:
            _held[kind] = Sandbox(kind)
        return _held[kind]


def _close_all() -> None:
    for box in _held.values():
        box.close()


def _forget() -> None:
    # After a fork: the helpers are the parent's, and the lock may be held by a thread that is gone.
    global _lock
    _lock = threading.Lock()
    _held.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget)
