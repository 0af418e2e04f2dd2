"""A package that no product file imports is no dependency of the product."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from support import REPOSITORY

MODULES = {"pyyaml": "yaml"}  # where a distribution and its module are not named alike


def imported() -> set[str]:
    """Top-level modules that product files import, anywhere in them."""
    found = set()
    for room in ("runner", "plugins", "reports", "nsd"):
        for path in (REPOSITORY / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    found.add(str(node.module).split(".")[0])
    return found


@pytest.mark.slow
def test_every_base_dependency_is_imported_by_a_product_file() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[^\w-]", line)[0] for line in project["dependencies"]]
    found = imported()
    assert [name for name in names if MODULES.get(name, name) not in found] == []


def test_no_product_file_imports_statsmodels_or_pandas() -> None:
    assert imported() & {"statsmodels", "pandas"} == set()
