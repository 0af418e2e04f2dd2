"""`code`: the judging rules of its sources, what it tells of a failure, and programs that cheat."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins import sandbox
from nsd.plugins.api import Question, Score, SideFile
from nsd.plugins.errors import InputError
from nsd.plugins.registry import find
from nsd.plugins.sandbox import Kind
from nsd.plugins.verifiers import code_tests
from nsd.plugins.verifiers.code import Code, _Trial, longest_block
from nsd.plugins.verifiers.code_feedback import LONGEST

GOLDEN = Path(__file__).parent / "golden" / "code_feedback"
ADD = "print(sum(map(int, input().split())))"


def stdin(given: str, output: str, **more: Any) -> dict[str, Any]:
    return {"kind": "stdin", "input": given, "output": output, **more}


def call(arguments: list[Any], output: Any, **more: Any) -> dict[str, Any]:
    return {"kind": "functional", "input": arguments, "output": output, **more}


def question(*tests: dict[str, Any], **meta: Any) -> Question:
    return Question("q1", "Add.", meta={"tests": list(tests), **meta})


SUMS = question(stdin("1 2\n", "3\n", public=True), stdin("20 30\n", "50\n"))


def block(program: str) -> str:
    return f"Let me think.\n```python\n{program}\n```\nDone."


def judge(program: str, about: Question = SUMS, **config: Any) -> Score:
    return Code(Code.Config(**config)).score(block(program), about)


# --------------------------------------------------------------------------- which text is the program


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("no block at all", None),
        ("```python\na = 1\n```", "a = 1\n"),
        ("```\na\n```\nbetter:\n```python\nlonger one\n```\nas in\n```\nb\n```", "longer one\n"),
        ("```\naa\n```\n```\nbb\n```", "aa\n"),
        ("```python\nnever closed", None),
        ("```\n\n```", None),
        ("  ```py\n  x\n  ```", "x\n"),
        ('```python\nprint("```")\nprint(2)\n```', 'print("```")\nprint(2)\n'),
        ("~~~~\n```\ninner\n```\n~~~~", "```\ninner\n```\n"),
        ("```python\na\r\nb\r\n```", "a\nb\n"),
        # A fence opens at the end of a line of prose, and not where it ends what was quoted there.
        ("Idea: ```python\na = 1\n```", "a = 1\n"),
        ("Idea `x`: ```\na = 1\n```", "a = 1\n"),
        ("Say ```x```\nand then:\n```\nb\n```", "b\n"),
        # It closes at the end of a line of the program.
        ("```python\nprint(1)```", "print(1)\n"),
        ("````python\nprint(1)```\n````", "print(1)```\n"),
        ("```python\na```\nprose that is longer\n```python\nbb\n```", "bb\n"),
        # One with a language begins a new block.
        ("```python\nnever closed, and long\n```python\na = 1\n```", "a = 1\n"),
        # A line ends at a line feed alone.
        ("```python\na = '\u2028\x0c\x85'\n```", "a = '\u2028\x0c\x85'\n"),
        # A block in a list is not indented.
        ("1. So:\n   ```python\n   if a:\n       b\n\n   c\n   ```", "if a:\n    b\n\nc\n"),
        ("- ```python\n  a\n  ```", "a\n"),
        ('```python\na = """\n  \n"""\n```', 'a = """\n  \n"""\n'),
    ],
)
def test_the_program_is_the_longest_fenced_block(completion: str, expected: str | None) -> None:
    assert longest_block(completion) == expected


# --------------------------------------------------------------------------- the judging rules


def test_a_program_that_passes_every_test_scores_1() -> None:
    assert judge(ADD) == Score(1.0, True, f"{ADD}\n", None, {"share_passed": 1.0})


def test_one_failed_test_makes_the_score_0_and_the_share_is_a_number_of_its_own() -> None:
    found = judge("print(3)")
    assert (found.score, found.correct, found.numbers) == (0.0, False, {"share_passed": 0.5})


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("3", "3\n", True),
        ("\n 3 \n\n", "3", True),
        ("1 2  \n3\r\n", "1 2\n3", True),
        ("1  2", "1 2", False),
        ("3.0", "3", False),
        ("Yes", "yes", False),
        ("", "0", False),
        ("1\n\n2", "1\n2", False),
    ],
)
def test_printed_output_is_compared_without_white_space_around_it(printed: str, expected: str, same: bool) -> None:
    assert (code_tests.plain(printed) == code_tests.plain(expected)) is same
    assert judge(f"import sys; sys.stdout.write({printed!r})", question(stdin("", expected))).correct is same


@pytest.mark.parametrize(
    ("returned", "expected", "same"),
    [
        ("[1, 2]", [1, 2], True),
        ("(1, 2)", [1, 2], True),
        ("[2, 1]", [1, 2], False),
        ("{'a': [1], 'b': None}", {"b": None, "a": [1]}, True),
        ("{1: 'x'}", {"1": "x"}, True),
        ("2.0", 2, True),
        ("'2'", 2, False),
        ("True", True, True),
        ("None", None, True),
        ("None", False, False),
        ("float('nan')", 1.0, False),
        ("{1, 2}", [1, 2], False),
        ("(x for x in [1])", [1], False),
        ("'é\\ud800'", "é\ud800", True),
    ],
)
def test_a_returned_value_is_compared_by_its_structure(returned: str, expected: object, same: bool) -> None:
    about = question(call([], expected), function="f")
    assert judge(f"def f(): return {returned}", about).correct is same


def test_a_function_may_stand_alone_or_in_a_class_solution() -> None:
    about = question(call([[3, 1], 2], [5, 3]), function="shift")
    assert judge("def shift(a, b):\n    return [x + b for x in a]", about).correct
    assert judge("class Solution:\n    def shift(self, a, b):\n        return [x + b for x in a]", about).correct
    assert not judge("class Solution:\n    def other(self, a, b):\n        return [5, 3]", about).correct


def test_names_that_leetcode_gives_are_there_without_an_import() -> None:
    program = (
        "class Solution:\n    def f(self, a: List[int], b: Optional[int] = None) -> Dict[int, int]:\n"
        "        heapq.heapify(a); d = defaultdict(int); d[math.gcd(4, 6)] = bisect_left(a, 2)\n        return d"
    )
    assert judge(program, question(call([[1, 2]], {"2": 1}), function="f")).correct


def test_prints_of_a_function_are_not_its_result() -> None:
    about = question(call([], 7), function="f")
    assert judge("def f():\n    print(8)\n    return 7\nprint(9)", about).correct


def test_a_script_may_stand_behind_the_main_guard_and_exit() -> None:
    assert judge(f"import sys\nif __name__ == '__main__':\n    {ADD}\n    sys.exit()").correct
    assert judge(f"{ADD}\nexit(0)").correct


@pytest.mark.slow
def test_time_of_a_test_is_of_the_question_else_of_the_config() -> None:
    slow = "import time\nwhile time.process_time() < 3: pass\nprint(1)"
    assert not judge(slow, question(stdin("", "1"), seconds=0.2)).correct
    assert judge(slow, question(stdin("", "1")), seconds=30).correct


@pytest.mark.slow
def test_a_program_that_waits_is_given_more_time_once_for_the_machine_may_be_busy() -> None:
    assert judge("import time; time.sleep(2); print(1)", question(stdin("", "1"), seconds=0.2)).correct
    assert not judge("import time; time.sleep(60); print(1)", question(stdin("", "1"), seconds=0.2)).correct


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(2, 2.0), (0.5, 0.5), (True, 6.0), (float("inf"), 6.0), (float("nan"), 6.0), (0, 6.0), ("3", 6.0), (1e300, 600.0)],
)
def test_the_time_that_a_question_says_is_a_finite_number_of_seconds(given: Any, seconds: float) -> None:
    about = question(stdin("", "1"), seconds=given)
    assert _Trial(Code(), block("1"), about, code_tests.tests_of(about)).seconds == seconds


@pytest.mark.slow
def test_a_program_without_end_is_not_run_on_every_test(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    real = sandbox.run_many

    def counted(programs: Any, kind: Kind = "auto") -> Any:
        ran.extend(programs)
        return real(programs, kind)

    monkeypatch.setattr(sandbox, "run_many", counted)
    tests = [stdin(str(n), "1") for n in range(9)]
    found = judge("while True: pass", question(*tests, seconds=0.1), timeouts=2)
    assert {program.stdin for program in ran} == {"0", "1"} and found.numbers == {"share_passed": 0.0}


@pytest.mark.parametrize(("stopped", "exit_code"), [(None, 0), (None, 1), ("output", 137)])
def test_of_what_a_program_said_the_begin_and_the_end_are_kept(stopped: Any, exit_code: int) -> None:
    (test,) = code_tests.tests_of(question(stdin("", "1")))
    said = f"first{'x' * 100_000}last\n"
    ran = sandbox.Ran(said, said, exit_code, False, frozenset(), stopped)
    found = code_tests.judged(code_tests.attempt("1", None, test, 1.0, 64), ran)
    assert len(found.said) == code_tests.KEPT and found.said.startswith("first") and found.said.endswith("last")


@pytest.mark.slow
def test_many_at_once_are_judged_like_one_by_one() -> None:
    about = question(stdin("1 2", "3", public=True), stdin("2 2", "4", public=True), stdin("5 5", "10"))
    other = question(call([1], 2, public=True), call([2], 3), function="f")
    items = [
        *[(block(one), about) for one in (ADD, "print(3)", "print(", "1/0", "print(4)", "import os; os._exit(0)")],
        ("no program", about),
        *[(block(one), other) for one in ("def f(n): return n + 1", "def f(n): return 2", "def g(): pass", "exit(3)")],
    ]
    verifier = Code()
    assert verifier.score_many(items) == [verifier.score(*item) for item in items]


def test_tests_may_lie_in_a_side_file(tmp_path: Path) -> None:
    (tmp_path / "tests.json").write_text(json.dumps(SUMS.meta["tests"]))
    about = Question("q1", "Add.", meta={"tests": SideFile.of(tmp_path / "tests.json")})
    assert judge(ADD, about).correct and judge("print(3)", about).numbers == {"share_passed": 0.5}


# --------------------------------------------------------------------------- the half that training sees


def test_training_sees_half_of_the_tests_the_same_each_time_and_one_at_least() -> None:
    tests = code_tests.tests_of(question(*[stdin(str(n), str(n)) for n in range(10)]))
    seen = {tuple(test.number for test in code_tests.half(tests, Question(f"q{n}", ""), 0)) for n in range(20)}
    assert all(len(one) == 5 and list(one) == sorted(one) for one in seen) and len(seen) > 10
    assert (
        code_tests.half(tests, Question("q", ""), 1)
        == code_tests.half(tests, Question("q", ""), 1)
        != code_tests.half(tests, Question("q", ""), 2)
    )
    assert [len(code_tests.half(tests[:n], SUMS, 0)) for n in (1, 2, 3)] == [1, 1, 1]


def test_what_training_does_not_see_does_not_change_its_verdict() -> None:
    about = question(*[stdin(str(n), str(n)) for n in range(4)])
    seen = [test.input for test in code_tests.half(code_tests.tests_of(about), about, 0)]
    program = f"n = input()\nprint(n if n in {seen!r} else 'wrong')"
    assert judge(program, about, tests="train").correct
    assert judge(program, about).numbers == {"share_passed": 0.5}


# --------------------------------------------------------------------------- a question that is none


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ({}, "meta.tests should be a list"),
        ({"tests": []}, "with a test at least"),
        ({"tests": [{"kind": "stdin"}]}, "test 1: it should be an object with kind, input and output"),
        ({"tests": [stdin("", ""), {"kind": "x", "input": "", "output": ""}]}, "test 2: kind 'x' should be stdin"),
        ({"tests": [{"kind": "stdin", "input": [1], "output": ""}]}, "a stdin test has text"),
        ({"tests": [call([], 1)]}, "meta.function does not name the function"),
        ({"tests": [{"kind": "functional", "input": 3, "output": 1}], "function": "f"}, "a list of arguments"),
        (
            {"tests": [call([], 1), call([], {"a": [1, float("nan")]})], "function": "f"},
            "test 2: its output holds NaN",
        ),
    ],
)
def test_a_question_without_proper_tests_is_an_error_that_names_its_place(meta: dict[str, Any], said: str) -> None:
    about = Question("q1", "Add.", meta=meta, place="train.jsonl:7")
    with pytest.raises(InputError, match=said) as raised:
        judge(ADD, about)
    assert str(raised.value).startswith("train.jsonl:7: ")


# --------------------------------------------------------------------------- feedback

SHOWN = [
    stdin("1 2\n", "3\n", public=True),
    stdin("4 5 6 7 8\n", "30\n", public=True),
    stdin("9 1\n", "10\n", public=True),
]
SECRET = "741852"
HIDDEN = [stdin(f"{SECRET} 1\n", f"{int(SECRET) + 1}\n")]
CALLS = question(call([[1, 2], "x"], {"n": 2}, public=True), call([[], ""], {"n": 0}, public=True), function="count")
FAILURES: dict[str, tuple[str, Question]] = {
    "no_block": ("I think the answer is 3.", SUMS),
    "syntax_error": (block("def f(:\n    pass"), question(*SHOWN)),
    "exception": (block("a, b = map(int, input().split())\nprint(a // (b - 2))"), question(*SHOWN)),
    "exception_of_a_function": (block("def count(a, b):\n    return a[0]['x']"), CALLS),
    "exit_code": (block("print(3)\nexit(3)"), question(*SHOWN)),
    "time": (block("while True: pass"), question(*SHOWN, seconds=0.2)),
    "memory": (block("x = bytearray(5 << 30)"), question(*SHOWN)),
    "output": (block("while True: print('x' * 10000)"), question(*SHOWN)),
    "wrong_output": (block("print(3)"), question(*SHOWN)),
    "wrong_result": (block("def count(a, b):\n    return {'n': 7}"), CALLS),
    "no_function": (block("def other(a, b):\n    return 7"), CALLS),
    "no_json": (block("def count(a, b):\n    return {1, 2}"), CALLS),
    "nothing_printed": (block("input()"), question(*SHOWN)),
    "long_output": (block("print('spam ' * 3000)"), question(stdin("1 " * 3000, "7 " * 3000, public=True))),
    "hidden_wrong": (block("print(3)"), question(SHOWN[0], *HIDDEN)),
    "hidden_exception": (
        block("a, b = map(int, input().split())\nassert a == 1\nprint(3)"),
        question(SHOWN[0], *HIDDEN),
    ),
    "hidden_time": (
        block("a, b = map(int, input().split())\nwhile a > 1: pass\nprint(3)"),
        question(SHOWN[0], *HIDDEN, seconds=0.2),
    ),
    "all_hidden_syntax_error": (block("def f(:\n    pass"), question(*HIDDEN)),
}


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow if "time" in one else ()) for one in FAILURES]
)
def test_each_kind_of_failure_has_its_feedback(name: str) -> None:
    found = Code().score(*FAILURES[name]).feedback
    assert found is not None and len(found) <= LONGEST
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("NSD_UPDATE_GOLDEN"):
        path.write_text(f"{found}\n", encoding="utf-8")
    assert f"{found}\n" == path.read_text(encoding="utf-8")


def test_every_golden_feedback_is_of_a_failure() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(FAILURES)


def test_a_program_that_passes_has_no_feedback() -> None:
    assert judge(ADD).feedback is None


def test_the_first_error_is_told_before_a_shorter_test_with_wrong_output() -> None:
    program = "n = input()\nprint(1 / (len(n) - 3))"
    found = judge(program, question(stdin("9", "x", public=True), stdin("123", "y", public=True)))
    assert found.feedback is not None and "ZeroDivisionError" in found.feedback and "Test 2" in found.feedback


def test_of_wrong_outputs_the_two_shortest_tests_are_told() -> None:
    tests = [stdin("1" * n, "z", public=True) for n in (30, 3, 20, 2)]
    found = judge("print(0)", question(*tests)).feedback
    assert found is not None
    assert [line for line in found.splitlines() if line.startswith("Test ")] == [
        "Test 4 failed: the output is wrong.",
        "Test 2 failed: the output is wrong.",
    ]


def test_tests_that_training_sees_are_told_and_no_others() -> None:
    about = question(*[stdin(f"in{n}", f"out{n}") for n in range(4)])
    seen = {test.input for test in code_tests.half(code_tests.tests_of(about), about, 0)}
    found = judge("print(0)", about, tests="train").feedback
    assert found is not None
    assert {f"in{n}" for n in range(4) if f"in{n}" in found} == seen


LEAKS = {
    "prints it": "print(input())",
    "raises it": "raise ValueError(input())",
    "names a class after it": "raise type('E' + input().split()[0], (Exception,), {})()",
    "exits with it": "import sys; sys.exit(input())",
    "writes it to the error stream": "import sys; sys.stderr.write(input()); sys.exit(1)",
    "claims a syntax error": "raise SyntaxError(input())",
    "as a memory error": "import sys; sys.stderr.write(input() + ' MemoryError'); sys.exit(1)",
    "prints without end": "x = input()\nwhile True: print(x)",
    "by its time": "import sys\nsys.stderr.write(input())\nwhile True: pass",
}


@pytest.mark.parametrize("program", LEAKS.values(), ids=LEAKS)
def test_no_word_of_a_hidden_test_is_told(program: str) -> None:
    found = judge(program, question(*HIDDEN, seconds=0.2)).feedback
    assert found is not None and found.startswith("A hidden test failed: ")
    assert SECRET not in found and SECRET[1:] not in found and len(found) < 80


def test_a_hidden_input_is_not_carried_into_a_shown_test() -> None:
    program = (
        "import os\nline = input()\n"
        "for place in ('/tmp', '/dev/shm', '.', os.path.expanduser('~')):\n"
        "    try:\n        open(os.path.join(place, 'kept'), 'a').write(line)\n"
        "        print(open(os.path.join(place, 'kept')).read())\n    except OSError: pass"
    )
    about = question(*HIDDEN, *[stdin("1 2", "none", public=True)] * 4)
    found = judge(program, about).feedback
    assert found is not None and "1 2" in found and SECRET not in found


# --------------------------------------------------------------------------- programs that cheat

CHEATS = {
    "prints the answer and crashes": "print(3)\nraise SystemError",
    "prints the answer and segfaults": "print(3, flush=True)\nimport ctypes; ctypes.string_at(0)",
    "prints the answer and kills itself": "print(3, flush=True)\nimport os; os.kill(os.getpid(), 9)",
    "prints the answer and exits with 1": "print(3)\nexit(1)",
    "prints the answer and hangs": "print(3, flush=True)\nwhile True: pass",
    "prints the answer, and an error comes at exit": "import threading, os\nprint(3, flush=True)\nos._exit(2)",
    "exits with 0 and says nothing": "import os; os._exit(0)",
    "says it passed": "print('passed'); print(True); print(1.0)",
    "replaces print and str": "import builtins\nbuiltins.str = lambda *a: '3'\nbuiltins.print = lambda *a: None",
    "is equal to everything": "class E(str):\n    __eq__ = lambda s, o: True\nprint(E('x'))",
    "looks for the expected output": (
        "import gc, os, sys, glob\nfound = [o for o in gc.get_objects() if isinstance(o, dict) and 'output' in o]\n"
        "print(found[0]['output'] if found else '')"
    ),
    "looks through the files": (
        "import glob\nfor p in glob.glob('/etc/**', recursive=True) + glob.glob('/tmp/**', recursive=True):\n"
        "    try: t = open(p).read()\n    except OSError: continue\n    if '50' in t: print('50')"
    ),
    "asks its parents": "import os\nprint(open(f'/proc/{os.getppid()}/environ').read())",
    "closes its output": "import os; os.close(1); os.close(2)",
    "writes over the interpreter": (
        "import sys, os\nfor p in [sys.executable, os.__file__, '/tmp/program.py', 'program.py']:\n"
        "    try: open(p, 'w').write('print(3)')\n    except OSError: pass"
    ),
}


@pytest.mark.parametrize(
    "program",
    [pytest.param(one, id=name, marks=pytest.mark.slow if "hangs" in name else ()) for name, one in CHEATS.items()],
)
@pytest.mark.parametrize("kind", ["bubblewrap", "landlock"])
def test_a_script_that_cheats_passes_nothing(kind: Kind, program: str) -> None:
    about = question(stdin("1 2", "3", public=True), stdin("20 30", "50"), seconds=0.3)
    assert judge(program, about, sandbox=kind).score == 0.0
    assert judge(ADD, about, sandbox=kind).correct, "the next one is judged as ever"


CHEATING_FUNCTIONS = {
    "prints the result": "print('[1, 2]')\nimport os; os._exit(0)",
    "writes the result to every descriptor": (
        "import os\nfor n in range(64):\n    try: os.write(n, b'[1, 2]')\n    except OSError: pass\nos._exit(0)"
    ),
    "replaces json": "import json\njson.dumps = lambda *a, **k: '[1, 2'\ndef f(a): return 0",
    "replaces the encoder": (
        "import json.encoder, json\njson.encoder.JSONEncoder.encode = lambda s, o: ']'\ndef f(a): return {0}"
    ),
    "returns what is equal to everything": (
        "class L(list):\n    __eq__ = lambda s, o: True\n    __len__ = lambda s: 2\ndef f(a): return L()"
    ),
    "returns a generator of the result": "def f(a):\n    yield 1\n    yield 2",
    "returns the number and the result": "def f(a): return '[1, 2]'",
    "changes the argument": "def f(a): a[:] = [1, 2]",
    "ends in the middle": "import sys\ndef f(a): sys.exit(0)",
    "ends at the import": "raise SystemExit(0)",
    "reads the test": (
        "import inspect\ndef f(a):\n    for i in inspect.stack():\n        for v in i.frame.f_locals.values():\n"
        "            if isinstance(v, dict) and 'output' in v: return v['output']\n    return 0"
    ),
}


@pytest.mark.parametrize("program", CHEATING_FUNCTIONS.values(), ids=CHEATING_FUNCTIONS)
def test_a_function_that_cheats_passes_nothing(program: str) -> None:
    assert judge(program, question(call([[2, 1]], [1, 2]), function="f", seconds=2)).score == 0.0


def test_no_program_reads_the_expected_output_of_its_neighbours() -> None:
    about = question(*[stdin(str(n), f"answer{n}") for n in range(4)])
    program = (
        "import glob\nfor p in glob.glob('/proc/[0-9]*/*') + glob.glob('/tmp/nsd*/*'):\n"
        "    try: t = open(p, 'rb').read(1 << 20)\n    except OSError: continue\n    if b'answer' in t: print(t)"
    )
    found = Code(Code.Config()).score_many([(block(program), about)])[0]
    assert found.numbers == {"share_passed": 0.0}


# --------------------------------------------------------------------------- what it says of itself


def test_it_is_registered_and_votes_on_nothing() -> None:
    assert find("verifier", "code") is Code and not Code.votes and not Code.needs_answer


def test_it_says_in_what_it_runs_programs() -> None:
    found = Code().sandboxed()
    assert found.kind in ("bubblewrap", "landlock")
    assert set(found.guarantees) == sandbox.guarantees() and "time" in found.guarantees


def test_without_a_sandbox_it_refuses_and_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from nsd.plugins.sandbox import choice

    monkeypatch.setattr(choice, "_found", {"bubblewrap": "no bwrap", "landlock": "no Landlock"})
    with pytest.raises(InputError, match="sandbox: process") as raised:
        judge(ADD)
    assert "no bwrap" in str(raised.value) and "pip install" in str(raised.value)


def test_the_answer_of_a_completion_is_its_program() -> None:
    assert Code().extract(block(ADD)) == f"{ADD}\n"
    assert Code().extract("no program") is None
