"""`math`: the content of the last `\\boxed{...}`, compared by mathematical equality.

Equal strings (after harmless LaTeX is tidied) are equal and whole numbers are compared directly; everything else
is decided by the math-verify library (`pip install 'nsd[math]'`) in a helper process of its own, which starts at
the first hard comparison (about a second) and then takes milliseconds each. Verdicts are kept, so a pair costs
once per process.

Never raises on any text, works from any thread, and is bounded: answers over 1,000 characters are compared as
text only, and a comparison that needs more than `cpu_seconds` counts as unequal. The relation is made symmetric
(either answer as the gold one); it is not transitive, so votes are counted over `Verifier.group`'s greedy classes.

What the library reads over keeps answers apart here (math_forms.py): another base or a base beside none, another
unit of measure, the other half of the day, a word that changes the value (`18 million`), and numbers next to 0 that
differ by a factor.

Limits: the library's leniencies are this verifier's (`x = 5` equals `5`, `50\\%` equals `0.5`); a completion
without a box has no answer. Needs POSIX (resource limits).
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
from nsd.plugins.verifiers.boxed import last_boxed
from nsd.plugins.verifiers.math_forms import apart, spelled

LONGEST_COMPARED = 1000
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


class _Helper:
    """The comparing process: started when first needed, again after it died, anew in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._verdicts: OrderedDict[tuple[str, str, int], bool] = OrderedDict()

    def equal(self, a: str, b: str, cpu_seconds: int) -> bool:
        """The library's verdict; False where it ran out of its limits."""
        key = (min(a, b), max(a, b), cpu_seconds)
        with self._lock:
            if key not in self._verdicts:
                self._verdicts[key] = self._ask(*key)
                if len(self._verdicts) > REMEMBERED:
                    self._verdicts.popitem(last=False)
            return self._verdicts[key]

    def _ask(self, a: str, b: str, cpu_seconds: int) -> bool:
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
            return False
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

    version = 5

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
        if _INTEGER.fullmatch(a) and _INTEGER.fullmatch(b):
            return _integer(a) == _integer(b)
        if (differ := apart(a, b)) is not None:
            return not differ
        return _helper.equal(spelled(a), spelled(b), self.config.cpu_seconds)


def _integer(text: str) -> str:
    digits = text.replace(",", "").removeprefix("-").lstrip("0")
    return f"-{digits}" if digits and text.startswith("-") else digits
