"""Tables and paragraphs fit the width they are given, and break nothing inside a word or a number."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from nsd.plugins.layout import Cell, flow, lay_out, paragraph, shortened, wrapped

COLUMNS = ("claim", "verdict", "difference [interval]", "adjusted p")
NUMBERS = ("▲ BETTER", "+0.1820 [+0.1529, +0.2104]", "< .0001")


def laid(claims: list[str], width: int | None) -> list[str]:
    rows = [[Cell(claim), *map(Cell, NUMBERS)] for claim in claims]
    return [line.plain for line in lay_out(COLUMNS, rows, width, right=("adjusted p",))]


WORD = st.text("abz_.-0189", min_size=1, max_size=60)
NAMES = st.lists(st.tuples(WORD, WORD).map(lambda pair: f"{pair[0]} > {pair[1]}"), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(NAMES, st.integers(60, 140))
def test_no_line_is_too_long_and_no_word_or_number_is_broken(claims: list[str], width: int) -> None:
    lines = laid(claims, width)
    assert max(map(cell_len, lines)) <= width
    shown = [word for line in lines for word in line.split()]
    for claim in claims:
        for word in claim.split():
            assert word in shown or len(word) > width - 1
    for number in NUMBERS:
        assert sum(number in line for line in lines) == len(claims)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.lists(WORD, max_size=4).map(" ".join), min_size=3, max_size=3), min_size=1),
    st.integers(30, 90),
)
def test_where_every_column_may_wrap_no_word_is_broken_either(rows: list[list[str]], width: int) -> None:
    columns = ("run", "why it failed", "ended")
    lines = [line.plain for line in flow(columns, [list(map(Cell, row)) for row in rows], width, right=("ended",))]
    assert max(map(cell_len, lines)) <= width
    shown = [word for line in lines for word in line.split()]
    for word in " ".join(cell for row in rows for cell in row).split():
        assert word in shown or len(word) > width - 3


def test_a_column_that_has_room_is_not_wrapped() -> None:
    lines = [line.plain for line in flow(("run", "why"), [[Cell("a/b"), Cell("two words and more")]], 18)]
    assert lines[-2:] == [" a/b  two words", "      and more"]


def test_the_table_is_as_narrow_as_it_can_be_and_keeps_its_columns() -> None:
    assert laid(["a > b"], None) == [
        " claim  verdict   difference [interval]       adjusted p",
        " ───────────────────────────────────────────────────────",
        " a > b  ▲ BETTER  +0.1820 [+0.1529, +0.2104]     < .0001",
    ]


def test_long_claims_wrap_between_words_before_anything_else() -> None:
    lines = laid(["a_rather_long_name > another_long_name"], 72)
    assert [line[:21].strip() for line in lines[-2:]] == ["a_rather_long_name >", "another_long_name"]


def test_longer_names_stand_above_their_numbers() -> None:
    lines = laid(["x" * 60 + " > " + "y" * 12, "a > b"], 80)
    assert lines[-4:] == [
        f" {'x' * 60} > {'y' * 12}",
        "   ▲ BETTER  +0.1820 [+0.1529, +0.2104]     < .0001",
        " a > b",
        "   ▲ BETTER  +0.1820 [+0.1529, +0.2104]     < .0001",
    ]


def test_the_narrowest_terminal_gets_a_list() -> None:
    assert laid(["a > b"], 30)[:3] == [" a > b", "   verdict: ▲ BETTER", "   difference [interval]:"]


@pytest.mark.parametrize("width", [5, 8, 20])
def test_only_a_word_longer_than_a_line_is_shortened_in_its_middle(width: int) -> None:
    assert shortened("abcdefghijklmnopqrstuvwxyz", width).count("…") == 1
    assert cell_len(shortened("abcdefghijklmnopqrstuvwxyz", width)) == width
    assert shortened("abcde", width) == "abcde"
    assert cell_len(shortened("漢字漢字漢字漢字漢字漢字", width)) <= width


def test_a_paragraph_hangs() -> None:
    assert paragraph("- one two three four", 12) == ["- one two", "  three four"]
    assert paragraph("- one two three four", None) == ["- one two three four"]
    assert wrapped("", 10) == [""]


def test_colours_are_styles_and_never_text() -> None:
    (*_, line) = lay_out(("claim", "verdict"), [[Cell("a > b"), Cell("BETTER", "green")]], 80)
    assert line.plain == " a > b  BETTER" and any(span.style == "green" for span in line.spans)


HOSTILE = (
    "\u200bzero",
    "\x1b[31mred",
    "👩\u200d👩",
    "\u202eabc",
    "a\nb",
    "a\tb",
    "\r",
    "\ud800",
    "日本語",
    "e\u0301",
    "",
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(HOSTILE), max_size=4).map(" ".join), min_size=4, max_size=4), st.integers(20, 90)
)
def test_what_a_terminal_gets_of_hostile_text_is_no_wider_than_it(texts: list[str], width: int) -> None:
    import contextlib
    import io

    from nsd.plugins.layout import show_lines
    from nsd.plugins.screen import console

    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        lines = lay_out([*COLUMNS[:3], texts[0]], [list(map(Cell, texts))] * 2, width)
        show_lines(console(), [*lines, *paragraph(" ".join(texts), width)])
    printed = shown.getvalue().removesuffix("\n").split("\n")
    assert max(map(cell_len, printed)) <= width
    assert len(printed) == len(lines) + len(paragraph(" ".join(texts), width))
