"""The processes that draw the completions of a stage together, each on a GPU of its own.

    team = Team(["1", "2"])                       # beside the process that makes it, which draws a share too
    with team.drawing(job, 3, told, should_stop):
        ...                                       # its own share; then the others' are waited for

The process that leads holds the stage's lock, begins the stage and finishes it. The others (`worker --draw`) are given
the same job and their number among the processes, and leave shards beside its own. They serve one stage after the
other, so each loads torch once, and a model only where it changed. They end with the process that leads.

Limits: nobody takes over from one that is late; shares are equal in questions, not in tokens.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nsd.plugins.errors import Interrupted, StageFailed
from nsd.runner.work.events import Event, Told
from nsd.runner.work.jobs import worker_environment
from nsd.runner.work.ranks import RankFailure, death, log_name

RETIRE_SECONDS = 20.0  # an idle process ends at once
LOOK_SECONDS = 0.2
# Codes of a process that was told to stop, by whomever: Slurm tells all at once. Before it is ready to be told, it ends
# as any process does.
STOPPED = (-signal.SIGTERM, -signal.SIGINT, Interrupted.exit_code)

OnShare = Callable[[int, int, float], None]  # number of a process, completions it has drawn, tokens per second


class ShareFailed(StageFailed):
    """One of the processes failed. `log` is its own."""

    def __init__(self, failure: RankFailure, processes: int) -> None:
        super().__init__(failure.sentence(processes))
        self.log = failure.log


class Mate:
    """One of the other processes. `ended` says how its share ended; it is None while the share is drawn."""

    def __init__(self, number: int, gpu: str, log: Path, heard: threading.Event) -> None:
        self.number, self.asked = number, False
        self.ended: Event | None = Event(Told.GONE)  # it has no share yet
        self.ended_at = 0.0
        self._log, self._heard = log, heard
        self._told: OnShare = lambda *_: None
        # With as many threads as this process, which was started with its share of the cores (runner/work/execute.py).
        environment = worker_environment(gpus=[gpu] if gpu else [])
        reading, writing = os.pipe()
        try:
            with log.open("ab") as output:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "nsd.runner.work.worker", "--draw", str(number), str(writing)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    text=True,
                    env=environment,
                    pass_fds=[writing],
                )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._listener = threading.Thread(target=self._listen, args=(reading,), daemon=True)
        self._listener.start()

    def begin(self, job: Path, processes: int, told: OnShare) -> None:
        """Give it its share of a job."""
        self._told, self._log, self.ended = told, job.with_name(log_name(self.number)), None
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died just now
            self.process.stdin.write(f"{processes} {job}\n")
            self.process.stdin.flush()

    @property
    def failed(self) -> bool:
        """Whether its share ended neither whole nor by a stop."""
        return self.ended is not None and self.ended.event is Told.FAILED

    @property
    def stopped(self) -> bool:
        """Whether its share was left off, whoever asked for that."""
        return self.ended is not None and self.ended.event is Told.INTERRUPTED

    def stop(self) -> None:
        """Ask it, once, to save what it has and end."""
        if self.ended is None and not self.asked:
            self.asked = True
            self.process.terminate()

    def _listen(self, reading: int) -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # a killed process's torn line
                    self._hear(Event.from_json(json.loads(line)))
        self.process.wait()
        self.look(gone=True)

    def look(self, gone: bool = False) -> None:
        """End its share where it died, and nobody could say so."""
        code = self.process.poll()
        if code is not None and self.ended is None and (gone or not self._listener.is_alive()):
            told = (
                Event(Told.INTERRUPTED)
                if code in STOPPED
                else Event(Told.FAILED, reason=death(code), log=str(self._log))
            )
            self._end(told)

    def _hear(self, event: Event) -> None:
        if event.event is Told.PROGRESS:
            self._told(self.number, event.done or 0, event.tokens_per_second or 0.0)
        elif event.ends:
            self._end(event)

    def _end(self, event: Event) -> None:
        self.ended_at, self.ended = time.monotonic(), event
        self._heard.set()


class Team:
    """The processes that draw beside this one; `gpus` as CUDA_VISIBLE_DEVICES names them, "" for the processor."""

    def __init__(self, gpus: Sequence[str] = ()) -> None:
        self._gpus = tuple(gpus)
        self._mates: dict[int, Mate] = {}
        self._heard = threading.Event()

    @property
    def size(self) -> int:
        """Processes, this one among them."""
        return len(self._gpus) + 1

    @property
    def broken(self) -> bool:
        """Whether one of the others failed at its share or left it off, so that the stage cannot be whole now."""
        return any(mate.failed or mate.stopped for mate in self._mates.values())

    @contextlib.contextmanager
    def drawing(self, job: Path, processes: int, told: OnShare, should_stop: Callable[[], bool]) -> Iterator[None]:
        """Have the others draw their shares of a job meanwhile, and wait for them.

        What is raised inside stops them. Raises ShareFailed where one of them failed, Interrupted where one was
        stopped. `told` is called from other threads.
        """
        mates: list[Mate] = []
        interrupted = None
        try:  # where the second cannot be started, the first has begun
            for number in range(1, processes):
                mate = self._mates.get(number)
                if mate is None or mate.process.poll() is not None:
                    log = job.with_name(log_name(number))
                    mate = self._mates[number] = Mate(number, self._gpus[number - 1], log, self._heard)
                mate.begin(job, processes, told)
                mates.append(mate)
            yield
        except Interrupted as raised:
            interrupted = raised
            self._wait(lambda: True)
        except BaseException:
            self._wait(lambda: True)
            self.retire()
            raise
        else:
            self._wait(lambda: self.broken or should_stop())
        if any(mate.asked or mate.stopped or mate.failed for mate in mates):
            self.retire()  # who was asked to stop ends, be it after its share
        if failed := [mate for mate in mates if mate.failed]:
            first = min(failed, key=lambda mate: mate.ended_at)
            assert first.ended is not None
            raise ShareFailed(RankFailure(first.number, str(first.ended.reason), Path(str(first.ended.log))), processes)
        if interrupted is not None or any(mate.asked or mate.stopped for mate in mates):
            raise interrupted or Interrupted("stopped after a shard")

    def _wait(self, ending: Callable[[], bool]) -> None:
        while any(mate.ended is None for mate in self._mates.values()):
            if ending():
                self.stop()
            self._heard.wait(LOOK_SECONDS)
            self._heard.clear()
            for mate in self._mates.values():
                mate.look()

    def stop(self) -> None:
        """Ask all who are drawing to save what they have. A signal handler may call it."""
        for mate in self._mates.values():
            mate.stop()

    def retire(self) -> None:
        """End the others, and wait until they are gone with all they hold."""
        mates, self._mates = list(self._mates.values()), {}
        for mate in mates:
            assert mate.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                mate.process.stdin.close()
        for mate in mates:
            try:
                mate.process.wait(timeout=RETIRE_SECONDS)
            except subprocess.TimeoutExpired:
                mate.process.kill()
                mate.process.wait()
