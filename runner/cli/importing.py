"""`nsd import`: reads `--where`, asks before a name is taken over, and prints what was imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nsd.plugins.errors import InputError
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.imports.storing import import_file


def print_import(
    workspace: Workspace, file: Path, options: dict[str, Any], where: Sequence[str], replace: bool
) -> None:
    """Import a file and say what came of it. Raises InputError, also where a name is taken and nobody can be asked."""

    def may_replace(said: str) -> bool:
        return replace or (sys.stdin.isatty() and _confirmed(said))

    for line in import_file(workspace, file, {**options, "where": conditions(where)}, may_replace):
        print(line)


def _confirmed(said: str) -> bool:
    import typer

    return typer.confirm(f"{said}. Replace?")


def conditions(texts: Sequence[str]) -> dict[str, list[str]]:
    """The values wanted of each field. Raises InputError for a text that is not FIELD=VALUE."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InputError(f"--where {text!r}: FIELD=VALUE, such as --where filter=strict-match")
        found.setdefault(name, []).append(value)
    return found
