"""The questions of a split as a run stored them: too many to hold, they stay in their file.

questions = stored_questions(workspace.data_file(content_hash))     # a list, or from plugins/large.py's `HELD` on more
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nsd.plugins.api import Question, SideFile
from nsd.plugins.large import HELD, Large, key_of
from nsd.runner.store import tables
from nsd.runner.store.shapes import Broken

if TYPE_CHECKING:
    from nsd.plugins.large import Keys


def stored_questions(path: Path) -> Sequence[Question]:
    """Questions as `tables.write_questions` stored them. Raises Broken."""
    return StoredQuestions(path) if tables.count(path) > HELD else tables.read_questions(path)


def side_files_of(path: Path) -> Iterator[SideFile]:
    """The side files of a split's questions, each once. Raises Broken."""
    seen: set[str] = set()
    for rows in tables.batches(path, ["side_files"]):
        try:
            found = [one for row in rows for one in tables.side_files(row, path.parent).values()]
        except (ValueError, TypeError, AttributeError) as error:
            raise Broken(path, f"it holds no questions ({error})") from error
        for one in found:
            if one.sha256 not in seen:
                seen.add(one.sha256)
                yield one


class StoredQuestions(Large):
    """The questions of a file, of which the row group last asked for is held. Raises Broken where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ends = _group_ends(path)
        self._keys: Keys | None = None
        self._group: tuple[int, list[Question]] = -1, []

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def keys(self) -> Keys:
        if self._keys is None:
            import numpy as np

            ids = (row["id"] for rows in tables.batches(self._path, ["id"]) for row in rows)
            self._keys = np.fromiter(map(key_of, ids), np.uint64, len(self))
        return self._keys

    def at(self, number: int) -> Question:
        group = bisect.bisect_right(self._ends, number)
        if group != self._group[0]:
            self._group = group, self._read(group)
        return self._group[1][number - (self._ends[group - 1] if group else 0)]

    def __iter__(self) -> Iterator[Question]:
        for rows in tables.batches(self._path):
            yield from tables.questions_of(rows, self._path)

    def _read(self, group: int) -> list[Question]:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self._path) as file:
                return tables.questions_of(file.read_row_group(group).to_pylist(), self._path)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise Broken(self._path, str(error)) from error


def _group_ends(path: Path) -> list[int]:
    """After how many rows each row group ends."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    return list(itertools.accumulate(sizes))
