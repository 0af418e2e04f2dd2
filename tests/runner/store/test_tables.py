"""The Parquet files of artifacts: what is written is what pyarrow makes of the same rows, and no pandas is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from nsd.runner.store import tables
from nsd.runner.store.shapes import Broken
from support import REPOSITORY

COLUMNS = {"t": "text", "i": "int", "f": "float", "b": "bool"}
SCHEMA = pyarrow.schema(
    [("t", pyarrow.string()), ("i", pyarrow.int64()), ("f", pyarrow.float64()), ("b", pyarrow.bool_())]
)
FULL: dict[str, Any] = {"t": "zwölf \U0001f600", "i": -(2**62), "f": float("inf"), "b": True}
EMPTY: dict[str, Any] = dict.fromkeys(COLUMNS)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [FULL],
        [EMPTY],
        [FULL | {"t": "", "i": 0, "f": -0.0, "b": False}] * 9 + [EMPTY, FULL] * 13,  # more than a byte of bits
        [FULL | {"f": 1, "i": 4.0}, EMPTY],  # numbers of another type, none of which loses anything
    ],
    ids=["none", "one", "nulls", "many", "other types"],
)
def test_a_file_has_the_bytes_that_pyarrow_gives_the_rows(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    tables.write(tmp_path / "ours.parquet", COLUMNS, rows)
    table = pyarrow.Table.from_pylist(rows, schema=SCHEMA)
    pyarrow.parquet.write_table(table, tmp_path / "theirs.parquet", compression="zstd")
    assert (tmp_path / "ours.parquet").read_bytes() == (tmp_path / "theirs.parquet").read_bytes()
    assert tables.read(tmp_path / "ours.parquet") == table.to_pylist()


def test_more_text_than_one_array_holds_is_divided_by_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = pyarrow.array
    monkeypatch.setattr(tables, "_MOST_CHARACTERS", 5)
    monkeypatch.setattr(pyarrow, "array", lambda values, kind: asked.append(values) or real(values, kind))
    tables.write(tmp_path / "some.parquet", {"t": "text", "u": "text"}, [{"t": "abc", "u": "ab"}, {"t": "def"}])
    assert asked == [["abc", "def"]]
    assert tables.read(tmp_path / "some.parquet") == [{"t": "abc", "u": "ab"}, {"t": "def", "u": None}]


@pytest.mark.parametrize(("name", "value"), [("i", "4"), ("f", "4"), ("t", 4), ("b", 1)])
def test_what_does_not_fit_its_column_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises((pyarrow.ArrowException, TypeError)):
        tables.write(tmp_path / "some.parquet", COLUMNS, [FULL | {name: value}])


def test_neither_a_write_nor_a_read_loads_pandas(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from nsd.runner.store import tables; path = Path(sys.argv[1]);"
        f"tables.write(path, {COLUMNS}, [dict(t='a', i=1, f=.5, b=True), dict()]); tables.read(path);"
        "print('pandas' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "some.parquet")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("content", [b"", b"PAR1 torn"])
def test_a_part_that_cannot_be_joined_is_named_and_nothing_is_written(
    tmp_path: Path, place: int, content: bytes
) -> None:
    parts = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for part in parts:
        tables.write(part, tables.VALUES, [{"question_id": part.stem, "value": 1.0}])
    tables.join(tmp_path / "whole.parquet", parts)
    assert [row["question_id"] for row in tables.read(tmp_path / "whole.parquet")] == ["0", "1"]
    (tmp_path / "whole.parquet").unlink()
    parts[place].write_bytes(content)
    with pytest.raises(Broken) as raised:
        tables.join(tmp_path / "whole.parquet", parts)
    assert raised.value.path == parts[place]
    tables.write(parts[place], {"question_id": "text"}, [{"question_id": "q"}])
    with pytest.raises(Broken, match=r"its columns are not those of 0\.parquet"):
        tables.join(tmp_path / "whole.parquet", parts)
    assert sorted(tmp_path.iterdir()) == parts
