"""Processes of SkyPilot's Python that run sky_side.py and answer one request after another.

    answer, printed = ask(python, environment, {"do": "check"}, on_line=None)

Importing SkyPilot takes seconds, so a process that has answered waits for the next request. One is kept no longer than
KEPT_SECONDS and only after a good answer: what SkyPilot remembers of its server and its configuration is never old.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("sky_side.py")
KEPT_SECONDS = 600.0
END_SECONDS = 10.0  # in which a process that is asked to end does so


class Side:
    """One process."""

    def __init__(self, python: str, environment: Mapping[str, str]) -> None:
        self.made_of = (python, dict(environment))
        self.began = False  # the request that it was last asked
        self.since = time.monotonic()
        self._process = subprocess.Popen(
            [python, str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=self.made_of[1],
        )

    def usable(self, python: str, environment: Mapping[str, str]) -> bool:
        """Whether it would answer as a new one of these would."""
        fresh = time.monotonic() - self.since < KEPT_SECONDS
        return fresh and self.made_of == (python, dict(environment)) and self._process.poll() is None

    def ask(
        self, request: Mapping[str, Any], on_line: Callable[[str], None] | None
    ) -> tuple[dict[str, Any] | None, list[str]]:
        """Its answer (None where it ended without one), and what SkyPilot printed, line by line to `on_line` as well.

        Whatever `on_line` raises ends the process, and so does Ctrl-C.
        """
        source, target = self._process.stdout, self._process.stdin
        assert source is not None and target is not None
        printed: list[str] = []
        with tempfile.TemporaryDirectory(prefix="nsd-sky-") as folder:
            path = Path(folder) / "answer.json"
            try:
                with contextlib.suppress(BrokenPipeError):
                    target.write(json.dumps({**request, "answer": str(path)}) + "\n")
                    target.flush()
                for line in source:
                    text, said, _ = line.rstrip("\n").partition(str(path))  # it prints the place when all is said
                    if text or not said:
                        printed.append(text)
                        if on_line is not None:
                            on_line(text)
                    if said:
                        break
            except BaseException:  # Ctrl-C, or whoever listens has heard enough
                self.kill()
                raise
            self.began = path.with_suffix(".begun").exists()
            try:
                answer: dict[str, Any] = json.loads(path.read_text())
            except (OSError, ValueError):
                self.kill()
                return None, printed
        return answer, printed

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self.end()

    def end(self) -> None:
        """Let it end, which it does when nobody can ask it any more."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_waiting: list[Side] = []
_lock = threading.Lock()


def ask(
    python: str, environment: Mapping[str, str], request: Mapping[str, Any], on_line: Callable[[str], None] | None
) -> tuple[dict[str, Any] | None, list[str]]:
    """Have a process answer: one that waits, else a new one. As `Side.ask`."""
    with _lock:
        waiting, _waiting[:] = list(_waiting), []
    kept = next((one for one in waiting if one.usable(python, environment)), None)
    for one in waiting:
        if one is not kept:
            one.end()
    side = kept or Side(python, environment)
    answer, printed = side.ask(request, on_line)
    if answer is None and side is kept and not side.began:  # it was dying already when it was looked at
        side = Side(python, environment)
        answer, printed = side.ask(request, on_line)
    if answer is not None and "ok" in answer:
        with _lock:
            _waiting.append(side)
    elif answer is not None:
        side.end()
    return answer, printed


@atexit.register
def end_all() -> None:
    """End those that wait."""
    with _lock:
        waiting, _waiting[:] = list(_waiting), []
    for one in waiting:
        one.end()
