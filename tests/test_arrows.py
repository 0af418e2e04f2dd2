"""Which room may import which: arrows go one way, and no circle, not even through imports inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from support import REPOSITORY

# What each room stands on. A room that is not here may import nothing of ours.
ARROWS = {
    "plugins": set[str](),
    "reports.stats": set[str](),
    "runner.spec": {"plugins"},
    "runner.store": {"plugins"},
    "runner.plan": {"runner.spec", "runner.store", "plugins"},
    "runner.work": {"runner.plan", "runner.spec", "runner.store", "plugins"},
    "runner.launch": {"runner.work", "runner.plan", "runner.spec", "runner.store", "plugins"},
    "reports.judge": {"reports.stats", "runner.store", "plugins"},
    "reports.text": {"reports.judge", "reports.stats", "runner.store", "plugins"},
    "reports.page": {"reports.text", "reports.judge", "reports.stats", "runner.store", "plugins"},
}
ARROWS["runner.cli"] = {*ARROWS}
FACE = {"", "__init__", "__main__"}  # `import nsd` and `python -m nsd` stand above every room


def modules(root: Path) -> dict[str, Path]:
    """Product files by their name within nsd."""
    found = {}
    for top in ("runner", "plugins", "reports"):
        for path in (root / top).rglob("*.py"):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path, known: set[str]) -> Iterator[str]:
    """What a file imports of nsd, anywhere in it; `nsd` itself as ""."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            assert name.split(".")[0] not in ("runner", "plugins", "reports"), f"{path}: {name} is installed as nsd.*"
            if name.split(".")[0] == "nsd":
                inside = name.removeprefix("nsd").lstrip(".")
                yield inside if inside in known else inside.rpartition(".")[0]


def room(module: str) -> str:
    """`plugins`, else the first two parts of a module's name."""
    parts = module.split(".")
    return parts[0] if parts[0] == "plugins" else ".".join(parts[:2])


def graph(root: Path) -> dict[str, set[str]]:
    """What each product file imports of the others."""
    files = modules(root)
    return {name: set(imported(path, set(files))) - {name} for name, path in files.items()}


def turned(imports: dict[str, set[str]]) -> list[str]:
    """Every import that goes against the arrows."""
    return [
        f"{name} -> {target or 'nsd'}"
        for name, targets in imports.items()
        for target in sorted(targets)
        if target in FACE or room(target) not in {room(name), *ARROWS.get(room(name), ())}
    ]


def circle(imports: dict[str, set[str]]) -> list[str]:
    """A circle of files, where there is one."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def ours() -> dict[str, set[str]]:
    return graph(REPOSITORY)


def test_arrows_go_one_way(ours: dict[str, set[str]]) -> None:
    assert turned(ours) == []


def test_no_file_imports_itself_through_others(ours: dict[str, set[str]]) -> None:
    assert circle(ours) == []


def test_every_file_is_in_a_room() -> None:
    assert {room(name) for name in modules(REPOSITORY) if "." in name} - {*ARROWS} == set()


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("plugins/errors.py", "from nsd.runner.spec.load import load_spec", "plugins.errors -> runner.spec.load"),
        ("plugins/errors.py", "import nsd", "plugins.errors -> nsd"),
        ("reports/stats/choose.py", "from nsd.plugins import api", "reports.stats.choose -> plugins.api"),
        ("runner/store/gc.py", "    from nsd.runner.plan.build import Plan", "runner.store.gc -> runner.plan.build"),
        ("runner/work/jobs.py", "from nsd.reports.judge import runs", "runner.work.jobs -> reports.judge.runs"),
        ("runner/launch/home.py", "from nsd.runner.cli import app", "runner.launch.home -> runner.cli.app"),
    ],
)
def test_a_turned_arrow_is_found(tmp_path: Path, file: str, line: str, expected: str) -> None:
    for path in modules(REPOSITORY).values():
        copy = tmp_path / path.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("")
    assert turned(graph(tmp_path)) == []
    (tmp_path / file).write_text(f"def late():\n{line}\n" if line.startswith(" ") else f"{line}\n")
    assert turned(graph(tmp_path)) == [expected]


def test_a_circle_is_found(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "a.py").write_text("from nsd.plugins import b\n")
    (tmp_path / "plugins" / "b.py").write_text("def late():\n    from nsd.plugins.a import x\n")
    assert set(circle(graph(tmp_path))) == {"plugins.a", "plugins.b"}
