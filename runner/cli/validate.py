"""`nsd validate`: spec files in, every error of all of them out, and what a plan would refuse of their files.

Data in local files are read, generated ones only for a claim that asks what they tell, those on the hub only with
`--gold`. Loads neither numpy nor torch where nothing is read.
"""

from __future__ import annotations

import glob
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.runner.plan.refusals import refusals
from nsd.runner.spec.errors import SpecErrors
from nsd.runner.spec.load import load_spec

if TYPE_CHECKING:
    from nsd.plugins.api import Dataset, Pools, Question, Verifier
    from nsd.runner.spec.model import Block, Experiment

SHOWN_GOLD_FAILURES = 20


def spec_files(given: list[str]) -> list[Path]:
    """Files for what a person typed: a file, a folder (all specs below it) or a pattern (`specs/**/*.yaml`)."""
    found: list[Path] = []
    for text in given:
        path = Path(text)
        if path.is_dir():
            inside = sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")])
            if not inside:
                raise InputError(f"no spec (*.yaml) below the folder {text}")
            found += inside
        elif not path.exists() and any(mark in text for mark in "*?["):
            matches = sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207 (absolute patterns)
            if not matches:
                raise InputError(f"no file matches {text}")
            found += matches
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def validate_files(paths: list[Path], gold: bool, run_files: bool, as_json: bool) -> int:
    """Check every file and print what was found. Returns the exit code: 0, or 2 where any is wrong."""
    reports: list[dict[str, Any]] = []
    texts: list[str] = []
    told: dict[str, list[str]] = {}
    for path in paths:
        try:
            experiment = load_spec(path, run_files=run_files)
        except SpecErrors as errors:
            reports += [error.to_json() for error in errors.errors]
            texts.append(str(errors))
            continue
        try:
            notes: list[str] = []
            problems = refusals(experiment, all_data=gold, notes=notes)
            if notes:
                told[str(path)] = notes
            if gold and not problems:
                problems = check_gold_answers(experiment)
        except InputError as error:  # its data or a plugin's file; the other specs are checked all the same
            problems = [str(error)]
        reports += [{**blank_report(path), "message": problem} for problem in problems]
        if problems:
            texts.append("\n".join(f"{path}: {problem}" for problem in problems))
        elif not as_json:
            conditions, seeds = len(experiment.conditions), len(experiment.seeds)
            print(f"{path}: ok, {conditions} condition{'s' * (conditions != 1)} x {seeds} seed{'s' * (seeds != 1)}")
            for note in told.get(str(path), ()):
                print(f"{path}: note: {note}")
    if as_json:
        from nsd.plugins.screen import print_json

        print_json({"valid": not reports, "errors": reports, "notes": told})
    elif texts:
        print("\n\n".join(texts), file=sys.stderr)
    return 2 if reports else 0


def blank_report(path: Path) -> dict[str, Any]:
    """An error report that concerns a whole file."""
    return {"file": str(path), "line": 1, "column": 1, "suggestion": None}


def pairs_of(experiment: Experiment) -> list[tuple[Block[Dataset], Block[Verifier]]]:
    """Every dataset of a spec with every verifier that judges answers to it, once each."""
    from nsd.runner.spec.digest import digest_config

    pairs: dict[str, tuple[Block[Dataset], Block[Verifier]]] = {}
    for condition in experiment.conditions.values():
        used = [(condition.data, verifier) for verifier in (condition.verifier, condition.training_verifier)]
        used += [(measured.data, measured.verifier) for _, measured in condition.measured()]
        for data, verifier in used:
            pair = [[block.use, digest_config(block.config)] for block in (data, verifier)]
            pairs.setdefault(json.dumps(pair, default=str), (data, verifier))
    return list(pairs.values())


def questions_of(pools: Pools) -> list[Question]:
    """All questions of a dataset with what is known of them."""
    # What stays unlabeled needs no answer; where it has one, labels are held against it.
    hidden = [replace(one, solution=None) for one in pools.unlabeled or [] if one.answer is not None]
    return [*pools.train, *(pools.test or []), *hidden]


def check_gold_answers(experiment: Experiment) -> list[str]:
    """Score every gold solution with the condition's verifiers; each failure as a sentence."""
    from nsd.plugins.verifiers.gold import check_gold

    problems: list[str] = []
    for data, verifier_block in pairs_of(experiment):
        questions = questions_of(data.make().pools())
        failures = check_gold(questions, verifier_block.make())
        for failure in failures[:SHOWN_GOLD_FAILURES]:
            start = " ".join(failure.question.text.split())[:70]
            row = f", {failure.question.place}" if failure.question.place else ""
            problems.append(f"gold answer of question {failure.question.id} ({start}...){row}: {failure.reason}")
        if len(failures) > SHOWN_GOLD_FAILURES:
            problems.append(f"and {len(failures) - SHOWN_GOLD_FAILURES} more gold answers that do not verify")
        wrong = len(failures)
        print(
            f"{experiment.path}: {len(questions) - wrong} of {len(questions)} gold answers of {data.use} "
            f"verify under {verifier_block.use}",
            file=sys.stderr,
        )
    return problems
