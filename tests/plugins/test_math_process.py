"""The comparing process of the math verifier, without starting one: what is remembered, cut off, and compared."""

from __future__ import annotations

import importlib.util
import subprocess

import pytest

from nsd.plugins.errors import MissingExtra
from nsd.plugins.verifiers import _math_worker, math
from nsd.plugins.verifiers.math import DEEPEST, LONGEST_COMPARED, Math, _Helper


def test_the_oldest_verdict_is_forgotten_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Counted(_Helper):
        def _ask(self, a: str, b: str, cpu_seconds: int) -> bool | None:
            asked.append(a + b)
            return a == "a"

    monkeypatch.setattr(math, "REMEMBERED", 2)
    helper = Counted()
    pairs = ["ab", "ba", "cd", "dc", "ef", "cd", "ab"]
    assert [helper.equal(*pair, 5) for pair in pairs] == [True, True, False, False, False, False, True]
    assert asked == ["ab", "cd", "ef", "ab"]


def test_a_comparison_that_is_cut_off_is_unequal_and_ends_those_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def cut(helper: _Helper, a: str, b: str, cpu_seconds: int) -> None:
        asked.append((a, b, cpu_seconds))

    monkeypatch.setattr(_Helper, "_ask", cut)
    assert Math(Math.Config(cpu_seconds=3)).same(r"\{p^5, q\}", r"\{r^5, q\}") is False
    assert asked == [("p^5", "r^5", 3)]


def test_an_answer_too_long_to_compare_is_equal_to_itself_alone() -> None:
    long = r"\{1,2" + " " * LONGEST_COMPARED + r"\}"
    assert Math().same(long, long) is True
    assert Math().same(long, r"\{1,2\}") is False
    assert Math().same(r"\{1,2" + " " * 100 + r"\}", r"\{1,2\}") is True


def test_parts_are_compared_to_a_depth() -> None:
    assert Math()._same(r"\{1,2\}", r"\{2,1\}", DEEPEST) is True
    assert Math()._same(r"\{1,2\}", r"\{2,1\}", DEEPEST + 1) is False


def test_a_process_that_ended_gives_no_verdict_and_is_left() -> None:
    class Ended(_Helper):
        def _running(self) -> subprocess.Popen[str]:
            if self._process is None:
                self._process = subprocess.Popen(
                    ["true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
                )
                self._process.wait()
            return self._process

    helper = Ended()
    assert helper.equal("a", "b", 1) is None
    assert helper._process is None


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"'math_verify'.*math-verify"):
        _Helper()._running()


def test_what_is_no_number_is_never_far_apart() -> None:
    pytest.importorskip("math_verify", reason="needs the extra nsd[math]")
    assert _math_worker.equal("x+x", "2x") is True
    assert _math_worker.equal("x+x", "3x") is False
