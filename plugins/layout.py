"""Tables and paragraphs for a terminal of any width: nothing is broken inside a word or a number.

    for line in lay_out(["claim", "verdict"], [[Cell("a > b"), Cell("BETTER", "green")]], width=80): ...
    for line in paragraph("- a note", 80): ...

A table that does not fit has its headers wrapped at spaces, then its first column. Where that is not enough, the first
column stands on a line of its own, above the others. Only a single word longer than a whole line is shortened, in its
middle, with a mark (…). Widths are those of a terminal, where some characters take two places, and of the text as it
is shown: characters that would hide or drive the terminal are written out first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nsd.plugins.untrusted import one_line, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

GAP = 2
INDENT = 2


class Cell(NamedTuple):
    """A text and its style (a colour), for terminals that show one."""

    text: str
    style: str = ""


def lay_out(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], width: int | None, right: Sequence[str] = ()
) -> list[Text]:
    """The lines of a table, none longer than `width` (None: no limit). Columns named in `right` are flushed right."""
    sides = ["right" if name in right else "left" for name in columns]
    columns = [one_line(name) for name in columns]
    rows = [[Cell(one_line(cell.text), cell.style) for cell in row] for row in rows]
    widest = [max([_size(row[place].text) for row in rows], default=0) for place in range(len(columns))]
    whole = [max(widest[place], _size(name)) for place, name in enumerate(columns)]
    if width is None or _total(whole) <= width:
        return _table(columns, rows, whole, sides)
    narrow = [max(size, _longest(name)) for size, name in zip(widest, columns, strict=True)]
    narrow[0] = width - _total([0, *narrow[1:]])
    if narrow[0] >= max(_longest(columns[0]), *(_longest(row[0].text) for row in rows), 1):
        narrow[0] = min(narrow[0], whole[0])
        return _table(columns, rows, _widen(narrow, whole, width), sides)
    rest = [0, *narrow[1:]]
    if INDENT + _total(rest[1:]) <= width:
        rest = _widen(rest, whole, width - INDENT + GAP)
        return _stacked(columns, rows, rest[1:], sides[1:], width)
    return _listed(columns, rows, width)


def flow(columns: Sequence[str], rows: Sequence[Sequence[Cell]], width: int, right: Sequence[str] = ()) -> list[Text]:
    """The lines of a table whose every column may be wrapped at spaces, none longer than `width`.

    Where not even the longest words stand beside each other, each cell has a line of its own.
    """
    sides = ["right" if name in right else "left" for name in columns]
    texts = [[name, *(row[place].text for row in rows)] for place, name in enumerate(columns)]
    widths = [max(map(_longest, column)) for column in texts]
    whole = [max(map(_size, column)) for column in texts]
    if _total(widths) > width:
        return _listed(columns, rows, width)
    while (spare := width - _total(widths)) > 0 and widths != whole:
        wanting = [place for place in range(len(columns)) if widths[place] < whole[place]]
        for place in wanting:
            widths[place] += min(whole[place] - widths[place], max(1, spare // len(wanting)))
            if _total(widths) >= width:
                break
    widths[-1] -= max(0, _total(widths) - width)
    return _table(columns, rows, widths, sides)


def paragraph(text: str, width: int | None, hang: int = 2) -> list[str]:
    """Lines of a text, wrapped at spaces; all but the first are indented by `hang`."""
    if width is None:
        return [text]
    lines = wrapped(text, width, width - hang)
    return [line if place == 0 else " " * hang + line for place, line in enumerate(lines)]


def wrapped(text: str, first: int, later: int | None = None) -> list[str]:
    """Text on lines of at most so many places, broken at spaces; a longer word is shortened."""
    lines: list[str] = []
    room = first
    for word in visible(text).split():
        if lines and _size(lines[-1]) + 1 + _size(word) <= room:
            lines[-1] += f" {word}"
            continue
        if lines:
            room = first if later is None else later
        lines.append(shortened(word, room))
    return lines or [""]


def shortened(word: str, width: int) -> str:
    """A word of at most so many places, cut in its middle where it is longer."""
    if _size(word) <= width:
        return word
    head, tail = list(word), list[str]()
    half = max(1, (width - 1) // 2)
    while head and _size("".join(head)) > width - 1 - half:
        head.pop()
    for character in reversed(word[len(head) :]):
        if _size("".join(tail)) + _size(character) > half:
            break
        tail.append(character)
    return "".join(head) + "…" + "".join(reversed(tail))


def show_lines(console: Console, lines: Sequence[str | Text]) -> None:
    """Print lines as they are, whatever the console's width."""
    from rich.text import Text

    for line in lines:
        console.print(Text(line) if isinstance(line, str) else line, no_wrap=True, overflow="ignore", crop=False)


