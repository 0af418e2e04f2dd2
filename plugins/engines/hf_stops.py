"""Where a row of the `hf` engine's batch meets a stop string.

A row ends with the first token after which its decoded text holds a stop string, wherever the string begins and
however many tokens it spans. That depends on the row's tokens alone, neither on its batch nor on how often one looks.

What is decoded at each token is the end of the text: as many tokens as the longest stop string has bytes, and a few
more, whose beginning may be cut within a character. What is found there is looked for in the whole text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nsd.plugins.data import cut_at_stop

MARGIN = 8  # tokens before those that a stop string can span: more than a character has bytes


class Stops:
    """The texts of rows as they grow, by the rows' numbers. `tokenizer` is that of transformers."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        # Special tokens have no text in a completion.
        added = tokenizer.added_tokens_decoder.items()
        self._special = {*tokenizer.all_special_ids, *(number for number, token in added if token.special)}
        self._tail = max(len(one.encode("utf-8", "surrogatepass")) for one in stop) + MARGIN
        self._written: dict[int, list[int]] = {}

    def first(self, row: int, tokens: Sequence[int]) -> int | None:
        """The position among a row's new tokens of the one that completes a stop string, None where none does."""
        written = self._written.setdefault(row, [])
        for position, token in enumerate(tokens):
            if token in self._special:
                continue
            written.append(token)
            if self._holds(written[-self._tail :]) and (len(written) <= self._tail or self._holds(written)):
                return position
        return None

    def forget(self, row: int) -> None:
        """The row has ended."""
        self._written.pop(row, None)

    def _holds(self, tokens: Sequence[int]) -> bool:
        return cut_at_stop(self._tokenizer.decode(tokens), self._stop)[1]
