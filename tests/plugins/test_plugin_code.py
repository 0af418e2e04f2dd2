"""What of a third-party plugin's code is in digests: each edit that can change its output, and no other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nsd.plugins import registry
from nsd.plugins.api import Verifier
from nsd.plugins.code import code_of_file, code_of_module
from nsd.plugins.errors import InputError
from nsd.plugins.registry import plugin

FILE = '''\
"""What this is."""

from __future__ import annotations

import json
import re

import helper
from lib.words import last
from nsd import PluginConfig, Verifier, plugin
from shared import RULES, unused

WORD = re.compile("[a-z]+")
SPARE = 1


def clean(text):
    """Tidy."""
    return text.strip()


def never(text):
    return text.upper()


@plugin("verifier", "mine")
class Mine(Verifier):
    """One."""

    class Config(PluginConfig):
        strict: bool = False

    def extract(self, completion):
        # the last word
        return RULES["a"] + clean(last(completion)) if WORD.search(completion) else helper.give(completion)


@plugin("verifier", "other")
class Other(Verifier):
    def extract(self, completion):
        return never(completion)
'''
HELPER = "def give(text):\n    return text\n"
WORDS = "from .deep import cut\n\ndef last(text):\n    return cut(text)\n\ndef first(text):\n    return text[0]\n"
DEEP = "def cut(text):\n    return text[-1:]\n"
SHARED = "RULES = {'a': 'b'}\nOTHERS = {}\n\ndef unused():\n    return 1\n"
FILES = {"mine.py": FILE, "helper.py": HELPER, "lib/words.py": WORDS, "lib/deep.py": DEEP, "shared.py": SHARED}


def write(folder: Path, **changes: tuple[str, str]) -> Path:
    """The plugin's folder, each change (old, new) made in the file of its name."""
    for name, text in FILES.items():
        old, new = changes.get(Path(name).stem, ("", ""))
        assert old in text
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace(old, new) if old else text)
    return folder / "mine.py"


def tree(path: Path, name: str = "Mine") -> str:
    return code_of_file(path, name).tree


SAME = {
    "a comment": {"mine": ("# the last word", "# the very last word")},
    "blank lines and quotes": {"mine": ('WORD = re.compile("[a-z]+")', "\n\nWORD = re.compile(\n    '[a-z]+',\n)\n")},
    "a docstring": {"mine": ('"""One."""', '"""Two."""')},
    "a function's docstring": {"mine": ('    """Tidy."""\n', "")},
    "the module's docstring": {"mine": ('"""What this is."""\n', "")},
    "a function that it does not use": {"mine": ("text.upper()", "text.lower()")},
    "a class that it does not use": {"mine": ("return never(completion)", "return None")},
    "a constant that it does not use": {"mine": ("SPARE = 1", "SPARE = 2")},
    "an import that it does not use": {"mine": ("import json\n", "")},
    "what another file has besides": {"shared": ("return 1", "return 2")},
    "a constant that another file has besides": {"shared": ("OTHERS = {}", "OTHERS = {1: 2}")},
    "a function that a package has besides": {"words": ("text[0]", "text[1]")},
    "a run as a script": {"mine": ("SPARE = 1", "SPARE = 1\nif __name__ == '__main__':\n    print(clean(' a '))")},
}
OTHER = {
    "the class": {"mine": ('RULES["a"] +', 'RULES["b"] +')},
    "a default of its config": {"mine": ("strict: bool = False", "strict: bool = True")},
    "a function that it uses": {"mine": ("text.strip()", "text.rstrip()")},
    "a constant that it uses": {"mine": ("[a-z]+", "[a-y]+")},
    "where a name comes from": {"mine": ("import re\n", "import regex as re\n")},
    "a base class": {"mine": ("class Mine(Verifier)", "class Mine(Other)")},
    "a decorator": {
        "mine": (
            "    def extract(self, completion):\n        # the",
            "    @print\n    def extract(self, completion):\n        # the",
        )
    },
    "a constant of another file": {"shared": ("'b'", "'c'")},
    "a function of a module beside": {"helper": ("return text", "return text or None")},
    "a function in a package beside": {"words": ("cut(text)\n\n", "cut(text) or None\n\n")},
    "what that in turn imports": {"deep": ("text[-1:]", "text[-2:]")},
    "what happens at import": {"shared": ("OTHERS = {}", "OTHERS = {}\nRULES['a'] = 'z'")},
    "a loop at the top": {"mine": ("SPARE = 1", "SPARE = 1\nfor _ in range(2):\n    RULES.clear()")},
}


