"""How the commands print: a rich console that leaves data alone, plain tables, JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def console(stderr: bool = False) -> Any:
    """A rich console that neither wraps in pipes nor reads markup from data.

    Its width is the terminal's, or COLUMNS where that is set. Colour goes to terminals alone, and not where NO_COLOR is
    set.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    wide = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else 200
    plain = not stream.isatty() or bool(os.environ.get("NO_COLOR"))
    return Console(
        stderr=stderr,
        width=wide,
        markup=False,
        highlight=False,
        emoji=False,
        color_system=None if plain else "auto",
        no_color=plain,
    )


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """A plain table with some columns flushed right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(*(), title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def print_json(value: Any) -> None:
    """JSON on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))
