"""The process in which the math-verify library compares two LaTeX answers; run by `nsd.plugins.verifiers.math`.

Reads JSON lines `[a, b, cpu_seconds]` and writes `true` or `false` for each. It is a process of its own because
a computer algebra system may run for ever (`9^{9^{9^9}}`, inside C code where no signal handler runs) or take all
memory, and the library's own time limit works in the main thread only. Here the kernel sets the limits: over
its CPU seconds or memory the process dies, and the caller reads the end of its output. CPU time, not wall
time, so that a busy machine gives the same verdicts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import sys
from functools import lru_cache
from typing import Any

MEMORY_BYTES = 4 << 30
SMALL = 1e-4


@lru_cache(maxsize=4096)
def parsed(answer: str) -> tuple[Any, ...]:
    """The library's readings of a bare LaTeX answer."""
    from math_verify import LatexExtractionConfig, parse

    config = LatexExtractionConfig(boxed_match_priority=0)
    return tuple(parse(rf"\boxed{{{answer}}}", [config], parsing_timeout=None))


def equal(a: str, b: str) -> bool:
    """Whether the library calls the answers equal with either of them as the gold one."""
    from math_verify import verify

    # The library's comparison is not symmetric (it unwraps `x = 5` on one side); votes need it to be.
    first, second = list(parsed(a)), list(parsed(b))
    same = verify(first, second, timeout_seconds=None) or verify(second, first, timeout_seconds=None)
    return bool(same) and not _far_apart(first, second)


def _far_apart(first: list[Any], second: list[Any]) -> bool:
    """Whether both are numbers so small that the library rounds them to 0, and differ by more than a millionth."""
    if not first or not second or not all(getattr(one[0], "is_number", False) for one in (first, second)):
        return False
    try:
        a, b = (complex(one[0].evalf(20)) for one in (first, second))
    except (TypeError, ValueError, AttributeError):  # a percentage, a set: the library's own objects
        return False
    return max(abs(a), abs(b)) < SMALL and abs(a - b) > 1e-6 * max(abs(a), abs(b))


def main() -> None:
    logging.disable(logging.CRITICAL)  # the library warns about the time limit this process replaces
    requests, answers = sys.stdin, sys.stdout
    sys.stdout = sys.stderr
    import math_verify  # noqa: F401 (its import must not count against the first comparison)

    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit; the CPU limit still holds
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    for line in requests:
        a, b, cpu_seconds = json.loads(line)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        # The limit counts from the start of the process in whole seconds, hence the 1.
        until = int(usage.ru_utime + usage.ru_stime) + 1 + int(cpu_seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (until, hard))
        try:
            verdict = equal(a, b)
        except Exception:
            verdict = False
        answers.write(json.dumps(verdict) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
