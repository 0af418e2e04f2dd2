"""A stage's questions block by block, and the completions of each block that are on disk.

    kept = Kept(questions, samples, folder / "shards", taken)
    for block in kept.blocks:
        here = kept.of(block)                  # a block's completions, and no other's
        here.others, here.drawn                # taken from other stages; of this stage's own shards

Blocks are what keeps a stage of a million questions in memory. Few questions are one block. Which questions share a
block changes no text, since a completion's random stream is of its question and number alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nsd.plugins.api import Completion, Question, StopReason
from nsd.plugins.large import HELD, key_of, keys_of
from nsd.runner.store import tables
from nsd.runner.store.shapes import Broken
from nsd.runner.work.rounds import Place

if TYPE_CHECKING:
    from nsd.plugins.large import Keys, Places

Found = TypeVar("Found")
ROWS = 65_536  # completions of a block, about
LEAST = 1024  # questions of a block


def block_size(samples: int) -> int:
    """How many questions are in memory at once, with so many samples of each."""
    return max(LEAST, min(HELD, ROWS // samples))


@dataclass
class Here:
    """The completions of a block: those that other stages drew from the same streams, and this stage's own."""

    others: dict[Place, Completion]
    drawn: dict[Place, Completion] = field(default_factory=dict)

    def add(self, batch: Iterable[Completion]) -> None:
        """Some more that this stage drew."""
        self.drawn |= {_place(item): item for item in batch}

    @property
    def held(self) -> dict[Place, Completion]:
        """What need not be drawn: what others drew, and what did not fail."""
        return {**self.others} | {key: item for key, item in self.drawn.items() if not item.failed}

    @property
    def all(self) -> dict[Place, Completion]:
        """All of them; of a place that is there twice the stage's own."""
        return self.others | self.drawn


class Kept:
    """Completions in files: `taken` from other stages, and those in the folder `shards`, which may become more.

    `samples` are wanted of each question, at most.
    """

    def __init__(self, questions: Sequence[Question], samples: int, shards: Path, taken: Sequence[Path] = ()) -> None:
        self.questions, self.shards, self.taken = questions, shards, taken
        shards.mkdir(parents=True, exist_ok=True)
        self._size = block_size(samples)
        self._last: tuple[int, Sequence[Question]] = -1, []
        self._here: tuple[int, Here] = -1, Here({})
        self._blocks_in: dict[Path, frozenset[int]] = {}

    @property
    def blocks(self) -> range:
        """The blocks' numbers."""
        return range(max(1, -(-len(self.questions) // self._size)))

    def questions_of(self, block: int) -> Sequence[Question]:
        """The questions of a block, in order."""
        if self._last[0] != block:
            self._last = block, list(self.questions[block * self._size : (block + 1) * self._size])
        return self._last[1]

    def of(self, block: int) -> Here:
        """What is on disk of a block. A file that cannot be read is set aside: its completions are owed again.

        The block last asked for is held, and whoever draws adds to it.
        """
        if self._here[0] != block:
            self._here = block, Here({})  # the last one goes before this one comes
            self._here = block, Here(self._read(self.taken, block), self._read(self.files, block))
        return self._here[1]

    def forget(self) -> None:
        """Look at the disk again, where others may have drawn."""
        self._here = -1, Here({})

    def count(self) -> int:
        """How many completions need not be drawn."""
        if len(self.blocks) == 1:
            return len(self.of(0).held)
        return sum(len(_readable(path, _sound)) for path in [*self.taken, *self.files])

    @property
    def files(self) -> list[Path]:
        """The stage's own shards, in order."""
        return sorted(self.shards.glob("*.parquet"))

    def _read(self, paths: Sequence[Path], block: int) -> dict[Place, Completion]:
        if len(self.blocks) == 1:
            return {_place(item): item for path in paths for item in _readable(path, tables.read_completions)}
        ids = {one.id for one in self.questions_of(block)}
        mine = (path for path in paths if block in self._among(path))
        items = (item for path in mine for item in _readable(path, tables.read_completions))
        return {_place(item): item for item in items if item.question_id in ids}

    def _among(self, path: Path) -> frozenset[int]:
        """The blocks that a file has completions of."""
        if path not in self._blocks_in:
            import numpy as np

            ids = {row["question_id"] for row in _readable(path, _ids)}
            places = self._finding.places(np.fromiter(map(key_of, ids), np.uint64, len(ids)))
            self._blocks_in[path] = frozenset(np.unique(places[places >= 0] // self._size).tolist())
        return self._blocks_in[path]

    @cached_property
    def _finding(self) -> Finding:
        return Finding(keys_of(self.questions))


class Finding:
    """Finds the places of questions by the keys of their ids."""

    def __init__(self, keys: Keys) -> None:
        self._order = keys.argsort()
        self._sorted = keys[self._order]

    def places(self, keys: Keys) -> Places:
        """Where each stands, -1 for one that does not."""
        import numpy as np

        if not len(self._sorted):
            return np.full(len(keys), -1)
        at = np.searchsorted(self._sorted, keys).clip(max=len(self._sorted) - 1)
        return np.where(self._sorted[at] == keys, self._order[at], -1)


class Texts:
    """Eight bytes of the text of each question, found by its id."""

    def __init__(self, questions: Sequence[Question]) -> None:
        import numpy as np

        self.finding = Finding(keys_of(questions))
        self.keys = np.fromiter((key_of(one.text) for one in questions), np.uint64, len(questions))


class Taking:
    """Chooses, of what others drew, the samples below `n` that are of these questions and were not chosen before."""

    def __init__(self, questions: Sequence[Question], n: int) -> None:
        import numpy as np

        self._mine = Texts(questions)
        self._n = n
        self._seen = np.zeros((len(questions), n), bool)

    def of(self, completions: Iterable[Completion], theirs: Texts | None) -> Iterator[list[Completion]]:
        """What is useful of a source, a part at a time. `theirs` are its questions, None: they are the same."""
        found: list[Completion] = []
        coming = iter(completions)
        while some := list(itertools.islice(coming, tables.BATCH)):
            found += self._useful(some, theirs)
            if len(found) >= ROWS:
                yield found
                found = []
        if found:
            yield found

    def _useful(self, some: Sequence[Completion], theirs: Texts | None) -> Iterator[Completion]:
        import numpy as np

        keys = np.fromiter((key_of(one.question_id) for one in some), np.uint64, len(some))
        places = self._mine.finding.places(keys)
        alike = places >= 0
        if theirs is not None:
            there = theirs.finding.places(keys)
            alike &= there >= 0
            alike[alike] = self._mine.keys[places[alike]] == theirs.keys[there[alike]]
        for one, place, same in zip(some, places.tolist(), alike.tolist(), strict=True):
            if same and one.sample < self._n and not one.failed and not self._seen[place, one.sample]:
                self._seen[place, one.sample] = True
                yield one


def _place(item: Completion) -> Place:
    return item.question_id, item.sample


def _ids(path: Path) -> list[dict[str, Any]]:
    return [row for rows in tables.batches(path, ["question_id"]) for row in rows]


def _sound(path: Path) -> list[None]:
    reasons = (row["stop_reason"] for rows in tables.batches(path, ["stop_reason"]) for row in rows)
    return [None for reason in reasons if reason != StopReason.ERROR]


def _readable(path: Path, read: Callable[[Path], list[Found]]) -> list[Found]:
    try:
        return read(path)
    except Broken as broken:  # its completions are owed again
        path.replace(path.with_name(f"{path.name}.broken"))
        print(f"{broken}; kept as {path.name}.broken, and drawn again")
        return []
