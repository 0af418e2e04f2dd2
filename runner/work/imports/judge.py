"""Judges recorded answers by gold answers, for `runner/work/imports/reading.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nsd.plugins.api import Verifier
from nsd.plugins.errors import InputError
from nsd.runner.store.workspace import digest_of
from nsd.runner.work.imports.files import Table
from nsd.runner.work.imports.rows import ABSENT, fields_there, get_field, is_nothing, text_of


@dataclass
class Judge:
    """Compares recorded answers with gold answers; equal texts are judged once."""

    verifier: Verifier
    golds: dict[str, str]
    data_hash: str | None
    verifier_hash: str
    normal: dict[str, str | None] = field(default_factory=dict)
    verdicts: dict[tuple[str, str], bool] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        table: Table,
        ids: Sequence[str],
        gold_field: str,
        verifier: str | Verifier,
        ids_are_content: bool,
    ) -> Judge:
        """Normalise every gold answer. Raises InputError at the first that the verifier cannot read.

        Ids that are content hashes pair questions by themselves, so the data need no hash of their own.
        """
        from nsd.runner.plan.keys import plugin_key
        from nsd.runner.spec.digest import digest_config

        named = verifier if isinstance(verifier, str) else verifier.name
        if isinstance(verifier, str):
            from nsd.plugins.registry import find

            made = find("verifier", verifier)()
            assert isinstance(made, Verifier)
            verifier = made
        golds: dict[str, str] = {}
        raw: dict[str, str] = {}
        for (number, row), question in zip(table.rows, ids, strict=True):
            value = get_field(row, gold_field)
            if is_nothing(value) or isinstance(value, (dict, list)):
                there = fields_there(row, gold_field) if value is ABSENT else ""
                raise InputError(f"{table.place(number)}: no gold answer in the field {gold_field!r}{there}")
            text = text_of(value)
            if (before := raw.setdefault(question, text)) != text:
                raise InputError(
                    f"{table.place(number)}: question {question!r} has the gold {text!r} here, {before!r} above"
                )
            if question in golds:
                continue
            normal = verifier.normalise(text)
            if normal is None:
                raise InputError(
                    f"{table.place(number)}: verifier {verifier.name!r} finds no answer in the gold {text!r}"
                )
            golds[question] = normal
        # The same key as an evaluation stage's, so that an import pairs with nsd's own runs.
        verifier_hash = digest_of(plugin_key(verifier, digest_config(verifier.config), "verifier", named))
        data_hash = None if ids_are_content else digest_of(["imported", sorted(golds.items())])
        return cls(verifier, golds, data_hash, verifier_hash)

    def __call__(self, question: str, answer: str) -> tuple[bool, str | None]:
        """Whether the answer is right, and its normal form."""
        if answer not in self.normal:
            self.normal[answer] = self.verifier.recorded(answer)
        normal, gold = self.normal[answer], self.golds[question]
        if normal is None:
            return False, None
        if (normal, gold) not in self.verdicts:
            self.verdicts[normal, gold] = self.verifier.same(normal, gold)
        return self.verdicts[normal, gold], normal
