"""Side files: known by content alone, read once, never another content than the digest's, never out of their folder."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nsd.plugins import side_files
from nsd.plugins.api import Question, Shown, SideFile, question_id, without_truth
from nsd.plugins.datasets.jsonl import Jsonl
from nsd.plugins.datasets.split import data_hash
from nsd.plugins.errors import InputError
from nsd.plugins.side_files import BrokenSideFile
from support import REPOSITORY

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # sha256 of "abc", as FIPS 180-2 has it
LONG_AGO = 10**18  # nanoseconds: a file of 2001


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def old_file(path: Path, content: bytes, mtime: int = LONG_AGO) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(mtime, mtime))
    return path


def cache_entries(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "nsd" / "side-files").glob("*.json"))


# --------------------------------------------------------------------------- what it is known by


def test_the_sha256_is_the_contents_and_the_place_is_no_part_of_it(tmp_path: Path) -> None:
    here, there = (SideFile.of(old_file(tmp_path / name / "x", b"abc")) for name in ("a", "b"))
    assert (here.sha256, here.size) == (ABC, 3)
    assert here == there and hash(here) == hash(there) and here.path != there.path
    assert str(tmp_path) not in repr(here)


def question(*files: SideFile, **meta: Any) -> Question:
    return Question("q", "How many?", "3", meta={**meta, **{f"tests{i}": file for i, file in enumerate(files)}})


def test_a_digest_of_questions_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    one, moved, other = (
        SideFile.of(old_file(tmp_path / name, content)) for name, content in (("1", b"a"), ("2", b"a"), ("3", b"b"))
    )
    assert data_hash([question(one)]) == data_hash([question(moved)]) != data_hash([question(other)])


def test_a_digest_tells_a_side_file_from_meta_that_looks_like_one(tmp_path: Path) -> None:
    side = SideFile.of(old_file(tmp_path / "x", b"abc"))
    assert data_hash([question(side)]) != data_hash([question(tests0=[side.sha256, side.size])])


def test_a_side_file_inside_another_value_is_refused(tmp_path: Path) -> None:
    side = SideFile.of(old_file(tmp_path / "x", b"abc"))
    with pytest.raises(InputError, match="give it a key of its own"):
        data_hash([question(tests=[side])])


def test_it_is_hidden_like_other_meta_and_shown_where_its_dataset_says_so(tmp_path: Path) -> None:
    asked = question(SideFile.of(old_file(tmp_path / "x", b"abc")), level=3)
    assert without_truth(asked, Shown(meta=frozenset(("level",)))).meta == {"level": 3}
    assert without_truth(asked, Shown(meta=frozenset(("tests0",)))).meta == {"tests0": asked.meta["tests0"]}


def test_another_process_gets_its_place_with_it(tmp_path: Path) -> None:
    side = SideFile.of(old_file(tmp_path / "x", b"abc"))
    came = pickle.loads(pickle.dumps(question(side)))
    assert came.meta["tests0"].read() == b"abc"


@pytest.mark.parametrize(("sha256", "size"), [("../x", 3), (ABC[:-1], 3), (ABC.upper(), 3), (ABC, -1), (ABC, True)])
def test_what_is_no_sha256_with_a_size_is_no_side_file(sha256: str, size: int) -> None:
    with pytest.raises(ValueError, match="no side file"):
        SideFile(sha256, size, Path("x"))


# --------------------------------------------------------------------------- looked at once

LOOK = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from nsd import SideFile
print(SideFile.of(sys.argv[1]).sha256, opened.count(sys.argv[1]))
"""


def test_a_second_process_opens_nothing_of_it(tmp_path: Path) -> None:
    path = old_file(tmp_path / "x", b"abc")

    def look() -> str:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        words = [sys.executable, "-c", LOOK, str(path)]
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert look() == f"{ABC} 1"
    assert look() == f"{ABC} 0"


@pytest.mark.parametrize(("content", "mtime"), [(b"xyz", LONG_AGO + 1), (b"abcd", LONG_AGO)])
def test_a_file_of_another_time_or_size_is_looked_at_anew(tmp_path: Path, content: bytes, mtime: int) -> None:
    path = old_file(tmp_path / "x", b"abc")
    SideFile.of(path)
    assert SideFile.of(old_file(path, content, mtime)).sha256 == hashlib.sha256(content).hexdigest()


