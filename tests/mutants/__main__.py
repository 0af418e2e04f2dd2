"""python -m tests.mutants [--faults 100] [--seed 8] [--only PATTERN] [--list] [--json FILE]; exit code 0 always."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from .copies import ROOT, Copy, environment
from .covering import Covering, covering, sources_key
from .faults import Fault, draw

CACHE = ROOT / ".mutants"
# Seconds of tests per fault, by the times of the coverage run; slower tests beyond it are left out and counted.
MOST_SECONDS = 120.0
SLACK_SECONDS, SLACK_TIMES = 30.0, 5.0


class Server:
    """The warm process of one copy."""

    def __init__(self, copy: Copy) -> None:
        self.copy = copy
        self.process = subprocess.Popen(
            [str(copy.python), "-P", str(Path(__file__).with_name("server.py"))],
            cwd=copy.root,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError((self.copy.root.parent / "server.log").read_text()[-3000:])
        return dict(json.loads(line))

    def ask(self, tests: list[str], map_: Covering, options: tuple[str, ...] = ("-x",)) -> dict[str, Any]:
        assert self.process.stdin is not None
        longest = max((map_.cost([test]) for test in tests), default=0.0)
        request = {
            "tests": tests,
            "options": list(options),
            "each": round(SLACK_SECONDS + SLACK_TIMES * longest),
            "limit": 2 * SLACK_SECONDS + SLACK_TIMES * map_.cost(tests),
        }
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def check(self, fault: Fault, tests: list[str], map_: Covering) -> dict[str, Any]:
        path = self.copy.root / fault.file
        whole = path.read_bytes()
        try:
            path.write_text(fault.mutated, encoding="utf-8")
            return self.ask(tests, map_)
        finally:
            path.write_bytes(whole)

    def close(self) -> None:
        """End the process and all that it started, whatever it is doing."""
        self.process.terminate()
        self.process.wait()


@contextmanager
def copies(count: int) -> Iterator[list[Copy]]:
    with tempfile.TemporaryDirectory(prefix="nsd-mutants-") as folder:
        yield [Copy(Path(folder) / str(number)) for number in range(count)]


def within(tests: list[str], map_: Covering) -> list[str]:
    """The first tests whose time together stays within the limit; one at least."""
    kept: list[str] = []
    for test in tests:
        if kept and map_.cost([*kept, test]) > MOST_SECONDS:
            break
        kept.append(test)
    return kept


def run(
    faults: list[Fault], made: list[Copy], map_: Covering, without: set[str], keep: Callable[[dict[str, Any]], None]
) -> None:
    """Try each fault in the next free copy; `keep` is called with each result."""
    if not faults:
        return
    waiting: SimpleQueue[Fault] = SimpleQueue()
    for fault in faults:
        waiting.put(fault)
    lock, troubles = threading.Lock(), []
    servers: list[Server] = []

    def work(copy: Copy) -> None:
        try:
            server = Server(copy)
            servers.append(server)
            server.answer()
            while not troubles:
                try:
                    fault = waiting.get_nowait()
                except Empty:
                    return
                covering_it = [test for test in map_.tests_of(fault) if test not in without]
                tests = within(covering_it, map_)
                if tests:
                    result = server.check(fault, tests, map_)
                else:
                    result = {"outcome": "not covered", "by": "", "why": "", "run": 0, "seconds": 0.0}
                about = {name: value for name, value in asdict(fault).items() if name != "mutated"}
                result.pop("failures", None)
                with lock:
                    keep({**about, "tests": len(tests), "left_out": len(covering_it) - len(tests), **result})
        except Exception as error:
            troubles.append(error)

    threads = [threading.Thread(target=work, args=(copy,), daemon=True) for copy in made]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:  # an interrupt too: the copies are about to go
        for server in servers:
            server.close()
    if troubles:
        raise troubles[0]


def unsound(tests: set[str], copy: Copy, map_: Covering) -> set[str]:
    """Those of the tests that fail without any fault, run as the faults are."""
    if not tests:
        return set()
    server = Server(copy)
    try:
        server.answer()
        answer = server.ask(map_.ordered(sorted(tests)), map_, options=())
    finally:
        server.close()
    failing = set(answer["failures"])
    if answer["code"] not in (0, 1) or not failing <= tests:
        raise RuntimeError(f"the tests do not run on the copy without a fault: {answer}")
    return failing


def report(results: list[dict[str, Any]], sizes: dict[str, int], seed: int, seconds: float) -> str:
    counts = Counter(result["outcome"] for result in results)
    seen = counts["noticed"] + counts["timeout"]
    lines = []
    for result in results:
        if result["outcome"] in ("survived", "not covered"):
            more = f", {result['left_out']} slower left out" if result["left_out"] else ""
            place = f"{result['file']}:{result['line']}"
            lines += [f"{place}  {result['outcome']} ({result['tests']} tests{more}) [{result['key']}]"]
            lines += [f"    {line}" for line in result["diff"].splitlines()]
    rooms = []
    for room, size in sizes.items():
        of_room = [result["outcome"] for result in results if result["room"] == room]
        noticed = sum(outcome in ("noticed", "timeout") for outcome in of_room)
        rooms.append(f"{room} {noticed}/{len(of_room)} (of {size} statements)")
    return "\n".join(
        [
            *lines,
            "",
            f"{len(results)} faults, seed {seed}, sources {sources_key()}, {seconds:.0f} s",
            f"noticed {seen} ({seen / max(1, len(results)):.1%}), of them {counts['timeout']} by a time limit; "
            f"survived {counts['survived']}; not covered {counts['not covered']}",
            "; ".join(rooms),
        ]
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Plant single faults and count those that the fast tests notice.")
    parser.add_argument("--faults", type=int, default=100, help="how many; the first of a longer list are the same")
    parser.add_argument("--seed", type=int, default=8, help="of the draw")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="keys, or parts of file names, of the drawn faults to try (again)")
    parser.add_argument("--list", action="store_true", help="print the list and try none")
    parser.add_argument("--json", type=Path, help="write the results here too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up, as after Ctrl-C
    began = time.monotonic()
    faults, sizes = draw(ROOT, options.faults, options.seed)
    if options.only:
        parts = options.only.split(",")
        faults = [each for each in faults if any(part == each.key or part in each.file for part in parts)]
    if options.list:
        for fault in faults:
            print(f"{fault.file}:{fault.line} [{fault.key}]\n{fault.diff}")
        print(f"{len(faults)} faults; statements: {sizes}")
        return
    with copies(options.workers) as made:
        map_ = covering(CACHE, made[0], say)
        kept = CACHE / f"results-{map_.key}.jsonl"
        found = {}
        if kept.exists():
            found = {each["key"]: each for each in map(json.loads, kept.read_text(encoding="utf-8").splitlines())}

        def keep(result: dict[str, Any]) -> None:
            found[result["key"]] = result
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            done = sum(each.key in found for each in faults)
            say(f"{done}/{len(faults)} {result['outcome']} {result['file']}:{result['line']} {result['seconds']} s")

        # A test that fails without a fault has noticed nothing. Those that failed under coverage are asked first; at
        # the end, all that noticed something; what a failing one "noticed" is tried again without it.
        bad, sound = unsound(set(map_.failed), made[0], map_), set()
        owed = [each for each in faults if options.only or each.key not in found]
        while True:
            run(owed, made, map_, bad, keep)
            asked = {found[each.key]["by"] for each in faults} & set(map_.uses) - bad - sound
            bad |= unsound(asked, made[0], map_)
            sound |= asked - bad
            owed = [each for each in faults if found[each.key]["by"] in bad]
            if not owed:
                break
        if bad:
            say("not asked, because they fail without a fault too: " + ", ".join(sorted(bad)))
    results = [found[each.key] for each in faults]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(report(results, sizes, options.seed, time.monotonic() - began))


if __name__ == "__main__":
    main()
