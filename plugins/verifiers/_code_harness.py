"""What stands before a solution in the sandbox: it runs it as a script, or calls its function. `code_tests` sends it.

Its last line calls `main`. As a script the solution reads the test's input and prints. For a call the input is a line
of JSON with the arguments; the result leaves as JSON behind a number that is drawn for each test, on a copy of the
standard output that the solution's prints do not reach. Expected outputs are not here.
"""

import types

# Names that solutions use without importing them, because LeetCode and LiveCodeBench do it for them.
KNOWN = {
    "typing": "Any Callable DefaultDict Deque Dict FrozenSet Generator Iterable Iterator List NamedTuple Optional "
    "Sequence Set Tuple Type Union",
    "collections": "ChainMap Counter OrderedDict defaultdict deque namedtuple",
    "heapq": "heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest",
    "bisect": "bisect bisect_left bisect_right insort insort_left insort_right",
    "itertools": "accumulate chain combinations combinations_with_replacement count cycle groupby islice pairwise "
    "permutations product repeat starmap takewhile tee zip_longest",
    "functools": "cache cached_property cmp_to_key lru_cache partial reduce total_ordering wraps",
    "math": "ceil comb dist exp factorial floor gcd hypot inf isqrt lcm log log10 log2 nan perm pi prod sqrt",
    "operator": "attrgetter itemgetter xor",
    "copy": "copy deepcopy",
    "random": "randint shuffle choice",
    "string": "ascii_letters ascii_lowercase ascii_uppercase digits",
    "datetime": "datetime timedelta",
    "io": "BytesIO StringIO",
    "dataclasses": "dataclass field",
    "abc": "ABC abstractmethod",
    "enum": "Enum",
}
MODULES = (
    *("array", "bisect", "collections", "copy", "datetime", "functools", "heapq", "io", "itertools", "json", "math"),
    *("operator", "os", "random", "re", "statistics", "string", "sys", "time", "typing"),
)


def used(code: types.CodeType) -> set[str]:
    """Every name and attribute that compiled code speaks of."""
    names, owed = set[str](), [code]
    while owed:
        one = owed.pop()
        names.update(one.co_names)
        owed += [part for part in one.co_consts if isinstance(part, types.CodeType)]
    return names


def known(names: set[str]) -> dict[str, object]:
    """Those of the names that are given, with what they are; where a module and its function share one, the module."""
    import importlib

    found: dict[str, object] = {name: importlib.import_module(name) for name in MODULES if name in names}
    for module, texts in KNOWN.items():
        for name in names.intersection(texts.split()):
            found.setdefault(name, getattr(importlib.import_module(module), name))
    return found


def shown(error: BaseException, text: str) -> None:
    """Print an error with the solution's own lines."""
    import linecache
    import traceback

    linecache.cache["solution.py"] = (len(text), None, text.splitlines(keepends=True), "solution.py")
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename != "solution.py":
        frame = frame.tb_next
    error.__traceback__ = frame
    traceback.print_exception(error)


def called(space: dict[str, object], function: str, arguments: list[object]) -> object:
    """The result of the solution's method or function of this name."""
    holder = space.get("Solution")
    if isinstance(holder, type) and hasattr(holder, function):
        returned: object = getattr(holder(), function)(*arguments)
        return returned
    found = space.get(function)
    if not callable(found):
        raise NameError(f"the program has no function {function!r}, and no class Solution with such a method")
    result: object = found(*arguments)
    return result


def main(text: str, function: str | None) -> None:
    """Run the solution as a script (function None), compile it alone ("") or call its function."""
    import os
    import sys

    try:
        code = compile(text, "solution.py", "exec", dont_inherit=True)
        if function == "":
            return
        if function is not None:
            import json

            number, arguments = json.loads(sys.stdin.buffer.read())
            answer, nothing = os.dup(1), os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 0)
            os.dup2(nothing, 1)
        sys.setrecursionlimit(50_000)
        sys.set_int_max_str_digits(0)
        module = types.ModuleType("__main__" if function is None else "solution")
        sys.modules[module.__name__], space = module, module.__dict__
        space.update(known(used(code)))
        exec(code, space)
        if function is not None:
            result = json.dumps(called(space, function, arguments))
            sys.stdout.flush()
            sent = memoryview(f"{number}{result}".encode())
            while sent:
                sent = sent[os.write(answer, sent) :]
    except SystemExit:
        raise
    except BaseException as error:
        shown(error, text)
        raise SystemExit(1) from None