def test_a_file_that_changed_just_now_may_change_again_within_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_files, "RECENT_NS", 2 * 10**18)  # even what is LONG_AGO is just now
    path = old_file(tmp_path / "x", b"abc")
    SideFile.of(path)
    assert SideFile.of(old_file(path, b"xyz")).sha256 == hashlib.sha256(b"xyz").hexdigest()


def test_a_change_that_no_time_tells_is_found_by_reading_and_then_known(tmp_path: Path) -> None:
    path = old_file(tmp_path / "x", b"abc")
    SideFile.of(path)
    side = SideFile.of(old_file(path, b"xyz"))
    assert side.sha256 == ABC
    with pytest.raises(BrokenSideFile):
        side.read()
    assert SideFile.of(path).sha256 == hashlib.sha256(b"xyz").hexdigest()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"7",
        b"\xff",
        b"[" * 100_000,
        b'{"size": 3}',
        b'{"size": 3, "mtime_ns": 1000000000000000000, "sha256": "../x"}',
        b'{"size": 3, "mtime_ns": 1000000000000000000, "sha256": 7}',
    ],
)
def test_a_broken_note_of_a_sha256_is_none(tmp_path: Path, content: bytes) -> None:
    path = old_file(tmp_path / "x", b"abc")
    SideFile.of(path)
    (entry,) = cache_entries(tmp_path)
    entry.write_bytes(content)
    assert SideFile.of(path).sha256 == ABC
    assert json.loads(entry.read_bytes())["sha256"] == ABC


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert SideFile.of(old_file(tmp_path / "x", b"abc")).sha256 == ABC


# --------------------------------------------------------------------------- what is no side file


def missing(path: Path) -> None:
    pass


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_circle(path: Path) -> None:
    path.symlink_to(path.name)


NO_FILES = [
    (missing, "there is no file"),
    (a_folder, "is a folder"),
    (a_pipe, "is no regular file"),
    (a_device, "is no regular file"),
    (a_circle, "cannot be read"),
]


@pytest.mark.parametrize(("made", "said"), NO_FILES)
def test_what_is_no_file_is_named_with_the_reason(tmp_path: Path, made: Any, said: str) -> None:
    made(tmp_path / "x")
    with pytest.raises(InputError, match=said) as caught:
        SideFile.of(tmp_path / "x")
    assert str(tmp_path / "x") in str(caught.value)


@pytest.mark.parametrize("made", [missing, a_folder, a_pipe, a_device])
def test_what_takes_a_side_files_place_is_not_read(tmp_path: Path, made: Any) -> None:
    side = SideFile.of(old_file(tmp_path / "x", b"abc"))
    side.path.unlink()
    made(side.path)
    with pytest.raises(BrokenSideFile, match=str(side.path)):
        side.read()


@pytest.mark.parametrize("content", [b"", b"ab", b"abcd", b"abx"])
def test_nobody_reads_another_content(tmp_path: Path, content: bytes) -> None:
    side = SideFile.of(old_file(tmp_path / "x", b"abc"))
    side.path.write_bytes(content)
    with pytest.raises(BrokenSideFile, match=str(side.path)):
        side.read()


def test_large_content_comes_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_files, "BLOCK", 7)
    content = bytes(range(100))
    assert SideFile.of(old_file(tmp_path / "x", content)).read() == content


def test_json_is_read_as_json_and_anything_else_is_named(tmp_path: Path) -> None:
    assert SideFile.of(old_file(tmp_path / "x", b'{"cases": [1]}')).json() == {"cases": [1]}
    with pytest.raises(InputError, match=f"{tmp_path / 'y'}: not JSON"):
        SideFile.of(old_file(tmp_path / "y", b"{")).json()


@pytest.mark.parametrize("name", ["../x", "/etc/hostname", "a/../../x", "", ".", "a\nb", "a\x00b", "..\\x", "C:/x"])
def test_a_name_of_a_data_file_never_leads_out(tmp_path: Path, name: str) -> None:
    old_file(tmp_path / "x", b"abc")
    (tmp_path / "data" / "a").mkdir(parents=True)
    with pytest.raises(InputError):
        SideFile.within(tmp_path / "data", name)


