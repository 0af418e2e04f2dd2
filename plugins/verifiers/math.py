"""`math`: the content of the last `\\boxed{...}`, compared by mathematical equality.

Equal strings (after harmless LaTeX is tidied) are equal and whole numbers are compared directly; everything else
is decided by the math-verify library (`pip install 'nsd[math]'`) in a helper process of its own, which starts at
the first hard comparison (about a second) and then takes milliseconds each. Verdicts are kept, so a pair costs
once per process.

Never raises on any text, works from any thread, and is bounded: answers over 1,000 characters are compared as
text only, and a comparison that needs more than `cpu_seconds` counts as unequal. The relation is made symmetric
(either answer as the gold one); it is not transitive, so votes are counted over `Verifier.group`'s greedy classes.

What the library reads over is decided here. Another base or a base beside none, the other half of the day, a word
that changes the value (`18 million`) and numbers next to 0 that differ by a factor keep answers apart (math_forms.py).
A tuple is compared in order and between the same brackets, a set or a bare list in any order, a list of names in order
(math_lists.py). Words of capital letters are texts and no products (math_names.py). Amounts are compared with their
units, cents with dollars and centimetres with metres (math_amounts.py). A percent sign is a unit: `50\\%` is 50
and not 0.5. So is a degree sign: `30^\\circ` is 30 and also `\\frac{\\pi}{6}`, and `\\sin 30` is not `\\sin 30^\\circ`.
An answer without a unit is equal to the same number with one.

Limits: the library's other leniencies are this verifier's (`x = 5` equals `5`); a completion without a box has no
answer. Needs POSIX (resource limits).
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path

from pydantic import Field

from nsd.plugins.api import PluginConfig, Verifier
from nsd.plugins.errors import MissingExtra
from nsd.plugins.registry import plugin
from nsd.plugins.verifiers import math_amounts, math_lists, math_names
from nsd.plugins.verifiers.boxed import last_boxed
from nsd.plugins.verifiers.math_forms import apart, in_full, spelled

LONGEST_COMPARED = 1000
DEEPEST = 12  # parts within parts
REMEMBERED = 200_000
# A backstop for a helper that hangs without using CPU; far over any CPU limit a spec would set.
WALL_SECONDS = 300.0

_TIDY = (
    (re.compile(r"\\[dt]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:left|right)(?![A-Za-z])"), ""),
    (re.compile(r"(?<!\\)\\[!,;:]"), ""),
    (re.compile(r"\s+"), " "),
)
_WRAPPED = re.compile(r"\$([^$]*)\$|\\\((.*)\\\)|\\\[(.*)\\\]", re.DOTALL)
_INTEGER = re.compile(r"-?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)")


def tidy(answer: str) -> str:
    """The answer without LaTeX that has no meaning: spacing, \\left, \\dfrac, math delimiters, a final stop."""
    while True:
        text = answer.strip()
        if whole := _WRAPPED.fullmatch(text):
            text = next(group for group in whole.groups() if group is not None)
        for pattern, replacement in _TIDY:
            text = pattern.sub(replacement, text)
        text = text.strip().removesuffix(".").strip()
        # Taking one thing away may uncover another; every round is shorter, so this ends.
        if text == answer:
            return text
        answer = text


class _OutOfLimits(Exception):
    """A comparison that was cut off: the answers count as unequal, whatever their other parts are."""


class _Helper:
    """The comparing process: started when first needed, again after it died, anew in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._verdicts: OrderedDict[tuple[str, str, int], bool | None] = OrderedDict()

    def equal(self, a: str, b: str, cpu_seconds: int) -> bool | None:
        """The library's verdict; None where it ran out of its limits."""
        key = (min(a, b), max(a, b), cpu_seconds)
        with self._lock:
            if key not in self._verdicts:
                self._verdicts[key] = self._ask(*key)
                if len(self._verdicts) > REMEMBERED:
                    self._verdicts.popitem(last=False)
            return self._verdicts[key]

    def _ask(self, a: str, b: str, cpu_seconds: int) -> bool | None:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        backstop = threading.Timer(WALL_SECONDS, process.kill)
        backstop.daemon = True
        backstop.start()
        try:
            process.stdin.write(json.dumps([a, b, cpu_seconds]) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            backstop.cancel()
        if not line:  # killed by a limit
            self.stop()
            return None
        return bool(json.loads(line))

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            # Found here and not in the child, where its absence would look like a verdict. -P: the script's
            # folder has a math.py, which must not stand in for the standard library's.
            if importlib.util.find_spec("math_verify") is None:
                raise MissingExtra("math_verify", "math")
            script = Path(__file__).with_name("_math_worker.py")
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for the run, which saves first; this one ends with its input
            )
        return self._process

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def forget(self) -> None:
        """After a fork: the pipes are the parent's, and the lock may be held by a thread that is gone."""
        self._lock, self._process = threading.Lock(), None


_helper = _Helper()
atexit.register(_helper.stop)
os.register_at_fork(after_in_child=_helper.forget)


@plugin("verifier", "math")
class Math(Verifier):
    """The last boxed answer, compared by the math-verify library."""

    version = 6

    class Config(PluginConfig):
        cpu_seconds: int = Field(
            default=5, ge=1, le=60, description="CPU seconds for one comparison; over it the answers are unequal."
        )

    config: Config
    extra = "math"

    def extract(self, completion: str) -> str | None:
        """Content of the last box, tidied; None where there is no box or it is empty."""
        boxed = last_boxed(completion)
        return None if boxed is None else tidy(boxed) or None

    def normalise(self, answer: str) -> str | None:
        """A bare answer, tidied; where it holds a box, that box's content."""
        boxed = last_boxed(answer)
        return tidy(answer if boxed is None else boxed) or None

    def same(self, a: str, b: str) -> bool:
        """Mathematical equality of two normalised answers. Raises MissingExtra without math-verify."""
        if a == b:
            return True
        if max(len(a), len(b)) > LONGEST_COMPARED:
            return False
        try:
            return self._same(a, b, 0)
        except _OutOfLimits:
            return False

    def _same(self, a: str, b: str, depth: int) -> bool:
        """Equality of answers or of their parts. Raises _OutOfLimits where one comparison ran out of its limits."""
        a, b = in_full(a), in_full(b)
        if a == b:
            return True
        if _INTEGER.fullmatch(a) and _INTEGER.fullmatch(b):
            return _integer(a) == _integer(b)
        differ = apart(a, b)
        if differ is None:
            differ = math_names.differ(a, b)
        if differ is not None:
            return not differ
        if depth > DEEPEST:
            return False

        def same(one: str, other: str) -> bool:
            return self._same(one, other, depth + 1)

        several, others = math_lists.read(a), math_lists.read(b)
        if several is not None and others is not None:
            return math_lists.equal(several, others, same)
        for read, other in ((several, b), (others, a)):
            if read is not None and len(read.parts) == 1:
                return same(read.parts[0], other)
            if read is not None and math_lists.differs(read, other):
                return False
        if (equal := math_amounts.equal(a, b, same)) is not None:
            return equal
        first, second = (math_amounts.in_radians(spelled(one)) for one in (a, b))
        verdict = _helper.equal(first, second, self.config.cpu_seconds)
        if verdict is None:
            raise _OutOfLimits
        return verdict


def _integer(text: str) -> str:
    digits = text.replace(",", "").removeprefix("-").lstrip("0")
    return f"-{digits}" if digits and text.startswith("-") else digits
