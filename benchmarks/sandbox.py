"""How many short programs a second run in a sandbox, against bare subprocesses of the same Python.

    python -m benchmarks.sandbox [PROGRAMS]

A thousand programs that read a number and print its square, as many at a time as there are processors: bare, as
`subprocess.run([sys.executable, "-c", ...])` in threads, and in each kind of sandbox that this machine has; then the
same as tests of the verifier `code`, which also checks what they print. The sides take turns in rounds, so that a busy
machine slows all alike; what is printed are medians over the rounds. The aim is half the rate of the bare ones.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from nsd.plugins import sandbox
from nsd.plugins.api import Question
from nsd.plugins.errors import InputError
from nsd.plugins.sandbox import Kind, Program
from nsd.plugins.verifiers.code import Code

ROUNDS = 5
SOURCE = "print(int(input()) ** 2)"


def bare(count: int) -> None:
    """The peer."""

    def one(number: int) -> None:
        done = subprocess.run([sys.executable, "-c", SOURCE], input=str(number), capture_output=True, text=True)
        assert int(done.stdout) == number**2

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        list(threads.map(one, range(count)))


def walled(kind: Kind) -> Callable[[int], None]:
    """The same in a kind of sandbox."""

    def run(count: int) -> None:
        rans = sandbox.run_many([Program(SOURCE, str(number)) for number in range(count)], kind)
        assert [int(ran.stdout) for ran in rans] == [number**2 for number in range(count)]

    return run


def judged(count: int) -> None:
    """The same as tests of a question."""
    tests = [{"kind": "stdin", "input": str(number), "output": str(number**2)} for number in range(count)]
    assert Code().score(f"```\n{SOURCE}\n```", Question("q", "Square it.", meta={"tests": tests})).correct


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    sides: dict[str, Callable[[int], None]] = {}
    for kind in sandbox.KINDS:
        try:
            sandbox.guarantees(kind)
        except InputError as error:
            print(f"no {kind} here: {error}")
            continue
        sides[kind] = walled(kind)
    sides["verifier code"] = judged
    rates: dict[str, list[float]] = {name: [] for name in ("bare", *sides)}
    for _ in range(ROUNDS):
        for name, side in {"bare": bare, **sides}.items():
            side(4)  # the helpers are there
            began = time.perf_counter()
            side(count // ROUNDS)
            rates[name].append(count // ROUNDS / (time.perf_counter() - began))
    print(f"{count} short programs, {ROUNDS} rounds in turn, {len(os.sched_getaffinity(0))} processors")
    for name, found in rates.items():
        ratio = statistics.median(own / peer for own, peer in zip(found, rates["bare"], strict=True))
        print(f"  {name:<14} {statistics.median(found):6.0f} programs/s   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
