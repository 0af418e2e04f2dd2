"""Rows of the `hf` engine that are asked for while others are drawn: no vote waits for another one.

Rows of questions whose votes are open go before those of questions that were not begun, so that few prompts are open at
once (hf_pool.py). Completions are handed out in parts, in the order in which they end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

from nsd.plugins.api import Completion, GrowingSamples, Sampling
from nsd.plugins.engines.asking import AskedPrompt
from nsd.plugins.engines.hf_rows import Loaded, Row, texts_of, wanted_row

if TYPE_CHECKING:  # what only a drawing needs is imported by it: a spec that names `hf` is read quickly
    from nsd.plugins.engines.hf_decode import Decoded
    from nsd.plugins.engines.hf_prefill import Wanted

Complete = Callable[[Row, str, "Decoded"], Completion]


class Growing:
    """The samples that are asked for of prompts, as rows (see `Work`); completions come in parts of so many.

    `complete` makes a completion of a row, its text and what was decoded.
    """

    def __init__(
        self,
        loaded: Loaded,
        prompts: Sequence[AskedPrompt],
        samples: GrowingSamples,
        sampling: Sampling,
        seed: int,
        part: int,
        complete: Complete,
    ) -> None:
        self._loaded, self._sampling, self._seed = loaded, sampling, seed
        self._samples, self._part, self._complete = samples, part, complete
        self._begun: dict[int, tuple[Row, Wanted]] = {}  # rows that are not written yet, in order
        self._further: deque[Row] = deque()
        self._new = ((prompt, sample) for prompt in prompts for sample in samples.first(prompt.question_id))
        self._numbers = count()
        self._made: list[Completion] = []

    def wanted(self) -> Iterator[Wanted]:
        """See `Work`. It may end, and go on where rows that were written ask for more."""
        return _Rows(self, deque(row for _, row in self._begun.values()))

    def next(self) -> Wanted | None:
        """The next row that was not begun, None where there is none for now."""
        row = self._further.popleft() if self._further else next(self._new, None)
        if row is None:
            return None
        prompt, sample = row
        begun = wanted_row(next(self._numbers), prompt, sample, self._loaded, self._sampling, self._seed)
        self._begun[begun.number] = row, begun
        return begun

    def take(self, number: int, decoded: Decoded) -> None:
        """See `Work`."""
        row, _ = self._begun.pop(number)
        (text,) = texts_of(self._loaded, [decoded])
        completion = self._complete(row, text, decoded)
        self._made.append(completion)
        self._further.extend((row[0], sample) for sample in self._samples.further(completion))

    def whole(self) -> Iterator[list[Completion]]:
        """See `Work`."""
        if len(self._made) >= self._part or (self._made and not self._begun and not self._further):
            made, self._made = self._made, []
            yield made

    def longest_prompt(self) -> int:
        """See `Work`."""
        return max(len(row.prompt) for _, row in self._begun.values())


class _Rows(Iterator["Wanted"]):
    """Rows that were begun before, then new ones for as long as there are any."""

    def __init__(self, work: Growing, before: deque[Wanted]) -> None:
        self._work, self._before = work, before

    def __next__(self) -> Wanted:
        row = self._before.popleft() if self._before else self._work.next()
        if row is None:
            raise StopIteration
        return row
