"""Finding the last box of a LaTeX text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd.plugins.verifiers.boxed import last_boxed


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{5}", "5"),
        (r"first \boxed{5}, then \boxed{ 6 }.", "6"),
        (r"\boxed{\frac{1}{2}} and {more}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{7}", "7"),
        (r"$\boxed 2$.", "2"),
        (r"so it is \boxed 5.", "5"),
        (r"\boxed {9}", "9"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{}", ""),
        (r"\boxed{5} and cut at \boxed{12", "5"),
        (r"stray } here \boxed{5} { there", "5"),
        (r"\\boxed{5}", None),  # an escaped backslash: a line break and the word
        (r"\boxedx{5}", None),
        ("no box", None),
    ],
)
def test_last_box(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


@given(st.text(alphabet="ab1 +_^", max_size=20), st.text(alphabet="ab{}$ ", max_size=10))
def test_what_was_boxed_comes_back(content: str, before: str) -> None:
    assert last_boxed(f"{before}\\boxed{{{content}}}") == content.strip()


PIECES = st.sampled_from(["\\boxed", "\\fbox", "{", "}", "\\", " ", "5", "$", "\\{", "\n"])


@given(st.lists(PIECES, max_size=40).map("".join))
def test_never_raises_and_gives_a_part_of_the_text_after_a_box(text: str) -> None:
    content = last_boxed(text)
    if content is not None:
        first_box = min(start for word in ("\\boxed", "\\fbox") if (start := text.find(word)) >= 0)
        assert content in text[first_box:]


def test_linear_in_the_text() -> None:
    started = time.process_time()
    assert last_boxed("\\boxed{" * 200_000) is None
    assert last_boxed("\\boxed{" * 100_000 + "5" + "}" * 100_000) == "5"
    assert time.process_time() - started < 5
