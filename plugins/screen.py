r"""How the commands print: a rich console that leaves data alone, plain tables, JSON.

Printed text may come from a model, a file or a store, and a terminal obeys what it is sent. So one neutraliser stands
before everything: `guard` puts it before standard output and standard error (print, typer, warnings, tracebacks), and
`console` has it inside: colours of our own pass, those in the data do not. Control
characters, escape sequences, and marks that hide or reorder text are written out: `\x1b`, `\u202e`.

    guard()                            # at the start of every command
    console().print(table, "text")     # text of any origin

JSON says the same characters its own way (`\u001b`), so that it reads back as it was.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from nsd.plugins.untrusted import safe_json, visible

UNLIMITED = 100_000  # columns, for asking how wide something would like to be
LONG = 200  # rows from which on rich would take its time

if TYPE_CHECKING:
    from rich.table import Table


class Guarded:
    """A text stream that writes out what would drive a terminal. `rich_proxied_file` is where rich writes past it."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream
        self._held = ""  # a carriage return whose newline may come with the next write

    def write(self, text: str) -> int:
        """Write text, neutralised; returns the length of what was given."""
        whole = self._held + text
        self._held = "\r" if whole.endswith("\r") else ""
        self.rich_proxied_file.write(visible(whole[: len(whole) - len(self._held)]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send on what is there."""
        if self._held:
            self.rich_proxied_file.write(visible(self._held))
            self._held = ""
        self.rich_proxied_file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def guard() -> None:
    """Put the neutraliser before this process's standard output and standard error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Guarded):
            setattr(sys, name, Guarded(stream))


def console(stderr: bool = False) -> Any:
    """A rich console that neither wraps in pipes nor reads markup from data, nor passes on what drives a terminal.

    Its width is the terminal's, or COLUMNS where that is set. Colour goes to terminals alone, and not where NO_COLOR is
    set.
    """
    stream = sys.stderr if stderr else sys.stdout
    wide = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else 200
    plain = not stream.isatty() or bool(os.environ.get("NO_COLOR"))
    return _console_type()(
        stderr=stderr,
        width=wide,
        markup=False,
        highlight=False,
        emoji=False,
        color_system=None if plain else "auto",
        no_color=plain,
    )


@functools.cache
def _console_type() -> Any:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    class SafeConsole(Console):
        """Neutralises text where it becomes segments; what rich itself sends to the terminal is marked as control."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(visible(text), **options)

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(visible(segment.text), segment.style)

    return SafeConsole


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """A plain table with some columns flushed right; where it does not fit, nothing is broken inside a word."""
    from rich.box import SIMPLE_HEAD

    made = _table_type()(*(), title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


@functools.cache
def _table_type() -> type[Table]:
    from rich.cells import cell_len
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.measure import Measurement
    from rich.segment import Segment
    from rich.table import Table
    from rich.text import Text

    from nsd.plugins.layout import Cell, flow, paragraph

    class WordTable(Table):
        """A table that rich lays out where it fits; its own way it would break words to make it fit."""

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            if len(self.rows) > LONG and not self.title and (lines := self._lines(options.max_width)) is not None:
                for number, line in enumerate(lines):
                    yield Segment(f"{line}\n", console.get_style("table.header") if number == 1 else None)
                return
            whole = Measurement.get(console, options.update(max_width=UNLIMITED), self).maximum
            if whole <= options.max_width:
                yield from super().__rich_console__(console, options)
                return
            texts = [[Cell(visible(str(cell))) for cell in column.cells] for column in self.columns]
            names = [str(column.header) for column in self.columns]
            flushed = [name for name, column in zip(names, self.columns, strict=True) if column.justify == "right"]
            if self.title:
                yield from (Text(line) for line in paragraph(visible(str(self.title)), options.max_width))
            yield Text("")
            yield from flow(names, list(zip(*texts, strict=True)), options.max_width, flushed)
            yield Text("")

        def _lines(self, most: int) -> list[str] | None:
            """The lines that rich would write, of thousands of rows in no time; None where the table does not fit."""
            columns = [[str(column.header), *map(str, column.cells)] for column in self.columns]
            shown = [[visible(cell) for cell in column] for column in columns]
            if any("\n" in cell or cell != cell.strip() for column in shown for cell in column):
                return None
            widths = [max(map(cell_len, column)) for column in shown]
            total = sum(widths) + 3 * (len(widths) - 1) + 2
            if total > most:
                return None

            def padded(cell: str, width: int, right: bool) -> str:
                room = " " * (width - cell_len(cell))
                return room + cell if right else cell + room

            rights = [column.justify == "right" for column in self.columns]
            rows = zip(*shown, strict=True)
            texts = ["   ".join(map(padded, row, widths, rights)) for row in rows]
            empty = " " * total
            return [empty, f" {texts[0]} ", f" {'─' * (total - 2)} ", *(f" {text} " for text in texts[1:]), empty]

    return WordTable


def print_json(value: Any) -> None:
    """JSON on standard output."""
    print(safe_json(value))
