"""`nsd validate SPEC --audit`: each verifier of a spec tried on its dataset, before any model.

    code = audit_specs([Path("spec.yaml")], run_files=False, as_json=False)

What is tried: plugins/verifiers/audit.py, on questions as a run stores them. The dataset is made twice and must be the
same. Duplicates and leaks are those that the split leaves out.
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.plugins.screen import console, print_json, table
from nsd.runner.cli.validate import pairs_of, questions_of
from nsd.runner.spec.load import load_spec
from nsd.runner.store.tables import as_stored

if TYPE_CHECKING:
    from nsd.plugins.api import Dataset, Question, Verifier
    from nsd.plugins.verifiers.audit import Audit
    from nsd.plugins.verifiers.trial import Check
    from nsd.runner.spec.model import Block

SHOWN = 100  # characters of a text


def audit_specs(paths: list[Path], run_files: bool, as_json: bool) -> int:
    """Audit every verifier of these specs; 2 where one judges a text against what it is, else 0. Raises SpecErrors."""
    reports: list[dict[str, Any]] = []
    screen = console()
    for path in paths:
        for data, verifier in pairs_of(load_spec(path, run_files=run_files)):
            found, notes = _audited(data, verifier)
            names = {"spec": str(path), "data": data.use, "verifier": verifier.use}
            reports.append({**names, "notes": notes, **_plain(found)})
            if not as_json:
                _print(screen, path, data, verifier, found, notes)
    if as_json:
        print_json({"sound": not any(report["failed"] for report in reports), "audits": reports})
    return 2 if any(report["failed"] for report in reports) else 0


def _audited(data: Block[Dataset], verifier: Block[Verifier]) -> tuple[Audit, list[str]]:
    from nsd.plugins.datasets.split import split
    from nsd.plugins.verifiers.audit import audit

    dataset = data.make()
    begin = time.perf_counter()
    pools = dataset.pools()
    seconds = time.perf_counter() - begin
    _, report = split(pools, dataset.config.split)
    questions = [as_stored(one) for one in questions_of(pools)]
    if not questions:
        raise InputError(f"the dataset {data.use} has no questions to audit {verifier.use} on")
    with contextlib.redirect_stdout(sys.stderr):  # what a verifier prints is no part of the report
        found = audit(questions, verifier.make())
        again = [as_stored(one) for one in questions_of(data.make().pools())]
    notes = [*report.notes(), *found.notes, f"{seconds / len(questions) * 1000:.3g} ms to make a question"]
    return replace(found, checks=[*found.checks, same_questions(questions, again)]), notes


def same_questions(once: list[Question], again: list[Question]) -> Check:
    """A dataset that is another one each time cannot be resumed, and no digest stands for it."""
    from nsd.plugins.verifiers.trial import Check

    check = Check("same dataset", "another question, answer or meta when it is made again")
    if len(once) != len(again):
        check.fault(once[0], "", f"{len(once)} questions, then {len(again)}")
    for question, other in zip(once, again, strict=False):
        check.count(question == other, question, other.text, f"the second time answer {other.answer!r}")
    return check


def _print(
    screen: Any, path: Path, data: Block[Dataset], verifier: Block[Verifier], found: Audit, notes: list[str]
) -> None:
    verdict = "FAILED" if found.failed else "sound"
    screen.print(f"{path}: verifier {verifier.use} on {data.use}: {verdict}", style="bold", soft_wrap=True)
    rows = table("check", "tried", "found", "", "what was found", right=("tried", "found"))
    for check in found.checks:
        told = check.what if check.wrong else ""
        rows.add_row(check.name, f"{check.tried:,}", f"{check.wrong:,}", _mark(check), told)
    screen.print(rows)
    for check in found.checks:
        for one in check.examples[: 3 if check.failed else 1]:
            row = f", {one.question.place}" if one.question.place else ""
            screen.print(
                f"  {check.name}: question {one.question.id}{row}, gold {_short(str(one.question.answer))}: "
                f"{_short(one.text)}: {one.said}",
                soft_wrap=True,
            )
    for note in notes:
        screen.print(f"  data: {note}", soft_wrap=True)
    screen.print(f"  {found.seconds_each * 1000:.2f} ms for a text")


def _mark(check: Check) -> str:
    return "FAILED" if check.failed else "see below" if check.wrong else "ok"


def _plain(found: Audit) -> dict[str, Any]:
    checks = [
        {
            "name": check.name,
            "tried": check.tried,
            "found": check.wrong,
            "failed": check.failed,
            "what": check.what,
            "examples": [
                {"question": one.question.id, "place": one.question.place, "text": one.text, "said": one.said}
                for one in check.examples
            ],
        }
        for check in found.checks
    ]
    return {"failed": found.failed, "seconds_each": found.seconds_each, "checks": checks}


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}...")
