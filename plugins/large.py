"""Questions that are too many to hold: sequences that read each one when it is asked for.

    questions = collected(made(row) for row in rows)       # a list, or from `HELD` on a Spool
    some = picked(questions, positions)                    # a list of a list, else a view
    known = keys_of(questions)                             # eight bytes of each question's id

Whatever takes a `Sequence[Question]` takes these: they iterate again and again, in the same order, and hold nothing of
a question but numbers. A Spool keeps its questions in a file without a name, in the folder for large temporary files
(TMPDIR, else /var/tmp), which goes with the process.

Limit: two ids with the same eight bytes count as one; of a million questions that happens once in 37 million times.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from nsd.plugins.data import Question

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Keys = npt.NDArray[np.uint64]
    Places = npt.NDArray[np.int64]

HELD = 16_384  # questions of a dataset that are held; more are kept in a file
_BUFFER = 1 << 20

Value = TypeVar("Value")
_Fields = tuple[str, str, str | None, str | None, str | None, Mapping[str, Any], str | None]  # a Question's, in order


def key_of(text: str) -> int:
    """Eight bytes of a text's BLAKE2b, as a number."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class Spooled(Generic[Value]):
    """Values in the order in which they came, in a file of their own, read by their number. They must pickle."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=_BUFFER, dir=_folder())  # noqa: SIM115 - it goes with this
        self._starts = array("Q", [0])
        self._unwritten = False

    def __len__(self) -> int:
        return len(self._starts) - 1

    def add(self, value: Value) -> None:
        """Keep one more."""
        self._starts.append(self._starts[-1] + self._file.write(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)))
        self._unwritten = True

    def read(self, number: int) -> Value:
        """The value before which `number` others were added."""
        if self._unwritten:
            self._file.flush()
            self._unwritten = False
        start = self._starts[number]
        found: Value = pickle.loads(os.pread(self._file.fileno(), self._starts[number + 1] - start, start))
        return found


def _folder() -> str | None:
    usual = Path("/var/tmp")  # /tmp may be memory
    return None if "TMPDIR" in os.environ or not os.access(usual, os.W_OK) else str(usual)


class Large(Sequence[Question]):
    """Questions that are read when they are asked for."""

    @property
    @abstractmethod
    def keys(self) -> Keys:
        """`key_of` of each id, in order: unsigned 64-bit numbers."""

    @abstractmethod
    def at(self, number: int) -> Question:
        """The question at a place from 0 on."""

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Question]: ...
    def __getitem__(self, index: int | slice) -> Question | Sequence[Question]:
        if isinstance(index, slice):
            import numpy as np

            return picked(self, np.arange(*index.indices(len(self))))
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        return self.at(number)

    def __iter__(self) -> Iterator[Question]:
        return map(self.at, range(len(self)))


class Spool(Large):
    """Questions kept in a file."""

    def __init__(self, questions: Iterable[Question]) -> None:
        self._kept = Spooled[_Fields]()
        self._keys = array("Q")
        for one in questions:
            self._kept.add((one.id, one.text, one.answer, one.solution, one.context, one.meta, one.place))
            self._keys.append(key_of(one.id))

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> Keys:
        import numpy as np

        return np.frombuffer(self._keys, np.uint64)

    def at(self, number: int) -> Question:
        return Question(*self._kept.read(number))


class Picked(Large):
    """Some questions of others, by their places there."""

    def __init__(self, of: Large, places: Places) -> None:
        self._of, self._places = of, places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def keys(self) -> Keys:
        return self._of.keys[self._places]

    def at(self, number: int) -> Question:
        return self._of.at(int(self._places[number]))


class Changed(Large):
    """Questions as a function that leaves their ids gives them."""

    def __init__(self, of: Large, change: Callable[[Question], Question]) -> None:
        self._of, self._change = of, change

    def __len__(self) -> int:
        return len(self._of)

    @property
    def keys(self) -> Keys:
        return self._of.keys

    def at(self, number: int) -> Question:
        return self._change(self._of.at(number))

    def __iter__(self) -> Iterator[Question]:
        return map(self._change, self._of)


def collected(questions: Iterable[Question], held: int = HELD) -> Sequence[Question]:
    """The questions, of which at most `held` are held in memory."""
    coming = iter(questions)
    first = list(islice(coming, held + 1))
    return first if len(first) <= held else Spool(chain(first, coming))


def keys_of(questions: Sequence[Question]) -> Keys:
    """`key_of` of each id, in order: unsigned 64-bit numbers."""
    import numpy as np

    if isinstance(questions, Large):
        return questions.keys
    return np.fromiter((key_of(one.id) for one in questions), np.uint64, len(questions))


def picked(questions: Sequence[Question], places: Places) -> Sequence[Question]:
    """The questions at these places, in this order."""
    if not isinstance(questions, Large):
        return [questions[place] for place in places.tolist()]
    return Picked(questions, places) if len(places) > HELD else [questions.at(place) for place in places.tolist()]


def changed(questions: Sequence[Question], change: Callable[[Question], Question]) -> Sequence[Question]:
    """The questions as `change`, which leaves their ids, gives them."""
    return Changed(questions, change) if isinstance(questions, Large) else [change(one) for one in questions]


def where(questions: Sequence[Question], wanted: Callable[[Question], bool]) -> Sequence[Question]:
    """The questions that are wanted."""
    import numpy as np

    if not isinstance(questions, Large):
        return [one for one in questions if wanted(one)]
    return picked(questions, np.flatnonzero(np.fromiter(map(wanted, questions), bool, len(questions))))


def without(questions: Sequence[Question], keys: Keys) -> Sequence[Question]:
    """The questions whose ids have none of these keys."""
    import numpy as np

    return picked(questions, np.flatnonzero(~np.isin(keys_of(questions), keys)))


class Parts(Sequence[Question]):
    """Sequences of questions, one after the other."""

    def __init__(self, *parts: Sequence[Question]) -> None:
        self._parts = list(parts)

    def add(self, part: Sequence[Question]) -> None:
        """Put one more behind the others."""
        self._parts.append(part)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[Question]:
        return chain.from_iterable(self._parts)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Question]: ...
    def __getitem__(self, index: int | slice) -> Question | Sequence[Question]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        for part in self._parts:
            if 0 <= number < len(part):
                return part[number]
            number -= len(part)
        raise IndexError(index)
