"""A verifier that reads each text once: voting again over the same samples asks the same again and again."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from nsd.plugins.api import Question, Score, Verifier


class Remembering(Verifier):
    """Another verifier that reads each text, and forms the classes of each set of answers, only once."""

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(verifier.config)
        self.verifier = verifier
        self._extract = functools.cache(verifier.extract)
        self._normalise = functools.cache(verifier.normalise)
        self._same = functools.cache(verifier.same)
        self._classes = functools.cache(self._class_numbers)

    def extract(self, completion: str) -> str | None:
        return self._extract(completion)

    def normalise(self, answer: str) -> str | None:
        return self._normalise(answer)

    def recorded(self, answer: str) -> str | None:
        return self.verifier.recorded(answer)

    def same(self, a: str, b: str) -> bool:
        return self._same(a, b)

    @property
    def by_equality(self) -> bool:
        return self.verifier.by_equality

    def group(self, answers: Sequence[str | None]) -> list[int | None]:
        """Classes do not depend on the order of the answers, so each choice of samples is looked up sorted."""
        given = [answer for answer in answers if answer is not None]
        classes = self._classes(tuple(sorted(given)))
        first: dict[int | None, int] = {}
        for index, answer in enumerate(answers):
            if answer is not None:
                first.setdefault(classes[answer], index)
        return [None if answer is None else first[classes[answer]] for answer in answers]

    def _class_numbers(self, answers: tuple[str, ...]) -> dict[str, int | None]:
        return dict(zip(answers, self.verifier.group(answers), strict=True))

    def score(self, completion: str, question: Question) -> Score:
        return self.verifier.score(completion, question)
