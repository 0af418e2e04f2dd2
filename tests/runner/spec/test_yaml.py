"""YAML with positions: which value a scalar is, what is refused, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd.runner.spec.errors import Problems, SpecErrors
from nsd.runner.spec.yaml import MAX_BYTES, Item, parse_yaml, read_yaml


def parsed(text: str | bytes) -> Item:
    problems = Problems()
    data = text.encode() if isinstance(text, str) else text
    item = parse_yaml(data, Path("x.yaml"), "x.yaml", problems)
    problems.raise_if_any()
    assert item is not None
    return item


def refused(text: str | bytes) -> str:
    with pytest.raises(SpecErrors) as caught:
        parsed(text)
    return "\n".join(error.message for error in caught.value.errors)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("1e-4", 1e-4),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("4_000", 4000),
        ("0x1f", 31),
        ("0o17", 15),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("L4:1", "L4:1"),
        ("yes", True),
        ("off", False),
        ("No", False),
        ("TRUE", True),
        ("~", None),
        ("null", None),
        ("", None),
        ('"no"', "no"),
        ("'2e-5'", "2e-5"),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("1e", "1e"),
        ("e5", "e5"),
        ("a b", "a b"),
        ("| \n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_a_scalar_is_what_a_person_means(text: str, value: Any) -> None:
    found = parsed(f"key: {text}").mapping["key"].value
    assert (found, type(found)) == (value, type(value))


def test_every_value_knows_its_line_and_column() -> None:
    item = parsed("name: x\nblock:\n  list: [1, two]\n")
    second = item.mapping["block"].mapping["list"].items[1]
    assert (second.position.line, second.position.column, second.position.length) == (3, 13, 3)
    key = item.mapping["block"].mapping["list"].key
    assert key is not None
    assert (key.line, key.column, key.length) == (3, 3, 4)


def test_merge_keys_fill_in_what_is_not_written() -> None:
    text = "base: &base {a: 1, b: 2}\nchild: {<<: *base, b: 3}\nboth: {<<: [{a: 5}, *base]}\n"
    plain = parsed(text).plain()
    assert plain["child"] == {"a": 1, "b": 3}
    assert plain["both"] == {"a": 5, "b": 2}


def test_the_parser_keeps_the_text_of_a_key() -> None:
    assert list(parsed("on: 1\n5: 2\n2e-5: 3\n").mapping) == ["on", "5", "2e-5"]


def test_all_bad_scalars_of_a_file_are_reported_at_once() -> None:
    with pytest.raises(SpecErrors) as caught:
        parsed("a: .nan\nb: -.inf\nc: 1e999\nd: !!binary aGk=\ne: !!int five\na: 2\n")
    assert [error.line for error in caught.value.errors] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: *x", "[" * 60 + "]" * 60, "a: 1\n---\nb: 2", "? {a: 1}\n: 2"])
def test_structures_no_spec_needs_are_refused(text: str) -> None:
    assert refused(text)


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert "100,000 values" in refused("\n".join(lines))


def test_a_wide_file_is_refused() -> None:
    assert "100,000 values" in refused("a: [" + "1, " * 120_000 + "1]")


def test_half_a_surrogate_pair_is_refused() -> None:
    assert refused('a: "\\ud800"')
    assert refused('"\\udfff": 1')


def test_line_numbers_agree_with_every_line_break_of_yaml() -> None:
    item = parsed("a: 1\r\nb: 2\r# c\nlast: 3\n")
    position = item.mapping["last"].position
    assert position.source.line(position.line) == "last: 3"


def test_files_that_are_none(tmp_path: Path) -> None:
    big = tmp_path / "big.yaml"
    big.write_text("#" * (MAX_BYTES + 1))
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "right.yaml").write_text("name: x")
    for path, words in [
        (big, "larger than"),
        (tmp_path / "folder.yaml", "is a folder"),
        (tmp_path / "rihgt.yaml", "there is no file"),
        (Path("/dev/null"), "not a regular file"),
    ]:
        problems = Problems()
        assert read_yaml(path, path.name, problems) is None
        with pytest.raises(SpecErrors, match=words):
            problems.raise_if_any()
    problems = Problems()
    read_yaml(tmp_path / "rihgt.yaml", "rihgt.yaml", problems)
    with pytest.raises(SpecErrors, match=r"did you mean 'right.yaml'\?"):
        problems.raise_if_any()


def test_a_frame_cannot_drive_a_terminal() -> None:
    with pytest.raises(SpecErrors) as caught:
        parsed("a: \x1b[31mred\n")
    assert "\x1b" not in str(caught.value)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_quoted_text_comes_back_as_it_was(text: str) -> None:
    escaped = "".join(f"\\U{ord(character):08x}" for character in text)
    assert parsed(f'key: "{escaped}"').mapping["key"].value == text


@given(st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_comes_back_as_it_was(number: float) -> None:
    found = parsed(f"key: {number!r}").mapping["key"].value
    assert (found, type(found)) == (number, type(number))
