"""Samples that one stage can take from another: those of the same random streams, however many were asked for.

A completion depends on the seed of its stage, its question and the number of the sample (besides the model, the
engine, the prompt and how tokens are chosen), and on nothing else. So K=32 after K=8 draws 24 more, and K=8 after K=32
draws none; questions that were added later are drawn alone.
A vote that stops when it is decided draws the first ones of each question from the same streams.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import canonical_json, digest_of_text

HOW_MANY = ("generated_tokens", "rounds")  # what limits the samples of a question besides `n`
MOST = 512  # samples of a question: as far as relatives are looked for by their digest alone


def relatives(settings: Mapping[str, Any], manifests: Iterable[Manifest]) -> list[Manifest]:
    """Finished sample stages that drew from the streams of this one, those with most samples first.

    `settings` are a sample stage's. Which questions are the same is for the caller to see.
    """
    mine = _stream(settings)
    found = [one for one in manifests if one.kind == "sample" and one.settings and _stream(one.made_of) == mine]
    return sorted(found, key=lambda one: (-_samples(one.made_of), one.digest))


def same_streams(settings: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two sample stages draw from the same streams."""
    return _stream(settings) == _stream(other)


def there_already(settings: Mapping[str, Any], manifests: Iterable[Manifest]) -> int:
    """How many samples of each question a relative with the very same questions holds, at most as many as wanted."""
    if "generated_tokens" in settings:
        return 0  # how many are wanted shows while they are drawn
    same = [
        one
        for one in relatives(settings, manifests)
        if one.made_of["questions"] == settings["questions"] and not any(name in one.made_of for name in HOW_MANY)
    ]
    return min(_samples(settings), max((_samples(one.made_of) for one in same), default=0))


def siblings(key: Mapping[str, Any]) -> Iterator[str]:
    """Digests of the stages that ask the same for another number of samples, most samples first.

    `key` is a sample stage's, as its digest has it. Of one that a labeler limits those are meant that draw all.
    """
    whole = {name: value for name, value in key.items() if name != "rounds"}
    # The text around the number is the same for all: it is made once, around a number that it has nowhere else.
    text = canonical_json({**whole, "sampling": {**key["sampling"], "n": None}})
    place = next(number for number in itertools.count(MOST + 1) if str(number) not in text)
    before, _, after = canonical_json({**whole, "sampling": {**key["sampling"], "n": place}}).partition(str(place))
    for n in range(MOST, 0, -1):
        if n != _samples(key) or "rounds" in key:
            yield digest_of_text(f"{before}{n}{after}")


def _samples(settings: Mapping[str, Any]) -> int:
    return int(settings["sampling"]["n"])


def _stream(settings: Mapping[str, Any]) -> str:
    sampling = {name: value for name, value in settings.get("sampling", {}).items() if name != "n"}
    rest = {name: value for name, value in settings.items() if name not in HOW_MANY}
    return canonical_json({**rest, "sampling": sampling, "questions": None})