def test_a_link_is_followed_inside_the_folder_alone(tmp_path: Path) -> None:
    data = old_file(tmp_path / "data" / "x", b"abc").parent
    (data / "inside").symlink_to("x")
    (data / "outside").symlink_to(old_file(tmp_path / "secret", b"key"))
    assert SideFile.within(data, "./inside").sha256 == ABC
    with pytest.raises(InputError, match="leads out"):
        SideFile.within(data, "outside")


# --------------------------------------------------------------------------- of a data file

FIELDS = {"side_files": {"tests": "file"}}


def rows(path: Path, *names: str | None) -> Path:
    """A data file with one question for each name of a side file."""
    found = [{"question": f"{i}?", "answer": "3", "file": name} for i, name in enumerate(names)]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def questions_of(path: Path, **config: Any) -> list[Question]:
    return Jsonl(Jsonl.Config.model_validate({"train": str(path), "fields": FIELDS, **config})).pools().train


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_a_field_of_any_format_names_a_side_file(tmp_path: Path, suffix: str) -> None:
    import pyarrow
    import pyarrow.parquet

    old_file(tmp_path / "tests" / "1.json", b"abc")
    row = {"question": "0?", "answer": "3", "file": "tests/1.json"}
    path = tmp_path / f"x.{suffix}"
    if suffix == "csv":
        path.write_text("question,answer,file\n0?,3,tests/1.json\n")
    elif suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps([row] if suffix == "json" else row))
    (found,) = questions_of(path)
    assert found.meta == {"tests": SideFile(ABC, 3, tmp_path)} and found.meta["tests"].read() == b"abc"


def test_rows_that_name_none_have_none(tmp_path: Path) -> None:
    old_file(tmp_path / "1", b"abc")
    found = questions_of(rows(tmp_path / "x.jsonl", "1", None, ""))
    assert [sorted(one.meta) for one in found] == [["tests"], [], []]


def test_a_field_that_the_rows_lack_is_an_error_but_not_of_the_unlabeled_ones(tmp_path: Path) -> None:
    old_file(tmp_path / "1", b"abc")
    (tmp_path / "bare.jsonl").write_text('{"question": "bare?", "answer": "3"}')
    with pytest.raises(InputError, match="no field 'file'"):
        questions_of(tmp_path / "bare.jsonl")
    config = {"train": str(rows(tmp_path / "x.jsonl", "1")), "unlabeled": str(tmp_path / "bare.jsonl")}
    (bare,) = Jsonl(Jsonl.Config.model_validate({**config, "fields": FIELDS})).pools().unlabeled or []
    assert bare.meta == {}


@pytest.mark.parametrize(
    ("made", "said"), [*NO_FILES[:3], (a_device, "a link that leads out"), (a_circle, "leads nowhere")]
)
def test_a_row_that_names_no_file_is_named_with_the_way_out(tmp_path: Path, made: Any, said: str) -> None:
    made(tmp_path / "wanted")
    with pytest.raises(InputError, match=said) as caught:
        questions_of(rows(tmp_path / "x.jsonl", "wanted"))
    for part in (f"{tmp_path / 'x.jsonl'}:1", question_id("0?"), "'wanted'", f"put the file below {tmp_path}"):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "link"])
def test_a_row_that_names_a_file_elsewhere_is_named_and_not_followed(tmp_path: Path, name: str) -> None:
    secret = old_file(tmp_path / "secret", b"key")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(secret)
    with pytest.raises(InputError, match=r"x\.jsonl:1: question .* put the file below"):
        questions_of(rows(tmp_path / "data" / "x.jsonl", name))
    assert cache_entries(tmp_path) == []


def config(**fields: Any) -> Jsonl.Config:
    return Jsonl.Config.model_validate({"train": "x.jsonl", **fields})


def test_a_pseudo_example_may_be_shown_one() -> None:
    assert Jsonl(config(fields=FIELDS, shown=["tests", "id"])).shown().meta == {"tests", "id"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"fields": FIELDS, "shown": ["test"]}, "did you mean 'tests'"),
        ({"shown": ["tests"]}, "'tests' is none of context, id"),
        ({"fields": FIELDS, "hub": "owner/name"}, "a `hub` dataset has none"),
        ({"fields": {"side_files": {"id": "file"}}}, "'id' is taken"),
        ({"fields": {"side_files": {"tests": ""}}}, "a field of the rows for it"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(**fields)
