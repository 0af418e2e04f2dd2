"""How many short programs a second run in a sandbox, against bare subprocesses of the same Python.

    python -m benchmarks.sandbox [PROGRAMS] [--record]

A thousand programs that read a number and print its square, as many at a time as there are processors: bare, as
`subprocess.run([sys.executable, "-c", ...])` in threads, and in each kind of sandbox that this machine has; then the
same as tests of the verifier `code`, which also checks what they print. The sides take turns in rounds, so that a busy
machine slows all alike. The aim is half the rate of the bare ones.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks.clocks import clocked, median_ratio
from benchmarks.frame import Row, argument_parser, report
from nsd.plugins import sandbox
from nsd.plugins.api import Question
from nsd.plugins.errors import InputError
from nsd.plugins.sandbox import Kind, Program
from nsd.plugins.verifiers.code import Code

ROUNDS = 5
BARE = '`subprocess.run([sys.executable, "-c", ...])` in threads'
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


def measure(options: argparse.Namespace) -> Iterator[Row | str]:
    """A row for each kind of sandbox, and for the verifier."""
    sides: dict[str, Callable[[int], None]] = {}
    for kind in sandbox.KINDS:
        try:
            sandbox.guarantees(kind)
        except InputError as error:
            yield f"No {kind} here: {error}"
            continue
        sides[f"programs, in {kind}"] = walled(kind)
    sides["programs, as tests of the verifier `code`"] = judged
    share = max(1, options.programs // ROUNDS)
    rates: dict[str, list[float]] = {name: [] for name in ("bare", *sides)}
    for _ in range(ROUNDS):
        for name, side in {"bare": bare, **sides}.items():
            side(4)  # the helpers are there
            _, spent = clocked(partial(side, share))
            rates[name].append(share / spent.wall)
    for name in sides:
        own, peer = statistics.median(rates[name]), statistics.median(rates["bare"])
        note = f"{share} short ones in each of {ROUNDS} rounds"
        yield Row(name, BARE, "programs/s", own, peer, median_ratio(rates[name], rates["bare"]), note)


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("programs", nargs="?", type=int, default=1000)
    options = parser.parse_args()
    return report(options, measure(options))


if __name__ == "__main__":
    sys.exit(main())
