"""What tells that two runs mean the same question where they share its id.

nsd's own runs know a question by the hash of its text. An import may know it by an id of its file: with the texts
beside the ids, which are compared here, or by ids alone, which is said.

    pairing = load_pairing(connection, arms)
    pairing.apart(a, b)      # "different texts of 3 shared questions (the first is 'q7')", "" where there are none
    pairing.note(a, b)       # "pairing rests on ids alone: ..."
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsd.reports.judge.runs import Arm

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Pairing:
    """`how` by evaluation: text, checked, hashed, gold or id (`ImportedRun.pairing`); of nsd's own runs nothing.

    `texts` by evaluation: question id to the hash of its text, where two of the evaluations disagree on one.
    """

    how: Mapping[str, str]
    texts: Mapping[str, Mapping[str, str]]

    def apart(self, a: Arm, b: Arm) -> str:
        """Which shared questions have two texts, "" where none has, or where texts stand beside hashes of texts."""
        found: list[str] = []
        for kind in self._how(a) & self._how(b):
            first, second = self._texts(a, kind), self._texts(b, kind)
            found += [question for question, text in first.items() if second.get(question, text) != text]
        found = sorted(set(found))
        if not found:
            return ""
        which = "question" if len(found) == 1 else "questions"
        return f"different texts of {len(found)} {which} with the same id ({', '.join(map(repr, found[:3]))})"

    def note(self, a: Arm, b: Arm) -> str:
        """What is to be said of how the two were paired, "" where texts did it."""
        if a.counts_only or b.counts_only:
            return ""  # nothing is paired
        of_a, of_b = self._how(a), self._how(b)
        for arm, mine, theirs in ((a, of_a, of_b), (b, of_b, of_a)):
            if mine - {"text"} and not theirs - {"text"}:
                return (
                    f"{arm.name} knows its questions by an id of its file and the other run by their text: import it "
                    "by the text (--id FIELD --id-is-text) to pair them"
                )
        alone = [arm.name for arm, how in ((a, of_a), (b, of_b)) if "id" in how]
        if alone:
            return f"pairing rests on ids alone: no question text is known of {' and '.join(alone)}"
        texts, others = (sorted(one for one in how if _has_texts(one)) for how in (of_a, of_b))
        if texts and others and texts != others:
            return (
                f"pairing rests on ids alone: {a.name} and {b.name} have texts of other kinds (texts, hashes of them)"
            )
        return ""

    def _how(self, arm: Arm) -> set[str]:
        return {self.how.get(str(run.eval_digest), "text") for run in arm.runs}

    def _texts(self, arm: Arm, kind: str) -> dict[str, str]:
        digests = [str(run.eval_digest) for run in arm.runs if self.how.get(str(run.eval_digest), "text") == kind]
        return {question: text for digest in digests for question, text in self.texts.get(digest, {}).items()}


def _has_texts(how: str) -> bool:
    return how.partition(":")[0] in ("checked", "hashed")


def load_pairing(connection: duckdb.DuckDBPyConnection, arms: Sequence[Arm]) -> Pairing:
    """How the questions of these arms are known. Only texts that disagree somewhere among them are fetched."""
    digests = list({run.eval_digest for arm in arms for run in arm.runs if run.eval_digest is not None})
    how = connection.execute(
        "SELECT digest, json_extract_string(manifest, '$.eval.pairing') FROM stages "
        "WHERE kind = 'import' AND digest IN (SELECT unnest(?::TEXT[]))",
        [digests],
    ).fetchall()
    texts: dict[str, dict[str, str]] = {}
    if any(one is not None and _has_texts(one) for _, one in how):
        rows = connection.execute(
            "WITH mine AS (SELECT * FROM eval_texts WHERE eval_digest IN (SELECT unnest(?::TEXT[]))) "
            "SELECT eval_digest, question_id, text_hash FROM mine SEMI JOIN "
            "(SELECT question_id FROM mine GROUP BY 1 HAVING count(DISTINCT text_hash) > 1) USING (question_id)",
            [digests],
        ).fetchall()
        for digest, question, text in rows:
            texts.setdefault(digest, {})[question] = text
    return Pairing({digest: one for digest, one in how if one is not None}, texts)
