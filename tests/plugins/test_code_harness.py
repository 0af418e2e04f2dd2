"""What stands before a program in the sandbox, in the test's own process."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import functools
import heapq
import io
import itertools
import math
import operator
import random
import string
import typing

import pytest

from nsd.plugins.verifiers._code_harness import called, known, shown, used

USED = """
class Solution:
    def f(self, rows: List[int]) -> Optional[Counter]:
        heappush(rows, gcd(accumulate(rows), randint(1, 2)))
        return reduce(lambda a, b: itemgetter(a)(deepcopy(b)), rows, StringIO(digits), dataclass, timedelta)
"""


def test_names_that_a_program_uses_anywhere_are_given_and_no_others() -> None:
    assert known(used(compile(USED, "solution.py", "exec", dont_inherit=True))) == {
        "List": typing.List,  # noqa: UP006
        "Optional": typing.Optional,
        "Counter": collections.Counter,
        "heappush": heapq.heappush,
        "gcd": math.gcd,
        "accumulate": itertools.accumulate,
        "randint": random.randint,
        "reduce": functools.reduce,
        "itemgetter": operator.itemgetter,
        "deepcopy": copy.deepcopy,
        "StringIO": io.StringIO,
        "digits": string.digits,
        "dataclass": dataclasses.dataclass,
        "timedelta": datetime.timedelta,
    }


def test_a_name_of_a_module_and_of_its_function_is_the_module() -> None:
    import bisect

    assert known({"bisect", "copy", "datetime", "nobody"}) == {"bisect": bisect, "copy": copy, "datetime": datetime}


def test_a_method_of_the_class_solution_goes_before_a_function() -> None:
    class Solution:
        def f(self, a: int, b: int) -> int:
            return a - b

    space: dict[str, object] = {"f": lambda a, b: a + b, "g": max, "Solution": Solution}
    assert (called(space, "f", [5, 3]), called(space, "g", [5, 3])) == (2, 5)


@pytest.mark.parametrize("space", [{}, {"f": 5}, {"Solution": 5}])
def test_a_program_without_the_function_is_told_which_is_missing(space: dict[str, object]) -> None:
    with pytest.raises(NameError, match=r"the program has no function 'f', and no class Solution with such a method"):
        called(space, "f", [])


def test_an_error_is_shown_with_the_lines_of_the_program_alone(capsys: pytest.CaptureFixture[str]) -> None:
    text = "def f(x):\n    return 1 / x\nf(0)\n"
    try:
        exec(compile(text, "solution.py", "exec"), {})
    except ZeroDivisionError as error:
        shown(error, text)
    told = capsys.readouterr().err
    assert "test_code_harness" not in told and "    f(0)" in told and "    return 1 / x" in told
    assert told.endswith("ZeroDivisionError: division by zero\n")