@pytest.mark.parametrize("edit", SAME)
def test_what_cannot_change_the_output_is_not_in_it(edit: str, tmp_path: Path) -> None:
    assert tree(write(tmp_path / "a")) == tree(write(tmp_path / "b", **SAME[edit]))


@pytest.mark.parametrize("edit", OTHER)
def test_what_can_change_the_output_is_in_it(edit: str, tmp_path: Path) -> None:
    assert tree(write(tmp_path / "a")) != tree(write(tmp_path / "b", **OTHER[edit]))


def test_the_value_itself_is_pinned(tmp_path: Path) -> None:
    """So that neither a Python nor an edit here gives every stored stage another digest unnoticed."""
    assert tree(write(tmp_path)) == "63ce1a833f3bc26669de1cd256bf20d0"


def test_no_name_of_a_folder_or_file_is_in_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    renamed = path.rename(path.with_name("another.py"))
    assert tree(renamed) == tree(write(tmp_path / "b" / "deeper"))


# Small files: what is used, though no plain name says so. An edit of "1" to "2" in the rest must be seen.
HIDDEN = {
    "a registry that others enter": (
        "ALL = {}\ndef enter(f):\n    ALL[f.__name__] = f\n    return f\n\n"
        "@enter\ndef one(x):\n    return 1\n\nclass Mine:\n    def run(self):\n        return ALL['one'](0)\n"
    ),
    "heirs that enter themselves": (
        "class Base:\n    heirs = []\n    def __init_subclass__(cls):\n        Base.heirs.append(cls)\n\n"
        "class Heir(Base):\n    value = 1\n\nclass Mine:\n    def run(self):\n        return Base.heirs[0].value\n"
    ),
    "a type written as text": "class Inner:\n    size = 1\n\nclass Mine:\n    inner: 'Inner | None' = None\n",
    "a name for getattr": (
        "def one():\n    return 1\n\nclass Mine:\n    how = 'one'\n    run = lambda self: globals()[self.how]()\n"
    ),
    "a name behind a condition": "if True:\n    VALUE = 1\nelse:\n    VALUE = 0\n\nclass Mine:\n    value = VALUE\n",
    "a name set twice": "VALUE = 0\nVALUE = VALUE + 1\n\nclass Mine:\n    value = VALUE\n",
    "an augmented assignment": "VALUE = []\nVALUE += [1]\n\nclass Mine:\n    value = VALUE\n",
    "an attribute set later": "class Mine:\n    value = 0\n\nMine.value = 1\n",
    "text that is run": "class Mine:\n    value = 0\n    def run(self):\n        exec(TEXT)\n\nTEXT = 'x'\nx = 1\n",
    "a class made by a call": "def one():\n    return 1\n\nMine = type('Mine', (), {'run': lambda self: one()})\n",
    "a function inside": (
        "class Mine:\n    def run(self):\n        def inner():\n            return deep()\n        return inner\n\n"
        "def deep():\n    return 1\n"
    ),
    "a default of an argument": "SIZE = 1\n\nclass Mine:\n    def run(self, size=SIZE):\n        return size\n",
    "names unpacked": "A, (B, *C) = 1, (2, 3)\n\nclass Mine:\n    value = C\n",
}