def width_of(console: Console, wide: bool = False) -> int | None:
    """The width to lay out for; None where the whole is asked for."""
    return None if wide else console.width


# --------------------------------------------------------------------------- the three forms


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], widths: Sequence[int], sides: Sequence[str]
) -> list[Text]:
    heads = [wrapped(name, size) for name, size in zip(columns, widths, strict=True)]
    lines = _row([[Cell(part) for part in head] for head in heads], widths, sides, bottom=True)
    lines.append(_joined([Cell("─" * (_total(widths) - 1))], [_total(widths) - 1], ["left"]))
    for row in rows:
        cells = zip(row, widths, strict=True)
        lines += _row(
            [[Cell(part, cell.style) for part in wrapped(cell.text, size)] for cell, size in cells], widths, sides
        )
    return lines


def _stacked(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], widths: Sequence[int], sides: Sequence[str], width: int
) -> list[Text]:
    heads = [[Cell(part) for part in wrapped(name, size)] for name, size in zip(columns[1:], widths, strict=True)]
    lines = [_joined([Cell(columns[0])], [width - 1], ["left"]), *_row(heads, widths, sides, INDENT, bottom=True)]
    lines.append(_joined([Cell("─" * (INDENT + _total(widths) - 1))], [width - 1], ["left"]))
    for row in rows:
        lines += [
            _joined([Cell(part, row[0].style)], [width - 1], ["left"]) for part in wrapped(row[0].text, width - 1)
        ]
        lines += _row([[cell] for cell in row[1:]], widths, sides, INDENT)
    return lines


def _listed(columns: Sequence[str], rows: Sequence[Sequence[Cell]], width: int) -> list[Text]:
    lines = []
    for row in rows:
        for place, (name, cell) in enumerate(zip(columns, row, strict=True)):
            if place and not cell.text:
                continue
            room = width - 1 - (INDENT if place else 0)
            text = f"{name}: {cell.text}" if place and name else cell.text
            indent = INDENT if place else 0
            lines += [_joined([Cell(part, cell.style)], [room], ["left"], indent) for part in wrapped(text, room)]
    return lines


def _row(
    cells: Sequence[Sequence[Cell]], widths: Sequence[int], sides: Sequence[str], indent: int = 0, bottom: bool = False
) -> list[Text]:
    """The lines of one row, whose cells may have several; at the top, or at the `bottom` of the row."""
    height = max(map(len, cells))
    filled = [
        [*[Cell("")] * (height - len(cell)), *cell] if bottom else [*cell, *[Cell("")] * (height - len(cell))]
        for cell in cells
    ]
    return [_joined([cell[place] for cell in filled], widths, sides, indent) for place in range(height)]


def _joined(cells: Sequence[Cell], widths: Sequence[int], sides: Sequence[str], indent: int = 0) -> Text:
    from rich.text import Text

    line = Text(" " * (1 + indent))
    for place, (cell, size, side) in enumerate(zip(cells, widths, sides, strict=True)):
        fill = " " * (size - _size(cell.text))
        line.append(" " * GAP if place else "")
        line.append(fill if side == "right" else "")
        line.append(cell.text, style=cell.style or None)
        line.append(fill if side == "left" else "")
    line.rstrip()
    return line


def _widen(narrow: list[int], whole: Sequence[int], width: int) -> list[int]:
    """Give what is left over to headers that are wrapped, from the left."""
    spare = width - _total(narrow)
    for place in range(1, len(narrow)):
        more = min(spare, whole[place] - narrow[place])
        if narrow[place] + more == whole[place]:  # part of a header more would still wrap it
            narrow[place] += more
            spare -= more
    return narrow


def _total(widths: Sequence[int]) -> int:
    return 1 + sum(widths) + GAP * (len(widths) - 1)


def _longest(text: str) -> int:
    return max(map(_size, text.split()), default=0)


def _size(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