@pytest.mark.parametrize("how", HIDDEN)
def test_hidden_uses_are_seen(how: str, tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(HIDDEN[how])
    before = tree(path)
    assert "1" in HIDDEN[how]
    path.write_text(HIDDEN[how].replace("1", "2"))
    assert tree(path) != before


IMPORTS = {
    "import inside a function": (
        "class Mine:\n    def run(self):\n        from other import give\n        return give()\n"
    ),
    "import as": "import other as o\n\nclass Mine:\n    def run(self):\n        return o.give()\n",
    "relative": "from .other import give\n\nclass Mine:\n    run = give\n",
    "from here": "from . import other\n\nclass Mine:\n    run = other.give\n",
    "star": "from other import *\n\nclass Mine:\n    def run(self):\n        return give()\n",
    "through another": "from between import give\n\nclass Mine:\n    run = give\n",
    "in a circle": "from circle import give\n\nclass Mine:\n    run = give\n",
    "loaded by name": (
        "import importlib\n\nclass Mine:\n    def run(self):\n        return importlib.import_module('other').give()\n"
    ),
    "behind a condition": (
        "try:\n    from other import give\nexcept ImportError:\n    give = None\n\nclass Mine:\n    run = give\n"
    ),
}


@pytest.mark.parametrize("how", IMPORTS)
def test_imports_beside_the_file_are_followed(how: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(IMPORTS[how])
    (tmp_path / "between.py").write_text("from other import give as give\n")
    (tmp_path / "circle.py").write_text("import x\nfrom other import give\n")
    (tmp_path / "other.py").write_text("def give():\n    return 1\n")
    before = tree(tmp_path / "x.py")
    (tmp_path / "other.py").write_text("def give():\n    return 2\n")
    assert tree(tmp_path / "x.py") != before


def test_a_module_beside_that_has_nothing_to_do_with_it_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = tree(path)
    (tmp_path / "more.py").write_text("x = 1\n")
    (tmp_path / "re.py").write_text("raise SystemExit\n")  # Python's own are never taken from beside the file
    (tmp_path / "nsd.py").write_text("raise SystemExit\n")
    assert tree(path) == before


def test_a_module_beside_that_is_no_python_counts_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("import other\n\nclass Mine:\n    run = other.give\n")
    trees = set()
    for text in ("def (:", "def )"):
        (tmp_path / "other.py").write_text(text)
        trees.add(tree(tmp_path / "x.py"))
    assert len(trees) == 2


# --------------------------------------------------------------------------- installed


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "their_package_of_a_test"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("from .deep import inner\n")
    (folder / "main.py").write_text("import their_package_of_a_test.deep.inner as i\n\nclass Mine:\n    run = i.give\n")
    (folder / "deep" / "__init__.py").write_text("")
    (folder / "deep" / "inner.py").write_text("import json\n\ndef give():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_an_installed_plugin_is_followed_through_its_package(package: Path) -> None:
    arguments = ("their_package_of_a_test.main", "Mine", (package.name,), "theirs")
    code = code_of_module(*arguments, "1.0")
    (package / "deep" / "inner.py").write_text("import json\n\ndef give():\n    return 2\n")
    assert code_of_module(*arguments, "1.0").tree != code.tree
    assert code_of_module(*arguments, "1.1").to_json()["distribution_version"] == "1.1"
    assert package.name not in sys.modules  # looking at it imports nothing


def test_what_runs_when_its_package_is_imported_counts(package: Path) -> None:
    arguments = ("their_package_of_a_test.main", "Mine", (package.name,), "theirs", "1.0")
    before = code_of_module(*arguments)
    (package / "__init__.py").write_text("from .deep import inner\ninner.give = print\n")
    assert code_of_module(*arguments) != before


def test_built_in_plugins_have_name_and_version_alone() -> None:
    assert all(registry.code(kind, name) is None for kind, names in registry.BUILT_IN.items() for name in names)


# --------------------------------------------------------------------------- how files run


def test_a_file_finds_what_lies_beside_it_and_nobody_else_does(tmp_path: Path) -> None:
    write(tmp_path / "a", helper=("return text", "return 'a'"))
    write(tmp_path / "b", helper=("return text", "return 'b'"))
    found = [registry.find("verifier", "./mine.py:Mine", tmp_path / name) for name in "ab"]
    assert [cls().extract("...") for cls in found] == ["a", "b"]
    assert "helper" not in sys.modules and str(tmp_path / "a") not in sys.path


def test_an_edited_file_and_an_edited_helper_are_run_anew(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert registry.find("verifier", f"{path}:Mine")().extract("...") == "..."
    write(tmp_path, helper=("return text", "return 'new'"))
    assert registry.find("verifier", f"{path}:Mine")().extract("...") == "new"


def test_a_file_cannot_take_the_name_of_a_built_in_plugin_or_leave_one_behind(tmp_path: Path) -> None:
    numeric = registry.find("verifier", "numeric")
    path = write(tmp_path, mine=('@plugin("verifier", "mine")', '@plugin("verifier", "numeric")'))
    assert registry.find("verifier", f"{path}:Mine") is not numeric
    assert registry.find("verifier", "numeric") is numeric
    with pytest.raises(InputError, match="unknown verifier 'other'"):
        registry.find("verifier", "other")


def test_a_file_that_ends_the_process_is_an_error_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("import sys\nsys.exit(5)\n")
    with pytest.raises(InputError, match=rf"running {tmp_path / 'x.py'} failed: SystemExit: 5"):
        registry.find("verifier", "./x.py:Mine", tmp_path)


# What enters itself into something used, in a module that the plugin merely imports: p.py, helper.py, rules.py.
REGISTRY = (
    "RULES = {}\ndef rule(f):\n    RULES[f.__name__] = f\n    return f\ndef judge(x):\n    return RULES['last'](x)\n"
)
WATCHING = "class Base:\n    heirs = []\n    def __init_subclass__(cls):\n        Base.heirs.append(cls)\n"
META = "class Meta(type):\n    heirs = []\n    def __init__(cls, *rest):\n        Meta.heirs.append(cls)\n"
DISPATCH = "import functools\n@functools.singledispatch\ndef judge(x):\n    return 0\n"
JUDGE = "import rules\nfrom helper import judge\n\nclass Mine:\n    run = judge\n"
HEIRS = "import rules\nfrom helper import WHO\n\nclass Mine:\n    def run(self):\n        return WHO.heirs\n"
ELSEWHERE = {
    "a decorator": (JUDGE, REGISTRY, "from helper import rule\n@rule\ndef last(x):\n    return 1\n"),
    "a decorator of a module": (JUDGE, REGISTRY, "import helper as h\n@h.rule\ndef last(x):\n    return 1\n"),
    "an assigned call": (
        JUDGE,
        REGISTRY,
        "from helper import rule\ndef last(x):\n    return 1\n_last = rule(last)\n",
    ),
    "single dispatch": (
        JUDGE,
        DISPATCH,
        "from helper import judge\n@judge.register\ndef _(x: int):\n    return 1\n",
    ),
    "an heir": (HEIRS.replace("WHO", "Base"), WATCHING, "from helper import Base\nclass Heir(Base):\n    value = 1\n"),
    "an heir of an heir": (
        HEIRS.replace("WHO", "Base"),
        WATCHING,
        "import helper\nclass Middle(helper.Base):\n    pass\nclass Heir(Middle):\n    value = 1\n",
    ),
    "a class of a metaclass": (
        HEIRS.replace("WHO", "Meta"),
        META,
        "from helper import Meta\nclass Heir(metaclass=Meta):\n    value = 1\n",
    ),
    "an heir that is asked for": (
        HEIRS.replace("WHO.heirs", "Base.__subclasses__()").replace("WHO", "Base"),
        "class Base:\n    pass\n",
        "from helper import Base\nclass Heir(Base):\n    value = 1\n",
    ),
    "a submodule that another module imports": (
        "import lib, helper\n\nclass Mine:\n    def run(self):\n        return lib.rules.VALUE\n",
        "import lib.rules\n",
        "VALUE = 1\n",
    ),
    "a lazy package": (
        "from lib import VALUE\n\nclass Mine:\n    run = VALUE\n",
        "",
        "VALUE = 1\n",
    ),
    "a module whose name is put together": (
        "import importlib\n\nclass Mine:\n    def run(self, how='rules'):\n"
        "        return importlib.import_module(f'lib.{how}').VALUE\n",
        "",
        "VALUE = 1\n",
    ),
    "an import function of another name": (
        "from importlib import import_module as get\n\nclass Mine:\n    def run(self):\n        return get('rules')\n",
        "",
        "VALUE = 1\n",
    ),
}
LAZY = (
    "import importlib\nWHERE = {'VALUE': '.rules'}\n\ndef __getattr__(name):\n"
    "    return getattr(importlib.import_module(WHERE[name], __name__), name)\n"
)


@pytest.mark.parametrize("how", ELSEWHERE)
def test_what_enters_itself_from_another_module_is_seen(how: str, tmp_path: Path) -> None:
    plugin, helper, rules = ELSEWHERE[how]
    (tmp_path / "lib").mkdir()
    files = {"p.py": plugin, "helper.py": helper, "lib/__init__.py": LAZY}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    trees = set()
    for text in (rules, rules.replace("1", "2")):
        for place in ("rules.py", "lib/rules.py"):
            (tmp_path / place).write_text(text)
        trees.add(tree(tmp_path / "p.py"))
    assert len(trees) == 2


def test_only_a_run_as_a_script_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    trees = {}
    for test in ("__name__ == '__main__'", '"__main__" == __name__', "__name__ != '__main__'", "__name__ > ''"):
        for number in (1, 2):
            path.write_text(f"LIST = []\nif {test}:\n    LIST.append({number})\n\nclass Mine:\n    list = LIST\n")
            trees.setdefault(test, set()).add(tree(path))
    assert [len(found) for found in trees.values()] == [1, 1, 2, 2]


def test_statements_that_do_nothing_and_imports_for_annotations_are_not_in_it(tmp_path: Path) -> None:
    texts = ("pass", '"""About."""', "...\n        pass", '"""About."""\n        """More."""')
    plain = [
        "class Mine:\n    class Config:\n        " + text + "\n    def run(self):\n        return 1\n" for text in texts
    ]
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nsd import Verifier\n" + plain[0]
    trees = set()
    for text in (*plain, typed):
        (tmp_path / "x.py").write_text(text)
        trees.add(tree(tmp_path / "x.py"))
    assert len(trees) == 1


def test_a_file_whose_name_has_dots_finds_what_lies_beside_it(tmp_path: Path) -> None:
    text = "from nsd import Verifier\nfrom .helper import give\n\nclass Mine(Verifier):\n    extract = give\n"
    (tmp_path / "mine.v1.py").write_text(text)
    trees = set()
    for said in ("'a'", "'b'"):
        (tmp_path / "helper.py").write_text(f"def give(self, text):\n    return {said}\n")
        assert registry.find("verifier", "./mine.v1.py:Mine", tmp_path)().extract("...") == said.strip("'")
        trees.add(tree(tmp_path / "mine.v1.py"))
    assert len(trees) == 2


def test_a_large_table_and_a_long_sum_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in nodes looked at, not in seconds: twice the table may take twice the work."""
    import ast

    looks = []
    real = ast.walk
    monkeypatch.setattr(ast, "walk", lambda node: (looks.append(1) or one for one in real(node)))
    work = []
    for size in (500, 1000):
        table = ", ".join(f"'key{number}': 'value{number}'" for number in range(size))
        (tmp_path / "x.py").write_text(
            f"TABLE = {{{table}}}\nSUM = {' + '.join(['1'] * 2500)}\n\nclass Mine:\n    t = TABLE, SUM\n"
        )
        looks.clear()
        tree(tmp_path / "x.py")
        work.append(len(looks))
    assert work[1] < 2.2 * work[0]


@pytest.mark.parametrize("name", ["", "Mine\n", " Mine", "Mine.Config"])
def test_what_is_no_name_of_a_class_is_said_without_running_the_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("raise SystemExit\n")
    with pytest.raises(InputError, match=r"is no name of a class: write ./x\.py:NameOfTheClass"):
        registry.find("verifier", f"./x.py:{name}", tmp_path)


def test_what_a_file_prints_at_import_stays_out_of_the_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.py").write_text("print('loud')\nfrom nsd import Verifier\n\nclass Mine(Verifier):\n    pass\n")
    registry.find("verifier", "./x.py:Mine", tmp_path)
    assert capsys.readouterr() == ("", "loud\n")


def test_a_class_says_its_version_and_the_decorator_may_say_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))  # the names below are this test's alone

    class Third(Verifier):
        version = 3

    assert plugin("verifier", "third")(Third).version == 3
    assert plugin("verifier", "third", version=4)(Third).version == 4
    assert registry.find("verifier", "numeric").version == 2
